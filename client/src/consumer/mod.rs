//! Receiving messages: the push consumer and the lite pull consumer.

mod builder;
mod concurrent;
mod direct;
mod give_back;
mod group;
mod handle;
mod listener;
mod lite_pull;
mod locks;
mod observe;
mod offset_file;
mod offset_store;
mod orderly;
mod pop;
mod process_queue;
mod pull;
mod pull_consumer;
mod rebalance;
mod report;
mod settings;
mod stats;
mod stream;
mod subscription;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ringmq_protocol::body::{CheckClientRequestBody, MessageQueue, SubscriptionData};
use ringmq_protocol::codes::request;
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::names::{NameError, validate_topic};

pub use builder::PushConsumerBuilder;
pub use listener::{Batch, ConcurrentListener, Consumed, ConsumedOrderly, OrderlyListener, RetryDelay};
pub use lite_pull::{LitePullConsumer, LitePullConsumerBuilder};
pub use pull_consumer::{PullConsumer, PullStatus, Pulled};
pub use ringmq_protocol::body::MessageModel;
pub use settings::ConsumeFrom;
pub use stream::MessageStream;
pub use subscription::Filter;

use crate::client::{Client, RouteError};
use crate::error::CallError;
use crate::remoting::Request;
use crate::sync::lock;
use group::Group;
use stats::Holdings;

/// Why a consumer was not started, or could not subscribe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The name of the group or of a topic.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A consumer subscribes to something.
    #[error("the consumer has no subscription")]
    NoSubscription,
    /// A client has one consumer of a group. Take another client to have two.
    #[error("the client has a consumer of the group {0} already")]
    GroupTaken(String),
    /// The consumer was started with subscriptions, and shares their queues with the other members of its group.
    #[error("the consumer shares its queues with the members of the group {0}")]
    Shares(String),
    /// The name servers cannot be reached.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A broker does not take the filter: the expression has a mistake, or the broker has no SQL92.
    #[error("the filter of the topic {topic} was refused: {error}")]
    Filter {
        /// The topic.
        topic: String,
        /// What the broker said.
        error: CallError,
    },
}

impl ConsumerError {
    /// What happened with the last broker or name server that was spoken to.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            ConsumerError::Route(RouteError::Call(error)) | ConsumerError::Filter { error, .. } => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConsumerError::Route(error) => error.is_retryable(),
            // Brokers answer SYSTEM_ERROR when they have no SQL92, and that does not pass.
            ConsumerError::Filter { error, .. } => error.code().is_none() && error.is_retryable(),
            _ => false,
        }
    }
}

/// A consumer to which messages are pushed, from its start until it is shut down.
///
/// Every message is delivered at least once: what was consumed but not committed comes again, here or at another
/// member of the group. When the consumer is dropped without [`PushConsumer::shutdown`], it stops at once, listeners
/// at work are dropped, and the progress of the last five seconds is not stored.
pub struct PushConsumer {
    group: Arc<Group>,
    _stop: StopConsumer,
    /// Keeps the client's tasks alive.
    _client: Client,
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer").field("group", &self.group()).finish_non_exhaustive()
    }
}

impl PushConsumer {
    /// The group.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// The queues that this member of the group has at the moment; by POP one with the id -1 stands for all of a broker's.
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.group.held().iter().map(|process| process.queue.clone()).collect()
    }

    /// Subscribes to a topic, or changes the filter of a subscription: `*` for all, tags with `||` between them, or
    /// [`Filter::sql`]. All members of a group must have the same subscriptions.
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

    /// Stops to pull. Messages that are here already are still consumed, and so are those of pulls that brokers hold,
    /// for 15 s at most.
    pub fn suspend(&self) {
        self.group.set_paused(true);
    }

    /// Pulls again.
    pub fn resume(&self) {
        self.group.set_paused(false);
    }

    /// Leaves the group in order: listeners at work are waited for (for `shutdown_grace` at most, then they are
    /// dropped), progress is stored, locks are given back, and brokers are told, so that other members take over at
    /// once. Nothing of the consumer runs when this returns.
    ///
    /// Not cancel-safe: a shutdown that is dropped leaves as a dropped consumer does.
    pub async fn shutdown(self) {
        self.group.shut_down().await;
    }
}

/// Stops a consumer's tasks when its handle goes.
struct StopConsumer(Arc<Group>);

impl Drop for StopConsumer {
    fn drop(&mut self) {
        self.0.kill.cancel();
        self.0.instance.remove_consumer(&self.0.name, &*self.0);
    }
}

impl Group {
    /// Starts a consumer's tasks.
    async fn start(self: &Arc<Self>) -> Result<(), ConsumerError> {
        if !self.instance.add_consumer(&self.name, self.clone()) {
            return Err(ConsumerError::GroupTaken(self.name.clone()));
        }
        self.prepare().await?;
        self.instance.heartbeat().await;
        if self.is_assigned() {
            // Queues that need no sharing are there when this returns, so that the program can seek at once.
            self.rebalance_once().await;
        }
        self.spawn(rebalance::run(self.clone()));
        self.spawn(persist_regularly(self.clone()));
        if self.locks_queues() {
            self.spawn(locks::run(self.clone()));
        }
        Ok(())
    }

