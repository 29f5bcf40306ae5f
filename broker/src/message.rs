//! What the cores send each other.
//!
//! Hot requests carry the received frame itself and say where in it their parts lie, so that a message's bytes are
//! copied once only, into the buffer of the group commit.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ringmq_engine::{Boundary, PhysicalOffset, QueueId, QueueOffset, QueueRange, ShardId, TopicHandle};
use ringmq_env::IoSlice;
use ringmq_protocol::command::Command;
use smallvec::SmallVec;

use crate::broadcasts::Broadcaster;
use crate::control::stats::PutsHandle;
use crate::control::{Refusal, Update};
use crate::mailbox::CoreId;
use crate::message_filter::MessageFilter;
use crate::meters::ShardReport;
use crate::metrics::Figures;
use crate::offset_calls::{OffsetCall, TimeSpan};
use crate::transaction::EndTransaction;

/// A connection of one core. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Place in the core's table.
    pub slot: u32,
    /// Which of the connections that ever had this place.
    pub generation: u32,
}

/// A connection anywhere in the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The core that it lives on.
    pub core: CoreId,
    /// Which one there.
    pub connection: ConnectionId,
}

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The connection that asked.
    pub peer: Peer,
    /// The request's number on that connection.
    pub opaque: i32,
    /// What the connection does when it comes.
    pub kind: ReplyKind,
}

/// How a connection keeps account of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// One of the requests that the connection may have in flight.
    Counted,
    /// A pull that may be answered at any moment, with much.
    Pull,
    /// A pull that its shard holds, maybe for long.
    HeldPull,
    /// Nobody wants the answer; it only gives the credit back.
    Oneway,
}

/// Where in a frame something lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// As a range of bytes.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Bytes in it.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// A message's UNIQ_KEY, as the answer repeats it.
pub type UniqKey = SmallVec<[u8; 32]>;

/// How a message is to be stored once.
#[derive(Debug)]
pub struct Once {
    /// Its DEDUPE_KEY, as the key index has it: with the property's name.
    pub key: Box<str>,
    /// How long the key is remembered, in ms.
    pub window_ms: i64,
}

/// Where a message lies until its outcome is known, or its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitsIn {
    /// Java's topic for half messages, for delay levels or for timers.
    pub topic: &'static str,
    /// Its queue.
    pub queue_id: QueueId,
}

/// Where in the frame a message's properties stand that are indexed; none of a name is an empty span.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexedSpans {
    /// TAGS.
    pub tags: Span,
    /// KEYS.
    pub keys: Span,
    /// DEDUPE_KEY, with its name and the separator in front.
    pub dedupe_key: Span,
}

/// A send that passed the checks of the edge.
#[derive(Debug)]
pub struct SendRequest {
    /// The frame as received.
    pub frame: Bytes,
    /// Topic to store it in.
    pub topic: Arc<str>,
    /// The handle that the shard knows the topic it is stored under by, if the edge has one.
    pub known: TopicHandle,
    /// Where the shard counts the topic's messages, if the edge has that.
    pub counted: PutsHandle,
    /// The group of producers, if its sends have a quota.
    pub sender: Option<Arc<str>>,
    /// Queue that the edge chose.
    pub queue_id: QueueId,
    /// Where the message waits until its outcome is known or it is due, if it waits. The shard is still that of topic
    /// and queue.
    pub waits_in: Option<WaitsIn>,
    /// The producer's flag.
    pub flag: i32,
    /// sysFlag, completed by the edge.
    pub sys_flag: i32,
    /// When the producer made it, in ms.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// How often it was consumed before.
    pub reconsume_times: i32,
    /// The body; a batch of messages if [`SendRequest::batch`].
    pub body: Span,
    /// What is kept of the producer's properties, in order.
    pub properties: SmallVec<[Span; 2]>,
    /// What the edge adds to the properties of this message, with the separator in front if it needs one.
    pub added: Vec<u8>,
    /// Whether the body holds several messages (320), each of which is stored as one.
    pub batch: bool,
    /// How many messages the body holds that are stored as one, an inner batch; 0: it is none.
    pub inner: u32,
    /// For the answer's transactionId; empty when the message has none.
    pub uniq_key: UniqKey,
    /// What is indexed beside the `uniq_key`, where the edge has seen it.
    pub indexed: Option<IndexedSpans>,
    /// The message is stored once within its topic's window.
    pub once: Option<Box<Once>>,
    /// For the answer's recallHandle.
    pub recall_handle: Option<Box<str>>,
    /// The answer is SUCCESS alone (36).
    pub plain_answer: bool,
}

