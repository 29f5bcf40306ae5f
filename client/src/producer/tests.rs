use std::collections::BTreeMap;

use ringmq_protocol::body::{BrokerData, QueueData, TopicRouteData};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::json::{self, Dialect};

use super::*;
use crate::client::RouteError;
use crate::config::ClientConfig;
use crate::error::CallError;
use crate::testing::MemoryNetwork;

/// A topic "t" with one queue at each of the brokers a and b; answers of both are given.
async fn cluster(a: i32, b: i32) -> (MemoryNetwork, Producer) {
    let network = MemoryNetwork::default();
    network.peer("ns:1", |request| match request.get("topic") {
        Some("t") => Some(Command::response(0, 0).with_body(json::to_vec(&route(), Dialect::Standard))),
        _ => Some(Command::response(response::TOPIC_NOT_EXIST, 0)),
    });
    for (broker, code) in [("a", a), ("b", b)] {
        network.peer(&format!("{broker}:1"), move |request| {
            let answer = Command::response(code, 0).with_remark("because").with_ext("msgId", "M");
            let queue = request.get("e").unwrap_or_default().to_owned();
            Some(answer.with_ext("queueId", queue).with_ext("queueOffset", "7"))
        });
    }
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    let producer = Client::connect(config).await.unwrap().producer("g").start().unwrap();
    (network, producer)
}

fn route() -> TopicRouteData {
    let names = ["a", "b"];
    let broker = |name: &str| BrokerData {
        broker_name: name.to_owned(),
        broker_addrs: BTreeMap::from([(0, format!("{name}:1"))]),
        ..BrokerData::default()
    };
    let queues = |name: &str| QueueData {
        broker_name: name.to_owned(),
        perm: 6,
        read_queue_nums: 1,
        write_queue_nums: 1,
        topic_sys_flag: 0,
    };
    TopicRouteData {
        broker_datas: names.map(broker).to_vec(),
        queue_datas: names.map(queues).to_vec(),
        ..TopicRouteData::default()
    }
}

fn message() -> Message {
    Message::new("t", "body").unwrap()
}

#[tokio::test(start_paused = true)]
async fn queues_take_turns() {
    let (network, producer) = cluster(0, 0).await;
    for _ in 0..10 {
        assert_eq!(producer.send(message()).await.unwrap().status, SendStatus::Ok);
    }
    let sent = network.seen(request::SEND_MESSAGE_V2);
    assert_eq!(sent.iter().filter(|(addr, _)| addr == "a:1").count(), 5);
    assert_eq!(network.seen(request::GET_ROUTEINFO_BY_TOPIC).len(), 1);
}

