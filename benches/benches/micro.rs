//! Times of the hot path's operations: `cargo bench -p ringmq-bench --bench micro`.

mod ops;

use bytes::BytesMut;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ops::{Hop, IndexShape, SimIndex, SimShard};
use ringmq_engine::QueueOffset;
use ringmq_protocol::frame::Forms;

fn main() {
    divan::main();
}

#[divan::bench]
fn decode_send(bencher: Bencher) {
    let frame = ops::send_frame(77);
    let mut forms = Forms::default();
    bencher.with_inputs(|| frame.clone()).bench_local_refs(|frame| ops::decode(black_box(frame), &mut forms));
}

#[divan::bench]
fn decode_unknown_send(bencher: Bencher) {
    let frame = ops::send_frame(77);
    bencher.with_inputs(|| frame.clone()).bench_local_refs(|frame| ops::decode_unknown(black_box(frame)));
}

#[divan::bench]
fn encode_answer(bencher: Bencher) {
    let mut out = BytesMut::with_capacity(1024);
    bencher.bench_local(|| ops::encode_answer(black_box(&mut out)));
}

#[divan::bench]
fn encode_record(bencher: Bencher) {
    let (body, mut out) = (ops::body(), Vec::new());
    bencher.bench_local(|| ops::encode_record(black_box(&body), black_box(&mut out)));
}

#[divan::bench]
fn decode_record(bencher: Bencher) {
    let record = ops::record();
    bencher.bench_local(|| ops::decode_record(black_box(&record)));
}

#[divan::bench]
fn crc_1kib(bencher: Bencher) {
    let body = ops::body();
    bencher.bench_local(|| ops::crc(black_box(&body)));
}

#[divan::bench]
fn tags_code() -> i64 {
    ops::tags_code()
}

/// Few enough for the room of what is staged and not yet committed.
#[divan::bench(sample_count = 100, sample_size = 100)]
fn append(bencher: Bencher) {
    let (shard, body) = (SimShard::new(0), ops::body());
    bencher.bench_local(|| shard.append(black_box(&body)));
}

#[divan::bench]
fn read_32_filtered(bencher: Bencher) {
    let shard = SimShard::new(1000);
    bencher.bench_local(|| shard.read());
}

#[divan::bench]
fn index_lookup(bencher: Bencher) {
    let shard = SimShard::new(1000);
    bencher.bench_local(|| shard.look_up(black_box(QueueOffset(500))));
}

#[divan::bench]
fn sql_filter(bencher: Bencher) {
    let filter = ops::sql_filter();
    assert!(ops::sql_matches(&filter), "it looks at all properties, then");
    bencher.bench_local(|| ops::sql_matches(black_box(&filter)));
}

#[divan::bench]
fn mailbox_hop(bencher: Bencher) {
    let hop = Hop::new();
    bencher.bench_local(|| hop.request());
}

const INDEXES: [IndexShape; 2] = [IndexShape::FEW_QUEUES, IndexShape::MANY_QUEUES];

#[divan::bench(sample_count = 20, sample_size = 1, args = INDEXES)]
fn index_run(bencher: Bencher, shape: IndexShape) {
    let indexes = bencher.with_inputs(|| SimIndex::new(shape)).input_counter(messages);
    indexes.bench_local_refs(|index| index.flush());
}

#[divan::bench(sample_count = 20, sample_size = 1, args = INDEXES)]
fn index_merge(bencher: Bencher, shape: IndexShape) {
    let indexes = bencher.with_inputs(|| SimIndex::with_runs(shape)).input_counter(messages);
    indexes.bench_local_refs(|index| index.merge());
}

fn messages(index: &SimIndex) -> ItemsCount {
    ItemsCount::new(index.messages())
}
