//! Locks of queues at their brokers: one member of a group consumes a queue in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use tokio::time::sleep;

use super::group::Group;
use crate::error::CallError;

/// How often locks are renewed.
const INTERVAL: Duration = Duration::from_secs(20);

impl Group {
    /// Asks a broker for the locks of some of its queues; returns those that this client holds now.
    pub(super) async fn lock_queues(
        &self,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<Vec<MessageQueue>, CallError> {
        self.instance.lock_queues(&self.name, broker, queues).await
    }

    /// Gives locks back. A lock that is not given back expires at the broker.
    pub(super) async fn unlock_queues(&self, broker: &str, queues: Vec<MessageQueue>) {
        if let Err(error) = self.instance.unlock_queues(&self.name, broker, queues).await {
            tracing::warn!(target: "ringmq_client::consumer", group = self.name, %error, "unlocking failed");
        }
    }

    /// Renews the locks of all queues held. A queue whose lock went to somebody else is dropped, and comes back
    /// through the rebalance with the offset that it has by then.
    pub(super) async fn renew_locks(self: &Arc<Self>) {
        let mut by_broker: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for process in self.held() {
            by_broker.entry(process.queue.broker_name.clone()).or_default().push(process);
        }
        for (broker, processes) in by_broker {
            let queues = processes.iter().map(|process| process.queue.clone()).collect();
            match self.lock_queues(&broker, queues).await {
                Ok(locked) => {
                    for process in processes {
                        if locked.contains(&process.queue) {
                            process.set_locked();
                        } else {
                            tracing::warn!(target: "ringmq_client::consumer", queue = ?process.queue, "lock lost");
                            self.release(&process.queue);
                        }
                    }
                }
                // Without an answer the lock holds as long as this client believes it.
                Err(error) => tracing::warn!(target: "ringmq_client::consumer", %error, "locks not renewed"),
            }
        }
    }
}

/// Renews locks until the consumer stops.
pub(super) async fn run(group: Arc<Group>) {
    let renewing = async {
        loop {
            sleep(INTERVAL).await;
            group.renew_locks().await;
        }
    };
    tokio::select! {
        () = group.stop.cancelled() => {}
        () = renewing => {}
    }
}
