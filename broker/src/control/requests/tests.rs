use std::time::Duration;

use ringmq_env::Instant;
use ringmq_protocol::body::{SubscriptionGroupWrapper, TopicConfigSerializeWrapper};
use ringmq_protocol::json;
use ringmq_protocol::language::Language;

use super::*;
use crate::control::topics::TopicSettings;
use crate::control::{ControlSettings, Forget};

const BOOT: i64 = 1_700_000_000_000;
const AT: Clock = Clock { now: Instant(0), wall_ms: BOOT };

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
        config_text: "brokerName=broker-a\n".into(),
    };
    ControlState::new(&settings, BOOT)
}

fn command(code: i32, ext: &[(&'static str, &str)], body: &str) -> Command {
    let mut command = Command::request(code, 1).with_body(body.to_owned());
    command.language = Language::Cpp;
    ext.iter().fold(command, |command, (name, value)| command.with_ext(*name, value))
}

fn handle(state: &mut ControlState, command: &Command) -> Handled {
    let connection = ConnectionId { core: 0, serial: 1 };
    state.handle(Request { command, connection, address: "10.0.0.1:5000".parse().unwrap() }, AT)
}

fn ask(state: &mut ControlState, code: i32, ext: &[(&'static str, &str)], body: &str) -> (Command, Effects) {
    match handle(state, &command(code, ext, body)) {
        Handled::Answer(answer, effects) => (answer, effects),
        Handled::Ask(question) => panic!("{question:?}"),
    }
}

fn text(command: &Command) -> &str {
    std::str::from_utf8(&command.body).unwrap()
}

fn refusal(state: &mut ControlState, code: i32, ext: &[(&'static str, &str)], body: &str) -> (i32, String) {
    let (answer, effects) = ask(state, code, ext, body);
    assert_eq!(effects, Effects::default());
    (answer.code, answer.remark.unwrap_or_default())
}

const HEARTBEAT: &str = r#"{"clientID":"10.0.0.1@7","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
    "consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[
    {"classFilterMode":false,"codeSet":[2567159],"expressionType":"TAG","subString":"TagA","subVersion":1700000000000,
    "tagsSet":["TagA"],"topic":"t"}],"unitMode":false}],"producerDataSet":[{"groupName":"p"}]}"#;

#[test]
fn a_heartbeat_is_answered_as_java_clients_need_it() {
    let mut state = state();
    let (answer, effects) = ask(&mut state, request::HEART_BEAT, &[], HEARTBEAT);
    assert_eq!(answer.get("IS_SUPPORT_HEART_BEAT_V2"), Some("true"));
    assert_eq!(answer.get("IS_SUB_CHANGE"), Some("true"));
    assert!(answer.version >= 232, "below it Java clients do not pull with SQL92");
    assert_eq!(effects.notify.len(), 1);

    let (answer, _) = ask(&mut state, request::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", "g")], "");
    assert_eq!(text(&answer), r#"{"consumerIdList":["10.0.0.1@7"]}"#);
    let (answer, _) = ask(&mut state, request::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "g")], "");
    assert_eq!(
        text(&answer),
        concat!(
            r#"{"connectionSet":[{"clientAddr":"10.0.0.1:5000","clientId":"10.0.0.1@7","language":"CPP","version":513}],"#,
            r#""consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","#,
            r#""messageModel":"CLUSTERING","subscriptionTable":{"t":{"classFilterMode":false,"codeSet":[2567159],"#,
            r#""expressionType":"TAG","subString":"TagA","subVersion":1700000000000,"tagsSet":["TagA"],"topic":"t"}}}"#
        )
    );
    let (answer, _) = ask(&mut state, request::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "p")], "");
    assert!(text(&answer).starts_with(r#"{"connectionSet":[{"clientAddr":"10.0.0.1:5000""#));
    let (answer, _) = ask(&mut state, request::GET_ALL_PRODUCER_INFO, &[], "");
    assert!(text(&answer).starts_with(r#"{"data":{"p":[{"clientId":"10.0.0.1@7","#));
    let (answer, _) =
        ask(&mut state, request::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", "t")], "");
    assert!(text(&answer).starts_with(r#"{"group":"g","subscriptionData":{"#));
    let (answer, _) =
        ask(&mut state, request::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", "x")], "");
    assert_eq!(text(&answer), r#"{"group":"g","topic":"x"}"#);

    let bye = [("clientID", "10.0.0.1@7"), ("consumerGroup", "g"), ("producerGroup", "p")];
    let (answer, _) = ask(&mut state, request::UNREGISTER_CLIENT, &bye, "");
    assert_eq!(answer.code, 0);
    assert!(state.consumers().view("g").is_none() && state.producers().describe("p").is_none());
}

#[test]
fn who_is_not_there_is_said_in_javas_words() {
    let state = &mut state();
    let group = [("consumerGroup", "g"), ("producerGroup", "g")];
    assert_eq!(
        refusal(state, request::GET_CONSUMER_LIST_BY_GROUP, &group, ""),
        (1, "no consumer for this group, g".into())
    );
    assert_eq!(
        refusal(state, request::GET_CONSUMER_CONNECTION_LIST, &group, ""),
        (206, "the consumer group[g] not online".into())
    );
    assert_eq!(
        refusal(state, request::GET_PRODUCER_CONNECTION_LIST, &group, ""),
        (1, "the producer group[g] not exist".into())
    );
    assert_eq!(
        refusal(state, request::GET_TOPIC_CONFIG, &[("topic", "t")], ""),
        (17, "No topic in this broker. topic: t".into())
    );
    assert_eq!(
        refusal(state, request::GET_TOPIC_STATS_INFO, &[("topic", "t")], ""),
        (17, "topic[t] not exist".into())
    );
    let (code, remark) = refusal(state, request::POP_MESSAGE, &[], "");
    assert_eq!(code, 3);
    assert!(remark.starts_with(" request type 200050 not supported"), "{remark}");
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let state = &mut state();
    for body in ["", "{", "[1]", "\u{0}"] {
        assert_eq!(refusal(state, request::HEART_BEAT, &[], body).0, 1, "{body:?}");
        assert_eq!(refusal(state, request::LOCK_BATCH_MQ, &[], body).0, 1, "{body:?}");
    }
    assert_eq!(
        refusal(state, request::DELETE_SUBSCRIPTIONGROUP, &[], "").1,
        "the custom field <groupName> is null"
    );
    assert_eq!(refusal(state, request::UPDATE_AND_CREATE_TOPIC, &[("topic", "t")], "").0, 1);
}

#[test]
fn filters_are_checked_before_anything_is_subscribed() {
    let state = &mut state();
    let body = |kind: &str, expression: &str| {
        format!(
            r#"{{"clientId":"c","group":"g","subscriptionData":{{"expressionType":"{kind}","subString":"{expression}"}}}}"#
        )
    };
    let mut check = |kind: &str, expression: &str| {
        let (answer, _) = ask(state, request::CHECK_CLIENT_CONFIG, &[], &body(kind, expression));
        (answer.code, answer.remark.unwrap_or_default())
    };
    assert_eq!(check("TAG", "a >").0, 0);
    assert_eq!(check("SQL92", "price > 5 AND color IN ('red')").0, 0);
    assert_eq!(
        check("SQL92", "price > 'x'"),
        (23, "java.lang.RuntimeException: Value ''x'' cannot be compared.".into())
    );
    let deep = "(".repeat(1000);
    assert_eq!(
        check("SQL92", &deep),
        (23, "the filter expression is nested deeper than 256 levels, the limit".into())
    );
    assert_eq!(
        check("LUA", "true"),
        (1, "The broker does not support consumer to filter message by LUA".into())
    );
}

#[test]
fn locks_go_to_one_client() {
    let state = &mut state();
    let body = |client: &str| {
        format!(
            r#"{{"clientId":"{client}","consumerGroup":"g","mqSet":[{{"brokerName":"b","queueId":0,"topic":"t"}}]}}"#
        )
    };
    let held = r#"{"lockOKMQSet":[{"brokerName":"b","queueId":0,"topic":"t"}]}"#;
    assert_eq!(text(&ask(state, request::LOCK_BATCH_MQ, &[], &body("a")).0), held);
    assert_eq!(text(&ask(state, request::LOCK_BATCH_MQ, &[], &body("b")).0), r#"{"lockOKMQSet":[]}"#);
    assert_eq!(ask(state, request::UNLOCK_BATCH_MQ, &[], &body("a")).0.code, 0);
    assert_eq!(text(&ask(state, request::LOCK_BATCH_MQ, &[], &body("b")).0), held);
}

#[test]
fn topics_come_and_go() {
    let state = &mut state();
    let fields = [
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "4"),
        ("writeQueueNums", "4"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
        ("attributes", "+message.type=FIFO"),
    ];
    let (answer, effects) = ask(state, request::UPDATE_AND_CREATE_TOPIC, &fields, "");
    assert_eq!((answer.code, effects.records.len(), effects.register), (0, 1, true));
    let (answer, _) = ask(state, request::GET_TOPIC_CONFIG, &[("topic", "orders")], "");
    assert_eq!(
        text(&answer),
        concat!(
            r#"{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":4,"#,
            r#""topicFilterType":"SINGLE_TAG","topicName":"orders","topicSysFlag":0,"writeQueueNums":4}"#
        )
    );
    assert!(matches!(
        handle(state, &command(request::GET_TOPIC_STATS_INFO, &[("topic", "orders")], "")),
        Handled::Ask(Question::TopicStats(config)) if config.topic_name == "orders"
    ));
    let (answer, effects) = ask(state, request::DELETE_TOPIC_IN_BROKER, &[("topic", "orders")], "");
    assert_eq!((answer.code, effects.forget), (0, vec![Forget::Topic("orders".into())]));
    let bad =
        [("topicFilterType", "NO_TAG"), ("topic", "t"), ("readQueueNums", "1"), ("writeQueueNums", "1")];
    let (code, remark) =
        refusal(state, request::UPDATE_AND_CREATE_TOPIC, &[&bad[..], &[("perm", "6")]].concat(), "");
    assert_eq!((code, remark.as_str()), (1, "topicFilterType = [NO_TAG] value invalid"));
    let list =
        r#"{"topicConfigList":[{"topicName":"a"},{"topicName":"b","attributes":{"+message.type":"DELAY"}}]}"#;
    let (_, effects) = ask(state, request::UPDATE_AND_CREATE_TOPIC_LIST, &[], list);
    assert_eq!(effects.updates.len(), 2);
    let (answer, _) = ask(state, request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, &[], "");
    assert!(text(&answer).contains(r#""TBW102""#));
}

#[test]
fn groups_come_and_go() {
    let state = &mut state();
    let (_, effects) = ask(state, request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], r#"{"groupName":"g"}"#);
    assert_eq!(effects.updates.len(), 1);
    let (answer, _) = ask(state, request::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")], "");
    assert!(text(&answer).contains(r#""retryMaxTimes":16"#), "{}", text(&answer));
    let list = r#"{"groupConfigList":[{"groupName":"h"},{"groupName":"g","retryMaxTimes":3}]}"#;
    assert_eq!(ask(state, request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, &[], list).1.updates.len(), 2);
    let (_, effects) = ask(state, request::DELETE_SUBSCRIPTIONGROUP, &[("groupName", "g")], "");
    assert_eq!((effects.updates.len(), effects.forget.len()), (1, 0));
    let fields = [("groupName", "h"), ("cleanOffset", "true")];
    let (_, effects) = ask(state, request::DELETE_SUBSCRIPTIONGROUP, &fields, "");
    assert_eq!(effects.forget, [Forget::Offsets("h".into())]);
}

#[test]
fn lists_come_whole_or_in_pages() {
    let state = &mut state();
    let (answer, _) = ask(state, request::GET_ALL_TOPIC_CONFIG, &[], "");
    let whole: TopicConfigSerializeWrapper = json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.get("totalTopicNum"), Some("14"));
    assert_eq!(whole.topic_config_table.len(), 14);
    let version = format!(r#"{{"counter":0,"stateVersion":0,"timestamp":{BOOT}}}"#);
    let page = [("topicSeq", "10"), ("maxTopicNum", "2"), ("dataVersion", version.as_str())];
    let (answer, _) = ask(state, request::GET_ALL_TOPIC_CONFIG, &page, "");
    let part: TopicConfigSerializeWrapper = json::from_slice(&answer.body).unwrap();
    let names: Vec<_> = whole.topic_config_table.keys().skip(10).take(2).collect();
    assert_eq!(part.topic_config_table.keys().collect::<Vec<_>>(), names);

    let (answer, _) = ask(state, request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[("maxGroupNum", "3")], "");
    let groups: SubscriptionGroupWrapper = json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.get("totalGroupNum"), groups.subscription_group_table.len()), (Some("8"), 3));
}

#[test]
fn the_configuration_is_shown_with_its_version() {
    let (answer, _) = ask(&mut state(), request::GET_BROKER_CONFIG, &[], "");
    assert_eq!(text(&answer), "brokerName=broker-a\n");
    let version = format!(r#"{{"counter":0,"stateVersion":0,"timestamp":{BOOT}}}"#);
    assert_eq!(answer.get("version"), Some(version.as_str()));
}

#[test]
fn consume_stats_are_of_the_topics_that_count() {
    let state = &mut state();
    let _ = ask(state, request::HEART_BEAT, &[], HEARTBEAT);
    let list = r#"{"topicConfigList":[{"topicName":"t"},{"topicName":"old"}]}"#;
    let _ = ask(state, request::UPDATE_AND_CREATE_TOPIC_LIST, &[], list);
    let question = |state: &mut ControlState, ext: &[(&'static str, &str)]| {
        let command = command(request::GET_CONSUME_STATS, ext, "");
        let Handled::Ask(Question::ConsumeStats { group, topics, listed }) = handle(state, &command) else {
            panic!("208 asks the shards");
        };
        assert_eq!(group, "g");
        (topics, listed)
    };
    assert_eq!(question(state, &[("consumerGroup", "g")]), (vec![], false));
    assert_eq!(question(state, &[("consumerGroup", "g"), ("topic", "t")]), (vec!["t".into()], false));
    let listed = [("consumerGroup", "g"), ("topicList", "t;old;")];
    assert_eq!(question(state, &listed), (vec!["t".into(), "old".into()], true));

    let names = |state: &ControlState, listed| {
        let topics = state.consumed_topics("g", ["t", "old", "unknown"], listed);
        topics.iter().map(|config| config.topic_name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(state, false), ["t"], "online members subscribe to t alone");
    assert_eq!(names(state, true), ["t", "old"]);
    let _ = state.connection_closed(ConnectionId { core: 0, serial: 1 });
    assert_eq!(names(state, false), ["t", "old"], "nobody is online to say");
}

#[test]
fn the_heartbeats_of_other_languages_are_understood() {
    let state = &mut state();
    // rocketmq-client-go writes its own names of the models, and leaves out what is empty.
    let go = r#"{"clientID":"10.0.0.2@8","producerDataSet":[],"consumerDataSet":[{"groupName":"go","consumeType":
        "CONSUME_PASSIVELY","messageModel":"BroadCasting","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "subscriptionDataSet":[{"ClassFilterMode":false,"topic":"t","subString":"*","tagsSet":null,"codeSet":null,
        "subVersion":1,"expressionType":""}],"unitMode":false}]}"#;
    let (answer, effects) = ask(state, request::HEART_BEAT, &[], go);
    assert_eq!((answer.code, answer.remark), (0, None));
    assert!(effects.notify.is_empty(), "nobody shares queues in broadcasting");
    // The C++ client writes numbers for enums, and strings for numbers.
    let cpp = r#"{"clientID":"10.0.0.3@9","consumerDataSet":[{"groupName":"cpp","consumeType":1,"messageModel":1,
        "consumeFromWhere":0,"subscriptionDataSet":[{"codeSet":["1"],"subString":"a","subVersion":"7","tagsSet":["a"],
        "topic":"t"}],"unitMode":false}],"producerDataSet":[{"groupName":"CLIENT_INNER_PRODUCER"}]}"#;
    let (answer, effects) = ask(state, request::HEART_BEAT, &[], cpp);
    assert_eq!((answer.code, answer.remark), (0, None));
    assert_eq!(effects.notify.len(), 1);
    let view = state.consumers().view("cpp").unwrap();
    assert_eq!((view.subscriptions["t"].sub_version, &view.subscriptions["t"].code_set[..]), (7, &[1][..]));
}

/// Requests of any code, with fields that the handlers look for and values that they may not like.
fn any_request() -> impl proptest::strategy::Strategy<Value = Command> {
    use proptest::prelude::*;
    const FIELDS: [&str; 14] = [
        "topic",
        "group",
        "consumerGroup",
        "producerGroup",
        "groupName",
        "attributes",
        "readQueueNums",
        "writeQueueNums",
        "perm",
        "topicSeq",
        "maxTopicNum",
        "dataVersion",
        "topicList",
        "topicFilterType",
    ];
    let value = prop_oneof!["-?[0-9]{1,12}", "[a-z%|@+=,;-]{0,8}", "\\PC{0,4}", Just("TBW102".to_owned())];
    let fields = proptest::collection::vec((proptest::sample::select(&FIELDS[..]), value), 0..8);
    let body = prop_oneof![
            "\\PC{0,20}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..20),
            Just(HEARTBEAT.as_bytes().to_vec()),
            "[a-z]{0,3}".prop_map(
                |name| format!(r#"{{"groupName":"{name}","attributes":{{"{name}":""}}}}"#).into_bytes()
            ),
            "[a-z]{0,3}"
                .prop_map(|name| format!(r#"{{"topicConfigList":[{{"topicName":"{name}"}}]}}"#).into_bytes()),
        ];
    let codes: Vec<i32> = compat::REQUEST_CODES.iter().map(|row| row.code).collect();
    (proptest::sample::select(codes), fields, body).prop_map(|(code, fields, body)| {
        let command = Command::request(code, 1).with_body(body);
        fields.into_iter().fold(command, |command, (name, value)| command.with_ext(name, value))
    })
}

proptest::proptest! {
    #[test]
    fn no_request_breaks_core_0(commands in proptest::collection::vec(any_request(), 1..20)) {
        let mut state = state();
        let mut revision = 0;
        for command in &commands {
            let Handled::Answer(answer, effects) = handle(&mut state, command) else { continue };
            proptest::prop_assert!(answer.code == 0 || answer.remark.is_some());
            for update in &effects.updates {
                proptest::prop_assert!(update.revision > revision);
                revision = update.revision;
            }
            proptest::prop_assert!(answer.code == 0 || effects == Effects::default(), "a refusal changes nothing");
        }
    }
}
