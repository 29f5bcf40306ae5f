//! SQL92 filters against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::Duration;

use common::{bounded, client, consumed, lacks, topic, unique};
use ringmq_client::consumer::{ConsumerError, Filter};
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message};

#[tokio::test]
async fn properties_are_judged_by_the_broker() {
    if lacks("sql92") {
        return eprintln!("skipped: the broker has no SQL92");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let name = unique("client_sql");
        let (consumer, seen) =
            consumed(&client, &name, Filter::sql("price BETWEEN 10 AND 20 OR kind = 'x'")).await;
        let producer = client.producer(unique("p")).start().unwrap();
        for (text, property, value) in
            [("5", "price", "5"), ("10", "price", "10"), ("x", "kind", "x"), ("20", "price", "20")]
        {
            let message = Message::builder(&name).body(text).property(property, value).build().unwrap();
            producer.send(message).await.unwrap();
        }
        seen.count(3).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(seen.sorted(), ["10", "20", "x"]);
        // A pull that a broker holds is judged by the new expression when it is woken.
        // Another expression takes over while the consumer runs.
        consumer.subscribe(&name, Filter::sql("kind IN ('y')")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let more = |kind: &str| {
            Message::builder(&name).body(kind.to_owned()).property("kind", kind).build().unwrap()
        };
        producer.send(more("x")).await.unwrap();
        producer.send(more("y")).await.unwrap();
        seen.count(4).await;
        assert_eq!(seen.all()[3], "y");
        consumer.shutdown().await;

        let lite = client.lite_pull_consumer(unique("g")).subscribe(&name, Filter::sql("price > 10"));
        let lite = lite.consume_from(ConsumeFrom::FirstOffset).start().await.unwrap();
        let messages = lite.poll(Duration::from_secs(20)).await;
        assert_eq!(messages.iter().map(|m| m.property("price")).collect::<Vec<_>>(), [Some("20")]);
        lite.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn mistakes_are_told_at_once() {
    if lacks("sql92") {
        return eprintln!("skipped: the broker has no SQL92");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = topic(&client, "client_sql").await;
        let builder = client.push_consumer(unique("g")).subscribe(&topic, Filter::sql("price BETWEEN"));
        let error = builder.start(|_: Batch| async { Consumed::All }).await.expect_err("a refusal");
        assert!(matches!(&error, ConsumerError::Filter { error, .. } if error.code() == Some(23)), "{error}");
        assert!(!error.is_retryable());
        client.shutdown().await;
    })
    .await;
}
