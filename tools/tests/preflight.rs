//! What the machine does not permit is told before anything is begun: one line that says what to change.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The message of `ringmq server`, started with `restrict` in force; it must refuse to start.
fn refused(restrict: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(["server", "--port", "0", "--namesrv-port", "0", "--data"]).arg(dir.path());
    // SAFETY: `restrict` makes system calls only, which is what the child may do between fork and exec.
    unsafe { command.pre_exec(restrict) };
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("ringmq: ") && output.stdout.is_empty(), "{said}");
    said
}

/// A filter that answers `call` with `errno`, as container runtimes' profiles do.
fn filter(call: i64, errno: i32) -> BpfProgram {
    let calls = BTreeMap::from([(call, Vec::new())]);
    let answer = SeccompAction::Errno(errno as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(calls, SeccompAction::Allow, answer, arch).unwrap().try_into().unwrap()
}

#[test]
fn a_seccomp_profile_without_io_uring_is_named() {
    for (errno, expected) in
        [(libc::EPERM, "io_uring is not permitted here"), (libc::ENOSYS, "built without io_uring")]
    {
        let program = filter(libc::SYS_io_uring_setup, errno);
        let said = refused(move || seccompiler::apply_filter(&program).map_err(io::Error::other));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn too_few_descriptors_are_named() {
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    let said = refused(move || setrlimit(Resource::Nofile, few).map_err(io::Error::from));
    assert!(said.contains("only 64 files may be open") && said.contains("ulimit -n"), "{said}");
}

#[test]
fn too_little_locked_memory_is_named() {
    let little = Rlimit { current: Some(4096), maximum: Some(4096) };
    let said = refused(move || setrlimit(Resource::Memlock, little).map_err(io::Error::from));
    assert!(said.contains("bytes of locked memory are needed") && said.contains("memlock"), "{said}");
}
