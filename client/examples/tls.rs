//! Encrypted connections. With `CA_PEM=file` servers are judged by that certificate; without, everybody is trusted, as
//! Java's client does by default: nobody can listen, but everybody can pretend to be the broker.
//!
//! `NAMESRV_ADDR=127.0.0.1:9876 cargo run -p ringmq-client --features tls --example tls`, with a broker that has TLS.

use std::error::Error;

use ringmq_client::tls::Tls;
use ringmq_client::{Client, ClientConfig, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tls = match std::env::var_os("CA_PEM") {
        Some(path) => Tls::builder().roots_pem(std::fs::read(path)?),
        None => Tls::builder().trust_everybody(),
    };
    let mut config = ClientConfig::from_env();
    config.tls = Some(tls.build()?);
    let client = Client::connect(config).await?;
    let producer = client.producer("tls_producer").start()?;
    let receipt = producer.send(Message::new("TlsTopic", "nobody listens")?).await?;
    println!("sent {} to {}", receipt.msg_id, receipt.queue.broker_name);
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
