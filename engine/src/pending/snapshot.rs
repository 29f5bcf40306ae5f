//! The table as of a log position, taken bit by bit while records go on coming and being settled.

use std::collections::BTreeMap;
use std::ops::{Bound, Range, RangeBounds};

use hashbrown::HashSet;

use super::State;
use super::entry::{Key, Place};
use super::run::Run;
use super::state_file::Saved;
use crate::slices::LOOK;

/// Entries taken at a time.
const PART: usize = LOOK;

/// The table as of a log position, of which the entries and what is gone have yet to be taken.
pub(crate) struct Snapshot {
    pub(super) saved: Saved,
    /// Where the last state ended.
    pub(super) from: u64,
    /// Runs of the last state that are settled altogether.
    pub(super) dropped: Vec<Run>,
}

/// How far a snapshot is taken. What is settled meanwhile waits as of the snapshot's position.
pub(super) struct Taking {
    /// Log positions of the entries that are in no run yet.
    range: Range<u64>,
    /// Entries up to this key are taken.
    taken: Bound<Key>,
    /// Entries behind it that left memory.
    aside: BTreeMap<Key, Place>,
    /// Positions before the snapshot's that were settled since.
    settled: HashSet<u64>,
}

impl Taking {
    /// What lies at this position waits no more.
    pub(super) fn settled(&mut self, position: u64) {
        self.settled.insert(position);
    }
}

impl State {
    /// Begins a snapshot as of `upto`, the log's committed end.
    pub(super) fn begin_snapshot(&mut self, upto: u64) -> Snapshot {
        let from = std::mem::replace(&mut self.upto, upto);
        assert!(from <= upto, "the log does not get shorter");
        let dropped = self.raise_lows();
        let is_new = |(_, place): &(&Key, &Place)| place.position >= from;
        // There are never many in flight.
        let aside = self.in_flight.iter().filter(is_new).map(|(key, place)| (*key, *place)).collect();
        let taken = Bound::Unbounded;
        self.taking = Some(Taking { range: from..upto, taken, aside, settled: HashSet::new() });
        let saved = Saved { upto, count: self.count, runs: self.runs.to_vec(), gone: BTreeMap::new() };
        Snapshot { saved, from, dropped }
    }

    /// An entry leaves memory, perhaps before it is taken.
    pub(super) fn set_aside(&mut self, key: Key, place: Place) {
        if let Some(taking) = &mut self.taking
            && taking.range.contains(&place.position)
            && (taking.taken, Bound::Unbounded).contains(&key)
        {
            taking.aside.insert(key, place);
        }
    }

    /// Adds the next of the snapshot's entries to `part`, in the order of their keys; false: that was the last of them.
    pub(super) fn take_part(&mut self, part: &mut Vec<(Key, Place)>) -> bool {
        let taking = self.taking.as_mut().expect("a snapshot is begun before it is taken");
        let mut memory = self.memory.range((taking.taken, Bound::Unbounded)).peekable();
        for _ in 0..PART {
            let in_memory = memory.peek().map(|(key, _)| **key);
            let aside = taking.aside.first_key_value().map(|(key, _)| *key);
            let Some(next) = in_memory.into_iter().chain(aside).min() else { return false };
            // What was set aside may be back, or another may have its key.
            let found = [
                taking.aside.remove(&next),
                memory.next_if(|(key, _)| **key == next).map(|(_, place)| *place),
            ];
            let mut found =
                found.into_iter().flatten().filter(|place| taking.range.contains(&place.position));
            part.extend(found.next().map(|place| (next, place)));
            taking.taken = Bound::Excluded(next);
        }
        true
    }

    /// Adds the next of what the runs have and is settled as of the snapshot, and forgets what they do not have any more;
    /// `after` is where the last call came to. `None`: that was the last of it.
    pub(super) fn take_gone(&mut self, after: Option<u64>, saved: &mut Saved) -> Option<u64> {
        let taking = self.taking.as_ref().expect("a snapshot is begun before it is taken");
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut last, mut needless) = (None, Vec::new());
        for (position, key) in self.gone.range((behind, Bound::Unbounded)).take(PART) {
            last = Some(*position);
            if taking.settled.contains(position) {
                continue;
            }
            let run = saved.runs.iter().find(|run| run.covers(*position));
            if run.is_some_and(|run| key.is_none_or(|key| key >= run.low)) {
                saved.gone.insert(*position, *key);
            } else {
                needless.push(*position);
            }
        }
        needless.iter().for_each(|position| {
            self.gone.remove(position);
        });
        last
    }

    /// Notes how far the runs are settled. Returns those that are settled altogether.
    fn raise_lows(&mut self) -> Vec<Run> {
        let first = |map: &BTreeMap<Key, Place>| map.first_key_value().map_or(Key::MAX, |(key, _)| *key);
        let low = first(&self.memory).min(first(&self.in_flight)).min(self.horizon);
        let mut runs = self.runs.to_vec();
        runs.iter_mut().for_each(|run| run.low = run.low.max(low));
        let dropped = runs.extract_if(.., |run| run.low > run.last).collect();
        self.runs = runs.into();
        dropped
    }
}
