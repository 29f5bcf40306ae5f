//! What a consumer tells about itself when a broker asks for an operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_protocol::body::{
    ConsumerRunningInfo, GetConsumerStatusBody, MessageRequestMode, ProcessQueueInfo, ResetOffsetBody,
};

use super::group::Group;
use super::listener::Listener;
use super::process_queue::ProcessQueue;
use crate::client::Member;

/// The name of the version ordinal that requests carry ([`ringmq_protocol::version::CURRENT`]).
const PROTOCOL_VERSION: &str = "V5_5_0";

impl Group {
    /// The answer to GET_CONSUMER_RUNNING_INFO (307), with the properties that mqadmin prints.
    pub(super) fn info(&self) -> ConsumerRunningInfo {
        let held = self.held();
        let by_pop = |process: &&Arc<ProcessQueue>| process.mode == MessageRequestMode::Pop;
        let mq_table = held.iter().filter(|process| !by_pop(process)).map(|process| {
            let commit_offset = self.offsets.get(&process.queue).unwrap_or(-1);
            (process.queue.clone(), ProcessQueueInfo { commit_offset, ..process.info() })
        });
        let popped = held.iter().filter(by_pop);
        ConsumerRunningInfo {
            mq_table: mq_table.collect(),
            mq_pop_table: popped.map(|process| (process.queue.clone(), process.pop_info())).collect(),
            status_table: self.stats.status(),
            properties: self.properties(),
            subscription_set: self.consumer_data().subscription_data_set,
            ..ConsumerRunningInfo::default()
        }
    }

    fn properties(&self) -> BTreeMap<String, String> {
        let consume_type = match self.listener {
            Listener::Poll => "CONSUME_ACTIVELY",
            _ => "CONSUME_PASSIVELY",
        };
        let settings = &self.settings;
        let name_servers = self.instance.config.name_servers.join(";");
        let model = if self.is_clustering() { "CLUSTERING" } else { "BROADCASTING" };
        let of_topic = |limit: Option<usize>| limit.map_or("-1".to_owned(), |limit| limit.to_string());
        let properties = [
            ("PROP_NAMESERVER_ADDR", name_servers.clone()),
            ("PROP_THREADPOOL_CORE_SIZE", settings.consume_tasks.to_string()),
            ("PROP_CONSUMEORDERLY", self.listener.is_orderly().to_string()),
            ("PROP_CONSUME_TYPE", consume_type.to_owned()),
            ("PROP_CLIENT_VERSION", PROTOCOL_VERSION.to_owned()),
            ("PROP_CONSUMER_START_TIMESTAMP", self.started_ms.to_string()),
            ("allocateMessageQueueStrategy", settings.allocate.name().into_owned()),
            ("clientIP", self.instance.local_ip.to_string()),
            ("clientRebalance", settings.client_rebalance.to_string()),
            ("consumeConcurrentlyMaxSpan", settings.consume_concurrently_max_span.to_string()),
            ("consumeFromWhere", format!("{:?}", settings.consume_from)),
            ("consumeMessageBatchMaxSize", settings.consume_batch.to_string()),
            ("consumeThreadMax", settings.consume_tasks.to_string()),
            ("consumeThreadMin", settings.consume_tasks.to_string()),
            ("consumeTimeout", (settings.consume_timeout.as_secs() / 60).to_string()),
            ("consumerGroup", self.name.clone()),
            ("heartbeatBrokerInterval", self.instance.config.heartbeat_interval.as_millis().to_string()),
            ("instanceName", self.instance.config.instance_name.clone()),
            ("language", "RUST".to_owned()),
            ("maxReconsumeTimes", settings.max_reconsume_times.unwrap_or(-1).to_string()),
            ("messageModel", model.to_owned()),
            ("namesrvAddr", name_servers),
            ("persistConsumerOffsetInterval", settings.persist_interval.as_millis().to_string()),
            ("pollNameServerInterval", self.instance.config.route_poll_interval.as_millis().to_string()),
            ("pullBatchSize", settings.pull_batch.to_string()),
            ("pullInterval", settings.pull_interval.as_millis().to_string()),
            ("pullThresholdForQueue", settings.pull_threshold_for_queue.to_string()),
            ("pullThresholdForTopic", of_topic(settings.pull_threshold_for_topic)),
            ("pullThresholdSizeForQueue", (settings.pull_threshold_size_for_queue >> 20).to_string()),
            (
                "pullThresholdSizeForTopic",
                of_topic(settings.pull_threshold_size_for_topic.map(|bytes| bytes >> 20)),
            ),
            ("suspendCurrentQueueTimeMillis", settings.suspend.as_millis().to_string()),
            ("vipChannelEnabled", self.instance.config.vip_channel.to_string()),
        ];
        properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The answer to GET_CONSUMER_STATUS_FROM_CLIENT (221): how far this member has come in a topic.
    pub(super) fn progress(&self, topic: &str) -> GetConsumerStatusBody {
        let held = self.held();
        let queues = held.iter().map(|process| &process.queue).filter(|queue| queue.topic == topic);
        let offsets = queues.filter_map(|queue| Some((queue.clone(), self.offsets.get(queue)?)));
        GetConsumerStatusBody { message_queue_table: offsets.collect(), ..GetConsumerStatusBody::default() }
    }

    /// RESET_CONSUMER_CLIENT_OFFSET (220): an operator moves the group. Other members have the other queues.
    pub(super) fn move_group(self: &Arc<Self>, offsets: &ResetOffsetBody) {
        for (queue, offset) in &offsets.offset_table {
            tracing::info!(target: "ringmq_client::consumer", group = self.name, ?queue, offset, "reset");
            self.release_at(queue, Some(*offset));
        }
    }
}