#[cfg(feature = "trace")]
#[tokio::test(start_paused = true)]
async fn traces_go_to_another_broker_when_one_fails() {
    let (network, producer) = cluster(response::SYSTEM_BUSY, 0).await;
    for round in 0..8 {
        let traced = producer.inner.client.producer("h").trace(crate::trace::TraceTopic::named("t"));
        let traced = traced.start().unwrap();
        let id = traced.send(message()).await.unwrap().msg_id;
        // Leaving sends what waits.
        traced.shutdown().await;
        let sent = network.seen(request::SEND_MESSAGE_V2);
        let records = sent.iter().filter(|(_, c)| c.get("a") == Some("_INNER_TRACE_PRODUCER-h"));
        let stored = records.filter(|(addr, c)| addr == "b:1" && c.get("i").unwrap().contains(&id)).count();
        assert_eq!(stored, 1, "in round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_and_oneway_messages_go_to_the_queue_that_is_named() {
    let (network, producer) = cluster(response::SYSTEM_BUSY, 0).await;
    let queue = |broker: &str| MessageQueue { broker_name: broker.into(), queue_id: 0, topic: "t".into() };
    for _ in 0..4 {
        let receipt = producer.send_batch_to(vec![message(), message()], &queue("b")).await.unwrap();
        assert_eq!((receipt.queue, receipt.msg_id.split(',').count()), (queue("b"), 2));
        producer.send_oneway_to(message(), &queue("a")).await.unwrap();
    }
    let error = producer.send_batch_to(vec![message()], &queue("a")).await.unwrap_err();
    assert_eq!(error.code(), Some(response::SYSTEM_BUSY));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let places = |code| network.seen(code).into_iter().map(|(addr, _)| addr).collect::<Vec<_>>();
    assert_eq!(places(request::SEND_BATCH_MESSAGE), ["b:1", "b:1", "b:1", "b:1", "a:1"]);
    assert_eq!(places(request::SEND_MESSAGE_V2), ["a:1"; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_broker_is_passed_over() {
    let (_network, producer) = cluster(response::SYSTEM_BUSY, 0).await;
    for _ in 0..4 {
        let receipt = producer.send(message()).await.unwrap();
        assert_eq!((&*receipt.queue.broker_name, receipt.queue_offset), ("b", 7));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_is_passed_over() {
    let (network, producer) = cluster(0, 0).await;
    network.remove("a:1");
    for _ in 0..4 {
        assert_eq!(producer.send(message()).await.unwrap().queue.broker_name, "b");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_broker_would_take_is_tried_once() {
    let (network, producer) = cluster(response::MESSAGE_ILLEGAL, response::MESSAGE_ILLEGAL).await;
    let error = producer.send(message()).await.unwrap_err();
    assert_eq!((error.code(), error.remark()), (Some(13), Some("because")));
    assert!(matches!(error, SendError::Call(_)) && !error.is_retryable());
    assert_eq!(network.seen(request::SEND_MESSAGE_V2).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_and_told() {
    let (network, producer) = cluster(response::SYSTEM_ERROR, response::SYSTEM_BUSY).await;
    let error = producer.send(message()).await.unwrap_err();
    let SendError::Exhausted { attempts, brokers, .. } = &error else { panic!("{error}") };
    assert_eq!((*attempts, brokers.len()), (3, 3));
    assert!(brokers[0] != brokers[1] && brokers[1] != brokers[2], "{brokers:?}");
    assert!(error.is_retryable());
    assert_eq!(network.seen(request::SEND_MESSAGE_V2).len(), 3);

    let queue = MessageQueue { broker_name: "a".into(), queue_id: 0, topic: "t".into() };
    let error = producer.send_to(message(), &queue).await.unwrap_err();
    assert_eq!(error.code(), Some(response::SYSTEM_ERROR));
    assert_eq!(network.seen(request::SEND_MESSAGE_V2).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_stored_badly_is_a_success() {
    let (network, producer) = cluster(response::FLUSH_DISK_TIMEOUT, response::SLAVE_NOT_AVAILABLE).await;
    let receipt = producer.send(message()).await.unwrap();
    assert_ne!(receipt.status, SendStatus::Ok);
    assert_eq!(network.seen(request::SEND_MESSAGE_V2).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn topics_without_route_and_selectors_without_sense() {
    let (_network, producer) = cluster(0, 0).await;
    let error = producer.send(Message::new("nowhere", "b").unwrap()).await.unwrap_err();
    assert!(matches!(&error, SendError::Route(RouteError::NoTopic(t)) if t == "nowhere"), "{error}");
    let error = producer.send_with(message(), |_: &[MessageQueue], _: &Message| 2).await.unwrap_err();
    assert!(matches!(error, SendError::Selector { picked: 2, queues: 2 }));
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_leaves_time_for_another() {
    let (network, _) = cluster(0, 0).await;
    network.peer("a:1", |_| None);
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer("g").attempt_timeout(Duration::from_secs(1)).start().unwrap();
    for _ in 0..2 {
        assert_eq!(producer.send(message()).await.unwrap().queue.broker_name, "b");
    }
    let a = MessageQueue { broker_name: "a".into(), queue_id: 0, topic: "t".into() };
    let error = producer.send_to(message(), &a).await.unwrap_err();
    assert!(matches!(error, SendError::Call(CallError::Timeout { .. })), "{error}");
    client.shutdown().await;
    assert!(client.instance.tasks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_failed_is_passed_over_for_a_while() {
    let (network, _) = cluster(0, 0).await;
    network.peer("a:1", |_| Some(Command::response(response::SYSTEM_BUSY, 0)));
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer("g").avoid_slow_brokers(true).start().unwrap();
    for _ in 0..6 {
        assert_eq!(producer.send(message()).await.unwrap().queue.broker_name, "b");
    }
    let to_a = |network: &MemoryNetwork| {
        network.seen(request::SEND_MESSAGE_V2).iter().filter(|(addr, _)| addr == "a:1").count()
    };
    assert_eq!(to_a(&network), 1);
    tokio::time::sleep(Duration::from_secs(11)).await;
    for _ in 0..2 {
        producer.send(message()).await.unwrap();
    }
    assert_eq!(to_a(&network), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_moment_travel_together() {
    let (network, _) = cluster(0, 0).await;
    for addr in ["a:1", "b:1"] {
        network.peer(addr, |request| {
            let answer = Command::response(0, 0).with_ext("msgId", "O1,O2,O3").with_ext("queueOffset", 7);
            Some(answer.with_ext("queueId", request.get("e").unwrap_or("0")))
        });
    }
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer("g").auto_batch(Duration::from_millis(10), 1000).start().unwrap();
    let began = tokio::time::Instant::now();
    let (a, b, c) =
        tokio::join!(producer.send(message()), producer.send(message()), producer.send(message()));
    let offsets = [a, b, c].map(|receipt| receipt.unwrap()).map(|r| (r.offset_msg_id, r.queue_offset));
    assert_eq!(offsets, [("O1".into(), 7), ("O2".into(), 8), ("O3".into(), 9)]);
    assert_eq!(began.elapsed().as_millis(), 10);
    assert_eq!(network.seen(request::SEND_BATCH_MESSAGE).len(), 1);
    // A batch that is full does not wait.
    let long = || Message::new("t", vec![b'x'; 500]).unwrap();
    let began = tokio::time::Instant::now();
    let (a, b) = tokio::join!(producer.send(long()), producer.send(long()));
    assert!(a.is_ok() && b.is_ok() && began.elapsed().as_millis() < 10);
    client.shutdown().await;
    assert!(client.instance.tasks().is_empty());
}
