//! Committed consumer offsets.

use super::super::model::{GROUP, TOPICS};
use super::super::requests;
use super::*;

impl Client {
    fn some_queue(&self) -> QueueName {
        let (topic, queues) = TOPICS[0];
        (topic, self.random(u64::from(queues)) as u32)
    }

    /// Commits where this client got to.
    pub(super) async fn commit(&mut self) -> Result<(), Lost> {
        let queue = self.some_queue();
        let offset = self.next.get(&queue).copied().unwrap_or(0);
        if offset == 0 {
            return Ok(());
        }
        let commit = self.model().offsets.asks(queue, offset, self.env.now());
        let command = requests::about_queue(request::UPDATE_CONSUMER_OFFSET, GROUP, queue.0, queue.1);
        let answer = self.call(command.with_ext("commitOffset", offset)).await?;
        let is_done = answer.code == response::SUCCESS;
        self.model().offsets.answered(queue, commit, is_done, self.env.now());
        Ok(())
    }

    pub(super) async fn look_at_commit(&mut self) -> Result<(), Lost> {
        self.look_at_commit_of(self.some_queue()).await
    }

    async fn look_at_commit_of(&mut self, queue: QueueName) -> Result<(), Lost> {
        let command = requests::about_queue(request::QUERY_CONSUMER_OFFSET, GROUP, queue.0, queue.1);
        let asked = self.env.now();
        let answer = self.call(command.with_ext("setZeroIfNotFound", false)).await?;
        match answer.code {
            response::SUCCESS => {
                self.model().offsets.check(queue, Some(number(&answer, "offset")), asked);
            }
            response::QUERY_NOT_FOUND => self.model().offsets.check(queue, None, asked),
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn check_offsets(&mut self) {
        let (topic, queues) = TOPICS[0];
        for queue in 0..queues {
            self.look_at_commit_of((topic, queue)).await.expect("an answer about the committed offset");
        }
    }
}
