//! The topics that every broker has. They are made anew from the options at each start, and never stored.

use ringmq_protocol::body::{TopicConfig, perm};
use ringmq_protocol::names::{self, topics};

use super::{TopicSettings, topic_config};

/// Levels of the delay queue: its topic has one queue for each.
const DELAY_LEVELS: i32 = 18;
/// Queues of the topic that the benchmark tools of RocketMQ send to.
const BENCHMARK_QUEUES: i32 = 1024;
/// Queues of the cluster's own topic.
const CLUSTER_QUEUES: i32 = 16;
/// Queues of the POP revive log.
const REVIVE_QUEUES: i32 = 8;

/// Every topic that the broker creates by itself, with the settings of this start.
pub(super) fn system_topics(settings: &TopicSettings) -> Vec<TopicConfig> {
    let (cluster, broker) = (&settings.cluster, &settings.broker_name);
    let read_write = perm::READ | perm::WRITE;
    let shards = i32::from(settings.shards);
    let mut all = vec![
        topic_config(topics::SELF_TEST_TOPIC, 1, read_write),
        topic_config(topics::BENCHMARK_TOPIC, BENCHMARK_QUEUES, read_write),
        topic_config(cluster, CLUSTER_QUEUES, perm::INHERIT | read_write),
        topic_config(broker, 1, perm::INHERIT | read_write),
        topic_config(topics::OFFSET_MOVED_EVENT, 1, read_write),
        topic_config(topics::SCHEDULE_TOPIC, DELAY_LEVELS, read_write),
        topic_config(&names::reply_topic(cluster), 1, read_write),
        topic_config(&format!("rmq_sys_REVIVE_LOG_{cluster}"), REVIVE_QUEUES, read_write),
        topic_config(&format!("rmq_sys_SYNC_BROKER_MEMBER_{broker}"), 1, perm::INHERIT),
        topic_config(topics::TRANS_HALF_TOPIC, shards, read_write),
        topic_config(topics::TRANS_OP_HALF_TOPIC, shards, read_write),
        topic_config(topics::TRANS_CHECK_MAX_TIME_TOPIC, shards, read_write),
        topic_config(topics::TIMER_TOPIC, 1, read_write),
    ];
    if settings.auto_create_topic {
        all.push(topic_config(
            topics::AUTO_CREATE_TOPIC_KEY_TOPIC,
            settings.default_topic_queue_nums,
            perm::INHERIT | read_write,
        ));
    }
    if settings.trace_topic {
        all.push(topic_config(topics::TRACE_TOPIC, 1, read_write));
    }
    all
}
