//! The index against a simple model: a list of entries for each queue.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};
use ringmq_env::sim::{CERTAIN, Crash, Fault, Faults, Sim, SimEnv};
use ringmq_env::{File, OpenOptions};

use super::format::*;
use super::merge::FAN_IN;
use super::*;
use crate::damage::DamageReport;
use crate::types::{Boundary, ReadError};

/// Runs `main` on one executor of the real backend, within a bounded time.
fn run<F: Future<Output = ()> + 'static>(
    main: impl FnOnce(GlommioEnv, PathBuf) -> F + Clone + Send + 'static,
) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (ended, end) = mpsc::channel();
    #[allow(clippy::disallowed_methods, reason = "the executor needs a thread that a test can give up on")]
    std::thread::spawn(move || {
        run_cores(1, &CoreOptions::default(), move |_, env| main(env, path)).unwrap().join();
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(100)).expect("the test ends in time");
}

#[derive(Clone, Debug)]
enum Step {
    /// Messages for a queue; how many, and how many ms pass.
    Push(usize, u16, u8),
    StageAndTakeBack(usize),
    Flush(u8),
    /// Runs are merged, if there are enough.
    Merge,
    /// Share of the log that expires, in 1/16.
    Expire(u8),
    Delete(usize),
    /// Open again; what is not in runs is recovered from the log.
    Reopen,
    /// Open again, with one byte of one file changed.
    Damage(prop::sample::Index, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6usize, prop_oneof![1..4u16, 100..700u16], 0..3u8).prop_map(|(q, n, ms)| Step::Push(q, n, ms)),
        1 => (0..6usize).prop_map(Step::StageAndTakeBack),
        5 => (0..=16u8).prop_map(Step::Flush),
        2 => Just(Step::Merge),
        1 => (0..16u8).prop_map(Step::Expire),
        1 => (0..3usize).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(|(f, b)| Step::Damage(f, b)),
    ]
}

const TOPICS: [&str; 3] = ["orders", "a topic with a rather long name, as retry topics have", "t"];

fn queue_of(number: usize) -> (&'static str, QueueId) {
    (TOPICS[number % 3], QueueId(number as u32 / 3 * 7))
}

type Queue = BTreeMap<i64, IndexEntry>;

