//! Messages of one order stay in order: one key, one queue, one listener at a time.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example orderly`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::producer::ByHash;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, ConsumedOrderly, Message};
use tokio::sync::mpsc;

const TOPIC: &str = "OrderlyTopic";
const STEPS: [&str; 4] = ["created", "paid", "shipped", "delivered"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;

    let producer = client.producer("orderly_producer").start()?;
    for step in STEPS {
        for order in ["order-1", "order-2", "order-3"] {
            let message = Message::builder(TOPIC).key(order).body(format!("{order} {step}")).build()?;
            producer.send_with(message, ByHash(order)).await?;
        }
    }

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer("orderly_consumer")
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .start_orderly(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    let text = String::from_utf8_lossy(&message.body);
                    println!("queue {}: {text}", message.queue.queue_id);
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                // On a failure: ConsumedOrderly::Suspend(None), and the same batch comes again before any other.
                ConsumedOrderly::All
            }
        })
        .await?;

    for _ in 0..3 * STEPS.len() {
        tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    }
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
