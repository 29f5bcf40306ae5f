//! Transactions: what a half message says, when its producer is asked for it, and what a request to end it must
//! match. The shard that owns the real queue keeps the half message, and appends its outcome.

use std::time::Duration;

use ringmq_engine::{PhysicalOffset, QueueId};
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::{RecordView, sys_flag};

/// The property that Java's broker adds to half messages: their UNIQ_KEY once more.
pub const TRANSACTION_ID: &str = "__transactionId__";
/// Most bytes of properties that a half message gets on its way, besides its topic: REAL_TOPIC, REAL_QID, the id, when
/// it is due, how often it was asked for.
pub const ADDED: usize = 512;

/// The options of transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// How old a half message is when its producer is asked for the first time.
    pub timeout: Duration,
    /// How long after that it is asked again, each time.
    pub check_interval: Duration,
    /// How often.
    pub check_max: u32,
    /// No half message is taken.
    pub reject: bool,
}

/// When a half message was made, and when it came, in ms.
#[derive(Clone, Copy, Debug)]
pub struct HalfTimes {
    /// Now.
    pub now_ms: i64,
    /// By its producer's clock.
    pub born_ms: i64,
}

impl TransactionConfig {
    /// When the producer is asked first: as long after the message was made as the message itself says, or the options.
    /// A producer's clock that goes wrong neither hurries that nor puts it off.
    pub fn first_check_ms(&self, times: HalfTimes, immunity: Option<&str>) -> i64 {
        let patience_ms = self.immunity_ms(immunity).unwrap_or(as_ms(self.timeout));
        let age_ms = times.now_ms.saturating_sub(times.born_ms).clamp(0, patience_ms);
        times.now_ms.saturating_add(patience_ms - age_ms)
    }

    /// CHECK_IMMUNITY_TIME_IN_SECONDS as Java reads it: what is no number, or -1, stands for the timeout.
    fn immunity_ms(&self, immunity: Option<&str>) -> Option<i64> {
        let seconds = immunity?.parse::<i64>().unwrap_or(-1);
        Some(if seconds < 0 {
            as_ms(self.timeout)
        } else {
            seconds.saturating_mul(1000).min(MAX_IMMUNITY_MS)
        })
    }

    /// Whether it is too late for the producer to end the message by itself: the check that is due decides.
    pub fn is_immune(&self, half: &Half<'_>, now_ms: i64) -> bool {
        let immunity = self.immunity_ms(half.immunity);
        immunity.is_some_and(|ms| now_ms.saturating_sub(half.born_ms) > ms)
    }
}

/// A longer immunity is none: ten years, in ms.
const MAX_IMMUNITY_MS: i64 = 10 * 365 * 24 * 3_600_000;

fn as_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What a half message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half<'a> {
    /// Where it goes when it is committed.
    pub topic: &'a str,
    /// The queue there.
    pub queue_id: QueueId,
    /// Whose it is.
    pub producer_group: &'a str,
    /// Its UNIQ_KEY.
    pub uniq_key: Option<&'a str>,
    /// How often its producer was asked for it.
    pub checks: u32,
    /// When it was made, in ms.
    pub born_ms: i64,
    /// CHECK_IMMUNITY_TIME_IN_SECONDS.
    pub immunity: Option<&'a str>,
}

impl<'a> Half<'a> {
    /// Reads a stored half message; `None` when it does not say where it goes.
    pub fn read(view: &RecordView<'a>) -> Option<Half<'a>> {
        let find = |name| properties::find(view.properties, name);
        Some(Half {
            topic: find(property::REAL_TOPIC)?,
            queue_id: QueueId(find(property::REAL_QUEUE_ID)?.parse().ok()?),
            producer_group: find(property::PRODUCER_GROUP).unwrap_or_default(),
            uniq_key: find(property::UNIQ_KEY),
            checks: find(property::TRANSACTION_CHECK_TIMES).and_then(|times| times.parse().ok()).unwrap_or(0),
            born_ms: view.born_timestamp,
            immunity: find(property::CHECK_IMMUNITY_TIME),
        })
    }
}

/// What becomes of a half message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its message is delivered.
    Commit,
    /// It is dropped.
    Rollback,
}

