//! Locks of queues at their brokers: one member of a group consumes a queue in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::{LockBatchRequestBody, LockBatchResponseBody, MessageQueue};
use ringmq_protocol::codes::request;
use ringmq_protocol::json::{self, Dialect};
use tokio::time::sleep;

use super::group::Group;
use crate::client::unknown_broker;
use crate::error::CallError;
use crate::remoting::{Request, bad_answer};

/// How often locks are renewed.
const INTERVAL: Duration = Duration::from_secs(20);

impl Group {
    /// Asks a broker for the locks of some of its queues; returns those that this client holds now.
    pub(super) async fn lock_queues(
        &self,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<Vec<MessageQueue>, CallError> {
        let addr = self.instance.routes.master(broker).ok_or_else(|| unknown_broker(broker))?;
        let request = Request::bodied(request::LOCK_BATCH_MQ, self.lock_body(queues));
        let answer = self.instance.remoting.call_ok(&addr, &request, self.call_timeout()).await?;
        let body: LockBatchResponseBody =
            json::from_slice(&answer.body).map_err(|error| bad_answer(&addr, error))?;
        Ok(body.lock_ok_mq_set)
    }

    /// Gives locks back. A lock that is not given back expires at the broker.
    pub(super) async fn unlock_queues(&self, broker: &str, queues: Vec<MessageQueue>) {
        let Some(addr) = self.instance.routes.master(broker) else { return };
        let request = Request::bodied(request::UNLOCK_BATCH_MQ, self.lock_body(queues));
        if let Err(error) = self.instance.remoting.call_ok(&addr, &request, self.call_timeout()).await {
            tracing::warn!(target: "ringmq_client::consumer", group = self.name, %error, "unlocking failed");
        }
    }

    fn lock_body(&self, mq_set: Vec<MessageQueue>) -> Vec<u8> {
        let body = LockBatchRequestBody {
            client_id: self.instance.client_id.clone(),
            consumer_group: self.name.clone(),
            mq_set,
            only_this_broker: false,
        };
        json::to_vec(&body, Dialect::Java)
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
