//! Delivery of delayed messages: what is due becomes a message of its real topic and queue, which this shard owns.

use std::time::Duration;

use ringmq_engine::{
    AppendError, LogPosition, NewMessage, PendingKind, PendingRecord, QueueId, ReadError, SettleError,
};
use ringmq_env::IoSlice;
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::{RecordView, sys_flag};
use smallvec::SmallVec;

use super::*;
use crate::edge::push_property;
use crate::metrics::Figures;

/// Deliveries of a shard that are staged and not committed, at most: a backlog of what is due shares each group commit
/// with the sends that come in, and never fills it.
const MAX_IN_FLIGHT: usize = 512;
/// Messages delivered between two yields.
const BATCH: usize = 64;
/// The longest sleep while something waits: how late a message may be that is due sooner than all before it, and how
/// long it takes to see that the clock has jumped.
const MAX_SLEEP_MS: i64 = 20;
/// Sleep when there is no room for deliveries, in ms.
const BUSY_SLEEP_MS: i64 = 2;
/// Sleep when the disk is full or cannot be read, in ms.
const ERROR_SLEEP_MS: i64 = 500;
/// Records nearer to each other than this are read from disk together.
const DENSE: u64 = 16 << 10;
/// Bits of sysFlag that the hosts' addresses decide.
const HOST_FLAGS: i32 = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
/// Most bytes of properties that a delivery adds.
pub(super) const ADDED: usize = 80;

/// What became of one record.
enum Step {
    /// Delivered, or nothing to deliver.
    Next,
    /// Try again after so many ms.
    Wait(i64),
}

/// Bounds of the figure of what is due soon, in seconds; Java's, and what is late.
const DUE_WITHIN: [i64; 9] = [0, 5, 60, 300, 900, 3600, 14_400, 28_800, 86_400];

impl<E: Env> ShardService<E> {
    /// Delivers what is due, until the shard closes.
    pub(super) async fn deliver_delayed(self: Rc<Self>, core: Rc<Core<E>>) {
        while self.shard.until_pending(PendingKind::Delayed).await {
            let sleep_ms = self.deliver_some(&core).await;
            match u64::try_from(sleep_ms) {
                Ok(ms @ 1..) => core.env.sleep(Duration::from_millis(ms)).await,
                _ => core.env.yield_now().await,
            }
        }
    }

    /// What waits for its time, and what nobody could consume.
    pub(crate) async fn delay_figures(&self, core: &Core<E>, figures: &mut Figures) {
        let stats = self.shard.pending_stats(PendingKind::Delayed);
        let help = "Delayed messages that wait for their time, by where.";
        let on_disk = stats.count.saturating_sub(stats.in_memory as u64);
        figures.gauge("ringmq_delayed_messages", help, &[("in", "memory")], stats.in_memory as f64);
        figures.gauge("ringmq_delayed_messages", help, &[("in", "disk")], on_disk as f64);
        let shard = self.id.0.to_string();
        let late_ms = stats.next_due_ms.map_or(0, |due_ms| core.env.wall_ms().saturating_sub(due_ms).max(0));
        let help = "How long the earliest delayed message that waits has been due.";
        figures.gauge("ringmq_delayed_behind_seconds", help, &[("shard", &shard)], late_ms as f64 / 1000.0);
        let now_ms = core.env.wall_ms();
        let bounds = DUE_WITHIN.map(|seconds| now_ms.saturating_add(seconds * 1000));
        let counts = self.shard.pending_due_before(PendingKind::Delayed, &bounds).await;
        for (seconds, count) in DUE_WITHIN.iter().zip(counts) {
            let help = "Delayed messages that are due within so many seconds; far ones are left out while they are on disk.";
            let labels = [("shard", &*shard), ("within", &*seconds.to_string())];
            figures.gauge("ringmq_delayed_due_messages", help, &labels, count as f64);
        }
    }

