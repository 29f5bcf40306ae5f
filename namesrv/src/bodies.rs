//! The JSON of answers, key for key as the Java name server writes it.
//!
//! Written by hand for one reason: older clients get broker ids as bare keys (`{0:"…"}`), which is no JSON and which
//! no JSON library writes. Newer ones, and those that ask for it, get them quoted.

use std::collections::BTreeMap;

use crate::routes::{BrokerData, Clusters, DataVersion, QueueData, Route, SystemTopics};

/// How broker ids are written as keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Bare, as fastjson does by default.
    Legacy,
    /// Quoted.
    Standard,
}

/// TopicRouteData.
pub fn route(route: &Route<'_>, order_conf: Option<&str>, dialect: Dialect) -> Vec<u8> {
    let mut json = String::from("{\"brokerDatas\":[");
    list(&mut json, &route.brokers, |json, (name, data)| broker(json, name, data, dialect));
    json.push_str("],\"filterServerTable\":{},");
    if let Some(order_conf) = order_conf {
        json.push_str("\"orderTopicConf\":");
        text(&mut json, order_conf);
        json.push(',');
    }
    json.push_str("\"queueDatas\":[");
    list(&mut json, &route.queues, |json, (name, data)| queue(json, name, data));
    json.push_str("]}");
    json.into_bytes()
}

/// ClusterInfo, always in the legacy dialect.
pub fn clusters(clusters: &Clusters<'_>) -> Vec<u8> {
    let mut json = String::from("{\"brokerAddrTable\":{");
    list(&mut json, clusters.brokers, |json, (name, data)| {
        text(json, name);
        json.push(':');
        broker(json, name, data, Dialect::Legacy);
    });
    json.push_str("},\"clusterAddrTable\":{");
    list(&mut json, clusters.clusters, |json, (cluster, names)| {
        text(json, cluster);
        json.push_str(":[");
        list(json, names, |json, name| text(json, name));
        json.push(']');
    });
    json.push_str("}}");
    json.into_bytes()
}

/// GetBrokerMemberGroupResponseBody.
pub fn member_group(cluster: &str, name: &str, data: Option<&BrokerData>) -> Vec<u8> {
    let mut json = String::from("{\"brokerMemberGroup\":{\"brokerAddrs\":");
    addrs(&mut json, data.map_or(&BTreeMap::new(), |data| &data.addrs), Dialect::Legacy);
    json.push_str(",\"brokerName\":");
    text(&mut json, name);
    json.push_str(",\"cluster\":");
    text(&mut json, cluster);
    json.push_str("}}");
    json.into_bytes()
}

/// TopicList.
pub fn topic_list(topics: &[String]) -> Vec<u8> {
    topic_list_of(None, topics)
}

/// TopicList with the address of a broker.
pub fn system_topics(topics: &SystemTopics) -> Vec<u8> {
    topic_list_of(topics.broker_addr.as_deref(), &topics.names)
}

fn topic_list_of(broker_addr: Option<&str>, topics: &[String]) -> Vec<u8> {
    let mut json = String::from("{");
    if let Some(addr) = broker_addr {
        json.push_str("\"brokerAddr\":");
        text(&mut json, addr);
        json.push(',');
    }
    json.push_str("\"topicList\":[");
    list(&mut json, topics, |json, topic| text(json, topic));
    json.push_str("]}");
    json.into_bytes()
}

/// KVTable.
pub fn kv_table(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let mut json = String::from("{\"table\":{");
    list(&mut json, entries, |json, (key, value)| {
        text(json, key);
        json.push(':');
        text(json, value);
    });
    json.push_str("}}");
    json.into_bytes()
}

/// DataVersion.
pub fn data_version(version: &DataVersion) -> Vec<u8> {
    let DataVersion { counter, state_version, timestamp } = version;
    format!("{{\"counter\":{counter},\"stateVersion\":{state_version},\"timestamp\":{timestamp}}}")
        .into_bytes()
}

fn broker(json: &mut String, name: &str, data: &BrokerData, dialect: Dialect) {
    json.push_str("{\"brokerAddrs\":");
    addrs(json, &data.addrs, dialect);
    json.push_str(",\"brokerName\":");
    text(json, name);
    json.push_str(",\"cluster\":");
    text(json, &data.cluster);
    json.push_str(",\"enableActingMaster\":");
    json.push_str(if data.acting_master { "true" } else { "false" });
    if let Some(zone) = &data.zone {
        json.push_str(",\"zoneName\":");
        text(json, zone);
    }
    json.push('}');
}

fn addrs(json: &mut String, addrs: &BTreeMap<i64, String>, dialect: Dialect) {
    json.push('{');
    list(json, addrs, |json, (id, addr)| {
        let key = match dialect {
            Dialect::Legacy => format!("{id}:"),
            Dialect::Standard => format!("\"{id}\":"),
        };
        json.push_str(&key);
        text(json, addr);
    });
    json.push('}');
}

