//! From memory to disk: the run of what came since the last one, the state, and merging of runs.
//!
//! One task does all of this, one step after the other. A state says what was true at one log position, and
//! everything before that position is on the device when the state is written: what is settled later is found in the
//! log again.

use std::io;

use ringmq_env::{Env, Fatal, fatal};

use super::run::{RunReader, RunWriter};
use super::snapshot::Snapshot;
use super::state_file::Saved;
use super::*;
use crate::meta::is_full;
use crate::slices::{LOOK, Pacer};

/// Runs that are kept before some are merged.
const MAX_RUNS: usize = 6;

impl<E: Env> Pending<E> {
    /// Whether a state is to be written: it is time for one, or (`all`) there is something new; `log_end` is the log's
    /// committed end. Never of a table that is distrusted: it would leave out what could not be read, which then waits no
    /// more, and nothing would keep the log of it.
    pub(crate) fn is_save_due(&self, all: bool, log_end: LogPosition) -> bool {
        let (state, limits) = (self.0.state.borrow(), self.0.limits);
        let is_new = all && state.upto < log_end.0;
        let is_many = state.fresh.len() >= limits.fresh && state.memory.len() >= limits.fresh;
        let is_far = log_end.0.saturating_sub(state.upto) >= STATE_LOG;
        let is_trusted = !state.distrusted || mutant!("damaged-table-saved");
        is_trusted && (is_new || is_many || is_far || state.gone.len() >= limits.gone)
    }

    /// The table as of `upto`, the log's committed end. The caller takes the log to the device up to there, and calls
    /// [`Pending::save`].
    pub(crate) fn snapshot(&self, upto: LogPosition) -> Snapshot {
        self.0.state.borrow_mut().begin_snapshot(upto.0)
    }

    /// Nothing becomes of the snapshot that was taken from `from` on.
    fn give_up(&self, from: u64) {
        let mut state = self.0.state.borrow_mut();
        (state.taking, state.upto) = (None, from);
    }

    /// The snapshot cannot be saved: the log that it is of is not on the device.
    pub(crate) fn drop_snapshot(&self, snapshot: Snapshot) {
        self.give_up(snapshot.from);
    }

