//! A consumer's shared state: what all its tasks work on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::{
    ConsumeMessageDirectlyResult, ConsumeType, ConsumerData, ConsumerRunningInfo, GetConsumerStatusBody,
    MessageModel, MessageQueue, ResetOffsetBody, SubscriptionData,
};
use ringmq_protocol::names::retry_topic;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::listener::Listener;
use super::offset_store::OffsetStore;
use super::process_queue::{ProcessQueue, Thresholds};
use super::settings::Settings;
use super::stats::Stats;
use crate::caught::Caught;
use crate::client::{Instance, Member};
use crate::env::BoxFuture;
use crate::message::MessageExt;
use crate::sync::lock;

/// A queue that the rebalance gave to this consumer.
#[derive(Clone, Debug)]
pub(super) struct Assigned {
    pub process: Arc<ProcessQueue>,
    /// Taken away again, and about to be released; it cannot be given before that is done.
    pub leaving: bool,
}

/// Everything of a push consumer.
pub(crate) struct Group {
    pub instance: Arc<Instance>,
    pub name: String,
    /// The group's own retry topic.
    pub retry_topic: String,
    pub settings: Settings,
    pub listener: Listener,
    pub offsets: OffsetStore,
    pub(super) subscriptions: Mutex<BTreeMap<String, SubscriptionData>>,
    pub(super) queues: Mutex<BTreeMap<MessageQueue, Assigned>>,
    /// Queues that are read without sharing them.
    pub(super) assigned: Mutex<Option<Vec<MessageQueue>>>,
    /// Held by the one round of the rebalance that is under way.
    pub(super) balancing: tokio::sync::Mutex<()>,
    /// Wakes the rebalance.
    pub(super) rebalance: Notify,
    /// Queues came or went: each may hold another share of what is held of its topic.
    pub(super) shares: Notify,
    /// How many batches are consumed at a time.
    pub permits: Arc<Semaphore>,
    /// Messages for a poll came.
    pub arrived: Notify,
    pub tasks: TaskTracker,
    /// Nothing new is begun.
    pub stop: CancellationToken,
    /// What is begun is given up.
    pub kill: CancellationToken,
    /// When it was started, in ms since 1970.
    pub started_ms: i64,
    pub(super) stats: Stats,
    #[cfg(feature = "trace")]
    pub(super) tracer: Option<crate::trace::Tracer>,
    paused: AtomicBool,
    resumed: Notify,
}

impl Group {
    pub(super) fn new(
        instance: Arc<Instance>,
        name: String,
        settings: Settings,
        listener: Listener,
        subscriptions: BTreeMap<String, SubscriptionData>,
    ) -> Group {
        let kill = instance.stop().child_token();
        let offsets = match settings.message_model {
            MessageModel::Clustering => OffsetStore::remote(instance.clone(), &name),
            MessageModel::Broadcasting => {
                OffsetStore::local(instance.clone(), &name, settings.offset_path(&instance, &name))
            }
        };
        Group {
            retry_topic: retry_topic(&name),
            offsets,
            permits: Arc::new(Semaphore::new(settings.consume_tasks)),
            arrived: Notify::new(),
            tasks: TaskTracker::new(),
            stop: kill.child_token(),
            kill,
            subscriptions: Mutex::new(subscriptions),
            queues: Mutex::default(),
            assigned: Mutex::new(settings.assigned.clone()),
            balancing: tokio::sync::Mutex::default(),
            rebalance: Notify::new(),
            shares: Notify::new(),
            started_ms: instance.now_ms(),
            stats: Stats::new(&name),
            #[cfg(feature = "trace")]
            tracer: settings.trace.clone().map(|topic| crate::trace::Tracer::start(&instance, topic, &name)),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            instance,
            name,
            settings,
            listener,
        }
    }

    pub(super) fn is_clustering(&self) -> bool {
        self.settings.message_model == MessageModel::Clustering
    }

    /// Whether the program says which queues are read.
    pub(super) fn is_assigned(&self) -> bool {
        lock(&self.assigned).is_some()
    }