/// A pull that passed the checks of the edge.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Consumer group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Queue within the topic.
    pub queue_id: QueueId,
    /// First offset wanted.
    pub offset: QueueOffset,
    /// Most messages.
    pub max_messages: usize,
    /// Most bytes, but at least one message.
    pub max_bytes: usize,
    /// Which messages match.
    pub filter: MessageFilter,
    /// Version of the group's subscription that the filter is of; `None` for a filter that the pull brought along.
    pub sub_version: Option<i64>,
    /// How long it may be held when nothing is there, in ms; 0: not at all.
    pub suspend_ms: u64,
    /// Offset to commit first.
    pub commit: Option<QueueOffset>,
    /// The client, of a group that broadcasts.
    pub broadcaster: Option<Broadcaster>,
    /// The topic's flag, for the answer.
    pub topic_sys_flag: i32,
    /// The group's flag, for the answer.
    pub group_sys_flag: i32,
}

/// A queue of a topic.
#[derive(Clone, Debug)]
pub struct QueueRef {
    /// Topic.
    pub topic: Arc<str>,
    /// Queue within the topic.
    pub queue_id: QueueId,
}

/// What an edge asks of a shard.
#[derive(Debug)]
pub enum ShardRequest {
    /// 10, 310 and 320.
    Send(SendRequest),
    /// 11 and 361.
    Pull(PullRequest),
    /// 15.
    CommitOffset(Arc<str>, QueueRef, QueueOffset),
    /// 14: the group, and whether 0 is an answer when nothing is committed (setZeroIfNotFound).
    CommittedOffset(Arc<str>, QueueRef, bool),
    /// 30.
    MaxOffset(QueueRef),
    /// 31.
    MinOffset(QueueRef),
    /// 32.
    EarliestStoreTime(QueueRef),
    /// 29: time in ms.
    OffsetByTime(QueueRef, i64, Boundary),
    /// 33.
    MessageAt(PhysicalOffset),
    /// 37.
    EndTransaction(Box<EndTransaction>),
}

/// A request on its way to a shard.
#[derive(Debug)]
pub struct Envelope {
    /// The shard that owns what it is about.
    pub shard: ShardId,
    /// Where the answer goes.
    pub reply: ReplyTo,
    /// Bytes of the lane's credit that it holds; `None` when it crosses no lane.
    pub credit: Option<u32>,
    /// The request.
    pub request: ShardRequest,
}

/// What a pull found.
#[derive(Debug)]
pub struct Pulled {
    /// Response code.
    pub code: i32,
    /// The status' Java name, which is the remark.
    pub remark: &'static str,
    /// Where the consumer goes on.
    pub next_offset: QueueOffset,
    /// The queue's range.
    pub range: QueueRange,
    /// The records.
    pub parts: Vec<IoSlice>,
    /// Their bytes.
    pub bytes: usize,
    /// The topic's flag.
    pub topic_sys_flag: i32,
    /// The group's flag.
    pub group_sys_flag: i32,
}

