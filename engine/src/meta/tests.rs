use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};

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
