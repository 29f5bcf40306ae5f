//! Records that wait, and what becomes of them: due, settled once, put off, and back after a crash.

use std::time::Duration;

use ringmq_engine::*;
use ringmq_env::Env;
use ringmq_env::sim::Fault;
use ringmq_protocol::record::RecordView;

use super::life::{Life, SHARD, waiting_in_memory};
use super::model::{Queue, Relation};
use super::waiting::KINDS;
use super::work::message;

/// Records that are settled at once, at most.
const AT_ONCE: usize = 8;
/// Records that somebody saw at some time, of which each check asks whether they still wait.
const ASKED: usize = 4;
/// Longest time that a record waits, in ms; most wait for far less.
const LONGEST_WAIT_MS: u64 = 100_000;

impl Life {
    /// Holds what waits against the model. Harm to the tables keeps records back until the next start at most, and none
    /// in a life in which nothing goes wrong and whose start found all damage, as that of the last one has.
    pub(super) async fn check_waiting(&self) {
        if !self.world.model.borrow().waiting.is_known() {
            return;
        }
        self.check_kept();
        // First: what is looked for below is loaded into memory.
        for _ in 0..ASKED {
            let seen = self.world.model.borrow().waiting.one_seen(self.env.random());
            if let Some(record) = seen {
                self.still_waits(&record).await;
            }
        }
        for kind in KINDS {
            let waiting = self.world.model.borrow().waiting.count(kind);
            let count = self.shard.pending_stats(kind).count;
            assert_eq!(count, waiting as u64, "{kind:?}: so many wait");
            let Some(found) = self.due(kind, i64::MAX - 1, usize::MAX).await else { continue };
            found.iter().for_each(|record| self.world.model.borrow().waiting.check(record));
            // More than are held in memory are told bit by bit.
            let is_some = waiting >= waiting_in_memory(&self.world.plan) && !found.is_empty();
            assert!(
                found.len() == waiting || is_some || self.may_be_kept_back(),
                "{kind:?}: {} of {waiting} are found",
                found.len()
            );
        }
    }

    /// Retention has kept what waits, and will: only harm to the log takes any of it.
    pub(super) fn check_kept(&self) {
        let (stats, needed) = (self.shard.stats(), self.shard.oldest_needed().0);
        let Some(oldest) = self.world.model.borrow().waiting.oldest(stats.log_committed) else { return };
        let min = stats.log_min.max(stats.log_expired);
        assert!(
            needed <= oldest,
            "the record at {oldest} waits, and the log is needed from {needed} on only"
        );
        assert!(min <= oldest, "the record at {oldest} waits, and the log begins at {min}");
    }

    /// Whether records may wait for the next start, because the tables have been harmed.
    pub(super) fn may_be_kept_back(&self) -> bool {
        self.world.look_at_harm(&self.env);
        !self.world.is_last.get() && self.world.model.borrow().is_harmed_in_tables()
    }

    /// What is due; `None` if the device's error is to be expected.
    async fn due(&self, kind: PendingKind, now_ms: i64, max: usize) -> Option<Vec<PendingRecord>> {
        match self.shard.due(kind, now_ms, max).await {
            Ok(due) => {
                assert!(due.iter().all(|record| record.due_ms <= now_ms), "before its time: {due:?}");
                Some(due)
            }
            Err(error) => {
                let expected = self.may_be_kept_back() || self.world.may(&[Fault::ReadError]);
                assert!(expected, "what is due cannot be found out: {error}");
                None
            }
        }
    }

    /// Stores a record that waits.
    pub(super) fn append_waiting(&self) {
        let random = self.env.random();
        let kind = KINDS[(random % 2) as usize];
        let wait = (random >> 32) % (1 + (LONGEST_WAIT_MS >> ((random >> 8) % 17)));
        let due_ms = self.env.wall_ms() + wait as i64;
        let draft = self.draft(Relation { due: Some((due_ms, None)), settles: None });
        let queue = Queue::waiting(kind);
        match self.shard.append(&[message(queue, &draft.body, &[draft.properties.as_bytes()])]) {
            Ok(appended) => self.staged(queue, &[draft], &appended),
            Err(error) => self.refused_append(&error),
        }
    }

    /// Settles some of the records that are due, or, as a recall or a commit does, some that are not.
    pub(super) async fn settle_some(&self) {
        let random = self.env.random();
        let kind = KINDS[(random % 2) as usize];
        let now_ms = if (random >> 8).is_multiple_of(3) { i64::MAX - 1 } else { self.env.wall_ms() };
        for record in self.due(kind, now_ms, AT_ONCE).await.unwrap_or_default() {
            self.world.model.borrow_mut().waiting.saw(record, random >> 16);
            self.read_waiting(&record).await;
            if self.still_waits(&record).await {
                self.settle(&record);
            }
        }
    }

