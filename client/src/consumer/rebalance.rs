//! Rebalance: which queues are this consumer's, again and again.
//!
//! It runs at the start, on a timer, and whenever a broker tells that the members changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::{
    ConsumerIdList, MessageQueue, MessageRequestMode, QueryAssignmentRequestBody, QueryAssignmentResponseBody,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::headers::ConsumerGroupHeader;
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::names::is_retry_topic;

use super::group::{Assigned, Group};
use super::listener::Listener;
use super::process_queue::ProcessQueue;
use super::settings::ConsumeFrom;
use super::{concurrent, orderly, pop, pull};
use crate::allocate::Members;
use crate::client::RouteError;
use crate::client::route::TopicRoute;
use crate::error::CallError;
use crate::metrics;
use crate::remoting::{Request, bad_answer};
use crate::sync::lock;

/// Pause before the next try when some queue could not be taken.
const RETRY: Duration = Duration::from_secs(1);

/// Pause before a topic that does not exist is looked for again.
const NO_TOPIC_PAUSE: Duration = Duration::from_secs(5);

/// What a round made of a topic.
struct Taken {
    /// Nothing is left to be taken, or to leave.
    whole: bool,
    /// Queues changed hands.
    changed: bool,
}

/// Queues, and how their messages come.
type Wanted = BTreeMap<MessageQueue, MessageRequestMode>;

/// Rebalances until the consumer stops.
pub(super) async fn run(group: Arc<Group>) {
    let rebalancing = async {
        loop {
            let pause = group.rebalance_once().await;
            let _ = tokio::time::timeout(pause, group.rebalance.notified()).await;
        }
    };
    tokio::select! {
        () = group.stop.cancelled() => {}
        () = rebalancing => {}
    }
}

impl Group {
    /// One round over all topics; tells when the next one is due.
    pub(super) async fn rebalance_once(self: &Arc<Self>) -> Duration {
        let _alone = self.balancing.lock().await;
        let topics: Vec<String> = lock(&self.subscriptions).keys().cloned().collect();
        self.release_unsubscribed(&topics);
        let (mut pause, mut changed) = (self.settings.rebalance_interval, Vec::new());
        metrics::rebalanced(&self.name);
        for topic in &topics {
            match self.wanted(topic).await {
                Ok(wanted) => {
                    let taken = self.take_over(topic, wanted).await;
                    if !taken.whole {
                        pause = pause.min(RETRY);
                    }
                    changed.extend(taken.changed.then_some(topic.as_str()));
                }
                // The retry topic comes into being with the first heartbeat, and others when somebody sends.
                Err(Unbalanced::Route(RouteError::NoTopic(_))) => pause = pause.min(NO_TOPIC_PAUSE),
                Err(error) => {
                    tracing::warn!(target: "ringmq_client::rebalance", group = self.name, topic, %error,
                        "the present queues stay");
                    pause = pause.min(RETRY);
                }
            }
        }
        // Once for the round: heartbeats wait for every broker, and one that is gone would delay each topic.
        if !changed.is_empty() {
            self.subscriptions_changed(&changed).await;
        }
        pause
    }

    /// The queues of a topic that are this consumer's, and how their messages come.
    async fn wanted(&self, topic: &str) -> Result<Wanted, Unbalanced> {
        let by_pull = |queues: Vec<MessageQueue>| {
            queues.into_iter().map(|queue| (queue, MessageRequestMode::Pull)).collect()
        };
        let route = self.instance.route(topic).await?;
        if let Some(assigned) = &*lock(&self.assigned) {
            return Ok(by_pull(assigned.iter().filter(|queue| queue.topic == topic).cloned().collect()));
        }
        if !self.is_clustering() {
            return Ok(by_pull(route.subscribe.clone()));
        }
        if route.subscribe.is_empty() {
            return Ok(Wanted::new());
        }
        if self.broker_divides() {
            match self.assigned_by_broker(topic, &route).await {
                Err(Unbalanced::Call(error))
                    if error.code() == Some(response::REQUEST_CODE_NOT_SUPPORTED) =>
                {
                    tracing::debug!(target: "ringmq_client::rebalance", group = self.name, topic, %error,
                        "the members divide the queues themselves");
                }
                other => return other,
            }
        }
        let clients = self.members(&route).await?;
        let members = Members {
            group: &self.name,
            client_id: &self.instance.client_id,
            queues: &route.subscribe,
            clients: &clients,
        };
        Ok(by_pull(self.settings.allocate.allocate(&members)?))
    }

