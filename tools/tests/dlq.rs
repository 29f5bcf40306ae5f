//! `ringmq dlq` against a server: what a consumer could not consume is listed, shown, replayed once, and deleted.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use ringmq_client::consumer::{Consumed, Filter, RetryDelay};
use ringmq_client::{Batch, Client, ClientConfig, Message, MessageExt};
use serde_json::Value;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "Orders";
const GROUP: &str = "billing";
const DLQ: &str = "%DLQ%billing";

/// Runs the verb; what it printed, a JSON object for each line, and what it complained about.
fn dlq(namesrv: &str, words: &[&str]) -> (Vec<Value>, String) {
    let output = output(&[&["dlq", "--namesrv", namesrv, "--json"], words].concat());
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), complaint.is_empty(), "{complaint}");
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), complaint)
}

/// Runs a verb that succeeds and prints one line.
fn one(namesrv: &str, words: &[&str]) -> Value {
    let (mut lines, complaint) = dlq(namesrv, words);
    assert_eq!((lines.len(), complaint.as_str()), (1, ""), "{words:?}: {lines:?}");
    lines.remove(0)
}

fn sent(line: &Value) -> (u64, u64) {
    (line["sent"].as_u64().unwrap(), line["sentBefore"].as_u64().unwrap())
}

async fn everything(client: &Client, topic: &str) -> Vec<MessageExt> {
    let puller = client.pull_consumer("readers").unwrap();
    let mut all = Vec::new();
    for queue in puller.queues(topic).await.unwrap() {
        let mut next = 0;
        while let Some(pulled) = Some(puller.pull(&queue, &Filter::all(), next, 32, None).await.unwrap())
            .filter(|pulled| !pulled.messages.is_empty())
        {
            next = pulled.next_offset;
            all.extend(pulled.messages);
        }
    }
    all
}

async fn until_stored(client: &Client, topic: &str, messages: i64) {
    let stored = async || {
        let stats = client.admin().topic_stats(topic).await.unwrap_or_default();
        stats.values().map(|queue| queue.max_offset - queue.min_offset).sum::<i64>()
    };
    timeout(LIMIT, async {
        while stored().await != messages {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{messages} messages in {topic}"));
}

/// Sends five messages to a group that consumes none of them; their ids.
async fn make_dead_letters(client: &Client) -> Vec<String> {
    let consumer = client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .max_reconsume_times(0)
        .start(|_: Batch| async { Consumed::Failed(RetryDelay::Growing) })
        .await
        .unwrap();
    let producer = client.producer("shop").start().unwrap();
    let mut ids = Vec::new();
    for n in 0..5 {
        let message = Message::builder(TOPIC).tag("new").key(format!("k{n}")).property("colour", "red");
        let body = format!("order {n}");
        ids.push(producer.send(message.body(body).build().unwrap()).await.unwrap().msg_id);
    }
    until_stored(client, DLQ, 5).await;
    consumer.shutdown().await;
    ids
}

fn dead_letters_are_shown(namesrv: &str) {
    let listed = one(namesrv, &["list"]);
    assert_eq!((listed["group"].as_str(), listed["messages"].as_u64()), (Some(GROUP), Some(5)));
    assert_eq!(listed["notReplayed"].as_u64(), Some(5));
    assert!(listed["oldestDiedAt"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(one(namesrv, &["list", GROUP]), listed);
    let (shown, _) = dlq(namesrv, &["show", GROUP, "--body", "4"]);
    assert_eq!(shown.len(), 5);
    let third = one(namesrv, &["show", DLQ, "--key", "k2"]);
    for (name, value) in
        [("body", "order 2"), ("originTopic", TOPIC), ("reason", "consumed 0 times, the most is 0")]
    {
        assert_eq!(third[name].as_str(), Some(value));
    }
    let id = third["id"].as_str().unwrap();
    assert_eq!(one(namesrv, &["show", GROUP, "--id", id]), third);
    assert_eq!(shown[0]["body"].as_str(), Some("orde… (3 bytes more)"));
    assert_eq!(dlq(namesrv, &["show", GROUP, "--until", "1h"]).0.len(), 0);
    assert_eq!(dlq(namesrv, &["show", GROUP, "--from", "1h", "--limit", "2"]).0.len(), 2);
    assert_eq!(dlq(namesrv, &["show", GROUP, "--offset", "1..4", "--queue", "0"]).0.len(), 3);
    assert!(dlq(namesrv, &["show", "nobody"]).1.contains("the group nobody has no dead letters"));
}

#[test]
fn dead_letters_are_replayed_once_whatever_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::server(dir.path(), &[]);
    let namesrv = server.line("name server").to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(ClientConfig::new(&namesrv))).unwrap();
    let ids = runtime.block_on(make_dead_letters(&client));

    dead_letters_are_shown(&namesrv);
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--dry-run"])), (5, 0));
    // The last one, by its key (they died in any order); then some; then the rest. What went before is known again, and
    // nothing goes twice.
    let last = one(&namesrv, &["show", GROUP, "--offset", "4"]);
    let key = last["properties"]["KEYS"].as_str().unwrap();
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--key", key])), (1, 0));
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--key", key])), (0, 1));
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--limit", "2"])), (2, 0));
    let (_, refused) = dlq(&namesrv, &["purge", GROUP, "--yes"]);
    assert!(refused.contains("3 of the 5 dead letters of billing were not replayed"), "{refused}");
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--rate", "1000"])), (2, 1));
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP])), (0, 0));
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--offset", "0.."])), (0, 5));
    assert_eq!(one(&namesrv, &["list"])["notReplayed"].as_u64(), Some(0));

    let mut times = BTreeMap::<String, usize>::new();
    for message in runtime.block_on(everything(&client, TOPIC)) {
        assert_eq!((message.tag(), message.property("colour")), (Some("new"), Some("red")));
        assert_eq!(message.reconsume_times, 0);
        *times.entry(message.msg_id()).or_default() += 1;
    }
    assert_eq!(times, ids.into_iter().map(|id| (id, 2)).collect());

    // Another topic, and the group's own retry topic, are other targets.
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--to", "Elsewhere"])), (5, 0));
    assert_eq!(runtime.block_on(everything(&client, "Elsewhere")).len(), 5);
    assert_eq!(sent(&one(&namesrv, &["replay", GROUP, "--to", "group", "--key", "k0"])), (1, 0));
    let retried = runtime.block_on(everything(&client, "%RETRY%billing"));
    assert_eq!((retried.len(), retried[0].property("RETRY_TOPIC")), (1, Some(TOPIC)));

    assert!(!one(&namesrv, &["purge", GROUP])["deleted"].as_bool().unwrap());
    assert!(one(&namesrv, &["purge", GROUP, "--yes"])["deleted"].as_bool().unwrap());
    assert_eq!(dlq(&namesrv, &["list"]).0.len(), 0);
    assert_eq!(one(&namesrv, &["purge", GROUP, "--yes"])["messages"].as_u64(), Some(0));
    runtime.block_on(client.shutdown());
}
