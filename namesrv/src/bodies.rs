//! From the tables to the bodies of answers, and from the bodies of requests to the tables.

use std::collections::BTreeMap;

use ringmq_protocol::body::{self, ClusterInfo, RegisterBrokerBody, TopicRouteData};
use ringmq_protocol::json::{Dialect, to_vec};
use serde::Serialize;

use crate::routes::{BrokerData, Clusters, DataVersion, QueueData, Route, SystemTopics};

/// TopicRouteData.
pub fn route(route: &Route<'_>, order_conf: Option<&str>, dialect: Dialect) -> Vec<u8> {
    let data = TopicRouteData {
        broker_datas: route.brokers.iter().map(|(name, data)| broker(name, data)).collect(),
        order_topic_conf: order_conf.map(str::to_owned),
        queue_datas: route.queues.iter().map(|(name, data)| queue(name, data)).collect(),
        ..TopicRouteData::default()
    };
    to_vec(&data, dialect)
}

/// ClusterInfo, always in the legacy dialect.
pub fn clusters(clusters: &Clusters<'_>) -> Vec<u8> {
    let brokers = clusters.brokers.iter().map(|(name, data)| (name.to_string(), broker(name, data)));
    let names = clusters.clusters.iter().map(|(name, of)| (name.clone(), of.iter().cloned().collect()));
    let info = ClusterInfo { broker_addr_table: brokers.collect(), cluster_addr_table: names.collect() };
    to_vec(&info, Dialect::Java)
}

/// GetBrokerMemberGroupResponseBody.
pub fn member_group(cluster: &str, name: &str, data: Option<&BrokerData>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Group<'a> {
        broker_addrs: &'a BTreeMap<i64, String>,
        broker_name: &'a str,
        cluster: &'a str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        broker_member_group: Group<'a>,
    }
    let broker_addrs = data.map_or(const { &BTreeMap::new() }, |data| &data.addrs);
    to_vec(&Body { broker_member_group: Group { broker_addrs, broker_name: name, cluster } }, Dialect::Java)
}

/// TopicList.
pub fn topic_list(topic_list: Vec<String>) -> Vec<u8> {
    to_vec(&body::TopicList { broker_addr: None, topic_list }, Dialect::Java)
}

/// TopicList with the address of a broker.
pub fn system_topics(topics: SystemTopics) -> Vec<u8> {
    let SystemTopics { names: topic_list, broker_addr } = topics;
    to_vec(&body::TopicList { broker_addr, topic_list }, Dialect::Java)
}

/// KVTable.
pub fn kv_table(entries: &BTreeMap<String, String>) -> Vec<u8> {
    to_vec(&body::KvTable { table: entries.clone() }, Dialect::Java)
}

fn broker(name: &str, data: &BrokerData) -> body::BrokerData {
    body::BrokerData {
        broker_addrs: data.addrs.clone(),
        broker_name: name.to_owned(),
        cluster: data.cluster.clone(),
        enable_acting_master: data.acting_master,
        zone_name: data.zone.clone(),
    }
}

fn queue(broker_name: &str, data: &QueueData) -> body::QueueData {
    body::QueueData {
        broker_name: broker_name.to_owned(),
        perm: data.perm,
        read_queue_nums: data.read_queue_nums,
        topic_sys_flag: data.topic_sys_flag,
        write_queue_nums: data.write_queue_nums,
    }
}

/// The topics that a registration states.
pub fn registered_topics(body: RegisterBrokerBody) -> (DataVersion, BTreeMap<String, QueueData>) {
    let wrapper = body.topic_config_serialize_wrapper;
    let topics = wrapper.topic_config_table.into_iter().map(|(name, topic)| {
        let data = QueueData {
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            perm: topic.perm,
            topic_sys_flag: topic.topic_sys_flag,
        };
        (name, data)
    });
    (wrapper.data_version, topics.collect())
}

/// The queues that an administrator states for a topic, with their broker names.
pub fn stated_queues(route: TopicRouteData) -> impl Iterator<Item = (String, QueueData)> {
    route.queue_datas.into_iter().map(|queue| {
        let data = QueueData {
            read_queue_nums: queue.read_queue_nums,
            write_queue_nums: queue.write_queue_nums,
            perm: queue.perm,
            topic_sys_flag: queue.topic_sys_flag,
        };
        (queue.broker_name, data)
    })
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
        assert_eq!(show(route(&found, Some(order), Dialect::Java)), legacy);
    }

    #[test]
    fn clusters_and_lists_are_those_of_java() {
        let (_, a, b) = sample();
        let brokers = BTreeMap::from([("broker-a".into(), a.clone()), ("broker-b".into(), b)]);
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
        assert_eq!(show(topic_list(vec![])), r#"{"topicList":[]}"#);
        let system = SystemTopics { names: vec!["C".into(), "b".into()], broker_addr: Some("a:1".into()) };
        assert_eq!(show(system_topics(system)), r#"{"brokerAddr":"a:1","topicList":["C","b"]}"#);
        let entries = BTreeMap::from([("T".to_owned(), "broker-a:4;é<>/'\"&(".to_owned())]);
        assert_eq!(show(kv_table(&entries)), r#"{"table":{"T":"broker-a:4;é<>/'\"&("}}"#);
    }
}
