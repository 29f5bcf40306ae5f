//! The group commit: everything staged goes to the log or to the tail journal in one step, one step at a time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future;
use ringmq_env::{Env, Fatal, mutant};

use super::frame::Mark;
use super::recovery::next_epoch;
use super::staging::{Group, LogEnd};
use super::tail_journal::{Slot, TailEntry};
use super::{Inner, Log};
use crate::types::LogPosition;

/// A group takes no further block once it has this many bytes, so that a deep backlog is acknowledged bit by bit.
const MAX_GROUP_BYTES: u64 = 8 << 20;

/// Bytes of log from one slot of the tail journal to the next at most: recovery reads what lies behind the last but one.
const MAX_UNJOURNALED: u64 = 8 << 20;

/// A group waits for no more once it has this many bytes: a larger write costs the device as much for each of them.
const ENOUGH_BYTES: u64 = 512 << 10;
/// Turns of the core that a group waits for more, at most.
const MAX_TURNS: usize = 16;
/// And how long, if the device takes no less for a commit.
const MAX_GATHERING: Duration = Duration::from_micros(250);

/// What a group commit came to.
#[derive(Debug)]
pub(crate) enum CommitStep {
    /// Everything before the position is committed.
    Committed(LogPosition),
    /// The device has no space. Everything staged behind the committed position is gone.
    RolledBack(io::Error),
    /// The log closes and everything is committed.
    Closed,
}

impl<E: Env> Log<E> {
    /// Waits until something is staged and commits it. One task calls this, again and again.
    pub(crate) async fn commit_next(&self) -> CommitStep {
        let step = match &self.0.behind {
            None => self.0.write_next().await,
            Some(behind) => self.0.acknowledge_next(behind).await,
        };
        if matches!(step, CommitStep::Committed(_)) {
            self.get_memory_ahead();
        }
        step
    }

    /// Takes everything committed to the device; false: there was no space for all of it, which only a log with a shadow
    /// may tell. Any number of tasks may call it.
    pub(crate) async fn flush(&self) -> bool {
        let log = &*self.0;
        let wanted = self.committed().0;
        self.until_written(wanted).await;
        // Not for the end of a flush alone: another may have begun by the time that this task is awake.
        log.changed.until(|| log.flushed.get() >= wanted || !log.flushing.get()).await;
        if log.flushed.get() < wanted {
            log.flush().await;
        }
        let is_flushed = log.flushed.get() >= wanted;
        assert!(is_flushed || log.behind.is_some(), "a flush takes everything committed to the device");
        is_flushed
    }

    /// Waits until everything before a position is committed, which is asked for again at each step, or there is no space
    /// for it.
    pub(crate) async fn until_committed(&self, position: impl Fn() -> LogPosition) {
        self.0.changed.until(|| self.committed() >= position() || self.is_out_of_space()).await;
    }

    /// Whether staged messages are being dropped: until [`Log::end_roll_back`] nothing may be staged.
    pub(crate) fn is_rolling_back(&self) -> bool {
        self.0.rolling_back.get()
    }

    /// Everything that knew of the staged messages has forgotten them.
    pub(crate) fn end_roll_back(&self) {
        self.0.rolling_back.set(false);
        self.0.changed.notify();
    }

    /// Waits until so many bytes that are acknowledged are not on the device, and there is space for them, or the log closes.
    pub(crate) async fn until_unflushed(&self, bytes: u64) {
        let log = &*self.0;
        let is_so_much = || log.acknowledged.get().saturating_sub(log.flushed.get()) >= bytes;
        log.changed.until(|| is_so_much() && !self.is_out_of_space() || log.closing.get()).await;
    }

    /// Waits until something is committed that is not on the device, or the log closes; true for the former.
    pub(crate) async fn unflushed(&self) -> bool {
        let log = &*self.0;
        let is_unflushed = || log.flushed.get() < log.acknowledged.get();
        log.changed.until(|| is_unflushed() || log.closing.get()).await;
        is_unflushed() && !(log.closing.get() && self.is_out_of_space())
    }
}

