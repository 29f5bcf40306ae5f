//! Delays, timers, recalls, retries and dead letters, by the whole broker in the simulator.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::Env;
use ringmq_env::sim::{Crash, Sim};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::properties;
use ringmq_protocol::record::{RecordView, records};

const CORES: [&str; 2] = ["cores=2", "shards=2"];

fn property(name: &str, value: impl ToString) -> String {
    format!("{name}\u{1}{}\u{2}", value.to_string())
}

fn group(name: &str) -> Command {
    let body = format!(r#"{{"groupName":"{name}","retryQueueNums":1,"retryMaxTimes":2}}"#);
    Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0).with_body(body.into_bytes())
}

fn send_back(group: &str, offset: i64, level: i32) -> Command {
    let mut command = Command::request(request::CONSUMER_SEND_MSG_BACK, 0)
        .with_ext("offset", offset)
        .with_ext("group", group)
        .with_ext("delayLevel", level);
    command.version = 513;
    command
}

/// Pulls one queue from an offset on, waiting until something is there; the records' copies.
async fn take(client: &mut Client, topic: &str, queue: i32, offset: i64) -> Vec<Vec<u8>> {
    loop {
        let answer = client.call(pull("takers", topic, queue, offset, 15_000, "*")).await;
        if answer.code == response::SUCCESS {
            let mut rest = &answer.body[..];
            let mut taken = Vec::new();
            while !rest.is_empty() {
                let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                taken.push(rest[..len].to_vec());
                rest = &rest[len..];
            }
            return taken;
        }
    }
}

fn view(record: &[u8]) -> RecordView<'_> {
    RecordView::decode(record).unwrap()
}

fn found<'a>(view: &RecordView<'a>, name: &str) -> Option<&'a str> {
    properties::find(view.properties, name)
}

#[test]
fn a_delayed_message_comes_at_its_time_with_javas_properties() {
    let sim = Sim::new(1);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in 0..2 {
            let begun = sim.now();
            let sent = client.call(send("slow", queue, "later", &property("DELAY", 2))).await;
            assert_eq!(sent.code, response::SUCCESS, "{sent:?}");
            assert_eq!(number(&sent, "queueId"), i64::from(queue));
            let taken = take(&mut client, "slow", queue, 0).await;
            let waited = sim.now().since(begun);
            assert!(
                (Duration::from_millis(4999)..Duration::from_millis(5200)).contains(&waited),
                "{waited:?}"
            );
            let message = view(&taken[0]);
            assert_eq!((taken.len(), message.body, message.queue_offset), (1, &b"later"[..], 0));
            assert_eq!(found(&message, "DELAY"), Some("2"));
            assert_eq!(found(&message, "REAL_TOPIC"), Some("slow"));
            assert_eq!(found(&message, "REAL_QID"), Some(&*queue.to_string()));
            assert_eq!(found(&message, "RINGMQ_DUE"), None);
        }
        broker.stop().await;
    });
}

#[test]
fn what_comes_back_makes_its_group_where_that_is_allowed() {
    for (auto, code) in [(true, response::SUCCESS), (false, response::SUBSCRIPTION_GROUP_NOT_EXIST)] {
        let sim = Sim::new(7);
        sim.run(async {
            let auto = format!("auto-create-group={auto}");
            let broker = start(&sim, &["cores=2", "shards=2", &auto]).await;
            let mut client = Client::connect(&sim, "client", broker.address).await;
            let sent = client.call(send("t", 0, "x", "")).await;
            let id =
                ringmq_protocol::message_id::OffsetMessageId::decode(sent.get("msgId").unwrap()).unwrap();
            let back = client.call(send_back("new", id.physical_offset, 3)).await;
            assert_eq!(back.code, code, "{back:?}");
            let resent = client.call(send("%RETRY%newer", 0, "x", "")).await;
            assert_eq!(resent.code, code, "{resent:?}");
            broker.stop().await;
        });
    }
}

#[test]
fn timers_come_in_order_across_a_crash_and_once() {
    let sim = Sim::new(2);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let now = sim.node("client").wall_ms();
        for n in 0..20 {
            let due = now + 3000 - 100 * (n / 2);
            let sent =
                client.call(send("timed", 0, &n.to_string(), &property("TIMER_DELIVER_MS", due))).await;
            assert_eq!(sent.code, response::SUCCESS, "{sent:?}");
        }
        sim.sleep(Duration::from_millis(2300)).await;
        sim.crash(BROKER, Crash::Power);
        drop(broker);
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        sim.sleep(Duration::from_secs(2)).await;
        let taken = take(&mut client, "timed", 0, 0).await;
        let bodies: Vec<&[u8]> = taken.iter().map(|record| view(record).body).collect();
        let mut expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        expected.sort_by_key(|n| std::cmp::Reverse(n.parse::<i32>().unwrap() / 2));
        assert_eq!(bodies, expected.iter().map(String::as_bytes).collect::<Vec<_>>());
        let first = view(&taken[0]);
        assert!(found(&first, "TIMER_OUT_MS").is_some() && found(&first, "TIMER_DEQUEUE_MS").is_some());
        assert!(first.store_timestamp >= found(&first, "TIMER_DELIVER_MS").unwrap().parse().unwrap());
        broker.stop().await;
    });
}

