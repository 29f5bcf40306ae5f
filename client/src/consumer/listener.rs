//! What the application does with messages.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;

use crate::env::BoxFuture;
use crate::message::MessageExt;

/// Messages of one queue, in its order: one at least, and at most `consume_batch` of them, which is one by default.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    messages: Arc<[Arc<MessageExt>]>,
}

impl Batch {
    /// `None` without a message.
    pub(crate) fn new(messages: Vec<Arc<MessageExt>>) -> Option<Batch> {
        (!messages.is_empty()).then(|| Batch { messages: messages.into() })
    }

    /// The queue.
    pub fn queue(&self) -> &MessageQueue {
        &self.messages[0].queue
    }
}

impl Deref for Batch {
    type Target = [Arc<MessageExt>];

    fn deref(&self) -> &[Arc<MessageExt>] {
        &self.messages
    }
}

/// When a message that failed comes again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryDelay {
    /// Later each time: the broker takes delay level 3 + the number of failures.
    #[default]
    Growing,
    /// After the delay of a level from 1 to 18.
    Level(u8),
    /// Never: it goes to the dead-letter topic now.
    DeadLetter,
}

/// What became of a batch that was consumed concurrently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// All messages are done.
    All,
    /// The first ones are done, the rest failed.
    First {
        /// How many are done.
        done: usize,
        /// When the rest comes again.
        retry: RetryDelay,
    },
    /// All failed and come again; behind `max_reconsume_times` failures they go to the dead-letter topic.
    Failed(RetryDelay),
}

/// What became of a batch that was consumed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumedOrderly {
    /// All messages are done and committed, and with them those of this queue that were [`ConsumedOrderly::Pending`].
    All,
    /// All messages are done, but to be committed with a later batch. Until then they count as held, so that
    /// somebody who never commits gets no more at last; if this member goes, they come again elsewhere.
    Pending,
    /// The batch failed: the queue stands still for a while, or for the consumer's `suspend`, and then the same
    /// batch comes again.
    Suspend(Option<Duration>),
    /// What is pending comes again, this batch included, behind a pause as that of [`ConsumedOrderly::Suspend`].
    Rollback(Option<Duration>),
}

/// Consumes messages in any order, many at a time. Async closures are listeners:
/// `|batch: Batch| async move { … Consumed::All }`.
///
/// A listener that panics, or takes longer than `consume_timeout` (its future is dropped then), has failed.
pub trait ConcurrentListener: Send + Sync + 'static {
    /// Consumes a batch. May be called again with messages that were consumed before: at least once is the rule.
    fn consume(&self, batch: Batch) -> impl Future<Output = Consumed> + Send;
}

impl<F, Fut> ConcurrentListener for F
where
    F: Fn(Batch) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Consumed> + Send,
{
    fn consume(&self, batch: Batch) -> impl Future<Output = Consumed> + Send {
        self(batch)
    }
}

/// Consumes the messages of each queue in their order, one batch of a queue at a time.
///
/// A listener that panics, or takes longer than `consume_timeout` (its future is dropped then), suspends the queue.
pub trait OrderlyListener: Send + Sync + 'static {
    /// Consumes a batch.
    fn consume(&self, batch: Batch) -> impl Future<Output = ConsumedOrderly> + Send;
}

impl<F, Fut> OrderlyListener for F
where
    F: Fn(Batch) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ConsumedOrderly> + Send,
{
    fn consume(&self, batch: Batch) -> impl Future<Output = ConsumedOrderly> + Send {
        self(batch)
    }
}

/// A listener whose type was forgotten.
pub(crate) type Erased<R> = Arc<dyn Fn(Batch) -> BoxFuture<'static, R> + Send + Sync>;

/// One of the ways to consume.
#[derive(Clone)]
pub(crate) enum Listener {
    Concurrent(Erased<Consumed>),
    Orderly(Erased<ConsumedOrderly>),
    /// The application polls.
    Poll,
}

impl Listener {
    pub(crate) fn concurrent(listener: impl ConcurrentListener) -> Listener {
        let listener = Arc::new(listener);
        Listener::Concurrent(Arc::new(move |batch| {
            let listener = listener.clone();
            Box::pin(async move { listener.consume(batch).await })
        }))
    }

    pub(crate) fn orderly(listener: impl OrderlyListener) -> Listener {
        let listener = Arc::new(listener);
        Listener::Orderly(Arc::new(move |batch| {
            let listener = listener.clone();
            Box::pin(async move { listener.consume(batch).await })
        }))
    }

    pub(crate) fn is_poll(&self) -> bool {
        matches!(self, Listener::Poll)
    }

    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Listener::Orderly(_))
    }
}
