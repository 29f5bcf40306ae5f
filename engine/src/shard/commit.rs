//! From a group commit to the index and to whoever waits for the commit; and the tasks of a shard.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures_lite::future;
use ringmq_env::{DiskSpace, Env, Instant, mutant};

use super::append::PendingMark;
use super::{Inner, Shard};
use crate::index::{IndexEntry, QueueSlot};
use crate::log::{CommitStep, RELEASE_TIME};
use crate::slices::Job;
use crate::types::*;

/// Commits pause when so many arrivals have not been taken by [`Shard::next_commit`].
const MAX_PENDING_ARRIVALS: usize = 1 << 17;

/// ASYNC_FLUSH: bytes of log that make a flush due before the interval is over. Writes wait for a flush, for as long as the
/// device takes for what was written since the one before.
const MAX_UNFLUSHED: u64 = 8 << 20;

/// How often the use of the disk is looked at while messages are appended.
const DISK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long appends are refused after the device was found full, before the next one may try again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// After a failed index flush, how long the next one waits.
const INDEX_RETRY: Duration = Duration::from_secs(5);

/// A message that is staged.
pub(super) struct StagedMessage {
    pub slot: QueueSlot,
    /// First of its offsets, and their number.
    pub offset: QueueOffset,
    pub count: u32,
    pub entry: IndexEntry,
    /// What it has to do with waiting records, if anything.
    pub mark: Option<Box<PendingMark>>,
}

/// What the index learns when it is committed, in log order.
#[derive(Default)]
pub(super) struct Staged {
    pub messages: VecDeque<StagedMessage>,
    /// (hash, position, store time) of each key.
    pub keys: VecDeque<(u64, LogPosition, i64)>,
}

/// The use of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    used: u64,
    total: u64,
    /// Above the watermark when last looked at.
    is_full: bool,
    checked: Instant,
    /// Somebody wants it looked at.
    is_wanted: bool,
    /// The device had no space for a commit; appends wait until then.
    no_space_until: Option<Instant>,
}

impl<E: Env> Shard<E> {
    /// The next step of the committed watermark; one consumer. `None` once closed and all is committed.
    ///
    /// After a step with [`Commit::failed`] nothing is staged until the step was taken, so everything that the
    /// consumer knows as staged behind [`Commit::committed`] then is what was dropped.
    pub async fn next_commit(&self) -> Option<Commit> {
        let shard = &*self.0;
        shard.committed.until(|| shard.pending.borrow().is_some() || shard.commits_ended.get()).await;
        let commit = shard.pending.borrow_mut().take();
        shard.taken.notify();
        commit
    }

    /// Whether commits tell from now on what became readable ([`Commit::arrivals`]), as they do at first. With many topics
    /// it takes a look at names that are in no cache.
    pub fn tell_arrivals(&self, wanted: bool) {
        self.0.tells_arrivals.set(wanted);
    }

    /// Starts the shard's tasks. Each parks until there is work, and ends when the shard closes.
    pub(super) fn start_tasks(&self) {
        let shard = self.clone();
        self.0.env.spawn(async move { shard.0.commit_loop().await });
        let shard = self.clone();
        self.0.env.spawn(async move { shard.0.housekeeping_loop().await });
        let shard = self.clone();
        self.0.env.spawn(async move { shard.0.index_loop().await });
        let shard = self.clone();
        self.0.env.spawn(async move { shard.0.merge_loop().await });
        let shard = self.clone();
        self.0.env.spawn(async move { shard.0.pending_loop().await });
        if !self.0.options.sync_flush {
            let shard = self.clone();
            self.0.env.spawn(async move { shard.0.log.write_behind().await });
            let shard = self.clone();
            self.0.env.spawn(async move { shard.0.flush_loop().await });
        }
    }
}

impl<E: Env> Inner<E> {
    async fn commit_loop(&self) {
        loop {
            self.taken.until(|| self.closing.get() || self.pending_arrivals() < MAX_PENDING_ARRIVALS).await;
            match self.log.commit_next().await {
                CommitStep::Committed(position) => self.publish(position),
                CommitStep::RolledBack(error) => {
                    tracing::warn!(shard = self.options.id.0, %error, "no space: staged messages are refused");
                    self.drop_staged().await;
                }
                CommitStep::Closed => break,
            }
            self.committed.notify();
            self.want_look_at_disk(self.env.now());
            if self.is_housekeeping_due() || self.is_index_due() || self.is_pending_due() {
                self.work.notify();
            }
        }
        self.commits_ended.set(true);
        self.committed.notify();
    }

    fn pending_arrivals(&self) -> usize {
        self.pending.borrow().as_ref().map_or(0, |commit| commit.arrivals.len())
    }

