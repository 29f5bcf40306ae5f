use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};
use ringmq_env::sim::{Crash, Sim, SimEnv};

use super::*;

/// Runs `main` on one executor of the real backend, within a bounded time.
fn run<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(GlommioEnv, PathBuf) -> F + Clone + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (ended, end) = mpsc::channel();
    #[allow(clippy::disallowed_methods, reason = "the executor needs a thread that a test can give up on")]
    std::thread::spawn(move || {
        run_cores(1, &CoreOptions::default(), move |_, env| main(env, path)).unwrap().join();
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(60)).expect("the test ends in time");
}

async fn open(env: &GlommioEnv, dir: &Path) -> (MetaLog<GlommioEnv>, Vec<(String, String)>) {
    let mut seen = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log =
        MetaLog::open(env.clone(), dir, "topics", &mut |k, v| seen.push((text(k), text(v)))).await.unwrap();
    (log, seen)
}

#[test]
fn what_was_flushed_is_there_again() {
    run(|env, dir| async move {
        let (log, seen) = open(&env, &dir).await;
        assert!(seen.is_empty());
        log.put(b"a", b"1");
        log.put(b"b", b"2");
        log.flush().await.unwrap();
        log.put(b"a", b"3");
        log.delete(b"b");
        log.put(b"c", b"");
        log.flush().await.unwrap();
        log.put(b"d", b"never flushed");
        drop(log);
        let (log, seen) = open(&env, &dir).await;
        assert_eq!(seen, [("a".into(), "3".into()), ("c".into(), "".into())]);
        log.put(b"e", b"5");
        log.flush().await.unwrap();
        assert_eq!(open(&env, &dir).await.1.len(), 3);
    });
}

#[test]
fn a_long_log_is_compacted_while_changes_go_on() {
    run(|env, dir| async move {
        let (log, _) = open(&env, &dir).await;
        for round in 0..600u32 {
            log.put(format!("key {}", round % 7).as_bytes(), &round.to_le_bytes().repeat(200));
            log.flush().await.unwrap();
        }
        while log.0.compacting.try_enter().is_none() {
            env.yield_now().await;
        }
        assert!(log.0.state.borrow().generation > 1);
        let (log, seen) = open(&env, &dir).await;
        assert_eq!(seen.len(), 7);
        for (key, value) in log.0.state.borrow().table.live.iter() {
            let round = u32::from_le_bytes(value[..4].try_into().unwrap());
            assert!(round >= 593 && format!("key {}", round % 7).as_bytes() == &**key);
        }
    });
}

#[test]
fn a_torn_last_frame_is_cut_and_damage_before_it_is_told() {
    run(|env, dir| async move {
        let (log, _) = open(&env, &dir).await;
        for key in [b"a", b"b", b"c"] {
            log.put(key, b"value");
            log.flush().await.unwrap();
        }
        let file = log.0.files[0].clone();
        drop(log);
        let block = |bytes: &[u8]| IoSlice::copy_of(bytes);
        file.write_at(block(&[7; 4096]), 3 * 4096).await.unwrap();
        let (log, seen) = open(&env, &dir).await;
        assert_eq!(seen.len(), 2, "the last frame is gone");
        log.put(b"d", b"value");
        log.flush().await.unwrap();
        assert_eq!(open(&env, &dir).await.1.len(), 3);
        file.write_at(block(&[7; 4096]), 2 * 4096).await.unwrap();
        let reopened = MetaLog::open(env.clone(), &dir, "topics", &mut |_, _| ()).await;
        assert!(matches!(reopened, Err(OpenError::Damaged { .. })));
        file.write_at(block(&[7; 4096]), 0).await.unwrap();
        let reopened = MetaLog::open(env.clone(), &dir, "topics", &mut |_, _| ()).await;
        assert!(matches!(reopened, Err(OpenError::Damaged { .. })));
    });
}

/// All that was ever put, and how much of it was said to be durable.
#[derive(Default)]
struct History {
    /// Key and value of each change, in order; `None` deletes.
    changes: Vec<(u64, Option<Vec<u8>>)>,
    durable: usize,
}

impl History {
    /// Whether `found` may be the key's value after a crash: what it was at the last flush, or became later.
    fn allows(&self, key: u64, found: Option<&[u8]>) -> bool {
        let old = self.changes[..self.durable].iter().rev().find(|(k, _)| *k == key);
        let new = self.changes[self.durable..].iter().filter(|(k, _)| *k == key);
        new.map(|(_, value)| value.as_deref())
            .chain([old.and_then(|(_, value)| value.as_deref())])
            .any(|v| v == found)
    }
}

impl History {
    /// Checks what was found after a crash, and goes on from there.
    fn begin_again(&mut self, found: &BTreeMap<u64, Vec<u8>>, context: &str) {
        for key in 0..8 {
            assert!(self.allows(key, found.get(&key).map(|value| &value[..])), "{context} key {key}");
        }
        self.changes = (0..8).map(|key| (key, found.get(&key).cloned())).collect();
        self.durable = self.changes.len();
    }
}

