//! Ways to a cluster, against a broker: by names of hosts, by an address server, and through the VIP channel.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bounded, client, unique, watched};
use ringmq_client::{Client, ClientConfig, Message, OutgoingRequest, RpcHook, SendReceipt};
use ringmq_protocol::codes::request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// The name server under test, if there is one.
fn name_server() -> Option<String> {
    let name_server = std::env::var("RINGMQ_TEST_NAMESRV");
    name_server.inspect_err(|_| eprintln!("skipped: RINGMQ_TEST_NAMESRV is not set")).ok()
}

async fn send(client: &Client, topic: &str) -> SendReceipt {
    let producer = client.producer("client_test").start().unwrap();
    producer.send(Message::new(topic, "there").unwrap()).await.unwrap()
}

#[tokio::test]
async fn name_servers_may_have_names() {
    let Some(name_server) = name_server() else { return };
    bounded(async {
        let (_, port) = name_server.rsplit_once(':').unwrap();
        // Port 1 is nobody's, and the first host is not known.
        let list = format!("unknown.invalid:{port};localhost:1;localhost:{port}");
        let client = Client::connect(ClientConfig::new(&list)).await.unwrap();
        assert!(client.id().starts_with("127.0.0.1@") || client.id().starts_with("::1@"), "{}", client.id());
        send(&client, &unique("client_names")).await;
        client.shutdown().await;
    })
    .await;
}

/// Answers each request as an address server does; returns its URL.
async fn address_server(list: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/rocketmq/nsaddr", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let answer = match request.starts_with(b"GET /rocketmq/nsaddr HTTP/1.0\r\n") {
                true => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}\n", list.len() + 1),
                false => "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn name_servers_are_found_through_an_address_server() {
    let Some(name_server) = name_server() else { return };
    bounded(async {
        let url = address_server(format!("{name_server};127.0.0.1:1")).await;
        let mut config = ClientConfig::new("");
        config.name_server_lookup = Some(url.clone());
        let client = Client::connect(config.clone()).await.unwrap();
        send(&client, &unique("client_http")).await;
        client.shutdown().await;
        config.name_server_lookup = Some(url + "-of-nobody");
        assert!(Client::connect(config).await.unwrap_err().to_string().contains("404"));
    })
    .await;
}

/// Notes the ports that requests with a code go to, and marks every request.
#[derive(Debug, Default)]
struct Ports(Mutex<Vec<(i32, u16)>>);

impl Ports {
    fn of(&self, code: i32) -> Vec<u16> {
        self.0.lock().unwrap().iter().filter(|(c, _)| *c == code).map(|(_, port)| *port).collect()
    }
}

impl RpcHook for Ports {
    fn before_request(&self, request: &mut OutgoingRequest<'_>) {
        request.set("mark", "unknown to brokers");
    }

    fn after_response(&self, addr: &str, request_code: i32, response_code: i32) {
        let (_, port) = addr.rsplit_once(':').unwrap();
        assert!(request_code != request::SEND_MESSAGE_V2 || response_code == 0, "{addr}");
        self.0.lock().unwrap().push((request_code, port.parse().unwrap()));
    }
}

#[tokio::test]
async fn messages_are_sent_through_the_vip_channel_and_hooks_see_it() {
    let Some(name_server) = name_server() else { return };
    bounded(async {
        let (ports, topic) = (Arc::new(Ports::default()), unique("client_vip"));
        let mut config = ClientConfig::new(&name_server);
        config.vip_channel = true;
        config.rpc_hooks = vec![ports.clone()];
        let client = Client::connect(config).await.unwrap();
        let receipt = send(&client, &topic).await;
        let route = client.admin().route("TBW102").await.unwrap();
        let master = &route.broker_datas[0].broker_addrs[&0];
        let port: u16 = master.rsplit_once(':').unwrap().1.parse().unwrap();
        assert_eq!(ports.of(request::SEND_MESSAGE_V2), [port - 2]);
        assert_eq!(receipt.queue_offset, 0);

        let (consumer, seen) = watched(&client, &topic, "*").await;
        seen.count(1).await;
        assert!(ports.of(request::PULL_MESSAGE).iter().all(|pulled| *pulled == port));
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

/// What was held when the consumer was suspended still comes; nothing that was sent behind that does.
#[tokio::test]
async fn a_suspended_consumer_goes_on_when_it_is_resumed() {
    let Some(client) = client().await else { return };
    bounded(async {
        let topic = unique("client_suspended");
        let (consumer, seen) = common::consumed(&client, &topic, "*").await;
        let producer = client.producer("client_test").start().unwrap();
        let send = |text: &str| producer.send(Message::new(&topic, text.to_owned()).unwrap());
        send("before").await.unwrap();
        seen.count(1).await;
        consumer.suspend();
        // Pulls that the broker holds come back with one message each, or with none after 15 s.
        for number in 0..64 {
            send(&format!("{number}")).await.unwrap();
        }
        let queues = client.admin().queues(&topic).await.unwrap().len();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let meanwhile = seen.all().len();
        assert!(meanwhile < 65, "{meanwhile} of 65 through {queues} queues");
        send("last").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.all().len(), meanwhile);
        consumer.resume();
        seen.count(66).await;
        let mut all = seen.sorted();
        all.dedup();
        assert_eq!(all.len(), 66);
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}
