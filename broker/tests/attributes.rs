//! Sends that are stored once, types of messages, and priorities: what a topic's attributes ask of what is sent to it.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::sim::{Crash, Sim};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

fn keyed(queue: i32, body: &str, key: &str) -> Command {
    send("once", queue, body, &format!("DEDUPE_KEY\u{1}{key}\u{2}"))
}

/// What tells where a message is.
fn place(answer: &Command) -> (String, i64, i64) {
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    (answer.get("msgId").unwrap().to_owned(), number(answer, "queueId"), number(answer, "queueOffset"))
}

async fn stored(client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    for queue in 0..4 {
        all.extend(bodies(&client.call(pull("readers", "once", queue, 0, 0, "*")).await));
    }
    all.sort();
    all
}

#[test]
fn a_repeat_gets_the_place_of_the_first_whichever_queue_it_names() {
    let sim = Sim::new(70);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "once", "+dedupe.window=60000").await;
        let first = place(&client.call(keyed(0, "first", "k")).await);
        for queue in 0..4 {
            assert_eq!(place(&client.call(keyed(queue, "again", "k")).await), first);
        }
        let mut other = Client::connect(&sim, "other", broker.address).await;
        assert_eq!(place(&other.call(keyed(3, "again", "k")).await), first);
        assert_ne!(place(&client.call(keyed(0, "second", "k2")).await), first);
        assert_eq!(stored(&mut client).await, ["first", "second"]);
        broker.stop().await;
    });
}

#[test]
fn repeats_that_are_in_flight_together_are_stored_once_and_keep_their_order() {
    let sim = Sim::new(71);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "once", "+dedupe.window=60000").await;
        let commands = (0..60).map(|n| keyed(0, &format!("{:02}", n % 20), &format!("k{}", n % 20)));
        let opaques = client.send_all(commands.collect()).await;
        let mut places = Vec::new();
        for opaque in opaques {
            places.push(place(&client.answer(opaque).await));
        }
        for n in 0..20 {
            assert_eq!((&places[n], &places[n]), (&places[n + 20], &places[n + 40]));
        }
        assert_eq!(stored(&mut client).await, (0..20).map(|n| format!("{n:02}")).collect::<Vec<_>>());
        for queue in 0..4 {
            let read = bodies(&client.call(pull("readers", "once", queue, 0, 0, "*")).await);
            assert!(read.is_sorted(), "{read:?}");
        }
        broker.stop().await;
    });
}

#[test]
fn a_key_outlives_a_crash_and_is_forgotten_behind_its_window() {
    let sim = Sim::new(72);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "once", "+dedupe.window=60000").await;
        let first = place(&client.call(keyed(0, "first", "k")).await);
        drop(broker);
        sim.crash(BROKER, Crash::PowerLosingAll);
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(place(&client.call(keyed(1, "again", "k")).await), first);
        sim.sleep(Duration::from_secs(61)).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_ne!(place(&client.call(keyed(1, "later", "k")).await), first);
        assert_eq!(stored(&mut client).await, ["first", "later"]);
        broker.stop().await;
    });
}

#[test]
fn what_cannot_be_stored_once_is_refused_and_without_a_window_keys_mean_nothing() {
    let sim = Sim::new(73);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "once", "").await;
        let first = place(&client.call(keyed(0, "a", "k")).await);
        assert_ne!(place(&client.call(keyed(0, "a", "k")).await), first);
        create(&mut client, "once", "+dedupe.window=60000").await;
        let answer = client.call(keyed(0, "a", &"k".repeat(600))).await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL);
        let remark = "the message property DEDUPE_KEY is illegal: it has 600 bytes, the limit is 512";
        assert_eq!(answer.remark.as_deref(), Some(remark));
        broker.stop().await;
    });
}

#[test]
fn types_are_enforced_when_asked_for_and_a_priority_names_the_queue() {
    let sim = Sim::new(74);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "shards=1", "message-type-check=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "fifo", "+message.type=FIFO").await;
        assert_eq!(client.call(send("fifo", 0, "m", "")).await.code, response::MESSAGE_ILLEGAL);
        let sharded = client.call(send("fifo", 0, "m", "__SHARDINGKEY\u{1}k\u{2}")).await;
        assert_eq!(sharded.code, response::SUCCESS);
        create(&mut client, "urgent", "+message.type=PRIORITY").await;
        for (priority, queue) in [(0, 0), (2, 2), (9, 3)] {
            let properties = format!("_SYS_MSG_PRIORITY_\u{1}{priority}\u{2}");
            let answer = client.call(send("urgent", 1, "m", &properties)).await;
            assert_eq!((answer.code, number(&answer, "queueId")), (response::SUCCESS, queue));
        }
        broker.stop().await;
    });
}

#[test]
fn a_mixed_topic_takes_every_type_where_the_broker_allows_it() {
    let sim = Sim::new(76);
    sim.run(async {
        let broker = start(&sim, &["message-type-check=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let refused = client.call(topic("any", "+message.type=MIXED")).await;
        assert_eq!(refused.code, response::INVALID_PARAMETER);
        assert_eq!(refused.remark.as_deref(), Some("MIXED message type is not supported."));
        broker.stop().await;
        let broker = start(&sim, &["message-type-check=true", "mixed-message-type=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "any", "+message.type=MIXED").await;
        create(&mut client, "plain", "+message.type=NORMAL").await;
        for properties in
            ["", "DELAY\u{1}1\u{2}", "__SHARDINGKEY\u{1}k\u{2}", "_SYS_MSG_PRIORITY_\u{1}1\u{2}"]
        {
            assert_eq!(client.call(send("any", 0, "body", properties)).await.code, response::SUCCESS);
            let plain = client.call(send("plain", 0, "body", properties)).await.code;
            assert_eq!(plain == response::SUCCESS, properties.is_empty());
        }
        broker.stop().await;
    });
}
