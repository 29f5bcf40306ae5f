//! Messages that come later: after one of the broker's delay levels, after any time, at a time.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example delay`, with `ringmq server` running.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Delivery, Message};
use tokio::sync::mpsc;

const TOPIC: &str = "DelayTopic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    let producer = client.producer("delay_producer").start()?;
    let began = Instant::now();
    let in_three_seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64 + 3000;
    for (text, delivery) in [
        ("now", Delivery::Now),
        ("level 1, which is one second", Delivery::Level(1)),
        ("in two seconds", Delivery::After(Duration::from_secs(2))),
        ("at a time", Delivery::AtMs(in_three_seconds)),
    ] {
        producer.send(Message::builder(TOPIC).body(text).delivery(delivery).build()?).await?;
    }

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer("delay_consumer")
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    println!("{:?}: {}", began.elapsed(), String::from_utf8_lossy(&message.body));
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
    client.shutdown().await;
    Ok(())
}
