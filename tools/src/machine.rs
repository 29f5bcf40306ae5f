//! What the machine offers: memory, its limits, and an address.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use ringmq_broker::Machine;

/// Where control groups are mounted.
const CGROUP: &str = "/sys/fs/cgroup";

/// Looks at the machine. `cores` are those that the process may run on.
pub fn look(cores: usize) -> Machine {
    let memory = rustix::system::sysinfo();
    let memory = (memory.totalram as u64).saturating_mul(u64::from(memory.mem_unit));
    Machine { cores, memory, cgroup_memory: cgroup_memory(), address: address() }
}

/// The smallest memory limit of this process's control group and those around it, version 2 or 1.
fn cgroup_memory() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    smallest_limit(&groups, |path| std::fs::read_to_string(path).ok())
}

/// `groups` is /proc/self/cgroup: lines of `number:controllers:path`.
fn smallest_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (Path::new(CGROUP).to_owned(), "memory.max"),
            some if some.split(',').any(|name| name == "memory") => {
                (Path::new(CGROUP).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(group.trim_start_matches('/'));
        let around = group.ancestors().take_while(|dir| dir.starts_with(&root));
        limits.extend(around.filter_map(|dir| read(&dir.join(file))?.trim().parse::<u64>().ok()));
    }
    // Version 1 writes "no limit" as a number near the largest.
    limits.into_iter().min().filter(|limit| *limit < 1 << 60)
}

/// The address that packets to other machines would come from. Nothing is sent.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // 192.0.2.1 stands in documentation and belongs to nobody.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        smallest_limit(groups, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/memory.max", "2147483648\n"),
        ];
        assert_eq!(limit("0::/a/b\n", &files), Some(1 << 30));
        assert_eq!(limit("0::/\n", &files[2..]), Some(2 << 30));
        assert_eq!(limit("0::/a/b\n", &files[..1]), None);
        assert_eq!(limit("nonsense\n", &files), None);
    }

    #[test]
    fn version_1_has_files_of_its_own() {
        let groups = "5:cpu,cpuacct:/x\n4:memory:/x\n";
        let file = "/sys/fs/cgroup/memory/x/memory.limit_in_bytes";
        assert_eq!(limit(groups, &[(file, "536870912\n")]), Some(512 << 20));
        assert_eq!(limit(groups, &[(file, "9223372036854771712\n")]), None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(look(1).memory > 64 << 20);
    }
}