impl Verdict {
    /// Of a request's commitOrRollback; `None` when the producer does not know yet, or it is nothing.
    pub fn of(commit_or_rollback: i32) -> Option<Verdict> {
        match commit_or_rollback {
            sys_flag::TRANSACTION_COMMIT => Some(Verdict::Commit),
            sys_flag::TRANSACTION_ROLLBACK => Some(Verdict::Rollback),
            _ => None,
        }
    }
}

/// A request to end a transaction (37).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTransaction {
    /// The half message.
    pub half: PhysicalOffset,
    /// Its queue offset.
    pub state_offset: i64,
    /// Who asks.
    pub producer_group: String,
    /// For what.
    pub verdict: Verdict,
    /// The broker had asked.
    pub from_check: bool,
}

/// Why a transaction was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEnded {
    /// There is no such half message, or its outcome is known.
    NotFound,
    /// It is another group's.
    ProducerGroup,
    /// It has another queue offset.
    StateOffset,
    /// It is too late without being asked.
    Immune,
}

impl EndTransaction {
    /// Java's checks, in Java's order. `queue_offset` is the half message's own.
    pub fn check(
        &self,
        config: &TransactionConfig,
        half: &Half<'_>,
        queue_offset: i64,
        now_ms: i64,
    ) -> Result<(), NotEnded> {
        if !self.from_check && config.is_immune(half, now_ms) {
            return Err(NotEnded::Immune);
        }
        if half.producer_group != self.producer_group {
            return Err(NotEnded::ProducerGroup);
        }
        if queue_offset != self.state_offset {
            return Err(NotEnded::StateOffset);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TransactionConfig {
        TransactionConfig {
            timeout: Duration::from_secs(6),
            check_interval: Duration::from_secs(30),
            check_max: 15,
            reject: false,
        }
    }

    #[test]
    fn the_first_check_is_due_after_the_timeout_or_the_immunity() {
        let first =
            |born_ms, immunity| config().first_check_ms(HalfTimes { now_ms: 100_000, born_ms }, immunity);
        assert_eq!(first(100_000, None), 106_000);
        assert_eq!(first(98_000, None), 104_000);
        assert_eq!(first(0, None), 100_000, "a slow clock does not put it into the past");
        assert_eq!(first(999_000, None), 106_000, "a fast one does not put it off");
        assert_eq!(first(100_000, Some("60")), 160_000);
        assert_eq!(first(100_000, Some("-1")), 106_000);
        assert_eq!(first(100_000, Some("soon")), 106_000);
        assert!(first(100_000, Some("9223372036854775807")) > 100_000);
    }

    #[test]
    fn a_request_must_match_the_half_message() {
        let half = Half {
            topic: "t",
            queue_id: QueueId(0),
            producer_group: "p",
            uniq_key: None,
            checks: 0,
            born_ms: 1000,
            immunity: Some("5"),
        };
        let end = EndTransaction {
            half: PhysicalOffset::from_wire(9).unwrap(),
            state_offset: 7,
            producer_group: "p".into(),
            verdict: Verdict::Commit,
            from_check: false,
        };
        let check = |end: &EndTransaction, offset, now_ms| end.check(&config(), &half, offset, now_ms);
        assert_eq!(check(&end, 7, 6000), Ok(()));
        assert_eq!(check(&end, 7, 6001), Err(NotEnded::Immune));
        assert_eq!(check(&EndTransaction { from_check: true, ..end.clone() }, 7, 6001), Ok(()));
        assert_eq!(check(&end, 8, 0), Err(NotEnded::StateOffset));
        let other = EndTransaction { producer_group: "q".into(), ..end };
        assert_eq!(check(&other, 8, 0), Err(NotEnded::ProducerGroup));
    }
}
