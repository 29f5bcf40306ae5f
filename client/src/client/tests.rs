use std::collections::BTreeMap;
use std::sync::Mutex;

use ringmq_protocol::body::{BrokerData, HeartbeatData, QueueData};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::json::{self, Dialect};

use super::*;
use crate::testing::MemoryNetwork;

fn route(addr: &str) -> TopicRouteData {
    let broker_addrs = BTreeMap::from([(0, addr.to_owned())]);
    TopicRouteData {
        broker_datas: vec![BrokerData { broker_name: "b".to_owned(), broker_addrs, ..BrokerData::default() }],
        queue_datas: vec![QueueData {
            broker_name: "b".to_owned(),
            perm: 6,
            read_queue_nums: 1,
            write_queue_nums: 1,
            topic_sys_flag: 0,
        }],
        ..TopicRouteData::default()
    }
}

/// A name server with every topic at the broker b:10911, which answers every heartbeat as it is told.
fn network(answer: impl Fn() -> Command + Send + Sync + 'static) -> MemoryNetwork {
    let network = MemoryNetwork::default();
    network.peer("ns:1", |_| {
        Some(Command::response(0, 0).with_body(json::to_vec(&route("b:10911"), Dialect::Standard)))
    });
    network.peer("b:10911", move |_| Some(answer()));
    network
}

fn config(network: &MemoryNetwork) -> ClientConfig {
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    config
}

