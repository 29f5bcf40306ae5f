use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmq_protocol::body::{BrokerData, ConsumerIdList, QueueData, TopicRouteData};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::json::{self, Dialect};
use tokio::time::Instant;

use super::*;
use crate::config::ClientConfig;
use crate::message::tests_support::record;
use crate::testing::MemoryNetwork;

/// A name server and a broker with one queue of every topic; the queue of "t" holds one message, at offset 0, that failed twice.
fn broker(
    client_id: &'static str,
    on_failure: impl Fn(&Command) -> Option<Command> + Send + Sync + 'static,
) -> MemoryNetwork {
    let network = MemoryNetwork::default();
    network
        .peer("ns:1", |_| Some(Command::response(0, 0).with_body(json::to_vec(&route(), Dialect::Standard))));
    let pulled = AtomicBool::new(false);
    network.peer("b:1", move |command| {
        let ok = Command::response(0, 0);
        match command.code {
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let list = ConsumerIdList { consumer_id_list: vec![client_id.to_owned()] };
                Some(ok.with_body(json::to_vec(&list, Dialect::Java)))
            }
            request::QUERY_CONSUMER_OFFSET => Some(ok.with_ext("offset", 0)),
            request::PULL_MESSAGE
                if command.get("topic") == Some("t") && !pulled.swap(true, Ordering::Relaxed) =>
            {
                let answer =
                    ok.with_ext("nextBeginOffset", 1).with_ext("minOffset", 0).with_ext("maxOffset", 1);
                Some(answer.with_body(record("t", 0, b"body", 0, "")))
            }
            request::PULL_MESSAGE => None,
            request::CONSUMER_SEND_MSG_BACK | request::SEND_MESSAGE_V2 => on_failure(command),
            _ => Some(ok),
        }
    });
    network
}

