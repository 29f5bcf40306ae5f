//! From memory to disk: the run of what came since the last one, the state, and merging of runs.
//!
//! One task does all of this, one step after the other. A state says what was true at one log position, and
//! everything before that position is on the device when the state is written: what is settled later is found in the
//! log again.

use std::io;

use ringmq_env::{Env, Fatal, fatal};

use super::run::{RunReader, RunWriter};
use super::state_file::Saved;
use super::*;
use crate::meta::is_full;

/// Runs that are kept before some are merged.
const MAX_RUNS: usize = 6;
/// Settled entries of runs that are remembered before all runs are merged without them.
const MAX_GONE: usize = 1 << 16;
/// Entries merged between two yields.
const SLICE: usize = 1024;

/// The table as of a log position.
pub(crate) struct Snapshot {
    saved: Saved,
    /// What is in no run yet.
    entries: Vec<(Key, Place)>,
    /// Where the last state ended.
    from: u64,
    /// Runs of the last state that are settled altogether.
    dropped: Vec<Run>,
}

impl<E: Env> Pending<E> {
    /// Whether it is time for a state; `log_end` is the log's committed end.
    pub(crate) fn is_save_due(&self, log_end: LogPosition) -> bool {
        let state = self.0.state.borrow();
        let is_many = state.fresh >= FRESH_ENTRIES && state.memory.len() >= FRESH_ENTRIES;
        let is_far = log_end.0.saturating_sub(state.upto) >= STATE_LOG;
        !state.distrusted && (is_many || is_far || state.gone.len() >= MAX_GONE)
    }

    /// The table as of `upto`, the log's committed end. The caller takes the log to the device up to there, and calls
    /// [`Pending::save`].
    pub(crate) fn snapshot(&self, upto: LogPosition) -> Snapshot {
        let mut state = self.0.state.borrow_mut();
        let from = std::mem::replace(&mut state.upto, upto.0);
        assert!(from <= upto.0, "the log does not get shorter");
        state.fresh = 0;
        let dropped = state.raise_lows();
        let is_new = |(_, place): &(&Key, &Place)| place.position >= from;
        let new = state.memory.iter().chain(&state.in_flight).filter(is_new);
        let mut entries: Vec<_> = new.map(|(key, place)| (*key, *place)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let saved =
            Saved { upto: upto.0, count: state.count, runs: state.runs.to_vec(), gone: state.gone.clone() };
        Snapshot { saved, entries, from, dropped }
    }

    /// Makes the snapshot durable, then gives memory back and merges runs. Without disk space it fails, and nothing
    /// is lost: take another snapshot later. Any other failure of a write ends the process.
    pub(crate) async fn save(&self, snapshot: Snapshot) -> io::Result<()> {
        let from = snapshot.from;
        let saved = match self.write(snapshot).await {
            Ok(saved) => saved,
            Err(error) => {
                let mut state = self.0.state.borrow_mut();
                (state.upto, state.fresh) = (from, state.memory.len());
                return Err(self.only_full(error));
            }
        };
        self.0.state.borrow_mut().evict();
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
        let Snapshot { mut saved, entries, from, dropped } = snapshot;
        if !entries.is_empty() {
            let mut run = self.new_run(from, saved.upto);
            let path = run.path(&pending.dir);
            let mut writer = RunWriter::create(&pending.env, &path, run.id).await?;
            for (key, place) in &entries {
                writer.add(*key, place).await?;
            }
            writer.finish(&mut run).await?;
            saved.runs.push(run);
        }
        saved.write(&pending.env, &pending.dir).await?;
        pending.state.borrow_mut().runs = Rc::new(saved.runs.clone());
        self.remove(&dropped, &saved.runs).await?;
        Ok(saved)
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
            () if saved.gone.len() >= MAX_GONE => 0,
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
        let dropped: Vec<u64> = saved.gone.keys().copied().filter(|position| *position >= from).collect();
        saved.gone.retain(|position, _| *position < from);
        saved.write(&pending.env, &pending.dir).await?;
        {
            let mut state = pending.state.borrow_mut();
            state.runs = Rc::new(saved.runs.clone());
            dropped.iter().for_each(|position| {
                state.gone.remove(position);
            });
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
        let mut seen = 0;
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
            seen += 1;
            if seen % SLICE == 0 {
                self.0.env.yield_now().await;
            }
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
    /// Notes how far the runs are settled, and drops what need not be remembered. Returns the runs that are settled
    /// altogether.
    fn raise_lows(&mut self) -> Vec<Run> {
        let first = |map: &BTreeMap<Key, Place>| map.first_key_value().map_or(Key::MAX, |(key, _)| *key);
        let low = first(&self.memory).min(first(&self.in_flight)).min(self.horizon);
        let mut runs = self.runs.to_vec();
        runs.iter_mut().for_each(|run| run.low = run.low.max(low));
        let dropped = runs.extract_if(.., |run| run.low > run.last).collect();
        let is_needed = |position: &u64, key: &mut Option<Key>| {
            let run = runs.iter().find(|run| run.covers(*position));
            run.is_some_and(|run| key.is_none_or(|key| key >= run.low))
        };
        self.gone.retain(is_needed);
        self.runs = Rc::new(runs);
        dropped
    }

    /// Leaves the latest entries to the runs when there are too many in memory. All in memory are in runs.
    fn evict(&mut self) {
        let Some((first, _)) = self.memory.iter().nth(MEMORY_ENTRIES) else { return };
        let first = *first;
        let evicted = self.memory.split_off(&first);
        let upto = self.upto;
        self.memory.extend(evicted.into_iter().filter(|(_, place)| place.position >= upto));
        self.horizon = self.horizon.min(first);
    }
}