/// The log as the index needs it, and what the index should say.
#[derive(Default)]
struct Model {
    log: Vec<(&'static str, QueueId, i64, IndexEntry)>,
    queues: BTreeMap<(&'static str, u32), (Queue, i64)>,
    deleted: BTreeMap<&'static str, u64>,
    end: u64,
    ms: i64,
    log_min: u64,
}

impl Model {
    fn next(&mut self, topic: &'static str, queue: QueueId) -> (i64, IndexEntry) {
        let next = self.queues.entry((topic, queue.0)).or_default().1;
        let position = self.end + 32;
        let entry = IndexEntry {
            position: LogPosition(position),
            size: 100 + (position % 50) as u32,
            crc: crc32fast::hash(&position.to_le_bytes()),
            tags_code: position as i64 * 77 - 5,
            store_ms: self.ms,
        };
        (next, entry)
    }

    fn push(&mut self, topic: &'static str, queue: QueueId) {
        let (offset, entry) = self.next(topic, queue);
        self.log.push((topic, queue, offset, entry));
        let (entries, next) = self.queues.entry((topic, queue.0)).or_default();
        entries.insert(offset, entry);
        *next = offset + 1;
        self.end = entry.position.0 + u64::from(entry.size);
    }

    fn expire(&mut self, min: u64) {
        self.log_min = self.log_min.max(min);
        for (entries, _) in self.queues.values_mut() {
            entries.retain(|_, entry| entry.position.0 >= self.log_min);
        }
        self.log.retain(|(.., entry)| entry.position.0 >= self.log_min);
    }

    fn delete(&mut self, topic: &'static str) {
        self.queues.retain(|(name, _), _| *name != topic);
        self.deleted.insert(topic, self.end);
    }

    fn by_time(&self, queue: &Queue, next: i64, ms: i64, boundary: Boundary) -> i64 {
        match boundary {
            _ if queue.is_empty() => next,
            Boundary::Lower => {
                queue.iter().find(|(_, e)| e.store_ms >= ms).map_or(next, |(offset, _)| *offset)
            }
            Boundary::Upper => {
                queue.iter().rev().find(|(_, e)| e.store_ms <= ms).map_or(0, |(offset, _)| *offset)
            }
        }
    }
}

fn key_of(entry: &IndexEntry) -> String {
    format!("key {}", entry.tags_code % 9)
}

async fn open_empty<E: Env>(env: &E, dir: &Path) -> Index<E> {
    let (zero, report) = (LogPosition(0), DamageReport::default());
    let mut opening = Index::open(env.clone(), dir, zero, zero, &report).await.unwrap();
    assert_eq!(opening.next_gap().await.unwrap(), None);
    opening.finish().await.unwrap()
}

/// One message at `position`, in the topic's queue 0; returns its slot.
fn push_one<E: Env>(index: &Index<E>, topic: &str, position: u64) -> QueueSlot {
    let slot = index.slot(topic, QueueId(0));
    let position = LogPosition(position);
    let entry = IndexEntry { position, size: 90, crc: 1, tags_code: 2, store_ms: 3 };
    index.push(slot, index.stage(slot, 1), 1, entry);
    slot
}

struct Harness<E: Env> {
    env: E,
    dir: PathBuf,
    index: Index<E>,
    model: Model,
    /// A run is damaged, and no read has come upon it yet.
    damaged: bool,
    /// A read was refused since the last check.
    refused: Cell<bool>,
}

impl<E: Env> Harness<E> {
    async fn new(env: E, dir: &Path) -> Self {
        let index = open_empty(&env, dir).await;
        Harness {
            env,
            dir: dir.to_path_buf(),
            index,
            model: Model::default(),
            damaged: false,
            refused: Cell::new(false),
        }
    }

    async fn apply(&mut self, step: &Step) {
        match *step {
            Step::Push(number, count, ms) => self.push(number, count, ms),
            Step::StageAndTakeBack(number) => {
                let (topic, queue) = queue_of(number);
                let slot = self.index.slot(topic, queue);
                self.index.stage(slot, 1);
                self.index.stage(slot, 1);
                self.index.unstage_all(LogPosition(self.model.end));
            }
            Step::Flush(share) => {
                let from = self.index.indexed_upto().0;
                let upto = from + (self.model.end - from.min(self.model.end)) * u64::from(share) / 16;
                self.index.flush(LogPosition(upto)).await.unwrap();
            }
            Step::Merge => self.index.merge(|| false).await.unwrap(),
            Step::Expire(share) => {
                let min = self.model.end * u64::from(share) / 16;
                self.model.expire(min);
                let end = LogPosition(self.model.end);
                self.index.set_log_min(LogPosition(min), end).await.unwrap();
            }
            Step::Delete(topic) => {
                self.model.delete(TOPICS[topic]);
                let expired = self.index.forget_topic(TOPICS[topic], LogPosition(self.model.end));
                self.index.mark_deleted(TOPICS[topic], &expired).await.unwrap();
            }
            Step::Reopen => self.reopen().await,
            Step::Damage(file, byte) => self.damage(file, byte).await,
        }
    }

    fn push(&mut self, number: usize, count: u16, ms: u8) {
        let (topic, queue) = queue_of(number);
        let slot = self.index.slot(topic, queue);
        let staged: Vec<_> = (0..count).map(|_| self.index.stage(slot, 1)).collect();
        self.model.ms += i64::from(ms) * 700;
        for offset in staged {
            let (expected, entry) = self.model.next(topic, queue);
            assert_eq!(offset.0, expected);
            self.index.push(slot, offset, 1, entry);
            self.index.push_key(keys::key_hash(topic, &key_of(&entry)), entry.position, entry.store_ms);
            self.model.push(topic, queue);
        }
    }

    async fn reopen(&mut self) {
        let (min, end) = (LogPosition(self.model.log_min), LogPosition(self.model.end));
        let report = DamageReport::default();
        let mut opening = Index::open(self.env.clone(), &self.dir, min, end, &report).await.unwrap();
        while let Some((from, to)) = opening.next_gap().await.unwrap() {
            assert!(from == opening.index().indexed_upto() && from < to && to <= end);
            self.recover(opening.index(), to);
            opening.index().flush(to).await.unwrap();
        }
        self.recover(opening.index(), end);
        self.index = opening.finish().await.unwrap();
        assert!(report.list().iter().all(|damage| damage.len == 0), "an index is rebuilt: nothing is lost");
    }

    fn recover(&self, index: &Index<E>, to: LogPosition) {
        let from = index.indexed_upto();
        for (topic, queue, offset, entry) in &self.model.log {
            let (topic, entry) = (*topic, *entry);
            if (from..to).contains(&entry.position)
                && index.recover(topic, *queue, QueueOffset(*offset), 1, entry)
            {
                index.push_key(keys::key_hash(topic, &key_of(&entry)), entry.position, entry.store_ms);
            }
        }
    }

    /// Changes a byte of a run.
    async fn damage(&mut self, file: prop::sample::Index, byte: prop::sample::Index) {
        let runs: Vec<_> = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mut runs: Vec<_> =
            runs.into_iter().filter(|path| path.extension().is_some_and(|e| e == "run")).collect();
        if runs.is_empty() {
            return;
        }
        runs.sort();
        let path = file.get(&runs);
        let mut bytes = std::fs::read(path).unwrap();
        let at = byte.index(bytes.len());
        bytes[at] ^= 0x10;
        std::fs::write(path, bytes).unwrap();
        self.reopen().await;
        self.damaged = true;
    }

    /// Compares all that can be asked. Damaged blocks may refuse, but never lie; once they did, a new start mends
    /// them.
    async fn check(&mut self) {
        self.check_all().await;
        if self.refused.take() {
            self.reopen().await;
            self.damaged = false;
            self.check_all().await;
        }
    }

    fn refuse(&self, error: &ReadError) {
        assert!(self.damaged && matches!(error, ReadError::Damaged { .. }), "{error}");
        self.refused.set(true);
    }

    async fn check_all(&self) {
        for number in 0..6 {
            let (topic, queue) = queue_of(number);
            let empty = (Queue::new(), 0);
            let (entries, next) = self.model.queues.get(&(topic, queue.0)).unwrap_or(&empty);
            let range = self.index.range(topic, queue);
            assert_eq!(range.map_or(0, |range| range.max.0), *next, "{topic} {queue:?}");
            if let Some(range) = range {
                let min = entries.first_key_value().map_or(*next, |(offset, _)| *offset);
                assert!(range.min.0 == min || self.damaged, "{topic} {queue:?}: {range:?}, not from {min}");
            }
            match self.read_all(topic, queue).await {
                Ok(read) => {
                    assert!(read == *entries, "{topic} {queue:?}: {} of {}", read.len(), entries.len())
                }
                Err(error) => self.refuse(&error),
            }
            for boundary in [Boundary::Lower, Boundary::Upper] {
                let ms = self.model.ms * (number as i64 + 1) / 5;
                match self.index.offset_by_time(topic, queue, ms, boundary).await {
                    Ok(found) => assert_eq!(found.0, self.model.by_time(entries, *next, ms, boundary)),
                    Err(error) => self.refuse(&error),
                }
            }
        }
        self.check_keys().await;
    }

    async fn read_all(&self, topic: &str, queue: QueueId) -> Result<Queue, ReadError> {
        let (mut read, mut next, mut max) = (Queue::new(), 0, 1);
        loop {
            let found = self.index.entries(topic, queue, QueueOffset(next), max).await?;
            if found.entries.is_empty() {
                return Ok(read);
            }
            assert!(found.first.0 >= next && found.entries.len() <= max);
            next = found.first.0 + found.entries.len() as i64;
            read.extend((found.first.0..).zip(found.entries));
            max = max * 3 % 1000;
        }
    }

    async fn check_keys(&self) {
        for topic in TOPICS {
            let (begin_ms, end_ms) = (self.model.ms / 4, self.model.ms * 3 / 4);
            let deleted = self.model.deleted.get(topic).copied().unwrap_or(0);
            let is_wanted = |entry: &IndexEntry| {
                key_of(entry) == "key 4"
                    && entry.position.0 >= deleted
                    && (begin_ms..=end_ms).contains(&entry.store_ms)
            };
            let mut wanted: Vec<_> = self
                .model
                .log
                .iter()
                .filter(|m| m.0 == topic && is_wanted(&m.3))
                .map(|m| m.3.position)
                .collect();
            wanted.reverse();
            let mut search =
                KeySearch { topic, key: "key 4", max: 7, begin_ms, end_ms, before: LogPosition(u64::MAX) };
            let mut found = Vec::new();
            loop {
                match self.index.query_keys(&search).await {
                    Ok(more) if more.is_empty() => break,
                    Ok(more) => found.extend(more),
                    Err(error) => {
                        self.refuse(&error);
                        return;
                    }
                }
                search.before = *found.last().unwrap();
            }
            assert!(found.is_sorted_by(|a, b| a > b));
            // Candidates: the times are exact to the second only.
            let exact: Vec<_> = found
                .into_iter()
                .filter(|position| {
                    self.model.log.iter().any(|m| m.3.position == *position && is_wanted(&m.3))
                })
                .collect();
            assert_eq!(exact, wanted);
        }
    }
}

#[test]
fn the_index_says_what_the_model_says() {
    run(|env, dir| async move {
        let mut runner =
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
        for case in 0..40 {
            let steps = prop::collection::vec(step(), 1..40).new_tree(&mut runner).unwrap().current();
            let mut harness = Harness::new(env.clone(), &dir.join(case.to_string())).await;
            for (at, step) in steps.iter().enumerate() {
                eprintln!("case {case} step {at}: {step:?}");
                harness.apply(step).await;
                harness.check().await;
            }
        }
    });
}

/// Cuts the power, or kills the process, while a run is written, runs are merged, or messages expire.
#[test]
fn a_crash_costs_nothing_that_the_log_still_has() {
    let mut runner = TestRunner::deterministic();
    for seed in 0..60 {
        let steps = prop::collection::vec(step(), 1..25).new_tree(&mut runner).unwrap().current();
        let sim = Sim::new(seed);
        sim.run(async {
            let mut harness = Harness::new(sim.node("a"), Path::new("/index")).await;
            for step in steps.iter().filter(|step| !matches!(step, Step::Damage(..))) {
                let crashes = matches!(step, Step::Flush(_) | Step::Merge | Step::Expire(_))
                    && sim.random().is_multiple_of(2);
                if crashes {
                    harness.crash_during(&sim, step).await;
                } else {
                    harness.apply(step).await;
                }
                harness.check().await;
            }
        });
    }
}

impl Harness<SimEnv> {
    async fn crash_during(&mut self, sim: &Sim, step: &Step) {
        let index = self.index.clone();
        match *step {
            Step::Flush(share) => {
                let from = index.indexed_upto().0;
                let upto = from + (self.model.end - from.min(self.model.end)) * u64::from(share) / 16;
                self.env.spawn(async move { index.flush(LogPosition(upto)).await.unwrap() });
            }
            Step::Merge => self.env.spawn(async move { index.merge(|| false).await.unwrap() }),
            Step::Expire(share) => {
                let min = self.model.end * u64::from(share) / 16;
                let end = LogPosition(self.model.end);
                self.env.spawn(async move { index.set_log_min(LogPosition(min), end).await.unwrap() });
            }
            _ => unreachable!("only these are interrupted"),
        }
        sim.sleep(Duration::from_micros(sim.random() % 4000)).await;
        let kinds = [Crash::Process, Crash::Power, Crash::PowerLosingAll];
        sim.crash("a", kinds[sim.random() as usize % kinds.len()]);
        self.env = sim.node("a");
        self.reopen().await;
        // The log keeps its segments until the index has taken in that they go: after the crash it is told again.
        if matches!(step, Step::Expire(_)) {
            self.apply(step).await;
        }
    }
}

/// While segments expire a message is committed, the only one that its queue has left; a power failure takes it.
#[test]
fn a_queue_goes_on_where_it_was_although_all_that_it_had_left_was_not_on_the_device() {
    run(|env, dir| async move {
        let mut harness = Harness::new(env.clone(), &dir).await;
        harness.push(0, 3, 1);
        harness.apply(&Step::Flush(16)).await;
        let flushed = LogPosition(harness.model.end);
        harness.push(0, 2, 1);
        harness.index.set_log_min(flushed, flushed).await.unwrap();
        let (topic, queue) = queue_of(0);
        let left = QueueRange { min: QueueOffset(3), max: QueueOffset(5) };
        assert_eq!(harness.index.range(topic, queue), Some(left));

        let report = DamageReport::default();
        let mut opening = Index::open(env, &dir, flushed, flushed, &report).await.unwrap();
        assert_eq!(opening.next_gap().await.unwrap(), None);
        let index = opening.finish().await.unwrap();
        let empty = QueueRange { min: QueueOffset(3), max: QueueOffset(3) };
        assert_eq!(index.range(topic, queue), Some(empty));
    });
}

/// Retention looks for the first message that a topic keeps; meanwhile the topic is deleted, and made anew.
#[test]
fn a_minimum_that_was_looked_for_before_a_deletion_is_not_the_new_queues() {
    run(|env, dir| async move {
        let mut harness = Harness::new(env, &dir).await;
        harness.push(0, 3, 1);
        let (topic, queue) = queue_of(0);
        let before = harness.index.deleted_at(topic);
        harness.apply(&Step::Delete(0)).await;
        harness.push(0, 5, 1);
        harness.index.raise_queue_min(topic, queue, QueueOffset(3), before);
        let all = QueueRange { min: QueueOffset(0), max: QueueOffset(5) };
        assert_eq!(harness.index.range(topic, queue), Some(all));
        let now = harness.index.deleted_at(topic);
        harness.index.raise_queue_min(topic, queue, QueueOffset(3), now);
        assert_eq!(harness.index.range(topic, queue).map(|range| range.min), Some(QueueOffset(3)));
    });
}

#[test]
fn a_full_disk_keeps_everything_in_memory_until_there_is_space() {
    let sim = Sim::new(1);
    sim.run(async {
        let mut harness = Harness::new(sim.node("a"), Path::new("/index")).await;
        harness.push(0, 700, 1);
        sim.set_quota("a", Some(2 << 20));
        let end = LogPosition(harness.model.end);
        assert!(harness.index.flush(end).await.is_err());
        harness.check().await;
        harness.push(0, 10, 1);
        sim.set_quota("a", None);
        harness.index.flush(end).await.unwrap();
        assert_eq!(harness.index.indexed_upto(), end);
        harness.check().await;
        harness.reopen().await;
        harness.check().await;
    });
}

fn runs(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut runs: Vec<_> = names.filter(|name| name.ends_with(".run")).collect();
    runs.sort();
    runs
}

#[test]
fn runs_are_merged_and_a_start_finds_the_merged_ones_alone() {
    run(|env, dir| async move {
        let mut harness = Harness::new(env, &dir).await;
        for round in 0..2 * FAN_IN as u16 - 1 {
            for queue in 0..6 {
                harness.push(queue, 40 + round * 3, 2);
            }
            if round == 5 {
                harness.apply(&Step::Delete(1)).await;
            }
            harness.apply(&Step::Flush(16)).await;
            while harness.index.merge_due() {
                harness.apply(&Step::Merge).await;
            }
            harness.check().await;
        }
        let merged = runs(&dir);
        assert_eq!(merged.len(), 1, "of all the small ones: {merged:?}");
        harness.reopen().await;
        harness.check().await;
        assert_eq!(runs(&dir), merged);
    });
}

/// Bytes of the run, but for what is random: its id, and therefore the CRCs.
async fn contents<E: Env>(index: &Index<E>, from: u64, to: u64) -> Vec<u8> {
    let path = flush::run_path(index.dir(), from, to);
    let file = index.0.env.open(&path, OpenOptions::default()).await.unwrap();
    let size = file.size().await.unwrap() as usize;
    let mut bytes = file.read_at(0, size).await.unwrap().to_vec();
    bytes[16..24].fill(0);
    bytes.chunks_mut(4096).for_each(|block| block[4092..].fill(0));
    bytes
}

#[test]
fn a_merged_run_is_what_would_have_been_written_at_once() {
    let mut runner = TestRunner::deterministic();
    let push = (0..6usize, prop_oneof![1..4u64, 100..900u64], 0..3000i64, 1..400u64);
    let pushes = prop::collection::vec(prop::collection::vec(push, 1..7), FAN_IN);
    for seed in 0..60 {
        let pushes = pushes.new_tree(&mut runner).unwrap().current();
        let sim = Sim::new(seed);
        sim.run(async {
            let env = sim.node("a");
            let merged = open_empty(&env, Path::new("/merged")).await;
            let whole = open_empty(&env, Path::new("/whole")).await;
            let (mut position, mut store_ms) = (0, 1234);
            for pushes in pushes {
                for (number, count, ms, keys) in pushes {
                    let (topic, queue) = queue_of(number);
                    store_ms += ms;
                    for at in 0..count {
                        let entry = IndexEntry {
                            position: LogPosition(position),
                            size: 90,
                            crc: position as u32,
                            tags_code: 7,
                            store_ms,
                        };
                        for index in [&merged, &whole] {
                            let slot = index.slot(topic, queue);
                            index.push(slot, index.stage(slot, 1), 1, entry);
                            let key = format!("key {}", (position + at) % keys);
                            index.push_key(keys::key_hash(topic, &key), entry.position, store_ms);
                        }
                        position += 90;
                    }
                }
                merged.flush(LogPosition(position)).await.unwrap();
            }
            merged.merge(|| false).await.unwrap();
            assert!(!merged.merge_due());
            whole.flush(LogPosition(position)).await.unwrap();
            assert!(contents(&merged, 0, position).await == contents(&whole, 0, position).await);
        });
    }
}

/// As after a crash between the merged run and the removal of the others.
#[test]
fn what_a_crash_leaves_of_merged_runs_is_removed_and_serves_when_the_merged_one_is_damaged() {
    for damage in [false, true] {
        run(move |env, dir| async move {
            let mut harness = Harness::new(env, &dir).await;
            for _ in 0..FAN_IN {
                harness.push(0, 100, 1);
                harness.push(4, 30, 1);
                harness.apply(&Step::Flush(16)).await;
            }
            let small = runs(&dir);
            let kept: Vec<_> = small.iter().map(|name| std::fs::read(dir.join(name)).unwrap()).collect();
            harness.apply(&Step::Merge).await;
            let merged = runs(&dir);
            assert_eq!((small.len(), merged.len()), (FAN_IN, 1));
            for (name, bytes) in small.iter().zip(&kept) {
                std::fs::write(dir.join(name), bytes).unwrap();
            }
            if damage {
                let path = dir.join(&merged[0]);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[100] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
            harness.reopen().await;
            assert_eq!(runs(&dir), if damage { small } else { merged });
            harness.check().await;
        });
    }
}

/// Whoever wrote it and however its CRCs fit: such a run is damage, and not the end of the process.
#[test]
fn a_run_whose_directory_does_not_fit_its_entries_is_damaged_when_it_is_merged() {
    let changes: [fn(&mut [u8]); 3] = [|_| {}, lower_a_count, swap_the_ends];
    for change in changes {
        run(move |env, dir| async move {
            let mut harness = Harness::new(env, &dir).await;
            for _ in 0..FAN_IN {
                (0..6).for_each(|queue| harness.push(queue, 100, 1));
                harness.apply(&Step::Flush(16)).await;
            }
            let small = runs(&dir);
            let path = dir.join(&small[2]);
            let mut bytes = std::fs::read(&path).unwrap();
            let header = Header::decode(&bytes[..BLOCK]).unwrap();
            let number = header.layout().directory;
            let block = &mut bytes[number as usize * BLOCK..][..BLOCK];
            let before = block.to_vec();
            change(&mut block[..header.extents as usize * EXTENT]);
            let is_changed = block != before;
            let crc = block_crc(header.id, number, &block[..DATA]);
            block[DATA..].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
            harness.index.merge(|| false).await.unwrap();
            assert_eq!(runs(&dir).len(), if is_changed { FAN_IN } else { 1 });
            assert!(!harness.index.merge_due(), "what is damaged is not merged again");
        });
    }
}

fn lower_a_count(directory: &mut [u8]) {
    let count = &mut directory[2 * EXTENT..][44..48];
    let lower = u32::from_le_bytes(count.try_into().unwrap()) - 1;
    count.copy_from_slice(&lower.to_le_bytes());
}

fn swap_the_ends(directory: &mut [u8]) {
    let last = directory.len() - EXTENT;
    let (first, rest) = directory.split_at_mut(EXTENT);
    first.swap_with_slice(&mut rest[last - EXTENT..]);
}

/// What is read of runs that are merged at that moment is what was there before.
#[test]
fn readers_go_on_while_runs_are_merged() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.run(async {
            let mut harness = Harness::new(sim.node("a"), Path::new("/index")).await;
            for _ in 0..FAN_IN {
                (0..6).for_each(|queue| harness.push(queue, 200, 1));
                harness.apply(&Step::Flush(16)).await;
            }
            let (index, done) = (harness.index.clone(), std::rc::Rc::new(Cell::new(false)));
            let merged = std::rc::Rc::clone(&done);
            harness.env.spawn(async move {
                index.merge(|| false).await.unwrap();
                merged.set(true);
            });
            let mut checks = 0;
            while !done.get() {
                harness.check().await;
                checks += 1;
            }
            assert!(checks > 0 && !harness.index.merge_due());
            harness.check().await;
        });
    }
}

/// What a run holds leaves memory bit by bit.
#[test]
fn a_key_is_found_once_while_a_run_takes_the_place_of_memory() {
    let sim = Sim::new(3);
    sim.run(async {
        let mut harness = Harness::new(sim.node("a"), Path::new("/index")).await;
        harness.push(0, 40_000, 1);
        let (topic, _) = queue_of(0);
        let search = KeySearch {
            topic,
            key: "key 4",
            max: 40_000,
            begin_ms: 0,
            end_ms: i64::MAX,
            before: LogPosition(u64::MAX),
        };
        let wanted = harness.index.query_keys(&search).await.unwrap();
        assert!(wanted.len() > 1000, "{}", wanted.len());
        let (index, done) = (harness.index.clone(), std::rc::Rc::new(Cell::new(false)));
        let (flushed, end) = (std::rc::Rc::clone(&done), LogPosition(harness.model.end));
        harness.env.spawn(async move {
            index.flush(end).await.unwrap();
            flushed.set(true);
        });
        let mut looks = 0;
        while !done.get() {
            assert!(harness.index.query_keys(&search).await.unwrap() == wanted, "look {looks}");
            looks += 1;
            match looks % 8 {
                0 => harness.env.sleep(Duration::from_micros(1)).await,
                _ => harness.env.yield_now().await,
            }
        }
        assert!(looks > 2 && harness.index.query_keys(&search).await.unwrap() == wanted);
    });
}

#[test]
fn a_merge_that_is_given_up_or_has_no_space_changes_nothing() {
    let sim = Sim::new(2);
    sim.run(async {
        let mut harness = Harness::new(sim.node("a"), Path::new("/index")).await;
        for _ in 0..FAN_IN {
            (0..6).for_each(|queue| harness.push(queue, 3000, 1));
            harness.apply(&Step::Flush(16)).await;
        }
        harness.index.merge(|| true).await.unwrap();
        assert!(harness.index.merge_due());
        sim.set_quota("a", Some(0));
        assert!(harness.index.merge(|| false).await.is_err());
        assert!(harness.index.merge_due());
        harness.check().await;
        sim.set_quota("a", None);
        harness.index.merge(|| false).await.unwrap();
        assert!(!harness.index.merge_due());
        harness.check().await;
        harness.reopen().await;
        harness.check().await;
    });
}

/// A list grows by doubling, and counts by what it takes.
#[test]
fn memory_counts_the_list_of_a_topic_with_many_queues() {
    let sim = Sim::new(2);
    sim.run(async {
        let index = open_empty(&sim.node("a"), Path::new("/index")).await;
        // What topics and queues themselves take is allocated for so many at once.
        (0..=512).for_each(|queue| _ = index.slot("many", QueueId(queue)));
        let before = index.memory();
        (513..1024).for_each(|queue| _ = index.slot("many", QueueId(queue)));
        assert_eq!(index.memory(), before, "the list had room for 1024");
        (0..8).for_each(|queue| _ = index.slot("few!", QueueId(queue)));
        let before = index.memory();
        index.slot("few!", QueueId(8));
        assert_eq!(index.memory() - before, 16 * 4);
    });
}

#[test]
fn an_idle_queue_takes_little_memory() {
    let sim = Sim::new(1);
    sim.run(async {
        let index = open_empty(&sim.node("a"), Path::new("/index")).await;
        let before = index.memory();
        for number in 0..100_000u64 {
            let slot =
                index.slot(&format!("a topic of usual length {}", number / 8), QueueId(number as u32 % 8));
            let offset = index.stage(slot, 1);
            let entry = IndexEntry {
                position: LogPosition(number * 100),
                size: 90,
                crc: 1,
                tags_code: 2,
                store_ms: 3,
            };
            index.push(slot, offset, 1, entry);
        }
        index.flush(LogPosition(100_000 * 100)).await.unwrap();
        assert_eq!(index.queues(), 100_000);
        let each = (index.memory() - before) / index.queues();
        assert!(each <= 256, "{each} bytes");
    });
}

#[test]
fn a_handle_of_a_topic_that_is_gone_finds_no_other_in_its_place() {
    let sim = Sim::new(1);
    sim.run(async {
        let index = open_empty(&sim.node("a"), Path::new("/index")).await;
        let none = TopicHandle::default();
        assert_eq!(index.topic("a", none), none, "there is no such topic");
        let queue = QueueId(0);
        let slot = push_one(&index, "a", 0);
        let handle = index.topic("a", none);
        assert_eq!(index.slot_in(handle, "a", queue), slot);
        assert_eq!(index.topic("a", handle), handle);

        let pass = index.hold_runs().await;
        let expired = index.forget_topic("a", LogPosition(100));
        index.mark_deleted("a", &expired).await.unwrap();
        drop(pass);
        // The deletion is remembered, and the topic may be made anew: it is the same one.
        let anew = index.slot_in(handle, "a", queue);
        assert!(anew != slot && index.peek(anew) == QueueOffset(0));
        assert_eq!(index.topic("a", handle), handle);
        index.forget_topic("a", LogPosition(100));

        index.set_log_min(LogPosition(200), LogPosition(200)).await.unwrap();
        let other = index.slot("b", queue);
        let of_b = index.topic("b", none);
        assert!(of_b.same_place(handle), "the place is used again");
        assert_eq!(index.topic("a", handle), none);
        let again = index.slot_in(handle, "a", queue);
        assert!(again != other && index.name(again) == ("a".into(), queue));
        assert_eq!(index.topic("b", handle), of_b, "another topic's handle does not hold either");
    });
}

/// Retention may be quicker than the next run: what was in memory of a deleted topic is then of a topic without a name.
#[test]
fn a_run_is_written_after_a_deleted_topic_has_expired() {
    let sim = Sim::new(1);
    sim.run(async {
        let index = open_empty(&sim.node("a"), Path::new("/index")).await;
        let queue = QueueId(0);
        push_one(&index, "gone", 0);
        push_one(&index, "kept", 100);
        let pass = index.hold_runs().await;
        let expired = index.forget_topic("gone", LogPosition(200));
        index.mark_deleted("gone", &expired).await.unwrap();
        drop(pass);
        index.set_log_min(LogPosition(300), LogPosition(300)).await.unwrap();
        push_one(&index, "kept", 400);
        index.flush(LogPosition(500)).await.unwrap();
        let left = QueueRange { min: QueueOffset(1), max: QueueOffset(2) };
        assert_eq!(index.range("kept", queue), Some(left));
    });
}

/// Retention that failed half-way must leave nothing behind that lets a start do without what was not done.
#[test]
fn a_queue_goes_on_where_it_was_after_a_retention_that_could_not_read() {
    let sim = Sim::new(1);
    sim.run(async {
        let (env, dir, queue, end) = (sim.node("a"), Path::new("/index"), QueueId(0), LogPosition(500));
        let index = open_empty(&env, dir).await;
        push_one(&index, "kept", 0);
        push_one(&index, "other", 100);
        index.flush(end).await.unwrap();

        sim.set_faults("a", Faults::none().with(Fault::ReadError, CERTAIN));
        index.set_log_min(end, end).await.unwrap_err();
        sim.set_faults("a", Faults::none());
        let expired = index.forget_topic("other", end);
        index.mark_deleted("other", &expired).await.unwrap();
        sim.crash("a", Crash::PowerLosingAll);

        let (env, report) = (sim.node("a"), DamageReport::default());
        let mut opening = Index::open(env, dir, LogPosition(0), end, &report).await.unwrap();
        assert_eq!(opening.next_gap().await.unwrap(), None);
        let index = opening.finish().await.unwrap();
        assert_eq!(index.range("kept", queue).map(|range| range.max), Some(QueueOffset(1)));
        assert_eq!(index.range("other", queue), None);
    });
}

#[test]
fn queues_are_found_whatever_their_numbers() {
    let sim = Sim::new(1);
    sim.run(async {
        let index = open_empty(&sim.node("a"), Path::new("/index")).await;
        let numbers = [5, 0, 3, 70_000, 1, 2, 9, 8, 40, 4, 6, 7];
        let slots: Vec<_> = numbers.iter().map(|number| index.slot("a", QueueId(*number))).collect();
        for (number, slot) in numbers.iter().zip(&slots) {
            assert_eq!(index.slot("a", QueueId(*number)), *slot);
            assert_eq!(index.name(*slot), ("a".into(), QueueId(*number)));
        }
        assert!(!index.knows("a", QueueId(10)) && !index.knows("a", QueueId(70_001)));
        assert_eq!(index.queues(), numbers.len());
    });
}
