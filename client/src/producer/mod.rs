//! Sending messages.

mod accumulator;
mod error;
mod latency;
mod recall;
mod request;
mod selector;
pub(crate) mod send;
#[cfg(feature = "trace")]
mod traced;
mod transaction;
pub(crate) mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::names::{NameError, validate_group};

use crate::client::{Client, TransactionCheck};
use crate::message::{Compression, Message};
#[cfg(feature = "trace")]
use crate::trace::Tracer;
use accumulator::{Accumulator, Linger};
pub use error::{BatchRule, SendError};
use latency::Faults;
pub use recall::RecallError;
pub use request::RequestError;
pub use selector::{AtRandom, ByHash, InMachineRooms, QueueSelector};
use transaction::ErasedChecker;
pub use transaction::{TransactionChecker, TransactionProducer, TransactionReceipt, TransactionState};
use wire::{Packing, Parcel};

/// How well a message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendStatus {
    /// As the broker's configuration promises.
    Ok,
    /// Stored, but not flushed in time.
    FlushDiskTimeout,
    /// Stored, but not replicated in time.
    FlushSlaveTimeout,
    /// Stored, but there is no slave to replicate to.
    SlaveNotAvailable,
}

/// A broker has the message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendReceipt {
    /// How well it is stored.
    pub status: SendStatus,
    /// The producer's id of the message; of a batch, the ids with commas between them.
    pub msg_id: String,
    /// The broker's id: where it is stored. Of a batch, the ids with commas between them.
    pub offset_msg_id: String,
    /// The queue that it went to.
    pub queue: MessageQueue,
    /// Its offset there; of a batch, that of the first message.
    pub queue_offset: i64,
    /// The broker's id of the transaction, for a message that is part of one.
    pub transaction_id: Option<String>,
    /// What takes a timer message back ([`Producer::recall`]), if the broker allows that.
    pub recall_handle: Option<String>,
    /// The broker's region.
    pub region: Option<String>,
    /// Whether the broker wants the message traced.
    pub traced: bool,
}

