mod flow;
mod orderly;
mod rebalance;
mod stock;
mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmq_protocol::body::{BrokerData, ConsumerIdList, QueueData, ResetOffsetBody, TopicRouteData};
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

#[tokio::test(start_paused = true)]
async fn a_listener_that_takes_too_long_is_given_up_and_its_message_comes_again() {
    let network = broker("127.0.0.1@me", |_| Some(Command::response(0, 0)));
    let client = client(&network).await;
    let builder = client.push_consumer("g").subscribe("t", "*").consume_timeout(Duration::from_secs(2));
    let consumer = builder.start(|_: Batch| std::future::pending::<Consumed>()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(network.seen(request::CONSUMER_SEND_MSG_BACK).is_empty());
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(network.seen(request::CONSUMER_SEND_MSG_BACK).len(), 1);
    assert_eq!(committed(&network).last().map(String::as_str), Some("1"));
    consumer.shutdown().await;
    client.shutdown().await;
}

/// A broker with empty queues whose ends are 10 and 40, with a message of every time at 20, and no offset of any group.
fn empty_queues(network: &MemoryNetwork) {
    network.peer("b:1", |command| {
        let ok = Command::response(0, 0);
        match command.code {
            request::GET_CONSUMER_LIST_BY_GROUP => {
                let list = ConsumerIdList { consumer_id_list: vec!["127.0.0.1@me".to_owned()] };
                Some(ok.with_body(json::to_vec(&list, Dialect::Java)))
            }
            request::QUERY_CONSUMER_OFFSET => Some(Command::response(response::QUERY_NOT_FOUND, 0)),
            request::GET_MAX_OFFSET => Some(ok.with_ext("offset", 40)),
            request::SEARCH_OFFSET_BY_TIMESTAMP => Some(ok.with_ext("offset", 20)),
            request::PULL_MESSAGE if command.get("queueOffset") == Some("0") => {
                let moved = Command::response(response::PULL_OFFSET_MOVED, 0);
                let moved = moved.with_ext("nextBeginOffset", 10).with_ext("suggestWhichBrokerId", 0);
                Some(moved.with_ext("minOffset", 10).with_ext("maxOffset", 40))
            }
            request::PULL_MESSAGE => None,
            _ => Some(ok),
        }
    });
}

/// The offsets that a topic was pulled from, in order.
fn pulled_from(network: &MemoryNetwork, topic: &str) -> Vec<String> {
    let pulls = network.seen(request::PULL_MESSAGE);
    let of_topic = pulls.iter().filter(|(_, c)| c.get("topic") == Some(topic));
    of_topic.filter_map(|(_, c)| c.get("queueOffset").map(str::to_owned)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_group_without_offsets_starts_where_java_would() {
    for (from, topic, retry_topic) in [
        (ConsumeFrom::LastOffset, "40", "0"),
        (ConsumeFrom::FirstOffset, "0", "0"),
        (ConsumeFrom::Timestamp(5), "20", "40"),
        (ConsumeFrom::LastOffsetAndFromMinWhenBootFirst, "40", "0"),
        (ConsumeFrom::MinOffset, "40", "0"),
        (ConsumeFrom::MaxOffset, "40", "0"),
    ] {
        let network = broker("127.0.0.1@me", |_| None);
        empty_queues(&network);
        let client = client(&network).await;
        let builder = client.push_consumer("g").subscribe("t", "*").consume_from(from);
        let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = |topic| pulled_from(&network, topic).first().cloned();
        assert_eq!(first("t").as_deref(), Some(topic), "{from:?}");
        assert_eq!(first("%RETRY%g").as_deref(), Some(retry_topic), "{from:?}");
        consumer.shutdown().await;
        client.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_offset_outside_the_queue_is_corrected_and_stored() {
    let network = broker("127.0.0.1@me", |_| None);
    empty_queues(&network);
    network.peer("b:1", {
        let (others, asked) = (network.clone(), AtomicBool::new(false));
        let empty = MemoryNetwork::default();
        empty_queues(&empty);
        let answers = empty.answers("b:1").unwrap();
        move |command| match command.code {
            // The broker knows what it was told.
            request::QUERY_CONSUMER_OFFSET if command.get("topic") == Some("t") => {
                match committed(&others).last() {
                    Some(offset) => Some(Command::response(0, 0).with_ext("offset", offset)),
                    None if !asked.swap(true, Ordering::Relaxed) => {
                        Some(Command::response(0, 0).with_ext("offset", 0))
                    }
                    None => Some(Command::response(response::QUERY_NOT_FOUND, 0)),
                }
            }
            _ => answers(command),
        }
    });
    let client = client(&network).await;
    let builder = client.push_consumer("g").subscribe("t", "*");
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(pulled_from(&network, "t"), ["0", "10"]);
    assert_eq!(committed(&network), ["10"]);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn operators_move_a_member() {
    let network = broker("127.0.0.1@me", |_| None);
    empty_queues(&network);
    let client = client(&network).await;
    let builder = client.push_consumer("g").subscribe("t", "*");
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let queue = consumer.queues().into_iter().find(|queue| queue.topic == "t").unwrap();
    let offsets = ResetOffsetBody { offset_table: BTreeMap::from([(queue, 33)]) };
    crate::client::Member::reset(consumer.group.clone(), &offsets);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(committed(&network), ["33"]);
    assert_eq!(pulled_from(&network, "t").len(), 2);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn subscriptions_come_and_go_while_the_consumer_runs() {
    let network = broker("127.0.0.1@me", |_| None);
    empty_queues(&network);
    let client = client(&network).await;
    let builder = client.push_consumer("g").subscribe("t", "*");
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
    let topics = |consumer: &PushConsumer| {
        let queues = consumer.queues();
        queues.into_iter().map(|queue| queue.topic).filter(|t| t != "%RETRY%g").collect::<Vec<_>>()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(topics(&consumer), ["t"]);
    consumer.subscribe("u", "a || b").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(topics(&consumer), ["t", "u"]);
    consumer.unsubscribe("t").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(topics(&consumer), ["u"]);
    let told = client.instance.heartbeat_data().consumer_data_set.remove(0).subscription_data_set;
    assert_eq!(told.iter().map(|s| s.topic.as_str()).collect::<Vec<_>>(), ["%RETRY%g", "u"]);
    consumer.shutdown().await;
    client.shutdown().await;
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
