//! Members of one group in Java and in Rust share the queues. Runs when `RINGMQ_TEST_NAMESRV` names a broker's name
//! server and `RINGMQ_TEST_JAVA_LIB` a directory with the jars of rocketmq-client 5.5.0 and what it depends on.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bounded, client, lacks, unique};
use ringmq_client::consumer::Filter;
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message, Producer, PushConsumer};

type Seen = Arc<Mutex<Vec<String>>>;

/// A Java member; killed when the test ends.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn java_member(lib: &str, group: &str, topic: &str, seen: Seen) -> Member {
    let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
    let mut child = Command::new("java")
        .args(["-cp", &format!("{lib}/*"), "tests/java/Member.java", &name_servers, group, topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| seen.lock().unwrap().push(line)));
    Member(child)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
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

fn share(consumer: &PushConsumer, topic: &str) -> usize {
    consumer.queues().iter().filter(|queue| queue.topic == topic).count()
}

#[tokio::test]
async fn java_and_rust_share_a_group() {
    let (Ok(lib), Some(client)) = (std::env::var("RINGMQ_TEST_JAVA_LIB"), client().await) else { return };
    bounded(async {
        let (topic, group) = (unique("client_mixed"), unique("g"));
        let producer = client.producer("client_test").start().unwrap();
        send(&producer, &topic, 0..1).await;
        while producer.queues(&topic).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (ours, theirs) = (Seen::default(), Seen::default());
        let listener = {
            let ours = ours.clone();
            move |batch: Batch| {
                let texts = batch.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap());
                ours.lock().unwrap().extend(texts);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "*");
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        until("all queues", || share(&consumer, &topic) > 1).await;
        let queues = share(&consumer, &topic);

        let member = java_member(&lib, &group, &topic, theirs.clone());
        until("half of the queues", || share(&consumer, &topic) == queues / 2).await;
        send(&producer, &topic, 1..200).await;
        until("everything", || has_all(&[&ours, &theirs], 200)).await;
        assert!(theirs.lock().unwrap().len() >= 50, "Java got too little");

        // It is killed, and its queues come here.
        drop(member);
        until("all queues again", || share(&consumer, &topic) == queues).await;
        send(&producer, &topic, 200..300).await;
        until("everything", || has_all(&[&ours, &theirs], 300)).await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

/// Java's admin tool; returns what it prints.
async fn mqadmin(lib: &str, args: &[&str]) -> String {
    let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
    let mut command = Command::new("java");
    command.args(["-cp", &format!("{lib}/*"), "org.apache.rocketmq.tools.command.MQAdminStartup"]);
    command.args(args).args(["-n", &name_servers]);
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

        let status = mqadmin(&lib, &["consumerStatus", "-g", &group, "-i", client.id()]).await;
        for expected in [&topic, "CONSUME_PASSIVELY", "PROP_CONSUMER_START_TIMESTAMP", "V5_5_0"] {
            assert!(status.contains(expected), "no {expected} in:\n{status}");
        }
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
