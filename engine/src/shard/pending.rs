//! Records that wait for their outcome, and the appends that are it.

use ringmq_env::{Env, IoSlice, mutant};

use super::append::{Known, Relation};
use super::{Inner, Shard};
use crate::pending::{Pending, Settling, settling_field};
use crate::types::*;

impl<E: Env> Shard<E> {
    /// Stages one message that is the outcome of an earlier record of this shard: the message of a delayed or half
    /// message whose time or commit has come, the mark of a rollback or a recall, or the record itself put off (then
    /// the message is one that waits, too).
    ///
    /// The message is stored with the record's physical offset in its field PREPAREDTRANSACTIONOFFSET (complemented for
    /// [`PendingKind::Delayed`]), whatever [`NewMessage::prepared_transaction_offset`] says, and the record waits no more: both or neither, after any
    /// crash, since the stored message itself is the mark. From this call on nothing else can settle the record. If
    /// the group commit fails for want of space ([`Commit::failed`]), it waits again. To settle it finally is up to
    /// the commit: [`Appended::end`] says when.
    ///
    /// A record waits from the commit on that stores it, if it lies under the topic of a [`PendingKind`] and has the
    /// property RINGMQ_DUE: the time in ms when [`Shard::due`] is to tell of it, and, if the message was put off,
    /// a comma and its [`PendingRecord::order`]. Use [`PendingRecord::read`] to make one from the stored record, and ask
    /// [`Shard::still_waits`] before it is settled; what [`Shard::due`] returned needs no question.
    pub fn append_settling(
        &self,
        message: &NewMessage<'_>,
        record: &PendingRecord,
    ) -> Result<Appended, SettleError> {
        let pending = self.0.pending(record.kind);
        if pending.begin_settle(record) == Settling::NotPending {
            return Err(SettleError::NotPending { position: record.position.0 });
        }
        let field = settling_field(record, self.0.options.id);
        let message = NewMessage { prepared_transaction_offset: field, ..*message };
        let appended = self.0.append(Known::default(), &[message], Relation::Settles(*record));
        appended.map_err(|error| {
            pending.take_back(record);
            SettleError::Refused(error)
        })
    }

    /// Up to `max` records that wait and are due at `now_ms`, the earliest first, among equals the one that was stored
    /// first. They go on waiting, and are returned again, until they are settled.
    pub async fn due(
        &self,
        kind: PendingKind,
        now_ms: i64,
        max: usize,
    ) -> Result<Vec<PendingRecord>, std::io::Error> {
        self.0.pending(kind).due(now_ms, max).await
    }

    /// Waits until some record of the kind waits, or the shard closes: then it returns false.
    pub async fn until_pending(&self, kind: PendingKind) -> bool {
        let shard = &*self.0;
        shard.pending(kind).until_some(|| shard.closing.get()).await;
        !shard.closing.get()
    }

    /// Whether the record waits, and nothing that settles it is staged. If so, [`Shard::append_settling`] finds that, too,
    /// unless the caller awaits something in between: by itself it takes a record that is on disk alone for one that does
    /// not wait. Cancel safe: it only reads.
    pub async fn still_waits(&self, record: &PendingRecord) -> Result<bool, ReadError> {
        let waits = self.0.pending(record.kind).still_waits(record).await;
        waits.map_err(|source| ReadError::Waiting { position: record.position.0, source })
    }

    /// The stored bytes of a record that waits, with read-ahead from disk if `sequential`; `None` if they cannot be read
    /// because it waits no more: it was settled meanwhile, and then its segment was deleted. Cancel safe: it only reads.
    pub async fn read_pending(
        &self,
        record: &PendingRecord,
        sequential: bool,
    ) -> Result<Option<IoSlice>, ReadError> {
        match self.read_waiting(record, sequential).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) if matches!(self.still_waits(record).await, Ok(false)) => Ok(None),
            Err(error) => {
                let is_damaged = matches!(error, ReadError::Damaged { .. });
                self.0.count(|stats| stats.messages_damaged += u64::from(is_damaged));
                Err(error)
            }
        }
    }

    async fn read_waiting(&self, record: &PendingRecord, sequential: bool) -> Result<IoSlice, ReadError> {
        let shard = &*self.0;
        let (position, len) = (record.position, record.size as usize);
        if let Some(bytes) = shard.log.get_hot(position, len) {
            return Ok(bytes);
        }
        let read = match sequential {
            true => {
                shard.log.read_stretch(position, len).await.and_then(|stretch| stretch.part(position, len))
            }
            false => shard.log.read_cold(position, len).await,
        };
        let bytes = read.map_err(|source| ReadError::Io { position: position.0, len, source })?;
        let whole = shard.whole(position, len, record.crc, bytes).await;
        whole.ok_or(ReadError::Damaged { position: position.0, len })
    }

    /// Gives up a record that waits and cannot be read back: it is never due again.
    pub fn abandon_pending(&self, record: &PendingRecord) {
        tracing::error!(shard = self.0.options.id.0, ?record, "a waiting record cannot be read: given up");
        self.0.pending(record.kind).abandon(record);
    }

    /// How much waits.
    pub fn pending_stats(&self, kind: PendingKind) -> PendingStats {
        let pending = self.0.pending(kind);
        PendingStats {
            count: pending.count(),
            in_flight: pending.in_flight(),
            in_memory: pending.in_memory(),
            next_due_ms: pending.next_due_ms(),
        }
    }

    /// How many of the records that wait are due before each of `bounds`, times in ms in ascending order; the answer is
    /// shorter when that is not known in memory. What is staged to be settled does not count. Cancel safe: it only reads.
    pub async fn pending_due_before(&self, kind: PendingKind, bounds: &[i64]) -> Vec<u64> {
        self.0.pending(kind).due_before(bounds).await
    }

    /// The position before which no record waits: the log before it is not needed for what is still to come. Retention
    /// must keep everything from here on.
    pub fn oldest_needed(&self) -> LogPosition {
        let shard = &*self.0;
        shard.delayed.oldest_position().min(shard.half.oldest_position())
    }
}

impl<E: Env> Inner<E> {
    pub(super) fn pending(&self, kind: PendingKind) -> &Pending<E> {
        match kind {
            PendingKind::Delayed => &self.delayed,
            PendingKind::Half => &self.half,
        }
    }

    pub(super) fn is_pending_due(&self) -> bool {
        let end = self.log.committed();
        self.delayed.is_save_due(false, end) || self.half.is_save_due(false, end)
    }

    /// Saves the tables whose time has come, or (`all`) both. False: there is no space, try again later.
    pub(super) async fn save_pending(&self, all: bool) -> bool {
        let mut saved = true;
        let _pass = self.saving.enter().await;
        for pending in [&self.delayed, &self.half] {
            let end = self.log.committed();
            if !pending.is_save_due(all, end) {
                continue;
            }
            let snapshot = pending.snapshot(end);
            if !mutant!("pending-ahead-of-log") && !self.log.flush().await {
                pending.drop_snapshot(snapshot);
                saved = false;
                continue;
            }
            if let Err(error) = pending.save(snapshot).await {
                tracing::error!(shard = self.options.id.0, %error, "the waiting records could not be saved");
                saved = false;
            }
        }
        saved
    }
}