    async fn subscribe(&self, topic: &str, filter: &Filter) -> Result<(), ConsumerError> {
        validate_topic(topic)?;
        let subscription = filter.subscription(topic, self.instance.now_ms());
        self.know_route(topic).await?;
        self.check_filter(&subscription).await?;
        lock(&self.subscriptions).insert(topic.to_owned(), subscription);
        self.subscriptions_changed(&[topic]).await;
        self.rebalance.notify_one();
        Ok(())
    }

    async fn unsubscribe(&self, topic: &str) {
        lock(&self.subscriptions).remove(topic);
        self.rebalance.notify_one();
        self.instance.heartbeat().await;
    }

    /// Ends a consumer's tasks, stores its progress, gives its locks back and tells the brokers.
    async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.settings.shutdown_grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(target: "ringmq_client::consumer", group = self.name, "listeners are given up");
            self.kill.cancel();
            self.tasks.wait().await;
        }
        if self.settings.auto_commit {
            self.persist(true).await;
        }
        self.unlock_all().await;
        self.stats.holds(&BTreeMap::new());
        #[cfg(feature = "trace")]
        if let Some(tracer) = &self.tracer {
            tracer.flush().await;
        }
        self.instance.remove_consumer(&self.name, self);
        self.instance.unregister(None, Some(&self.name)).await;
    }

    /// Learns where the topics are, and whether brokers understand the filters.
    async fn prepare(&self) -> Result<(), ConsumerError> {
        let subscriptions: Vec<_> = lock(&self.subscriptions).values().cloned().collect();
        for subscription in &subscriptions {
            self.know_route(&subscription.topic).await?;
            self.check_filter(subscription).await?;
        }
        Ok(())
    }

    /// Asks a broker of the topic about an SQL92 expression (46), so that a mistake is told at once.
    async fn check_filter(&self, subscription: &SubscriptionData) -> Result<(), ConsumerError> {
        if !subscription::is_sql(subscription) {
            return Ok(());
        }
        let Ok(route) = self.instance.route(&subscription.topic).await else { return Ok(()) };
        let masters = route.brokers().filter_map(|broker| self.instance.routes.master(broker));
        let Some(addr) = fastrand::choice(masters.collect::<Vec<_>>()) else { return Ok(()) };
        let body = CheckClientRequestBody {
            client_id: self.instance.client_id.clone(),
            group: self.name.clone(),
            namespace: None,
            subscription_data: subscription.clone(),
        };
        let request = Request::bodied(request::CHECK_CLIENT_CONFIG, json::to_vec(&body, Dialect::Java));
        match self.instance.remoting.call_ok(&addr, &request, self.call_timeout()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ConsumerError::Filter { topic: subscription.topic.clone(), error }),
        }
    }

    /// Learns where a topic is. A topic that does not exist yet is no error: it may come.
    async fn know_route(&self, topic: &str) -> Result<(), ConsumerError> {
        match self.instance.route(topic).await {
            Ok(_) | Err(RouteError::NoTopic(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the offsets of the queues that are held.
    async fn persist(&self, wait: bool) {
        let held: Vec<MessageQueue> = self.held().iter().map(|process| process.queue.clone()).collect();
        self.offsets.persist_all(&held, &self.owned(), wait).await;
    }

    /// Tells the program's metrics what is held.
    fn measure(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let mut held: BTreeMap<String, Holdings> = BTreeMap::new();
        for process in self.held() {
            let now = held.entry(process.queue.topic.clone()).or_default();
            let (messages, bytes) = process.size();
            *now = Holdings {
                queues: now.queues + 1,
                messages: now.messages + messages,
                bytes: now.bytes + bytes,
            };
        }
        self.stats.holds(&held);
    }

    async fn unlock_all(&self) {
        if !self.locks_queues() {
            return;
        }
        let mut by_broker: BTreeMap<String, Vec<MessageQueue>> = BTreeMap::new();
        for process in self.held() {
            by_broker.entry(process.queue.broker_name.clone()).or_default().push(process.queue.clone());
        }
        for (broker, queues) in by_broker {
            self.unlock_queues(&broker, queues).await;
        }
    }
}

async fn persist_regularly(group: Arc<Group>) {
    let persisting = async {
        loop {
            tokio::time::sleep(group.settings.persist_interval).await;
            if group.settings.auto_commit {
                group.persist(false).await;
            }
            group.measure();
        }
    };
    tokio::select! {
        () = group.stop.cancelled() => {}
        () = persisting => {}
    }
}

#[cfg(test)]
mod tests;
