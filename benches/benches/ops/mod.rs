//! The operations of the hot path, one message (or one pull) each: what `micro` times and `instructions` counts.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use ringmq_broker::mailbox::{CoreId, Incoming, LaneCapacity, Mailbox, mesh};
use ringmq_engine::*;
use ringmq_env::sim::{Sim, SimEnv};
use ringmq_filter::Filter;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Forms, Frame, Limits};
use ringmq_protocol::headers::SendHeaderV2;
use ringmq_protocol::properties;
use ringmq_protocol::record::{RecordFields, RecordView, body_crc};
use ringmq_protocol::response::SendResponse;

const SEND_MESSAGE_V2: i32 = 310;
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911);
const PROPERTIES: &str =
    "UNIQ_KEY\u{1}7F0000010000018B0000000000000042\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}";
/// As those, with two of the application's own, ...
const SELECTED: &str = "UNIQ_KEY\u{1}7F0000010000018B0000000000000042\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}\
                        price\u{1}1099\u{2}color\u{1}red\u{2}";
/// ... which this is true of, and only after all of it was looked at.
const EXPRESSION: &str = "TAGS = 'TagA' AND price BETWEEN 500 AND 1500 AND color IN ('blue', 'red')";
/// Messages of a pull.
pub const PULL: usize = 32;

/// What the messages of an index are like.
#[derive(Clone, Copy)]
pub struct IndexShape {
    /// Topics, which they go round.
    pub topics: u64,
    /// Messages in a run.
    pub run: u64,
}

impl std::fmt::Display for IndexShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} topics", self.topics)
    }
}

impl IndexShape {
    /// A few queues with many messages each.
    pub const FEW_QUEUES: IndexShape = IndexShape { topics: 1, run: 8 << 10 };
    /// About as many queues as messages in a run.
    pub const MANY_QUEUES: IndexShape = IndexShape { topics: 8 << 10, run: 9 << 10 };
}

/// A body of 1 KiB.
pub fn body() -> Vec<u8> {
    (0..1024).map(|i| b'a' + (i % 26) as u8).collect()
}

/// The frame of the `number`th send request of a client, as Java's writes it.
pub fn send_frame(number: i32) -> Vec<u8> {
    let header = SendHeaderV2 {
        producer_group: "bench_producer",
        topic: "BenchTopic",
        default_topic: "TBW102",
        default_topic_queue_nums: 8,
        queue_id: number % 8,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000 + i64::from(number),
        flag: 0,
        properties: Some(PROPERTIES),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: None,
    };
    let mut out = BytesMut::new();
    Command::request(SEND_MESSAGE_V2, number).with_header(&header).with_body(body()).encode_json(&mut out);
    out.to_vec()
}

/// Frame to header to the send's own header. Strings are unescaped in place, so each call needs a frame of its own.
pub fn decode(frame: &mut [u8], forms: &mut Forms) -> (i32, usize) {
    let frame = Frame::parse_like(frame, &Limits::default(), forms).expect("a good frame");
    own_header(&frame)
}

/// The same without a known form, as the first frames of a client are read.
pub fn decode_unknown(frame: &mut [u8]) -> (i32, usize) {
    let frame = Frame::parse(frame, &Limits::default()).expect("a good frame");
    own_header(&frame)
}

fn own_header(frame: &Frame<'_>) -> (i32, usize) {
    let header = SendHeaderV2::for_code(frame.header.code, &frame.header.ext).expect("a good header");
    (header.queue_id, header.topic.len())
}

/// The answer to a send.
pub fn encode_answer(out: &mut BytesMut) {
    out.clear();
    let answer = SendResponse {
        opaque: 77,
        code: 0,
        remark: None,
        msg_id: "7F00000100002A9F0000000000000000",
        queue_id: 3,
        queue_offset: 1_000_000,
        transaction_id: Some("7F0000010000018B0000000000000042"),
        recall_handle: None,
        batch_uniq_id: None,
        region: "DefaultRegion",
        trace_on: true,
    };
    answer.write(out);
}

/// A message to its stored record, with the body's CRC.
pub fn encode_record(body: &[u8], out: &mut Vec<u8>) {
    let fields = RecordFields {
        queue_id: 3,
        flag: 0,
        queue_offset: 1_000_000,
        physical_offset: 1 << 30,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: HOST,
        store_timestamp: 1_700_000_000_001,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        topic: "BenchTopic",
        properties: &[PROPERTIES.as_bytes()],
    };
    out.resize(fields.encoded_len().expect("a record of usual size"), 0);
    fields.encode_into(out);
}

/// A stored record, for [`decode_record`].
pub fn record() -> Vec<u8> {
    let mut out = Vec::new();
    encode_record(&body(), &mut out);
    out
}

/// A stored record to its fields.
pub fn decode_record(record: &[u8]) -> usize {
    RecordView::decode(record).expect("a good record").body.len()
}

/// CRC32 of 1 KiB.
pub fn crc(body: &[u8]) -> u32 {
    body_crc(body)
}

/// What a tag filter needs of a message: its tags' code.
pub fn tags_code() -> i64 {
    properties::find(PROPERTIES, "TAGS").map_or(0, properties::tags_code)
}

