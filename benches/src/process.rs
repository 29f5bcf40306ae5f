//! What a process cost: CPU time (all its threads, kernel workers included), memory, context switches, bytes
//! written to the device; as Linux accounts them under /proc.

use std::time::Duration;

/// A reading of a process's counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of every thread, io_uring's workers included.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Bytes that the process caused to be written to storage.
    pub written: u64,
}

impl Usage {
    /// Reads the counters of `pid`; zeros when it is gone.
    pub fn of(pid: u32) -> Usage {
        Usage {
            cpu: cpu(pid).unwrap_or_default(),
            resident: field(&format!("/proc/{pid}/status"), "VmRSS:").unwrap_or(0) * 1024,
            written: field(&format!("/proc/{pid}/io"), "write_bytes:").unwrap_or(0),
        }
    }
}

fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

fn field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
