//! Requests as they come, against what the Java name server 5.5.0 answered to the same ones.

use bytes::BytesMut;
use ringmq_options::Role;
use ringmq_protocol::frame::Limits;

use super::*;

const CONNECTION: ConnectionId = ConnectionId(1);

fn state() -> State {
    State::new(Settings::new(Role::Namesrv), KvTable::default())
}

fn request(code: i32, fields: &[(&'static str, &str)]) -> Command {
    let command = Command::request(code, 7);
    fields.iter().fold(command, |command, (name, value)| command.with_ext(*name, value))
}

fn outcome(state: &mut State, command: &Command) -> Outcome {
    let mut bytes = BytesMut::new();
    command.encode_json(&mut bytes);
    let frame = Frame::parse(&mut bytes, &Limits::default()).unwrap();
    state.process(&frame, CONNECTION, Instant::default())
}

/// Sends a request; KV changes are applied as the server does once they are durable.
fn call(state: &mut State, command: &Command) -> Command {
    match outcome(state, command) {
        Outcome::Answer(answer) => {
            assert_eq!(answer.opaque, 7);
            answer
        }
        Outcome::Change(change) => {
            state.kv.apply(&change);
            Command::response(response::SUCCESS, 7)
        }
    }
}

fn ask(state: &mut State, code: i32, fields: &[(&'static str, &str)]) -> Command {
    call(state, &request(code, fields))
}

fn text(answer: &Command) -> &str {
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    std::str::from_utf8(&answer.body).unwrap()
}

fn failure(answer: &Command) -> (i32, &str) {
    (answer.code, answer.remark.as_deref().unwrap_or_default())
}

fn registration(name: &str, addr: &str, id: &str, topics: &[&str], counter: i64) -> Command {
    let topics: Vec<String> = topics
        .iter()
        .map(|topic| format!(r#""{topic}":{{"perm":6,"readQueueNums":8,"topicName":"{topic}","topicSysFlag":0,"writeQueueNums":8}}"#))
        .collect();
    let body = format!(
        r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":{counter},"stateVersion":0,"timestamp":17}},"topicConfigTable":{{{}}},"topicQueueMappingDetailMap":{{}},"topicQueueMappingInfoMap":{{}}}}}}"#,
        topics.join(",")
    );
    let fields = [
        ("brokerName", name),
        ("brokerAddr", addr),
        ("clusterName", "DefaultCluster"),
        ("haServerAddr", "10.0.0.1:10912"),
        ("brokerId", id),
        ("compressed", "false"),
        ("bodyCrc32", "0"),
    ];
    request(request::REGISTER_BROKER, &fields).with_body(body)
}

fn registered() -> State {
    let mut state = state();
    let answer = call(&mut state, &registration("broker-a", "10.0.0.1:10911", "0", &["T", "U"], 1));
    assert_eq!(answer.code, response::SUCCESS);
    state
}

const IDENTITY: [(&str, &str); 4] = [
    ("brokerName", "broker-a"),
    ("brokerAddr", "10.0.0.1:10911"),
    ("clusterName", "DefaultCluster"),
    ("brokerId", "0"),
];

#[test]
fn routes_come_in_the_dialect_that_the_client_reads() {
    let mut state = registered();
    let legacy = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
    let standard = legacy.replace("0:\"", "\"0\":\"");
    let mut route = |version, fields: &[(&'static str, &str)]| {
        let command = Command { version, ..request(request::GET_ROUTEINFO_BY_TOPIC, fields) };
        text(&call(&mut state, &command)).to_owned()
    };
    assert_eq!(route(400, &[("topic", "T")]), legacy);
    assert_eq!(route(401, &[("topic", "T")]), standard);
    assert_eq!(route(0, &[("topic", "T"), ("acceptStandardJsonOnly", "true")]), standard);
    let hidden = r#"{"brokerDatas":[],"filterServerTable":{},"queueDatas":[]}"#;
    assert_eq!(route(513, &[("topic", "T"), ("__ZONE_MODE", "true"), ("__ZONE_NAME", "z")]), hidden);
    assert_eq!(route(513, &[("topic", "T"), ("__ZONE_MODE", "false"), ("__ZONE_NAME", "z")]), standard);
}

#[test]
fn unknown_topics_have_the_remark_of_java() {
    let expected = "No topic route info in name server for the topic: T\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    let answer = ask(&mut state(), request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]);
    assert_eq!(failure(&answer), (response::TOPIC_NOT_EXIST, expected));
    let answer = ask(&mut state(), request::GET_ROUTEINFO_BY_TOPIC, &[]);
    assert!(answer.remark.unwrap().contains("for the topic: null\n"));
}

#[test]
fn registrations_are_checked_and_answered() {
    let mut state = state();
    let one = registration("broker-a", "10.0.0.1:10911", "0", &["T"], 1);
    assert_eq!(failure(&call(&mut state, &one)), (1, "register broker failed"));
    let full = registration("broker-a", "10.0.0.1:10911", "0", &["T", "U"], 1);
    let wrong_sum = full.clone().with_ext("bodyCrc32", "5");
    assert_eq!(failure(&call(&mut state, &wrong_sum)), (1, "crc32 not match"));
    let sum = crc32fast::hash(&full.body) & 0x7fff_ffff;
    let right_sum = full.clone().with_ext("bodyCrc32", sum);
    assert_eq!(call(&mut state, &right_sum).ext, []);
    let slave = call(&mut state, &registration("broker-a", "10.0.0.2:10911", "1", &["T", "U"], 1));
    assert_eq!(slave.get("masterAddr"), Some("10.0.0.1:10911"));
    assert_eq!(slave.get("haServerAddr"), Some("10.0.0.1:10912"));
    let nonsense = full.clone().with_body("{nope");
    assert_eq!(call(&mut state, &nonsense).code, response::SYSTEM_ERROR);
    let anonymous = ask(&mut state, request::REGISTER_BROKER, &[("brokerName", "b")]);
    assert_eq!(failure(&anonymous), (1, "the custom field <brokerAddr> is null"));
}

#[test]
fn a_registration_returns_the_order_configuration() {
    let mut state = registered();
    let put = [("namespace", ORDER_TOPIC_CONFIG), ("key", "T"), ("value", "broker-a:4")];
    assert_eq!(ask(&mut state, request::PUT_KV_CONFIG, &put).code, response::SUCCESS);
    let again = registration("broker-a", "10.0.0.1:10911", "0", &["T", "U"], 1);
    assert_eq!(text(&call(&mut state, &again)), r#"{"table":{"T":"broker-a:4"}}"#);
    let plain = text(&ask(&mut state, request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")])).to_owned();
    assert!(!plain.contains("orderTopicConf"));
    state.settings.update("orderMessageEnable", "true").unwrap();
    let ordered = ask(&mut state, request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]);
    assert!(text(&ordered).contains(r#""orderTopicConf":"broker-a:4","#));
}

#[test]
fn kv_configuration_is_put_read_and_deleted() {
    let mut state = state();
    let entry = [("namespace", "N"), ("key", "k")];
    let none = ask(&mut state, request::GET_KV_CONFIG, &entry);
    assert_eq!(failure(&none), (response::QUERY_NOT_FOUND, "No config item, Namespace: N Key: k"));
    let none = ask(&mut state, request::GET_KVLIST_BY_NAMESPACE, &[("namespace", "N")]);
    assert_eq!(failure(&none), (response::QUERY_NOT_FOUND, "No config item, Namespace: N"));
    ask(&mut state, request::PUT_KV_CONFIG, &[("namespace", "N"), ("key", "k"), ("value", "v")]);
    assert_eq!(ask(&mut state, request::GET_KV_CONFIG, &entry).get("value"), Some("v"));
    ask(&mut state, request::DELETE_KV_CONFIG, &entry);
    assert_eq!(ask(&mut state, request::GET_KV_CONFIG, &entry).code, response::QUERY_NOT_FOUND);
    let list = ask(&mut state, request::GET_KVLIST_BY_NAMESPACE, &[("namespace", "N")]);
    assert_eq!(text(&list), r#"{"table":{}}"#);
    for fields in [&[("key", "k"), ("value", "v")][..], &[("namespace", "N"), ("value", "v")]] {
        let answer = ask(&mut state, request::PUT_KV_CONFIG, fields);
        assert_eq!(failure(&answer), (1, "namespace or key is null"));
    }
}

#[test]
fn data_versions_are_compared_and_shown() {
    let mut state = registered();
    let query = |body: &'static str| request(request::QUERY_DATA_VERSION, &IDENTITY).with_body(body);
    let same = call(&mut state, &query(r#"{"counter":1,"stateVersion":0,"timestamp":17}"#));
    assert_eq!(same.get("changed"), Some("false"));
    assert_eq!(text(&same), r#"{"counter":1,"stateVersion":0,"timestamp":17}"#);
    let other = call(&mut state, &query(r#"{"counter":2,"timestamp":17}"#));
    assert_eq!(other.get("changed"), Some("true"));
    let unknown = request(request::QUERY_DATA_VERSION, &[("brokerName", "x"), ("brokerAddr", "x:1")]);
    let unknown = unknown.with_ext("clusterName", "C").with_ext("brokerId", 0);
    let answer = call(&mut state, &unknown);
    assert_eq!((answer.get("changed"), text(&answer)), (Some("true"), ""));
}

#[test]
fn brokers_leave_and_their_topics_with_them() {
    let mut state = registered();
    assert_eq!(ask(&mut state, request::UNREGISTER_BROKER, &IDENTITY).code, response::SUCCESS);
    let topics = ask(&mut state, request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]);
    assert_eq!(text(&topics), r#"{"topicList":[]}"#);
    let clusters = ask(&mut state, request::GET_BROKER_CLUSTER_INFO, &[]);
    assert_eq!(text(&clusters), r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#);
}

#[test]
fn administrators_change_permissions_and_topics() {
    let mut state = registered();
    let name = [("brokerName", "broker-a")];
    let wiped = ask(&mut state, request::WIPE_WRITE_PERM_OF_BROKER, &name);
    assert_eq!(wiped.get("wipeTopicCount"), Some("2"));
    let route = ask(&mut state, request::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]);
    assert!(text(&route).contains(r#""perm":4"#));
    let added = ask(&mut state, request::ADD_WRITE_PERM_OF_BROKER, &name);
    assert_eq!(added.get("addTopicCount"), Some("2"));
    let body = r#"{"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"writeQueueNums":4,"topicSysFlag":0}]}"#;
    let register = request(request::REGISTER_TOPIC_IN_NAMESRV, &[("topic", "W")]).with_body(body);
    assert_eq!(call(&mut state, &register).code, response::SUCCESS);
    ask(&mut state, request::DELETE_TOPIC_IN_NAMESRV, &[("topic", "T")]);
    ask(&mut state, request::DELETE_TOPIC_IN_NAMESRV, &[("topic", "U"), ("clusterName", "DefaultCluster")]);
    let topics = ask(&mut state, request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]);
    assert_eq!(text(&topics), r#"{"topicList":["W"]}"#);
}

#[test]
fn lists_can_be_disabled() {
    let mut state = registered();
    let cluster = [("cluster", "DefaultCluster")];
    let topics = ask(&mut state, request::GET_TOPICS_BY_CLUSTER, &cluster);
    assert_eq!(text(&topics), r#"{"topicList":["T","U"]}"#);
    let system = ask(&mut state, request::GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]);
    let expected = r#"{"brokerAddr":"10.0.0.1:10911","topicList":["DefaultCluster","broker-a"]}"#;
    assert_eq!(text(&system), expected);
    state.settings.update("enableTopicList", "false").unwrap();
    state.settings.update("enableAllTopicList", "false").unwrap();
    for code in [206, 224, 311, 312, 313] {
        assert_eq!(failure(&ask(&mut state, code, &cluster)), (1, "disable"), "{code}");
    }
}

#[test]
fn options_change_as_a_whole_or_not_at_all() {
    let mut state = state();
    let update = |body: &'static str| request(request::UPDATE_NAMESRV_CONFIG, &[]).with_body(body);
    let fine = update("scanNotActiveBrokerInterval=1000\norderMessageEnable=true\n");
    assert_eq!(call(&mut state, &fine).code, response::SUCCESS);
    let shown = ask(&mut state, request::GET_NAMESRV_CONFIG, &[]);
    assert!(text(&shown).contains("scanNotActiveBrokerInterval=1000\n"));
    let black = call(&mut state, &update("kvConfigPath=/x"));
    assert_eq!(failure(&black), (response::NO_PERMISSION, "Can not update config in black list."));
    let wrong = call(&mut state, &update("orderMessageEnable=false\nscanNotActiveBrokerInterval=soon\n"));
    assert_eq!(wrong.code, response::SYSTEM_ERROR);
    assert!(state.settings.switch("order-message-enable"), "nothing of a refused change is taken");
    assert_eq!(call(&mut state, &update("")).code, response::SUCCESS);
}

#[test]
fn what_is_unknown_is_refused_as_in_java() {
    for code in [10, 1001, 99_999, -1] {
        let remark = format!(" request type {code} not supported");
        assert_eq!(failure(&ask(&mut state(), code, &[])), (3, remark.as_str()));
    }
}

#[test]
fn member_groups_have_every_address() {
    let mut state = registered();
    call(&mut state, &registration("broker-a", "10.0.0.2:10911", "1", &["T", "U"], 1));
    let fields = [("clusterName", "DefaultCluster"), ("brokerName", "broker-a")];
    let group = ask(&mut state, request::GET_BROKER_MEMBER_GROUP, &fields);
    let expected = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#;
    assert_eq!(text(&group), expected);
    assert_eq!(ask(&mut state, request::BROKER_HEARTBEAT, &IDENTITY).code, response::SUCCESS);
}
