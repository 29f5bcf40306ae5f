//! Totals as they stood at midnight.

const DAY_MS: i64 = 86_400_000;

/// Messages stored and fetched, now and at the last two midnights (UTC). They count from the broker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DailyTotals {
    day: i64,
    /// Stored, at yesterday's midnight.
    pub put_yesterday_morning: u64,
    /// Stored, at today's midnight.
    pub put_today_morning: u64,
    /// Fetched, at yesterday's midnight.
    pub get_yesterday_morning: u64,
    /// Fetched, at today's midnight.
    pub get_today_morning: u64,
}

impl DailyTotals {
    /// Of a broker that starts now.
    pub fn new(now_ms: i64) -> DailyTotals {
        DailyTotals { day: now_ms.div_euclid(DAY_MS), ..DailyTotals::default() }
    }

    /// Takes note of a midnight that has passed. To be called every minute or so.
    pub fn roll(&mut self, now_ms: i64, put: u64, get: u64) {
        let day = now_ms.div_euclid(DAY_MS);
        if day <= self.day {
            return;
        }
        self.day = day;
        self.put_yesterday_morning = std::mem::replace(&mut self.put_today_morning, put);
        self.get_yesterday_morning = std::mem::replace(&mut self.get_today_morning, get);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnights_move_the_totals_on() {
        let mut totals = DailyTotals::new(10 * DAY_MS + 5);
        totals.roll(10 * DAY_MS + 6, 3, 1);
        assert_eq!((totals.put_today_morning, totals.get_today_morning), (0, 0));
        totals.roll(11 * DAY_MS, 7, 2);
        totals.roll(12 * DAY_MS + 9, 9, 4);
        assert_eq!((totals.put_yesterday_morning, totals.put_today_morning), (7, 9));
        assert_eq!((totals.get_yesterday_morning, totals.get_today_morning), (2, 4));
    }
}
