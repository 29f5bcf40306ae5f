//! A question as a message, and the answer of whoever consumes it.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example request_reply`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::message::NoReply;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, Producer};

const TOPIC: &str = "RequestTopic";

async fn answer(producer: &Producer, batch: &Batch) -> Result<(), Box<dyn Error + Send + Sync>> {
    for request in batch.iter() {
        let question = String::from_utf8_lossy(&request.body);
        match Message::reply(request, format!("{question} – 42")) {
            Ok(reply) => drop(producer.send(reply).await?),
            Err(NoReply::NotARequest(_)) => println!("{question} wants no answer"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two programs, usually: each with a client of its own.
    let (asking, answering) =
        (Client::connect(ClientConfig::from_env()).await?, Client::connect(ClientConfig::from_env()).await?);
    let requester = asking.producer("request_producer").start()?;
    requester.send(Message::new(TOPIC, "an ordinary message")?).await?;

    let producer = answering.producer("reply_producer").start()?;
    let consumer = answering
        .push_consumer("request_consumer")
        .subscribe(TOPIC, "*")
        .consume_from(ConsumeFrom::FirstOffset)
        .start(move |batch: Batch| {
            let producer = producer.clone();
            async move {
                match answer(&producer, &batch).await {
                    Ok(()) => Consumed::All,
                    Err(error) => {
                        println!("no answer went out: {error}");
                        // The question is too old by the time it would come again.
                        Consumed::All
                    }
                }
            }
        })
        .await?;

    let question = Message::new(TOPIC, "six times nine?")?;
    let reply = requester.request(question, Duration::from_secs(30)).await?;
    println!("{}", String::from_utf8_lossy(&reply.body));
    consumer.shutdown().await;
    asking.shutdown().await;
    answering.shutdown().await;
    Ok(())
}
