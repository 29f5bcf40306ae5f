//! Answers that are made of what the shards know: pure functions from the gathered figures to a body.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmq_protocol::body::{
    ConsumeStats, ConsumerOffsetSerializeWrapper, DataVersion, GroupList, KvTable, MessageQueue,
    OffsetWrapper, TopicConfig, TopicList, TopicOffset, TopicStatsTable,
};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::json::{self, Dialect};

/// What a shard says of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Number of the queue within its topic.
    pub queue_id: i32,
    /// First offset kept.
    pub min: i64,
    /// One past the last.
    pub max: i64,
    /// Store time of the last message, in ms; 0 when there is none.
    pub last_store_ms: i64,
    /// What the group that was asked about committed.
    pub committed: Option<i64>,
    /// Store time of the last message that this group consumed, in ms; 0 when it is not known.
    pub consumed_store_ms: i64,
}

/// One topic of a consumer group, with what its shards say.
pub struct GroupTopic {
    /// The topic.
    pub config: Arc<TopicConfig>,
    /// Its queues, in any order; those that no shard knows may be missing.
    pub queues: Vec<QueueFigures>,
    /// Messages that the group gets from it, a second.
    pub tps: f64,
}

/// SUCCESS with a JSON body. The connection that asked puts its opaque in.
pub fn success(body: &(impl serde::Serialize + ?Sized)) -> Command {
    Command::response(response::SUCCESS, 0).with_body(json::to_vec(body, Dialect::Java))
}

/// The answer of 202.
pub fn topic_stats(
    broker_name: &str,
    config: &TopicConfig,
    queues: &[QueueFigures],
    put_tps: f64,
) -> Command {
    let count = config.read_queue_nums.max(config.write_queue_nums);
    let offset_table = per_queue(broker_name, &config.topic_name, count, queues, |figures| TopicOffset {
        min_offset: figures.min.max(0),
        max_offset: figures.max.max(0),
        last_update_timestamp: figures.last_store_ms,
    });
    success(&TopicStatsTable { offset_table, topic_put_tps: put_tps })
}

/// The body of 208.
pub fn consume_stats(broker_name: &str, topics: &[GroupTopic]) -> ConsumeStats {
    let mut stats = ConsumeStats::default();
    for topic in topics {
        let (name, count) = (&topic.config.topic_name, topic.config.read_queue_nums);
        stats.offset_table.extend(per_queue(broker_name, name, count, &topic.queues, |figures| {
            let consumed = figures.committed.unwrap_or(0).max(0);
            OffsetWrapper {
                broker_offset: figures.max.max(0),
                consumer_offset: consumed,
                pull_offset: consumed,
                last_timestamp: if consumed > 0 { figures.consumed_store_ms.max(0) } else { 0 },
            }
        }));
        stats.consume_tps += topic.tps;
    }
    stats
}

fn per_queue<V>(
    broker_name: &str,
    topic: &str,
    count: i32,
    queues: &[QueueFigures],
    value: impl Fn(&QueueFigures) -> V,
) -> BTreeMap<MessageQueue, V> {
    let known: BTreeMap<i32, &QueueFigures> =
        queues.iter().map(|figures| (figures.queue_id, figures)).collect();
    let empty = QueueFigures::default();
    let entry = |queue_id| {
        let queue = MessageQueue { broker_name: broker_name.to_owned(), queue_id, topic: topic.to_owned() };
        (queue, value(known.get(&queue_id).unwrap_or(&&empty)))
    };
    (0..count).map(entry).collect()
}

/// The answer of 300: the groups that subscribe to a topic now, and those that committed offsets in it.
pub fn topic_groups(
    subscribers: BTreeSet<Arc<str>>,
    committed: impl IntoIterator<Item = Arc<str>>,
) -> Command {
    let groups: BTreeSet<Arc<str>> = subscribers.into_iter().chain(committed).collect();
    success(&GroupList { group_list: groups.iter().map(|group| group.to_string()).collect() })
}

/// The answer of 343: the topics in which a group committed offsets.
pub fn group_topics(broker_addr: &str, topics: impl IntoIterator<Item = Arc<str>>) -> Command {
    let topics: BTreeSet<Arc<str>> = topics.into_iter().collect();
    success(&TopicList {
        broker_addr: Some(broker_addr.to_owned()),
        topic_list: topics.iter().map(|topic| topic.to_string()).collect(),
    })
}

/// The answer of 43: every committed offset, as `(topic, group, queue, offset)`.
pub fn all_offsets<'a>(
    version: DataVersion,
    offsets: impl IntoIterator<Item = (&'a str, &'a str, i32, i64)>,
) -> Command {
    let mut offset_table: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
    for (topic, group, queue_id, offset) in offsets {
        offset_table.entry(format!("{topic}@{group}")).or_default().insert(queue_id, offset);
    }
    success(&ConsumerOffsetSerializeWrapper { data_version: version, offset_table })
}

/// A table of texts as a body (28).
pub fn kv_table(table: BTreeMap<String, String>) -> Command {
    success(&KvTable { table })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Command) -> String {
        assert_eq!(answer.code, response::SUCCESS);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    fn topic(read: i32, write: i32) -> TopicConfig {
        TopicConfig {
            topic_name: "t".into(),
            read_queue_nums: read,
            write_queue_nums: write,
            ..Default::default()
        }
    }

    #[test]
    fn topic_stats_name_every_queue() {
        let second = QueueFigures { queue_id: 1, min: 2, max: 9, last_store_ms: 77, ..Default::default() };
        assert_eq!(
            text(topic_stats("b", &topic(1, 2), &[second], 1.5)),
            concat!(
                r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"t"}:"#,
                r#"{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0},"#,
                r#"{"brokerName":"b","queueId":1,"topic":"t"}:"#,
                r#"{"lastUpdateTimestamp":77,"maxOffset":9,"minOffset":2}},"topicPutTps":1.5}"#
            )
        );
    }

    #[test]
    fn consume_stats_are_of_the_queues_that_are_read() {
        let figures = |queue_id, committed| QueueFigures {
            queue_id,
            max: 10,
            committed,
            consumed_store_ms: 5,
            ..QueueFigures::default()
        };
        let queues = vec![figures(0, Some(4)), figures(1, None), figures(2, Some(1))];
        let stats = consume_stats("b", &[GroupTopic { config: Arc::new(topic(2, 8)), queues, tps: 2.0 }]);
        let wrappers: Vec<_> = stats.offset_table.values().copied().collect();
        assert_eq!(
            wrappers,
            [
                OffsetWrapper { broker_offset: 10, consumer_offset: 4, pull_offset: 4, last_timestamp: 5 },
                OffsetWrapper { broker_offset: 10, ..OffsetWrapper::default() },
            ]
        );
        assert_eq!(stats.consume_tps, 2.0);
    }

    #[test]
    fn lists_hold_each_name_once() {
        let online = BTreeSet::from(["b".into(), "a".into()]);
        assert_eq!(text(topic_groups(online, ["b".into(), "c".into()])), r#"{"groupList":["a","b","c"]}"#);
        assert_eq!(
            text(group_topics("1.2.3.4:10911", ["t".into(), "t".into()])),
            r#"{"brokerAddr":"1.2.3.4:10911","topicList":["t"]}"#
        );
    }

    #[test]
    fn offsets_are_by_topic_and_group() {
        let offsets = [("t", "g", 1, 5), ("t", "g", 0, 4), ("u", "g", 0, 1)];
        assert_eq!(
            text(all_offsets(DataVersion::default(), offsets)),
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"offsetTable":{"t@g":{0:4,1:5},"u@g":{0:1}}}"#
        );
    }
}