    /// Makes the snapshot durable, then gives memory back and merges runs. Without disk space it fails, and nothing
    /// is lost: take another snapshot later. Any other failure of a write ends the process.
    pub(crate) async fn save(&self, snapshot: Snapshot) -> io::Result<()> {
        let from = snapshot.from;
        let saved = match self.write(snapshot).await {
            Ok(saved) => saved,
            Err(error) => {
                self.give_up(from);
                return Err(self.only_full(error));
            }
        };
        self.0.state.borrow_mut().taking = None;
        if self.0.state.borrow().distrusted {
            return Ok(());
        }
        self.evict().await;
        match self.merge(saved).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.only_full(error)),
        }
    }

    /// A want of space is an answer; everything else ends the process.
    fn only_full(&self, error: io::Error) -> io::Error {
        if is_full(&error) {
            return error;
        }
        fatal(Fatal::Write { path: self.0.dir.clone(), error })
    }

    async fn write(&self, snapshot: Snapshot) -> io::Result<Saved> {
        let pending = &*self.0;
        let Snapshot { mut saved, from, dropped } = snapshot;
        let run = self.write_entries(from, saved.upto).await?;
        let mut pacer = Pacer::new(&pending.env);
        let mut taken = pending.state.borrow_mut().take_gone(None, &mut saved);
        while taken.is_some() {
            pacer.done(LOOK).await;
            taken = pending.state.borrow_mut().take_gone(taken, &mut saved);
        }
        saved.runs.extend(run);
        self.write_state(&saved).await?;
        {
            let mut state = pending.state.borrow_mut();
            state.runs = Rc::new(saved.runs.clone());
            let written = state.fresh.partition_point(|(position, _)| *position < saved.upto);
            state.fresh.drain(..written);
        }
        self.remove(&dropped, &saved.runs).await?;
        Ok(saved)
    }

    /// Writes the state, which does not stay if the table came to be distrusted meanwhile.
    async fn write_state(&self, saved: &Saved) -> io::Result<()> {
        let pending = &*self.0;
        saved.write(&pending.env, &pending.dir).await?;
        if pending.state.borrow().distrusted {
            self.remove_state().await;
        }
        Ok(())
    }

    /// Writes the snapshot's entries that are in no run yet; `None` when there are none.
    async fn write_entries(&self, from: u64, upto: u64) -> io::Result<Option<Run>> {
        let pending = &*self.0;
        let mut run = self.new_run(from, upto);
        let (mut writer, mut part, mut is_more) = (None, Vec::new(), true);
        let mut pacer = Pacer::new(&pending.env);
        while is_more {
            is_more = pending.state.borrow_mut().take_part(&mut part);
            if writer.is_none() && !part.is_empty() {
                let path = run.path(&pending.dir);
                writer = Some(RunWriter::create(&pending.env, &path, run.id).await?);
            }
            for (key, place) in part.drain(..) {
                let writer = writer.as_mut().expect("made for the first entry");
                writer.add(key, &place).await?;
            }
            pacer.done(LOOK).await;
        }
        let Some(writer) = writer else { return Ok(None) };
        writer.finish(&mut run).await?;
        Ok(Some(run))
    }

    /// Leaves the latest entries to the runs when there are too many in memory.
    async fn evict(&self) {
        // What is loaded meanwhile would be taken out again.
        let _pass = self.0.loading.enter().await;
        let (mut before, mut kept) = (Key::MAX, 0);
        let mut pacer = Pacer::new(&self.0.env);
        while self.0.state.borrow_mut().evict_last(self.0.limits.memory, &mut before, &mut kept) {
            pacer.done(1).await;
        }
    }

    fn new_run(&self, from: u64, to: u64) -> Run {
        let id = self.0.env.random();
        Run { id, from, to, low: Key::MIN, last: Key::MIN, count: 0, min_position: u64::MAX }
    }

    /// Removes the files of the runs that the newest state does not name.
    async fn remove(&self, before: &[Run], after: &[Run]) -> io::Result<()> {
        for run in before.iter().filter(|run| !after.iter().any(|kept| kept.id == run.id)) {
            self.0.env.remove_file(&run.path(&self.0.dir)).await?;
        }
        Ok(())
    }

    /// Merges the newest runs if there are many, or all if much of them is settled.
    async fn merge(&self, mut saved: Saved) -> io::Result<()> {
        let first = match () {
            () if saved.gone.len() >= self.0.limits.gone => 0,
            () if saved.runs.len() > MAX_RUNS => first_to_merge(&saved.runs),
            () => return Ok(()),
        };
        let Some((from, to)) =
            saved.runs[first..].first().zip(saved.runs.last()).map(|(a, b)| (a.from, b.to))
        else {
            return Ok(());
        };
        let pending = &*self.0;
        let mut merged = self.new_run(from, to);
        let writer = RunWriter::create(&pending.env, &merged.path(&pending.dir), merged.id).await?;
        match self.merge_into(writer, &mut merged, &saved, first).await {
            Err(error) if load::is_damage(&error) => {
                self.distrust(&saved.runs[first], &error).await;
                return Ok(());
            }
            merged => merged?,
        }
        let before = saved.runs.clone();
        saved.runs.truncate(first);
        saved.runs.extend((merged.count > 0).then(|| merged.clone()));
        let dropped = saved.gone.split_off(&from);
        self.write_state(&saved).await?;
        pending.state.borrow_mut().runs = Rc::new(saved.runs.clone());
        let mut pacer = Pacer::new(&pending.env);
        for position in dropped.into_keys() {
            pending.state.borrow_mut().gone.remove(&position);
            pacer.done(1).await;
        }
        self.remove(&before, &saved.runs).await
    }

    /// Writes what waits of the runs from the first on, as of the state.
    async fn merge_into(
        &self,
        mut writer: RunWriter<E::File>,
        merged: &mut Run,
        saved: &Saved,
        first: usize,
    ) -> io::Result<()> {
        let mut readers = Vec::new();
        for run in &saved.runs[first..] {
            let mut reader = RunReader::open(&self.0.env, &self.0.dir, run).await?;
            reader.seek(run.low).await?;
            readers.push(reader);
        }
        let mut pacer = Pacer::new(&self.0.env);
        loop {
            let mut next: Option<(usize, Key, Place)> = None;
            for (at, reader) in readers.iter_mut().enumerate() {
                if let Some((key, place)) = reader.peek().await?
                    && next.is_none_or(|(_, least, _)| key < least)
                {
                    next = Some((at, key, place));
                }
            }
            let Some((at, key, place)) = next else { break };
            readers[at].take();
            if !saved.gone.contains_key(&place.position) {
                writer.add(key, &place).await?;
            }
            pacer.done(1).await;
        }
        writer.finish(merged).await
    }
}

/// The newest runs, each not much larger than those behind it together: merging them costs little for what it saves.
fn first_to_merge(runs: &[Run]) -> usize {
    let (mut first, mut behind) = (runs.len() - 1, 0);
    while first > 0 {
        behind += runs[first].count;
        if runs[first - 1].count > 2 * behind && runs.len() - first >= 2 {
            break;
        }
        first -= 1;
    }
    first
}

impl State {
    /// Takes the latest entry before `before` out of memory when there are more than `most`, but for one that is in no
    /// run; `kept` counts those. False: there are not too many.
    fn evict_last(&mut self, most: usize, before: &mut Key, kept: &mut usize) -> bool {
        if self.memory.len().saturating_sub(*kept) <= most {
            return false;
        }
        let last = self.memory.range(..*before).next_back().map(|(key, place)| (*key, place.position));
        let Some((key, position)) = last else { return false };
        *before = key;
        if position < self.upto {
            self.memory.remove(&key);
            self.horizon = self.horizon.min(key);
        } else {
            *kept += 1;
        }
        true
    }
}
