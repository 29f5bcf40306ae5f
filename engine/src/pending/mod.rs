//! The records that wait for their outcome: delayed messages, which wait for their time, and half messages, which
//! wait for a commit or a rollback.
//!
//! Such a record lies in the log like any other, under a topic of the broker's own, and says when it is due. It is
//! *settled* by a later record of the same log that carries its physical offset in the field that Java keeps for
//! the half message (PREPAREDTRANSACTIONOFFSET; complemented for a delayed message): the fired message, the committed message, the mark of a rollback or
//! of a recall. One record is both the outcome and the mark that it has happened, so that no crash parts them: after
//! each crash the log says of every record whether it is settled, once.
//!
//! The table is derived from the log, like the index. What is due soon is in memory; the rest is in immutable *runs*,
//! sorted by due time, from which the next are loaded ahead of time. A run is written for what came since the last
//! one, whenever that is much; a small *state* file tells which runs count, up to which log position they do, and
//! which of their entries are settled. Recovery scans the log from there. When any of it is damaged, all of it is
//! dropped, and the table comes from a scan of the whole log.

mod census;
mod checkpoint;
mod entry;
mod load;
mod run;
mod snapshot;
mod state_file;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use hashbrown::HashMap;
use ringmq_env::{Env, mutant};

use crate::gate::Gate;
use crate::signal::Signal;
use crate::types::{LogPosition, PendingKind, PendingRecord};
use entry::{Key, Place};
pub(crate) use entry::{kind_of, settled_by, settling_field};
use run::Run;
use snapshot::Taking;

/// Fresh entries that wait no more and are left out at a time.
const TRIMMED: usize = 1024;
/// A state is due when this much of the log is behind the last one.
const STATE_LOG: u64 = 64 << 20;

/// The table of one kind of records. Lives on the shard's core; cheap to clone: clones are the same table.
pub(crate) struct Pending<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Pending<E> {
    fn clone(&self) -> Self {
        Pending(Rc::clone(&self.0))
    }
}

struct Inner<E: Env> {
    env: E,
    kind: PendingKind,
    dir: PathBuf,
    limits: Limits,
    /// Held by whoever loads entries.
    loading: Gate,
    state: RefCell<State>,
    /// Told when an entry is added, or the shard closes.
    changed: Signal,
}

/// Invariants: an entry that waits is in `memory`, or in `in_flight`, or in a run behind `horizon` (or in a run and in
/// memory, too). One that is in no run (`position >= upto`) is in one of the first two. If the table is distrusted, one
/// that could not be read is in a run, wherever the horizon is.
struct State {
    memory: BTreeMap<Key, Place>,
    /// Settled by records that are staged and not committed.
    in_flight: BTreeMap<Key, Place>,
    /// What the runs have before this key is in memory, or settled; what they have from it on is not in memory.
    horizon: Key,
    /// In the order of their positions.
    runs: Rc<Vec<Run>>,
    /// Settled positions that are in the runs; the key is unknown until the run is read.
    gone: BTreeMap<u64, Option<Key>>,
    /// During recovery: the key of each entry that the scan found, by its position.
    recovered: HashMap<u64, Key>,
    /// Entries before this log position are in the runs, or settled.
    upto: u64,
    /// Entries added since the last run, by their positions, in order; those that were settled first are left out.
    fresh: VecDeque<(u64, Key)>,
    /// Entries that wait, those in flight included.
    count: u64,
    /// A snapshot is being taken.
    taking: Option<Taking>,
    /// A run is not what was written: the table is not saved any more, and made anew at the next start.
    distrusted: bool,
}

/// How many entries are where; all of it follows from how many are held in memory when there are more.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Held in memory when there are more. (About 64 bytes each.)
    memory: usize,
    /// With so many in memory that are in no run, a run is written.
    fresh: usize,
    /// With fewer in memory than this, more are loaded.
    low: usize,
    /// Loaded at once from each run.
    load: usize,
    /// Settled entries of runs that are remembered before all runs are merged without them.
    gone: usize,
}

impl Limits {
    fn of(memory: usize) -> Limits {
        let part = |share: usize| (memory / share).max(1);
        Limits { memory, fresh: part(4), low: part(64), load: part(128), gone: part(4) }
    }
}

/// Whether a record may be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settling {
    /// It waited, and is in flight now.
    Begun,
    /// It does not wait: it was settled before, or is being settled.
    NotPending,
}

impl<E: Env> Pending<E> {
    /// A record was committed that waits.
    pub(crate) fn insert(&self, record: &PendingRecord) {
        assert!(record.kind == self.0.kind);
        let mut state = self.0.state.borrow_mut();
        assert!(record.position.0 >= state.upto, "a record is committed once");
        state.memory.insert(record.key(), record.place());
        state.fresh.push_back((record.position.0, record.key()));
        state.count += 1;
        drop(state);
        self.0.changed.notify();
    }

