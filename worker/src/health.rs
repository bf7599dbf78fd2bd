//! What machine this worker runs on, as far as load generation depends on it.
//!
//! Read once at the start and told to the coordinator in `Hello`; the per-interval figures of lanes travel with the
//! measurements.

use vst_common::count;

/// CPU cores, memory and name of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPU cores that this process may use.
    pub cores: u32,
    /// Memory that this process may use, bytes: the machine's, or its control group's limit where that is smaller.
    pub memory_bytes: u64,
    /// Host name.
    pub host: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let cores =
            std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let info = rustix::system::sysinfo();
        let installed = count::to_u64(i64::try_from(info.totalram).unwrap_or(i64::MAX))
            .saturating_mul(u64::from(info.mem_unit.max(1)));
        let limit =
            std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| group_limit(&text));
        let name = rustix::system::uname();
        Self {
            cores,
            memory_bytes: limit.map_or(installed, |limit| limit.min(installed)),
            host: name.nodename().to_string_lossy().into_owned(),
        }
    }
}

/// The limit of a control group (version 2), bytes; `None` for `max`.
fn group_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_limit_has_none() {
        assert_eq!(group_limit("max\n"), None);
        assert_eq!(group_limit("1073741824\n"), Some(1 << 30));
    }

    #[test]
    fn a_machine_has_cores_memory_and_a_name() {
        let machine = Machine::here();
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes > 1 << 20);
        assert!(!machine.host.is_empty());
    }
}
