use std::time::Duration;

use ringmq_protocol::body::{ConsumeFromWhere, ConsumerData, HeartbeatData, ProducerData};

use super::*;
use crate::control::topics::TopicSettings;
use crate::control::{Change, ControlSettings, ControlState, Effects};

const BOOT: i64 = 1_700_000_000_000;

fn state() -> ControlState {
    let topics = TopicSettings {
        cluster: "DefaultCluster".into(),
        broker_name: "broker-a".into(),
        default_topic_queue_nums: 8,
        auto_create_topic: true,
        trace_topic: false,
        mixed_types: false,
        shards: 1,
    };
    let settings = ControlSettings {
        server_side_reset: true,
        topics,
        auto_create_group: true,
        property_filter: true,
        channel_expired: Duration::from_secs(120),
        lock_expiry: Duration::from_secs(60),
        config_text: String::new(),
    };
    ControlState::new(&settings, BOOT)
}

fn at(seconds: u64) -> Clock {
    Clock { now: Instant(seconds * 1_000_000_000), wall_ms: BOOT + seconds as i64 * 1000 }
}

fn connection(serial: u64) -> ConnectionId {
    ConnectionId { core: 0, serial }
}

fn client(serial: u64) -> Client {
    Client {
        connection: connection(serial),
        client_id: format!("10.0.0.1@{serial}").into(),
        addr: format!("10.0.0.1:{}", 50_000 + serial).parse().unwrap(),
        language: Language::Go,
        version: 317,
    }
}

fn subscription(topic: &str, version: i64) -> SubscriptionData {
    SubscriptionData {
        topic: topic.into(),
        sub_string: "*".into(),
        sub_version: version,
        ..Default::default()
    }
}

fn consumer(group: &str, subscriptions: Vec<SubscriptionData>) -> ConsumerData {
    ConsumerData {
        group_name: group.into(),
        consume_type: Some(ConsumeType::Passively),
        message_model: Some(MessageModel::Clustering),
        consume_from_where: Some(ConsumeFromWhere::FirstOffset),
        subscription_data_set: subscriptions,
        unit_mode: false,
    }
}

fn beat(data: ConsumerData) -> HeartbeatData {
    HeartbeatData { consumer_data_set: vec![data], ..Default::default() }
}

fn producers(group: &str) -> HeartbeatData {
    HeartbeatData { producer_data_set: vec![ProducerData { group_name: group.into() }], ..Default::default() }
}

fn notified(effects: &Effects) -> Vec<u64> {
    effects.notify.iter().map(|notify| notify.connection.serial).collect()
}

fn view(effects: &Effects) -> Option<Arc<GroupView>> {
    effects.updates.iter().rev().find_map(|update| match &update.change {
        Change::Subscriptions { view, .. } => Some(view.clone()),
        _ => None,
    })?
}

#[test]
fn the_first_heartbeat_creates_what_the_group_needs() {
    let mut state = state();
    let (wanted, effects) =
        state.heartbeat(&client(1), beat(consumer("g", vec![subscription("t", 1)])), at(0));
    assert!(wanted, "a v1 heartbeat always answers IS_SUB_CHANGE=true");
    let changes: Vec<_> = effects.updates.iter().map(|update| (update.revision, &update.change)).collect();
    assert!(matches!(changes[0], (1, Change::Group { name, .. }) if &**name == "g"));
    assert!(matches!(changes[1], (2, Change::Topic { name, .. }) if &**name == "%RETRY%g"));
    assert!(matches!(changes[2], (3, Change::Subscriptions { group, .. }) if &**group == "g"));
    assert_eq!(effects.records.len(), 2, "subscriptions are not durable");
    assert!(effects.register);
    assert_eq!(notified(&effects), [1]);

    let (_, again) = state.heartbeat(&client(1), beat(consumer("g", vec![subscription("t", 1)])), at(30));
    assert_eq!(again, Effects::default(), "a heartbeat that says nothing new does nothing");
}

#[test]
fn members_are_told_when_one_joins_or_leaves() {
    let mut state = state();
    let data = || beat(consumer("g", vec![subscription("t", 1)]));
    let _ = state.heartbeat(&client(1), data(), at(0));
    let (_, joined) = state.heartbeat(&client(2), data(), at(1));
    assert_eq!(notified(&joined), [1, 2]);
    assert_eq!(joined.updates, vec![], "the subscriptions are what they were");
    assert_eq!(state.consumers().client_ids("g").len(), 2);

    let gone = state.connection_closed(connection(1));
    assert_eq!(notified(&gone), [2]);
    let last = state.unregister(connection(2), None, Some("g"));
    assert_eq!((notified(&last), last.updates.len()), (vec![], 1));
    assert!(state.consumers().view("g").is_none());
    assert_eq!(state.connection_closed(connection(2)), Effects::default());
}

