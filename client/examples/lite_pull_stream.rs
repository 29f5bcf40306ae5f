//! Messages as a stream, at the program's own pace.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example lite_pull_stream`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::{Client, ClientConfig, ConsumeFrom, Message};

const TOPIC: &str = "StreamTopic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    let producer = client.producer("stream_producer").start()?;
    for i in 0..20 {
        producer.send(Message::new(TOPIC, format!("line {i}"))?).await?;
    }

    let consumer = client
        .lite_pull_consumer("stream_consumer")
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .start()
        .await?;
    // It is a `futures_core::Stream` too, for the adapters of the `futures` and `tokio-stream` crates.
    let mut messages = consumer.stream();
    for _ in 0..20 {
        let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await?;
        println!("{} of queue {}", String::from_utf8_lossy(&message.body), message.queue.queue_id);
    }
    drop(messages);
    // Everything that the stream gave is done.
    consumer.commit().await;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
