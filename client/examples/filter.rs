//! Only the messages that are wanted: by tag, and by an SQL92 expression over properties.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example filter`, with `ringmq server` running. The Java
//! broker needs `enablePropertyFilter=true`.

use std::error::Error;
use std::time::Duration;

use ringmq_client::consumer::Filter;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, PushConsumer};
use tokio::sync::mpsc;

const TOPIC: &str = "FilterTopic";

async fn consume(
    client: &Client,
    group: &'static str,
    filter: Filter,
    done: mpsc::Sender<()>,
) -> Result<PushConsumer, Box<dyn Error>> {
    let consumer = client
        .push_consumer(group)
        .subscribe(TOPIC, filter)
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    println!("{group} got {}", String::from_utf8_lossy(&message.body));
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                Consumed::All
            }
        })
        .await?;
    Ok(consumer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    let producer = client.producer("filter_producer").start()?;
    for (fruit, price) in [("apple", 3), ("pear", 7), ("cherry", 12), ("plum", 5)] {
        let text = format!("{fruit} for {price}");
        let message = Message::builder(TOPIC).tag(fruit).property("price", price.to_string()).body(text);
        producer.send(message.build()?).await?;
    }

    let (done, mut consumed) = mpsc::channel(100);
    let by_tag = consume(&client, "filter_by_tag", Filter::from("apple || plum"), done.clone()).await?;
    let by_price = consume(&client, "filter_by_price", Filter::sql("price BETWEEN 5 AND 10"), done).await?;
    for _ in 0..2 + 2 {
        tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    }
    by_tag.shutdown().await;
    by_price.shutdown().await;
    client.shutdown().await;
    Ok(())
}
