//! Each fault does what it says, and nothing else goes wrong.

use super::*;

const DIRECT: OpenOptions = OpenOptions { direct: true, ..RW };

fn certain(fault: Fault) -> Faults {
    Faults::none().with(fault, CERTAIN)
}

async fn filled_file(env: &SimEnv, options: OpenOptions) -> SimFile {
    let file = env.open(Path::new("/f"), options).await.unwrap();
    file.write_at(filled(16 * SECTOR, 1), 0).await.unwrap();
    file.sync().await.unwrap();
    env.sync_dir(Path::new("/")).await.unwrap();
    file
}

#[test]
fn names_are_told_apart_and_read_back() {
    for fault in Fault::ALL {
        assert_eq!(Fault::from_name(fault.name()), Some(*fault));
        assert_eq!(certain(*fault).active().collect::<Vec<_>>(), [*fault]);
    }
    assert_eq!(Fault::from_name("none"), None);
}

#[test]
fn without_faults_a_power_failure_loses_nothing() {
    let sim = Sim::new(1);
    sim.run(async {
        let env = sim.node("a");
        sim.set_faults("a", Faults::none());
        let file = filled_file(&env, RW).await;
        file.write_at(filled(16 * SECTOR, 2), 0).await.unwrap();
        sim.crash("a", Crash::Power);
        let file = sim.node("a").open(Path::new("/f"), RW).await.unwrap();
        assert_eq!(&*file.read_at(0, 16 * SECTOR).await.unwrap(), [2; 16 * SECTOR]);
    });
}

/// Writes 2, 3 and 4 over 16 sectors of 1 each and crashes under the faults; the sectors that are left.
fn left_by(seed: u64, faults: Faults) -> Vec<u8> {
    let sim = Sim::new(seed);
    sim.run(async {
        let env = sim.node("a");
        sim.set_faults("a", faults);
        let file = filled_file(&env, RW).await;
        for byte in 2..5 {
            file.write_at(filled(16 * SECTOR, byte), 0).await.unwrap();
        }
        sim.crash("a", Crash::Power);
        let file = sim.node("a").open(Path::new("/f"), RW).await.unwrap();
        let left = file.read_at(0, 16 * SECTOR).await.unwrap();
        left.chunks(SECTOR).map(|sector| sector[0]).collect()
    })
}

#[test]
fn lost_writes_are_the_last_ones_and_one_of_them_may_be_torn() {
    for seed in 0..30 {
        let left = left_by(seed, certain(Fault::LostWrite));
        assert!(left.iter().all(|sector| *sector == left[0]), "{left:?}");
    }
    let torn = certain(Fault::LostWrite).with(Fault::TornWrite, CERTAIN);
    let torn: Vec<Vec<u8>> = (0..30).map(|seed| left_by(seed, torn)).collect();
    assert!(torn.iter().all(|left| left.iter().max().unwrap() - left.iter().min().unwrap() <= 1), "{torn:?}");
    assert!(torn.iter().any(|left| left.iter().max() != left.iter().min()), "{torn:?}");
    let mixed = (0..30).map(|seed| left_by(seed, certain(Fault::ReorderedWrite)));
    assert!(mixed.into_iter().any(|left| left.iter().max().unwrap() - left.iter().min().unwrap() > 1));
}

#[test]
fn harm_is_done_and_listed() {
    for fault in [Fault::RotCold, Fault::RotTail, Fault::StaleRead, Fault::MisdirectedWrite] {
        let sim = Sim::new(2);
        sim.run(async {
            let env = sim.node("a");
            let file = filled_file(&env, DIRECT).await;
            for byte in [2, 3] {
                file.write_at(filled(SECTOR, byte), 5 * SECTOR as u64).await.unwrap();
            }
            let before = file.read_at(0, 16 * SECTOR).await.unwrap();
            sim.set_faults("a", certain(fault));
            file.write_at(filled(SECTOR, 3), 5 * SECTOR as u64).await.unwrap();
            let after = file.read_at(0, 16 * SECTOR).await.unwrap();
            let harm = sim.take_harm("a");
            assert!(!harm.is_empty() && harm.iter().all(|harm| harm.fault == fault), "{harm:?}");
            let hit = |at: usize| {
                harm.iter().any(|harm| (harm.offset..harm.offset + harm.len).contains(&(at as u64)))
            };
            assert!((0..before.len()).all(|at| before[at] == after[at] || hit(at)), "{fault:?}");
            assert!(before[..] != after[..] || fault == Fault::MisdirectedWrite);
        });
    }
}

