//! A small cache with a budget, in two generations.

use std::collections::HashMap;
use std::hash::Hash;

use rustc_hash::FxBuildHasher;

/// Keeps what was used lately. What was not used since the newer generation began is dropped when that is full, so
/// the cost kept is between half the budget and the budget.
pub(super) struct Cache<K, V> {
    newer: HashMap<K, V, FxBuildHasher>,
    older: HashMap<K, V, FxBuildHasher>,
    newer_cost: usize,
    older_cost: usize,
    budget: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(budget: usize) -> Cache<K, V> {
        let empty = || HashMap::with_hasher(FxBuildHasher);
        Cache { newer: empty(), older: empty(), newer_cost: 0, older_cost: 0, budget }
    }

    pub(super) fn get(&mut self, key: K, cost: usize) -> Option<V> {
        if let Some(value) = self.newer.get(&key) {
            return Some(value.clone());
        }
        let value = self.older.remove(&key)?;
        self.older_cost -= cost;
        self.insert(key, value.clone(), cost);
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, cost: usize) {
        if self.newer_cost + cost > self.budget / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.older_cost = std::mem::take(&mut self.newer_cost);
        }
        if self.newer.insert(key, value).is_none() {
            self.newer_cost += cost;
        }
    }

    pub(super) fn remove(&mut self, key: &K, cost: usize) {
        if self.newer.remove(key).is_some() {
            self.newer_cost -= cost;
        }
        if self.older.remove(key).is_some() {
            self.older_cost -= cost;
        }
    }

    /// Cost of all that is kept.
    pub(super) fn cost(&self) -> usize {
        self.newer_cost + self.older_cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_budget_holds() {
        let mut cache = Cache::new(10);
        for key in 0..100 {
            cache.insert(key, key, 1);
            assert!(cache.cost() <= 10);
            assert_eq!(cache.get(0, 1), Some(0));
        }
        assert_eq!(cache.get(50, 1), None);
        cache.remove(&0, 1);
        assert_eq!(cache.get(0, 1), None);
        assert!(cache.cost() < 10);
    }
}
