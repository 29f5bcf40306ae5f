//! Instructions of the hot path's operations, against limits: `cargo run --release -p ringmq-bench --example instructions`.
//!
//! Times are too noisy to guard against regressions on a shared machine; counts of instructions are not. Each
//! operation runs in a process of its own under valgrind's callgrind, which counts within the function `measured`
//! only. An operation above its limit fails the run. A limit is about 15 % above what was counted when it was set: raise
//! it with the change that needs it, and say why.
//!
//! An example and no bench, for which cargo would build all it needs once more, to unwind instead of to abort.

#[path = "../benches/ops/mod.rs"]
mod ops;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use bytes::BytesMut;
use ops::{Hop, IndexShape, SimIndex, SimShard};
use ringmq_engine::QueueOffset;
use ringmq_protocol::frame::Forms;

/// Repetitions in one count; the first warms up what is lazily made, and is not counted.
const REPEAT: u64 = 64;

/// Name, what prepares it, runs it and says how often, and the most instructions that one may take.
type Operation = (&'static str, fn() -> u64, u64);

const OPERATIONS: [Operation; 16] = [
    ("decode_send", decode_send, 3090),
    ("decode_unknown_send", decode_unknown_send, 6025),
    ("encode_answer", encode_answer, 805),
    ("encode_record", encode_record, 1205),
    ("decode_record", decode_record, 750),
    ("crc_1kib", crc_1kib, 640),
    ("tags_code", tags_code, 545),
    ("append", append, 3990),
    ("read_32_filtered", read_32_filtered, 28_600),
    ("index_lookup", index_lookup, 1940),
    ("sql_filter", sql_filter, 3150),
    ("mailbox_hop", mailbox_hop, 575),
    ("index_run", index_run, 585),
    ("index_merge", index_merge, 685),
    ("index_run_many", index_run_many, 2860),
    ("index_merge_many", index_merge_many, 2540),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if let Some("--operation") = arguments.next().as_deref() {
        let wanted = arguments.next().unwrap_or_default();
        let operation = OPERATIONS.iter().find(|(name, ..)| *name == wanted);
        println!("{}", operation.map_or(0, |(_, run, _)| run()));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: not counted, valgrind is not installed");
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for (name, _, limit) in OPERATIONS {
        match count(name) {
            Ok(counted) => {
                let verdict = if counted <= limit { "ok" } else { "ABOVE ITS LIMIT" };
                println!("{name:<20} {counted:>8} instructions, limit {limit:>6}: {verdict}");
                failed += u32::from(counted > limit);
            }
            Err(error) => {
                println!("{name:<20} not counted: {error}");
                failed += 1;
            }
        }
    }
    println!("{} passed, {failed} failed", OPERATIONS.len() as u32 - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions of one run of the operation.
fn count(name: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured"]);
    valgrind.arg("--callgrind-out-file=/dev/null").arg(program).args(["--operation", name]);
    let output = valgrind.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, rest)| rest.trim());
    let collected = collected.and_then(|digits| digits.parse::<u64>().ok());
    let repeated = String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok();
    collected.zip(repeated).and_then(|(all, repeated)| all.checked_div(repeated)).ok_or(text)
}

/// What is counted: everything that is called from here.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured(operation: &mut dyn FnMut()) {
    operation();
}

fn repeat(mut operation: impl FnMut()) -> u64 {
    operation();
    (0..REPEAT).for_each(|_| measured(&mut operation));
    REPEAT
}

fn decode_send() -> u64 {
    let mut forms = Forms::default();
    decode_each(|frame| ops::decode(frame, &mut forms))
}

fn decode_unknown_send() -> u64 {
    decode_each(ops::decode_unknown)
}

fn decode_each(mut decode: impl FnMut(&mut [u8]) -> (i32, usize)) -> u64 {
    let mut frames = (0..=REPEAT as i32).map(ops::send_frame).collect::<Vec<_>>().into_iter();
    repeat(|| {
        let mut frame = frames.next().expect("a frame for each repetition");
        black_box(decode(black_box(&mut frame)));
        std::mem::forget(frame);
    })
}

fn encode_answer() -> u64 {
    let mut out = BytesMut::with_capacity(1024);
    repeat(|| ops::encode_answer(black_box(&mut out)))
}

fn encode_record() -> u64 {
    let (body, mut out) = (ops::body(), Vec::new());
    repeat(|| ops::encode_record(black_box(&body), black_box(&mut out)))
}

fn decode_record() -> u64 {
    let record = ops::record();
    repeat(|| {
        black_box(ops::decode_record(black_box(&record)));
    })
}

fn crc_1kib() -> u64 {
    let body = ops::body();
    repeat(|| {
        black_box(ops::crc(black_box(&body)));
    })
}

fn tags_code() -> u64 {
    repeat(|| {
        black_box(ops::tags_code());
    })
}

fn append() -> u64 {
    let (shard, body) = (SimShard::new(0), ops::body());
    repeat(|| shard.append(black_box(&body)))
}

fn read_32_filtered() -> u64 {
    let shard = SimShard::new(1000);
    repeat(|| {
        black_box(shard.read());
    })
}

fn index_lookup() -> u64 {
    let shard = SimShard::new(1000);
    repeat(|| {
        black_box(shard.look_up(black_box(QueueOffset(500))));
    })
}

fn sql_filter() -> u64 {
    let filter = ops::sql_filter();
    repeat(|| {
        black_box(ops::sql_matches(black_box(&filter)));
    })
}

fn mailbox_hop() -> u64 {
    let hop = Hop::new();
    repeat(|| {
        black_box(hop.request());
    })
}

fn index_run() -> u64 {
    count_run(IndexShape::FEW_QUEUES)
}

fn index_run_many() -> u64 {
    count_run(IndexShape::MANY_QUEUES)
}

fn count_run(shape: IndexShape) -> u64 {
    let index = SimIndex::new(shape);
    measured(&mut || index.flush());
    index.messages()
}

fn index_merge() -> u64 {
    count_merge(IndexShape::FEW_QUEUES)
}

fn index_merge_many() -> u64 {
    count_merge(IndexShape::MANY_QUEUES)
}

fn count_merge(shape: IndexShape) -> u64 {
    let index = SimIndex::with_runs(shape);
    measured(&mut || index.merge());
    index.messages()
}
