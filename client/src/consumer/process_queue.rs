//! What a consumer holds of one queue: messages that were pulled and are not done yet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::{MessageQueue, MessageRequestMode, PopProcessQueueInfo, ProcessQueueInfo};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::message::MessageExt;
use crate::sync::lock;

/// How long a lock is believed without being renewed: half of what brokers give.
const LOCK_LIFE: Duration = Duration::from_secs(30);

/// How much a consumer holds of a queue before it stops pulling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thresholds {
    pub messages: usize,
    pub bytes: usize,
    /// Between the first and the last offset held; none for ordered consumption.
    pub span: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    /// Everything that is not done, by offset.
    held: BTreeMap<i64, Arc<MessageExt>>,
    /// Of these, what no listener has, in the order that it is handed out.
    waiting: VecDeque<Arc<MessageExt>>,
    /// Bytes of the bodies held.
    bytes: usize,
    /// The highest offset that ever was here.
    last: Option<i64>,
    /// When the queue was locked.
    locked: Option<Instant>,
    /// When messages were taken in, and handed out, last, in ms since 1970.
    pulled_ms: i64,
    consumed_ms: i64,
}

/// One queue of a consumer, from the rebalance that gives it until the one that takes it away.
#[derive(Debug)]
pub(crate) struct ProcessQueue {
    pub queue: MessageQueue,
    /// How its messages come. By POP none is held in `state`.
    pub mode: MessageRequestMode,
    /// By POP: messages that are not acknowledged, and when some came last, in ms since 1970.
    unacknowledged: AtomicUsize,
    popped_ms: AtomicI64,
    state: Mutex<State>,
    /// Messages came, or came back, or the lock did.
    filled: Notify,
    /// Messages are done.
    emptied: Notify,
    /// Cancelled when the queue is taken away: what is done from now on does not count.
    pub dropped: CancellationToken,
    /// Set before the queue is given up: its offset is no longer this consumer's to tell.
    released: AtomicBool,
    /// Nothing is pulled, and nothing is given to a poll.
    paused: AtomicBool,
    resumed: Notify,
    /// The queue's own tasks.
    pub workers: TaskTracker,
}

impl ProcessQueue {
    /// `stop` is the consumer's.
    pub(crate) fn new(
        queue: MessageQueue,
        mode: MessageRequestMode,
        stop: &CancellationToken,
    ) -> ProcessQueue {
        ProcessQueue {
            queue,
            mode,
            unacknowledged: AtomicUsize::new(0),
            popped_ms: AtomicI64::new(0),
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            dropped: stop.child_token(),
            released: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            workers: TaskTracker::new(),
        }
    }

    /// Whether what is done still counts: during a shutdown the queue is dropped, and yet this consumer's.
    pub(crate) fn is_ours(&self) -> bool {
        !self.released.load(Ordering::Acquire)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.resumed.notify_waiters();
    }

