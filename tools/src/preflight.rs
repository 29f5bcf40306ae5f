//! What is checked before anything starts, so that whoever starts it reads one clear message.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ringmq_env::process::{LockFile, port_owner};
use ringmq_options::show_size;

/// Least free space of the data directory's file system, in bytes.
const MIN_FREE: u64 = 64 << 20;

/// The file that a running process locks; it stays behind.
const LOCK: &str = "lock";

/// Creates the data directory if need be, checks it, and locks it until the result is dropped.
pub fn claim_directory(dir: &Path) -> anyhow::Result<LockFile> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).with_context(|| {
        format!(
            "cannot create the data directory {shown}: choose another one with --data, or make it writable"
        )
    })?;
    // What is there already is served, even on a full disk; only something new is not begun there.
    let is_new = !dir.join(LOCK).exists();
    let lock = LockFile::acquire(&dir.join(LOCK))?;
    let space = rustix::fs::statvfs(dir).with_context(|| format!("cannot look at {shown}"))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    ensure!(
        free >= MIN_FREE || !is_new,
        "the file system of {shown} has {} bytes free, at least {} are needed: make room, or choose another \
         directory with --data",
        free,
        show_size(MIN_FREE)
    );
    Ok(lock)
}

/// Checks that nobody listens on `addr`; `flag` is what changes it. For port 0 finds a free one.
pub fn claim_port(addr: SocketAddr, flag: &str) -> anyhow::Result<SocketAddr> {
    if addr.port() == 0 {
        let free = TcpListener::bind(addr).and_then(|listener| listener.local_addr());
        return free
            .with_context(|| format!("cannot listen on {}: choose another address with --bind", addr.ip()));
    }
    match port_owner(addr) {
        Ok(None) => Ok(addr),
        Ok(Some(owner)) => {
            bail!("{owner} listens on {addr} already: stop it, or choose another port with {flag}")
        }
        Err(error) => {
            bail!("cannot listen on {addr}: {error}: choose another address with --bind or port with {flag}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let lock = claim_directory(&data).unwrap();
        let error = claim_directory(&data).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        claim_directory(&data).unwrap();
    }

    #[test]
    fn a_file_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = claim_directory(&dir.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("--data"), "{error:#}");
    }
}
