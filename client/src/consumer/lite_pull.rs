//! The lite pull consumer: the application asks for messages when it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::names::{validate_group, validate_topic};
use tokio::time::{Instant, sleep, timeout_at};

use super::group::Group;
use super::listener::Listener;
use super::process_queue::ProcessQueue;
use super::settings::{ConsumeFrom, Settings};
use super::subscription::{Filter, by_tag};
use super::{ConsumerError, StopConsumer};
use crate::client::Client;
use crate::error::CallError;
use crate::message::MessageExt;
use crate::sync::lock;

/// Pause between two looks whether queues that come back have been given back.
const LEAVING: Duration = Duration::from_millis(20);

/// Settings of a lite pull consumer, with Java's defaults.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct LitePullConsumerBuilder {
    client: Client,
    group: String,
    subscriptions: Vec<(String, Filter)>,
    settings: Settings,
}

impl LitePullConsumerBuilder {
    pub(crate) fn new(client: Client, group: String) -> LitePullConsumerBuilder {
        let settings = Settings { pull_batch: 10, consume_batch: 10, ..Settings::default() };
        LitePullConsumerBuilder { client, group, subscriptions: Vec::new(), settings }
    }

    /// Shares the queues of a topic with the other members of the group: `*` for all messages, tags with `||`
    /// between them, or [`Filter::sql`].
    pub fn subscribe(
        mut self,
        topic: impl Into<String>,
        filter: impl Into<Filter>,
    ) -> LitePullConsumerBuilder {
        self.subscriptions.push((topic.into(), filter.into()));
        self
    }

    /// Reads these queues, whoever else does, instead of sharing; subscriptions only filter then.
    pub fn assign(mut self, queues: impl IntoIterator<Item = MessageQueue>) -> LitePullConsumerBuilder {
        self.settings.assigned = Some(queues.into_iter().collect());
        self
    }

    /// Where to start in a queue without an offset: behind the last message.
    pub fn consume_from(mut self, from: ConsumeFrom) -> LitePullConsumerBuilder {
        self.settings.consume_from = from;
        self
    }

    /// Whether progress is stored every 5 s without being asked: yes.
    pub fn auto_commit(mut self, auto: bool) -> LitePullConsumerBuilder {
        self.settings.auto_commit = auto;
        self
    }

    /// How many messages a poll gives at most: 10.
    pub fn poll_batch(mut self, messages: u16) -> LitePullConsumerBuilder {
        let messages = messages.max(1);
        (self.settings.consume_batch, self.settings.pull_batch) =
            (usize::from(messages), i32::from(messages));
        self
    }

    /// Starts to pull.
    ///
    /// Cancel-safe: a start that is dropped leaves nothing behind.
    pub async fn start(self) -> Result<LitePullConsumer, ConsumerError> {
        validate_group(&self.group)?;
        let instance = self.client.instance.clone();
        let mut subscriptions = BTreeMap::new();
        for queue in self.settings.assigned.iter().flatten() {
            subscriptions.insert(queue.topic.clone(), by_tag(&queue.topic, "*", 0));
        }
        for (topic, filter) in self.subscriptions {
            validate_topic(&topic)?;
            let subscription = filter.subscription(&topic, instance.now_ms());
            subscriptions.insert(topic, subscription);
        }
        if subscriptions.is_empty() {
            return Err(ConsumerError::NoSubscription);
        }
        let group = Group::new(instance, self.group, self.settings, Listener::Poll, subscriptions);
        let group = Arc::new(group);
        // A start that fails, or is dropped, leaves nothing behind.
        let stop = StopConsumer(group.clone());
        group.start().await?;
        Ok(LitePullConsumer { group, handed: Mutex::default(), _stop: stop, _client: self.client })
    }
}

/// A poll's messages, which are done with the next poll or commit.
#[derive(Debug, Default)]
struct Handed {
    messages: Vec<(Arc<ProcessQueue>, Vec<Arc<MessageExt>>)>,
}

/// A consumer that is polled. Messages are fetched ahead, within the thresholds of a queue.
///
/// The messages of a poll count as done when the next poll or a commit comes: a crash before delivers them again.
pub struct LitePullConsumer {
    group: Arc<Group>,
    handed: Mutex<Handed>,
    _stop: StopConsumer,
    /// Keeps the client's tasks alive.
    _client: Client,
}

impl fmt::Debug for LitePullConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LitePullConsumer").field("group", &self.group()).finish_non_exhaustive()
    }
}

