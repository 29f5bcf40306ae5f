//! What is known of the records that wait for their outcome: each that the log has waits, or is settled once.

use std::collections::BTreeMap;

use ringmq_engine::{PendingKind, PendingRecord, SettleError};

/// Both kinds.
pub const KINDS: [PendingKind; 2] = [PendingKind::Delayed, PendingKind::Half];

/// Records that clients remember.
const SEEN: usize = 64;

/// A record that was staged to wait.
struct Record {
    kind: PendingKind,
    due_ms: i64,
    order: u64,
    /// Log position behind the unit that it was appended with.
    end: u64,
    /// The same of the record that settles it.
    settled: Option<u64>,
}

/// The records of one shard over all its lives.
#[derive(Default)]
pub struct Waiting {
    /// By their log position.
    records: BTreeMap<u64, Record>,
    /// Some of those that clients have seen to wait at some time, and may try to settle again.
    seen: Vec<PendingRecord>,
    /// Harm has taken records from the log, or what settles them: nothing is known any more.
    is_lost: bool,
}

impl Waiting {
    /// Harm may have taken records from the log.
    pub fn lose(&mut self) {
        self.is_lost = true;
        self.records.clear();
        self.seen.clear();
    }

    /// Whether it is known what waits.
    pub fn is_known(&self) -> bool {
        !self.is_lost
    }

    /// A record was staged that waits until `due_ms`.
    pub fn staged(&mut self, kind: PendingKind, position: u64, due_ms: i64, order: Option<u64>, end: u64) {
        let order = order.unwrap_or(position);
        if self.is_known() {
            self.records.insert(position, Record { kind, due_ms, order, end, settled: None });
        }
    }

    /// A record was staged that settles the one at `position`, and ends at `end`.
    pub fn settled(&mut self, position: u64, end: u64) {
        if self.is_lost {
            return;
        }
        let record = self.records.get_mut(&position).expect("what is settled was stored");
        assert!(
            record.settled.is_none(),
            "the record at {position} is settled twice: {:?}, {end}",
            record.settled
        );
        record.settled = Some(end);
    }

    /// Whether the record at `position` is settled by one before `committed`.
    pub fn is_settled(&self, position: u64, committed: u64) -> bool {
        let settled = self.records.get(&position).and_then(|record| record.settled);
        self.is_lost || settled.is_some_and(|end| end <= committed)
    }

    /// A client saw `record` wait.
    pub fn saw(&mut self, record: PendingRecord, random: u64) {
        match self.seen.len() {
            ..SEEN => self.seen.push(record),
            _ => self.seen[random as usize % SEEN] = record,
        }
    }

    /// A record that some client has seen to wait.
    pub fn one_seen(&self, random: u64) -> Option<PendingRecord> {
        self.seen.get(random as usize % self.seen.len().max(1)).copied()
    }

    /// Whether the record at `position` waits, and nothing that settles it is staged; `None` when that is not known.
    pub fn waits(&self, position: u64) -> Option<bool> {
        self.records.get(&position).map(|record| record.settled.is_none())
    }

    /// The store did not let `record` be settled.
    pub fn refused(&self, record: &PendingRecord, error: &SettleError) {
        let SettleError::NotPending { .. } = error else { return };
        let known = self.records.get(&record.position.0);
        let is_settled = known.is_none_or(|known| known.settled.is_some());
        assert!(is_settled, "{record:?} waits, and the store says that it does not");
    }

    /// Log position of the oldest record that waits in a log that ends at `committed`.
    pub fn oldest(&self, committed: u64) -> Option<u64> {
        let waits =
            |record: &Record| record.end <= committed && record.settled.is_none_or(|end| end > committed);
        self.records.iter().find(|(_, record)| waits(record)).map(|(position, _)| *position)
    }

    /// Nothing behind `end` is in the log any more.
    pub fn cut(&mut self, end: u64) {
        self.records.retain(|_, record| record.end <= end);
        self.seen.retain(|record| self.records.contains_key(&record.position.0));
        for record in self.records.values_mut() {
            record.settled = record.settled.filter(|settled| *settled <= end);
        }
    }

    /// How many of the kind wait, or are about to be settled.
    pub fn count(&self, kind: PendingKind) -> usize {
        self.records.values().filter(|record| record.kind == kind && record.settled.is_none()).count()
    }

    /// The store says that `record` waits: it does, and for that.
    pub fn check(&self, record: &PendingRecord) {
        let Some(known) = self.records.get(&record.position.0) else { panic!("{record:?} was never stored") };
        assert!(known.settled.is_none(), "{record:?} waits again, and is settled");
        let (found, expected) =
            ((record.kind, record.due_ms, record.order), (known.kind, known.due_ms, known.order));
        assert_eq!(found, expected, "{record:?}");
    }
}
