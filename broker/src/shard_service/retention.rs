//! Deleting messages when their time is over, or when space runs out (RocketMQ's CleanCommitLogService).

use std::time::Duration;

use ringmq_engine::TopicRetention;
use ringmq_protocol::body::TopicConfig;

use super::*;
use crate::control::topics::RESERVE_TIME;

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;
/// Between two looks at what was made meanwhile: with many topics a look for messages to delete takes milliseconds.
const STEP: Duration = Duration::from_secs(1);
/// Between two segments that are deleted, so that other work gets the disk.
const PAUSE: Duration = Duration::from_millis(100);

impl<E: Env> ShardService<E> {
    /// Looks for messages to delete, again and again until the shard stops: at intervals, and soon after the log has got
    /// another segment, so that a log which is as long as it may be stays so, and uses its files again.
    pub(super) async fn retain_often(self: Rc<Self>, core: Rc<Core<E>>) {
        let interval = core.identity.config.retention_interval;
        let mut seen = 0;
        loop {
            let mut left = interval;
            // In steps, so that neither that nor the end waits for long.
            while !left.is_zero() && !self.stopping.get() {
                let step = left.min(STEP);
                core.env.sleep(step).await;
                left -= step;
                let made = self.shard.stats().segments_made;
                if made != seen {
                    seen = made;
                    break;
                }
            }
            if self.stopping.get() {
                return;
            }
            self.retain(&core).await;
        }
    }

    async fn retain(&self, core: &Core<E>) {
        let policy = &core.identity.config.retention;
        let topics: Vec<TopicRetention> = {
            let metadata = core.metadata.borrow();
            metadata.reserving_topics().filter_map(|(name, config)| own_retention(name, config)).collect()
        };
        while !self.stopping.get() {
            match self.shard.retain_oldest(policy, &topics).await {
                Ok(retained) if retained.reason.is_none() => break,
                Ok(_) => core.env.sleep(PAUSE).await,
                Err(error) => {
                    tracing::warn!(shard = self.id.0, %error, "not everything could be deleted");
                    break;
                }
            }
        }
        if let Err(error) = self.shard.retain_topics(policy, &topics).await {
            tracing::warn!(shard = self.id.0, %error, "messages of a topic could not be looked at");
        }
    }
}

/// What the topic's own attribute says.
fn own_retention(name: &str, config: &TopicConfig) -> Option<TopicRetention> {
    let hours: i64 = config.attributes.get(RESERVE_TIME)?.parse().ok()?;
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    (hours >= 0).then(|| TopicRetention {
        topic: name.to_owned(),
        queues: u32::try_from(queues).unwrap_or(0),
        reserved_ms: hours.saturating_mul(HOUR_MS),
    })
}