/// Changes keys at random for ever.
async fn change(env: SimEnv, log: MetaLog<SimEnv>, history: Rc<RefCell<History>>) {
    loop {
        for _ in 0..env.random() % 4 {
            let key = env.random() % 8;
            let value = (!env.random().is_multiple_of(4))
                .then(|| env.random().to_le_bytes().repeat(env.random() as usize % 3000));
            match &value {
                Some(value) => log.put(&key.to_le_bytes(), value),
                None => log.delete(&key.to_le_bytes()),
            }
            history.borrow_mut().changes.push((key, value));
        }
        let staged = history.borrow().changes.len();
        if log.flush().await.is_ok() {
            let mut history = history.borrow_mut();
            history.durable = history.durable.max(staged);
        }
        env.yield_now().await;
    }
}

#[test]
fn whatever_crashes_what_was_durable_stays() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        sim.run(async {
            let history = Rc::new(RefCell::new(History::default()));
            for life in 0..4 {
                let env = sim.node("a");
                let mut found = BTreeMap::new();
                let log = MetaLog::open(env.clone(), Path::new("/meta"), "t", &mut |key, value| {
                    found.insert(u64::from_le_bytes(key.try_into().unwrap()), value.to_vec());
                })
                .await
                .unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
                history.borrow_mut().begin_again(&found, &format!("seed {seed} life {life}"));
                for _ in 0..2 {
                    env.spawn(change(env.clone(), log.clone(), Rc::clone(&history)));
                }
                if sim.random().is_multiple_of(3) {
                    sim.set_quota("a", Some(sim.random() % (4 << 20)));
                }
                sim.sleep(Duration::from_micros(sim.random() % 60_000)).await;
                let kinds = [Crash::Process, Crash::Power, Crash::PowerLosingAll];
                sim.crash("a", kinds[sim.random() as usize % kinds.len()]);
                sim.set_quota("a", None);
            }
        });
    }
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let sim = Sim::new(3);
    sim.run(async {
        let env = sim.node("a");
        let log = MetaLog::open(env.clone(), Path::new("/meta"), "t", &mut |_, _| ()).await.unwrap();
        sim.set_quota("a", Some(0));
        log.put(b"small", b"fits into what is reserved");
        log.flush().await.unwrap();
        log.put(b"large", &vec![7; 3 << 20]);
        assert!(is_full(&log.flush().await.unwrap_err()));
        assert!(is_full(&log.flush().await.unwrap_err()), "it stays staged");
        sim.set_quota("a", None);
        log.flush().await.unwrap();
        let mut keys = 0;
        MetaLog::open(env, Path::new("/meta"), "t", &mut |_, _| keys += 1).await.unwrap();
        assert_eq!(keys, 2);
    });
}

/// One random change to one of the table's files.
fn damage_at_random(env: &GlommioEnv, dir: &Path) {
    let path = file_path(dir, "topics", env.random() as usize % 2);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = env.random() as usize % bytes.len().clamp(1, 40 * BLOCK);
    let what = env.random() % 5;
    match what {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (env.random() % 8),
        1 => bytes[at..].iter_mut().take(BLOCK).for_each(|byte| *byte = 0),
        2 => bytes.truncate(at),
        3 => bytes[at..].iter_mut().take(700).for_each(|byte| *byte = env.random() as u8),
        // A block of the file in another place.
        _ => {
            let from = at - at % BLOCK;
            let block = bytes[from..].iter().take(BLOCK).copied().collect::<Vec<_>>();
            let to = env.random() as usize % 40 * BLOCK;
            if let Some(target) = bytes.get_mut(to..to + block.len()) {
                target.copy_from_slice(&block);
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn random_damage_is_refused_or_told_and_never_read_back() {
    run(|env, dir| async move {
        let value = |n: u32| n.to_le_bytes().repeat(1 + n as usize * 40);
        for round in 0..60 {
            let dir = dir.join(round.to_string());
            let (log, _) = open(&env, &dir).await;
            for n in 0..30u32 {
                log.put(format!("key {}", n % 7).as_bytes(), &value(n));
                log.flush().await.unwrap();
            }
            drop(log);
            damage_at_random(&env, &dir);
            let mut check = |key: &[u8], found: &[u8]| {
                let n = u32::from_le_bytes(found[..4].try_into().unwrap());
                assert!(format!("key {}", n % 7).as_bytes() == key && found == value(n), "{key:?}");
            };
            let opened = MetaLog::open(env.clone(), &dir, "topics", &mut check).await;
            assert!(matches!(opened, Ok(_) | Err(OpenError::Damaged { .. })), "round {round}");
            drop(opened);
            let report = DamageReport::default();
            let opened = MetaLog::open_what_is_whole(env.clone(), &dir, "topics", &report, &mut check).await;
            assert!(matches!(opened, Ok(_) | Err(OpenError::Damaged { .. })), "round {round}");
        }
    });
}
