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

/// CPU time that a worker has taken, seconds, by what it was for.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCpu {
    /// In its own code: reading, widening, encoding, taking in replies, recording.
    pub user: f64,
    /// In the kernel for its load lanes: their sockets. The loopback does the receiver's part of it, too.
    pub sockets: f64,
    /// In the kernel for its other threads: reading files, talking to the coordinator.
    pub reading: f64,
}

impl std::ops::Sub for WorkerCpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user - before.user,
            sockets: self.sockets - before.sockets,
            reading: self.reading - before.reading,
        }
    }
}

/// CPU time of a worker; `None` once it has ended.
#[must_use]
pub fn worker_cpu(pid: u32) -> Option<WorkerCpu> {
    let [user, kernel] = times(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let mut sockets = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end between the list and the look; lanes live as long as their worker.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        if stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with("lane-")) {
            sockets += times(&stat)?[1];
        }
    }
    Some(WorkerCpu { user, sockets, reading: kernel - sockets })
}

/// CPU time that a process has taken, seconds; `None` once it has ended.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let [user, kernel] = times(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(user + kernel)
}

/// User and system time of a process or thread, seconds.
fn times(stat: &str) -> Option<[f64; 2]> {
    // The name stands in brackets and may contain anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some([ticks(11)? / TICKS_PER_S, ticks(12)? / TICKS_PER_S])
}
