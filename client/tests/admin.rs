//! Operations on the cluster against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::Duration;

use common::{Seen, bounded, client, unique};
use ringmq_client::admin::{AdminError, NewTopic, TimeRange};
use ringmq_client::consumer::{Filter, PullStatus};
use ringmq_client::{Batch, Client, ConsumeFrom, Consumed, Message, MessageQueue};

/// A topic with two queues, made by the admin.
async fn topic(client: &Client) -> Vec<MessageQueue> {
    let topic = NewTopic { queues: 2, ..NewTopic::new(unique("client_admin")) };
    client.admin().create_topic(&topic).await.unwrap();
    loop {
        match client.admin().queues(&topic.name).await {
            Ok(queues) => return queues,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test]
async fn topics_and_messages_are_found() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (admin, queues) = (client.admin(), topic(&client).await);
        let name = queues[0].topic.clone();
        assert_eq!(queues.len(), 2);
        let producer = client.producer(unique("p")).start().unwrap();
        let message = Message::builder(&name).key("order-7").body("found").build().unwrap();
        let receipt = producer.send_to(message, &queues[0]).await.unwrap();
        // The index is made behind the answer.
        let found = loop {
            match admin.query_by_unique_key(&name, &receipt.msg_id).await.unwrap() {
                Some(found) => break found,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        assert_eq!((&*found.body, found.queue_offset), (&b"found"[..], 0));
        let by_key = admin.query_by_key(&name, "order-7", 10, TimeRange::ALL).await.unwrap();
        assert_eq!(by_key.iter().map(|m| m.msg_id()).collect::<Vec<_>>(), [receipt.msg_id]);
        let viewed = admin.view_message(&name, &receipt.offset_msg_id).await.unwrap();
        assert_eq!((viewed.queue, viewed.queue_offset), (receipt.queue, 0));

        assert_eq!(admin.max_offset(&queues[0]).await.unwrap(), 1);
        assert_eq!(admin.topic_stats(&name).await.unwrap()[&queues[0]].max_offset, 1);
        assert!(admin.earliest_store_time(&queues[0]).await.unwrap().is_some_and(|time| time > 0));
        assert!(admin.topics().await.unwrap().contains(&name));
        assert_eq!(admin.route(&name).await.unwrap().queue_datas[0].read_queue_nums, 2);
        assert!(matches!(admin.view_message(&name, "short").await, Err(AdminError::MessageId(_))));
        admin.delete_topic(&name).await.unwrap();
        assert!(!admin.topics().await.unwrap().contains(&name));
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn groups_are_watched_and_moved() {
    let Some(client) = client().await else { return };
    bounded(async {
        let (admin, queues, group) = (client.admin(), topic(&client).await, unique("g"));
        let name = queues[0].topic.clone();
        let producer = client.producer(unique("p")).start().unwrap();
        for i in 0..10 {
            producer.send_to(Message::new(&name, i.to_string()).unwrap(), &queues[i % 2]).await.unwrap();
        }
        assert!(admin.consumer_connections("nobody_is_here", &name).await.unwrap().is_none());
        let seen = Seen::default();
        let listener = {
            let seen = seen.clone();
            move |batch: Batch| {
                seen.add(&batch);
                async { Consumed::All }
            }
        };
        let builder = client.push_consumer(&group).subscribe(&name, "*");
        let builder = builder.persist_interval(Duration::from_millis(100));
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        seen.count(10).await;
        // Brokers that have members move refuse it as long as an offset of the group is missing.
        for queue in &queues {
            while admin.committed(&group, queue).await.unwrap() != Some(5) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let connections = admin.consumer_connections(&group, &name).await.unwrap().unwrap();
        assert_eq!(connections.connection_set[0].client_id, client.id());
        let progress = admin.consumer_progress(&group, &name).await.unwrap();
        assert_eq!((progress[&queues[0]].consumer_offset, progress[&queues[0]].broker_offset), (5, 5));
        let moved = admin.reset_offsets(&group, &name, 1000).await.unwrap();
        assert_eq!(queues.iter().map(|queue| moved[queue]).collect::<Vec<_>>(), [0, 0]);
        seen.count(20).await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn pulls_of_the_programs_own() {
    let Some(client) = client().await else { return };
    bounded(async {
        let queues = topic(&client).await;
        let producer = client.producer(unique("p")).start().unwrap();
        for i in 0..5 {
            let tag = if i % 2 == 0 { "even" } else { "odd" };
            let message = Message::builder(&queues[1].topic).tag(tag).body(i.to_string()).build().unwrap();
            producer.send_to(message, &queues[1]).await.unwrap();
        }
        let consumer = client.pull_consumer(unique("g")).unwrap();
        assert_eq!(consumer.queues(&queues[1].topic).await.unwrap(), queues);
        // Dispatch to the queue follows the send.
        let pulled = loop {
            let pulled = consumer.pull(&queues[1], &"even".into(), 0, 32, None).await.unwrap();
            if pulled.next_offset == 5 {
                break pulled;
            }
        };
        let texts: Vec<_> = pulled.messages.iter().map(|m| &*m.body).collect();
        assert_eq!((pulled.status, texts), (PullStatus::Found, vec![&b"0"[..], b"2", b"4"]));
        let nothing =
            consumer.pull(&queues[1], &Filter::all(), 5, 32, Some(Duration::from_millis(200))).await;
        assert_eq!(nothing.unwrap().status, PullStatus::NoNewMessage);
        let outside = consumer.pull(&queues[1], &Filter::all(), 99, 32, None).await.unwrap();
        assert_eq!((outside.status, outside.next_offset), (PullStatus::OffsetIllegal, 5));
        client.shutdown().await;
    })
    .await;
}
