//! How many reads from disk each consumer group has in flight: a group that is far behind must leave the disk to the
//! others, too.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

type Counts = HashMap<Arc<str>, usize, FxBuildHasher>;

/// The reads of each group in one shard.
#[derive(Default)]
pub(super) struct GroupReads(Rc<RefCell<Counts>>);

/// One read in flight; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct GroupRead {
    counts: Rc<RefCell<Counts>>,
    group: Arc<str>,
}

impl GroupReads {
    /// One more read of the group; `None` when it has `limit` in flight.
    pub(super) fn begin(&self, group: &Arc<str>, limit: usize) -> Option<GroupRead> {
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(group.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(GroupRead { counts: self.0.clone(), group: group.clone() })
    }
}

impl Drop for GroupRead {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        let Some(count) = counts.get_mut(&self.group) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_share_and_the_others_theirs() {
        let reads = GroupReads::default();
        let (slow, quick): (Arc<str>, Arc<str>) = ("slow".into(), "quick".into());
        let first = reads.begin(&slow, 2).unwrap();
        let second = reads.begin(&slow, 2).unwrap();
        assert!(reads.begin(&slow, 2).is_none());
        drop(reads.begin(&quick, 2).unwrap());
        drop(first);
        let third = reads.begin(&slow, 2);
        assert!(third.is_some() && reads.begin(&slow, 2).is_none());
        drop((second, third));
        assert!(reads.0.borrow().is_empty(), "idle groups take no memory");
    }
}
