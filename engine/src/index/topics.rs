//! The topics of runs that are merged.
//!
//! With many topics their names are in no cache, and a search for each extent's would wait for memory three times. The
//! names of each run are gone through once, in the order in which they lie, many side by side; from then on a topic is a
//! number.

use ringmq_env::{Env, prefetch};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::format::{DATA, Extent, NOWHERE, bytes_at, name_at};
use crate::bytes::array;
use crate::slices::Pacer;

/// Names that are looked for side by side.
const SIDE_BY_SIDE: usize = 32;
/// What stands before a name: its place in the merged run, and its length.
const PLACE: usize = 4;
const PREFIX: usize = PLACE + 2;

/// Topics, each once. The number of one is where it is in `names`.
pub(super) struct Topics {
    names: Vec<u8>,
    /// By the low bits of the names' hashes, or behind that; twice as many as topics at least.
    slots: Vec<u64>,
    len: usize,
}

/// What a number among the slots says: a hash and, above it, the number of its topic and one; 0: none. A table without topics
/// is memory that nobody has touched yet.
#[derive(Clone, Copy)]
struct Slot(u64);

impl Slot {
    fn new(hash: u32, topic: u32) -> Slot {
        Slot((u64::from(topic) + 1) << 32 | u64::from(hash))
    }

    fn hash(self) -> u32 {
        self.0 as u32
    }

    fn topic(self) -> Option<u32> {
        ((self.0 >> 32) as u32).checked_sub(1)
    }
}

fn hash_of(name: &str) -> u32 {
    xxh3_64(name.as_bytes()) as u32
}

impl Topics {
    /// None yet; with room for about so many.
    pub(super) fn with_capacity(topics: usize) -> Topics {
        let slots = (2 * topics).next_power_of_two().max(4 * SIDE_BY_SIDE);
        Topics { names: Vec::new(), slots: vec![0; slots], len: 0 }
    }

    /// Takes the topics of a run's names section in; returns where in it which topic is.
    pub(super) async fn add<E: Env>(&mut self, section: &[u8], pacer: &mut Pacer<E>) -> Places {
        let mut places = Places::new(section.len());
        let mut found = names(section);
        loop {
            let some: SmallVec<[(u32, &str, u32); SIDE_BY_SIDE]> =
                found.by_ref().take(SIDE_BY_SIDE).map(|(at, name)| (at, name, hash_of(name))).collect();
            if some.is_empty() {
                return places;
            }
            if 2 * (self.len + some.len()) > self.slots.len() {
                self.grow(pacer).await;
            }
            some.iter().for_each(|(.., hash)| prefetch(&self.slots[self.slot_of(*hash)]));
            for (.., hash) in &some {
                let topic = Slot(self.slots[self.slot_of(*hash)]).topic();
                topic.inspect(|topic| self.prefetch(*topic));
            }
            some.iter().for_each(|(at, name, hash)| places.push(*at, self.number(name, *hash)));
            pacer.done(some.len()).await;
        }
    }

    fn slot_of(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    /// The topic's number, which it gets if it has none.
    fn number(&mut self, name: &str, hash: u32) -> u32 {
        let mut slot = self.slot_of(hash);
        while let Some(topic) = Slot(self.slots[slot]).topic() {
            if Slot(self.slots[slot]).hash() == hash && self.bytes(topic) == name.as_bytes() {
                return topic;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        let topic = u32::try_from(self.names.len()).expect("the names of a run's topics are below 4 GiB");
        let len = name.len() as u16;
        self.names.extend_from_slice(&NOWHERE.to_le_bytes());
        self.names.extend_from_slice(&len.to_le_bytes());
        self.names.extend_from_slice(name.as_bytes());
        self.slots[slot] = Slot::new(hash, topic).0;
        self.len += 1;
        topic
    }

    async fn grow<E: Env>(&mut self, pacer: &mut Pacer<E>) {
        let free = vec![0; 2 * self.slots.len()];
        let old = std::mem::replace(&mut self.slots, free);
        for some in old.chunks(SIDE_BY_SIDE) {
            for old in some.iter().filter(|old| **old != 0) {
                let mut slot = self.slot_of(Slot(*old).hash());
                while self.slots[slot] != 0 {
                    slot = (slot + 1) & (self.slots.len() - 1);
                }
                self.slots[slot] = *old;
            }
            pacer.done(some.len()).await;
        }
    }

    /// Has the topic's name and place fetched into the core's cache.
    pub(super) fn prefetch(&self, topic: u32) {
        self.names.get(topic as usize).inspect(|name| prefetch(*name));
    }

    /// The topic's name.
    pub(super) fn name(&self, topic: u32) -> &str {
        name_at(&self.names, topic + PLACE as u32).expect("the name was put there")
    }

    fn bytes(&self, topic: u32) -> &[u8] {
        bytes_at(&self.names, topic + PLACE as u32).expect("the name was put there")
    }

    /// Where the merged run has the topic's name; `add` adds it if it does not yet.
    pub(super) fn place(&mut self, topic: u32, add: impl FnOnce(&[u8]) -> u32) -> u32 {
        let at = topic as usize;
        let known = u32::from_le_bytes(array(&self.names, at));
        if known != NOWHERE {
            return known;
        }
        let place = add(self.bytes(topic));
        self.names[at..at + PLACE].copy_from_slice(&place.to_le_bytes());
        place
    }
}

/// The names of a names section, and where they are. What fills up a block counts as one without a letter.
fn names(section: &[u8]) -> impl Iterator<Item = (u32, &str)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        if DATA - next % DATA < PREFIX - PLACE {
            next = next.next_multiple_of(DATA);
        }
        let at = next;
        let name = name_at(section, at as u32)?;
        let block_end = (at + 1).next_multiple_of(DATA);
        let is_filling = name.is_empty() && section.get(at..block_end)?.iter().all(|byte| *byte == 0);
        next = if is_filling { block_end } else { at + PREFIX - PLACE + name.len() };
        Some((at as u32, name))
    })
}

