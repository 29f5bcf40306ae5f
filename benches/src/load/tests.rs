use super::*;
use crate::null_server;

/// A null server in a thread of this test.
fn null() -> SocketAddr {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = probe.local_addr().unwrap();
    drop(probe);
    std::thread::spawn(move || null_server::serve(addr));
    while std::net::TcpStream::connect(addr).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }
    addr
}

/// A server that answers what makes the topics, and nothing after: whatever the load's connections send.
fn stalled() -> SocketAddr {
    let null = null();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (topics, _) = listener.accept().unwrap();
        let there = std::net::TcpStream::connect(null).unwrap();
        let (mut answers, mut back) = (there.try_clone().unwrap(), topics.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        std::thread::spawn(move || std::io::copy(&mut &topics, &mut &there));
        let mut kept = Vec::new();
        listener.incoming().for_each(|client| kept.push(client));
    });
    addr
}

fn short() -> LoadArgs {
    LoadArgs { connections: 4, in_flight: 8, warm_up: 0.05, seconds: 0.3, ..LoadArgs::default() }
}

#[test]
fn a_closed_loop_counts_what_is_acknowledged() {
    let meter = Meter::new(std::process::id(), None);
    let report = run(null(), Some(&meter), &LoadArgs { topics: 20, batch: 3, ..short() }).unwrap();
    let sent = report.sent.as_ref().unwrap();
    assert!(sent.messages > 0 && sent.messages.is_multiple_of(3), "{sent:?}");
    assert_eq!(sent.bytes, sent.messages * 1024);
    assert!(sent.errors.is_empty() && report.delivered.is_none() && report.read.is_none());
    let latency = sent.latency.as_ref().unwrap();
    assert!(latency.p50 <= latency.p999 && latency.p999 <= latency.max);
    assert!(report.costs.as_ref().unwrap().cpu_us > 0.0);
    assert!(report.line().starts_with("4 × 8, batches of 3, 20 topics"), "{}", report.line());
}

#[test]
fn an_open_loop_keeps_to_its_schedule() {
    let load = LoadArgs { rate: Some(1000.0), warm_up: 0.1, seconds: 0.5, ..short() };
    let sent = run(null(), None, &load).unwrap().sent.unwrap();
    // The schedule, not the server, decides how many there are; a slow machine may miss the last ones.
    assert!((300..=501).contains(&sent.messages), "{sent:?}");
}

#[test]
fn an_open_loop_records_what_is_due_or_else_how_long_it_waited_until_the_end() {
    // Nothing is due before what counts, so that an answer and no answer are all there is.
    let load = LoadArgs { rate: Some(1000.0), warm_up: 0.0, seconds: 0.25, ..short() };
    let sent = run(null(), None, &load).unwrap().sent.unwrap();
    assert_eq!(sent.messages + sent.unanswered, 251, "{sent:?}");

    for most_in_flight in [1024, 1] {
        let load = LoadArgs { most_in_flight, warm_up: 0.125, batch: 2, ..load.clone() };
        let sent = run(stalled(), None, &load).unwrap().sent.unwrap();
        // One in 2 ms, from 126 to 374.
        assert_eq!((sent.messages, sent.unanswered + sent.withheld), (0, 125), "{sent:?}");
        assert_eq!(sent.withheld > 0, most_in_flight == 1);
        if sent.withheld > 0 {
            continue;
        }
        let latency = sent.latency.unwrap();
        assert!((latency.max - 249_000.0).abs() < 500.0, "{latency:?}");
        assert!((latency.p50 - 125_000.0).abs() < 2500.0, "{latency:?}");
    }
}

#[test]
fn a_closed_loop_does_not_count_what_is_unanswered() {
    let sent = run(null(), None, &short()).unwrap().sent.unwrap();
    assert_eq!((sent.unanswered, sent.withheld), (0, 0));
}

#[test]
fn readers_count_records() {
    let load = LoadArgs { connections: 0, readers: 2, ..short() };
    let report = run(null(), None, &load).unwrap();
    let read = report.read.as_ref().unwrap();
    assert!(read.messages > 0 && read.messages.is_multiple_of(32), "{read:?}");
    assert_eq!(read.bytes, read.messages * (91 + 10 + 1024));
    assert!(report.rate() > 0.0 && report.sent.is_none());
}

#[test]
fn loads_without_sense_are_refused() {
    for load in [
        LoadArgs { size: 4, ..short() },
        LoadArgs { connections: 0, ..short() },
        LoadArgs { topics: 2, tail: 1, ..short() },
        LoadArgs { queues: 0, ..short() },
    ] {
        assert!(run("127.0.0.1:1".parse().unwrap(), None, &load).is_err());
    }
}
