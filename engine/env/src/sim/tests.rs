//! The simulator: the conformance suite, determinism, and what crashes and faults do.

use bytes::BytesMut;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use super::inode::SECTOR;
use super::*;
use crate::{
    AppendBuf, Env, File, IoSlice, Listener, OpenOptions, Stream, StreamReader, StreamWriter, conformance,
    fatal,
};

mod faults;

const RW: OpenOptions =
    OpenOptions { write: true, create: true, create_new: false, dsync: false, direct: false };

fn filled(len: usize, byte: u8) -> IoSlice {
    let mut buf = AppendBuf::with_capacity(len);
    buf.append(len).fill(byte);
    buf.publish();
    buf.slice(0, len)
}

/// The conformance suite on one node; what the trace hashes to.
fn conform(seed: u64) -> u64 {
    let sim = Sim::new(seed);
    let (env, done) = (sim.node("a"), Rc::new(Cell::new(false)));
    let (env_of_task, done_by_task) = (env.clone(), Rc::clone(&done));
    env.spawn(async move {
        env_of_task.create_dir_all(Path::new("/data")).await.unwrap();
        conformance::everything(&env_of_task, Path::new("/data"), "127.0.0.1:0".parse().unwrap()).await;
        done_by_task.set(true);
    });
    sim.run(conformance::until(&env, || done.get()));
    sim.trace_hash()
}

#[test]
fn the_backend_conforms_and_the_same_seed_gives_the_same_trace() {
    let hashes: Vec<u64> = (0..5).map(conform).collect();
    for (seed, hash) in hashes.iter().enumerate() {
        assert_eq!(conform(seed as u64), *hash, "seed {seed} run again");
        assert_eq!(hashes.iter().filter(|other| *other == hash).count(), 1, "seeds differ");
    }
}

#[test]
fn time_jumps_and_a_hang_is_found() {
    let sim = Sim::new(1);
    let env = sim.node("a");
    let real = std::time::Instant::now();
    sim.run(env.sleep(Duration::from_secs(3000)));
    assert!(real.elapsed() < Duration::from_secs(10));
    let hung =
        |future: &mut dyn FnMut()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(future)).is_err();
    assert!(hung(&mut || sim.run(std::future::pending())), "nothing can happen");
    sim.set_time_limit(Duration::from_millis(10));
    let for_ever = async || loop {
        env.yield_now().await;
    };
    assert!(hung(&mut || sim.run(for_ever())), "the time limit passes");
}

/// Writes 64 sectors of 2 over 64 synced sectors of 1 and crashes; what is left.
fn after_crash(seed: u64, crash: Crash, dsync: bool) -> Vec<u8> {
    let sim = Sim::new(seed);
    sim.run(async {
        let env = sim.node("a");
        let path = Path::new("/f");
        let file = env.open(path, OpenOptions { dsync, ..RW }).await.unwrap();
        file.write_at(filled(64 * SECTOR, 1), 0).await.unwrap();
        file.sync().await.unwrap();
        env.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(filled(64 * SECTOR, 2), 0).await.unwrap();
        sim.crash("a", crash);
        assert!(file.read_at(0, 1).await.is_err(), "the node that had it open is gone");
        let file = sim.node("a").open(path, OpenOptions::default()).await.unwrap();
        file.read_at(0, 64 * SECTOR).await.unwrap().to_vec()
    })
}

#[test]
fn a_crash_takes_or_tears_what_was_not_synced() {
    let sectors = |content: &[u8]| content.chunks(SECTOR).filter(|sector| **sector == [2; SECTOR]).count();
    let torn = (0..20).map(|seed| after_crash(seed, Crash::Power, false));
    let torn: Vec<usize> = torn.map(|content| sectors(&content)).collect();
    assert!(torn.iter().all(|new| *new <= 64) && torn.iter().any(|new| *new > 0 && *new < 64), "{torn:?}");
    assert_eq!(sectors(&after_crash(1, Crash::PowerLosingAll, false)), 0);
    assert_eq!(sectors(&after_crash(1, Crash::Process, false)), 64, "the page cache outlives the process");
    for crash in [Crash::Process, Crash::Power, Crash::PowerLosingAll] {
        assert_eq!(sectors(&after_crash(1, crash, true)), 64, "dsync, {crash:?}");
    }
}

