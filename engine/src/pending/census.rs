//! How many records are due by when, for whoever watches a broker.

use ringmq_env::Env;

use super::Pending;
use super::entry::Key;

/// Entries that are counted between two yields.
const SLICE: usize = 1 << 14;

impl<E: Env> Pending<E> {
    /// How many of what waits are due before each of `bounds`, times in ms in ascending order. As far as that is known
    /// in memory: the answer is shorter than `bounds` when later entries are on disk alone.
    pub(crate) async fn due_before(&self, bounds: &[i64]) -> Vec<u64> {
        let (mut counts, mut from, mut count) = (Vec::with_capacity(bounds.len()), Key::MIN, 0);
        for bound in bounds {
            let end = Key { due_ms: *bound, order: 0 };
            loop {
                let Some((found, last)) = self.count_some(from, end) else { return counts };
                count += found;
                let Some(last) = last else { break };
                from = Key { order: last.order.saturating_add(1), ..last };
                self.0.env.yield_now().await;
            }
            counts.push(count);
        }
        counts
    }

    /// Counts the first entries of a range, and tells the last of them; `None` when not all of the range is in memory.
    fn count_some(&self, from: Key, end: Key) -> Option<(u64, Option<Key>)> {
        let state = self.0.state.borrow();
        if state.horizon < end {
            return None;
        }
        let some = state.memory.range(from.min(end)..end).take(SLICE);
        Some(some.fold((0, None), |(count, _), (key, _)| (count + 1, Some(*key))))
    }
}