/// Settings of a producer, with Java's defaults.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct ProducerBuilder {
    client: Client,
    group: String,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    send_timeout: Duration,
    attempt_timeout: Option<Duration>,
    retries: usize,
    retry_when_not_stored_ok: bool,
    packing: Packing,
    linger: Option<Linger>,
    avoid_slow_brokers: bool,
    detect_brokers: bool,
    #[cfg(feature = "trace")]
    trace: Option<crate::trace::TraceTopic>,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, group: String) -> ProducerBuilder {
        let packing = Packing { compression: Compression::Zlib, over: 4096, limit: 4 << 20 };
        let settings = Settings {
            send_timeout: Duration::from_secs(3),
            attempt_timeout: None,
            retries: 2,
            retry_when_not_stored_ok: false,
            packing,
            linger: None,
            avoid_slow_brokers: false,
            detect_brokers: false,
            #[cfg(feature = "trace")]
            trace: None,
        };
        ProducerBuilder { client, group, settings }
    }

    /// Time limit of a send with all its attempts: 3 s.
    pub fn send_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.settings.send_timeout = timeout;
        self
    }

    /// Time limit of each attempt, so that a silent broker leaves time for another: that of the send.
    pub fn attempt_timeout(mut self, timeout: Duration) -> ProducerBuilder {
        self.settings.attempt_timeout = Some(timeout);
        self
    }

    /// Further attempts behind a failed one, at another broker if there is one: 2.
    pub fn retries(mut self, retries: usize) -> ProducerBuilder {
        self.settings.retries = retries;
        self
    }

    /// Whether a message that is stored, but not as well as configured, is sent once more: not.
    pub fn retry_when_not_stored_ok(mut self, retry: bool) -> ProducerBuilder {
        self.settings.retry_when_not_stored_ok = retry;
        self
    }

    /// How bodies of at least `over` bytes are packed: zlib from 4096 bytes on. Batches never are.
    pub fn compression(mut self, compression: Compression, over: usize) -> ProducerBuilder {
        (self.settings.packing.compression, self.settings.packing.over) = (compression, over);
        self
    }

    /// Longest body before it is packed: 4 MiB. Brokers have a limit of their own.
    pub fn max_message_size(mut self, limit: usize) -> ProducerBuilder {
        self.settings.packing.limit = limit;
        self
    }

    /// Sends messages of one topic in batches that wait at most `time` (Java: 10 ms) for more, or until there are
    /// `bytes` (32 KiB; properties count, too), which are half of [`ProducerBuilder::max_message_size`] at most. Far more
    /// messages a second where many senders await at the same time; one that awaits each send only waits longer.
    /// Messages that are delayed, part of a transaction or long go alone.
    pub fn auto_batch(mut self, time: Duration, bytes: usize) -> ProducerBuilder {
        self.settings.linger = Some(Linger { time, bytes: bytes.max(1) });
        self
    }

    /// Whether brokers that answered late or not at all are passed over for some seconds, as long as there are
    /// others (Java's `sendLatencyEnable`): not.
    pub fn avoid_slow_brokers(mut self, avoid: bool) -> ProducerBuilder {
        self.settings.avoid_slow_brokers = avoid;
        self
    }

    /// Whether brokers that were out of reach are tried every 3 s, to be used again as soon as they answer (Java's
    /// `startDetectorEnable`): not. Needs [`ProducerBuilder::avoid_slow_brokers`].
    pub fn detect_brokers(mut self, detect: bool) -> ProducerBuilder {
        self.settings.detect_brokers = detect;
        self
    }

    /// Records in a topic what becomes of each message: not.
    #[cfg(feature = "trace")]
    pub fn trace(mut self, topic: crate::trace::TraceTopic) -> ProducerBuilder {
        self.settings.trace = Some(topic);
        self
    }

    /// Makes the producer. Brokers hear of it within a second or two.
    pub fn start(self) -> Result<Producer, NameError> {
        self.start_with(None)
    }

    /// Makes a producer of messages that are part of transactions. `checker` answers when a broker asks how one
    /// ended.
    pub fn start_transactional(
        self,
        checker: impl TransactionChecker,
    ) -> Result<TransactionProducer, NameError> {
        let checker = Arc::new(ErasedChecker(Arc::new(checker)));
        Ok(TransactionProducer { producer: self.start_with(Some(checker))? })
    }

    fn start_with(self, checker: Option<Arc<dyn TransactionCheck>>) -> Result<Producer, NameError> {
        validate_group(&self.group)?;
        self.client.instance.add_producer(&self.group, checker);
        let instance = self.client.instance.clone();
        let settings = self.settings;
        let inner = Arc::new(Inner {
            next_queue: AtomicUsize::new(fastrand::usize(..1 << 30)),
            faults: settings.avoid_slow_brokers.then(Faults::default),
            // The last message of a batch may double it.
            accumulator: settings.linger.map(|linger| {
                Accumulator::new(Linger { bytes: linger.bytes.min(settings.packing.limit / 2), ..linger })
            }),
            #[cfg(feature = "trace")]
            tracer: settings.trace.clone().map(|topic| Tracer::start(&instance, topic, &self.group)),
            client: self.client,
            group: self.group,
            settings,
        });
        if inner.settings.detect_brokers && inner.faults.is_some() {
            latency::start_detector(&instance, Arc::downgrade(&inner));
        }
        Ok(Producer { inner })
    }
}

struct Inner {
    client: Client,
    group: String,
    settings: Settings,
    next_queue: AtomicUsize,
    /// Which brokers are slow, if anybody cares.
    faults: Option<Faults>,
    /// Batches that make themselves.
    accumulator: Option<Accumulator>,
    #[cfg(feature = "trace")]
    tracer: Option<Tracer>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.client.instance.remove_producer(&self.group);
    }
}

/// Sends messages. Cheap to clone; handles share everything.
///
/// To send many messages at the same time, await many sends at the same time: they share connections. Dropping the
/// future of a send forgets its answer, and the message may or may not have been stored.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

impl Producer {
    /// The group.
    pub fn group(&self) -> &str {
        &self.inner.group
    }

