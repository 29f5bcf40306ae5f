//! A message that consumers see only if the local transaction that goes with it commits.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example transaction`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::producer::TransactionState;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, MessageExt};
use tokio::sync::mpsc;

const TOPIC: &str = "TransactionTopic";

/// What the application's database would say about an order, whichever process asks.
fn in_the_database(order: &str) -> TransactionState {
    if order.ends_with('3') { TransactionState::Rollback } else { TransactionState::Commit }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;

    // The broker asks when it has not heard how a transaction ended.
    let checker = |message: MessageExt| async move {
        let order = String::from_utf8_lossy(&message.body).into_owned();
        println!("the broker asks about {order}");
        in_the_database(&order)
    };
    let producer = client.producer("transaction_producer").start_transactional(checker)?;
    for i in 0..5 {
        let order = format!("order {i}");
        let message = Message::new(TOPIC, order.clone())?;
        // The local transaction: write the order to the database, and tell how that went.
        let receipt = producer.send(message, |_| async move { in_the_database(&order) }).await?;
        println!("order {i}: {:?}", receipt.state);
    }

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer("transaction_consumer")
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    println!("got {}", String::from_utf8_lossy(&message.body));
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                Consumed::All
            }
        })
        .await?;
    for _ in 0..4 {
        tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    }
    consumer.shutdown().await;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
