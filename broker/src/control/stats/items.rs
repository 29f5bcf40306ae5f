//! Statistics by name and key (315): `TOPIC_PUT_NUMS` of a topic, `GROUP_GET_NUMS` of `topic@group`, and so on.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use ringmq_env::prefetch;
use ringmq_protocol::body::{BrokerStatsData, BrokerStatsItem};
use ringmq_protocol::codes::response;
use rustc_hash::FxBuildHasher;

use crate::control::refusal::Refusal;

/// Most keys that are counted, over all kinds. Beyond it new keys are not, until idle ones have gone.
pub const MAX_ITEMS: usize = 50_000;
/// Keys that are gone through before other tasks have their turn.
pub const ITEMS_AT_ONCE: usize = 256;
const MINUTE: Series = Series { interval_ms: 10_000, samples: 7 };
const HOUR: Series = Series { interval_ms: 600_000, samples: 7 };
const DAY: Series = Series { interval_ms: 3_600_000, samples: 25 };

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatsKind {
    /// Messages stored, by topic.
    TopicPutNums,
    /// Bytes of bodies stored, by topic.
    TopicPutSize,
    /// Messages handed out, by `topic@group`.
    GroupGetNums,
    /// Bytes of records handed out, by `topic@group`.
    GroupGetSize,
    /// Messages stored, by cluster.
    BrokerPutNums,
    /// Messages handed out, by cluster.
    BrokerGetNums,
}

impl StatsKind {
    const NAMES: [(&str, StatsKind); 6] = [
        ("TOPIC_PUT_NUMS", StatsKind::TopicPutNums),
        ("TOPIC_PUT_SIZE", StatsKind::TopicPutSize),
        ("GROUP_GET_NUMS", StatsKind::GroupGetNums),
        ("GROUP_GET_SIZE", StatsKind::GroupGetSize),
        ("BROKER_PUT_NUMS", StatsKind::BrokerPutNums),
        ("BROKER_GET_NUMS", StatsKind::BrokerGetNums),
    ];

    /// The kind that a tool names.
    pub fn from_name(name: &str) -> Option<StatsKind> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// What one core has counted of one key since it last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsDelta {
    /// What is counted.
    pub kind: StatsKind,
    /// Of whom.
    pub key: Arc<str>,
    /// How much.
    pub value: u64,
    /// How often.
    pub times: u64,
}

/// Messages stored of one topic.
struct Puts {
    topic: Arc<str>,
    messages: u64,
    bytes: u64,
    times: u64,
}

/// Where a recorder counts what is stored of a topic: spares the next search by name. It holds until the recorder hands over
/// what it counted, which the recorder checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutsHandle {
    /// [`PutsHandle::NOWHERE`]: there are too many topics.
    index: u32,
    /// 0: of no topic.
    round: u32,
}

impl PutsHandle {
    const NOWHERE: u32 = u32::MAX;
}

/// One core's counters; each core has its own, and hands them to core 0 every ten seconds or so.
pub struct StatsRecorder {
    counts: HashMap<(StatsKind, Arc<str>), (u64, u64), FxBuildHasher>,
    /// By topic. Messages and bytes lie together: with many topics each place is one that is in no cache.
    puts: Vec<Puts>,
    puts_by_topic: HashMap<Arc<str>, u32, FxBuildHasher>,
    /// Counts the calls of [`StatsRecorder::take`], from 1.
    round: u32,
}

impl Default for StatsRecorder {
    fn default() -> StatsRecorder {
        StatsRecorder {
            counts: HashMap::default(),
            puts: Vec::new(),
            puts_by_topic: HashMap::default(),
            round: 1,
        }
    }
}

impl StatsRecorder {
    /// Nothing counted yet.
    pub fn new() -> StatsRecorder {
        StatsRecorder::default()
    }

    /// Counts one event of this value.
    pub fn record(&mut self, kind: StatsKind, key: &Arc<str>, value: u64) {
        if let Some(counts) = self.counts.get_mut(&(kind, key.clone())) {
            counts.0 += value;
            counts.1 += 1;
        } else if self.len() < MAX_ITEMS {
            self.counts.insert((kind, key.clone()), (value, 1));
        }
    }

    /// Where the topic's puts are counted: `known` if that still holds, else what is found by name.
    pub fn puts_of(&mut self, topic: &Arc<str>, known: PutsHandle) -> PutsHandle {
        let round = self.round;
        if known.round == round {
            return known;
        }
        let found = self.puts_by_topic.get(topic).copied();
        let index = found.unwrap_or_else(|| self.begin_puts(topic));
        PutsHandle { index, round }
    }