#[test]
fn a_lie_shows_when_the_power_fails() {
    let sim = Sim::new(3);
    sim.run(async {
        let env = sim.node("a");
        let file = filled_file(&env, DIRECT).await;
        sim.set_faults("a", certain(Fault::LyingSync));
        file.write_at(filled(SECTOR, 2), 0).await.unwrap();
        file.sync().await.unwrap();
        sim.crash("a", Crash::PowerLosingAll);
        assert_eq!(sim.take_harm("a").len(), 1);
        let file = sim.node("a").open(Path::new("/f"), DIRECT).await.unwrap();
        assert_eq!(file.read_at(0, SECTOR).await.unwrap()[0], 1);
    });
}

#[test]
fn operations_fail_without_having_happened_or_half_done() {
    let failing = [
        (Fault::ReadError, io::ErrorKind::Other),
        (Fault::WriteError, io::ErrorKind::Other),
        (Fault::SyncError, io::ErrorKind::Other),
        (Fault::NoSpace, io::ErrorKind::StorageFull),
        (Fault::NoSpaceAnywhere, io::ErrorKind::StorageFull),
    ];
    for (fault, kind) in failing {
        let sim = Sim::new(4);
        sim.run(async {
            let env = sim.node("a");
            let file = filled_file(&env, DIRECT).await;
            sim.set_faults("a", certain(fault));
            let outcomes = [
                file.read_at(0, SECTOR).await.map(drop),
                file.write_at(filled(SECTOR, 2), 0).await,
                file.write_at(filled(SECTOR, 2), 1 << 20).await,
                file.sync().await,
            ];
            let failed: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
            let expected = match fault {
                Fault::ReadError => [true, false, false, false],
                Fault::SyncError => [false, false, false, true],
                Fault::NoSpace => [false, false, true, false],
                _ => [false, true, true, false],
            };
            assert_eq!(failed, expected, "{fault:?}");
            assert!(outcomes.iter().all(|o| o.as_ref().err().is_none_or(|error| error.kind() == kind)));
            sim.set_faults("a", Faults::none());
            sim.end_episodes("a");
            file.write_at(filled(SECTOR, 2), 1 << 20).await.unwrap();
        });
    }
}

#[test]
fn a_paused_process_does_nothing_and_clocks_are_wrong() {
    let sim = Sim::new(5);
    sim.run(async {
        let env = sim.node("a");
        let faults = [Fault::Pause, Fault::ClockJump, Fault::ClockDrift];
        sim.set_faults("a", faults.iter().fold(Faults::none(), |all, fault| all.with(*fault, CERTAIN)));
        let (began, wall) = (sim.now(), env.wall_ms());
        let (ended, node) = (Rc::new(Cell::new(None)), env.clone());
        let set = Rc::clone(&ended);
        env.spawn(async move {
            node.read_dir(Path::new("/")).await.unwrap();
            set.set(Some(node.now()));
        });
        sim.sleep(Duration::from_secs(60)).await;
        assert!(ended.get().unwrap().since(began) >= Duration::from_millis(1));
        assert_ne!(env.wall_ms() - wall, 60_000);
    });
}

#[test]
fn a_node_crashes_at_the_poll_that_it_is_told() {
    let sim = Sim::new(6);
    sim.run(async {
        let env = sim.node("a");
        let (count, node) = (Rc::new(Cell::new(0)), env.clone());
        let counted = Rc::clone(&count);
        sim.crash_after_polls("a", 7, Crash::Process);
        env.spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                node.yield_now().await;
            }
        });
        sim.sleep(Duration::from_secs(1)).await;
        assert_eq!((count.get(), sim.lives("a")), (8, 1));
    });
}

/// What the other side of a connection gets of 100 bytes under the fault within 20 s.
fn received_under(fault: Fault) -> (usize, bool) {
    let sim = Sim::new(7);
    sim.run(async {
        let (server, client) = (sim.node("server"), sim.node("client"));
        let addr = SocketAddr::new(sim.ip("server"), 7);
        let listener = server.listen(addr).await.unwrap();
        let stream = client.connect(addr, Duration::from_secs(1)).await.unwrap();
        sim.set_faults("client", certain(fault));
        let (mut reader, _writer) = listener.accept().await.unwrap().into_split();
        let (received, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let (counted, end) = (Rc::clone(&received), Rc::clone(&ended));
        server.spawn(async move {
            let mut buffer = BytesMut::with_capacity(200);
            while let Ok(n) = reader.read(&mut buffer).await {
                counted.set(counted.get() + n);
                if n == 0 {
                    return;
                }
            }
            end.set(true);
        });
        let (_reader, mut writer) = stream.into_split();
        let _ = writer.write_all(&[io::IoSlice::new(&[1; 100])]).await;
        sim.sleep(Duration::from_secs(20)).await;
        (received.get(), ended.get())
    })
}

#[test]
fn connections_are_slow_reset_or_silent() {
    assert_eq!(received_under(Fault::SplitSegment), (100, false));
    assert_eq!(received_under(Fault::SlowSegment), (100, false));
    assert_eq!(received_under(Fault::HalfOpen), (0, false));
    assert!(received_under(Fault::Reset).1);
}
