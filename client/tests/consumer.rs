//! The push consumer against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Seen, bounded, client, consumed, lacks, topic, unique};
use ringmq_client::admin::NewTopic;
use ringmq_client::consumer::RetryDelay;
use ringmq_client::producer::ByHash;
use ringmq_client::{
    Batch, Client, ClientConfig, ConsumeFrom, Consumed, ConsumedOrderly, Message, MessageModel, MessageQueue,
};

async fn send(client: &Client, topic: &str, texts: impl IntoIterator<Item = String>) {
    let producer = client.producer("client_test").start().unwrap();
    for text in texts {
        producer.send(Message::new(topic, text).unwrap()).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|i| format!("{i:04}"))
}

#[tokio::test]
async fn members_share_and_take_over_and_nothing_is_lost() {
    let Some(first) = client().await else { return };
    let second = client().await.unwrap();
    bounded(async {
        let (topic, group) = (topic(&first, "client_share").await, unique("g"));
        let seen = Seen::default();
        let consume = |client: &Client| {
            let seen = seen.clone();
            let builder = client.push_consumer(&group).subscribe(&topic, "*");
            builder.consume_from(ConsumeFrom::FirstOffset).start(move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            })
        };
        let one = consume(&first).await.unwrap();
        let two = consume(&second).await.unwrap();
        while one.queues().is_empty() || two.queues().iter().filter(|q| q.topic == topic).count() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let shared = |c: &ringmq_client::PushConsumer| c.queues().iter().filter(|q| q.topic == topic).count();
        while shared(&one) != shared(&two) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        send(&first, &topic, numbers(0..200)).await;
        seen.count(201).await;
        two.shutdown().await;
        send(&first, &topic, numbers(200..300)).await;
        seen.count(301).await;
        one.shutdown().await;

        // Everything was committed: a member that comes later gets only what is new.
        let three = consume(&second).await.unwrap();
        send(&first, &topic, numbers(300..310)).await;
        seen.count(311).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        three.shutdown().await;
        let mut all = seen.sorted();
        let total = all.len();
        all.dedup();
        let expected: Vec<String> = numbers(0..310).chain(["create".to_owned()]).collect();
        assert_eq!(all, expected);
        assert!(total < 330, "{total} deliveries of 311 messages");
        first.shutdown().await;
        second.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn only_the_tags_asked_for() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (topic, group, seen) = (topic(&client, "client_tags").await, unique("g"), Seen::default());
        let producer = client.producer("client_test").start().unwrap();
        // "Aa" and "BB" have one hash code, so the broker sends both.
        for tag in ["Aa", "BB", "c", "d"] {
            let message = Message::builder(&topic).tag(tag).body(tag).build().unwrap();
            producer.send(message).await.unwrap();
        }
        let listener = {
            let seen = seen.clone();
            move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "Aa || d");
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        seen.count(2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(seen.sorted(), ["Aa", "d"]);
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn failures_come_again_and_end_as_dead_letters() {
    if lacks("send-back") {
        return eprintln!("skipped: the broker takes no message back");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let (topic, group) = (topic(&client, "client_retry").await, unique("g"));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let listener = {
            let (failures, topic) = (failures.clone(), topic.clone());
            move |batch: Batch| {
                let message = batch[0].clone();
                assert_eq!(message.topic, topic);
                failures.lock().unwrap().push(message.reconsume_times);
                async move {
                    match message.reconsume_times {
                        0 => Consumed::Failed(RetryDelay::Level(1)),
                        1 => panic!("a listener's own fault"),
                        _ => Consumed::Failed(RetryDelay::DeadLetter),
                    }
                }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "*");
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        let dead = Seen::default();
        while failures.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let graves = {
            let dead = dead.clone();
            move |batch: Batch| {
                dead.add(&batch);
                async { Consumed::All }
            }
        };
        let digger = client.push_consumer(unique("g")).subscribe(format!("%DLQ%{group}"), "*");
        let digger = digger.consume_from(ConsumeFrom::FirstOffset).start(graves).await.unwrap();
        dead.count(1).await;
        assert_eq!(dead.all(), ["create"]);
        assert_eq!(*failures.lock().unwrap(), [0, 1, 2]);
        digger.shutdown().await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn each_key_in_its_order_through_failures_and_a_join() {
    let Some(first) = client().await else { return };
    let second = client().await.unwrap();
    bounded(async {
        let (topic, group, seen) = (topic(&first, "client_order").await, unique("g"), Seen::default());
        let consume = |client: &Client| {
            let seen = seen.clone();
            let builder =
                client.push_consumer(&group).subscribe(&topic, "*").suspend(Duration::from_millis(20));
            builder.consume_from(ConsumeFrom::FirstOffset).start_orderly(move |batch: Batch| {
                // Every seventh message fails once.
                let fails = batch[0].queue_offset % 7 == 3 && batch[0].reconsume_times == 0;
                if !fails {
                    seen.add(&batch);
                }
                async move { if fails { ConsumedOrderly::Suspend(None) } else { ConsumedOrderly::All } }
            })
        };
        let one = consume(&first).await.unwrap();
        let producer = first.producer("client_test").start().unwrap();
        let mut two = None;
        for i in 0..200 {
            if i == 50 {
                two = Some(consume(&second).await.unwrap());
            }
            let key = format!("key{}", i % 5);
            let message = Message::new(&topic, format!("{key}:{i:04}")).unwrap();
            producer.send_with(message, ByHash(&key)).await.unwrap();
        }
        seen.count(201).await;
        one.shutdown().await;
        two.unwrap().shutdown().await;
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in seen.all().into_iter().filter(|text| text != "create") {
            by_key.entry(text[..4].to_owned()).or_default().push(text);
        }
        for (key, texts) in by_key {
            let mut distinct = texts.clone();
            distinct.dedup();
            assert_eq!(distinct.len(), 40, "{key}: {texts:?}");
            assert!(distinct.is_sorted(), "{key}: {texts:?}");
        }
        first.shutdown().await;
        second.shutdown().await;
    })
    .await;
}

/// Subscriptions change their versions when queues change hands, and heartbeats may leave subscriptions out.
#[tokio::test]
async fn short_heartbeats_leave_no_member_behind() {
    let Ok(name_servers) = std::env::var("RINGMQ_TEST_NAMESRV") else { return };
    bounded(async {
        let mut config = ClientConfig::new(&name_servers);
        config.heartbeat_v2 = true;
        let client = Client::connect(config).await.unwrap();
        let topic = unique("client_short");
        let (consumer, seen) = consumed(&client, &topic, "*").await;
        send(&client, &topic, numbers(0..20)).await;
        seen.count(20).await;
        consumer.subscribe(&topic, "*").await.unwrap();
        send(&client, &topic, numbers(20..40)).await;
        seen.count(40).await;
        assert_eq!(seen.sorted(), numbers(0..40).collect::<Vec<_>>());
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

/// A queue of a topic that has no other.
async fn lone_queue(client: &Client) -> MessageQueue {
    let topic = NewTopic { queues: 1, ..NewTopic::new(unique("client_pending")) };
    client.admin().create_topic(&topic).await.unwrap();
    loop {
        match client.admin().queues(&topic.name).await {
            Ok(queues) => return queues[0].clone(),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test]
async fn an_orderly_listener_decides_what_is_committed() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (queue, group, seen) = (lone_queue(&client).await, unique("g"), Seen::default());
        send(&client, &queue.topic, numbers(0..6)).await;
        let builder = || {
            let builder = client.push_consumer(&group).subscribe(&queue.topic, "*");
            builder.consume_from(ConsumeFrom::FirstOffset).persist_interval(Duration::from_millis(100))
        };
        let (rolled_back, paused) = (AtomicBool::new(false), Arc::new(Mutex::new(Vec::new())));
        let listener = {
            let (seen, paused) = (seen.clone(), paused.clone());
            move |batch: Batch| {
                seen.add(&batch);
                let outcome = match batch[0].queue_offset {
                    2 => ConsumedOrderly::All,
                    4 if !rolled_back.swap(true, Ordering::Relaxed) => {
                        paused.lock().unwrap().push(Instant::now());
                        ConsumedOrderly::Rollback(Some(Duration::from_millis(300)))
                    }
                    3 => {
                        paused.lock().unwrap().push(Instant::now());
                        ConsumedOrderly::Pending
                    }
                    _ => ConsumedOrderly::Pending,
                };
                async move { outcome }
            }
        };
        let consumer = builder().start_orderly(listener).await.unwrap();
        seen.count(8).await;
        let expected = ["0000", "0001", "0002", "0003", "0004", "0003", "0004", "0005"];
        assert_eq!(seen.all(), expected);
        let paused = paused.lock().unwrap().clone();
        assert!(paused[2] - paused[1] >= Duration::from_millis(300), "{paused:?}");
        consumer.shutdown().await;
        // What was pending when its member left is not committed, and comes to the next one.
        assert_eq!(client.admin().committed(&group, &queue).await.unwrap(), Some(3));
        let rest = Seen::default();
        let listener = {
            let rest = rest.clone();
            move |batch: Batch| {
                rest.add(&batch);
                async { ConsumedOrderly::All }
            }
        };
        let consumer = builder().start_orderly(listener).await.unwrap();
        rest.count(3).await;
        consumer.shutdown().await;
        assert_eq!(rest.all(), ["0003", "0004", "0005"]);
        assert_eq!(client.admin().committed(&group, &queue).await.unwrap(), Some(6));
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn broadcasts_reach_everybody_and_progress_is_in_a_file() {
    let Some(first) = client().await else { return };
    let second = client().await.unwrap();
    bounded(async {
        let (topic, group) = (topic(&first, "client_cast").await, unique("g"));
        let dir = tempfile::tempdir().unwrap();
        let consume = |client: &Client, file: &str, seen: &Seen| {
            let seen = seen.clone();
            let builder = client.push_consumer(&group).subscribe(&topic, "*");
            let builder = builder.message_model(MessageModel::Broadcasting);
            let builder = builder.consume_from(ConsumeFrom::FirstOffset).offset_file(dir.path().join(file));
            builder.start(move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            })
        };
        let (a, b) = (Seen::default(), Seen::default());
        let one = consume(&first, "a.json", &a).await.unwrap();
        let two = consume(&second, "b.json", &b).await.unwrap();
        send(&first, &topic, numbers(0..20)).await;
        a.count(21).await;
        b.count(21).await;
        two.shutdown().await;
        send(&first, &topic, numbers(20..30)).await;
        a.count(31).await;
        let again = consume(&second, "b.json", &b).await.unwrap();
        b.count(31).await;
        assert_eq!(a.sorted(), b.sorted());
        again.shutdown().await;
        one.shutdown().await;
        first.shutdown().await;
        second.shutdown().await;
    })
    .await;
}