    /// Whether a broker is asked to divide the queues. As in Java, never in orderly consumption.
    fn broker_divides(&self) -> bool {
        !self.settings.client_rebalance && matches!(self.listener, Listener::Concurrent(_))
    }

    /// The queues that a broker of the topic gives to this member (400).
    async fn assigned_by_broker(&self, topic: &str, route: &TopicRoute) -> Result<Wanted, Unbalanced> {
        let addr = self.any_broker(route)?;
        let body = QueryAssignmentRequestBody {
            client_id: self.instance.client_id.clone(),
            consumer_group: self.name.clone(),
            message_model: Some(self.settings.message_model),
            strategy_name: self.settings.allocate.name().into_owned(),
            topic: topic.to_owned(),
        };
        let request = Request::bodied(request::QUERY_ASSIGNMENT, json::to_vec(&body, Dialect::Java));
        let answer = self.instance.remoting.call_ok(&addr, &request, self.call_timeout()).await?;
        let body: QueryAssignmentResponseBody =
            json::from_slice(&answer.body).map_err(|e| bad_answer(&addr, e))?;
        let unknown = || Unbalanced::UnknownStrategy(self.settings.allocate.name().into_owned());
        let assignments = body.message_queue_assignments.ok_or_else(unknown)?;
        Ok(assignments.into_iter().map(|assigned| (assigned.message_queue, assigned.mode)).collect())
    }

    fn any_broker(&self, route: &TopicRoute) -> Result<Arc<str>, CallError> {
        let brokers: Vec<&str> = route.brokers().collect();
        let broker = fastrand::choice(brokers).unwrap_or_default();
        let replica = self.instance.routes.replica(broker, crate::client::route::MASTER_ID);
        replica.map(|(_, addr)| addr).ok_or_else(|| crate::client::unknown_broker(broker))
    }

    /// The group's members as a broker of the topic knows them, sorted.
    async fn members(&self, route: &TopicRoute) -> Result<Vec<String>, CallError> {
        let addr = self.any_broker(route)?;
        let header = ConsumerGroupHeader { consumer_group: &self.name };
        let request = Request::new(request::GET_CONSUMER_LIST_BY_GROUP, &header);
        let answer = self.instance.remoting.call_ok(&addr, &request, self.call_timeout()).await?;
        let list: ConsumerIdList = json::from_slice(&answer.body).map_err(|e| bad_answer(&addr, e))?;
        let mut clients = list.consumer_id_list;
        clients.sort();
        Ok(clients)
    }

    /// Gives up queues of a topic that are not wanted, and takes those that are.
    async fn take_over(self: &Arc<Self>, topic: &str, wanted: Wanted) -> Taken {
        let present: Vec<_> = lock(&self.queues)
            .iter()
            .map(|(queue, assigned)| (queue.clone(), assigned.process.mode, assigned.leaving))
            .filter(|(queue, ..)| queue.topic == topic)
            .collect();
        let surplus: Vec<_> = present
            .iter()
            .filter(|(queue, mode, leaving)| !leaving && wanted.get(queue) != Some(mode))
            .collect();
        surplus.iter().for_each(|(queue, ..)| self.release(queue));
        let waiting = present.iter().filter(|(.., leaving)| *leaving).count();
        let new = wanted.into_iter().filter(|(queue, _)| present.iter().all(|(held, ..)| held != queue));
        let (pulled, popped): (Vec<_>, Vec<_>) = new.partition(|(_, mode)| *mode == MessageRequestMode::Pull);
        let pulled: Vec<MessageQueue> = pulled.into_iter().map(|(queue, _)| queue).collect();
        let (asked, mut taken) = (pulled.len() + popped.len(), popped.len());
        popped.into_iter().for_each(|(queue, _)| self.begin_pop(queue));
        for queue in self.locked(pulled).await {
            taken += usize::from(self.take(queue).await);
        }
        let changed = taken > 0 || !surplus.is_empty();
        if changed {
            tracing::info!(target: "ringmq_client::rebalance", group = self.name, topic, taken,
                released = surplus.len(), "queues changed hands");
            self.stats.queues_changed(topic);
            self.shares.notify_waiters();
        }
        Taken { whole: taken == asked && waiting == 0, changed }
    }

