//! Settings of a push consumer, with Java's defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::{self, MessageModel, MessageQueue};

use super::offset_file;
use crate::allocate::{AllocateStrategy, Averagely};
use crate::client::Instance;

/// Where a group starts in a queue for which it has no offset.
///
/// Brokers overrule it for queues that are small and new: there a group starts at the first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeFrom {
    /// Behind the last message.
    #[default]
    LastOffset,
    /// At the first message.
    FirstOffset,
    /// At the first message stored at or after this time, in ms since 1970.
    Timestamp(i64),
    /// As [`ConsumeFrom::LastOffset`], under a name that Java has deprecated.
    LastOffsetAndFromMinWhenBootFirst,
    /// As [`ConsumeFrom::LastOffset`], which is what Java makes of this deprecated name too.
    MinOffset,
    /// As [`ConsumeFrom::LastOffset`], under a name that Java has deprecated.
    MaxOffset,
}

impl ConsumeFrom {
    pub(super) fn on_the_wire(self) -> body::ConsumeFromWhere {
        match self {
            ConsumeFrom::LastOffset => body::ConsumeFromWhere::LastOffset,
            ConsumeFrom::FirstOffset => body::ConsumeFromWhere::FirstOffset,
            ConsumeFrom::Timestamp(_) => body::ConsumeFromWhere::Timestamp,
            ConsumeFrom::LastOffsetAndFromMinWhenBootFirst => {
                body::ConsumeFromWhere::LastOffsetAndFromMinWhenBootFirst
            }
            ConsumeFrom::MinOffset => body::ConsumeFromWhere::MinOffset,
            ConsumeFrom::MaxOffset => body::ConsumeFromWhere::MaxOffset,
        }
    }
}

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub message_model: MessageModel,
    pub consume_from: ConsumeFrom,
    pub allocate: Arc<dyn AllocateStrategy>,
    pub consume_tasks: usize,
    pub consume_batch: usize,
    pub consume_timeout: Duration,
    pub consume_concurrently_max_span: i64,
    pub pull_threshold_for_queue: usize,
    pub pull_threshold_size_for_queue: usize,
    pub pull_threshold_for_topic: Option<usize>,
    pub pull_threshold_size_for_topic: Option<usize>,
    pub pull_interval: Duration,
    pub pull_batch: i32,
    pub max_reconsume_times: Option<i32>,
    pub suspend: Duration,
    pub shutdown_grace: Duration,
    pub persist_interval: Duration,
    pub rebalance_interval: Duration,
    pub offset_path: Option<PathBuf>,
    /// Progress is stored without being asked.
    pub auto_commit: bool,
    /// Queues that are read without sharing them.
    pub assigned: Option<Vec<MessageQueue>>,
    /// Whether this client divides the queues, and not a broker.
    pub client_rebalance: bool,
    /// By POP: how long a message is kept from others, how many are asked for, and how many may be unacknowledged.
    pub pop_invisible: Duration,
    pub pop_batch: usize,
    pub pop_threshold_for_queue: usize,
    #[cfg(feature = "trace")]
    pub trace: Option<crate::trace::TraceTopic>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            message_model: MessageModel::Clustering,
            consume_from: ConsumeFrom::LastOffset,
            allocate: Arc::new(Averagely),
            consume_tasks: 20,
            consume_batch: 1,
            consume_timeout: Duration::from_secs(15 * 60),
            consume_concurrently_max_span: 2000,
            pull_threshold_for_queue: 1000,
            pull_threshold_size_for_queue: 100 << 20,
            pull_threshold_for_topic: None,
            pull_threshold_size_for_topic: None,
            pull_interval: Duration::ZERO,
            pull_batch: 32,
            max_reconsume_times: None,
            suspend: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(10),
            persist_interval: Duration::from_secs(5),
            rebalance_interval: Duration::from_secs(20),
            offset_path: None,
            auto_commit: true,
            assigned: None,
            client_rebalance: true,
            pop_invisible: Duration::from_secs(60),
            pop_batch: 32,
            pop_threshold_for_queue: 96,
            #[cfg(feature = "trace")]
            trace: None,
        }
    }
}

impl Settings {
    /// The file of a broadcasting consumer's offsets. The instance name is taken as it was configured, so that the
    /// next process finds it.
    pub(super) fn offset_path(&self, instance: &Instance, group: &str) -> PathBuf {
        let client = format!("{}@{}", instance.local_ip, instance.config.instance_name);
        self.offset_path.clone().unwrap_or_else(|| offset_file::default_path(&client, group))
    }

    /// Failures behind which a message that is consumed concurrently goes to the dead-letter topic.
    pub(super) fn max_retries(&self) -> i32 {
        self.max_reconsume_times.unwrap_or(16)
    }
}
