//! ASYNC_FLUSH with a shadow: messages are acknowledged from the page cache, and the log gets them a little later.
//!
//! What is acknowledged is never dropped: a device without space is asked again and again, and messages are refused
//! meanwhile. What is too large for the shadow, or begins another segment, is acknowledged by the log's own write.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use futures_lite::future;
use ringmq_env::{Env, mutant};

use super::group_commit::is_no_space;
use super::shadow::Shadow;
use super::staging::Group;
use super::tail_journal::Slot;
use super::{CommitStep, Inner, Log};
use crate::types::LogPosition;

/// Most bytes that are acknowledged from the shadow at once: from there on the log's own write costs less for each.
const MAX_SHADOWED: u64 = 128 << 10;

/// The log gets what is acknowledged once it is so many bytes, ...
const ENOUGH_BEHIND: u64 = 128 << 10;
/// ... and within this time in any case.
const MAX_BEHIND: Duration = Duration::from_millis(5);

/// How long after a write that found no space the next one is tried.
const SPACE_RETRY: Duration = Duration::from_millis(100);

/// How far acknowledgement and the log's writes are apart.
pub(super) struct WriteBehind<E: Env> {
    shadow: Shadow<E>,
    /// Somebody waits for the log to be written up to this position.
    wanted: Cell<u64>,
    /// A write of what is acknowledged finds no space.
    out_of_space: Cell<bool>,
    /// Staged messages were dropped, which nobody was told yet.
    rolled_back: RefCell<Option<io::Error>>,
    /// The log closes, and everything is written that could be.
    has_ended: Cell<bool>,
}

impl<E: Env> WriteBehind<E> {
    pub(super) fn new(shadow: Shadow<E>) -> WriteBehind<E> {
        WriteBehind {
            shadow,
            wanted: Cell::new(0),
            out_of_space: Cell::new(false),
            rolled_back: RefCell::new(None),
            has_ended: Cell::new(false),
        }
    }
}

impl<E: Env> Log<E> {
    /// Writes to the log what is acknowledged from the shadow, until the log closes. One task calls this; without a shadow
    /// there is nothing to do.
    pub(crate) async fn write_behind(&self) {
        let log = &*self.0;
        let Some(behind) = &log.behind else { return };
        loop {
            log.changed.until(|| log.closing.get() || log.staging.borrow().is_pending()).await;
            log.hold_back(behind).await;
            match log.write_next().await {
                CommitStep::Committed(_) => {}
                CommitStep::RolledBack(error) => {
                    behind.rolled_back.replace(Some(error));
                    log.changed.notify();
                    log.changed.until(|| !log.rolling_back.get()).await;
                }
                CommitStep::Closed => break,
            }
        }
        behind.has_ended.set(true);
        log.changed.notify();
    }

    /// Whether what is acknowledged waits for space on the device.
    pub(crate) fn is_out_of_space(&self) -> bool {
        self.0.behind.as_ref().is_some_and(|behind| behind.out_of_space.get())
    }

    /// Waits until the log is written up to `position`, as far as there is space.
    pub(super) async fn until_written(&self, position: u64) {
        let log = &*self.0;
        let Some(behind) = &log.behind else { return };
        log.want_written(behind, position);
        log.changed.until(|| log.written() >= position || behind.out_of_space.get()).await;
    }
}

impl<E: Env> Inner<E> {
    /// One past what the log or its journal has.
    fn written(&self) -> u64 {
        self.committed.borrow().position
    }

    fn want_written(&self, behind: &WriteBehind<E>, position: u64) {
        if behind.wanted.get() < position {
            behind.wanted.set(position);
            self.changed.notify();
        }
    }

    /// Lets what is acknowledged gather, unless somebody waits for it.
    async fn hold_back(&self, behind: &WriteBehind<E>) {
        let is_enough = || {
            let written = self.written();
            let staged = self.staging.borrow().end();
            // What was wanted may have been rolled back.
            let is_wanted = written < behind.wanted.get().min(staged);
            self.closing.get() || is_wanted || staged - written >= ENOUGH_BEHIND
        };
        if !is_enough() {
            future::or(self.changed.until(is_enough), self.env.sleep(MAX_BEHIND)).await;
        }
    }

    /// The next step of what is acknowledged.
    pub(super) async fn acknowledge_next(&self, behind: &WriteBehind<E>) -> CommitStep {
        loop {
            self.changed.until(|| self.has_step(behind)).await;
            self.gather().await;
            let (acknowledged, written) = (self.acknowledged.get(), self.written());
            if self.store_in_shadow(behind) || written > acknowledged {
                self.acknowledged.set(self.acknowledged.get().max(written));
                self.assert_watermarks();
                self.changed.notify();
                return CommitStep::Committed(LogPosition(self.acknowledged.get()));
            }
            if let Some(error) = behind.rolled_back.take() {
                return CommitStep::RolledBack(error);
            }
            if behind.has_ended.get() {
                return CommitStep::Closed;
            }
            // It takes the log's own write.
            self.want_written(behind, self.staging.borrow().end());
            let is_done = || behind.rolled_back.borrow().is_some() || behind.has_ended.get();
            self.changed.until(|| self.written() > acknowledged || is_done()).await;
        }
    }

    fn has_step(&self, behind: &WriteBehind<E>) -> bool {
        let newest = self.staging.borrow().end().max(self.written());
        newest > self.acknowledged.get() || behind.rolled_back.borrow().is_some() || behind.has_ended.get()
    }

    /// Acknowledges everything staged from the shadow, if it is little.
    fn store_in_shadow(&self, behind: &WriteBehind<E>) -> bool {
        if self.rolling_back.get() {
            return false;
        }
        let committed = self.committed.borrow();
        let mut staging = self.staging.borrow_mut();
        let from = self.acknowledged.get().max(committed.position);
        let end = staging.end();
        let is_little = end - from <= MAX_SHADOWED && end - committed.position <= behind.shadow.len();
        // Recovery follows the shadow within the segment that the log ends in.
        let segment = staging.segment();
        let is_in_place =
            segment == committed.segment && self.segments.exists(segment.start) || mutant!("shadow-anywhere");
        if end == from || !is_little || !is_in_place {
            return false;
        }
        let Some(bytes) = staging.close_frames_from(from) else { return false };
        let is_stored = behind.shadow.store(from, &bytes);
        if is_stored {
            self.acknowledged.set(end);
            self.count(|counters| counters.bytes_shadowed += bytes.len() as u64);
        }
        is_stored
    }

    /// Writes a group for which there was no space again and again if a part of it is acknowledged. `None`: the log closes
    /// meanwhile. Without such a part the error is the outcome.
    pub(super) async fn insist(
        &self,
        group: &Group,
        written: io::Result<Option<Slot>>,
    ) -> Option<io::Result<Option<Slot>>> {
        let Some(behind) = &self.behind else { return Some(written) };
        let mut written = written;
        while let Err(error) = &written
            && is_no_space(error)
            && self.acknowledged.get() > self.written()
            && !mutant!("acknowledged-rolled-back")
        {
            if !behind.out_of_space.replace(true) {
                tracing::warn!(%error, "no space for what is acknowledged: messages are refused until there is some");
            }
            self.changed.notify();
            if self.closing.get() {
                // The next start finds it in the shadow.
                return None;
            }
            self.segments.release_spares().await;
            self.env.sleep(SPACE_RETRY).await;
            written = self.write_group(group).await;
        }
        behind.out_of_space.set(false);
        Some(written)
    }
}
