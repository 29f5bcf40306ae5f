//! A node's wall clock: it jumps and drifts against the true time.

use std::cell::Cell;

/// The wall clock when the simulation starts, in milliseconds since 1970.
const WALL_START_MS: i64 = 1_800_000_000_000;

/// Time is in nanoseconds of virtual time where nothing else is said.
pub(super) struct WallClock {
    /// What it showed, in ms, at a point in virtual time.
    shown: Cell<(i64, u64)>,
    /// How much faster than true it runs since, in parts per million.
    drift: Cell<i64>,
}

impl Default for WallClock {
    fn default() -> WallClock {
        WallClock { shown: Cell::new((WALL_START_MS, 0)), drift: Cell::new(0) }
    }
}

impl WallClock {
    /// What it shows, in ms since 1970.
    pub(super) fn wall_ms(&self, now: u64) -> i64 {
        let (shown, since) = self.shown.get();
        let elapsed =
            i128::from(now - since) * i128::from(1_000_000 + self.drift.get()) / 1_000_000 / 1_000_000;
        shown.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    pub(super) fn jump(&self, ms: i64) {
        let (shown, since) = self.shown.get();
        self.shown.set((shown.saturating_add(ms), since));
    }

    /// Lets it run so many parts per million faster than true from now on.
    pub(super) fn drift(&self, now: u64, drift: i64) {
        self.shown.set((self.wall_ms(now), now));
        self.drift.set(drift);
    }
}