impl LitePullConsumer {
    /// The group.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The queues that are read at the moment.
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.group.held().iter().map(|process| process.queue.clone()).collect()
    }

    /// Subscribes to a topic, or changes the filter of a subscription. All members of a group must have the same
    /// subscriptions.
    ///
    /// Cancel-safe: when it is dropped, the subscription is changed or is as before; brokers hear of a change in time.
    pub async fn subscribe(&self, topic: &str, filter: impl Into<Filter>) -> Result<(), ConsumerError> {
        self.group.subscribe(topic, &filter.into()).await
    }

    /// Ends a subscription; its queues go at once.
    ///
    /// Cancel-safe: the subscription has ended with the first poll; brokers hear of it in time.
    pub async fn unsubscribe(&self, topic: &str) {
        self.group.unsubscribe(topic).await;
    }

    /// Reads these queues from now on, instead of those that it was told before; filters that were set stay. They can be
    /// sought when this returns, if their brokers answer within the time limit of a call. An error for a consumer that
    /// was started without [`LitePullConsumerBuilder::assign`].
    ///
    /// Cancel-safe: when it is dropped, the queues change in time, or stay as they were.
    pub async fn assign(&self, queues: impl IntoIterator<Item = MessageQueue>) -> Result<(), ConsumerError> {
        if !self.group.is_assigned() {
            return Err(ConsumerError::Shares(self.group.name.clone()));
        }
        let queues: Vec<MessageQueue> = queues.into_iter().collect();
        let topics: BTreeSet<&str> = queues.iter().map(|queue| &*queue.topic).collect();
        topics.iter().try_for_each(|topic| validate_topic(topic))?;
        {
            let mut subscriptions = lock(&self.group.subscriptions);
            // Everything of a topic is what one gets that comes back, too.
            subscriptions.retain(|topic, filter| {
                filter.sub_string != "*" || topics.contains(&**topic) || *topic == self.group.retry_topic
            });
            for topic in topics {
                subscriptions.entry(topic.to_owned()).or_insert_with(|| by_tag(topic, "*", 0));
            }
        }
        *lock(&self.group.assigned) = Some(queues.clone());
        // If this is dropped, or some broker does not answer in time.
        self.group.rebalance.notify_one();
        let deadline = Instant::now() + self.group.call_timeout();
        loop {
            self.group.rebalance_once().await;
            if !self.group.are_leaving(&queues) || Instant::now() >= deadline {
                return Ok(());
            }
            sleep(LEAVING).await;
        }
    }

    /// The next messages of one queue, in its order; none when none comes within `timeout`. The messages of the
    /// poll before count as done now.
    ///
    /// Cancel-safe: a poll that is dropped has taken no message.
    pub async fn poll(&self, timeout: Duration) -> Vec<Arc<MessageExt>> {
        let deadline = Instant::now() + timeout;
        self.settle();
        loop {
            let arrived = self.group.arrived.notified();
            let found = self.take();
            if !found.is_empty() || timeout_at(deadline, arrived).await.is_err() {
                return found;
            }
        }
    }

    /// Takes from one queue after the other, beginning with any, so that none waits for ever.
    fn take(&self) -> Vec<Arc<MessageExt>> {
        let mut held = self.group.held();
        fastrand::shuffle(&mut held);
        for process in held.into_iter().filter(|process| !process.is_paused()) {
            let messages = process.take(self.group.settings.consume_batch, self.group.instance.now_ms());
            if !messages.is_empty() {
                lock(&self.handed).messages.push((process, messages.clone()));
                return messages;
            }
        }
        Vec::new()
    }

    fn settle(&self) {
        let handed = std::mem::take(&mut *lock(&self.handed));
        for (process, messages) in handed.messages {
            if let Some(offset) = process.done(&messages).filter(|_| process.is_ours()) {
                self.group.offsets.advance(&process.queue, offset);
            }
        }
    }

    /// Stores the progress, the last poll's messages included; brokers that can be reached have it when this
    /// returns. Others are told with the next commit, and the failure is logged.
    ///
    /// Cancel-safe: what was not told yet is told with the next commit.
    pub async fn commit(&self) {
        self.settle();
        self.group.persist(true).await;
    }

    /// The group's stored offset in a queue; `None` when there is none.
    ///
    /// Cancel-safe: it only asks.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>, CallError> {
        self.group.offsets.read(queue).await
    }

    /// Goes on at another offset; what was fetched of the queue is forgotten, and a paused queue stays paused. False
    /// when the queue is not read here.
    pub fn seek(&self, queue: &MessageQueue, offset: i64) -> bool {
        lock(&self.handed).messages.retain(|(process, _)| process.queue != *queue);
        self.group.move_to(queue, offset)
    }

    /// Goes on at the queue's first message.
    ///
    /// Cancel-safe: when it is dropped, the consumer has not moved.
    pub async fn seek_to_begin(&self, queue: &MessageQueue) -> Result<bool, CallError> {
        Ok(self.seek(queue, self.group.instance.min_offset(queue).await?))
    }

    /// Goes on behind the queue's last message.
    ///
    /// Cancel-safe: when it is dropped, the consumer has not moved.
    pub async fn seek_to_end(&self, queue: &MessageQueue) -> Result<bool, CallError> {
        Ok(self.seek(queue, self.group.instance.max_offset(queue).await?))
    }

    /// Goes on at the first message stored at or after a time, in ms since 1970.
    ///
    /// Cancel-safe: when it is dropped, the consumer has not moved.
    pub async fn seek_to_time(&self, queue: &MessageQueue, time_ms: i64) -> Result<bool, CallError> {
        Ok(self.seek(queue, self.group.instance.search_offset(queue, time_ms).await?))
    }

    /// Gives no more messages of these queues.
    pub fn pause(&self, queues: &[MessageQueue]) {
        self.set_paused(queues, true);
    }

    /// Gives messages of these queues again.
    pub fn resume(&self, queues: &[MessageQueue]) {
        self.set_paused(queues, false);
        self.group.arrived.notify_waiters();
    }

    fn set_paused(&self, queues: &[MessageQueue], paused: bool) {
        let queues: BTreeSet<&MessageQueue> = queues.iter().collect();
        let held = self.group.held();
        held.iter().filter(|p| queues.contains(&p.queue)).for_each(|process| process.set_paused(paused));
    }

    /// Leaves the group in order: progress is stored unless that is the application's affair, and brokers are told.
    /// The last poll's messages do not count as done.
    ///
    /// Not cancel-safe: a shutdown that is dropped leaves as a dropped consumer does.
    pub async fn shutdown(self) {
        self.group.shut_down().await;
    }
}
