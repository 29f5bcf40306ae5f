//! What is known of a metadata log from outside: which value each key may have after a crash.

use std::collections::BTreeMap;

/// Keys that are used.
const KEYS: u64 = 12;

type Value = Option<Vec<u8>>;

/// The model of one metadata log over all its lives.
#[derive(Default)]
pub struct Table {
    /// For each key the values that it may have, by the number of the change; the first is durable.
    keys: BTreeMap<Vec<u8>, Vec<(u64, Value)>>,
    changes: u64,
    found: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Table {
    /// A change of a key, made up from a random number.
    pub fn change(&mut self, random: u64) -> (Vec<u8>, Value) {
        let key = format!("key {}", random % KEYS).into_bytes();
        self.changes += 1;
        let len = 8 + (random >> 16) as usize % 200;
        let value = (!(random >> 8).is_multiple_of(5)).then(|| {
            let mut value = self.changes.to_be_bytes().to_vec();
            value.resize(len, self.changes as u8);
            value
        });
        let values = self.keys.entry(key.clone()).or_insert_with(|| vec![(0, None)]);
        values.push((self.changes, value.clone()));
        (key, value)
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Everything up to change `upto` is durable.
    pub fn durable(&mut self, upto: u64) {
        for values in self.keys.values_mut() {
            let durable = values.partition_point(|(change, _)| *change <= upto);
            values.drain(..durable.saturating_sub(1));
        }
    }

    /// An entry came back.
    pub fn replayed(&mut self, key: &[u8], value: &[u8]) {
        self.found.insert(key.to_vec(), value.to_vec());
    }

    /// Opening failed: what came back counts for nothing.
    pub fn not_opened(&mut self) {
        self.found.clear();
    }

    /// All that there is has come back: every key has a value that it may have, and keeps it. If the files were
    /// harmed, what came back is what counts.
    pub fn opened(&mut self, is_harmed: bool) {
        let mut found = std::mem::take(&mut self.found);
        if is_harmed {
            self.keys =
                found.into_iter().map(|(key, value)| (key, vec![(self.changes, Some(value))])).collect();
            return;
        }
        for (key, values) in &mut self.keys {
            let value = found.remove(key);
            let name = String::from_utf8_lossy(key);
            let known = values.iter().find(|(_, known)| *known == value).cloned();
            let Some(known) = known else {
                panic!(
                    "{name} is {value:?}, and may be one of {:?}",
                    values.iter().map(|v| v.0).collect::<Vec<_>>()
                )
            };
            *values = vec![known];
        }
        assert!(found.is_empty(), "keys that nobody put: {:?}", found.keys());
    }
}
