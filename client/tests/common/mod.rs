//! What the tests against a broker share. They run when `RINGMQ_TEST_NAMESRV` names its name server.
#![allow(dead_code)] // not every test file uses all of it

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmq_client::consumer::Filter;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, PushConsumer};

/// A client, if there is a broker to test against.
pub async fn client() -> Option<Client> {
    let Ok(name_servers) = std::env::var("RINGMQ_TEST_NAMESRV") else {
        eprintln!("skipped: RINGMQ_TEST_NAMESRV is not set");
        return None;
    };
    // Logs of a test that fails: RUST_LOG=ringmq_client=debug.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    Some(Client::connect(ClientConfig::new(&name_servers)).await.expect("a client"))
}

/// Whether the broker under test was said to lack a feature: `RINGMQ_TEST_LACKS` names them.
pub fn lacks(feature: &str) -> bool {
    let lacks = std::env::var("RINGMQ_TEST_LACKS").unwrap_or_default();
    lacks.split([',', ' ']).any(|lacking| lacking == feature)
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{prefix}_{}", now.as_nanos())
}

/// Ends a test that hangs; a machine that has much else to do takes its time.
pub async fn bounded<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(180), work).await.expect("the test hangs")
}

/// What listeners saw: a line for each message.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn add(&self, batch: &Batch) {
        let texts = batch.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap());
        self.0.lock().unwrap().extend(texts);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn sorted(&self) -> Vec<String> {
        let mut all = self.all();
        all.sort();
        all
    }

    pub async fn count(&self, count: usize) {
        while self.all().len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A topic that exists; its first message is "create".
pub async fn topic(client: &Client, prefix: &str) -> String {
    let topic = unique(prefix);
    let producer = client.producer("client_test").start().unwrap();
    producer.send(Message::new(&topic, "create").unwrap()).await.unwrap();
    // The name server hears of it a moment later.
    while producer.queues(&topic).await.map_or(0, |queues| queues.len()) == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    topic
}

/// A consumer of a topic, which is created, and what it sees, except for the message that created the topic.
pub async fn consumed(client: &Client, topic: &str, filter: impl Into<Filter>) -> (PushConsumer, Seen) {
    let producer = client.producer("client_test").start().unwrap();
    producer.send(Message::new(topic, "create").unwrap()).await.unwrap();
    watched(client, topic, filter).await
}

/// A consumer of a topic that is there, and what it sees, except for a message that created the topic.
pub async fn watched(client: &Client, topic: &str, filter: impl Into<Filter>) -> (PushConsumer, Seen) {
    let seen = Seen::default();
    let listener = {
        let seen = seen.clone();
        move |batch: Batch| {
            if *batch[0].body != *b"create" {
                seen.add(&batch);
            }
            async { Consumed::All }
        }
    };
    let builder = client.push_consumer(unique("g")).subscribe(topic, filter);
    let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
    (consumer, seen)
}
