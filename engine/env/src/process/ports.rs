//! Whether a port is taken: SO_REUSEPORT is set on all our listeners, so binding alone would not tell.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// How long a port may stay taken after its process has gone: the kernel closes the sockets that its rings still
/// watch some time after the process.
const LONGEST_RELEASE: Duration = Duration::from_secs(3);
/// Between two looks at such a port.
const LOOK_AGAIN: Duration = Duration::from_millis(3);

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    /// Its process id, if /proc tells (it does of processes of the same user, or to root).
    pub pid: Option<u32>,
}

impl std::fmt::Display for PortOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

/// Tells whether anybody listens on `addr` already. Ask before listening. Port 0 is never taken. Other errors than
/// "in use" (no such address, no permission) are returned.
///
/// If it is taken and no process has the socket open, waits up to 3 s for the kernel to close it: that is what
/// killed processes leave. Blocks the thread: not for executors.
pub fn port_owner(addr: SocketAddr) -> io::Result<Option<PortOwner>> {
    let deadline = Instant::now() + LONGEST_RELEASE;
    loop {
        let owner = port_owner_now(addr)?;
        if owner.as_ref().is_none_or(|owner| owner.pid.is_some()) || Instant::now() >= deadline {
            return Ok(owner);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn port_owner_now(addr: SocketAddr) -> io::Result<Option<PortOwner>> {
    if addr.port() == 0 {
        return Ok(None);
    }
    // A socket without SO_REUSEPORT cannot share the port with anybody.
    match TcpListener::bind(addr) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let pid = listening_inodes(addr).iter().find_map(|inode| process_with_socket(inode));
            Ok(Some(PortOwner { pid }))
        }
        Err(error) => Err(error),
    }
}

/// Inode numbers of the sockets that listen on an address or its wildcard, from /proc/net.
fn listening_inodes(addr: SocketAddr) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    text.iter().flat_map(|text| text.lines()).filter_map(|line| listener(line, addr)).collect()
}

/// The inode of a line of /proc/net/tcp, if it is a listener that stands in `addr`'s way.
fn listener(line: &str, addr: SocketAddr) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != LISTEN || u16::from_str_radix(port, 16).ok()? != addr.port() {
        return None;
    }
    let ip = parse_ip(ip)?;
    let hit = ip == addr.ip().to_canonical() || ip.is_unspecified() || addr.ip().is_unspecified();
    hit.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

/// An address as /proc/net writes it: words of 32 bits in the machine's byte order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// The process that has a socket open, as far as /proc shows its descriptors.
fn process_with_socket(inode: &str) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
    };
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(has_it)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn lines_of_proc_net_are_understood() {
        let line =
            "   0: 0100007F:2A9F 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0";
        let at = |addr: &str| listener(line, addr.parse().unwrap());
        assert_eq!(at("127.0.0.1:10911"), Some("4711".into()));
        assert_eq!(at("0.0.0.0:10911"), Some("4711".into()));
        assert_eq!((at("127.0.0.2:10911"), at("127.0.0.1:10912")), (None, None));
        let established = line.replace(" 0A ", " 01 ");
        assert_eq!(listener(&established, "127.0.0.1:10911".parse().unwrap()), None);
        assert_eq!(parse_ip("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(parse_ip("0000000000000000FFFF00000100007F"), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!((parse_ip("xyz"), listener("", "127.0.0.1:1".parse().unwrap())), (None, None));
    }
}
