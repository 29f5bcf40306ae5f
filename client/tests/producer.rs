//! The producer against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::{bounded, client, unique};
use ringmq_client::producer::ByHash;
use ringmq_client::{Compression, Message, SendError, SendStatus};

#[cfg(feature = "lz4")]
const PACKING: Compression = Compression::Lz4;
#[cfg(not(feature = "lz4"))]
const PACKING: Compression = Compression::Zlib;

#[tokio::test]
async fn every_kind_of_send() {
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_send");
        let producer = client.producer("client_test").compression(PACKING, 1000).start().unwrap();
        let message =
            |body: &str| Message::builder(&topic).tag("a").key("k").body(body.to_owned()).build().unwrap();

        let first = producer.send(message("one")).await.unwrap();
        assert_eq!(
            (first.status, first.queue_offset, first.queue.topic.as_str()),
            (SendStatus::Ok, 0, &*topic)
        );
        assert_eq!(first.msg_id.len(), 32);

        let second = producer.send_to(message("two"), &first.queue).await.unwrap();
        assert_eq!((second.queue_offset, &second.queue), (1, &first.queue));

        let picked = producer.send_with(message(&"three".repeat(1000)), ByHash("order-7")).await.unwrap();
        let again = producer.send_with(message("four"), ByHash("order-7")).await.unwrap();
        assert_eq!((&picked.queue, picked.queue_offset + 1), (&again.queue, again.queue_offset));

        let batch = producer.send_batch((0..10).map(|i| message(&i.to_string())).collect()).await.unwrap();
        assert_eq!(batch.msg_id.split(',').count(), 10);
        let ordered = (0..5).map(|i| message(&i.to_string())).collect();
        let ordered = producer.send_batch_to(ordered, &again.queue).await.unwrap();
        assert_eq!((&ordered.queue, ordered.msg_id.split(',').count()), (&again.queue, 5));
        producer.send_oneway(message("gone")).await.unwrap();
        producer.send_oneway_to(message("gone too"), &again.queue).await.unwrap();
        while client.admin().max_offset(&again.queue).await.unwrap() < ordered.queue_offset + 6 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!producer.queues(&topic).await.unwrap().is_empty());
        producer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn many_sends_at_once_share_a_connection() {
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_many");
        let producer = client.producer("client_test").start().unwrap();
        producer.send(Message::new(&topic, "first").unwrap()).await.unwrap();
        let mut sends = tokio::task::JoinSet::new();
        for i in 0..2000 {
            let (producer, message) = (producer.clone(), Message::new(&topic, i.to_string()).unwrap());
            sends.spawn(async move { producer.send(message).await.unwrap().msg_id });
        }
        let ids: HashSet<_> = sends.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 2000);
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn batches_that_make_themselves() {
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_auto");
        let builder = client.producer("client_test").auto_batch(Duration::from_millis(10), 32 << 10);
        let producer = builder.avoid_slow_brokers(true).detect_brokers(true).start().unwrap();
        producer.send(Message::new(&topic, "first").unwrap()).await.unwrap();
        let mut sends = tokio::task::JoinSet::new();
        for i in 0..1000 {
            let (producer, message) =
                (producer.clone(), Message::new(&topic, format!("message {i}")).unwrap());
            sends.spawn(async move { producer.send(message).await.unwrap() });
        }
        let receipts = sends.join_all().await;
        let ids: HashSet<_> = receipts.iter().map(|receipt| &receipt.msg_id).collect();
        let places: HashSet<_> =
            receipts.iter().map(|receipt| (&receipt.queue, receipt.queue_offset)).collect();
        assert_eq!((ids.len(), places.len()), (1000, 1000));
        // Each receipt is of the very message.
        let receipt = &receipts[500];
        let found = client.admin().view_message(&topic, &receipt.offset_msg_id).await.unwrap();
        assert_eq!((found.msg_id(), found.queue_offset), (receipt.msg_id.clone(), receipt.queue_offset));
        producer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn refusals_carry_the_brokers_words() {
    let Some(client) = client().await else { return };
    bounded(async {
        let producer = client.producer("client_test").max_message_size(16 << 20).start().unwrap();
        let topic = unique("client_refused");
        let long = Message::new(&topic, fastrand_bytes(5 << 20)).unwrap();
        let error = producer.send(long).await.unwrap_err();
        assert!(matches!(error, SendError::Call(_)), "{error}");
        assert_eq!(error.code(), Some(13), "{error}");
        assert!(error.remark().is_some_and(|r| !r.is_empty()) && error.addr().is_some());
        assert!(!error.is_retryable());

        let limited = client.producer("client_test").max_message_size(10).start().unwrap();
        let error = limited.send(Message::new(&topic, "longer than ten").unwrap()).await.unwrap_err();
        assert!(matches!(error, SendError::TooLarge { size: 15, limit: 10 }), "{error}");
        client.shutdown().await;
        let error = producer.send(Message::new(&topic, "x").unwrap()).await.unwrap_err();
        assert!(!error.is_retryable(), "{error}");
    })
    .await;
}

/// Bytes that no compression shortens.
fn fastrand_bytes(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}
