//! A core's topics by name. With many of them each step of a lookup waits for memory, so that those of several names can be
//! taken side by side.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use ringmq_env::prefetch;
use ringmq_protocol::body::TopicConfig;
use rustc_hash::FxBuildHasher;

use super::copy::TopicPlace;

/// A topic, and where a shard of this core has it. What a lookup reads is one line of the cache.
#[repr(align(64))]
pub struct Topic {
    pub name: Arc<str>,
    pub config: Arc<TopicConfig>,
    pub place: Cell<TopicPlace>,
}

/// The topics, close together, and where each is by the hash of its name.
#[derive(Default)]
pub struct TopicTable {
    places: HashTable<u32>,
    topics: Vec<Topic>,
}

/// What is most likely a topic: nobody has looked at its name yet.
#[derive(Clone, Copy)]
pub struct Likely(u32);

impl TopicTable {
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// In no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    pub fn get(&self, name: &str) -> Option<&Topic> {
        let at = *self.places.find(hash(name), |at| *self.topics[*at as usize].name == *name)?;
        Some(&self.topics[at as usize])
    }

    /// Puts the topic in, or in the place of the one of that name.
    pub fn insert(&mut self, topic: Topic) {
        let TopicTable { places, topics } = self;
        let is_it = |at: &u32| topics[*at as usize].name == topic.name;
        match places.entry(hash(&topic.name), is_it, |at| hash(&topics[*at as usize].name)) {
            Entry::Occupied(found) => topics[*found.get() as usize] = topic,
            Entry::Vacant(free) => {
                free.insert(u32::try_from(topics.len()).expect("fewer than four billion topics"));
                topics.push(topic);
            }
        }
    }

    pub fn remove(&mut self, name: &str) {
        let TopicTable { places, topics } = self;
        let Ok(found) = places.find_entry(hash(name), |at| *topics[*at as usize].name == *name) else {
            return;
        };
        let (at, _) = found.remove();
        let last = topics.len() as u32 - 1;
        if at != last {
            let of_last = hash(&topics[last as usize].name);
            *places.find_mut(of_last, |at| *at == last).expect("each topic has a place") = at;
        }
        topics.swap_remove(at as usize);
    }

    /// Has fetched what a lookup of the name reads first: [`TopicTable::prefetch_rest`] goes on there.
    pub fn prefetch(&self, name: &str) -> Option<Likely> {
        let at = *self.places.find(hash(name), |_| true)?;
        prefetch(&self.topics[at as usize]);
        Some(Likely(at))
    }

    /// Has fetched what is read of the topic afterwards; where a shard of this core has it.
    pub fn prefetch_rest(&self, likely: Likely) -> TopicPlace {
        let Topic { name, config, place } = &self.topics[likely.0 as usize];
        if let Some(first) = name.as_bytes().first() {
            prefetch(first);
        }
        prefetch(&config.attributes);
        prefetch(&config.write_queue_nums);
        place.get()
    }
}

fn hash(name: &str) -> u64 {
    FxBuildHasher.hash_one(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn topic(name: &str, queues: i32) -> Topic {
        let config = TopicConfig { write_queue_nums: queues, ..TopicConfig::default() };
        Topic { name: name.into(), config: Arc::new(config), place: Cell::default() }
    }

    proptest! {
        /// Whatever comes and goes, it is what a map of the same names and configurations is.
        #[test]
        fn it_is_a_map(changes in prop::collection::vec((0..20u32, prop::option::of(0..100i32)), 0..200)) {
            let (mut table, mut map) = (TopicTable::default(), BTreeMap::new());
            for (name, change) in changes {
                let name = format!("topic {name}");
                match change {
                    Some(queues) => {
                        table.insert(topic(&name, queues));
                        map.insert(name, queues);
                    }
                    None => {
                        table.remove(&name);
                        map.remove(&name);
                    }
                }
                prop_assert_eq!(table.len(), map.len());
                for name in (0..20).map(|name| format!("topic {name}")) {
                    let found = table.get(&name).map(|topic| topic.config.write_queue_nums);
                    prop_assert_eq!(found, map.get(&name).copied());
                    let likely = table.prefetch(&name).map(|likely| &table.topics[likely.0 as usize]);
                    prop_assert!(found.is_none() || likely.is_some());
                }
            }
            let listed: BTreeMap<_, _> =
                table.iter().map(|topic| (topic.name.to_string(), topic.config.write_queue_nums)).collect();
            prop_assert_eq!(listed, map);
        }
    }
}