    /// Of these queues, those that this client may consume: all, unless they must be locked.
    async fn locked(&self, queues: Vec<MessageQueue>) -> Vec<MessageQueue> {
        if !self.locks_queues() || queues.is_empty() {
            return queues;
        }
        let brokers: BTreeSet<String> = queues.iter().map(|q| q.broker_name.clone()).collect();
        let mut locked = Vec::new();
        for broker in brokers {
            let queues = queues.iter().filter(|q| q.broker_name == broker).cloned().collect();
            match self.lock_queues(&broker, queues).await {
                Ok(ours) => locked.extend(ours),
                Err(error) => tracing::warn!(target: "ringmq_client::rebalance", %error, "no locks"),
            }
        }
        locked.retain(|queue| queues.contains(queue));
        locked
    }

    /// Starts to consume a queue. Without knowing where to start it is left for the next round.
    async fn take(self: &Arc<Self>, queue: MessageQueue) -> bool {
        let offset = match self.start_offset(&queue).await {
            Ok(offset) => offset,
            Err(error) => {
                tracing::warn!(target: "ringmq_client::rebalance", ?queue, %error, "where to start is not known");
                return false;
            }
        };
        self.offsets.forget(&queue);
        let process = self.process(queue.clone());
        lock(&self.queues).insert(queue, Assigned { process: process.clone(), leaving: false });
        self.begin(&process, offset);
        true
    }

    /// Starts to consume a queue by POP. The broker knows where it stands.
    fn begin_pop(self: &Arc<Self>, queue: MessageQueue) {
        // Brokers divide queues for concurrent listeners only.
        let Listener::Concurrent(listener) = &self.listener else { return };
        let process = Arc::new(ProcessQueue::new(queue.clone(), MessageRequestMode::Pop, &self.stop));
        lock(&self.queues).insert(queue, Assigned { process: process.clone(), leaving: false });
        let work = pop::run(self.clone(), process.clone(), listener.clone());
        self.spawn(process.workers.track_future(work));
        process.workers.close();
    }

    fn process(&self, queue: MessageQueue) -> Arc<ProcessQueue> {
        let process = Arc::new(ProcessQueue::new(queue, MessageRequestMode::Pull, &self.stop));
        if self.locks_queues() {
            process.set_locked();
        }
        process
    }

    /// Starts the tasks of a queue.
    fn begin(self: &Arc<Self>, process: &Arc<ProcessQueue>, offset: i64) {
        let workers = &process.workers;
        self.spawn(workers.track_future(pull::run(self.clone(), process.clone(), offset)));
        match &self.listener {
            Listener::Concurrent(listener) => {
                let work = concurrent::run(self.clone(), process.clone(), listener.clone());
                self.spawn(workers.track_future(work));
            }
            Listener::Orderly(listener) => {
                let work = orderly::run(self.clone(), process.clone(), listener.clone());
                self.spawn(workers.track_future(work));
            }
            Listener::Poll => {}
        }
        workers.close();
    }

    /// Goes on at another offset of a queue. False when the queue is not held.
    pub(super) fn move_to(self: &Arc<Self>, queue: &MessageQueue, offset: i64) -> bool {
        let process = {
            let mut queues = lock(&self.queues);
            let Some(assigned) = queues.get_mut(queue).filter(|assigned| !assigned.leaving) else {
                return false;
            };
            let process = self.process(queue.clone());
            // A queue that the program has paused stays so, wherever it goes on.
            process.set_paused(assigned.process.is_paused());
            assigned.process.release();
            assigned.process = process.clone();
            process
        };
        self.offsets.reset(queue, offset);
        self.begin(&process, offset);
        true
    }