    /// Whether one of these queues is about to be given back: it can be taken again after that.
    pub(super) fn are_leaving(&self, queues: &[MessageQueue]) -> bool {
        let held = lock(&self.queues);
        queues.iter().any(|queue| held.get(queue).is_some_and(|assigned| assigned.leaving))
    }

    /// Whether queues are locked at the broker before they are consumed.
    pub(super) fn locks_queues(&self) -> bool {
        self.listener.is_orderly() && self.is_clustering()
    }

    pub(super) fn subscription(&self, topic: &str) -> Option<SubscriptionData> {
        lock(&self.subscriptions).get(topic).cloned()
    }

    /// Every queue whose offset is this consumer's to tell: those that are about to leave, too.
    pub(super) fn owned(&self) -> Vec<MessageQueue> {
        lock(&self.queues).keys().cloned().collect()
    }

    /// Queues that are held and not about to leave.
    pub(super) fn held(&self) -> Vec<Arc<ProcessQueue>> {
        let queues = lock(&self.queues);
        queues.values().filter(|q| !q.leaving).map(|q| q.process.clone()).collect()
    }

    /// How much may be held of a queue, now that the topic has as many queues here as it has.
    pub(super) fn thresholds(&self, topic: &str) -> Thresholds {
        let settings = &self.settings;
        let here = || lock(&self.queues).keys().filter(|queue| queue.topic == topic).count().max(1);
        let share =
            |of_topic: Option<usize>, of_queue| of_topic.map_or(of_queue, |all| (all / here()).max(1));
        Thresholds {
            messages: share(settings.pull_threshold_for_topic, settings.pull_threshold_for_queue),
            bytes: share(settings.pull_threshold_size_for_topic, settings.pull_threshold_size_for_queue),
            span: (!self.listener.is_orderly()).then_some(settings.consume_concurrently_max_span),
        }
    }

    /// Starts a task of the consumer's, and so of the client's.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.instance.tasks().spawn(self.tasks.track_future(task));
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.resumed.notify_waiters();
    }

    /// Waits while the consumer is suspended.
    pub(super) async fn while_paused(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.paused.load(Ordering::Acquire) {
                return;
            }
            resumed.await;
        }
    }

    /// Runs a listener: `None` when it panicked, took too long, or the consumer gave it up.
    pub(super) async fn run<R>(&self, listener: BoxFuture<'static, R>) -> Option<R> {
        tokio::select! {
            biased;
            result = tokio::time::timeout(self.settings.consume_timeout, Caught(listener)) => match result {
                Ok(result) => result,
                Err(_) => {
                    let limit = self.settings.consume_timeout;
                    tracing::warn!(target: "ringmq_client::consumer", group = self.name, ?limit,
                        "a listener took too long");
                    None
                }
            },
            () = self.kill.cancelled() => None,
        }
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.instance.config.call_timeout
    }
}

impl Member for Group {
    fn consumer_data(&self) -> ConsumerData {
        ConsumerData {
            consume_from_where: Some(self.settings.consume_from.on_the_wire()),
            consume_type: Some(match self.listener {
                Listener::Poll => ConsumeType::Actively,
                _ => ConsumeType::Passively,
            }),
            group_name: self.name.clone(),
            message_model: Some(self.settings.message_model),
            subscription_data_set: match self.is_assigned() {
                true => Vec::new(),
                false => lock(&self.subscriptions).values().cloned().collect(),
            },
            unit_mode: false,
        }
    }

    fn rebalance_now(&self) {
        self.rebalance.notify_one();
    }

    fn running_info(&self) -> ConsumerRunningInfo {
        self.info()
    }

    fn status(&self, topic: &str) -> GetConsumerStatusBody {
        self.progress(topic)
    }

    fn reset(self: Arc<Self>, offsets: &ResetOffsetBody) {
        self.move_group(offsets);
    }

    fn consume_directly(
        self: Arc<Self>,
        message: MessageExt,
    ) -> BoxFuture<'static, ConsumeMessageDirectlyResult> {
        Box::pin(async move { self.try_out(message).await })
    }
}
