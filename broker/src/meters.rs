//! What one shard counts of the messages that go through it; core 0 adds the shards up.

use std::sync::Arc;

use ringmq_engine::{PendingStats, ShardStats};
use ringmq_protocol::names;

use crate::control::stats::{PutLatency, PutsHandle, StatsDelta, StatsKind, StatsRecorder, Totals};
use crate::message_filter::Verdicts;
use crate::metrics::Figures;

/// The counters of one shard.
pub struct Meters {
    cluster: Arc<str>,
    recorder: StatsRecorder,
    /// Sends of one topic in a row, not yet in the recorder: most sends are to the topic of the one before.
    run: Option<Run>,
    /// Messages of the runs that ended since the last report, and how many runs.
    puts: (u64, u64),
    totals: Totals,
    put_latency: PutLatency,
    put_failed: u64,
    deliveries: Deliveries,
}

/// What was delayed and retried since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// Delayed messages that were delivered.
    pub count: u64,
    /// The sum of the times, in ms, by which they were late.
    pub late_ms: u64,
    /// How many were late by more than 100 ms.
    pub late: u64,
    /// Timer messages that were recalled instead.
    pub recalled: u64,
    /// Messages stored in retry topics.
    pub retries: u64,
    /// Messages stored in topics of dead letters.
    pub dead_letters: u64,
}

impl Deliveries {
    fn figures(&self, figures: &mut Figures) {
        let Deliveries { count, late_ms, late, recalled, retries, dead_letters } = *self;
        figures.counter(
            "ringmq_delayed_delivered_total",
            "Delayed messages that were delivered.",
            &[],
            count,
        );
        let help = "Delayed messages that were delivered more than 100 ms late.";
        figures.counter("ringmq_delayed_late_total", help, &[], late);
        let help = "By how much delayed messages were late, added up, in milliseconds.";
        figures.counter("ringmq_delayed_late_milliseconds_total", help, &[], late_ms);
        figures.counter("ringmq_timers_recalled_total", "Timer messages that were recalled.", &[], recalled);
        figures.counter("ringmq_retries_total", "Messages stored in retry topics.", &[], retries);
        let help = "Messages stored as dead letters.";
        figures.counter("ringmq_dead_letters_total", help, &[], dead_letters);
    }
}

impl std::iter::Sum for Deliveries {
    fn sum<I: Iterator<Item = Deliveries>>(all: I) -> Deliveries {
        all.fold(Deliveries::default(), |sum, more| Deliveries {
            count: sum.count + more.count,
            late_ms: sum.late_ms + more.late_ms,
            late: sum.late + more.late,
            recalled: sum.recalled + more.recalled,
            retries: sum.retries + more.retries,
            dead_letters: sum.dead_letters + more.dead_letters,
        })
    }
}

/// A delivery is late beyond this, in ms.
const LATE_MS: u64 = 100;

struct Run {
    topic: Arc<str>,
    counted: PutsHandle,
    messages: u64,
    bytes: u64,
}

/// What a shard tells core 0 of itself.
#[derive(Debug)]
pub struct ShardReport {
    /// The engine's counters and gauges.
    pub stats: ShardStats,
    /// Messages and pulls since the start.
    pub totals: Totals,
    /// How long stores took since the start.
    pub put_latency: PutLatency,
    /// Sends that failed since the start.
    pub put_failed: u64,
    /// What was delayed and retried since the start.
    pub deliveries: Deliveries,
    /// Delayed messages that wait.
    pub delayed: PendingStats,
    /// What was counted by topic and group since the last report.
    pub deltas: Vec<StatsDelta>,
}

impl Meters {
    /// Nothing counted yet.
    pub fn new(cluster: &str) -> Meters {
        Meters {
            cluster: cluster.into(),
            recorder: StatsRecorder::new(),
            run: None,
            puts: (0, 0),
            totals: Totals::default(),
            put_latency: PutLatency::default(),
            put_failed: 0,
            deliveries: Deliveries::default(),
        }
    }

    /// A message was staged under `topic`, with this many bytes of body.
    pub fn delayed(&mut self, topic: &str, bytes: u64) {
        let known = self.run.as_ref().filter(|run| *run.topic == *topic).map(|run| run.topic.clone());
        self.staged(&known.unwrap_or_else(|| topic.into()), PutsHandle::default(), 1, bytes);
    }

    /// A timer message was recalled.
    pub fn recalled(&mut self) {
        self.deliveries.recalled += 1;
    }

    /// A delayed message was delivered to its topic, with this many bytes of body, so late.
    pub fn delivered(&mut self, topic: &str, bytes: u64, late_ms: u64) {
        self.delayed(topic, bytes);
        self.deliveries.count += 1;
        self.deliveries.late_ms += late_ms;
        self.deliveries.late += u64::from(late_ms > LATE_MS);
    }

