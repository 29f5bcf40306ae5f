//! A test for each guard against glommio's defects and the kernel's limits. What takes the process down or uses
//! it up runs in a child: the test binary itself, told what to play.

use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;
use crate::process::tests::{finish, role, start_child};
use crate::{Listener, Stream, StreamReader, conformance};

fn play(role: &str, argument: &str) -> (std::process::ExitStatus, String) {
    finish(start_child("glommio::guards::child", role, argument))
}

/// What the children do; nothing in the parent.
#[test]
fn child() {
    let Some((role, argument)) = role() else { return };
    match role.as_str() {
        "panic" => panic_in_a_task(),
        "idle" => println!("said: {}", idle_cpu_of(argument.parse().unwrap()).as_micros()),
        "memlock" => println!("said: {}", pinned_by(argument.parse().unwrap())),
        "starved" => println!("said: {}", pings_beside_a_hog()),
        "tasks" => println!("said: {}", growth_of_many_tasks()),
        "descriptors" => accept_without_descriptors(),
        role => panic!("no such role: {role}"),
    }
}

fn said(role: &str, argument: &str) -> u64 {
    let (status, said) = play(role, argument);
    assert!(status.success(), "{said}");
    let at = said.find("said: ").expect("it says something") + 6;
    said[at..].split_whitespace().next().unwrap().parse().unwrap()
}

fn panic_in_a_task() {
    let main = |core, env: GlommioEnv| async move {
        if core == 1 {
            env.spawn(async { panic!("expected by this test") });
        }
        env.sleep(Duration::from_secs(30)).await;
    };
    run_cores(2, &CoreOptions::default(), main).unwrap().join();
}

#[test]
fn a_panic_in_a_task_aborts_the_process() {
    use std::os::unix::process::ExitStatusExt;
    let (status, said) = play("panic", "");
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(said.contains("expected by this test"), "{said}");
}

fn cpu_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
}

/// CPU time of `cores` idle executors, each with a listener and a waiting connection, in two seconds.
fn idle_cpu_of(cores: usize) -> Duration {
    let (used, result) = flume::bounded(1);
    let main = move |core, env: GlommioEnv| async move {
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = env.connect(listener.local_addr(), Duration::from_secs(5)).await.unwrap();
        let (mut reader, _writer) = listener.accept().await.unwrap().into_split();
        env.spawn(async move {
            let _ = reader.read(&mut BytesMut::with_capacity(1)).await;
        });
        env.spawn(async move { drop(listener.accept().await) });
        env.sleep(Duration::from_millis(500)).await;
        let before = cpu_time();
        env.sleep(Duration::from_secs(2)).await;
        if core == 0 {
            used.send(cpu_time() - before).unwrap();
        }
        drop(client);
    };
    run_cores(cores, &CoreOptions::default(), main).unwrap().join();
    result.recv().unwrap()
}

#[test]
fn an_idle_node_is_idle() {
    let micros = said("idle", "2");
    // 0.2 % of a core would be 4 ms in two seconds; a busy machine makes each of the few wake-ups dearer.
    assert!(micros < 12_000, "{micros} µs of CPU in 2 s");
}

/// A figure of /proc/self/status, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that this process has pinned, with `cores` executors running.
fn pinned_by(cores: usize) -> u64 {
    let (sender, result) = flume::bounded(1);
    let main = move |core, env: GlommioEnv| async move {
        env.sleep(Duration::from_millis(300)).await;
        if core == 0 {
            sender.send(status_kib("VmPin:") * 1024).unwrap();
        }
        env.sleep(Duration::from_millis(100)).await;
    };
    run_cores(cores, &CoreOptions::default(), main).unwrap().join();
    result.recv().unwrap()
}

#[test]
fn executors_lock_no_more_memory_than_preflight_asks_for() {
    let pinned = said("memlock", "8");
    assert!(pinned > 0 && pinned <= 8 * MEMLOCK_PER_CORE, "{pinned} bytes for 8 cores");
}

/// Pings an executor from a thread while others fight for its CPU, so that its short preempt timer often fires
/// before it has run anything. Goes on until the watchdog was needed, but for ten seconds at most: since executors
/// sleep in a ring of their own it seldom is. Returns the longest wait for an answer in milliseconds.
fn pings_beside_a_hog() -> u64 {
    let options = CoreOptions { preempt_timer: Duration::from_millis(1), ..CoreOptions::default() };
    let (ping, pings) = flume::bounded::<()>(1);
    let (pong, pongs) = flume::bounded::<u64>(1);
    let main = move |_, env: GlommioEnv| async move {
        while pings.recv_async().await.is_ok() {
            let (pong, kicks) = (pong.clone(), env.watchdog_kicks());
            env.spawn(async move { pong.send_async(kicks).await.unwrap() });
        }
    };
    let cores = run_cores(1, &options, main).unwrap();
    let cpu = usable_cpus()[0];
    for _ in 0..2 {
        std::thread::spawn(move || {
            let mut set = rustix::thread::CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set).unwrap();
            loop {
                std::hint::black_box(0);
            }
        });
    }
    let (start, mut longest, mut kicks) = (Instant::now(), Duration::ZERO, 0);
    while kicks < 3 && start.elapsed() < Duration::from_secs(10) {
        let sent = Instant::now();
        ping.send(()).unwrap();
        kicks = pongs.recv_timeout(Duration::from_secs(10)).expect("the executor is stuck");
        longest = longest.max(sent.elapsed());
    }
    drop(ping);
    cores.join();
    longest.as_millis() as u64
}

