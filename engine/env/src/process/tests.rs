//! Guards around the process, tried in child processes: the test binary itself, told what to play.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, kill_process, setrlimit};

use super::*;
use crate::glommio::{CoreOptions, GlommioEnv, run_cores};
use crate::{Env, File, IoSlice, Listener, OpenOptions};

const ROLE: &str = "RINGMQ_TEST_ROLE";
const ARGUMENT: &str = "RINGMQ_TEST_ARGUMENT";
const LIMIT: Duration = Duration::from_secs(60);

/// Starts this test binary again, to play `role` in the test function `plays` (its full path).
pub(crate) fn start_child(plays: &str, role: &str, argument: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", plays, "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(ARGUMENT, argument);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The role that this process is to play and its argument, if it is a child.
pub(crate) fn role() -> Option<(String, String)> {
    Some((std::env::var(ROLE).ok()?, std::env::var(ARGUMENT).ok()?))
}

/// Waits for a child, for a bounded time; its status and all that it said.
pub(crate) fn finish(mut child: Child) -> (std::process::ExitStatus, String) {
    let deadline = Instant::now() + LIMIT;
    let mut streams: Vec<Box<dyn Read + Send>> =
        vec![Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let readers: Vec<_> = streams
        .drain(..)
        .map(|mut stream| {
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text);
                text
            })
        })
        .collect();
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let said = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    (child.wait().unwrap(), said)
}

fn play(role: &str, argument: &str) -> (std::process::ExitStatus, String) {
    finish(start_child("process::tests::child", role, argument))
}

/// What the children do; nothing in the parent.
#[test]
fn child() {
    let Some((role, argument)) = role() else { return };
    let limit = |n: u64| Rlimit { current: Some(n), maximum: Some(n) };
    match role.as_str() {
        "memlock" => {
            setrlimit(Resource::Memlock, limit(argument.parse().unwrap())).unwrap();
            println!("said: {}", preflight(8).unwrap_err());
        }
        "open files" => {
            setrlimit(Resource::Nofile, limit(argument.parse().unwrap())).unwrap();
            println!("said: {}", preflight(1).unwrap_err());
        }
        "raise" => {
            let low = Rlimit { current: Some(100), maximum: Some(4000) };
            setrlimit(Resource::Nofile, low).unwrap();
            println!("said: {:?}", preflight(1).unwrap().open_files);
        }
        "lock" => println!("said: {}", LockFile::acquire(argument.as_ref()).unwrap_err()),
        "fatal" => crate::fatal(crate::Fatal::Sync {
            path: "some/file".into(),
            error: std::io::Error::from_raw_os_error(libc::EIO),
        }),
        "signals" => {
            let signals = TerminationSignals::install().unwrap();
            let main = move |_, _| async move {
                println!("said: ready");
                println!("said: {}", signals.next().await);
            };
            run_cores(1, &CoreOptions::default(), main).unwrap().join();
        }
        "write" => write_under_a_lock(argument.into()),
        "port" => {
            let main = move |_, env: GlommioEnv| async move {
                let listener = env.listen(argument.parse().unwrap()).await.unwrap();
                println!("said: {}", listener.local_addr());
                while listener.accept().await.is_ok() {}
            };
            run_cores(1, &CoreOptions::default(), main).unwrap().join();
        }
        role => panic!("no such role: {role}"),
    }
}

#[test]
fn the_machine_is_fit() {
    let facts = preflight(2).unwrap();
    assert!(facts.cpus > 0 && facts.memlock_needed >= 2 * 3 * 65536, "{facts:?}");
    assert!(facts.open_files.is_none_or(|n| n >= 1024));
}

#[test]
fn too_little_locked_memory_is_refused_with_advice() {
    let (status, said) = play("memlock", "600000");
    assert!(
        status.success() && said.contains("1572864 bytes of locked memory are needed for 8 cores"),
        "{said}"
    );
    assert!(said.contains("ulimit -l 1536"), "{said}");
}

#[test]
fn too_few_descriptors_are_refused_and_a_low_soft_limit_is_raised() {
    let (status, said) = play("open files", "500");
    assert!(status.success() && said.contains("said: only 500 files may be open"), "{said}");
    let (status, said) = play("raise", "");
    assert!(status.success() && said.contains("said: Some(4000)"), "{said}");
}

#[test]
fn a_held_lock_names_its_holder_and_a_dropped_one_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = LockFile::acquire(&path).unwrap();
    let (status, said) = play("lock", path.to_str().unwrap());
    let expected = format!("is locked by process {}", std::process::id());
    assert!(status.success() && said.contains(&expected), "{said}");
    drop(lock);
    LockFile::acquire(&path).unwrap();
    assert!(matches!(LockFile::acquire(&dir.path().join("no/lock")), Err(LockError::Io { .. })));
}

