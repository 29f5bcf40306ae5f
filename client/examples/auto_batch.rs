//! Very many small messages: those that are sent at about the same time travel in one request.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example auto_batch`, with `ringmq server` running.

use std::collections::HashSet;
use std::error::Error;
use std::time::{Duration, Instant};

use ringmq_client::{Client, ClientConfig, Message, Producer, SendError, SendReceipt};
use tokio::task::JoinSet;

const TOPIC: &str = "BatchedTopic";
const MESSAGES: usize = 20_000;
/// Senders that await their receipts at the same time: what fills batches.
const SENDERS: usize = 1000;

/// One of many senders; each awaits the receipt of its own message.
async fn send(producer: Producer, number: usize) -> Result<SendReceipt, SendError> {
    producer.send(Message::new(TOPIC, format!("reading {number}"))?).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    // A batch goes out when it has 32 KiB, or 10 ms behind its first message.
    let producer =
        client.producer("batching_producer").auto_batch(Duration::from_millis(10), 32 << 10).start()?;

    let began = Instant::now();
    let mut senders: JoinSet<Result<SendReceipt, SendError>> = JoinSet::new();
    let mut places = HashSet::new();
    for number in 0..MESSAGES + SENDERS {
        // Behind the last message, those that are under way are waited for.
        if number >= SENDERS
            && let Some(sent) = senders.join_next().await
        {
            let receipt = sent??;
            places.insert((receipt.queue, receipt.queue_offset));
        }
        if number < MESSAGES {
            senders.spawn(send(producer.clone(), number));
        }
    }
    println!("{} messages, each at a place of its own, in {:?}", places.len(), began.elapsed());

    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