#[test]
fn subscriptions_follow_the_newest_heartbeat() {
    let mut state = state();
    let mut hear = |subscriptions, second| {
        let (_, effects) = state.heartbeat(&client(1), beat(consumer("g", subscriptions)), at(second));
        effects
    };
    let _ = hear(vec![subscription("a", 5), subscription("b", 5)], 0);
    let newer = hear(vec![subscription("a", 6), subscription("b", 5)], 1);
    assert_eq!(view(&newer).unwrap().subscriptions["a"].sub_version, 6);
    assert!(notified(&newer).is_empty(), "another expression for the same topics is no reason to rebalance");
    let older = hear(vec![subscription("a", 2), subscription("b", 5)], 2);
    assert_eq!(older, Effects::default(), "an old version changes nothing");
    let fewer = hear(vec![subscription("a", 6)], 3);
    assert_eq!(view(&fewer).unwrap().subscriptions.keys().map(|k| &**k).collect::<Vec<_>>(), ["a"]);
    assert_eq!(notified(&fewer), [1]);
}

#[test]
fn nobody_is_told_where_nobody_shares_or_wants_it() {
    let mut state = state();
    let mut data = consumer("g", vec![subscription("t", 1)]);
    data.message_model = Some(MessageModel::Broadcasting);
    assert!(notified(&state.heartbeat(&client(1), beat(data), at(0)).1).is_empty());

    let quiet = ringmq_protocol::body::SubscriptionGroupConfig {
        group_name: "quiet".into(),
        notify_consumer_ids_changed_enable: false,
        ..Default::default()
    };
    let _ = state.upsert_groups(vec![quiet], BOOT).unwrap();
    let (_, effects) = state.heartbeat(&client(1), beat(consumer("quiet", vec![])), at(0));
    assert!(notified(&effects).is_empty());
}

#[test]
fn a_v2_heartbeat_is_asked_for_its_subscriptions_when_they_are_not_known() {
    let mut state = state();
    let mut hear = |fingerprint, without_sub| {
        let subscriptions = if without_sub { vec![] } else { vec![subscription("t", 1)] };
        let mut heartbeat = beat(consumer("g", subscriptions));
        (heartbeat.heartbeat_fingerprint, heartbeat.without_sub) = (fingerprint, without_sub);
        state.heartbeat(&client(1), heartbeat, at(0)).0
    };
    assert!(hear(7, true), "the broker was restarted: it has no subscriptions of this group");
    assert!(!hear(7, false));
    assert!(!hear(7, true));
    assert!(hear(8, true), "the fingerprint is of subscriptions that the broker has not seen");
    assert!(!hear(8, false));
    assert!(hear(0, false), "v1");
    assert_eq!(state.consumers().view("g").unwrap().subscriptions.len(), 1);
}

#[test]
fn an_unchanged_heartbeat_keeps_the_subscriptions() {
    let mut state = state();
    let mut heartbeat = beat(consumer("g", vec![subscription("t", 1)]));
    heartbeat.heartbeat_fingerprint = 7;
    let _ = state.heartbeat(&client(1), heartbeat, at(0));
    let mut short = beat(consumer("g", vec![]));
    (short.heartbeat_fingerprint, short.without_sub) = (7, true);
    let (wanted, effects) = state.heartbeat(&client(2), short, at(1));
    assert!(!wanted);
    assert_eq!(notified(&effects), [1, 2]);
    assert!(state.consumers().view("g").unwrap().subscriptions.contains_key("t"));
}

#[test]
fn a_group_that_may_not_be_created_is_passed_over() {
    let mut state = state();
    let (_, effects) = state.heartbeat(&client(1), beat(consumer("b@d", vec![subscription("t", 1)])), at(0));
    assert_eq!(effects, Effects::default());
    assert!(state.consumers().view("b@d").is_none());
}

