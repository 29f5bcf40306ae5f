//! Rates of a consumer, as operators see them (Java's `ConsumerStatsManager`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use ringmq_protocol::body::ConsumeStatus;
use tokio::time::Instant;

use crate::metrics::{Returned, TopicMeters};
use crate::sync::lock;

/// Rates are those of the last minute.
const MINUTE: Duration = Duration::from_secs(60);
/// How often the counters of the minute are noted, at most.
const STEP: Duration = Duration::from_secs(10);
/// Failures are counted over an hour, in steps of ten minutes.
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_STEP: Duration = Duration::from_secs(600);

/// What happened since the consumer was started.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    consumed: u64,
    failed: u64,
    consume_ms: u64,
    pulled: u64,
    pulls: u64,
    pull_ms: u64,
}

/// Counters at some moments of the past: never more than a span and one step of it.
#[derive(Debug, Default)]
struct Past {
    notes: VecDeque<(Instant, Counters)>,
}

impl Past {
    /// Notes the counters if the last note is old enough, and forgets what is older than needed.
    fn note(&mut self, now: Instant, counters: Counters, step: Duration, span: Duration) {
        if self.notes.back().is_none_or(|(at, _)| now.duration_since(*at) >= step) {
            self.notes.push_back((now, counters));
        }
        while self.notes.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= span) {
            self.notes.pop_front();
        }
    }

    fn first(&self) -> Option<(Instant, Counters)> {
        self.notes.front().copied()
    }
}

#[derive(Debug)]
struct Topic {
    now: Counters,
    minute: Past,
    hour: Past,
    meters: TopicMeters,
}

impl Topic {
    fn new(group: &str, topic: &str) -> Topic {
        let meters = TopicMeters::new(group, topic);
        Topic { now: Counters::default(), minute: Past::default(), hour: Past::default(), meters }
    }

    fn note(&mut self) {
        let now = Instant::now();
        self.minute.note(now, self.now, STEP, MINUTE);
        self.hour.note(now, self.now, HOUR_STEP, HOUR);
    }

    fn status(&self) -> ConsumeStatus {
        let (Some((since, old)), Some((_, hour))) = (self.minute.first(), self.hour.first()) else {
            return ConsumeStatus::default();
        };
        let seconds = since.elapsed().as_secs_f64().max(1.0);
        let rate = |now: u64, old: u64| (now - old) as f64 / seconds;
        let mean = |sum: u64, count: u64| if count == 0 { 0.0 } else { sum as f64 / count as f64 };
        let done = (self.now.consumed - old.consumed) + (self.now.failed - old.failed);
        ConsumeStatus {
            consume_failed_msgs: (self.now.failed - hour.failed) as i64,
            consume_failed_tps: rate(self.now.failed, old.failed),
            consume_ok_tps: rate(self.now.consumed, old.consumed),
            consume_rt: mean(self.now.consume_ms - old.consume_ms, done),
            pull_rt: mean(self.now.pull_ms - old.pull_ms, self.now.pulls - old.pulls),
            pull_tps: rate(self.now.pulled, old.pulled),
        }
    }
}

/// What is held of a topic: queues, messages, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Holdings {
    pub queues: usize,
    pub messages: usize,
    pub bytes: usize,
}

/// Rates of every topic of a consumer, and the metrics that the program sees.
#[derive(Debug)]
pub(super) struct Stats {
    group: String,
    topics: Mutex<BTreeMap<String, Topic>>,
}

impl Stats {
    pub(super) fn new(group: &str) -> Stats {
        Stats { group: group.to_owned(), topics: Mutex::default() }
    }

    fn with(&self, topic: &str, work: impl FnOnce(&mut Topic)) {
        let mut topics = lock(&self.topics);
        match topics.get_mut(topic) {
            Some(topic) => work(topic),
            None => work(topics.entry(topic.to_owned()).or_insert(Topic::new(&self.group, topic))),
        }
    }

    /// A pull brought this many messages.
    pub(super) fn pulled(&self, topic: &str, messages: usize, took: Duration) {
        self.with(topic, |topic| {
            topic.note();
            topic.now.pulls += 1;
            topic.now.pulled += messages as u64;
            topic.now.pull_ms += took.as_millis() as u64;
            topic.meters.pulled(messages, took);
        });
    }

    /// Messages are here that were stored at these times.
    pub(super) fn delivered(&self, topic: &str, now_ms: i64, stored_ms: impl Iterator<Item = i64>) {
        self.with(topic, |topic| stored_ms.for_each(|stored| topic.meters.delivered(now_ms, stored)));
    }

    /// Messages failed and are tried again.
    pub(super) fn returned(&self, topic: &str, to: Returned, messages: usize) {
        self.with(topic, |topic| topic.meters.returned(to, messages));
    }

    /// Queues of the topic came or went.
    pub(super) fn queues_changed(&self, topic: &str) {
        self.with(topic, |topic| topic.meters.changed());
    }

    /// What is held of each topic now; of others nothing is.
    pub(super) fn holds(&self, held: &BTreeMap<String, Holdings>) {
        held.keys().for_each(|topic| self.with(topic, |_| {}));
        for (name, topic) in lock(&self.topics).iter() {
            let now = held.get(name).copied().unwrap_or_default();
            topic.meters.holds(now.queues, now.messages, now.bytes);
        }
    }

    /// A listener is through with this many messages.
    pub(super) fn consumed(&self, topic: &str, messages: usize, took: Duration, success: bool) {
        self.with(topic, |topic| {
            topic.note();
            let now = &mut topic.now;
            *(if success { &mut now.consumed } else { &mut now.failed }) += messages as u64;
            now.consume_ms += took.as_millis() as u64;
            topic.meters.consumed(messages, took, success);
        });
    }

    /// By topic.
    pub(super) fn status(&self) -> BTreeMap<String, ConsumeStatus> {
        let mut topics = lock(&self.topics);
        topics
            .iter_mut()
            .map(|(name, topic)| {
                topic.note();
                (name.clone(), topic.status())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_are_of_the_last_minute() {
        let stats = Stats::new("g");
        for _ in 0..30 {
            stats.pulled("t", 4, Duration::from_millis(10));
            stats.consumed("t", 3, Duration::from_millis(20), true);
            stats.consumed("t", 1, Duration::from_millis(20), false);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let status = stats.status()["t"];
        assert!((status.consume_ok_tps - 3.0).abs() < 0.2, "{status:?}");
        assert!((status.pull_tps - 4.0).abs() < 0.2, "{status:?}");
        assert_eq!((status.pull_rt, status.consume_rt, status.consume_failed_msgs), (10.0, 10.0, 30));
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(30)).await;
            stats.status();
        }
        let status = stats.status()["t"];
        assert_eq!((status.consume_ok_tps, status.consume_failed_msgs), (0.0, 30));
    }
}
