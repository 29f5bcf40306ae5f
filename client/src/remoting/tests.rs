use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::testing::MemoryNetwork;

fn remoting(network: &MemoryNetwork) -> Remoting {
    let (inbound, _) = mpsc::channel(1);
    let mut config = ClientConfig::new("");
    config.network = Arc::new(network.clone());
    config.connect_timeout = Duration::from_secs(1);
    Remoting::new(&config, inbound, Arc::default(), TaskTracker::new(), CancellationToken::new())
}

fn ask(code: i32) -> Request<'static> {
    Request::bodied(code, Bytes::from_static(b"question"))
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_calls() {
    let network = MemoryNetwork::default();
    network.peer("b:1", |c| Some(Command::response(c.code % 2, 0).with_body(c.code.to_string())));
    let remoting = remoting(&network);
    for code in 1..100 {
        let answer = remoting.call("b:1", &ask(code), Duration::from_secs(1)).await.unwrap();
        assert_eq!((answer.code, &*answer.body), (code % 2, code.to_string().as_bytes()));
    }
    let refused = remoting.call_ok("b:1", &ask(1), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(refused.code(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_times_out_and_gets_a_new_connection() {
    let network = MemoryNetwork::default();
    network.peer("b:1", |_| None);
    let remoting = remoting(&network);
    let error = remoting.call("b:1", &ask(1), Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(error, CallError::Timeout { addr: "b:1".into(), after: Duration::from_secs(3) });
    network.peer("b:1", |_| Some(Command::response(0, 0)));
    // The old connection would go on being silent.
    assert!(remoting.call("b:1", &ask(1), Duration::from_secs(3)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn connects_back_off() {
    let network = MemoryNetwork::default();
    let remoting = remoting(&network);
    let began = Instant::now();
    for _ in 0..4 {
        let error = remoting.call("b:1", &ask(1), Duration::from_secs(9)).await.unwrap_err();
        assert!(matches!(error, CallError::Connect { .. }), "{error}");
    }
    assert_eq!(began.elapsed(), Duration::from_millis(50 + 100 + 200));
    // The fifth would have to wait longer than it may.
    let error = remoting.call("b:1", &ask(1), Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_asked_again_on_a_new_connection() {
    let network = MemoryNetwork::default();
    let calls = AtomicUsize::new(0);
    network.peer("b:1", move |_| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        Some(Command::response(if first { response::GO_AWAY } else { 0 }, 0))
    });
    let answer = remoting(&network).call("b:1", &ask(1), Duration::from_secs(1)).await.unwrap();
    assert_eq!(answer.code, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_a_server_that_goes_away_may_end() {
    let network = MemoryNetwork::default();
    let away = Arc::new(AtomicBool::new(true));
    let told = away.clone();
    network.peer("b:1", move |command| match command.code {
        1 => None,
        _ if told.load(Ordering::Relaxed) => Some(Command::response(response::GO_AWAY, 0)),
        _ => Some(Command::response(0, 0)),
    });
    let remoting = Arc::new(remoting(&network));
    let held = tokio::spawn({
        let remoting = remoting.clone();
        async move { remoting.call("b:1", &ask(1), Duration::from_secs(20)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = remoting.call("b:1", &ask(2), Duration::from_secs(1)).await.unwrap();
    assert_eq!(refused.code, response::GO_AWAY);
    away.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(remoting.call("b:1", &ask(3), Duration::from_secs(1)).await.unwrap().code, 0);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    // Four of the tasks are those of the old connection with the held call and of the new one, which the others share.
    let (opaque, busy) = (network.seen(1)[0].1.opaque, remoting.tasks().len());
    let answer = Command { opaque, ..Command::response(7, 0) };
    network.push("b:1", answer).await;
    assert_eq!(held.await.unwrap().unwrap().code, 7);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((busy, remoting.tasks().len()), (5, 2));
}

#[tokio::test(start_paused = true)]
async fn closing_fails_the_calls_in_flight() {
    let network = MemoryNetwork::default();
    network.peer("b:1", |_| None);
    let remoting = Arc::new(remoting(&network));
    let call = tokio::spawn({
        let remoting = remoting.clone();
        async move { remoting.call("b:1", &ask(1), Duration::from_secs(60)).await }
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    remoting.retain(|_| false);
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Closed { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_client_leaves_no_task() {
    let network = MemoryNetwork::default();
    network.peer("b:1", |_| Some(Command::response(0, 0)));
    let remoting = remoting(&network);
    remoting.call("b:1", &ask(1), Duration::from_secs(1)).await.unwrap();
    assert_eq!(remoting.tasks().len(), 2);
    remoting.stop().cancel();
    remoting.tasks().close();
    remoting.tasks().wait().await;
    assert_eq!(remoting.call("b:1", &ask(1), Duration::from_secs(1)).await, Err(CallError::Shutdown));
}