/// Which topics are where in a run's names section: a bit for each byte, and the topics in their order. With many topics
/// that is a fourth of what a number for each place takes.
pub(super) struct Places {
    words: Vec<Word>,
    topics: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Word {
    /// The bytes at which a name begins.
    starts: u64,
    /// Names that begin before.
    before: u32,
}

impl Places {
    /// None, in a section of `len` bytes.
    pub(super) fn new(len: usize) -> Places {
        Places { words: vec![Word::default(); len.div_ceil(64)], topics: Vec::new() }
    }

    /// Adds the topic whose name is at `at`, behind all others.
    fn push(&mut self, at: u32, topic: u32) {
        let word = &mut self.words[at as usize / 64];
        if word.starts == 0 {
            word.before = self.topics.len() as u32;
        }
        word.starts |= 1 << (at % 64);
        self.topics.push(topic);
    }

    /// Gives extents the numbers of their topics for the places of their names. False: one says that a name begins where
    /// none does. The extents are in the order of their queues, and the topics of those are anywhere: what is needed of
    /// them is fetched into the core's cache side by side.
    pub(super) fn resolve(&self, extents: &mut [Extent]) -> bool {
        for extent in extents.iter() {
            self.words.get(extent.name as usize / 64).inspect(|word| prefetch(*word));
        }
        for extent in extents.iter_mut() {
            let Some(index) = self.index(extent.name) else { return false };
            prefetch(&self.topics[index as usize]);
            extent.name = index;
        }
        extents.iter_mut().for_each(|extent| extent.name = self.topics[extent.name as usize]);
        true
    }

    /// Which of the topics it is whose name is at `at`; `None` if there begins none.
    fn index(&self, at: u32) -> Option<u32> {
        let Word { starts, before } = *self.words.get(at as usize / 64)?;
        let bit = 1 << (at % 64);
        (starts & bit != 0).then(|| before + (starts & (bit - 1)).count_ones())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringmq_env::sim::Sim;

    use super::*;

    /// As [`super::super::build::RunBuilder::add_name`] adds them.
    fn section(names: &[String]) -> (Vec<u8>, Vec<u32>) {
        let (mut section, mut places) = (Vec::new(), Vec::new());
        for name in names {
            let room = DATA - section.len() % DATA;
            if room < 2 + name.len() {
                section.resize(section.len() + room, 0);
            }
            places.push(section.len() as u32);
            section.extend_from_slice(&(name.len() as u16).to_le_bytes());
            section.extend_from_slice(name.as_bytes());
        }
        section.resize(section.len().next_multiple_of(DATA), 0);
        (section, places)
    }

    proptest! {
        #[test]
        fn a_topic_has_one_number_in_all_runs(
            runs in prop::collection::vec(prop::collection::vec("[ab]{0,5}|[a-z]{1,250}", 0..300), 1..4),
        ) {
            let sim = Sim::new(1);
            let (mut topics, mut pacer) = (Topics::with_capacity(0), Pacer::new(&sim.node("a")));
            let mut numbers = std::collections::HashMap::new();
            for names in &runs {
                // A run has each name once.
                let names: Vec<String> = std::collections::BTreeSet::from_iter(names.clone()).into_iter().collect();
                let (bytes, places) = section(&names);
                let found = sim.run(async { topics.add(&bytes, &mut pacer).await });
                for (name, place) in names.iter().zip(&places) {
                    let mut extents = [Extent { name: *place, ..Extent::default() }];
                    prop_assert!(found.resolve(&mut extents), "a name is there");
                    let [Extent { name: topic, .. }] = extents;
                    prop_assert_eq!(topics.name(topic), name);
                    prop_assert_eq!(*numbers.entry(name.clone()).or_insert(topic), topic);
                }
                let starts = |at: &u32| name_at(&bytes, *at).is_some_and(|name| name.is_empty()) || places.contains(at);
                prop_assert!((0..bytes.len() as u32 + 99).all(|at| found.index(at).is_none() || starts(&at)));
            }
            for topic in numbers.into_values() {
                prop_assert_eq!(topics.place(topic, |_| 7), 7);
                prop_assert_eq!(topics.place(topic, |_| 8), 7, "it is added once");
            }
        }
    }
}
