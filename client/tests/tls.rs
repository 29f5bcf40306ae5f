//! TLS against a broker that offers it on its ordinary ports, as the Java broker does unless told otherwise.
#![allow(clippy::unwrap_used)] // helpers of tests
#![cfg(feature = "tls")]

mod common;

use common::{bounded, client, lacks, unique};
use ringmq_client::tls::Tls;
use ringmq_client::{Client, ClientConfig, Message};

#[tokio::test]
async fn messages_go_through_an_encrypted_connection() {
    if lacks("tls") {
        return eprintln!("skipped: the broker has no TLS");
    }
    let Some(plain) = client().await else { return };
    bounded(async {
        let mut config = ClientConfig::new(&std::env::var("RINGMQ_TEST_NAMESRV").unwrap());
        config.tls = Some(Tls::builder().trust_everybody().build().unwrap());
        let encrypted = Client::connect(config).await.unwrap();
        let topic = unique("client_tls");
        let sent = encrypted.producer(unique("p")).start().unwrap();
        let receipt = sent.send(Message::new(&topic, "secret").unwrap()).await.unwrap();
        let lite =
            plain.lite_pull_consumer(unique("g")).assign([receipt.queue.clone()]).start().await.unwrap();
        assert!(lite.seek(&receipt.queue, 0));
        let messages = lite.poll(std::time::Duration::from_secs(10)).await;
        assert_eq!(&*messages[0].body, b"secret");
        lite.shutdown().await;
        encrypted.shutdown().await;
        plain.shutdown().await;
    })
    .await;
}
