//! What the operating system says of a server's process: resident and swapped memory, page faults.
//!
//! Read from `/proc` where the server runs on this machine, which its address, its process number and the instant of its
//! start must agree on. Law: figures of another process are never taken for the server's; in doubt there are none.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use vst_common::batch::memory::Process;

use vst_access::split;

/// Ticks of the kernel's clock in a second; the same on every Linux that user programs see.
const TICKS_PER_SECOND: f64 = 100.0;
/// The server says its age in whole seconds, and from its own first look at the clock.
const START_SLACK_SECONDS: f64 = 2.5;

/// Figures of the server that answered from `address`; `None` where it is not on this machine or hides.
pub(super) fn read(address: &str, info: &BTreeMap<String, String>) -> Option<Process> {
    let number = |name: &str| info.get(name)?.parse::<u64>().ok();
    let (pid, age_seconds) = (number("process_id")?, number("uptime_in_seconds")?);
    let (host, _) = split(address)?;
    // Names are not looked up: that would take its time at every tick.
    let ip = if host == "localhost" { IpAddr::from(Ipv4Addr::LOCALHOST) } else { host.parse().ok()? };
    if !is_here(ip) {
        return None;
    }
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let stat = parse_stat(&file("stat")?)?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let running: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = running - stat.started_ticks / TICKS_PER_SECOND;
    if (age - vst_common::count::to_f64(age_seconds)).abs() > START_SLACK_SECONDS {
        return None;
    }
    let status = file("status")?;
    Some(Process {
        rss_bytes: bytes_of(&status, "VmRSS:")?,
        swap_bytes: bytes_of(&status, "VmSwap:")?,
        minor_faults: stat.minor_faults,
        major_faults: stat.major_faults,
    })
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_here(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[derive(Debug, PartialEq)]
struct Stat {
    minor_faults: u64,
    major_faults: u64,
    /// Since the machine's start.
    started_ticks: f64,
}

/// Reads `/proc/PID/stat`. The second field is the program's name in brackets, which may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, after) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // The third field of the file is the first one here.
    let field = |n: usize| fields.get(n.checked_sub(3)?);
    Some(Stat {
        minor_faults: field(10)?.parse().ok()?,
        major_faults: field(12)?.parse().ok()?,
        started_ticks: field(22)?.parse().ok()?,
    })
}

/// A line of `/proc/PID/status`, given in KiB.
fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process would say of itself as a server.
    fn own_info() -> BTreeMap<String, String> {
        let stat = parse_stat(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let running: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let age = running - stat.started_ticks / TICKS_PER_SECOND;
        BTreeMap::from([
            (String::from("process_id"), std::process::id().to_string()),
            (String::from("uptime_in_seconds"), format!("{age:.0}")),
        ])
    }

    #[test]
    fn a_process_of_this_machine_is_read_and_grows_as_it_touches_pages() {
        let before = read("127.0.0.1:6379", &own_info()).unwrap();
        let touched = vec![1_u8; 32 << 20];
        let after = read("localhost:6379", &own_info()).unwrap();
        assert!(touched.iter().all(|byte| *byte == 1));
        // Other tests of this process come and go, so what was there before is no measure.
        assert!(after.rss_bytes >= 32 << 20, "{before:?} {after:?}");
        assert!(after.minor_faults > before.minor_faults, "{before:?} {after:?}");
    }

    #[test]
    fn another_machine_and_another_process_of_the_same_number_are_not_read() {
        // An address for documentation, which nobody has.
        assert_eq!(read("192.0.2.1:6379", &own_info()), None);
        let mut younger = own_info();
        let age: u64 = younger["uptime_in_seconds"].parse().unwrap();
        younger.insert(String::from("uptime_in_seconds"), (age + 10).to_string());
        assert_eq!(read("127.0.0.1:6379", &younger), None);
        assert_eq!(read("127.0.0.1:6379", &BTreeMap::new()), None);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_moves_no_field() {
        let text = "12 (a) b) S 1 12 12 0 -1 4194304 77 0 5 0 3 4 0 0 20 0 9 0 6180 1 2\n";
        assert_eq!(parse_stat(text), Some(Stat { minor_faults: 77, major_faults: 5, started_ticks: 6180.0 }));
        assert_eq!(parse_stat("12 (a) S 1"), None);
    }
}