fn route() -> TopicRouteData {
    let broker_addrs = BTreeMap::from([(0, "b:1".to_owned())]);
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

async fn client(network: &MemoryNetwork) -> Client {
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(network.clone());
    config.instance_name = "me".to_owned();
    Client::connect(config).await.unwrap()
}

/// When the listener got the message, and how often it had failed by then.
type Deliveries = Arc<Mutex<Vec<(Instant, i32)>>>;

/// Starts a consumer whose listener fails once.
async fn failing_once(client: &Client, deliveries: Deliveries) -> PushConsumer {
    let builder = client.push_consumer("g").subscribe("t", "*");
    let listener = move |batch: Batch| {
        let mut deliveries = lock(&deliveries);
        deliveries.push((Instant::now(), batch[0].reconsume_times));
        let failed = deliveries.len() == 1;
        async move { if failed { Consumed::Failed(RetryDelay::Growing) } else { Consumed::All } }
    };
    builder.start(listener).await.unwrap()
}

/// The offsets of "t" that the broker was told.
fn committed(network: &MemoryNetwork) -> Vec<String> {
    let commits = network.seen(request::UPDATE_CONSUMER_OFFSET);
    let of_t = commits.iter().filter(|(_, c)| c.get("topic") == Some("t"));
    of_t.filter_map(|(_, c)| c.get("commitOffset").map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_that_no_broker_takes_back_is_tried_again_here() {
    let network = broker("127.0.0.1@me", |_| Some(Command::response(response::SYSTEM_ERROR, 0)));
    let (client, deliveries) = (client(&network).await, Deliveries::default());
    let consumer = failing_once(&client, deliveries.clone()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(network.seen(request::CONSUMER_SEND_MSG_BACK).len(), 1);
    let copies = network.seen(request::SEND_MESSAGE_V2);
    assert_eq!(copies[0].1.get("b"), Some("%RETRY%g"));
    assert_eq!((copies[0].1.get("j"), copies[0].1.get("l")), (Some("3"), Some("16")));
    assert_eq!(committed(&network), Vec::<String>::new());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let seen = lock(&deliveries).clone();
    assert_eq!(seen.iter().map(|(_, times)| *times).collect::<Vec<_>>(), [2, 3]);
    assert!(seen[1].0 - seen[0].0 >= Duration::from_secs(5));
    consumer.shutdown().await;
    assert_eq!(committed(&network).last().map(String::as_str), Some("1"));
    client.shutdown().await;
    assert!(client.instance.tasks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_that_is_taken_back_is_done_here() {
    let network = broker("127.0.0.1@me", |_| Some(Command::response(0, 0)));
    let (client, deliveries) = (client(&network).await, Deliveries::default());
    let consumer = failing_once(&client, deliveries.clone()).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(lock(&deliveries).len(), 1);
    let back = network.seen(request::CONSUMER_SEND_MSG_BACK);
    let fields = ["offset", "delayLevel", "originTopic", "maxReconsumeTimes"].map(|f| back[0].1.get(f));
    assert_eq!(fields, [Some("1000"), Some("0"), Some("t"), Some("16")]);
    assert_eq!(committed(&network).last().map(String::as_str), Some("1"));
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_dropped_leaves_nothing_behind() {
    let network = broker("127.0.0.1@me", |_| None);
    let client = client(&network).await;
    network.peer("ns:1", |_| None);
    let start = client.push_consumer("g").subscribe("t", "*").start(|_: Batch| async { Consumed::All });
    tokio::time::timeout(Duration::from_millis(100), start).await.unwrap_err();
    assert!(client.instance.heartbeat_data().consumer_data_set.is_empty());
    let start = client.lite_pull_consumer("g").subscribe("t", "*").start();
    tokio::time::timeout(Duration::from_millis(100), start).await.unwrap_err();
    assert!(client.instance.heartbeat_data().consumer_data_set.is_empty());
    client.shutdown().await;
    assert!(client.instance.tasks().is_empty());
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn what_happens_is_measured() {
    let recorder = crate::metrics::tests_support::Recorder::default();
    let _here = metrics::set_default_local_recorder(&recorder);
    let network = broker("127.0.0.1@me", |_| Some(Command::response(response::SYSTEM_ERROR, 0)));
    let (client, deliveries) = (client(&network).await, Deliveries::default());
    let consumer = failing_once(&client, deliveries.clone()).await;
    let producer = client.producer("p").start().unwrap();
    producer.send(crate::Message::new("t", "b").unwrap()).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let consumed = |status| {
        format!("rocketmq_client_consumed_messages_total topic=t consumer_group=g invocation_status={status}")
    };
    for (name, value) in [
        ("rocketmq_send_cost_time topic=t invocation_status=failure", 1.0),
        ("rocketmq_client_send_retries_total topic=t", 2.0),
        ("rocketmq_client_pulled_messages_total topic=t consumer_group=g", 1.0),
        (&consumed("success"), 1.0),
        (&consumed("failure"), 1.0),
        ("rocketmq_client_returned_messages_total topic=t consumer_group=g to=here", 1.0),
        ("rocketmq_client_queues topic=t consumer_group=g", 1.0),
        ("rocketmq_consumer_cached_messages topic=t consumer_group=g", 0.0),
        ("rocketmq_delivery_latency topic=t consumer_group=g", 1.0),
    ] {
        assert_eq!(recorder.value(name), Some(value), "{name} in {recorder:?}");
    }
    // Two pulls are held by the broker.
    assert_eq!(recorder.value("rocketmq_client_requests_in_flight"), Some(2.0));
    assert!(recorder.value("rocketmq_client_rebalances_total consumer_group=g") >= Some(1.0));
    consumer.shutdown().await;
    client.shutdown().await;
    assert_eq!(recorder.value("rocketmq_client_queues topic=t consumer_group=g"), Some(0.0));
    assert_eq!(recorder.value("rocketmq_client_requests_in_flight"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_no_member_has_no_queue() {
    let network = broker("somebody else", |_| None);
    let client = client(&network).await;
    let consumer = failing_once(&client, Deliveries::default()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(consumer.queues().is_empty());
    let again = client.push_consumer("g").subscribe("t", "*").start(|_: Batch| async { Consumed::All }).await;
    assert!(matches!(again, Err(ConsumerError::GroupTaken(group)) if group == "g"));
    drop(consumer);
    client.shutdown().await;
    assert!(client.instance.tasks().is_empty());
}
