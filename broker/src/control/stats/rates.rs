//! Rates over the last 10, 60 and 600 seconds.

use std::collections::VecDeque;

/// Samples that are kept: ten minutes' worth at one a second.
const MAX_SAMPLES: usize = 601;
/// The windows of each figure, in ms.
const WINDOWS_MS: [i64; 3] = [10_000, 60_000, 600_000];

/// What has gone through the node since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages stored.
    pub put: u64,
    /// Pulls that found messages.
    pub get_found: u64,
    /// Pulls that found none.
    pub get_miss: u64,
    /// Messages handed to consumers.
    pub transferred: u64,
    /// Messages that SQL92 filters were evaluated for.
    pub filter_evaluated: u64,
    /// Of these, the ones that were not wanted.
    pub filter_rejected: u64,
}

/// Totals as they were at several moments of the last ten minutes.
#[derive(Clone, Debug, Default)]
pub struct StoreRates {
    samples: VecDeque<(i64, Totals)>,
}

impl StoreRates {
    /// No samples yet: every rate is 0.
    pub fn new() -> StoreRates {
        StoreRates::default()
    }

    /// Remembers the totals of this moment. To be called once a second, or less often if coarser rates do.
    pub fn sample(&mut self, now_ms: i64, totals: Totals) {
        if self.samples.back().is_some_and(|(last, _)| *last >= now_ms) {
            return;
        }
        self.samples.push_back((now_ms, totals));
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// The newest totals.
    pub fn totals(&self) -> Totals {
        self.samples.back().map(|(_, totals)| *totals).unwrap_or_default()
    }

    /// `"10s 60s 600s"`: events a second over each window, or over the time since the start where that is shorter.
    pub fn text(&self, of: impl Fn(&Totals) -> u64) -> String {
        WINDOWS_MS.map(|window| format!("{:.3}", self.rate(window, &of))).join(" ")
    }

    fn rate(&self, window_ms: i64, of: impl Fn(&Totals) -> u64) -> f64 {
        let Some((now, last)) = self.samples.back() else { return 0.0 };
        let begin = self.samples.partition_point(|(at, _)| *at <= now - window_ms).saturating_sub(1);
        let (then, first) = &self.samples[begin];
        if now <= then {
            return 0.0;
        }
        of(last).saturating_sub(of(first)) as f64 * 1000.0 / (now - then) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_their_windows() {
        let mut rates = StoreRates::new();
        assert_eq!(rates.text(|totals| totals.put), "0.000 0.000 0.000");
        for second in 0..=700 {
            // 5 a second, and 50 a second in the last ten.
            let put = 5 * second + 45 * (second - 690).max(0);
            rates.sample(second * 1000, Totals { put: put as u64, ..Totals::default() });
        }
        assert_eq!(rates.text(|totals| totals.put), "50.000 12.500 5.750");
        assert_eq!(rates.totals().put, 3950);
        assert_eq!(rates.samples.len(), MAX_SAMPLES);
    }

    #[test]
    fn a_short_life_is_its_own_window() {
        let mut rates = StoreRates::new();
        rates.sample(0, Totals::default());
        rates.sample(2000, Totals { put: 10, ..Totals::default() });
        rates.sample(1000, Totals { put: 99, ..Totals::default() });
        assert_eq!(rates.text(|totals| totals.put), "5.000 5.000 5.000");
    }
}