    /// Settles a record that was seen to wait at some time, as a recall or a commit that is sent once more does: it is
    /// settled if it waits, and never again.
    pub(super) async fn settle_again(&self) {
        let seen = self.world.model.borrow().waiting.one_seen(self.env.random());
        if let Some(record) = seen
            && self.still_waits(&record).await
        {
            self.settle(&record);
        }
    }

    /// What the store says, which must be so.
    async fn still_waits(&self, record: &PendingRecord) -> bool {
        match self.shard.still_waits(record).await {
            Ok(waits) => {
                let known = self.world.model.borrow().waiting.waits(record.position.0);
                // Of a group commit that had no space the model learns by and by.
                let is_back = waits && !self.is_settled(record) && self.may_lack_space();
                let is_so = is_back || known.is_none_or(|known| known == waits);
                assert!(is_so, "{record:?}: it waits, says the store: {waits}");
                waits
            }
            Err(error) => self.failed_read(&error).unwrap_or(false),
        }
    }

    /// Settles everything, while nothing goes wrong.
    pub(super) async fn settle_all(&self) {
        // What is staged waits from its commit on.
        self.until(|| self.world.model.borrow().is_settled()).await;
        for kind in KINDS {
            loop {
                let due = self.due(kind, i64::MAX - 1, AT_ONCE).await.unwrap_or_default();
                if due.is_empty() {
                    break;
                }
                due.iter().for_each(|record| self.settle(record));
                self.env.sleep(Duration::from_millis(1)).await;
            }
            let is_over = self.shard.pending_stats(kind).next_due_ms.is_none();
            let left = self.world.model.borrow().waiting.count(kind);
            let is_all = is_over && left == 0;
            assert!(is_all || self.may_be_kept_back(), "{kind:?}: {left} wait and are never due");
        }
    }

    async fn read_waiting(&self, record: &PendingRecord) {
        match self.shard.read_pending(record, self.env.random().is_multiple_of(2)).await {
            Ok(Some(bytes)) => {
                assert_eq!(PendingRecord::read(record.position, &bytes), Some(*record));
                assert!(RecordView::decode(&bytes).is_ok(), "{record:?}");
            }
            // Another client has settled it meanwhile, and then its segment was deleted.
            Ok(None) => assert!(
                self.is_being_settled(record),
                "{record:?} waits, and the store says that it does not"
            ),
            Err(error) => drop(self.failed_read::<()>(&error)),
        }
    }

    /// Whether what settles the record is committed.
    fn is_settled(&self, record: &PendingRecord) -> bool {
        let committed = self.shard.stats().log_committed;
        self.world.model.borrow().waiting.is_settled(record.position.0, committed)
    }

    /// Whether what settles the record is staged, at least.
    fn is_being_settled(&self, record: &PendingRecord) -> bool {
        self.world.model.borrow().waiting.waits(record.position.0) != Some(true)
    }

    /// Stages the outcome of a record, or puts it off.
    fn settle(&self, record: &PendingRecord) {
        let random = self.env.random();
        let is_put_off = !self.world.is_calm() && random.is_multiple_of(8);
        let later = record.due_ms.saturating_add(20).min(i64::MAX - 1);
        let due = is_put_off.then_some((later, Some(record.order)));
        let queue = if is_put_off { Queue::waiting(record.kind) } else { Queue::plain(random >> 8) };
        if self.world.model.borrow().half_deleted() == Some(queue.topic) {
            return;
        }
        let physical = PhysicalOffset::new(SHARD, record.position).get();
        let field = if record.kind == PendingKind::Half { physical } else { !physical };
        let draft = self.draft(Relation { due, settles: Some((field, record.position.0)) });
        let properties = [draft.properties.as_bytes()];
        let outcome = message(queue, &draft.body, &properties);
        match self.shard.append_settling(&outcome, record) {
            Ok(appended) => {
                self.staged(queue, std::slice::from_ref(&draft), &appended);
                if (random >> 40).is_multiple_of(4) {
                    let twice = self.shard.append_settling(&outcome, record);
                    assert!(matches!(twice, Err(SettleError::NotPending { .. })), "{record:?}: {twice:?}");
                }
            }
            Err(SettleError::Refused(error)) => self.refused_append(&error),
            Err(error) => self.world.model.borrow().waiting.refused(record, &error),
        }
    }
}