impl<E: Env> Inner<E> {
    /// Waits until something is staged and writes it.
    pub(super) async fn write_next(&self) -> CommitStep {
        self.changed.until(|| self.closing.get() || self.staging.borrow().is_pending()).await;
        self.gather().await;
        let flushed = match mutant!("mark-vouches-for-itself") {
            true => self.staging.borrow().end(),
            false => self.flushed.get(),
        };
        let mark = Mark { flushed, store_ms: self.last_store_ms.get() };
        let group = self.staging.borrow_mut().take_group(MAX_GROUP_BYTES, mark);
        let Some(group) = group else { return CommitStep::Closed };
        let begun = self.env.now();
        let written = self.write_group(&group).await;
        let Some(written) = self.insist(&group, written).await else { return CommitStep::Closed };
        let step = match written {
            Ok(slot) => self.complete(group, slot),
            Err(error) if is_no_space(&error) => {
                // Until the shard has dropped the messages, too: Log::end_roll_back.
                self.rolling_back.set(true);
                self.roll_back().await;
                CommitStep::RolledBack(error)
            }
            Err(error) => ringmq_env::fatal(Fatal::Write { path: self.options.dir.clone(), error }),
        };
        self.commit_time.set(self.env.now().since(begun));
        self.assert_watermarks();
        self.changed.notify();
        step
    }

    /// Lets the core take in what has reached it before a group is cut, for no longer than a commit takes. A group costs
    /// much the same whatever its size, and what it leaves behind waits for a whole commit. An idle core has nothing
    /// else to do, and a turn that stages nothing ends the wait.
    pub(super) async fn gather(&self) {
        let limit = self.commit_time.get().min(MAX_GATHERING);
        let begun = self.env.now();
        for _ in 0..MAX_TURNS {
            let staged = self.staging.borrow().end();
            if staged - self.acknowledged.get() >= ENOUGH_BYTES {
                return;
            }
            self.env.yield_now().await;
            if self.staging.borrow().end() == staged || self.env.now().since(begun) >= limit {
                return;
            }
        }
    }

    /// Writes a group's sectors and its journal slot, if it needs one, at once, and waits for all of them.
    pub(super) async fn write_group(&self, group: &Group) -> io::Result<Option<Slot>> {
        let epoch = self.staging.borrow().epoch();
        for write in &group.writes {
            self.segments.need(write.segment, epoch).await?;
        }
        // What only the journal has so far lies in a segment, too: without it, recovery would find no log there.
        self.segments.need(group.end.segment, epoch).await?;
        let writes = group.writes.iter().map(|write| self.segments.write(write.position, write.data.clone()));
        let log = JoinAll::new(writes);
        let (slot, written) = match self.needs_slot(group) {
            true => {
                let (slot, journal) = self.write_journal(&group.end, epoch);
                let (journal, log) = future::zip(journal, log).await;
                (Some(slot), log.and(journal))
            }
            false => (None, log.await),
        };
        match written {
            Err(error) if is_no_space(&error) && mutant!("ignore-no-space") => {}
            written => written?,
        }
        let bytes = group.writes.iter().map(|write| write.data.len()).sum::<usize>();
        self.count(|counters| counters.bytes_written += bytes as u64);
        Ok(slot)
    }

    fn needs_slot(&self, group: &Group) -> bool {
        !group.marked || group.end.position - self.journaled.get() > MAX_UNJOURNALED
    }

    fn write_journal(
        &self,
        end: &LogEnd,
        epoch: u64,
    ) -> (Slot, impl Future<Output = io::Result<()>> + use<E>) {
        let unwritten = match mutant!("journal-keeps-a-sector") {
            true => &end.unwritten[end.unwritten.len() / 512 * 512..],
            false => &end.unwritten[..],
        };
        let entry = TailEntry {
            epoch,
            epoch_start: self.epoch_start.get(),
            position: end.position,
            flushed: self.flushed.get(),
            store_ms: self.last_store_ms.get(),
            chain: end.chain,
            unwritten,
        };
        self.count(|counters| counters.bytes_written += self.journal.write_len(&entry) as u64);
        self.journal.write(&entry)
    }

