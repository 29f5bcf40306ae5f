//! Latencies: recorded in an HDR histogram, told as percentiles.

use hdrhistogram::Histogram;

/// Latencies are recorded up to this many ns.
const LONGEST_NS: u64 = 120_000_000_000;
const NS_PER_US: f64 = 1000.0;

/// Percentiles of a run, in µs.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90 of 100 were not slower.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// 9,999 of 10,000.
    pub p9999: f64,
    /// The slowest.
    pub max: f64,
    /// Quantile and latency, for a plot.
    pub curve: Vec<(f64, f64)>,
}

/// Collects latencies.
pub struct Recorder(Histogram<u64>);

impl Recorder {
    /// Empty; three significant digits.
    pub fn new() -> Recorder {
        Recorder(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are constant"))
    }

    /// Adds `count` latencies of `ns`.
    pub fn record(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    /// Percentiles; `None` when nothing was recorded.
    pub fn summary(&self) -> Option<Latency> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / NS_PER_US;
        Some(Latency {
            mean: self.0.mean() / NS_PER_US,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: self.0.max() as f64 / NS_PER_US,
            curve: self.quantiles().map(|quantile| (quantile, at(quantile))).collect(),
        })
    }

    /// Ten quantiles for each decade of rarity, as far as the number of samples says anything.
    fn quantiles(&self) -> impl Iterator<Item = f64> {
        let decades = (self.0.len() as f64).log10().clamp(1.0, 6.0);
        (0..=(decades * 10.0) as u32).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut recorder = Recorder::new();
        assert!(recorder.summary().is_none());
        for us in 1..=1000 {
            recorder.record(us * 1000, 1);
        }
        let latency = recorder.summary().unwrap();
        assert!((latency.p50 - 500.0).abs() < 2.0 && (latency.p99 - 990.0).abs() < 2.0, "{latency:?}");
        assert!((latency.max - 1000.0).abs() < 2.0);
        assert_eq!(latency.curve.first().unwrap().0, 0.0);
        assert!(latency.curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }
}
