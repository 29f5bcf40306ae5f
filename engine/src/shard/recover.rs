//! Bringing what is derived from the log up to date with it at the start: the index, and the records that wait.

use ringmq_env::{Env, mutant};
use ringmq_protocol::record::RecordView;

use super::lmq;
use super::message::{Indexed, offsets_of};
use super::{OpenError, ShardOptions};
use crate::damage::DamageReport;
use crate::index::{Index, IndexEntry, Opening, key_hash};
use crate::log::{Log, ScannedRecord};
use crate::pending::{Pending, kind_of, settled_by};
use crate::types::*;

/// Bytes of the log read between two lines in our own log.
const TELL_EACH: u64 = 1 << 30;

/// An open log, and the tables of waiting records as they were last saved.
pub(super) struct Recovery<'a, E: Env> {
    pub env: &'a E,
    pub options: &'a ShardOptions,
    pub report: &'a DamageReport,
    pub log: &'a Log<E>,
    pub delayed: Pending<E>,
    pub half: Pending<E>,
}

/// What is derived from the log, up to date.
pub(super) struct Recovered<E: Env> {
    pub index: Index<E>,
    pub delayed: Pending<E>,
    pub half: Pending<E>,
}

impl<E: Env> Recovery<'_, E> {
    /// Takes in the index's runs, and from the log what they do not cover. What is read of the log is written as runs
    /// on the way, so that the memory that this takes does not depend on how much is missing.
    pub(super) async fn run(self, mut opening: Opening<E>) -> Result<Recovered<E>, OpenError> {
        while let Some((from, to)) = opening.next_gap().await? {
            let index = opening.index();
            tracing::warn!(
                shard = self.options.id.0,
                from = from.0,
                to = to.0,
                "a part of the index is rebuilt from the log"
            );
            self.read_stretch(index, from, to, false).await?;
            index.flush(to).await.map_err(OpenError::at(index.dir()))?;
        }
        let index = opening.index();
        let from = index.indexed_upto().min(self.delayed.upto()).min(self.half.upto());
        self.read_stretch(index, from, self.log.committed(), true).await?;
        let index = opening.finish().await?;
        let Recovery { delayed, half, .. } = self;
        delayed.recovered();
        half.recovered();
        Ok(Recovered { index, delayed, half })
    }

    /// Reads the log. What of it the index does not know, and cannot be read back, is marked before a run reaches beyond:
    /// no start would look for it again. A start that is refused for it leaves no such run.
    async fn read_stretch(
        &self,
        index: &Index<E>,
        from: LogPosition,
        to: LogPosition,
        with_pending: bool,
    ) -> Result<(), OpenError> {
        let (indexed, mut told) = (index.indexed_upto(), from.0);
        let mut replay = self.log.replay(from, to);
        loop {
            let is_more = replay.step(&mut |record| self.recover(index, record, with_pending)).await;
            for (from, to) in replay.take_lost().filter(|(_, to)| *to > indexed) {
                index.mark_lost(from.max(indexed), to);
            }
            OpenError::refuse_damage(self.options.strict, self.report)?;
            if !is_more {
                return Ok(());
            }
            let at = replay.position();
            if index.flush_due(at)
                && let Err(error) = index.flush(at).await
            {
                tracing::warn!(shard = self.options.id.0, %error, "a rebuilt part of the index stays in memory");
            }
            if at.0.saturating_sub(told) >= TELL_EACH {
                told = at.0;
                tracing::info!(shard = self.options.id.0, at = at.0, to = to.0, "reading the log");
            }
            self.env.yield_now().await;
        }
    }

    /// Brings what is derived up to date with a record that some of it does not know yet.
    fn recover(&self, index: &Index<E>, record: ScannedRecord<'_>, with_pending: bool) {
        let (shard, position) = (self.options.id, record.position);
        let view = match RecordView::decode(record.bytes) {
            Ok(view) => view,
            Err(error) => {
                tracing::error!(shard = shard.0, position = position.0, %error, "what the log holds is no record");
                return;
            }
        };
        if with_pending {
            self.recover_pending(&record, &view);
        }
        if position < index.indexed_upto() {
            return;
        }
        let indexed = Indexed::of(view.properties);
        let entry = IndexEntry {
            position,
            size: record.bytes.len() as u32,
            crc: record.crc,
            tags_code: indexed.tags_code(),
            store_ms: view.store_timestamp,
        };
        let queue = QueueId(view.queue_id as u32);
        let count = offsets_of(view.properties, view.sys_flag);
        for (lmq, offset) in lmq::dispatched(view.topic, view.properties) {
            index.recover(lmq, lmq::QUEUE, offset, 1, entry);
        }
        if index.recover(view.topic, queue, QueueOffset(view.queue_offset), count, entry) {
            for key in indexed.each_key(view.sys_flag).filter(|_| !mutant!("dedupe-key-forgotten")) {
                index.push_key(key_hash(view.topic, key), position, view.store_timestamp);
            }
        }
    }

    fn recover_pending(&self, record: &ScannedRecord<'_>, view: &RecordView<'_>) {
        let ScannedRecord { position, crc, bytes } = *record;
        let settles = settled_by(view.prepared_transaction_offset);
        let kind = kind_of(view.topic);
        let waits =
            kind.and_then(|kind| PendingRecord::of(kind, view.properties, position, bytes.len() as u32, crc));
        for pending in [&self.delayed, &self.half] {
            let waits = waits.filter(|record| record.kind == pending.kind());
            let settles = settles.filter(|(kind, _)| *kind == pending.kind()).map(|(_, settled)| settled.0);
            if settles.is_some() || waits.is_some() {
                pending.recover(position, settles, waits);
            }
        }
    }
}