#[test]
fn what_cannot_be_delayed_is_refused_with_javas_words() {
    let sim = Sim::new(3);
    sim.run(async {
        let broker = start(&sim, &["timer-max-delay=1h"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for (name, value) in
            [("TIMER_DELAY_SEC", "3601"), ("TIMER_DELAY_SEC", "soon"), ("TIMER_DELIVER_MS", "9223372036854775807")]
        {
            let refused = client.call(send("t", 0, "x", &property(name, value))).await;
            assert_eq!(refused.code, response::MESSAGE_ILLEGAL);
            assert_eq!(
                refused.remark.as_deref(),
                Some(
                    "timer message illegal, the delay time should not be bigger than the max delay 3600000ms; or if \
                     set del msg, the delay time should be bigger than the current time"
                )
            );
        }
        let refused = client.call(send("t", 0, "x", &property("DELAY", "much"))).await;
        assert_eq!(refused.code, response::SYSTEM_ERROR);
        for (name, value) in [("DELAY", "0"), ("DELAY", "-1"), ("TIMER_DELIVER_MS", "1"), ("RINGMQ_DUE", "1")] {
            assert_eq!(client.call(send("t", 0, "now", &property(name, value))).await.code, 0);
        }
        assert_eq!(take(&mut client, "t", 0, 0).await.len(), 4);
        broker.stop().await;
        let broker = start(&sim, &["timer-messages=false"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let refused = client.call(send("t", 0, "x", &property("TIMER_DELAY_SEC", 5))).await;
        assert_eq!(
            (refused.code, refused.remark.as_deref()),
            (response::SYSTEM_ERROR, Some("accurate timer message is not enabled, timerWheelEnable is false"))
        );
        broker.stop().await;
    });
}

#[test]
fn what_is_sent_back_comes_again_and_ends_with_the_dead_letters() {
    let sim = Sim::new(4);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(group("g")).await.code, 0);
        let sent = client.call(send("orders", 1, "broken", &property("KEYS", "k1"))).await;
        let first = take(&mut client, "orders", 1, 0).await.remove(0);
        let mut offset = view(&first).physical_offset;
        for times in 1..=2 {
            assert_eq!(client.call(send_back("g", offset, 1)).await.code, 0);
            let begun = sim.now();
            let retried = take(&mut client, "%RETRY%g", 0, times - 1).await.remove(0);
            assert!(sim.now().since(begun) >= Duration::from_millis(990), "level 1 is a second");
            let message = view(&retried);
            assert_eq!((message.reconsume_times, message.body), (times as i32, &b"broken"[..]));
            assert_eq!(found(&message, "RETRY_TOPIC"), Some("orders"));
            assert_eq!(found(&message, "ORIGIN_MESSAGE_ID"), sent.get("msgId"));
            assert_eq!((found(&message, "KEYS"), found(&message, "WAIT")), (Some("k1"), Some("false")));
            offset = message.physical_offset;
        }
        // The group may consume it twice.
        assert_eq!(client.call(send_back("g", offset, 0)).await.code, 0);
        let dead = take(&mut client, "%DLQ%g", 0, 0).await.remove(0);
        let message = view(&dead);
        assert_eq!((message.reconsume_times, found(&message, "RETRY_TOPIC")), (3, Some("orders")));
        assert_eq!(found(&message, "UNIQ_KEY"), sent.get("transactionId"));
        // At once, because the consumer says so.
        assert_eq!(client.call(send_back("g", view(&first).physical_offset, -1)).await.code, 0);
        assert_eq!(take(&mut client, "%DLQ%g", 0, 1).await.len(), 1);
        broker.stop().await;
    });
}

#[test]
fn what_cannot_be_sent_back_is_refused_with_javas_words() {
    let sim = Sim::new(5);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(group("g")).await.code, 0);
        let refused = client.call(send_back("no body", 0, 0)).await;
        assert_eq!(refused.code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
        assert!(refused.remark.unwrap().starts_with("subscription group not exist, no body "));
        for offset in [0, 4128, 1 << 54, -1, i64::MAX] {
            let refused = client.call(send_back("g", offset, 0)).await;
            let remark = format!("look message by offset failed, {offset}");
            assert_eq!((refused.code, refused.remark), (response::SYSTEM_ERROR, Some(remark)));
        }
        let bare = Command::request(request::CONSUMER_SEND_MSG_BACK, 0);
        assert_eq!(client.call(bare).await.code, response::SYSTEM_ERROR);
        broker.stop().await;
    });
}