    /// Java's `computePullFromWhere`.
    async fn start_offset(&self, queue: &MessageQueue) -> Result<i64, CallError> {
        if let Some(offset) = self.offsets.read(queue).await?.filter(|offset| *offset >= 0) {
            return Ok(offset);
        }
        let retry = is_retry_topic(&queue.topic);
        match self.settings.consume_from {
            ConsumeFrom::FirstOffset => Ok(0),
            ConsumeFrom::Timestamp(_) if retry => self.instance.max_offset(queue).await,
            ConsumeFrom::Timestamp(time) => self.instance.search_offset(queue, time).await,
            ConsumeFrom::LastOffset
            | ConsumeFrom::LastOffsetAndFromMinWhenBootFirst
            | ConsumeFrom::MinOffset
            | ConsumeFrom::MaxOffset => match retry {
                true => Ok(0),
                false => self.instance.max_offset(queue).await,
            },
        }
    }

    /// Takes a queue away from its tasks, stores its offset, and gives its lock back once they are done. The queue
    /// can come back after that.
    pub(super) fn release(self: &Arc<Self>, queue: &MessageQueue) {
        self.release_at(queue, None);
    }

    /// As [`Group::release`], with another offset to store.
    pub(super) fn release_at(self: &Arc<Self>, queue: &MessageQueue, offset: Option<i64>) {
        let process = {
            let mut queues = lock(&self.queues);
            let Some(assigned) = queues.get_mut(queue).filter(|assigned| !assigned.leaving) else { return };
            assigned.leaving = true;
            assigned.process.clone()
        };
        process.release();
        let group = self.clone();
        self.spawn(async move {
            process.workers.wait().await;
            if let Some(offset) = offset {
                group.offsets.reset(&process.queue, offset);
            }
            // Where it is to go on is stored even if commits are the program's affair: the queue comes back from there.
            if group.settings.auto_commit || offset.is_some() {
                group.offsets.persist(&process.queue).await;
            }
            group.offsets.forget(&process.queue);
            if group.locks_queues() {
                group.unlock_queues(&process.queue.broker_name, vec![process.queue.clone()]).await;
            }
            lock(&group.queues).remove(&process.queue);
            group.shares.notify_waiters();
            group.rebalance.notify_one();
        });
    }

    fn release_unsubscribed(self: &Arc<Self>, topics: &[String]) {
        let held = self.held();
        let gone = held.iter().filter(|process| !topics.contains(&process.queue.topic));
        gone.for_each(|process| self.release(&process.queue));
    }

    /// The broker has no message at the offset of a pull: the queue starts again where there is one.
    pub(super) async fn offset_moved(self: &Arc<Self>, process: &ProcessQueue, offset: i64) {
        tracing::warn!(target: "ringmq_client::consumer", queue = ?process.queue, offset, "the offset was moved");
        // A program that polls decides what is committed: it goes on there, and no more.
        if self.listener.is_poll() {
            self.move_to(&process.queue, offset);
        } else {
            self.release_at(&process.queue, Some(offset));
        }
    }

    /// Brokers compare versions of subscriptions, so new ones go out with a heartbeat at once.
    pub(super) async fn subscriptions_changed(&self, topics: &[&str]) {
        for topic in topics {
            if let Some(subscription) = lock(&self.subscriptions).get_mut(*topic) {
                subscription.sub_version = self.instance.now_ms().max(subscription.sub_version + 1);
            }
        }
        self.instance.forget_told();
        self.instance.heartbeat().await;
    }
}

/// Why a topic's queues stay as they are.
#[derive(Debug, thiserror::Error)]
enum Unbalanced {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Allocate(#[from] crate::allocate::AllocateError),
    #[error("the broker does not know the strategy {0}")]
    UnknownStrategy(String),
}