    /// A record that settles `record` is about to be staged. One that is on disk alone does not count as waiting here:
    /// [`Pending::still_waits`] comes first where that may be.
    pub(crate) fn begin_settle(&self, record: &PendingRecord) -> Settling {
        let mut state = self.0.state.borrow_mut();
        let key = record.key();
        if !state.is_in_memory(key, record.position.0) {
            return Settling::NotPending;
        }
        if !mutant!("settled-twice") {
            state.memory.remove(&key);
            state.set_aside(key, record.place());
        }
        state.in_flight.insert(key, record.place());
        Settling::Begun
    }

    /// The record that settles `record` is committed.
    pub(crate) fn settled(&self, record: &PendingRecord) {
        let mut state = self.0.state.borrow_mut();
        let known = state.in_flight.remove(&record.key());
        assert!(known.is_some(), "what is settled was in flight");
        state.forget(record.key(), record.position.0);
        state.trim_fresh(2);
    }

    /// The record that was to settle `record` was not staged.
    pub(crate) fn take_back(&self, record: &PendingRecord) {
        let mut state = self.0.state.borrow_mut();
        let place = state.in_flight.remove(&record.key());
        state.memory.extend(place.map(|place| (record.key(), place)));
    }

    /// The records that were to settle what is in flight are dropped.
    pub(crate) fn unsettle_all(&self) {
        let mut state = self.0.state.borrow_mut();
        let in_flight = std::mem::take(&mut state.in_flight);
        state.memory.extend(in_flight);
        drop(state);
        self.0.changed.notify();
    }

    /// Gives up a record that cannot be read back. A crash may bring it back once more.
    pub(crate) fn abandon(&self, record: &PendingRecord) {
        if self.begin_settle(record) == Settling::Begun {
            self.settled(record);
        }
    }

    /// When the earliest is due, in ms; `None` when nothing waits (but for what is in flight).
    pub(crate) fn next_due_ms(&self) -> Option<i64> {
        let state = self.0.state.borrow();
        let first = state.memory.first_key_value().map_or(Key::MAX, |(key, _)| *key);
        let next = first.min(state.horizon);
        (next != Key::MAX).then_some(next.due_ms)
    }

    /// Waits until something waits, or `end` says that nobody cares any more.
    pub(crate) async fn until_some(&self, end: impl Fn() -> bool) {
        self.0.changed.until(|| end() || self.next_due_ms().is_some()).await;
    }

    /// Lets [`Pending::until_some`] look again.
    pub(crate) fn notify(&self) {
        self.0.changed.notify();
    }

    /// What its records wait for.
    pub(crate) fn kind(&self) -> PendingKind {
        self.0.kind
    }

    /// How many wait, those in flight included.
    pub(crate) fn count(&self) -> u64 {
        self.0.state.borrow().count
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.0.state.borrow().in_flight.len()
    }

    /// Entries in memory, those in flight included.
    pub(crate) fn in_memory(&self) -> usize {
        let state = self.0.state.borrow();
        state.memory.len() + state.in_flight.len()
    }

    /// Recovery needs the log from here on.
    pub(crate) fn upto(&self) -> LogPosition {
        LogPosition(self.0.state.borrow().upto)
    }

    /// No record before this log position waits.
    pub(crate) fn oldest_position(&self) -> LogPosition {
        let mut state = self.0.state.borrow_mut();
        if state.count == 0 {
            return LogPosition(u64::MAX);
        }
        state.trim_fresh(TRIMMED);
        let runs = state.runs.iter().map(|run| run.min_position);
        let fresh = state.fresh.front().map(|(position, _)| *position);
        LogPosition(runs.chain(fresh).min().unwrap_or(u64::MAX))
    }
}

impl State {
    fn is_in_memory(&self, key: Key, position: u64) -> bool {
        self.memory.get(&key).is_some_and(|place| place.position == position)
    }

    /// The run that has the entry if it waits and is on disk alone. It need not be in there: a merged run is without
    /// those that were settled before it was written, and nothing else tells of them any more. Of a table that is
    /// distrusted, what could not be read stayed on disk before the horizon, too.
    fn run_to_search(&self, key: Key, position: u64) -> Option<&Run> {
        let may_be = (key >= self.horizon || self.distrusted)
            && position < self.upto
            && !self.gone.contains_key(&position)
            && !self.in_flight.contains_key(&key);
        self.run_of(position).filter(|run| may_be && key >= run.low)
    }

    fn run_of(&self, position: u64) -> Option<&Run> {
        self.runs.iter().find(|run| run.covers(position))
    }

    /// The entry is settled for good, and neither in memory nor in flight any more.
    fn forget(&mut self, key: Key, position: u64) {
        self.count_out();
        if position < self.upto {
            self.gone.insert(position, Some(key));
            if let Some(taking) = &mut self.taking {
                taking.settled(position);
            }
        }
    }

    /// One entry waits no more. After damage to what was saved the count may be short, until it is made anew.
    fn count_out(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Leaves out the first of the fresh entries that wait no more, up to `most` of them.
    fn trim_fresh(&mut self, most: usize) {
        for _ in 0..most {
            let Some((position, key)) = self.fresh.front() else { return };
            let is_there =
                |map: &BTreeMap<Key, Place>| map.get(key).is_some_and(|place| place.position == *position);
            if is_there(&self.memory) || is_there(&self.in_flight) {
                return;
            }
            self.fresh.pop_front();
        }
    }
}