#[test]
fn a_send_to_a_retry_topic_beyond_the_limit_is_a_dead_letter() {
    let sim = Sim::new(6);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(group("g")).await.code, 0);
        let again = |times: i32| {
            let mut command =
                send("%RETRY%g", 0, &times.to_string(), &property("DELAY", 1)).with_ext("j", times);
            command.version = 513;
            command
        };
        assert_eq!(client.call(again(2)).await.code, 0);
        assert_eq!(client.call(again(3)).await.code, 0);
        assert_eq!(client.call(again(3).with_ext("l", 3)).await.code, 0);
        assert_eq!(view(&take(&mut client, "%RETRY%g", 0, 0).await[0]).body, b"2");
        let dead = take(&mut client, "%DLQ%g", 0, 0).await;
        assert_eq!((dead.len(), found(&view(&dead[0]), "DELAY")), (1, Some("-1")));
        // A member that holds a queue consumes in order: what it gives up is dead.
        let lock =
            r#"{"consumerGroup":"g","clientId":"c","mqSet":[{"topic":"t","brokerName":"b","queueId":0}]}"#;
        let lock = Command::request(request::LOCK_BATCH_MQ, 0).with_body(lock.as_bytes().to_vec());
        assert_eq!(client.call(lock).await.code, 0);
        assert_eq!(client.call(again(0)).await.code, 0);
        assert_eq!(take(&mut client, "%DLQ%g", 0, 1).await.len(), 1);
        broker.stop().await;
    });
}

#[test]
fn a_recalled_timer_never_comes() {
    let sim = Sim::new(7);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2", "recall=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let recall = |topic: &str, handle: &str| {
            let command = Command::request(request::RECALL_MESSAGE, 0).with_ext("producerGroup", "p");
            command.with_ext("topic", topic.to_owned()).with_ext("recallHandle", handle.to_owned())
        };
        let mut handles = Vec::new();
        for n in 0..4 {
            let sent =
                client.call(send("timed", n % 2, &n.to_string(), &property("TIMER_DELAY_SEC", 5))).await;
            let id = sent.get("transactionId").unwrap().to_owned();
            handles.push((sent.get("recallHandle").unwrap().to_owned(), id));
        }
        for (handle, id) in &handles[..2] {
            for _ in 0..2 {
                let recalled = client.call(recall("timed", handle)).await;
                assert_eq!((recalled.code, recalled.get("msgId")), (0, Some(&**id)), "again is as good");
            }
        }
        let refused = client.call(recall("timed", "nonsense")).await;
        assert_eq!((refused.code, refused.remark.as_deref()), (604, Some("recall handle is invalid")));
        let refused = client.call(recall("unknown", &handles[0].0)).await;
        assert_eq!(
            (refused.code, refused.remark.as_deref()),
            (17, Some("recall failed, the topic[unknown] not exist"))
        );
        sim.crash(BROKER, Crash::Power);
        drop(broker);
        let broker = start(&sim, &["cores=2", "shards=2", "recall=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        sim.sleep(Duration::from_secs(6)).await;
        for queue in 0..2 {
            let taken = take(&mut client, "timed", queue, 0).await;
            let bodies: Vec<_> = taken.iter().map(|record| view(record).body.to_vec()).collect();
            assert_eq!(bodies, [(queue + 2).to_string().into_bytes()]);
        }
        let refused = client.call(recall("timed", &handles[3].0)).await;
        assert_eq!(
            (refused.code, refused.remark.as_deref()),
            (604, Some("recall failed, timestamp invalid"))
        );
        broker.stop().await;
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let refused = client.call(recall("timed", &handles[3].0)).await;
        assert_eq!(
            (refused.code, refused.remark.as_deref()),
            (16, Some("recall failed, operation is forbidden"))
        );
        broker.stop().await;
    });
}

#[test]
fn a_backlog_of_timers_does_not_hold_up_sends() {
    let sim = Sim::new(8);
    sim.run(async {
        let broker = start(&sim, &CORES).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let due = sim.node("client").wall_ms() + 3000;
        let timers = (0..5000).map(|_| send("timed", 0, "timer", &property("TIMER_DELIVER_MS", due)));
        for opaque in client.send_all(timers.collect()).await {
            assert_eq!(client.answer(opaque).await.code, 0);
        }
        sim.sleep(Duration::from_millis((due - sim.node("client").wall_ms()).max(0) as u64)).await;
        for _ in 0..20 {
            let begun = sim.now();
            assert_eq!(client.call(send("timed", 0, "live", "")).await.code, 0);
            assert!(sim.now().since(begun) < Duration::from_millis(100));
        }
        sim.sleep(Duration::from_secs(3)).await;
        let answer = client.call(pull("takers", "timed", 0, 0, 0, "*")).await;
        assert_eq!(number(&answer, "maxOffset"), 5020);
        assert!(records(&answer.body).count() > 0);
        broker.stop().await;
    });
}
