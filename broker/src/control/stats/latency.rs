//! How long stores take, in RocketMQ's buckets.

use crate::metrics::Figures;

/// Upper ends (exclusive) of the buckets behind the first, in ms; the last bucket has none.
const BOUNDS_MS: [u64; 11] = [10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10_000];
/// Buckets of the distribution.
pub const LATENCY_BUCKETS: usize = BOUNDS_MS.len() + 2;
/// The buckets' names as tools know them.
const NAMES: [&str; LATENCY_BUCKETS] = [
    "[<=0ms]",
    "[0~10ms]",
    "[10~50ms]",
    "[50~100ms]",
    "[100~200ms]",
    "[200~500ms]",
    "[500ms~1s]",
    "[1~2s]",
    "[2~3s]",
    "[3~4s]",
    "[4~5s]",
    "[5~10s]",
    "[10s~]",
];

/// Times from a send's arrival to its acknowledgement. Each core keeps one; core 0 adds them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutLatency {
    counts: [u64; LATENCY_BUCKETS],
    max_ms: u64,
    sum_ms: u64,
}

impl PutLatency {
    /// Counts a store that took so many whole milliseconds.
    pub fn record(&mut self, ms: u64) {
        let bucket = if ms == 0 { 0 } else { 1 + BOUNDS_MS.partition_point(|bound| *bound <= ms) };
        self.counts[bucket] += 1;
        self.max_ms = self.max_ms.max(ms);
        self.sum_ms += ms;
    }

    /// Adds what another core counted.
    pub fn merge(&mut self, other: &PutLatency) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.max_ms = self.max_ms.max(other.max_ms);
        self.sum_ms += other.sum_ms;
    }

    /// The distribution for the metrics, in seconds.
    pub fn figures(&self, figures: &mut Figures) {
        let bounds = [0].into_iter().chain(BOUNDS_MS);
        figures.histogram(
            "ringmq_put_seconds",
            "Time from a send's arrival at its shard to its acknowledgement.",
            &[],
            bounds.zip(self.counts),
            self.counts[LATENCY_BUCKETS - 1],
            self.sum_ms as f64 / 1000.0,
        );
    }

    /// The slowest, in ms.
    pub fn max_ms(&self) -> u64 {
        self.max_ms
    }

    /// `"[<=0ms]:12 [0~10ms]:3 … [10s~]:0 "`, as tools split it.
    pub fn text(&self) -> String {
        NAMES.iter().zip(self.counts).map(|(name, count)| format!("{name}:{count} ")).collect()
    }

    /// Time within which this share of the stores was done, in ms, interpolated within its bucket.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = total as f64 * share;
        let mut passed = 0.0;
        for (bucket, count) in self.counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let count = count as f64;
            if wanted <= passed + count {
                let (low, high) = self.bounds(bucket);
                return low + (high - low) * (wanted - passed) / count;
            }
            passed += count;
        }
        0.0
    }

    fn bounds(&self, bucket: usize) -> (f64, f64) {
        let max = self.max_ms as f64;
        match bucket {
            0 => (0.0, 0.0),
            1 => (0.0, max.min(BOUNDS_MS[0] as f64)),
            _ => {
                let high = BOUNDS_MS.get(bucket - 1).map_or(max, |bound| *bound as f64);
                (BOUNDS_MS[bucket - 2] as f64, max.min(high))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_javas_buckets() {
        let mut latency = PutLatency::default();
        for ms in [0, 1, 9, 10, 199, 200, 9_999, 10_000] {
            latency.record(ms);
        }
        assert_eq!(latency.counts, [1, 2, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(latency.max_ms(), 10_000);
        assert!(latency.text().starts_with("[<=0ms]:1 [0~10ms]:2 [10~50ms]:1 "));
        assert!(latency.text().ends_with("[10s~]:1 "));
        let mut sum = latency;
        sum.merge(&latency);
        assert_eq!(sum.counts[1], 4);
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        assert_eq!(PutLatency::default().quantile_ms(0.99), 0.0);
        let mut latency = PutLatency::default();
        for _ in 0..90 {
            latency.record(0);
        }
        for _ in 0..10 {
            latency.record(40);
        }
        assert_eq!(latency.quantile_ms(0.5), 0.0);
        let p99 = latency.quantile_ms(0.99);
        assert!((10.0..=40.0).contains(&p99), "{p99}");
        assert_eq!(latency.quantile_ms(1.0), 40.0);
    }
}
