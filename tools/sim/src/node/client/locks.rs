//! Queue locks of consumers in order.

use ringmq_protocol::body::{LockBatchResponseBody, MessageQueue};

use super::super::model::{GROUP, ORDERS};
use super::super::requests;
use super::*;

impl Client {
    /// Locks a queue, or gives it up.
    pub(super) async fn lock(&mut self) -> Result<(), Lost> {
        let queue_id = self.random(2) as u32;
        let broker_name = self.home.broker.clone();
        let queue = MessageQueue { topic: ORDERS.into(), broker_name, queue_id: queue_id as i32 };
        if self.random(3) == 0 {
            return self.unlock(queue_id, queue).await;
        }
        self.connect().await?;
        let (life, asked) = (self.life(), self.env.now());
        let command = requests::lock(request::LOCK_BATCH_MQ, GROUP, &self.id, queue.clone());
        let Some(answer) = self.call_in(life, command).await? else { return Ok(()) };
        if answer.code != response::SUCCESS || self.life() != life {
            return Ok(());
        }
        let held: LockBatchResponseBody = json::from_slice(&answer.body).expect("queues that are locked");
        if held.lock_ok_mq_set.contains(&queue) {
            self.model().locks.granted(queue_id, &self.id, asked, self.env.now());
        }
        Ok(())
    }

    async fn unlock(&mut self, queue_id: u32, queue: MessageQueue) -> Result<(), Lost> {
        self.model().locks.unlocks(queue_id, &self.id);
        let command = requests::lock(request::UNLOCK_BATCH_MQ, GROUP, &self.id, queue);
        let answer = self.call(command).await;
        if answer.is_err() {
            // It may still come, and must not unlock what is locked meanwhile.
            self.id = format!("client-{}", self.model().fresh());
        }
        answer.map(drop)
    }
}