    fn begin_puts(&mut self, topic: &Arc<str>) -> u32 {
        if self.len() >= MAX_ITEMS {
            return PutsHandle::NOWHERE;
        }
        let index = self.puts.len() as u32;
        self.puts.push(Puts { topic: topic.clone(), messages: 0, bytes: 0, times: 0 });
        self.puts_by_topic.insert(topic.clone(), index);
        index
    }

    /// Counts one event of `TOPIC_PUT_NUMS` and one of `TOPIC_PUT_SIZE`. There may be a handle of the topic.
    pub fn record_puts(&mut self, topic: &Arc<str>, known: PutsHandle, messages: u64, bytes: u64) {
        let PutsHandle { index, .. } = self.puts_of(topic, known);
        if let Some(puts) = self.puts.get_mut(index as usize) {
            debug_assert!(puts.topic == *topic, "a handle stays with its topic");
            puts.messages += messages;
            puts.bytes += bytes;
            puts.times += 1;
        }
    }

    /// Has what is counted of a topic's puts fetched into the core's cache.
    pub fn prefetch_puts(&self, known: PutsHandle) {
        self.puts.get(known.index as usize).inspect(|puts| prefetch(*puts));
    }

    fn len(&self) -> usize {
        self.counts.len() + 2 * self.puts.len()
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> Vec<StatsDelta> {
        let counts = self.counts.drain();
        let counts = counts.map(|((kind, key), (value, times))| StatsDelta { kind, key, value, times });
        self.round = self.round.wrapping_add(1).max(1);
        self.puts_by_topic.clear();
        // What only has a place was not counted.
        let puts = self.puts.drain(..).filter(|puts| puts.times > 0);
        let puts = puts.flat_map(|Puts { topic, messages, bytes, times }| {
            let messages = (StatsKind::TopicPutNums, messages);
            [messages, (StatsKind::TopicPutSize, bytes)].map(|(kind, value)| StatsDelta {
                kind,
                key: topic.clone(),
                value,
                times,
            })
        });
        counts.chain(puts).collect()
    }
}

/// How often a series takes a sample, and how many it keeps.
struct Series {
    interval_ms: i64,
    samples: usize,
}

#[derive(Clone, Copy)]
struct Sample {
    at_ms: i64,
    value: u64,
    times: u64,
}

struct Item {
    /// When it began to be counted.
    since_ms: i64,
    value: u64,
    times: u64,
    minute: Samples,
    hour: Samples,
    day: Samples,
}

/// The samples of a series, oldest first. Many items are sampled seldom: there is room for no more than there are.
///
/// As in Java, a series begins with an empty sample one interval before the item was first counted. That one is not
/// here; it counts while `begins`.
struct Samples {
    taken: Vec<Sample>,
    begins: bool,
}

/// The node's statistics. Lives on core 0.
#[derive(Default)]
pub struct StatsTable {
    /// In an order, so that one can go through them a few at a time.
    items: IndexMap<(StatsKind, Arc<str>), Item, FxBuildHasher>,
}

impl StatsTable {
    /// Nothing counted yet.
    pub fn new() -> StatsTable {
        StatsTable::default()
    }

    /// Adds what a core has counted.
    pub fn add(&mut self, delta: StatsDelta, now_ms: i64) {
        let key = (delta.kind, delta.key);
        if self.items.len() >= MAX_ITEMS && !self.items.contains_key(&key) {
            return;
        }
        let item = self.items.entry(key).or_insert_with(|| Item::new(now_ms));
        item.value += delta.value;
        item.times += delta.times;
    }

    /// Takes the samples that are due of [`ITEMS_AT_ONCE`] keys from `from` on, and forgets those of which nothing was counted
    /// for a day; where to go on, if there are more. All are to be gone through every ten seconds. One that changes its place
    /// meanwhile may be left out.
    pub fn sample(&mut self, from: usize, now_ms: i64) -> Option<usize> {
        let mut at = from;
        for _ in 0..ITEMS_AT_ONCE {
            let (_, item) = self.items.get_index_mut(at)?;
            item.sample(now_ms);
            if item.was_idle_for_a_day() {
                // The last one comes to its place.
                self.items.swap_remove_index(at);
            } else {
                at += 1;
            }
        }
        Some(at)
    }

    /// Events a second in the last minute; 0 of what is not counted.
    pub fn rate(&self, kind: StatsKind, key: &str) -> f64 {
        self.items.get(&(kind, Arc::from(key))).map_or(0.0, |item| item.summary(&item.minute, &MINUTE).tps)
    }

