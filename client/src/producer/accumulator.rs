//! Batches that make themselves (Java's `ProduceAccumulator`): messages that are sent at about the same time to the
//! same topic travel in one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::names::is_retry_topic;
use ringmq_protocol::properties::names;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::SendError;
use super::wire::Parcel;
use super::{Inner, SendReceipt};
use crate::message::Message;
use crate::sync::lock;

/// Bytes of messages that wait for their batches, all together; behind them senders wait.
const TOTAL: usize = 32 << 20;
/// What a message takes in a batch beside its body and its present properties: lengths, and the id that it gets.
const OVERHEAD: usize = 64;

/// What a message adds to a batch. Properties count, too: batches of short bodies with long properties would get
/// longer than a broker takes.
fn weight(message: &Message) -> usize {
    let properties = message.properties().iter().map(|(name, value)| name.len() + value.len() + 2);
    message.body().len() + properties.sum::<usize>() + OVERHEAD
}

/// When a batch goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Linger {
    /// How long its first message waits at most.
    pub time: Duration,
    /// At how many bytes it does not wait any longer.
    pub bytes: usize,
}

/// What messages of one batch have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    topic: String,
    wait_store_ok: bool,
    queue: Option<MessageQueue>,
}

type Outcome = Result<SendReceipt, Arc<SendError>>;

/// A message with somebody who waits for its receipt, and its share of [`TOTAL`].
struct Waiting {
    message: Message,
    sender: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Open {
    waiting: Vec<Waiting>,
    bytes: usize,
    /// Which batch of its key it is, so that a timer does not send the next one.
    number: u64,
}

/// Batches that are being made.
pub(super) struct Accumulator {
    linger: Linger,
    open: Mutex<HashMap<Key, Open>>,
    room: Arc<Semaphore>,
}

impl Accumulator {
    pub(super) fn new(linger: Linger) -> Accumulator {
        Accumulator { linger, open: Mutex::default(), room: Arc::new(Semaphore::new(TOTAL)) }
    }

    /// Whether a message can go with others.
    pub(super) fn takes(&self, message: &Message) -> bool {
        !message.is_delayed()
            && !message.is_reply()
            && !is_retry_topic(message.topic())
            && weight(message) < self.linger.bytes
            && message.property(names::TRANSACTION_PREPARED).is_none()
    }

    /// Adds a message; returns a batch that is full, or the number of one that was begun.
    fn add(&self, key: &Key, waiting: Waiting) -> Added {
        let mut open = lock(&self.open);
        let batch = open.entry(key.clone()).or_default();
        batch.bytes += weight(&waiting.message);
        batch.waiting.push(waiting);
        if batch.bytes >= self.linger.bytes {
            return Added::Full(next(batch));
        }
        if batch.waiting.len() == 1 { Added::Begun(batch.number) } else { Added::Joined }
    }

