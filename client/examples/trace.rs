//! What became of a message: traces in a topic of their own, which mqadmin (`queryMsgTraceById -t TracesTopic`) and the
//! dashboard read. With `TraceTopic::default()` they go to the topic of brokers with `traceTopicEnable`.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --example trace`, with `ringmq server` running.

use std::error::Error;
use std::time::Duration;

use ringmq_client::admin::{NewTopic, TimeRange};
use ringmq_client::trace::TraceTopic;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message};
use tokio::sync::mpsc;

const TOPIC: &str = "TracedTopic";
const TRACES: &str = "TracesTopic";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(ClientConfig::from_env()).await?;
    client.admin().create_topic(&NewTopic::new(TRACES)).await?;
    while client.admin().queues(TRACES).await.is_err() {
        // The name server hears of the topic a moment later.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let producer = client.producer("traced_producer").trace(TraceTopic::named(TRACES)).start()?;
    let receipt = producer.send(Message::new(TOPIC, "hello")?).await?;

    let (done, mut consumed) = mpsc::channel(100);
    let consumer = client
        .push_consumer("traced_consumer")
        .subscribe(TOPIC, "*")
        .trace(TraceTopic::named(TRACES))
        .consume_from(ConsumeFrom::FirstOffset)
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
    tokio::time::timeout(Duration::from_secs(30), consumed.recv()).await?;
    // Leaving sends what waits.
    producer.shutdown().await;
    consumer.shutdown().await;

    for _ in 0..100 {
        let traces = client.admin().query_by_key(TRACES, &receipt.msg_id, 32, TimeRange::ALL).await?;
        let lines: Vec<String> = traces
            .iter()
            .flat_map(|trace| {
                String::from_utf8_lossy(&trace.body).split('\u{2}').map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|line| line.contains(&receipt.msg_id))
            .map(|line| line.replace('\u{1}', " "))
            .collect();
        if lines.len() >= 3 {
            lines.iter().for_each(|line| println!("{line}"));
            client.shutdown().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err("the traces did not come".into())
}