    fn complete(&self, group: Group, slot: Option<Slot>) -> CommitStep {
        let position = group.end.position;
        let before = self.committed.borrow().position;
        assert!(position > before);
        if let Some(slot) = slot {
            self.journal.commit(slot, self.options.sync_flush);
            self.journaled.set(position);
        }
        self.staging.borrow_mut().committed(&group.end);
        *self.committed.borrow_mut() = group.end;
        if self.behind.is_none() {
            self.acknowledged.set(position);
        }
        if self.options.sync_flush {
            self.flushed.set(position);
        }
        self.count(|counters| {
            counters.commits += 1;
            counters.commit_sizes.add(position - before);
            counters.flushes += u64::from(self.options.sync_flush);
        });
        CommitStep::Committed(LogPosition(position))
    }

    /// Drops everything behind the committed end. What of it reached the disk belongs to an epoch that the journal
    /// ends here, so it never comes back.
    async fn roll_back(&self) {
        self.changed.until(|| !self.flushing.get()).await;
        // Only the newest epoch's slots count in recovery: what the older ones guard must be on the device first.
        self.flush().await;
        self.segments.release_spares().await;
        let end = self.committed.borrow().clone();
        let epoch = {
            let mut staging = self.staging.borrow_mut();
            let epoch = next_epoch(&self.env, staging.epoch());
            staging.roll_back(&end, epoch);
            epoch
        };
        if !mutant!("roll-back-in-memory-only") {
            self.begin_epoch(&end, epoch).await;
        }
    }

    /// Puts on record that everything from `end` on belongs to `epoch`. The log up to there is on the device.
    pub(super) async fn begin_epoch(&self, end: &LogEnd, epoch: u64) {
        self.epoch_start.set(end.position);
        let (slot, write) = self.write_journal(end, epoch);
        if let Err(error) = write.await {
            self.write_failed(error);
        }
        self.journal.commit(slot, false);
        self.journaled.set(end.position);
        self.changed.until(|| !self.flushing.get()).await;
        self.flush().await;
    }

    /// Takes the log and then the journal to the device; a failure is the end of the process.
    async fn flush(&self) {
        assert!(!self.flushing.replace(true), "one flush at a time");
        // The index says what is flushed, and knows what is acknowledged.
        let wanted = self.committed.borrow().position.min(self.acknowledged.get());
        let flushed = async {
            self.journal.begin_flush();
            self.segments.flush().await?;
            self.journal.flush().await
        };
        let mut flushed = flushed.await;
        if flushed.is_err() && mutant!("retry-failed-sync") {
            flushed = self.segments.flush_all().await.and(self.journal.flush().await);
        }
        if let Err(error) = flushed {
            ringmq_env::fatal(Fatal::Sync { path: self.options.dir.clone(), error });
        }
        self.count(|counters| counters.flushes += 1);
        self.flushed.set(wanted.max(self.flushed.get()));
        self.assert_watermarks();
        self.flushing.set(false);
        self.changed.notify();
    }

    fn write_failed(&self, error: io::Error) -> ! {
        ringmq_env::fatal(Fatal::Write { path: self.options.dir.clone(), error })
    }
}

/// Whether a write or an allocation failed for want of space.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Runs futures side by side and waits for all, whatever fails: none is dropped with a buffer in flight.
struct JoinAll<F> {
    running: Vec<Pin<Box<F>>>,
    failed: Option<io::Error>,
}

impl<F: Future<Output = io::Result<()>>> JoinAll<F> {
    fn new(futures: impl Iterator<Item = F>) -> JoinAll<F> {
        JoinAll { running: futures.map(Box::pin).collect(), failed: None }
    }
}

impl<F: Future<Output = io::Result<()>>> Future for JoinAll<F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.running.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                this.failed = this.failed.take().or(result.err());
                false
            }
        });
        match (this.running.is_empty(), this.failed.take()) {
            (false, failed) => {
                this.failed = failed;
                Poll::Pending
            }
            (true, Some(error)) => Poll::Ready(Err(error)),
            (true, None) => Poll::Ready(Ok(())),
        }
    }
}
