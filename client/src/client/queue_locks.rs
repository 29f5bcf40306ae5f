//! Locks of queues at their brokers, each held by one client of a group.

use ringmq_protocol::body::{LockBatchRequestBody, LockBatchResponseBody, MessageQueue};
use ringmq_protocol::codes::request;
use ringmq_protocol::json::{self, Dialect};

use super::{Instance, unknown_broker};
use crate::error::CallError;
use crate::remoting::{Request, bad_answer};

impl Instance {
    /// Asks a broker for the locks of some of its queues; returns those that this client holds now.
    pub(crate) async fn lock_queues(
        &self,
        group: &str,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<Vec<MessageQueue>, CallError> {
        let addr = self.routes.master(broker).ok_or_else(|| unknown_broker(broker))?;
        let request = Request::bodied(request::LOCK_BATCH_MQ, self.lock_body(group, queues));
        let answer = self.remoting.call_ok(&addr, &request, self.config.call_timeout).await?;
        let body: LockBatchResponseBody =
            json::from_slice(&answer.body).map_err(|error| bad_answer(&addr, error))?;
        Ok(body.lock_ok_mq_set)
    }

    /// Gives locks back. A lock that is not given back expires at the broker.
    pub(crate) async fn unlock_queues(
        &self,
        group: &str,
        broker: &str,
        queues: Vec<MessageQueue>,
    ) -> Result<(), CallError> {
        let addr = self.routes.master(broker).ok_or_else(|| unknown_broker(broker))?;
        let request = Request::bodied(request::UNLOCK_BATCH_MQ, self.lock_body(group, queues));
        self.remoting.call_ok(&addr, &request, self.config.call_timeout).await.map(drop)
    }

    fn lock_body(&self, group: &str, mq_set: Vec<MessageQueue>) -> Vec<u8> {
        let body = LockBatchRequestBody {
            client_id: self.client_id.clone(),
            consumer_group: group.to_owned(),
            mq_set,
            only_this_broker: false,
        };
        json::to_vec(&body, Dialect::Java)
    }
}