/// What is answered to a client.
#[derive(Debug)]
pub enum AnswerBody {
    /// Stored.
    Sent {
        /// Physical offset of each message.
        physical_offsets: SmallVec<[PhysicalOffset; 1]>,
        /// The queue.
        queue_id: QueueId,
        /// Queue offset of the first message.
        queue_offset: QueueOffset,
        /// The message's UNIQ_KEY.
        uniq_key: UniqKey,
        /// By which a timer message may be recalled.
        recall_handle: Option<Box<str>>,
        /// It is a batch stored as one.
        is_inner_batch: bool,
    },
    /// A reply was handed to who waited for it, and is not stored: the queue that it would have gone to.
    Replied(QueueId),
    /// What a pull found.
    Pulled(Pulled),
    /// SUCCESS and an ext field with a number.
    Number(&'static str, i64),
    /// SUCCESS and stored records.
    Records(Vec<IoSlice>),
    /// SUCCESS alone.
    Success,
    /// Refused.
    Refused(Refusal),
    /// Anything else: the answer as the control plane made it, but for the opaque.
    Command(Box<Command>),
}

/// An answer on its way to the connection that asked.
#[derive(Debug)]
pub struct Answer {
    /// Where it goes.
    pub to: ReplyTo,
    /// The credit that it gives back.
    pub credit: Option<u32>,
    /// What it says.
    pub body: AnswerBody,
}

/// A request that core 0 answers, with memory of its own.
#[derive(Debug)]
pub struct ControlRequest {
    /// Where the answer goes.
    pub reply: ReplyTo,
    /// The client's address.
    pub address: SocketAddr,
    /// The request.
    pub command: Command,
}

/// What one core asks another while a task waits for the answer.
#[derive(Debug)]
pub enum Call {
    /// Of core 0: create the topic that a send names, if it may be.
    CreateTopic {
        /// The topic.
        topic: String,
        /// The topic to take permissions from.
        default_topic: String,
        /// Queues wanted.
        queue_nums: i32,
        /// Whether the producer runs in unit mode.
        unit_mode: bool,
    },
    /// Of core 0: create the consumer group, if it may be.
    CreateGroup(String),
    /// Of core 0: hand a reply (326) to the producer with this client id, and say what became of it.
    PushReply(String, Box<Command>),
    /// Of a core: its figures.
    CoreFigures(CoreId),
    /// Of core 0: ask a producer of this group for a half message, with this request (39).
    CheckTransaction(String, Bytes),
    /// Of core 0: what becomes of a message that a consumer of the group could not consume.
    RetryFate {
        /// The group.
        group: String,
        /// How it comes back.
        sent: Returned,
    },
    /// Of a shard.
    Shard(ShardId, ShardCall),
}

/// How a message comes back from a consumer that could not consume it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Sent back (36), to be consumed again.
    ForRetry {
        /// Whether the consumer runs in unit mode.
        unit_mode: bool,
    },
    /// Sent back (36), and not to be consumed again.
    ForDeadLetters,
    /// Sent to the group's retry topic by the client itself.
    BySend {
        /// It was consumed as often as the group may.
        is_exhausted: bool,
    },
}

/// A question to a shard from a task that gathers the answers of several.
#[derive(Clone, Debug)]
pub enum ShardCall {
    /// The state of these queues of a topic, with the offsets that a group committed in them.
    Queues {
        /// Topic.
        topic: Arc<str>,
        /// Queues of the shard.
        queues: Vec<QueueId>,
        /// Group whose committed offsets are wanted.
        group: Option<Arc<str>>,
    },
    /// The committed offsets of a group: all topics.
    CommittedOf(Arc<str>),
    /// Every committed offset.
    AllCommitted,
    /// The groups that committed offsets in a topic.
    GroupsOf(Arc<str>),
    /// Forget a group's committed offsets.
    ForgetGroup(Arc<str>),
    /// Forget a topic: its queues and its committed offsets.
    ForgetTopic(Arc<str>),
    /// Records with a key.
    Keys {
        /// Topic.
        topic: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// Most records.
        max_messages: usize,
        /// First store time, in ms.
        begin_ms: i64,
        /// Last store time, in ms.
        end_ms: i64,
    },
    /// The record that starts at this physical offset, if one does.
    RecordAt(PhysicalOffset),
    /// Records of a queue, from this offset on.
    Entries {
        /// Topic.
        topic: Arc<str>,
        /// Queue of the shard.
        queue: QueueId,
        /// The first.
        from: QueueOffset,
        /// Most records; fewer when they are large.
        max_messages: usize,
    },
    /// Take up the half message again that was given up and is at this offset.
    ResumeHalf(PhysicalOffset),
    /// Offsets of groups.
    Offsets(OffsetCall),
    /// Recall the timer message: settle it without a message.
    Recall(Recall),
    /// What the shard has counted.
    Report,
    /// The shard's figures for the metrics.
    Figures,
}

/// A timer message to be recalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// The topic that it would be delivered to.
    pub topic: Arc<str>,
    /// Its UNIQ_KEY.
    pub uniq_key: Arc<str>,
    /// Its TIMER_OUT_MS.
    pub out_ms: i64,
    /// Who recalls it.
    pub producer_group: Arc<str>,
    /// Its address.
    pub from: SocketAddr,
}

/// State of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The queue.
    pub queue_id: QueueId,
    /// Its range; `None` when it never had a message.
    pub range: Option<QueueRange>,
    /// Store time of its last message, in ms; 0 without one.
    pub last_store_ms: i64,
    /// What the group committed.
    pub committed: Option<QueueOffset>,
    /// Store time of the last message that the group consumed, in ms; 0 when unknown.
    pub consumed_store_ms: i64,
}

