//! What brokers ask of a consumer, over a connection.

use ringmq_protocol::body::{
    CmResult, ConsumeMessageDirectlyResult, ConsumerRunningInfo, GetConsumerStatusBody, HeartbeatData,
};
use ringmq_protocol::headers::heartbeat;

use super::stock::{BODY, Stock};
use super::*;

/// The client's answer to a request of the broker's.
async fn ask(stock: &Stock, command: Command) -> Command {
    let opaque = 4000 + command.code;
    stock.network.push("b:1", Command { opaque, ..command }).await;
    for _ in 0..100 {
        let seen = lock(&stock.network.seen).clone();
        let answer = seen.into_iter().find(|(_, c)| c.is_response() && c.opaque == opaque);
        if let Some((_, answer)) = answer {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer to {opaque}");
}

fn of_group(code: i32, field: &'static str, group: &str) -> Command {
    Command::request(code, 0)
        .with_ext(field, group)
        .with_ext("clientId", "127.0.0.1@me")
        .with_ext("topic", "t")
}

/// A consumer that is done with three messages of the first queue and never with the fourth.
async fn consumer(client: &Client, batches: Arc<Mutex<Vec<Batch>>>) -> PushConsumer {
    let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
    let builder = builder.pull_threshold_for_topic(900, 3 << 20).persist_interval(Duration::from_secs(1));
    let listener = move |batch: Batch| {
        lock(&batches).push(batch.clone());
        async move {
            match batch[0].queue_offset {
                3 => std::future::pending().await,
                _ => Consumed::All,
            }
        }
    };
    builder.consume_tasks(1).start(listener).await.unwrap()
}

/// Brokers compare versions of subscriptions, which heartbeats without subscriptions do not bring.
#[tokio::test(start_paused = true)]
async fn brokers_have_the_latest_subscriptions_with_short_heartbeats_too() {
    let stock = Stock::new(1, 0..8);
    let (answers, versions) = (stock.network.answers("b:1").unwrap(), Mutex::new(BTreeMap::new()));
    stock.network.peer("b:1", move |command| match command.code {
        request::HEART_BEAT => {
            let data: HeartbeatData = json::from_slice(&command.body).unwrap();
            let told = data.consumer_data_set.into_iter().flat_map(|consumer| consumer.subscription_data_set);
            lock(&versions).extend(told.map(|subscription| (subscription.topic, subscription.sub_version)));
            let answer = Command::response(0, 0).with_ext(heartbeat::IS_SUPPORT_HEART_BEAT_V2, true);
            Some(answer.with_ext(heartbeat::IS_SUB_CHANGE, false))
        }
        request::PULL_MESSAGE => {
            let asked: i64 = command.get("subVersion").unwrap().parse().unwrap();
            match lock(&versions).get(command.get("topic").unwrap()) {
                Some(known) if *known >= asked => answers(command),
                _ => Some(Command::response(response::SUBSCRIPTION_NOT_LATEST, 0)),
            }
        }
        _ => answers(command),
    });
    let mut config = ClientConfig::new("ns:1");
    config.network = Arc::new(stock.network.clone());
    (config.instance_name, config.heartbeat_v2) = ("me".to_owned(), true);
    let client = Client::connect(config).await.unwrap();
    let batches = Arc::<Mutex<Vec<Batch>>>::default();
    let consumer = consumer(&client, batches.clone()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lock(&batches).len(), 4);
    // The regular ones are short all the same.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let beats = stock.network.seen(request::HEART_BEAT);
    let (_, last) = beats.iter().rfind(|(addr, _)| addr == "b:1").unwrap();
    assert!(json::from_slice::<HeartbeatData>(&last.body).unwrap().without_sub);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn operators_are_told_what_a_consumer_is_doing() {
    let stock = Stock::new(1, 0..8);
    let client = client(&stock.network).await;
    let consumer = consumer(&client, Arc::default()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let answer = ask(&stock, of_group(request::GET_CONSUMER_RUNNING_INFO, "consumerGroup", "g")).await;
    let info: ConsumerRunningInfo = json::from_slice(&answer.body).unwrap();
    let (queue, process) = info.mq_table.iter().find(|(queue, _)| queue.topic == "t").unwrap();
    assert_eq!((queue.broker_name.as_str(), queue.queue_id, info.mq_table.len()), ("b", 0, 2));
    assert_eq!((process.commit_offset, process.cached_msg_count), (3, 5));
    assert_eq!((process.cached_msg_min_offset, process.cached_msg_max_offset), (3, 7));
    assert_eq!((process.transaction_msg_count, process.transaction_msg_min_offset), (1, 3));
    assert!(process.last_pull_timestamp > 0 && process.last_consume_timestamp > 0 && !process.droped);
    assert!(info.status_table["t"].consume_ok_tps > 0.0 && info.status_table["t"].pull_tps > 0.0);
    let topics: Vec<_> =
        info.subscription_set.iter().map(|s| (s.topic.as_str(), s.sub_string.as_str())).collect();
    assert_eq!(topics, [("%RETRY%g", "*"), ("t", "*")]);
    for (name, value) in [
        ("PROP_NAMESERVER_ADDR", "ns:1"),
        ("PROP_CONSUME_TYPE", "CONSUME_PASSIVELY"),
        ("PROP_CONSUMEORDERLY", "false"),
        ("consumerGroup", "g"),
        ("messageModel", "CLUSTERING"),
        ("pullThresholdForTopic", "900"),
        ("pullThresholdSizeForTopic", "3"),
        ("consumeThreadMax", "1"),
    ] {
        assert_eq!(info.properties.get(name).map(String::as_str), Some(value), "{name}");
    }

    let answer = ask(&stock, of_group(request::GET_CONSUMER_STATUS_FROM_CLIENT, "group", "g")).await;
    let status: GetConsumerStatusBody = json::from_slice(&answer.body).unwrap();
    assert_eq!(status.message_queue_table.into_values().collect::<Vec<_>>(), [3]);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn operators_move_a_group_through_its_members() {
    let stock = Stock::new(1, 0..8);
    let (client, batches) = (client(&stock.network).await, Arc::<Mutex<Vec<Batch>>>::default());
    let consumer = consumer(&client, batches.clone()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let queue = consumer.queues().into_iter().find(|queue| queue.topic == "t").unwrap();
    let elsewhere = MessageQueue { queue_id: 9, ..queue.clone() };
    for (group, to) in [("somebody else's", 0), ("g", 5)] {
        let body =
            ResetOffsetBody { offset_table: BTreeMap::from([(queue.clone(), to), (elsewhere.clone(), 1)]) };
        let command = Command::oneway(request::RESET_CONSUMER_CLIENT_OFFSET, 0).with_ext("topic", "t");
        let command = command.with_ext("group", group).with_ext("timestamp", 0).with_ext("isForce", true);
        stock.network.push("b:1", command.with_body(json::to_vec(&body, Dialect::Java))).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // The broker knows before the queue goes on there; the listener that had the fourth message has it still.
    assert_eq!(committed(&stock.network), ["3", "5"]);
    assert_eq!(pulled_from(&stock.network, "t"), ["0", "8", "5", "8"]);
    assert_eq!(lock(&batches).iter().map(|batch| batch[0].queue_offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_consumed_directly_and_strangers_are_told_so() {
    let stock = Stock::new(1, 0..0);
    let (client, batches) = (client(&stock.network).await, Arc::<Mutex<Vec<Batch>>>::default());
    let consumer = consumer(&client, batches.clone()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let direct = |group| {
        let command = of_group(request::CONSUME_MESSAGE_DIRECTLY, "consumerGroup", group);
        command.with_ext("brokerName", "b").with_body(record("t", 77, BODY, 0, ""))
    };
    let answer = ask(&stock, direct("g")).await;
    let result: ConsumeMessageDirectlyResult = json::from_slice(&answer.body).unwrap();
    assert_eq!((result.consume_result, result.order), (Some(CmResult::Success), false));
    let consumed: Vec<_> =
        lock(&batches).iter().map(|batch| (batch[0].queue_offset, batch[0].body.clone())).collect();
    assert_eq!(consumed, [(77, BODY.into())]);
    assert_eq!(committed(&stock.network), Vec::<String>::new());

    for (command, code) in [
        (of_group(request::GET_CONSUMER_RUNNING_INFO, "consumerGroup", "h"), response::SYSTEM_ERROR),
        (of_group(request::GET_CONSUMER_STATUS_FROM_CLIENT, "group", "h"), response::SYSTEM_ERROR),
        (Command::request(request::GET_BROKER_CONFIG, 0), response::REQUEST_CODE_NOT_SUPPORTED),
    ] {
        let answer = ask(&stock, command.clone()).await;
        assert_eq!(answer.code, code, "{command:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()));
    }
    consumer.shutdown().await;
    client.shutdown().await;
}