#[test]
fn lost_wake_ups_are_made_up_for() {
    let longest = said("starved", "");
    assert!(longest < 2000, "a ping took {longest} ms");
}

/// Bytes by which this process grows from running many tasks to their end.
fn growth_of_many_tasks() -> u64 {
    const TASKS: usize = 100_000;
    let (sender, result) = flume::bounded(1);
    let main = move |_, env: GlommioEnv| async move {
        let run = async |tasks: usize| {
            let done = Rc::new(std::cell::Cell::new(0));
            for i in 0..tasks {
                let (done, env_of_task, ballast) = (Rc::clone(&done), env.clone(), [i as u8; 1000]);
                env.spawn(async move {
                    env_of_task.yield_now().await;
                    done.set(done.get() + usize::from(std::hint::black_box(ballast)[0] == i as u8));
                });
                if i % 100 == 0 {
                    env.yield_now().await;
                }
            }
            conformance::until(&env, || done.get() == tasks).await;
        };
        run(TASKS / 10).await;
        let before = status_kib("VmRSS:");
        run(TASKS).await;
        sender.send(status_kib("VmRSS:").saturating_sub(before) * 1024).unwrap();
    };
    run_cores(1, &CoreOptions::default(), main).unwrap().join();
    result.recv().unwrap()
}

#[test]
fn tasks_that_have_ended_leave_nothing_behind() {
    let grown = said("tasks", "");
    assert!(grown < 8 << 20, "100,000 tasks of 1 kB left {grown} bytes");
}

#[test]
fn cores_wake_one_another() {
    const ROUNDS: u32 = 2000;
    let ends = [flume::bounded::<u32>(4), flume::bounded::<u32>(4)];
    let (finished, end) = flume::bounded(1);
    let main = move |core: usize, _env| async move {
        let (incoming, outgoing) = (ends[core].1.clone(), ends[1 - core].0.clone());
        if core == 0 {
            outgoing.send_async(0).await.unwrap();
        }
        while let Ok(n) = incoming.recv_async().await {
            if outgoing.send_async(n + 1).await.is_err() || n + 1 >= ROUNDS {
                break;
            }
        }
        finished.send(core).unwrap_or(());
    };
    let cores = run_cores(2, &CoreOptions::default(), main).unwrap();
    end.recv_timeout(Duration::from_secs(30)).unwrap();
    cores.join();
}

#[test]
fn what_tasks_still_hold_at_the_end_is_let_go() {
    let (sender, receiver) = flume::bounded(1);
    let main = move |_, env: GlommioEnv| async move {
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        sender.send(listener.local_addr()).unwrap();
        env.spawn(async move { while listener.accept().await.is_ok() {} });
        env.sleep(Duration::from_millis(20)).await;
    };
    run_cores(1, &CoreOptions::default(), main).unwrap().join();
    let addr = receiver.recv().unwrap();
    assert_eq!(crate::process::port_owner(addr).unwrap(), None, "the listener of a waiting task is closed");
}

/// Uses all descriptors up while clients wait to be accepted, then frees some.
fn accept_without_descriptors() {
    const CLIENTS: usize = 20;
    let main = |_, env: GlommioEnv| async move {
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(env.connect(listener.local_addr(), Duration::from_secs(5)).await.unwrap());
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum: Some(200) }).unwrap();
        let mut hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        assert!(hoard.iter().any(|file| file.as_raw_fd() > 150));
        let accepted = Rc::new(std::cell::Cell::new(0));
        let count = Rc::clone(&accepted);
        env.spawn(async move {
            let mut streams = Vec::new();
            while let Ok(stream) = listener.accept().await {
                streams.push(stream);
                count.set(streams.len());
            }
        });
        let before = cpu_time();
        env.sleep(Duration::from_millis(500)).await;
        let spent = cpu_time() - before;
        assert_eq!(accepted.get(), 0);
        assert!(spent < Duration::from_millis(50), "waiting for descriptors took {spent:?} of CPU");
        hoard.truncate(10);
        conformance::until(&env, || accepted.get() == CLIENTS).await;
    };
    run_cores(1, &CoreOptions::default(), main).unwrap().join();
}

#[test]
fn accepting_backs_off_without_descriptors_and_loses_nobody() {
    let (status, said) = play("descriptors", "");
    assert!(status.success(), "{said}");
}
