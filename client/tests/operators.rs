//! What operators see of a Rust member, and do to it, with Java's mqadmin. Runs when `RINGMQ_TEST_NAMESRV` names a
//! broker's name server and `RINGMQ_TEST_JAVA_LIB` a directory with the jars of rocketmq-tools 5.5.0.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bounded, client, lacks, unique};
use ringmq_client::consumer::Filter;
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message, Producer};

type Seen = Arc<Mutex<Vec<String>>>;

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}");
}

async fn send(producer: &Producer, topic: &str, range: std::ops::Range<u32>) {
    for i in range {
        producer.send(Message::new(topic, format!("{i:04}")).unwrap()).await.unwrap();
    }
}

fn has_all(seen: &[&Seen], count: u32) -> bool {
    let all: BTreeSet<String> = seen.iter().flat_map(|seen| seen.lock().unwrap().clone()).collect();
    (0..count).all(|i| all.contains(&format!("{i:04}")))
}

/// Java's admin tool; returns what it prints.
async fn mqadmin(lib: &str, args: &[&str]) -> String {
    let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
    // Some commands leave files where they were started.
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("java");
    command.current_dir(dir.path());
    command.args(["-cp", &format!("{lib}/*"), "org.apache.rocketmq.tools.command.MQAdminStartup"]);
    command.args(args).args(["-n", &name_servers]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn consume_status(lib: &str, topic: &str, group: &str, client_id: &str) -> String {
    let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
    let mut command = Command::new("java");
    command.args(["-cp", &format!("{lib}/*"), "tests/java/ConsumeStatus.java"]);
    command.args([&name_servers, topic, group, client_id]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn operators_see_and_move_a_rust_member() {
    if lacks("running-info") {
        return eprintln!("skipped: the broker does not ask consumers");
    }
    let (Ok(lib), Some(client)) = (std::env::var("RINGMQ_TEST_JAVA_LIB"), client().await) else { return };
    bounded(async {
        let (topic, group) = (unique("client_admin"), unique("g"));
        let producer = client.producer("client_test").start().unwrap();
        send(&producer, &topic, 0..10).await;
        let seen = Seen::default();
        let listener = {
            let seen = seen.clone();
            move |batch: Batch| {
                let texts = batch.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap());
                seen.lock().unwrap().extend(texts);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "*");
        let builder = builder.persist_interval(Duration::from_millis(100));
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        until("everything", || has_all(&[&seen], 10)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;

        // 307: every part that mqadmin prints of a consumer.
        let status = mqadmin(&lib, &["consumerStatus", "-g", &group, "-i", client.id()]).await;
        for expected in [
            "#Consumer Properties#",
            "#Consumer Subscription#",
            "#Consumer Offset#",
            "#Consumer MQ Detail#",
            "#Consumer RT&TPS#",
            &topic,
            "CONSUME_PASSIVELY",
            "PROP_CONSUMER_START_TIMESTAMP",
            "V5_5_0",
        ] {
            assert!(status.contains(expected), "no {expected} in:\n{status}");
        }
        // 307 of every member, which mqadmin compares.
        let compared = mqadmin(&lib, &["consumerStatus", "-g", &group]).await;
        let verdict = "Same subscription in the same group of consumer";
        assert!(compared.contains(client.id()) && compared.contains(verdict), "{compared}");
        // 221: the offsets that the client has.
        let offsets = consume_status(&lib, &topic, &group, client.id()).await;
        let lines: Vec<_> = offsets.lines().filter(|line| line.starts_with(client.id())).collect();
        let done = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        assert_eq!(done.sum::<u32>(), 10, "{offsets}");
        let progress = client.admin().queues(&topic).await.unwrap();
        let pulled = client.pull_consumer(&group).unwrap();
        let mut id = None;
        for queue in &progress {
            let pulled = pulled.pull(queue, &Filter::all(), 0, 1, None).await.unwrap();
            id = id.or(pulled.messages.first().map(|message| message.offset_msg_id()));
        }
        let id = id.expect("a message");
        let direct =
            mqadmin(&lib, &["queryMsgById", "-i", &id, "-t", &topic, "-g", &group, "-d", client.id()]).await;
        assert!(direct.contains("CR_SUCCESS"), "{direct}");
        until("the message that was consumed directly", || seen.lock().unwrap().len() == 11).await;

        let moved = mqadmin(&lib, &["resetOffsetByTime", "-g", &group, "-t", &topic, "-s", "1000"]).await;
        let count = || seen.lock().unwrap().len();
        until(&format!("everything again: {moved}"), || count() >= 21).await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}