    /// How many keys are counted.
    pub fn counted(&self) -> usize {
        self.items.len()
    }

    /// What was counted of [`ITEMS_AT_ONCE`] keys from `from` on, each since it is counted. One that changes its place
    /// meanwhile, as another is forgotten, may be left out.
    pub fn totals(&self, from: usize) -> impl Iterator<Item = (StatsKind, &str, u64)> {
        let items = self.items.get_range(from..self.items.len().min(from + ITEMS_AT_ONCE));
        items.into_iter().flatten().map(|((kind, key), item)| (*kind, &**key, item.value))
    }

    /// The answer of 315.
    pub fn view(&self, name: &str, key: &str) -> Result<BrokerStatsData, Refusal> {
        let item = StatsKind::from_name(name).and_then(|kind| self.items.get(&(kind, Arc::from(key))));
        let Some(item) = item else {
            let remark = format!("The stats <{name}> <{key}> not exist");
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        };
        Ok(BrokerStatsData {
            stats_minute: item.summary(&item.minute, &MINUTE),
            stats_hour: item.summary(&item.hour, &HOUR),
            stats_day: item.summary(&item.day, &DAY),
        })
    }

    /// Forgets what was counted of a topic that is deleted.
    pub fn forget_topic(&mut self, topic: &str) {
        self.items.retain(|(_, key), _| key.split('@').next() != Some(topic));
    }
}

impl Item {
    fn new(now_ms: i64) -> Item {
        let begin = || Samples { taken: Vec::new(), begins: true };
        Item { since_ms: now_ms, value: 0, times: 0, minute: begin(), hour: begin(), day: begin() }
    }

    fn sample(&mut self, now_ms: i64) {
        let sample = Sample { at_ms: now_ms, value: self.value, times: self.times };
        for (list, series) in [(&mut self.minute, &MINUTE), (&mut self.hour, &HOUR), (&mut self.day, &DAY)] {
            list.take(sample, self.since_ms, series);
        }
    }

    fn was_idle_for_a_day(&self) -> bool {
        self.day.len() == DAY.samples && self.value == self.first(&self.day, &DAY).value
    }

    fn first(&self, samples: &Samples, series: &Series) -> Sample {
        let taken = samples.taken.first().filter(|_| !samples.begins);
        taken.copied().unwrap_or_else(|| series.begin(self.since_ms))
    }

    fn summary(&self, samples: &Samples, series: &Series) -> BrokerStatsItem {
        let last = samples.taken.last();
        last.map_or_else(BrokerStatsItem::default, |last| summary(&self.first(samples, series), last))
    }
}

impl Series {
    /// The empty sample that the series of an item begins with.
    fn begin(&self, since_ms: i64) -> Sample {
        Sample { at_ms: since_ms - self.interval_ms, value: 0, times: 0 }
    }
}

impl Samples {
    fn len(&self) -> usize {
        usize::from(self.begins) + self.taken.len()
    }