fn heartbeats(network: &MemoryNetwork) -> Vec<HeartbeatData> {
    let seen = network.seen(request::HEART_BEAT);
    seen.iter().map(|(_, command)| json::from_slice(&command.body).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn heartbeats_leave_out_what_a_broker_knows() {
    let changed = Arc::new(Mutex::new("true"));
    let answer = {
        let changed = changed.clone();
        move || {
            let answer = Command::response(0, 0).with_ext("IS_SUPPORT_HEART_BEAT_V2", "true");
            answer.with_ext("IS_SUB_CHANGE", *lock(&changed))
        }
    };
    let network = network(answer);
    let mut config = config(&network);
    config.heartbeat_v2 = true;
    let client = Client::connect(config).await.unwrap();
    client.instance.add_producer("g", None);
    client.instance.route("t").await.unwrap();
    client.instance.heartbeat().await;
    *lock(&changed) = "false";
    client.instance.heartbeat().await;
    *lock(&changed) = "true";
    client.instance.heartbeat().await;
    let beats = heartbeats(&network);
    assert_eq!(beats.iter().map(|beat| beat.without_sub).collect::<Vec<_>>(), [false, true, true, false]);
    assert!(beats.iter().all(|beat| beat.heartbeat_fingerprint == beats[0].heartbeat_fingerprint));
    // Another member makes another heartbeat.
    client.instance.add_producer("h", None);
    client.instance.heartbeat().await;
    let last = heartbeats(&network).pop().unwrap();
    assert!(!last.without_sub && last.heartbeat_fingerprint != beats[0].heartbeat_fingerprint);
}

#[tokio::test(start_paused = true)]
async fn brokers_hear_of_a_producer_soon_and_before_a_request() {
    let network = network(|| Command::response(0, 0));
    let client = Client::connect(config(&network)).await.unwrap();
    let producer = client.producer("g").start().unwrap();
    client.instance.route("t").await.unwrap();
    client.instance.introduce().await;
    client.instance.introduce().await;
    assert_eq!(heartbeats(&network).len(), 1);
    drop(producer);
    let _producer = client.producer("other").start().unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(heartbeats(&network).last().unwrap().producer_data_set[0].group_name, "other");
}

#[tokio::test(start_paused = true)]
async fn messages_go_through_the_vip_channel() {
    let network = network(|| Command::response(0, 0));
    network.peer("b:10909", |_| {
        let answer = Command::response(0, 0).with_ext("msgId", "M");
        Some(answer.with_ext("queueId", 0).with_ext("queueOffset", 0))
    });
    let (places, mut config) = (Arc::new(Places::default()), config(&network));
    config.vip_channel = true;
    config.rpc_hooks = vec![places.clone()];
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer("g").start().unwrap();
    producer.send(crate::Message::new("t", "b").unwrap()).await.unwrap();
    assert_eq!(network.seen(request::SEND_MESSAGE_V2)[0].0, "b:10909");
    let sends = |calls: Vec<(String, i32)>| calls.into_iter().filter(|(_, c)| *c == request::SEND_MESSAGE_V2);
    let vip = ("b:10909".to_owned(), request::SEND_MESSAGE_V2);
    // Hooks are told of the channel too, before and behind the call; it is no address that routes forgot.
    assert_eq!(sends(lock(&places.0).clone()).collect::<Vec<_>>(), [vip.clone(), vip]);
    tokio::time::sleep(client.instance.config.route_poll_interval * 2).await;
    assert!(client.instance.remoting.is_connected("b:10909"));
    assert!(network.seen(request::HEART_BEAT).iter().all(|(addr, _)| addr == "b:10911"));
}

/// Notes the address and the code of each request, and of each answer.
#[derive(Debug, Default)]
struct Places(Mutex<Vec<(String, i32)>>);

impl crate::RpcHook for Places {
    fn before_request(&self, request: &mut crate::OutgoingRequest<'_>) {
        lock(&self.0).push((request.addr.to_owned(), request.code));
    }

    fn after_response(&self, addr: &str, request_code: i32, _response_code: i32) {
        lock(&self.0).push((addr.to_owned(), request_code));
    }
}

#[tokio::test(start_paused = true)]
async fn one_name_server_whose_host_is_not_known_keeps_nobody_from_the_others() {
    let network = network(|| Command::response(0, 0));
    let connect = |list: [&str; 2]| {
        let mut config = config(&network);
        config.name_servers = list.map(str::to_owned).to_vec();
        Client::connect(config)
    };
    let client = connect(["unknown:1", "ns:1"]).await.unwrap();
    client.instance.route("t").await.unwrap();
    client.shutdown().await;
    let error = connect(["unknown:1", "unknown:2"]).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("unknown:2"), "{error}");
}

#[derive(Debug)]
struct Stamp(Mutex<Vec<(i32, i32)>>);

impl crate::RpcHook for Stamp {
    fn before_request(&self, request: &mut crate::OutgoingRequest<'_>) {
        request.set("stamp", "1");
    }

    fn after_response(&self, _addr: &str, request_code: i32, response_code: i32) {
        lock(&self.0).push((request_code, response_code));
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_see_requests_and_answers() {
    let network = network(|| Command::response(response::NO_PERMISSION, 0));
    let (stamp, mut config) = (Arc::new(Stamp(Mutex::default())), config(&network));
    config.rpc_hooks = vec![stamp.clone(), Arc::new(crate::Namespace("space".to_owned()))];
    let client = Client::connect(config).await.unwrap();
    let queue = MessageQueue { broker_name: "b".into(), queue_id: 0, topic: "t".into() };
    client.admin().max_offset(&queue).await.unwrap_err();
    let asked = &network.seen(request::GET_MAX_OFFSET)[0].1;
    let fields = ["stamp", "ns", "nsd", "topic"].map(|name| asked.get(name));
    assert_eq!(fields, [Some("1"), Some("space"), Some("true"), Some("t")]);
    assert!(lock(&stamp.0).contains(&(request::GET_MAX_OFFSET, response::NO_PERMISSION)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_name_server_is_passed_over() {
    let (network, silent) = (MemoryNetwork::default(), Arc::new(Mutex::new("ns:1")));
    for addr in ["ns:1", "ns:2"] {
        let silent = silent.clone();
        network.peer(addr, move |_| {
            let body = json::to_vec(&route("b:10911"), Dialect::Standard);
            (*lock(&silent) != addr).then(|| Command::response(0, 0).with_body(body))
        });
    }
    let mut config = config(&network);
    config.name_servers = vec!["ns:1".to_owned(), "ns:2".to_owned(), "nobody:1".to_owned()];
    let client = Client::connect(config).await.unwrap();
    client.instance.route("t").await.unwrap();
    *lock(&silent) = "ns:2";
    client.instance.route("u").await.unwrap();
    // The one that answered is asked again, and first.
    let asked = network.seen(request::GET_ROUTEINFO_BY_TOPIC).len();
    client.instance.route("v").await.unwrap();
    let after = network.seen(request::GET_ROUTEINFO_BY_TOPIC).split_off(asked);
    assert_eq!(after.iter().map(|(addr, _)| addr.as_str()).collect::<Vec<_>>(), ["ns:1"]);
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn brokers_that_no_route_names_are_forgotten() {
    let (network, place) = (MemoryNetwork::default(), Arc::new(Mutex::new("b:1")));
    let told = place.clone();
    network.peer("ns:1", move |_| {
        Some(Command::response(0, 0).with_body(json::to_vec(&route(*lock(&told)), Dialect::Standard)))
    });
    for addr in ["b:1", "b:2"] {
        network.peer(addr, |_| Some(Command::response(0, 0)));
    }
    let client = Client::connect(config(&network)).await.unwrap();
    client.instance.add_producer("g", None);
    client.instance.route("t").await.unwrap();
    client.instance.heartbeat().await;
    assert!(client.instance.remoting.is_connected("b:1"));
    *lock(&place) = "b:2";
    tokio::time::sleep(client.instance.config.route_poll_interval * 2).await;
    let before = network.seen(request::HEART_BEAT).len();
    client.instance.heartbeat().await;
    let beats = network.seen(request::HEART_BEAT).split_off(before);
    assert!(!beats.is_empty() && beats.iter().all(|(addr, _)| addr == "b:2"), "{beats:?}");
    assert!(!client.instance.remoting.is_connected("b:1"));
    client.shutdown().await;
}

#[tokio::test]
async fn name_servers_are_looked_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rocketmq/nsaddr", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        assert!(request.starts_with(b"GET /rocketmq/nsaddr HTTP/1.0\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n127.0.0.1:9876;127.0.0.2:9876\n").await.unwrap();
    });
    let mut config = ClientConfig::new("");
    config.name_server_lookup = Some(url);
    let client = Client::connect(config).await.unwrap();
    assert_eq!(client.instance.name_servers().len(), 2);
    let nothing = Client::connect(ClientConfig::new("")).await;
    assert!(matches!(nothing, Err(ConnectError::NoNameServer)));
}