    /// Makes everything before `committed` readable and lets [`Shard::next_commit`] tell.
    fn publish(&self, committed: LogPosition) {
        let mut staged = self.staged.borrow_mut();
        let mut pending = self.pending.borrow_mut();
        let commit = pending.get_or_insert_with(Commit::default);
        commit.committed = committed;
        let is_published =
            |m: &mut StagedMessage| m.entry.position < committed || mutant!("read-uncommitted");
        while let Some(message) = staged.messages.pop_front_if(is_published) {
            let (slot, entry) = (message.slot, message.entry);
            if self.tells_arrivals.get() {
                commit.arrivals.push(self.arrival(&message));
            }
            self.index.push(slot, message.offset, message.count, entry);
            if let Some(mark) = message.mark {
                self.publish_mark(&mark);
            }
            if self.earliest_store_ms.get() < 0 {
                self.earliest_store_ms.set(entry.store_ms);
            }
        }
        while let Some((hash, position, store_ms)) =
            staged.keys.pop_front_if(|(_, position, _)| *position < committed)
        {
            self.index.push_key(hash, position, store_ms);
        }
    }

    fn arrival(&self, message: &StagedMessage) -> Arrival {
        let (topic, queue_id) = self.index.name(message.slot);
        Arrival {
            topic,
            queue_id,
            queue_offset: QueueOffset(message.offset.0 + i64::from(message.count) - 1),
            tags_code: message.entry.tags_code,
            store_timestamp: message.entry.store_ms,
        }
    }

    fn publish_mark(&self, mark: &PendingMark) {
        if let Some(record) = &mark.settles {
            self.pending(record.kind).settled(record);
        }
        if let Some(record) = &mark.waits {
            self.pending(record.kind).insert(record);
        }
    }

    /// The log dropped what was staged: so does everything else, and the consumer is told.
    async fn drop_staged(&self) {
        self.look_at_disk().await;
        let mut disk = self.disk.get();
        disk.no_space_until = Some(self.env.now().after(NO_SPACE_PAUSE));
        self.disk.set(disk);
        {
            let mut staged = self.staged.borrow_mut();
            staged.messages.clear();
            staged.keys.clear();
        }
        self.index.unstage_all(self.log.committed());
        if !mutant!("roll-back-keeps-settled") {
            self.delayed.unsettle_all();
            self.half.unsettle_all();
        }
        let mut pending = self.pending.borrow_mut();
        let commit = pending.get_or_insert_with(Commit::default);
        commit.committed = self.log.committed();
        commit.failed = Some(self.disk_full());
        drop(pending);
        self.log.end_roll_back();
    }

    /// Why an append is refused for want of space, if it is.
    pub(super) fn disk_refuses(&self) -> Option<AppendError> {
        let disk = self.disk.get();
        let is_failing = self.pending.borrow().as_ref().is_some_and(|commit| commit.failed.is_some());
        let is_refusing = self.log.is_rolling_back() || self.log.is_out_of_space();
        if !disk.is_full && !is_failing && disk.no_space_until.is_none() && !is_refusing {
            // As always: without a look at the clock.
            return None;
        }
        let now = self.env.now();
        if self.want_look_at_disk(now) {
            self.work.notify();
        }
        let is_pausing = disk.no_space_until.is_some_and(|until| now < until);
        (disk.is_full || is_failing || is_pausing || is_refusing).then(|| self.disk_full())
    }

    /// Has the disk looked at if the last look was some time ago; true if that is new.
    fn want_look_at_disk(&self, now: Instant) -> bool {
        let mut disk = self.disk.get();
        let is_due = now.since(disk.checked) >= DISK_CHECK_INTERVAL && !disk.is_wanted;
        disk.is_wanted |= is_due;
        self.disk.set(disk);
        is_due
    }

    fn disk_full(&self) -> AppendError {
        let disk = self.disk.get();
        AppendError::DiskFull {
            path: self.options.dir.display().to_string(),
            used: disk.used,
            total: disk.total,
            limit_percent: self.options.disk_watermark_percent,
        }
    }

    /// Looks at the use of the disk. Above the watermark the log's spares are given back: what is left is for messages.
    pub(super) async fn look_at_disk(&self) {
        self.look_at_disk_and_spare(u64::from(self.options.disk_watermark_percent)).await;
    }

    /// The same, and spares are given back above a use of `most_percent`, too. What is known of the disk afterwards is its
    /// use without them. That it cannot be found out is no reason to refuse anything.
    pub(super) async fn look_at_disk_and_spare(&self, most_percent: u64) {
        let most = most_percent.min(u64::from(self.options.disk_watermark_percent));
        let is_much = |space: &DiskSpace| is_above(used_of(space), space.total, most);
        let mut space = self.env.disk_space(&self.options.dir).await;
        if space.as_ref().is_ok_and(is_much) && self.log.release_spares().await {
            self.env.sleep(RELEASE_TIME).await;
            space = self.env.disk_space(&self.options.dir).await;
        }
        self.note_disk(space);
    }