#[test]
fn a_living_holder_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let _lock = LockFile::acquire(&path).unwrap();
    let start = Instant::now();
    let error = LockFile::acquire(&path).unwrap_err();
    assert!(
        matches!(&error, LockError::Held { holder, .. } if holder.pid == Some(std::process::id())),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_lock_without_a_living_holder_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let mut ended = start_child("process::tests::child", "raise", "");
    ended.wait().unwrap();
    // The last one lives, but has nothing to do with the file: its id was used again.
    let mut stranger = start_child("process::tests::child", "port", "127.0.0.1:0");
    for named in [ended.id().to_string(), String::new(), stranger.id().to_string()] {
        std::fs::write(&path, named).unwrap();
        let holder = std::fs::File::open(&path).unwrap();
        rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let start = Instant::now();
        let error = LockFile::acquire_within(&path, Duration::from_millis(50)).unwrap_err();
        assert!(
            matches!(error, LockError::NotReleased { .. }) && start.elapsed().as_millis() >= 50,
            "{error}"
        );
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(holder);
        });
        let lock = LockFile::acquire(&path).unwrap();
        release.join().unwrap();
        drop(lock);
    }
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn executors_keep_a_lock_until_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = LockFile::acquire(&path).unwrap();
    let options = CoreOptions::default().keeping_open(vec![lock.descriptor()]);
    let (end, ended) = flume::bounded::<()>(1);
    let main = move |_, _| async move { assert!(ended.recv_async().await.is_err()) };
    let cores = run_cores(2, &options, main).unwrap();
    drop((lock, options));
    assert!(LockFile::acquire_within(&path, Duration::from_millis(50)).is_err());
    drop(end);
    cores.join();
    LockFile::acquire(&path).unwrap();
}

const WRITERS: usize = 64;
const LEN: usize = 1 << 20;

/// Writes without end, many requests at a time.
fn write_under_a_lock(dir: std::path::PathBuf) {
    let lock = LockFile::acquire(&dir.join("lock")).unwrap();
    let options = CoreOptions::default().keeping_open(vec![lock.descriptor()]);
    let main = move |_, env: GlommioEnv| async move {
        let options =
            OpenOptions { write: true, create: true, dsync: true, direct: true, ..Default::default() };
        let file = env.open(&dir.join("data"), options).await.unwrap();
        file.allocate(0, (WRITERS * LEN) as u64).await.unwrap();
        for writer in 0..WRITERS {
            let file = file.clone();
            env.spawn(async move {
                for round in 0u64.. {
                    let data = IoSlice::copy_of(&vec![round as u8; LEN]);
                    file.write_at(data, (writer * LEN) as u64).await.unwrap();
                }
            });
        }
        println!("said: ready");
        env.sleep(LIMIT).await;
    };
    run_cores(1, &options, main).unwrap().join();
}

/// The last bytes of what each writer wrote.
fn written(dir: &Path) -> Vec<u8> {
    let file = std::fs::File::open(dir.join("data")).unwrap();
    let mut last = vec![0; WRITERS];
    for (writer, byte) in last.iter_mut().enumerate() {
        file.read_exact_at(std::slice::from_mut(byte), ((writer + 1) * LEN - 1) as u64).unwrap();
    }
    last
}

#[test]
fn the_lock_of_a_killed_process_stays_until_its_writes_are_done() {
    const MOST_ROUNDS: u64 = 20;
    let outlived = |round| {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start_child("process::tests::child", "write", dir.path().to_str().unwrap());
        wait_for(&mut child, "said: ready");
        std::thread::sleep(Duration::from_millis(50 + round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        let path = dir.path().join("lock");
        let held = matches!(
            LockFile::acquire_within(&path, Duration::ZERO),
            Err(LockError::NotReleased { holder, .. }) if holder.pid == Some(child.id())
        );
        let _lock = LockFile::acquire(&path).unwrap();
        let found = written(dir.path());
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(written(dir.path()), found, "written by a dead process");
        held
    };
    // The disk may happen to be done when the process is.
    assert!((0..MOST_ROUNDS).any(outlived), "never held by a dead process: this test shows nothing");
}

#[test]
fn fatal_has_its_own_exit_status() {
    let (status, said) = play("fatal", "");
    assert_eq!(status.code(), Some(81), "{said}");
    assert!(said.contains("ringmq: fatal: sync of some/file failed: Input/output error"), "{said}");
}

/// Reads a child's output up to a line that it was to say.
fn wait_for(child: &mut Child, prefix: &str) -> String {
    let mut reader = std::io::BufReader::new(child.stdout.as_mut().unwrap());
    let mut line = String::new();
    loop {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut reader, &mut line).unwrap() > 0, "the child ended");
        if let Some(at) = line.find(prefix) {
            return line[at + prefix.len()..].trim().to_owned();
        }
    }
}

#[test]
fn termination_signals_arrive_as_an_event() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let mut child = start_child("process::tests::child", "signals", "");
        wait_for(&mut child, "said: ready");
        let pid = rustix::process::Pid::from_child(&child);
        kill_process(pid, signal).unwrap();
        let (status, said) = finish(child);
        assert!(status.success() && said.contains(name), "{said}");
    }
}

#[test]
fn a_taken_port_names_its_owner() {
    let mut child = start_child("process::tests::child", "port", "127.0.0.1:0");
    let addr = wait_for(&mut child, "said: ").parse().unwrap();
    let owner = port_owner(addr).unwrap().expect("it is taken");
    assert_eq!(owner.pid, Some(child.id()));
    let everywhere = std::net::SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), addr.port());
    assert_eq!(port_owner(everywhere).unwrap().expect("it is taken").pid, Some(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    // Its ring held the socket, and the kernel takes its time with rings.
    assert_eq!(port_owner(addr).unwrap(), None);
    assert_eq!(port_owner("127.0.0.1:0".parse().unwrap()).unwrap(), None);
    assert!(port_owner("192.0.2.1:80".parse().unwrap()).is_err(), "not an address of this machine");
}