    /// Takes the sample if one is due.
    fn take(&mut self, sample: Sample, since_ms: i64, series: &Series) {
        let last_ms = self.taken.last().map_or_else(|| series.begin(since_ms).at_ms, |last| last.at_ms);
        if sample.at_ms - last_ms < series.interval_ms {
            return;
        }
        if self.len() == series.samples && !std::mem::take(&mut self.begins) {
            self.taken.remove(0);
        }
        self.taken.reserve_exact(1);
        self.taken.push(sample);
    }
}

fn summary(first: &Sample, last: &Sample) -> BrokerStatsItem {
    if last.at_ms <= first.at_ms {
        return BrokerStatsItem::default();
    }
    let (sum, times) = (last.value - first.value, last.times - first.times);
    BrokerStatsItem {
        sum: i64::try_from(sum).unwrap_or(i64::MAX),
        tps: sum as f64 * 1000.0 / (last.at_ms - first.at_ms) as f64,
        avgpt: if times > 0 { sum as f64 / times as f64 } else { 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(key: &str, value: u64) -> StatsDelta {
        StatsDelta { kind: StatsKind::TopicPutNums, key: key.into(), value, times: 2 }
    }

    #[test]
    fn a_recorder_hands_over_what_it_counted_once() {
        let mut recorder = StatsRecorder::new();
        let topic: Arc<str> = "t".into();
        recorder.record(StatsKind::TopicPutNums, &topic, 3);
        recorder.record(StatsKind::TopicPutNums, &topic, 4);
        assert_eq!(recorder.take(), [StatsDelta { value: 7, ..delta("t", 0) }]);
        let known = recorder.puts_of(&topic, PutsHandle::default());
        recorder.puts_of(&"other".into(), PutsHandle::default());
        recorder.record_puts(&topic, known, 1, 10);
        recorder.record_puts(&topic, PutsHandle::default(), 2, 20);
        let size = StatsDelta { kind: StatsKind::TopicPutSize, ..delta("t", 30) };
        assert_eq!(recorder.take(), [delta("t", 3), size.clone()], "what has a place only is not told");
        assert_eq!(recorder.take(), []);
        // The handle is of an earlier round, and another topic has its place.
        let other: Arc<str> = "other".into();
        recorder.record_puts(&other, PutsHandle::default(), 1, 1);
        recorder.record_puts(&topic, known, 3, 30);
        let told = recorder.take();
        let of_topic: Vec<_> = told.iter().filter(|delta| delta.key == topic).cloned().collect();
        let times = |delta: StatsDelta| StatsDelta { times: 1, ..delta };
        assert_eq!(of_topic, [times(delta("t", 3)), times(size)]);
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn no_more_topics_are_counted_than_there_is_room_for() {
        let mut recorder = StatsRecorder::new();
        let name = |number: usize| -> Arc<str> { format!("t{number}").into() };
        (0..MAX_ITEMS).for_each(|number| recorder.record_puts(&name(number), PutsHandle::default(), 1, 1));
        let known = recorder.puts_of(&name(MAX_ITEMS), PutsHandle::default());
        recorder.record_puts(&name(MAX_ITEMS), known, 1, 1);
        assert_eq!(recorder.take().len(), MAX_ITEMS);
        recorder.record_puts(&name(MAX_ITEMS), known, 1, 1);
        assert_eq!(recorder.take().len(), 2, "there is room again");
    }

    #[test]
    fn rates_are_over_a_minute_an_hour_and_a_day() {
        let mut table = StatsTable::new();
        for tick in 0..=360 {
            table.add(delta("t", 100), tick * 10_000);
            table.sample(0, tick * 10_000);
        }
        assert_eq!(table.rate(StatsKind::TopicPutNums, "t"), 10.0);
        assert_eq!(table.rate(StatsKind::TopicPutNums, "unknown"), 0.0);
        let view = table.view("TOPIC_PUT_NUMS", "t").unwrap();
        assert_eq!((view.stats_minute.sum, view.stats_minute.avgpt), (600, 50.0));
        assert_eq!(view.stats_hour.sum, 36_000);
        assert_eq!(view.stats_day.sum, 36_100);
    }

    #[test]
    fn what_is_not_counted_is_said_so() {
        let table = StatsTable::new();
        assert_eq!(
            table.view("TOPIC_PUT_NUMS", "t").unwrap_err().remark,
            "The stats <TOPIC_PUT_NUMS> <t> not exist"
        );
        assert_eq!(table.view("NO_SUCH", "t").unwrap_err().code, 1);
    }

    #[test]
    fn idle_and_deleted_keys_are_forgotten() {
        let mut table = StatsTable::new();
        table.add(delta("idle", 1), 0);
        table.add(delta("gone@g", 1), 0);
        table.forget_topic("gone");
        assert_eq!(table.items.len(), 1);
        for hour in 0..=26 {
            table.sample(0, hour * 3_600_000);
        }
        assert!(table.items.is_empty());
    }

    #[test]
    fn all_keys_are_gone_through_a_few_at_a_time() {
        let mut table = StatsTable::new();
        let keys = 2 * ITEMS_AT_ONCE + 1;
        (0..keys).for_each(|key| table.add(delta(&key.to_string(), 1), 0));
        // Half of them go, and whatever comes to their places is sampled, too.
        for hour in 0..=26 {
            (0..keys).step_by(2).for_each(|key| table.add(delta(&key.to_string(), 1), 0));
            let mut from = Some(0);
            while let Some(at) = from {
                from = table.sample(at, hour * 3_600_000);
            }
        }
        assert_eq!(table.items.len(), ITEMS_AT_ONCE + 1);
        let last = |item: &Item| item.day.taken.last().map(|sample| sample.at_ms);
        assert!(table.items.values().all(|item| last(item) == Some(26 * 3_600_000)));
        let slices = [0, ITEMS_AT_ONCE, 2 * ITEMS_AT_ONCE].map(|from| table.totals(from).count());
        assert_eq!(slices, [ITEMS_AT_ONCE, 1, 0]);
    }
}
