//! Counters of what goes through the broker, as rates over windows: RocketMQ's StoreStatsService (the TPS figures of
//! 28), BrokerStatsManager (315, and the rates in 202 and 208) and BrokerStats (totals by day).

mod daily;
mod items;
mod latency;
mod rates;

pub use daily::DailyTotals;
pub use items::{ITEMS_AT_ONCE, MAX_ITEMS, PutsHandle, StatsDelta, StatsKind, StatsRecorder, StatsTable};
pub use latency::{LATENCY_BUCKETS, PutLatency};
pub use rates::{StoreRates, Totals};
