//! The lite pull consumer against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{bounded, client, unique};
use futures_core::Stream;
use ringmq_client::{Client, ConsumeFrom, LitePullConsumer, Message, MessageQueue};

/// Sends numbers to one queue of a new topic, which is returned.
async fn numbers(client: &Client, count: u32) -> MessageQueue {
    let topic = unique("client_lite");
    let producer = client.producer("client_test").start().unwrap();
    let first = producer.send(Message::new(&topic, "0").unwrap()).await.unwrap().queue;
    for i in 1..count {
        let message = Message::new(&topic, i.to_string()).unwrap();
        producer.send_to(message, &first).await.unwrap();
    }
    while client.producer("client_test").start().unwrap().queues(&topic).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    first
}

/// Polls until this many messages came.
async fn poll(consumer: &LitePullConsumer, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let messages = consumer.poll(Duration::from_secs(5)).await;
        texts.extend(messages.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap()));
    }
    texts
}

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[tokio::test]
async fn assigned_queues_are_read_from_anywhere() {
    let Some(client) = client().await else { return };
    bounded(async {
        let queue = numbers(&client, 30).await;
        let builder = client.lite_pull_consumer(unique("g")).assign([queue.clone()]).auto_commit(false);
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start().await.unwrap();
        assert_eq!(poll(&consumer, 30).await, texts(0..30));
        assert!(consumer.poll(Duration::from_millis(100)).await.is_empty());
        assert!(consumer.seek(&queue, 25));
        assert_eq!(poll(&consumer, 5).await, texts(25..30));
        assert!(consumer.seek_to_begin(&queue).await.unwrap());
        assert_eq!(poll(&consumer, 10).await, texts(0..10));
        consumer.commit().await;
        assert_eq!(consumer.committed(&queue).await.unwrap(), Some(10));

        consumer.pause(std::slice::from_ref(&queue));
        assert!(consumer.poll(Duration::from_millis(200)).await.is_empty());
        assert!(consumer.seek(&queue, 10));
        assert!(consumer.poll(Duration::from_millis(200)).await.is_empty());
        consumer.resume(std::slice::from_ref(&queue));
        assert_eq!(poll(&consumer, 10).await, texts(10..20));
        assert!(consumer.seek_to_end(&queue).await.unwrap());
        assert!(consumer.poll(Duration::from_millis(300)).await.is_empty());
        let hour_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - 3_600_000;
        assert!(consumer.seek_to_time(&queue, hour_ago).await.unwrap());
        assert_eq!(poll(&consumer, 10).await, texts(0..10));
        let other = MessageQueue { queue_id: 99, ..queue.clone() };
        assert!(!consumer.seek(&other, 0));
        let second = numbers(&client, 5).await;
        consumer.assign([second.clone()]).await.unwrap();
        assert_eq!((poll(&consumer, 5).await, consumer.queues()), (texts(0..5), vec![second]));
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_group_goes_on_where_it_was() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (queue, group) = (numbers(&client, 20).await, unique("g"));
        let start = || {
            let builder = client.lite_pull_consumer(&group).subscribe(&queue.topic, "*").poll_batch(5);
            builder.consume_from(ConsumeFrom::FirstOffset).start()
        };
        let consumer = start().await.unwrap();
        assert_eq!(poll(&consumer, 10).await, texts(0..10));
        // The second poll's messages are not done yet.
        consumer.shutdown().await;
        let consumer = start().await.unwrap();
        assert_eq!(poll(&consumer, 15).await, texts(5..20));
        let second = numbers(&client, 3).await;
        consumer.subscribe(&second.topic, "*").await.unwrap();
        // What was polled last is done with a commit, and would come again without one.
        consumer.commit().await;
        consumer.unsubscribe(&queue.topic).await;
        assert_eq!(poll(&consumer, 3).await, texts(0..3));
        consumer.commit().await;
        consumer.shutdown().await;
        let consumer = start().await.unwrap();
        assert!(consumer.poll(Duration::from_secs(2)).await.is_empty());
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn messages_come_as_a_stream() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (queue, group) = (numbers(&client, 20).await, unique("g"));
        let start = || {
            let builder = client.lite_pull_consumer(&group).subscribe(&queue.topic, "*").poll_batch(5);
            builder.consume_from(ConsumeFrom::FirstOffset).start()
        };
        let consumer = start().await.unwrap();
        let mut stream = Box::pin(consumer.stream());
        for expected in texts(0..11) {
            let message = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await.unwrap();
            assert_eq!(&*message.body, expected.as_bytes());
        }
        // Two whole polls are done; of the third, one message was taken.
        drop(stream);
        consumer.shutdown().await;
        let consumer = start().await.unwrap();
        let mut stream = consumer.stream();
        for expected in texts(10..20) {
            assert_eq!(&*stream.next().await.body, expected.as_bytes());
        }
        drop(stream);
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}