/// An offset that a group committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Queue within the topic.
    pub queue_id: QueueId,
    /// The offset.
    pub offset: QueueOffset,
}

/// The answer to a [`Call`].
#[derive(Debug)]
pub enum CallAnswer {
    /// Done.
    Done,
    /// Refused, or failed.
    Refused(Refusal),
    /// To [`ShardCall::Queues`].
    Queues(Vec<QueueState>),
    /// To [`ShardCall::CommittedOf`], [`ShardCall::AllCommitted`] and [`OffsetCall::In`].
    Committed(Vec<CommittedOffset>),
    /// To [`OffsetCall::ByTime`].
    Offsets(Vec<(QueueId, QueueOffset)>),
    /// To [`OffsetCall::TimeSpans`].
    TimeSpans(Vec<TimeSpan>),
    /// To [`ShardCall::GroupsOf`].
    Groups(Vec<Arc<str>>),
    /// To [`Call::RetryFate`]: the group's topic that takes the message is there.
    Fate {
        /// It is that of the dead letters.
        is_dead: bool,
    },
    /// To [`ShardCall::Keys`], [`ShardCall::RecordAt`] and [`ShardCall::Entries`]; of the last, each may hold several.
    Records(Vec<IoSlice>),
    /// To [`ShardCall::Report`].
    Report(Box<ShardReport>),
    /// To [`ShardCall::Figures`] and [`Call::CoreFigures`].
    Figures(Box<Figures>),
}

/// What goes through a ring.
// Most are sends, the largest: a box for each would be an allocation for each.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum CoreMessage {
    /// A request to a shard of the receiving core.
    Request(Envelope),
    /// An answer for a connection of the receiving core.
    Answer(Answer),
    /// A pull of this connection is held by its shard: it gives its credit back early.
    Held(ConnectionId, u32),
    /// A request to core 0, with the bytes of its credit.
    Control(Box<ControlRequest>, u32),
    /// Core 0 tells what changed.
    Update(Update),
    /// A frame of core 0's own for a connection of the receiving core.
    Push(ConnectionId, Bytes),
    /// A request of core 0's own, with its number, for a connection of the receiving core.
    Invoke(ConnectionId, i32, Bytes),
    /// To core 0: a client's answer to the request with this number.
    Invoked(i32, Box<Command>),
    /// Core 0 wants a connection of the receiving core closed.
    Close(ConnectionId),
    /// A connection has ended: what waits for it can go.
    Gone(Peer),
    /// A task asks, and waits for the answer with this number.
    Call(u64, Box<Call>),
    /// The answer to the call with this number.
    CallAnswer(u64, Box<CallAnswer>),
    /// Start and stop of the node.
    Node(NodeMessage),
}

/// How the cores start and stop together.
#[derive(Debug)]
pub enum NodeMessage {
    /// From core 0: what the node is. The others bind and open their shards.
    Begin(Box<NodeStart>),
    /// To core 0: the sending core is ready to serve, or why not.
    Opened(Result<(), String>),
    /// From core 0: everything is known, serve.
    Serve,
    /// From core 0: take nothing new, and finish what is in flight.
    Stop,
    /// To core 0: nothing is in flight on the sending core's connections.
    Drained,
    /// From core 0: flush and close the shards.
    Close,
    /// To core 0: the sending core's shards are closed.
    Closed,
}

/// What core 0 tells the others at the start.
#[derive(Clone, Debug)]
pub struct NodeStart {
    /// Addresses to listen on.
    pub addresses: Vec<SocketAddr>,
    /// The address that clients know the broker by.
    pub store_host: SocketAddr,
    /// Number of the store.
    pub store_id: u64,
    /// Shards of the store.
    pub shards: u16,
}

impl From<Peer> for crate::control::sessions::ConnectionId {
    fn from(peer: Peer) -> Self {
        let ConnectionId { slot, generation } = peer.connection;
        Self { core: peer.core.0, serial: u64::from(generation) << 32 | u64::from(slot) }
    }
}

impl From<crate::control::sessions::ConnectionId> for Peer {
    fn from(id: crate::control::sessions::ConnectionId) -> Peer {
        let connection = ConnectionId { slot: id.serial as u32, generation: (id.serial >> 32) as u32 };
        Peer { core: CoreId(id.core), connection }
    }
}