    fn note_disk(&self, space: io::Result<DiskSpace>) {
        let mut disk = self.disk.get();
        (disk.checked, disk.is_wanted) = (self.env.now(), false);
        match space {
            Ok(space) => {
                disk.total = space.total;
                disk.used = used_of(&space);
                let watermark = u64::from(self.options.disk_watermark_percent);
                let is_full = is_above(disk.used, disk.total, watermark);
                if is_full != disk.is_full {
                    let (used, total) = (disk.used, disk.total);
                    tracing::warn!(shard = self.options.id.0, used, total, is_full, "disk watermark");
                }
                disk.is_full = is_full;
            }
            Err(error) => tracing::warn!(shard = self.options.id.0, %error, "the disk's use is unknown"),
        }
        self.disk.set(disk);
    }

    /// Whether the disk was used above the watermark when last looked at.
    pub(super) fn is_disk_full(&self) -> bool {
        self.disk.get().is_full
    }

    /// Use of the disk in percent, as last looked at.
    pub(super) fn used_percent(&self) -> u64 {
        let disk = self.disk.get();
        (u128::from(disk.used) * 100).checked_div(u128::from(disk.total)).unwrap_or(0) as u64
    }

    fn is_housekeeping_due(&self) -> bool {
        self.disk.get().is_wanted || self.log.is_ahead_due()
    }

    fn is_index_due(&self) -> bool {
        self.index.flush_due(self.log.committed())
    }

    /// Work ahead of the log, and the look at the disk.
    async fn housekeeping_loop(&self) {
        loop {
            self.work.until(|| self.closing.get() || self.is_housekeeping_due()).await;
            if self.closing.get() {
                return;
            }
            self.busy.set(self.busy.get() + 1);
            if self.disk.get().is_wanted {
                self.look_at_disk().await;
            }
            let prepared = self.log.prepare_ahead().await;
            self.end_busy();
            if let Err(error) = prepared {
                tracing::warn!(shard = self.options.id.0, %error, "no segment could be made ahead");
                self.env.sleep(DISK_CHECK_INTERVAL).await;
            }
        }
    }

    fn end_busy(&self) {
        self.busy.set(self.busy.get() - 1);
        self.work.notify();
    }

    /// ASYNC_FLUSH: takes the log to the device within the interval after a commit, or once there is much of it.
    async fn flush_loop(&self) {
        while self.log.unflushed().await {
            let interval = self.env.sleep(Duration::from_millis(self.options.flush_interval_ms));
            future::or(interval, self.log.until_unflushed(MAX_UNFLUSHED)).await;
            self.flush_log().await;
        }
    }

    /// Writes the index to disk whenever enough has gathered in memory.
    async fn index_loop(&self) {
        loop {
            self.work.until(|| self.closing.get() || self.is_index_due()).await;
            if self.closing.get() {
                return;
            }
            self.busy.set(self.busy.get() + 1);
            let flushed = self.slices.measured(&self.env, Job::IndexFlush, self.flush_index()).await;
            self.end_busy();
            if !flushed {
                self.env.sleep(INDEX_RETRY).await;
            }
        }
    }

    /// Merges the index's runs whenever there are many.
    async fn merge_loop(&self) {
        loop {
            self.work.until(|| self.closing.get() || self.index.merge_due()).await;
            if self.closing.get() {
                return;
            }
            self.busy.set(self.busy.get() + 1);
            let merge = self.index.merge(|| self.closing.get());
            let merged = self.slices.measured(&self.env, Job::IndexMerge, merge).await;
            self.end_busy();
            if let Err(error) = merged {
                tracing::warn!(shard = self.options.id.0, %error, "runs of the index could not be merged");
                self.env.sleep(INDEX_RETRY).await;
            }
        }
    }

    /// Saves the tables of waiting records whenever much has changed.
    async fn pending_loop(&self) {
        loop {
            self.work.until(|| self.closing.get() || self.is_pending_due()).await;
            if self.closing.get() {
                return;
            }
            self.busy.set(self.busy.get() + 1);
            let saved = self.slices.measured(&self.env, Job::PendingSave, self.save_pending(false)).await;
            self.end_busy();
            if !saved {
                self.env.sleep(INDEX_RETRY).await;
            }
        }
    }

    /// The index may only say what the log on the device says: the log goes first. A failure costs time at the
    /// next opening, nothing else.
    pub(super) async fn flush_index(&self) -> bool {
        let upto = match mutant!("index-ahead-of-log") {
            true => self.log.committed(),
            false => {
                self.log.flush().await;
                self.log.flushed()
            }
        };
        let flushed = self.index.flush(upto).await;
        if let Err(error) = &flushed {
            tracing::error!(shard = self.options.id.0, %error, "the index could not be flushed");
        }
        flushed.is_ok()
    }
}

fn used_of(space: &DiskSpace) -> u64 {
    space.total.saturating_sub(space.available)
}

/// Whether `used` of `total` is more than so many percent.
fn is_above(used: u64, total: u64, percent: u64) -> bool {
    u128::from(used) * 100 > u128::from(percent) * u128::from(total)
}
