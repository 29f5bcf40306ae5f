//! The offsets of a broadcasting consumer: what Java's client stored is read here, and what is stored here is read by
//! Java's client. Runs when `RINGMQ_TEST_NAMESRV` names a broker's name server and `RINGMQ_TEST_JAVA_LIB` a directory
//! with the jars of rocketmq-client 5.5.0 and what it depends on.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Seen, bounded, client, topic, unique};
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message, MessageModel, MessageQueue};

const INSTANCE: &str = "both";

/// Java's offset of the queue; stores one first if it is given.
async fn java(dir: &Path, group: &str, queue: &MessageQueue, offset: Option<i64>) -> String {
    let lib = std::env::var("RINGMQ_TEST_JAVA_LIB").unwrap();
    let mut command = Command::new("java");
    command
        .arg(format!("-Drocketmq.client.localOffsetStoreDir={}", dir.display()))
        .args(["-cp", &format!("{lib}/*"), "tests/java/Offsets.java", INSTANCE, group])
        .args([&queue.topic, &queue.broker_name, &queue.queue_id.to_string()])
        .args(offset.map(|offset| offset.to_string()));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn java_and_rust_read_each_others_files() {
    let (Ok(_), Some(client)) = (std::env::var("RINGMQ_TEST_JAVA_LIB"), client().await) else { return };
    bounded(async {
        let (topic, group, dir) =
            (topic(&client, "client_file").await, unique("g"), tempfile::tempdir().unwrap());
        let producer = client.producer("client_test").start().unwrap();
        let queue = producer.queues(&topic).await.unwrap().remove(0);
        let first = producer.send_to(Message::new(&topic, "0").unwrap(), &queue).await.unwrap().queue_offset;
        for i in 1..6 {
            producer.send_to(Message::new(&topic, i.to_string()).unwrap(), &queue).await.unwrap();
        }
        java(dir.path(), &group, &queue, Some(first + 4)).await;
        let file = dir.path().join(format!("127.0.0.1@{INSTANCE}")).join(&group).join("offsets.json");
        assert!(file.exists());

        let seen = Seen::default();
        let listener = {
            let seen = seen.clone();
            move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "*").offset_file(&file);
        let builder = builder.message_model(MessageModel::Broadcasting);
        let builder = builder.consume_from(ConsumeFrom::LastOffset);
        let consumer = builder.start(listener).await.unwrap();
        seen.count(2).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(seen.all(), ["4", "5"]);
        consumer.shutdown().await;
        assert_eq!(java(dir.path(), &group, &queue, None).await, (first + 6).to_string());
        client.shutdown().await;
    })
    .await;
}
