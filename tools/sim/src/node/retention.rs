//! What the brokers of a run keep, and for how long.

use std::time::Duration;

use ringmq_broker::BrokerConfig;
use ringmq_engine::RetentionPolicy;
use ringmq_env::Instant;

use crate::plan::Plan;

/// Segments of a run with retention, in bytes: small ones, so that some are full.
const SEGMENT: u64 = 128 << 10;
/// How often a broker looks for what may go.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a broker keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Everything.
    All,
    /// What is not older.
    Younger(Duration),
    /// So many bytes of log in each shard, and what waits for its time or its outcome.
    Bytes(u64),
}

impl Retention {
    /// That of the run.
    pub fn of(plan: &Plan) -> Retention {
        // Of its own, as the plan's.
        let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x6b65_6570);
        match random.u8(..4) {
            0 => Retention::Younger(Duration::from_secs(1 << random.u32(..6))),
            1 => Retention::Bytes(SEGMENT * random.u64(1..4)),
            _ => Retention::All,
        }
    }

    /// Sets what the broker has to know.
    pub fn configure(&self, config: &mut BrokerConfig) {
        let mut policy = RetentionPolicy {
            reserved_ms: 10 * 365 * 24 * 3_600_000,
            delete_hours: (0..24).collect(),
            max_bytes: 0,
            max_used_percent: 100,
            force_percent: 100,
        };
        match self {
            Retention::All => {}
            Retention::Younger(age) => policy.reserved_ms = age.as_millis() as i64,
            Retention::Bytes(bytes) => policy.max_bytes = *bytes,
        }
        if *self != Retention::All {
            config.segment_size = SEGMENT;
        }
        config.retention = policy;
        config.retention_interval = INTERVAL;
    }

    /// Whether a message may be gone that was sent at `sent` first. Of a log that is too long anything may be: where a
    /// message lies in it the model does not know.
    pub fn allows(&self, sent: Instant, now: Instant) -> bool {
        match self {
            Retention::All => false,
            Retention::Younger(age) => now.since(sent) > *age,
            Retention::Bytes(_) => true,
        }
    }
}