    /// Sends a message to the queue whose turn it is, and on failure to another broker's.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the message may or may not be stored. In a batch that makes itself it goes on.
    pub async fn send(&self, message: Message) -> Result<SendReceipt, SendError> {
        match self.inner.accumulator.as_ref().filter(|accumulator| accumulator.takes(&message)) {
            Some(accumulator) => self.inner.send_accumulated(accumulator, message, None).await,
            None => self.send_now(message).await,
        }
    }

    async fn send_now(&self, message: Message) -> Result<SendReceipt, SendError> {
        let parcel = self.parcel(message)?;
        self.inner.send_somewhere(&parcel).await
    }

    /// Sends a message to this queue: one attempt.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the message may or may not be stored.
    pub async fn send_to(&self, message: Message, queue: &MessageQueue) -> Result<SendReceipt, SendError> {
        if let Some(accumulator) = self.inner.accumulator.as_ref().filter(|a| a.takes(&message)) {
            return self.inner.send_accumulated(accumulator, message, Some(queue)).await;
        }
        let parcel = self.parcel(message)?;
        self.inner.send_there(&parcel, queue).await
    }

    /// Sends a message to the queue that `selector` picks: one attempt, for to send it elsewhere would break the
    /// order.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the message may or may not be stored.
    pub async fn send_with(
        &self,
        message: Message,
        selector: impl QueueSelector,
    ) -> Result<SendReceipt, SendError> {
        let queue = self.inner.select(&message, selector).await?;
        self.send_to(message, &queue).await
    }

    /// Sends messages in one request; they get one queue and neighbouring offsets.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the message may or may not be stored.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<SendReceipt, SendError> {
        let parcel = self.batch(messages)?;
        self.inner.send_somewhere(&parcel).await
    }

    /// As [`Producer::send_batch`], to this queue: one attempt, for to send it elsewhere would break the order.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the messages may or may not be stored.
    pub async fn send_batch_to(
        &self,
        messages: Vec<Message>,
        queue: &MessageQueue,
    ) -> Result<SendReceipt, SendError> {
        let parcel = self.batch(messages)?;
        self.inner.send_there(&parcel, queue).await
    }

    /// Hands a message to the connection and asks for no answer: fast, and nobody tells when it is lost.
    ///
    /// Cancel-safe: the message may or may not go out.
    pub async fn send_oneway(&self, message: Message) -> Result<(), SendError> {
        let parcel = self.parcel(message)?;
        self.inner.send_oneway(&parcel).await
    }

    /// As [`Producer::send_oneway`], to this queue.
    ///
    /// Cancel-safe: the message may or may not go out.
    pub async fn send_oneway_to(&self, message: Message, queue: &MessageQueue) -> Result<(), SendError> {
        let parcel = self.parcel(message)?;
        self.inner.send_oneway_there(&parcel, queue).await
    }

    /// The queues that the topic's messages go to, in the name server's order.
    ///
    /// Cancel-safe: it only asks.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, SendError> {
        Ok(self.inner.route(topic).await?.publish.clone())
    }

    /// Sends the traces that wait, and tells the brokers that this producer leaves, if it is the last handle of the
    /// client's last one in its group. Not needed: they find out.
    ///
    /// Cancel-safe: a shutdown that is dropped leaves as a dropped producer does.
    pub async fn shutdown(self) {
        #[cfg(feature = "trace")]
        if let Some(tracer) = &self.inner.tracer {
            tracer.flush().await;
        }
        let instance = self.inner.client.instance.clone();
        let group = self.inner.group.clone();
        drop(self.inner);
        if !instance.has_producer(&group) {
            instance.unregister(Some(&group), None).await;
        }
    }

    fn batch(&self, messages: Vec<Message>) -> Result<Parcel, SendError> {
        let instance = &self.inner.client.instance;
        let limit = self.inner.settings.packing.limit;
        Parcel::batch(messages, || instance.unique_key(), limit, instance.now_ms())
    }

    fn parcel(&self, message: Message) -> Result<Parcel, SendError> {
        let instance = &self.inner.client.instance;
        let packing = self.inner.settings.packing;
        Parcel::single(message, || instance.unique_key(), packing, instance.now_ms())
    }
}

#[cfg(test)]
mod tests;