#[test]
fn the_retry_topic_is_ordered_when_a_subscribed_topic_is() {
    let mut state = state();
    let ordered =
        ringmq_protocol::body::TopicConfig { topic_name: "t".into(), order: true, ..Default::default() };
    let _ = state.upsert_topics(vec![ordered], BOOT).unwrap();
    let mut heartbeat = beat(consumer("g", vec![subscription("t", 1)]));
    heartbeat.heartbeat_fingerprint = 7;
    let _ = state.heartbeat(&client(1), heartbeat, at(0));
    assert!(state.topics().get("%RETRY%g").unwrap().order);
    let mut short = beat(consumer("g", vec![]));
    (short.heartbeat_fingerprint, short.without_sub) = (7, true);
    let _ = state.heartbeat(&client(1), short, at(1));
    assert!(state.topics().get("%RETRY%g").unwrap().order, "no subscriptions in it, none changed");
}

#[test]
fn the_silent_are_forgotten_and_closed() {
    let mut state = state();
    let data = || beat(consumer("g", vec![subscription("t", 1)]));
    let _ = state.heartbeat(&client(1), data(), at(0));
    let _ = state.heartbeat(&client(2), data(), at(100));
    let _ = state.heartbeat(&client(3), producers("p"), at(0));
    assert_eq!(state.expire_sessions(at(120)), Effects::default());
    let effects = state.expire_sessions(at(121));
    assert_eq!(effects.close, [connection(1), connection(3)]);
    assert_eq!(notified(&effects), [2]);
    assert!(state.producers().describe("p").is_none());
}

#[test]
fn a_client_that_reconnected_is_one_member() {
    let mut state = state();
    let data = || beat(consumer("g", vec![subscription("t", 1)]));
    let _ = state.heartbeat(&client(1), data(), at(0));
    let again = Client { connection: connection(9), ..client(1) };
    let _ = state.heartbeat(&again, data(), at(1));
    assert_eq!(state.consumers().client_ids("g"), ["10.0.0.1@1".into()]);
    assert_eq!(state.consumers().find("g", "10.0.0.1@1").unwrap().connection, connection(9));
    assert_eq!(state.consumers().members("g").len(), 2);
}

#[test]
fn descriptions_are_what_the_tools_read() {
    let mut state = state();
    let mut heartbeat = beat(consumer("g", vec![subscription("t", 1)]));
    heartbeat.producer_data_set = producers("p").producer_data_set;
    let _ = state.heartbeat(&client(1), heartbeat, at(3));
    let described = state.consumers().describe("g").unwrap();
    assert_eq!(described.connection_set[0].client_addr, "10.0.0.1:50001");
    assert_eq!(described.subscription_table["t"].sub_string, "*");
    assert_eq!(described.consume_from_where, Some(ConsumeFromWhere::FirstOffset));
    assert_eq!(state.consumers().subscribers("t").len(), 1);
    let all = state.producers().describe_all();
    assert_eq!(all.data["p"][0].remote_ip, "/10.0.0.1:50001");
    assert_eq!(all.data["p"][0].last_update_timestamp, BOOT + 3000);
    assert_eq!(state.producers().describe("p").unwrap().connection_set.len(), 1);
    assert!(state.consumers().describe("x").is_none());
}

#[test]
fn the_snapshot_is_the_state_as_updates() {
    let mut state = state();
    let _ = state.heartbeat(&client(1), beat(consumer("g", vec![subscription("t", 1)])), at(0));
    let snapshot = state.snapshot();
    assert!(snapshot.windows(2).all(|pair| pair[0].revision < pair[1].revision));
    let has = |wanted: &dyn Fn(&Change) -> bool| snapshot.iter().any(|update| wanted(&update.change));
    assert!(has(&|change| matches!(change, Change::Topic { name, config: Some(_) } if &**name == "TBW102")));
    assert!(has(
        &|change| matches!(change, Change::Topic { name, config: Some(_) } if &**name == "%RETRY%g")
    ));
    assert!(has(&|change| matches!(change, Change::Group { name, config: Some(_) } if &**name == "g")));
    assert!(has(&|change| matches!(change, Change::Subscriptions { view: Some(view), .. }
        if view.subscriptions.contains_key("t"))));
    let later = state.connection_closed(connection(1)).updates;
    assert!(later[0].revision > snapshot.last().unwrap().revision);
}

#[test]
fn the_metadata_log_restores_the_state() {
    let mut state = state();
    let (_, effects) = state.heartbeat(&client(1), beat(consumer("g", vec![])), at(0));
    let mut next = self::state();
    for record in &effects.records {
        next.restore(&record.key, record.value.as_deref().unwrap()).unwrap();
    }
    assert!(next.topics().get("%RETRY%g").is_some() && next.groups().get("g").is_some());
    assert!(next.restore(b"x/y", b"{}").is_err());
    assert!(next.restore(b"t/y", b"{").is_err());
}