    /// Waits while the queue is paused.
    pub(crate) async fn while_paused(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.is_paused() {
                return;
            }
            resumed.await;
        }
    }

    /// Gives the queue up.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.dropped.cancel();
    }

    /// Takes messages in; those that are held already are passed over.
    pub(crate) fn put(&self, messages: Vec<MessageExt>, now_ms: i64) {
        let state = &mut *lock(&self.state);
        state.pulled_ms = now_ms;
        for message in messages.into_iter().map(Arc::new) {
            if let Entry::Vacant(vacant) = state.held.entry(message.queue_offset) {
                vacant.insert(message.clone());
                state.bytes += message.body.len();
                state.last = state.last.max(Some(message.queue_offset));
                state.waiting.push_back(message);
            }
        }
        self.filled.notify_one();
    }

    /// Hands messages out.
    pub(crate) fn take(&self, max: usize, now_ms: i64) -> Vec<Arc<MessageExt>> {
        let mut state = lock(&self.state);
        let count = max.min(state.waiting.len());
        if count > 0 {
            state.consumed_ms = now_ms;
        }
        state.waiting.drain(..count).collect()
    }

    /// Takes messages back that were handed out, to be handed out first.
    pub(crate) fn put_back(&self, messages: Vec<Arc<MessageExt>>) {
        let mut state = lock(&self.state);
        for message in messages.into_iter().rev() {
            // As they are now: with one more failure.
            if let Some(held) = state.held.get_mut(&message.queue_offset) {
                *held = message.clone();
                state.waiting.push_front(message);
            }
        }
        self.filled.notify_one();
    }

    /// Messages are done. Returns the offset up to which everything is: what may be committed.
    pub(crate) fn done(&self, messages: &[Arc<MessageExt>]) -> Option<i64> {
        let mut state = lock(&self.state);
        for message in messages {
            if let Some(held) = state.held.remove(&message.queue_offset) {
                state.bytes -= held.body.len();
            }
        }
        self.emptied.notify_one();
        let first = state.held.keys().next().copied();
        first.or_else(|| state.last.map(|last| last + 1))
    }

    /// What operators see of it; the caller knows the offset.
    pub(crate) fn info(&self) -> ProcessQueueInfo {
        let state = lock(&self.state);
        let offset = |end: Option<&i64>| end.copied().unwrap_or(0);
        let waiting: HashSet<i64> = state.waiting.iter().map(|message| message.queue_offset).collect();
        let mut out = state.held.keys().filter(|offset| !waiting.contains(offset));
        ProcessQueueInfo {
            transaction_msg_count: (state.held.len() - waiting.len()) as i32,
            transaction_msg_min_offset: offset(out.next()),
            transaction_msg_max_offset: offset(out.next_back()),
            cached_msg_count: state.held.len() as i32,
            cached_msg_min_offset: offset(state.held.keys().next()),
            cached_msg_max_offset: offset(state.held.keys().next_back()),
            cached_msg_size_in_mi_b: (state.bytes >> 20) as i32,
            droped: self.dropped.is_cancelled(),
            last_consume_timestamp: state.consumed_ms,
            last_pull_timestamp: state.pulled_ms,
            locked: state.locked.is_some_and(|at| at.elapsed() < LOCK_LIFE),
            ..ProcessQueueInfo::default()
        }
    }

    /// So many messages were popped.
    pub(crate) fn popped(&self, messages: usize, now_ms: i64) {
        self.popped_ms.store(now_ms, Ordering::Relaxed);
        self.unacknowledged.fetch_add(messages, Ordering::Relaxed);
    }

    /// A popped message is no longer this member's affair.
    pub(crate) fn acknowledged(&self) {
        self.unacknowledged.fetch_sub(1, Ordering::Relaxed);
    }

    /// As [`ProcessQueue::info`], by POP.
    pub(crate) fn pop_info(&self) -> PopProcessQueueInfo {
        PopProcessQueueInfo {
            droped: self.dropped.is_cancelled(),
            last_pop_timestamp: self.popped_ms.load(Ordering::Relaxed),
            wait_ack_count: self.unacknowledged.load(Ordering::Relaxed) as i32,
        }
    }

    /// How many messages are held, and the bytes of their bodies.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.held.len(), state.bytes)
    }

    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.state).held.is_empty()
    }

    fn is_over(&self, thresholds: &Thresholds) -> bool {
        let state = lock(&self.state);
        let ends = state.held.keys().next().zip(state.held.keys().next_back());
        let span = ends.map_or(0, |(first, last)| last - first);
        state.held.len() >= thresholds.messages
            || state.bytes >= thresholds.bytes
            || thresholds.span.is_some_and(|limit| span > limit)
    }

    /// Waits until there is room for more, within thresholds that may be others when `changed` tells so.
    pub(crate) async fn room(&self, thresholds: impl Fn() -> Thresholds, changed: &Notify) {
        loop {
            let changed = changed.notified();
            if !self.is_over(&thresholds()) {
                return;
            }
            tokio::select! {
                () = self.emptied.notified() => {}
                () = changed => {}
            }
        }
    }

    /// Waits until there is something to hand out. For one waiter.
    pub(crate) async fn something(&self) {
        while lock(&self.state).waiting.is_empty() {
            self.filled.notified().await;
        }
    }

    /// The broker gave or renewed the lock.
    pub(crate) fn set_locked(&self) {
        lock(&self.state).locked = Some(Instant::now());
        self.filled.notify_one();
    }

    /// Whether the lock can be relied upon.
    pub(crate) fn is_locked(&self) -> bool {
        lock(&self.state).locked.is_some_and(|at| at.elapsed() < LOCK_LIFE)
    }

    /// Waits for the lock. For one waiter.
    pub(crate) async fn lock(&self) {
        while !self.is_locked() {
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests_support::record;

    fn message(offset: i64) -> MessageExt {
        let bytes = record("t", offset, b"0123456789", 0, "").into();
        MessageExt::decode(&bytes, "b").unwrap().0
    }

    fn queue(offsets: impl IntoIterator<Item = i64>) -> ProcessQueue {
        let queue =
            ProcessQueue::new(MessageQueue::default(), MessageRequestMode::Pull, &CancellationToken::new());
        queue.put(offsets.into_iter().map(message).collect(), 5);
        queue
    }

    #[test]
    fn commits_never_pass_what_is_not_done() {
        let queue = queue(10..15);
        let batch = queue.take(9, 7);
        assert_eq!(batch.len(), 5);
        assert_eq!(queue.done(&batch[1..3]), Some(10));
        assert_eq!(queue.done(&batch[..1]), Some(13));
        assert_eq!(queue.done(&batch[3..]), Some(15));
        assert!(queue.is_empty());
        assert_eq!(queue.done(&batch), Some(15));
    }

    #[test]
    fn what_comes_back_goes_out_first() {
        let queue = queue(0..4);
        let batch = queue.take(2, 7);
        queue.put_back(batch);
        queue.put(vec![message(1), message(4)], 6);
        let offsets: Vec<i64> = queue.take(9, 7).iter().map(|m| m.queue_offset).collect();
        assert_eq!(offsets, [0, 1, 2, 3, 4]);
        let info = queue.info();
        assert_eq!((info.cached_msg_count, info.cached_msg_max_offset), (5, 4));
        assert_eq!((info.last_pull_timestamp, info.last_consume_timestamp), (6, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn room_by_each_threshold() {
        let queue = queue([0, 100]);
        let free = Thresholds { messages: 3, bytes: 21, span: Some(100) };
        let never = Notify::new();
        queue.room(|| free, &never).await;
        for full in [
            Thresholds { messages: 2, ..free },
            Thresholds { bytes: 20, ..free },
            Thresholds { span: Some(99), ..free },
        ] {
            let waiting = tokio::time::timeout(Duration::from_secs(9), queue.room(|| full, &never));
            assert!(waiting.await.is_err(), "{full:?}");
        }
        let batch = queue.take(1, 7);
        let full = Thresholds { messages: 2, ..free };
        tokio::join!(queue.room(|| full, &never), async { queue.done(&batch) });
    }

    #[tokio::test(start_paused = true)]
    async fn locks_expire() {
        let queue = queue([]);
        assert!(!queue.is_locked());
        queue.set_locked();
        queue.lock().await;
        tokio::time::advance(LOCK_LIFE).await;
        assert!(!queue.is_locked());
    }
}
