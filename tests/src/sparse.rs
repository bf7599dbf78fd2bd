//! Large data sets that cost no disk, and what a process takes of this machine.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What the kernel counts CPU time in where it tells programs of it, whatever it counts in itself.
const TICKS_PER_S: f64 = 100.0;

/// A u8bin file of so many rows that are all zero, but for those that are given: the system keeps only what was
/// written.
#[must_use]
pub fn u8bin(folder: &Path, rows: u32, dims: u32, known: &[(u64, Vec<u8>)]) -> PathBuf {
    let path = folder.join("sparse.u8bin");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&[rows.to_le_bytes(), dims.to_le_bytes()].concat()).expect("written");
    file.set_len(8 + u64::from(rows) * u64::from(dims)).expect("a sparse file");
    for (row, vector) in known {
        file.seek(SeekFrom::Start(8 + row * u64::from(dims))).expect("found");
        file.write_all(vector).expect("written");
    }
    path
}

/// The most memory that a process ever had resident, bytes; `None` once it has ended.
#[must_use]
pub fn most_resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// CPU time that a process has taken, seconds; `None` once it has ended.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may contain anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..13)?.iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some(ticks as f64 / TICKS_PER_S)
}
