//! Delayed messages against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{bounded, client, consumed, lacks, unique};
use ringmq_client::{Delivery, Message};

#[tokio::test]
async fn levels_and_timers_deliver_late() {
    if lacks("delay") {
        return eprintln!("skipped: the broker delays nothing");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_delay");
        let producer = client.producer(unique("p")).start().unwrap();
        let (consumer, seen) = consumed(&client, &topic, "*").await;
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 + 4000;
        let sent = Instant::now();
        for (text, delivery) in [
            ("now", Delivery::Now),
            ("level", Delivery::Level(2)),
            ("after", Delivery::After(Duration::from_secs(4))),
            ("at", Delivery::AtMs(soon)),
        ] {
            let message = Message::builder(&topic).body(text).delivery(delivery).build().unwrap();
            producer.send(message).await.unwrap();
        }
        seen.count(1).await;
        assert_eq!(seen.all(), ["now"]);
        assert!(sent.elapsed() < Duration::from_secs(3), "{:?}", sent.elapsed());
        seen.count(4).await;
        // Timers are exact to a second, downwards.
        assert!(sent.elapsed() > Duration::from_millis(2500), "{:?}", sent.elapsed());
        assert_eq!(seen.sorted(), ["after", "at", "level", "now"]);
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_recalled_is_not_delivered() {
    if lacks("recall") {
        return eprintln!("skipped: the broker recalls nothing");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_recall");
        let producer = client.producer(unique("p")).start().unwrap();
        let (consumer, seen) = consumed(&client, &topic, "*").await;
        let late = |text: &str, seconds| {
            let delivery = Delivery::After(Duration::from_secs(seconds));
            Message::builder(&topic).body(text.to_owned()).delivery(delivery).build().unwrap()
        };
        let recalled = producer.send(late("recalled", 6)).await.unwrap();
        producer.send(late("stays", 7)).await.unwrap();
        let handle = recalled.recall_handle.expect("a handle");
        assert_eq!(producer.recall(&topic, &handle).await.unwrap(), recalled.msg_id);
        let error = producer.recall(&topic, "nonsense").await.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
        seen.count(1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(seen.all(), ["stays"]);
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}
