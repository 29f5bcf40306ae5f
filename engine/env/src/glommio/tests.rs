//! The real backend: the conformance suite, and a test for each guard.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::conformance;

const LIMIT: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Runs `main` on `cores` executors, within a bounded time.
fn run<F: Future<Output = ()> + 'static>(
    cores: usize,
    options: CoreOptions,
    main: impl FnOnce(usize, GlommioEnv) -> F + Clone + Send + 'static,
) {
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        run_cores(cores, &options, main).unwrap().join();
        ended.send(()).unwrap();
    });
    end.recv_timeout(LIMIT).expect("the executors end in time");
}

#[test]
fn the_backend_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    run(1, CoreOptions::default(), move |_, env| async move {
        conformance::everything(&env, &path, LOOPBACK).await;
    });
}

#[test]
fn the_backend_conforms_without_direct_io() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = dir.path().to_owned();
    run(1, CoreOptions::default(), move |_, env| async move {
        conformance::everything(&env, &path, LOOPBACK).await;
    });
}