    /// Delivers a batch of what is due; returns for how long to sleep then, in ms.
    async fn deliver_some(&self, core: &Core<E>) -> i64 {
        let stats = self.shard.pending_stats(PendingKind::Delayed);
        let now_ms = core.env.wall_ms();
        let room = MAX_IN_FLIGHT.saturating_sub(stats.in_flight).min(BATCH);
        if room == 0 {
            return BUSY_SLEEP_MS;
        }
        let due = match self.shard.due(PendingKind::Delayed, now_ms, room).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "waiting messages could not be read");
                return ERROR_SLEEP_MS;
            }
        };
        for record in &due {
            if let Step::Wait(ms) = self.deliver(core, record).await {
                return ms;
            }
        }
        if due.len() == room {
            return 0;
        }
        let next_ms = self.shard.pending_stats(PendingKind::Delayed).next_due_ms.unwrap_or(i64::MAX);
        next_ms.saturating_sub(core.env.wall_ms()).clamp(1, MAX_SLEEP_MS)
    }

    async fn deliver(&self, core: &Core<E>, record: &PendingRecord) -> Step {
        let LogPosition(last) = self.last_delivered.replace(record.position);
        let is_dense = record.position.0.abs_diff(last) < DENSE;
        let bytes = match self.shard.read_pending(record, is_dense).await {
            Ok(Some(bytes)) => bytes,
            // Recalled meanwhile.
            Ok(None) => return Step::Next,
            Err(ReadError::Damaged { .. }) => {
                self.shard.abandon_pending(record);
                return Step::Next;
            }
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "a message that is due cannot be read");
                return Step::Wait(ERROR_SLEEP_MS);
            }
        };
        match self.append_delivery(core, record, &bytes) {
            Ok(()) => Step::Next,
            // Recalled meanwhile.
            Err(SettleError::NotPending { .. }) => Step::Next,
            Err(SettleError::Refused(AppendError::Busy { .. })) => Step::Wait(BUSY_SLEEP_MS),
            Err(SettleError::Refused(AppendError::DiskFull { .. } | AppendError::LogFull { .. })) => {
                Step::Wait(ERROR_SLEEP_MS)
            }
            Err(SettleError::Refused(AppendError::Closed)) => Step::Wait(1),
            Err(SettleError::Refused(error)) => {
                tracing::error!(shard = self.id.0, ?record, %error, "a message that is due cannot be stored");
                self.shard.abandon_pending(record);
                Step::Next
            }
        }
    }

    /// Stages the message that the stored record becomes. As Java's deliveries, it keeps the properties of the waiting:
    /// DELAY, REAL_TOPIC, REAL_QID, TIMER_OUT_MS.
    fn append_delivery(
        &self,
        core: &Core<E>,
        record: &PendingRecord,
        bytes: &IoSlice,
    ) -> Result<(), SettleError> {
        let view = RecordView::decode(bytes).ok();
        let Some((view, (topic, queue_id))) = view.and_then(|view| Some((view, target(&view)?))) else {
            tracing::error!(shard = self.id.0, ?record, "a message that is due does not say where it goes");
            self.shard.abandon_pending(record);
            return Ok(());
        };
        let now_ms = core.env.wall_ms();
        let mut added = Vec::new();
        if view.topic == topics::TIMER_TOPIC {
            push_property(&mut added, property::TIMER_ENQUEUE_MS, &view.store_timestamp.to_string());
            push_property(&mut added, property::TIMER_DEQUEUE_MS, &now_ms.to_string());
        }
        let kept = properties::without(view.properties, &[property::DUE]);
        let mut parts: SmallVec<[&[u8]; 4]> = kept.iter().map(|part| part.as_bytes()).collect();
        parts.push(&added);
        let message = NewMessage {
            topic,
            queue_id,
            flag: view.flag,
            sys_flag: view.sys_flag & !HOST_FLAGS,
            born_timestamp: view.born_timestamp,
            born_host: view.born_host,
            store_host: view.store_host,
            reconsume_times: view.reconsume_times,
            prepared_transaction_offset: 0,
            body: view.body,
            properties: &parts,
        };
        self.shard.append_settling(&message, record)?;
        let late_ms = now_ms.saturating_sub(record.due_ms).max(0) as u64;
        self.meters.borrow_mut().delivered(topic, view.body.len() as u64, late_ms);
        Ok(())
    }
}

/// Topic and queue that a delayed message goes to.
fn target<'a>(view: &RecordView<'a>) -> Option<(&'a str, QueueId)> {
    let topic = properties::find(view.properties, property::REAL_TOPIC)?;
    let queue_id = properties::find(view.properties, property::REAL_QUEUE_ID)?.parse().ok()?;
    Some((topic, QueueId(queue_id)))
}