    /// Messages of a topic were staged, with this many bytes of bodies. There may be a handle of where they are counted.
    pub fn staged(&mut self, topic: &Arc<str>, counted: PutsHandle, messages: u64, bytes: u64) {
        self.totals.put += messages;
        if names::is_retry_topic(topic) {
            self.deliveries.retries += messages;
        } else if names::is_dlq_topic(topic) {
            self.deliveries.dead_letters += messages;
        }
        match &mut self.run {
            Some(run) if Arc::ptr_eq(&run.topic, topic) => {
                run.messages += messages;
                run.bytes += bytes;
            }
            _ => {
                self.end_run();
                self.run = Some(Run { topic: topic.clone(), counted, messages, bytes });
            }
        }
    }

    /// Where messages of the topic are counted: `known` if that still holds.
    pub fn counted(&mut self, topic: &Arc<str>, known: PutsHandle) -> PutsHandle {
        self.recorder.puts_of(topic, known)
    }

    /// Has what is counted there fetched into the core's cache.
    pub fn prefetch(&self, counted: PutsHandle) {
        self.recorder.prefetch_puts(counted);
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.recorder.record_puts(&run.topic, run.counted, run.messages, run.bytes);
            self.puts.0 += run.messages;
            self.puts.1 += 1;
        }
    }

    /// A send was acknowledged this many milliseconds after it was staged.
    pub fn stored(&mut self, ms: u64) {
        self.put_latency.record(ms);
    }

    /// A send failed.
    pub fn failed(&mut self) {
        self.put_failed += 1;
    }

    /// A pull was answered with this many messages and bytes.
    pub fn pulled(&mut self, topic: &str, group: &str, messages: u64, bytes: u64) {
        if messages == 0 {
            self.totals.get_miss += 1;
            return;
        }
        self.totals.get_found += 1;
        self.totals.transferred += messages;
        let key = Arc::from(format!("{topic}@{group}"));
        self.recorder.record(StatsKind::GroupGetNums, &key, messages);
        self.recorder.record(StatsKind::GroupGetSize, &key, bytes);
        self.recorder.record(StatsKind::BrokerGetNums, &self.cluster, messages);
    }

    /// The same for the metrics.
    pub fn figures(&self, figures: &mut Figures) {
        let Totals { put, get_found, get_miss, transferred, filter_evaluated, filter_rejected } = self.totals;
        figures.counter("ringmq_put_messages_total", "Messages taken for storing.", &[], put);
        figures.counter("ringmq_put_failures_total", "Sends that failed.", &[], self.put_failed);
        figures.counter("ringmq_get_messages_total", "Messages handed out.", &[], transferred);
        let help = "Pulls answered, by whether there was a message.";
        figures.counter("ringmq_pulls_total", help, &[("found", "yes")], get_found);
        figures.counter("ringmq_pulls_total", help, &[("found", "no")], get_miss);
        let help = "Messages that SQL92 filters were evaluated for, by whether they were wanted.";
        let wanted = filter_evaluated - filter_rejected;
        figures.counter("ringmq_filter_evaluations_total", help, &[("wanted", "yes")], wanted);
        figures.counter("ringmq_filter_evaluations_total", help, &[("wanted", "no")], filter_rejected);
        self.put_latency.figures(figures);
        self.deliveries.figures(figures);
    }

    /// What SQL92 filters said since the start.
    pub fn filtered(&mut self, verdicts: &Verdicts) {
        self.totals.filter_evaluated = verdicts.evaluated();
        self.totals.filter_rejected = verdicts.rejected();
    }

    /// What core 0 is told.
    pub fn report(&mut self, stats: ShardStats, delayed: PendingStats) -> ShardReport {
        self.end_run();
        let mut deltas = self.recorder.take();
        let (value, times) = std::mem::take(&mut self.puts);
        if times > 0 {
            let (kind, key) = (StatsKind::BrokerPutNums, self.cluster.clone());
            deltas.push(StatsDelta { kind, key, value, times });
        }
        ShardReport {
            stats,
            totals: self.totals,
            put_latency: self.put_latency,
            put_failed: self.put_failed,
            deliveries: self.deliveries,
            delayed,
            deltas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_topic_end_in_the_report() {
        let mut meters = Meters::new("c");
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        meters.staged(&a, PutsHandle::default(), 1, 10);
        meters.staged(&a, PutsHandle::default(), 2, 20);
        meters.staged(&b, PutsHandle::default(), 1, 5);
        meters.pulled("a", "g", 0, 0);
        meters.pulled("a", "g", 2, 40);
        let report = meters.report(ShardStats::default(), PendingStats::default());
        let count = |kind, key: &str| {
            report
                .deltas
                .iter()
                .find(|delta| delta.kind == kind && *delta.key == *key)
                .map(|delta| delta.value)
        };
        assert_eq!(count(StatsKind::TopicPutNums, "a"), Some(3));
        assert_eq!(count(StatsKind::TopicPutSize, "b"), Some(5));
        assert_eq!(count(StatsKind::BrokerPutNums, "c"), Some(4));
        assert_eq!(count(StatsKind::GroupGetNums, "a@g"), Some(2));
        let totals = Totals {
            put: 4,
            get_found: 1,
            get_miss: 1,
            transferred: 2,
            filter_evaluated: 0,
            filter_rejected: 0,
        };
        assert_eq!(report.totals, totals);
        assert!(meters.report(ShardStats::default(), PendingStats::default()).deltas.is_empty());
    }
}
