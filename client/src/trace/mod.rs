//! Message traces: what became of each message, sent to a topic of its own (Java's `AsyncTraceDispatcher`), where
//! mqadmin (`queryMsgTraceById`) and the dashboard find it.

mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::names::topics::TRACE_TOPIC;
use ringmq_protocol::properties::names;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use record::{ConsumeOutcome, Consumed, Ended, MessageKind, Record, Sent};

use crate::client::Instance;
use crate::message::{Compression, Message};
use crate::producer::SendError;
use crate::producer::send::deliver;
use crate::producer::wire::{Packing, Parcel};

/// Records that wait; more are dropped, and counted.
const QUEUE: usize = 2048;
/// Records of a message, at most.
const BATCH: usize = 20;
/// How long a record waits for others.
const LINGER: Duration = Duration::from_secs(5);
/// Longest text of records in a message.
const MAX_TEXT: usize = 128_000;
/// How often a message with records is sent until a broker takes it.
const ATTEMPTS: usize = 3;
/// Time limit of all of these.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long [`Tracer::flush`] waits.
const FLUSH: Duration = Duration::from_secs(10);

/// The topic of the traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceTopic(pub(crate) String);

impl Default for TraceTopic {
    /// The one that brokers with `traceTopicEnable` have.
    fn default() -> TraceTopic {
        TraceTopic(TRACE_TOPIC.to_owned())
    }
}

impl TraceTopic {
    /// A topic of one's own.
    pub fn named(topic: impl Into<String>) -> TraceTopic {
        TraceTopic(topic.into())
    }
}

enum Order {
    Record(Box<Record>),
    /// Send everything and say so.
    Flush(oneshot::Sender<()>),
}

/// Takes records without ever making anybody wait.
#[derive(Debug)]
pub(crate) struct Tracer {
    orders: mpsc::Sender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Tracer {
    /// Starts the task that sends the records of a producer or a consumer.
    pub(crate) fn start(instance: &Arc<Instance>, topic: TraceTopic, group: &str) -> Tracer {
        let (orders, queue) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let sender = Sender {
            instance: instance.clone(),
            topic: topic.0,
            group: format!("_INNER_TRACE_PRODUCER-{group}"),
        };
        let stop = instance.stop().clone();
        instance.tasks().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.run(queue) => {}
            }
        });
        Tracer { orders, dropped }
    }

    /// Takes a record.
    pub(crate) fn record(&self, record: Record) {
        if self.orders.try_send(Order::Record(Box::new(record))).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(target: "ringmq_client::trace", dropped, "trace records were dropped");
            }
        }
    }

    /// Sends what was taken so far, or gives up when brokers do not take it.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        let flushed = async {
            if self.orders.send(Order::Flush(done)).await.is_ok() {
                // A sender that has stopped has nothing to send.
                let _ = wait.await;
            }
        };
        if timeout(FLUSH, flushed).await.is_err() {
            tracing::warn!(target: "ringmq_client::trace", "brokers did not take the last trace records");
        }
    }
}

struct Sender {
    instance: Arc<Instance>,
    topic: String,
    group: String,
}

impl Sender {
    async fn run(self, mut queue: mpsc::Receiver<Order>) {
        while let Some(first) = queue.recv().await {
            let (records, flushed) = collect(first, &mut queue).await;
            for piece in pieces(records) {
                if let Err(error) = self.send(piece).await {
                    tracing::warn!(target: "ringmq_client::trace", %error, "trace records were lost");
                }
            }
            if let Some(flushed) = flushed {
                // Whoever asked may have gone.
                let _ = flushed.send(());
            }
        }
    }

    /// Tries another broker when one fails, as often as Java's producer of traces does.
    async fn send(&self, piece: Piece) -> Result<(), SendError> {
        let instance = &self.instance;
        let mut message = Message::new(&self.topic, piece.text)?;
        message.set(names::KEYS, piece.keys.join(" "));
        let route = instance.routes.get(&self.topic, instance.asking()).await?;
        let packing = Packing { compression: Compression::Zlib, over: 4096, limit: usize::MAX };
        let parcel = Parcel::single(message, || instance.unique_key(), packing, instance.now_ms())?;
        let (mut attempts, mut avoid, deadline) = (0, None, Instant::now() + TIMEOUT);
        loop {
            let queue = any_queue(&route.publish, avoid);
            let queue = queue.ok_or_else(|| SendError::NoQueue(self.topic.clone()))?;
            attempts += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            match deliver(instance, &self.group, &parcel, queue, left).await {
                Err(error) if attempts < ATTEMPTS && error.is_retryable() && Instant::now() < deadline => {
                    avoid = Some(&queue.broker_name);
                }
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// Any queue, and one of another broker than `avoid` if there is one.
fn any_queue<'a>(queues: &'a [MessageQueue], avoid: Option<&String>) -> Option<&'a MessageQueue> {
    let others: Vec<_> = queues.iter().filter(|queue| Some(&queue.broker_name) != avoid).collect();
    fastrand::choice(others).or_else(|| fastrand::choice(queues))
}

/// Waits for more records, until there are enough, or time is over, or somebody wants them sent.
async fn collect(
    first: Order,
    queue: &mut mpsc::Receiver<Order>,
) -> (Vec<Record>, Option<oneshot::Sender<()>>) {
    let deadline = Instant::now() + LINGER;
    let (mut records, mut next) = (Vec::new(), Some(first));
    while let Some(order) = next.take() {
        match order {
            Order::Flush(flushed) => return (records, Some(flushed)),
            Order::Record(record) => records.push(*record),
        }
        if records.len() < BATCH {
            next = timeout_at(deadline, queue.recv()).await.ok().flatten();
        }
    }
    (records, None)
}

/// Records that go into one message.
#[derive(Debug, Default)]
struct Piece {
    text: String,
    keys: Vec<String>,
}

fn pieces(records: Vec<Record>) -> Vec<Piece> {
    let mut pieces = vec![Piece::default()];
    for record in records {
        let text = record.encode();
        if pieces.last().is_some_and(|piece| piece.text.len() + text.len() > MAX_TEXT) {
            pieces.push(Piece::default());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.text.push_str(&text);
            piece.keys.extend(record.keys());
        }
    }
    pieces.retain(|piece| !piece.text.is_empty());
    for piece in &mut pieces {
        piece.keys.sort();
        piece.keys.dedup();
    }
    pieces
}
