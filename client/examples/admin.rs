//! What a program does with the cluster beside messages: it makes a topic, finds messages, watches a group and moves it
//! back, and cleans up.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example admin`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::admin::{NewTopic, TimeRange};
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "AdministeredTopic";
const GROUP: &str = "administered_consumer";
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    let admin = client.admin();
    admin.create_topic(&NewTopic { queues: 2, ..NewTopic::new(TOPIC) }).await?;
    while admin.queues(TOPIC).await.is_err() {
        // The name server hears of the topic a moment later.
        sleep(Duration::from_millis(100)).await;
    }

    let producer = client.producer("administering_producer").start()?;
    let mut receipt = producer.send(Message::builder(TOPIC).key("order-0").body("order 0").build()?).await?;
    for i in 1..5 {
        let message = Message::builder(TOPIC).key(format!("order-{i}")).body(format!("order {i}"));
        receipt = producer.send(message.build()?).await?;
    }

    // By the producer's key, by the producer's id, and by the broker's. Keys are found a moment after the message is stored.
    while admin.query_by_key(TOPIC, "order-4", 8, TimeRange::ALL).await?.is_empty() {
        sleep(Duration::from_millis(100)).await;
    }
    let by_id = admin.query_by_unique_key(TOPIC, &receipt.msg_id).await?;
    println!("order 4 is at offset {:?}", by_id.map(|message| message.queue_offset));
    let viewed = admin.view_message(TOPIC, &receipt.offset_msg_id).await?;
    println!("it says {:?}", String::from_utf8_lossy(&viewed.body));

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer(GROUP)
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .persist_interval(Duration::from_millis(200))
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for _ in batch.iter() {
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                Consumed::All
            }
        })
        .await?;
    for _ in 0..5 {
        timeout(PATIENCE, consumed.recv()).await?;
    }

    sleep(Duration::from_secs(1)).await;
    for (queue, progress) in admin.consumer_progress(GROUP, TOPIC).await? {
        println!("queue {}: {} of {}", queue.queue_id, progress.consumer_offset, progress.broker_offset);
    }
    if let Some(members) = admin.consumer_connections(GROUP, TOPIC).await? {
        println!("{} member(s)", members.connection_set.len());
    }

    // Back to the first message that was stored since 1970: everything comes once more.
    for (queue, offset) in admin.reset_offsets(GROUP, TOPIC, 0).await? {
        println!("queue {} goes on at {offset}", queue.queue_id);
    }
    for _ in 0..5 {
        timeout(PATIENCE, consumed.recv()).await?;
    }

    consumer.shutdown().await;
    producer.shutdown().await;
    admin.delete_group(GROUP, true).await?;
    admin.delete_topic(TOPIC).await?;
    client.shutdown().await;
    Ok(())
}
