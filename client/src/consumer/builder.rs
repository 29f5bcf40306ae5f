//! Builds push consumers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::MessageModel;
use ringmq_protocol::names::{retry_topic, validate_group, validate_topic};

use super::group::Group;
use super::listener::{ConcurrentListener, Listener, OrderlyListener};
use super::settings::{ConsumeFrom, Settings};
use super::subscription::{Filter, by_tag};
use super::{ConsumerError, PushConsumer, StopConsumer};
use crate::allocate::AllocateStrategy;
use crate::client::Client;

/// Settings of a push consumer, with Java's defaults. Numbers below one count as one.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct PushConsumerBuilder {
    client: Client,
    group: String,
    subscriptions: Vec<(String, Filter)>,
    settings: Settings,
}

impl PushConsumerBuilder {
    pub(crate) fn new(client: Client, group: String) -> PushConsumerBuilder {
        PushConsumerBuilder { client, group, subscriptions: Vec::new(), settings: Settings::default() }
    }

    /// Subscribes to a topic: `*` for all messages, tags with `||` between them, or [`Filter::sql`]. All members of a
    /// group must have the same subscriptions.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: impl Into<Filter>) -> PushConsumerBuilder {
        self.subscriptions.push((topic.into(), filter.into()));
        self
    }

    /// Clustering (members share the messages, progress is at the brokers), which is the default; or broadcasting
    /// (each member gets all, progress is in a local file, failures do not come again).
    pub fn message_model(mut self, model: MessageModel) -> PushConsumerBuilder {
        self.settings.message_model = model;
        self
    }

    /// Where to start in a queue without an offset: behind the last message.
    pub fn consume_from(mut self, from: ConsumeFrom) -> PushConsumerBuilder {
        self.settings.consume_from = from;
        self
    }

    /// Which queues each member gets: even shares. All members of a group must have the same strategy.
    pub fn allocate(mut self, strategy: impl AllocateStrategy + 'static) -> PushConsumerBuilder {
        self.settings.allocate = Arc::new(strategy);
        self
    }

    /// How many batches are consumed at a time, all queues together: 20.
    pub fn consume_tasks(mut self, tasks: usize) -> PushConsumerBuilder {
        self.settings.consume_tasks = tasks.max(1);
        self
    }

    /// How many messages a listener gets at a time, at most: 1.
    pub fn consume_batch(mut self, messages: usize) -> PushConsumerBuilder {
        self.settings.consume_batch = messages.max(1);
        self
    }

    /// Time limit of a listener: 15 min. Its future is dropped then, and the batch has failed.
    pub fn consume_timeout(mut self, timeout: Duration) -> PushConsumerBuilder {
        self.settings.consume_timeout = timeout;
        self
    }

    /// Failures behind which a message goes to the dead-letter topic: 16 in concurrent consumption, and no limit in
    /// order.
    pub fn max_reconsume_times(mut self, times: u16) -> PushConsumerBuilder {
        self.settings.max_reconsume_times = Some(i32::from(times));
        self
    }

    /// How long a queue stands still behind a failure in orderly consumption: 1 s.
    pub fn suspend(mut self, pause: Duration) -> PushConsumerBuilder {
        self.settings.suspend = pause;
        self
    }

    /// How many messages, and how many bytes of them, are held of a queue before pulling waits: 1000 and 100 MiB.
    pub fn pull_threshold_for_queue(mut self, messages: usize, bytes: usize) -> PushConsumerBuilder {
        let settings = &mut self.settings;
        (settings.pull_threshold_for_queue, settings.pull_threshold_size_for_queue) =
            (messages.max(1), bytes.max(1));
        self
    }

    /// How many messages, and how many bytes of them, are held of a topic, shared evenly by its queues here; goes
    /// before the thresholds of a queue.
    pub fn pull_threshold_for_topic(mut self, messages: usize, bytes: usize) -> PushConsumerBuilder {
        let settings = &mut self.settings;
        (settings.pull_threshold_for_topic, settings.pull_threshold_size_for_topic) =
            (Some(messages), Some(bytes));
        self
    }

    /// How far apart the first and the last offset held of a queue may be before pulling waits, in concurrent
    /// consumption: 2000.
    pub fn consume_concurrently_max_span(mut self, span: u32) -> PushConsumerBuilder {
        self.settings.consume_concurrently_max_span = i64::from(span);
        self
    }

    /// How many messages a pull brings at most: 32. Brokers have a limit too.
    pub fn pull_batch(mut self, messages: u16) -> PushConsumerBuilder {
        self.settings.pull_batch = i32::from(messages.max(1));
        self
    }

    /// Pause between two pulls of a queue: none.
    pub fn pull_interval(mut self, pause: Duration) -> PushConsumerBuilder {
        self.settings.pull_interval = pause;
        self
    }

    /// How often progress is stored: every 5 s.
    pub fn persist_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.settings.persist_interval = interval;
        self
    }

    /// How often queues are divided without being told that something changed: every 20 s.
    pub fn rebalance_interval(mut self, interval: Duration) -> PushConsumerBuilder {
        self.settings.rebalance_interval = interval;
        self
    }

    /// How long a shutdown waits for listeners: 10 s.
    pub fn shutdown_grace(mut self, grace: Duration) -> PushConsumerBuilder {
        self.settings.shutdown_grace = grace;
        self
    }

    /// Whether members divide the queues among themselves, which is the default, or a broker does (Java's
    /// `clientRebalance`). Brokers know [`crate::allocate::Averagely`] and [`crate::allocate::AveragelyByCircle`].
    /// Where the broker does not know the request, and in orderly consumption, members do it themselves.
    pub fn client_rebalance(mut self, client: bool) -> PushConsumerBuilder {
        self.settings.client_rebalance = client;
        self
    }

    /// By POP, which brokers may choose when they divide the queues ([`PushConsumerBuilder::client_rebalance`]): how long
    /// a message is kept from other members while it is consumed here, 60 s; within 5 s and 5 min.
    pub fn pop_invisible(mut self, time: Duration) -> PushConsumerBuilder {
        self.settings.pop_invisible = time.clamp(Duration::from_secs(5), Duration::from_secs(300));
        self
    }

    /// By POP: how many messages are asked for at a time, 32 at most, and how many of a queue may be unacknowledged
    /// before popping waits: 32 and 96.
    pub fn pop_batch(mut self, messages: u16, unacknowledged: usize) -> PushConsumerBuilder {
        self.settings.pop_batch = usize::from(messages.clamp(1, 32));
        self.settings.pop_threshold_for_queue = unacknowledged;
        self
    }

    /// Records in a topic what becomes of each message: not.
    #[cfg(feature = "trace")]
    pub fn trace(mut self, topic: crate::trace::TraceTopic) -> PushConsumerBuilder {
        self.settings.trace = Some(topic);
        self
    }

    /// The file of a broadcasting consumer's progress: Java's place,
    /// `~/.rocketmq_offsets/<ip>@<instance name>/<group>/offsets.json`.
    pub fn offset_file(mut self, path: impl Into<PathBuf>) -> PushConsumerBuilder {
        self.settings.offset_path = Some(path.into());
        self
    }

    /// Starts to consume, many batches at a time.
    ///
    /// Cancel-safe: a start that is dropped leaves nothing behind.
    pub async fn start(self, listener: impl ConcurrentListener) -> Result<PushConsumer, ConsumerError> {
        self.start_with(Listener::concurrent(listener)).await
    }

    /// Starts to consume each queue in its order.
    ///
    /// Cancel-safe: a start that is dropped leaves nothing behind.
    pub async fn start_orderly(self, listener: impl OrderlyListener) -> Result<PushConsumer, ConsumerError> {
        self.start_with(Listener::orderly(listener)).await
    }

    async fn start_with(self, listener: Listener) -> Result<PushConsumer, ConsumerError> {
        validate_group(&self.group)?;
        if self.subscriptions.is_empty() {
            return Err(ConsumerError::NoSubscription);
        }
        let instance = self.client.instance.clone();
        let mut subscriptions = BTreeMap::new();
        for (topic, filter) in self.subscriptions {
            validate_topic(&topic)?;
            let subscription = filter.subscription(&topic, instance.now_ms());
            subscriptions.insert(topic, subscription);
        }
        if self.settings.message_model == MessageModel::Clustering {
            let retry = retry_topic(&self.group);
            subscriptions.insert(retry.clone(), by_tag(&retry, "*", instance.now_ms()));
        }
        let group = Arc::new(Group::new(instance, self.group, self.settings, listener, subscriptions));
        // A start that fails, or is dropped, leaves nothing behind.
        let stop = StopConsumer(group.clone());
        group.start().await?;
        Ok(PushConsumer { _stop: stop, group, _client: self.client })
    }
}
