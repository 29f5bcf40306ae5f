//! Traces against a broker: they go to a topic of their own, where the test reads them.
#![allow(clippy::unwrap_used)] // helpers of tests
#![cfg(feature = "trace")]

mod common;

use std::time::Duration;

use common::{Seen, bounded, client, unique};
use ringmq_client::admin::NewTopic;
use ringmq_client::trace::TraceTopic;
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message};

#[tokio::test]
async fn sends_and_consumptions_leave_records() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (topic, traces, group) = (unique("client_traced"), unique("client_traces"), unique("g"));
        client.admin().create_topic(&NewTopic::new(&traces)).await.unwrap();
        while client.admin().queues(&traces).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let to = TraceTopic::named(&traces);
        let producer = client.producer("traced_producer").trace(to.clone()).start().unwrap();
        let message = Message::builder(&topic).tag("a").key("k").body("traced").build().unwrap();
        let receipt = producer.send(message).await.unwrap();
        let seen = Seen::default();
        let listener = {
            let seen = seen.clone();
            move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&topic, "*").trace(to);
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        seen.count(1).await;
        // Leaving sends what waits.
        producer.shutdown().await;
        consumer.shutdown().await;

        let reader = client.lite_pull_consumer(unique("g")).subscribe(&traces, "*");
        let reader = reader.consume_from(ConsumeFrom::FirstOffset).start().await.unwrap();
        let mut text = String::new();
        while ["Pub", "SubBefore", "SubAfter"].iter().any(|kind| !text.contains(kind)) {
            for message in reader.poll(Duration::from_secs(5)).await {
                assert!(message.keys().any(|key| key == receipt.msg_id), "{:?}", message.properties());
                text.push_str(std::str::from_utf8(&message.body).unwrap());
            }
        }
        let fields = format!("traced_producer\u{1}{topic}\u{1}{}\u{1}a\u{1}k\u{1}", receipt.msg_id);
        assert!(text.contains(&fields), "{text:?}");
        assert!(text.contains(&group));
        reader.shutdown().await;
        client.shutdown().await;
    })
    .await;
}