#[test]
fn directory_entries_need_a_sync() {
    let kept = |seed, synced: bool, crash| {
        let sim = Sim::new(seed);
        sim.run(async {
            let env = sim.node("a");
            env.create_dir_all(Path::new("/d")).await.unwrap();
            for name in ["/d/1", "/d/2", "/d/3"] {
                env.open(Path::new(name), RW).await.unwrap().sync().await.unwrap();
            }
            env.rename(Path::new("/d/3"), Path::new("/d/4")).await.unwrap();
            if synced {
                env.sync_dir(Path::new("/d")).await.unwrap();
            }
            sim.crash("a", crash);
            let entries = sim.node("a").read_dir(Path::new("/d")).await.unwrap();
            entries.iter().map(|entry| entry.name.clone()).collect::<String>()
        })
    };
    assert_eq!(kept(1, true, Crash::PowerLosingAll), "124");
    assert_eq!(kept(1, false, Crash::Process), "124");
    assert_eq!(kept(1, false, Crash::PowerLosingAll), "");
    let seen: std::collections::BTreeSet<String> =
        (0..50).map(|seed| kept(seed, false, Crash::Power)).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "1", "12", "123", "124"], "the first few changes");
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let sim = Sim::new(3);
    sim.run(async {
        let env = sim.node("a");
        sim.set_quota("a", Some(100_000));
        let file = env.open(Path::new("/f"), RW).await.unwrap();
        let other = env.open(Path::new("/g"), RW).await.unwrap();
        file.allocate(0, 80_000).await.unwrap();
        file.write_at(filled(512, 1), 79_000).await.unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(other.write_at(filled(40_000, 1), 0).await), io::ErrorKind::StorageFull);
        assert_eq!(kind(other.allocate(0, 40_000).await), io::ErrorKind::StorageFull);
        assert_eq!(other.size().await.unwrap(), 0);
        let space = env.disk_space(Path::new("/")).await.unwrap();
        assert_eq!((space.total, space.available), (100_000, 100_000 - 81_920));
        env.remove_file(Path::new("/f")).await.unwrap();
        other.write_at(filled(40_000, 1), 0).await.unwrap();
        sim.set_quota("a", None);
        other.allocate(0, 1 << 30).await.unwrap();
    });
}

#[test]
fn hooks_fail_and_delay_operations() {
    let sim = Sim::new(4);
    sim.run(async {
        let env = sim.node("a");
        let file = env.open(Path::new("/bad"), RW).await.unwrap();
        env.sync_dir(Path::new("/")).await.unwrap();
        sim.on_disk("a", |op| match op.kind {
            DiskOpKind::Sync if op.path == Path::new("/bad") => DiskFault::Fail(io::ErrorKind::Other),
            DiskOpKind::Read => DiskFault::Delay(Duration::from_secs(10)),
            _ => DiskFault::None,
        });
        file.write_at(filled(512, 9), 0).await.unwrap();
        assert!(file.sync().await.is_err());
        let start = env.now();
        assert_eq!(file.read_at(0, 512).await.unwrap()[0], 9, "it shows");
        assert!(env.now().since(start) >= Duration::from_secs(10));
        sim.heal_disk("a");
        file.sync().await.unwrap();
        sim.crash("a", Crash::PowerLosingAll);
        let file = sim.node("a").open(Path::new("/bad"), RW).await.unwrap();
        let read = file.read_at(0, 512).await.unwrap();
        assert!(read.iter().all(|byte| *byte == 0), "a sync after a failed one brings nothing back");
    });
}

#[test]
fn fatal_ends_the_node_and_no_other() {
    let sim = Sim::new(5);
    sim.run(async {
        let (a, b) = (sim.node("a"), sim.node("b"));
        let ticks = Rc::new(Cell::new(0));
        for env in [a.clone(), b] {
            let ticks = Rc::clone(&ticks);
            env.clone().spawn(async move {
                env.sleep(Duration::from_secs(1)).await;
                ticks.set(ticks.get() + 1);
            });
        }
        a.spawn(async { fatal(Fatal::Ring { error: io::ErrorKind::Other.into() }) });
        sim.sleep(Duration::from_secs(2)).await;
        assert_eq!(ticks.get(), 1);
        assert!(matches!(sim.ended_by("a"), Some(Fatal::Ring { .. })));
        assert!(sim.ended_by("b").is_none());
    });
}

#[test]
fn a_crash_resets_connections_and_a_partition_only_delays() {
    let sim = Sim::new(6);
    sim.run(async {
        let (server, client) = (sim.node("server"), sim.node("client"));
        let listener = server.listen("0.0.0.0:99".parse().unwrap()).await.unwrap();
        let addr = SocketAddr::new(sim.ip("server"), 99);
        let connected = client.connect(addr, Duration::from_secs(5)).await.unwrap();
        assert_eq!(connected.peer_addr(), addr);
        let (mut reader, _writer) = connected.into_split();
        let (_server_in, mut server_out) = listener.accept().await.unwrap().into_split();
        sim.partition("client", "server");
        let start = sim.now();
        server_out.write_all(&[io::IoSlice::new(b"late")]).await.unwrap();
        let late = client.connect(addr, Duration::from_secs(1)).await.err().unwrap();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        sim.heal("server", "client");
        let mut buffer = BytesMut::with_capacity(100);
        while buffer.len() < 4 {
            reader.read(&mut buffer).await.unwrap();
        }
        assert_eq!(buffer, "late");
        assert!(sim.now().since(start) >= Duration::from_secs(1));
        sim.crash("server", Crash::Process);
        let reset = reader.read(&mut buffer).await.unwrap_err();
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        let refused = client.connect(addr, Duration::from_secs(1)).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    });
}
