//! Sends ten messages and consumes them.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example quickstart`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message};
use tokio::sync::mpsc;

const TOPIC: &str = "QuickstartTopic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;

    let producer = client.producer("quickstart_producer").start()?;
    for i in 0..10 {
        let message = Message::builder(TOPIC).tag("greeting").key(format!("k{i}")).body(format!("hello {i}"));
        let receipt = producer.send(message.build()?).await?;
        println!("sent {} to queue {} at {}", receipt.msg_id, receipt.queue.queue_id, receipt.queue_offset);
    }

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer("quickstart_consumer")
        .subscribe(TOPIC, "greeting")
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    println!("got {}: {}", message.msg_id(), String::from_utf8_lossy(&message.body));
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                Consumed::All
            }
        })
        .await?;

    for _ in 0..10 {
        tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    }
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