    /// The messages of a batch whose time is over, unless it has gone already.
    fn overdue(&self, key: &Key, number: u64) -> Vec<Waiting> {
        let mut open = lock(&self.open);
        match open.get_mut(key) {
            Some(batch) if batch.number == number => {
                open.remove(key).map(|batch| batch.waiting).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

enum Added {
    Joined,
    Begun(u64),
    Full(Vec<Waiting>),
}

fn next(batch: &mut Open) -> Vec<Waiting> {
    batch.number += 1;
    batch.bytes = 0;
    std::mem::take(&mut batch.waiting)
}

impl Inner {
    /// Sends a message with others. When the future is dropped, the message goes out all the same.
    pub(super) async fn send_accumulated(
        self: &Arc<Self>,
        accumulator: &Accumulator,
        message: Message,
        queue: Option<&MessageQueue>,
    ) -> Result<SendReceipt, SendError> {
        let wait_store_ok = message.property(names::WAIT_STORE_MSG_OK) != Some("false");
        let key = Key { topic: message.topic().to_owned(), wait_store_ok, queue: queue.cloned() };
        let bytes = weight(&message).min(TOTAL) as u32;
        // The room is never closed.
        let room = accumulator.room.clone().acquire_many_owned(bytes).await;
        let room = room.map_err(|_| SendError::Call(crate::error::CallError::Shutdown))?;
        let (sender, outcome) = oneshot::channel();
        match accumulator.add(&key, Waiting { message, sender, _room: room }) {
            Added::Joined => {}
            Added::Full(batch) => self.spawn_batch(key, batch),
            Added::Begun(number) => self.spawn_timer(accumulator.linger.time, key, number),
        }
        match outcome.await {
            Ok(Ok(receipt)) => Ok(receipt),
            Ok(Err(error)) => Err(SendError::InBatch(error)),
            Err(_) => Err(SendError::Call(crate::error::CallError::Shutdown)),
        }
    }

    fn spawn_timer(self: &Arc<Self>, time: Duration, key: Key, number: u64) {
        let inner = self.clone();
        self.spawn(async move {
            tokio::time::sleep(time).await;
            let Some(accumulator) = &inner.accumulator else { return };
            let batch = accumulator.overdue(&key, number);
            if !batch.is_empty() {
                inner.send_waiting(&key, batch).await;
            }
        });
    }

    fn spawn_batch(self: &Arc<Self>, key: Key, batch: Vec<Waiting>) {
        let inner = self.clone();
        self.spawn(async move { inner.send_waiting(&key, batch).await });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.client.instance.stop().clone();
        self.client.instance.tasks().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    async fn send_waiting(&self, key: &Key, batch: Vec<Waiting>) {
        let (mut messages, mut waiting) = (Vec::new(), Vec::new());
        for Waiting { message, sender, _room } in batch {
            messages.push(message);
            waiting.push((sender, _room));
        }
        let count = messages.len();
        let outcome = match self.parcel_of(messages) {
            Ok(parcel) => match &key.queue {
                Some(queue) => self.send_there(&parcel, queue).await,
                None => self.send_somewhere(&parcel).await,
            },
            Err(error) => Err(error),
        };
        let outcomes: Vec<Outcome> = match outcome {
            Ok(receipt) => shares(&receipt, count).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(Arc::new(error)); count],
        };
        for ((sender, _room), outcome) in waiting.into_iter().zip(outcomes) {
            // A sender that has gone wants no receipt.
            let _ = sender.send(outcome);
        }
    }

    /// One message travels alone, so that its body can be packed.
    fn parcel_of(&self, mut messages: Vec<Message>) -> Result<Parcel, SendError> {
        let instance = &self.client.instance;
        let (packing, now_ms) = (self.settings.packing, instance.now_ms());
        match messages.len() {
            1 => Parcel::single(messages.remove(0), || instance.unique_key(), packing, now_ms),
            _ => Parcel::batch(messages, || instance.unique_key(), packing.limit, now_ms),
        }
    }
}

/// The receipt of each message in a batch's.
fn shares(receipt: &SendReceipt, count: usize) -> Vec<SendReceipt> {
    let (mut ids, mut offset_ids) = (receipt.msg_id.split(','), receipt.offset_msg_id.split(','));
    let share = |at: usize| SendReceipt {
        msg_id: ids.next().unwrap_or_default().to_owned(),
        offset_msg_id: offset_ids.next().unwrap_or_default().to_owned(),
        queue_offset: receipt.queue_offset + at as i64,
        ..receipt.clone()
    };
    (0..count).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Delivery;
    use crate::producer::SendStatus;

    #[test]
    fn each_message_gets_its_share_of_the_receipt() {
        let receipt = SendReceipt {
            status: SendStatus::Ok,
            msg_id: "A,B".to_owned(),
            offset_msg_id: "1,2".to_owned(),
            queue: MessageQueue::default(),
            queue_offset: 7,
            transaction_id: None,
            recall_handle: None,
            region: None,
            traced: true,
        };
        let shares = shares(&receipt, 2);
        let texts: Vec<_> =
            shares.iter().map(|s| (s.msg_id.as_str(), s.offset_msg_id.as_str(), s.queue_offset)).collect();
        assert_eq!(texts, [("A", "1", 7), ("B", "2", 8)]);
    }

    #[test]
    fn some_messages_travel_alone() {
        let accumulator = Accumulator::new(Linger { time: Duration::ZERO, bytes: 100 });
        assert!(accumulator.takes(&Message::new("t", "b").unwrap()));
        assert!(!accumulator.takes(&Message::new("t", vec![b'x'; 100]).unwrap()));
        let late = Message::builder("t").body("b").delivery(Delivery::Level(1)).build().unwrap();
        assert!(!accumulator.takes(&late));
        let long = Message::builder("t").body("b").property("p", "x".repeat(40)).build().unwrap();
        assert!(!accumulator.takes(&long));
    }
}