fn queue(json: &mut String, broker_name: &str, queue: &QueueData) {
    json.push_str("{\"brokerName\":");
    text(json, broker_name);
    let QueueData { perm, read_queue_nums, topic_sys_flag, write_queue_nums } = queue;
    json.push_str(&format!(
        ",\"perm\":{perm},\"readQueueNums\":{read_queue_nums},\"topicSysFlag\":{topic_sys_flag},\
         \"writeQueueNums\":{write_queue_nums}}}"
    ));
}

fn list<T>(json: &mut String, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut String, T)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write(json, item);
    }
}

fn text(json: &mut String, text: &str) {
    json.push_str(&serde_json::to_string(text).expect("text is always JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn sample() -> (QueueData, BrokerData, BrokerData) {
        let queue = QueueData { read_queue_nums: 8, write_queue_nums: 8, perm: 6, topic_sys_flag: 3 };
        let a = BrokerData {
            cluster: "DefaultCluster".into(),
            addrs: BTreeMap::from([(0, "10.0.0.1:10911".into()), (1, "10.0.0.2:10911".into())]),
            zone: None,
            acting_master: false,
        };
        let b = BrokerData {
            cluster: "C/<é".into(),
            addrs: BTreeMap::from([(0, "10.0.0.3:10911".into())]),
            zone: Some("z1".into()),
            acting_master: true,
        };
        (queue, a, b)
    }

    /// The bytes that the Java name server 5.5.0 sent, put in order of names.
    #[test]
    fn routes_are_byte_for_byte_those_of_java() {
        let (queue, a, b) = sample();
        let plain = QueueData { topic_sys_flag: 0, ..queue };
        let found = Route {
            queues: vec![("broker-a", &plain), ("broker-b", &queue)],
            brokers: vec![("broker-a", &a), ("broker-b", &b)],
        };
        let order = "broker-a:4;é<>/'\"&(";
        let golden = r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false},{"brokerAddrs":{"0":"10.0.0.3:10911"},"brokerName":"broker-b","cluster":"C/<é","enableActingMaster":true,"zoneName":"z1"}],"filterServerTable":{},"orderTopicConf":"broker-a:4;é<>/'\"&(","queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8},{"brokerName":"broker-b","perm":6,"readQueueNums":8,"topicSysFlag":3,"writeQueueNums":8}]}"#;
        assert_eq!(show(route(&found, Some(order), Dialect::Standard)), golden);
        let legacy = golden.replace("\"0\":", "0:").replace("\"1\":", "1:");
        assert_eq!(show(route(&found, Some(order), Dialect::Legacy)), legacy);
    }

    #[test]
    fn clusters_and_lists_are_those_of_java() {
        let (_, a, b) = sample();
        let brokers = BTreeMap::from([("broker-a".to_owned(), a.clone()), ("broker-b".to_owned(), b)]);
        let names = |name: &str| std::collections::BTreeSet::from([name.to_owned()]);
        let table = BTreeMap::from([
            ("C/<é".to_owned(), names("broker-b")),
            ("DefaultCluster".to_owned(), names("broker-a")),
        ]);
        let golden = r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false},"broker-b":{"brokerAddrs":{0:"10.0.0.3:10911"},"brokerName":"broker-b","cluster":"C/<é","enableActingMaster":true,"zoneName":"z1"}},"clusterAddrTable":{"C/<é":["broker-b"],"DefaultCluster":["broker-a"]}}"#;
        assert_eq!(show(clusters(&Clusters { brokers: &brokers, clusters: &table })), golden);
        let golden = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#;
        assert_eq!(show(member_group("DefaultCluster", "broker-a", Some(&a))), golden);
        let golden =
            r#"{"brokerMemberGroup":{"brokerAddrs":{},"brokerName":"broker-x","cluster":"DefaultCluster"}}"#;
        assert_eq!(show(member_group("DefaultCluster", "broker-x", None)), golden);
        assert_eq!(show(topic_list(&[])), r#"{"topicList":[]}"#);
        let system = SystemTopics { names: vec!["C".into(), "b".into()], broker_addr: Some("a:1".into()) };
        assert_eq!(show(system_topics(&system)), r#"{"brokerAddr":"a:1","topicList":["C","b"]}"#);
        let version = DataVersion { counter: 1, state_version: 0, timestamp: 1_700_000_000_000 };
        let golden = r#"{"counter":1,"stateVersion":0,"timestamp":1700000000000}"#;
        assert_eq!(show(data_version(&version)), golden);
        let entries = BTreeMap::from([("T".to_owned(), "broker-a:4;é<>/'\"&(".to_owned())]);
        assert_eq!(show(kv_table(&entries)), r#"{"table":{"T":"broker-a:4;é<>/'\"&("}}"#);
    }
}
