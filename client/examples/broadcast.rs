//! Every member gets every message; each keeps its progress in a file of its own.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example broadcast`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::{
    Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, MessageModel, PushConsumer,
};
use tokio::sync::mpsc;

const TOPIC: &str = "BroadcastTopic";

/// A member of the group, with a client of its own as if it were another machine.
async fn member(
    name: &'static str,
    done: mpsc::Sender<()>,
) -> Result<(Client, PushConsumer), Box<dyn Error>> {
    let mut config = ClientConfig::from_env();
    // Progress is kept under this name, so that the next run goes on where this one ends.
    config.instance_name = name.to_owned();
    let client = Client::connect(config).await?;
    let consumer = client
        .push_consumer("broadcast_consumer")
        .subscribe(TOPIC, "*")
        .message_model(MessageModel::Broadcasting)
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let done = done.clone();
            async move {
                for message in batch.iter() {
                    println!("{name} got {}", String::from_utf8_lossy(&message.body));
                    // The program's end closes the channel; until then there is room.
                    let _ = done.send(()).await;
                }
                Consumed::All
            }
        })
        .await?;
    Ok((client, consumer))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    let producer = client.producer("broadcast_producer").start()?;
    for i in 0..5 {
        producer.send(Message::new(TOPIC, format!("news {i}"))?).await?;
    }

    let (done, mut consumed) = mpsc::channel(100);
    let members = [member("member-one", done.clone()).await?, member("member-two", done).await?];
    for _ in 0..2 * 5 {
        tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    }
    for (client, consumer) in members {
        consumer.shutdown().await;
        client.shutdown().await;
    }
    client.shutdown().await;
    Ok(())
}
