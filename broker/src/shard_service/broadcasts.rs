//! Clients of broadcasting groups: where they begin when they come another way, and what they have pulled.

use std::time::Duration;

use ringmq_engine::ReadResult;

use super::*;
use crate::broadcasts::{BroadcastExpiry, Broadcaster, SCAN_INTERVAL, Start, committing_group};

impl<E: Env> ShardService<E> {
    /// Where a broadcasting client's pull is to begin, if not where it says.
    pub(super) fn broadcast_start(&self, core: &Core<E>, pull: &PullRequest) -> Option<QueueOffset> {
        let by = pull.broadcaster.as_ref()?;
        let PullRequest { group, topic, queue_id, .. } = pull;
        let start = self.broadcasts.borrow().start(by, group, topic, *queue_id, pull.offset);
        let offset = match start {
            Start::AsAsked => return None,
            Start::At(offset) => offset,
            Start::AsNew => self.broadcast_start_of_new(pull),
        };
        self.note(core, by, pull, offset);
        Some(offset)
    }

    /// Where a client begins that nothing is known of: where the last of the group's clients are; else as a new group.
    fn broadcast_start_of_new(&self, pull: &PullRequest) -> QueueOffset {
        let PullRequest { group, topic, queue_id, .. } = pull;
        if let Some(offset) = self.offsets.borrow().get(&committing_group(group), topic, *queue_id) {
            return offset;
        }
        let queue = QueueRef { topic: topic.clone(), queue_id: *queue_id };
        match self.has_lost_nothing(&queue) {
            true => QueueOffset(0),
            false => self.shard.queue_range(topic, *queue_id).unwrap_or_default().max,
        }
    }

    /// A pull is answered: what is before its offset, or before the one that it is sent to, the client has had.
    pub(super) fn broadcast_pulled(&self, core: &Core<E>, pull: &PullRequest, result: &ReadResult) {
        let Some(by) = &pull.broadcaster else { return };
        let (code, _) = remarks::pull_status(result.status, pull.offset.0);
        let moved = code == response::PULL_OFFSET_MOVED;
        self.note(core, by, pull, if moved { result.next_offset } else { pull.offset });
    }

    /// A pull is held: the client has had all that is there.
    pub(super) fn broadcast_held(&self, core: &Core<E>, pull: &PullRequest) {
        if let Some(by) = &pull.broadcaster {
            self.note(core, by, pull, pull.offset);
        }
    }

    fn note(&self, core: &Core<E>, by: &Broadcaster, pull: &PullRequest, offset: QueueOffset) {
        let PullRequest { group, topic, queue_id, .. } = pull;
        self.broadcasts.borrow_mut().pulled(by, group, topic, *queue_id, offset, core.env.now());
    }

    /// Forgets clients that are gone, and commits how far the others are, again and again until the shard stops.
    pub(super) async fn follow_broadcasts(self: Rc<Self>, core: Rc<Core<E>>, expiry: BroadcastExpiry) {
        let mut last = core.env.now();
        while !self.stopping.get() {
            // In steps, so that the end does not wait for long.
            core.env.sleep(Duration::from_secs(1)).await;
            let now = core.env.now();
            if now.since(last) >= SCAN_INTERVAL {
                last = now;
                self.commit_broadcasts(&core, expiry).await;
            }
        }
    }

    async fn commit_broadcasts(&self, core: &Core<E>, expiry: BroadcastExpiry) {
        let subscriptions = self.broadcasts.borrow().subscriptions();
        for of in subscriptions {
            let online = {
                let metadata = core.metadata.borrow();
                let view = metadata.view(&of.group).into_iter();
                view.flat_map(|view| view.broadcasters.values().cloned()).collect()
            };
            let least = self.broadcasts.borrow_mut().scan(&of, core.env.now(), expiry, &online);
            let group = committing_group(&of.group);
            for (queue_id, offset) in least {
                self.offsets.borrow_mut().commit(&group, &of.topic, queue_id, offset);
            }
            core.env.yield_now().await;
        }
    }
}