/// A subscription's SQL92 expression, compiled.
pub fn sql_filter() -> Filter {
    Filter::compile(EXPRESSION).expect("a good expression")
}

/// What an SQL92 filter needs of a message: all its properties, until it is decided.
pub fn sql_matches(filter: &Filter) -> bool {
    filter.matches(properties::iter(SELECTED))
}

/// A shard on a simulated disk, so that neither a device nor a scheduler is in the way.
pub struct SimShard {
    sim: Sim,
    shard: Shard<SimEnv>,
}

impl SimShard {
    /// With `messages` messages in its hot tail.
    pub fn new(messages: usize) -> SimShard {
        let sim = Sim::new(1);
        let shard = sim.run(async {
            let options = ShardOptions {
                id: ShardId(0),
                store_id: 1,
                dir: "/shard".into(),
                sync_flush: true,
                flush_interval_ms: 500,
                segment_size: 64 << 20,
                max_record_size: 4 << 20,
                tail_memory: 64 << 20,
                staged_limit: 64 << 20,
                disk_watermark_percent: 95,
                strict: true,
                waiting_in_memory: ringmq_engine::WAITING_IN_MEMORY,
                shadow: ringmq_engine::SHADOW_LEN,
                lmq_limit: None,
            };
            Shard::open(sim.node("bench"), options).await.expect("a new shard opens")
        });
        let shard = SimShard { sim, shard };
        let body = body();
        (0..messages).for_each(|_| shard.append(&body));
        shard.commit();
        shard
    }

    /// Stages one message.
    pub fn append(&self, body: &[u8]) {
        let message = NewMessage {
            topic: "BenchTopic",
            queue_id: QueueId(3),
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: HOST,
            store_host: HOST,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: &[PROPERTIES.as_bytes()],
        };
        self.shard.append(&[message]).expect("the shard takes messages");
    }

    /// Commits what is staged.
    pub fn commit(&self) {
        let staged = LogPosition(self.shard.stats().log_staged);
        self.sim.run(async {
            while LogPosition(self.shard.stats().log_committed) < staged {
                self.shard.next_commit().await.expect("the shard is open");
            }
        });
    }

    /// Finds [`PULL`] messages from the queue's first on, by the index, in the hot tail; with a tag filter that
    /// every message passes.
    pub fn read(&self) -> usize {
        let code = tags_code();
        let filter = move |tags: i64| tags == code;
        let request = ReadRequest {
            topic: "BenchTopic",
            queue_id: QueueId(3),
            offset: QueueOffset(0),
            max_messages: PULL,
            max_bytes: 1 << 20,
            tag_filter: Some(&filter),
            record_filter: None,
        };
        let found = ready(self.shard.read(&request)).expect("the messages are there");
        found.messages
    }

    /// Finds the message at `offset` of the queue in the part of the index that is in memory, and reads nothing of the
    /// log: its store time is in the index.
    pub fn look_up(&self, offset: QueueOffset) -> i64 {
        let found = ready(self.shard.store_time("BenchTopic", QueueId(3), offset));
        found.expect("the index is in memory").expect("the message is kept")
    }
}

/// The index of a shard on a simulated disk.
pub struct SimIndex {
    sim: Sim,
    index: BenchIndex<SimEnv>,
}

impl SimIndex {
    /// With a run's messages, with a key each, that are in no run yet.
    pub fn new(shape: IndexShape) -> SimIndex {
        let sim = Sim::new(1);
        let mut index = sim.run(BenchIndex::open(sim.node("bench"), "/index".as_ref(), shape.topics));
        index.push(shape.run);
        SimIndex { sim, index }
    }

    /// With as many runs of so many messages as are merged.
    pub fn with_runs(shape: IndexShape) -> SimIndex {
        let mut index = SimIndex::new(shape);
        index.flush();
        while !index.index.merge_due() {
            index.index.push(shape.run);
            index.flush();
        }
        index
    }

    /// Messages in it.
    pub fn messages(&self) -> u64 {
        self.index.messages()
    }

    /// Writes what is in no run as one.
    pub fn flush(&self) {
        self.sim.run(self.index.flush());
    }

    /// Merges the runs.
    pub fn merge(&self) {
        self.sim.run(self.index.merge());
    }
}

/// The result of a future that has nothing to wait for.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the operation waits: it is no operation on memory"),
    }
}

/// Two cores' ends of the mesh.
pub struct Hop {
    mailbox: Mailbox<u64>,
    incoming: Incoming<u64>,
}

impl Hop {
    /// The sending end of core 0, the receiving end of core 1.
    pub fn new() -> Hop {
        let mut ports = mesh::<u64>(2, LaneCapacity::default());
        let incoming = ports.pop().expect("two cores").split().1;
        Hop { mailbox: ports.pop().expect("two cores").split().0, incoming }
    }

    /// A request with its credit through the ring, without waking anybody.
    pub fn request(&self) -> u64 {
        self.mailbox.request(CoreId(1), 42, 1024).expect("the lane has room");
        assert!(self.mailbox.flush().is_empty(), "the ring has room");
        let batch = self.incoming[0].1.try_recv().expect("a batch");
        self.mailbox.release(CoreId(1), batch.len(), 1024);
        batch[0]
    }
}
