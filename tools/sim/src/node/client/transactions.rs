//! Half messages, and how their producer ends them.

use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::properties::names as property;
use ringmq_protocol::record::sys_flag;

use super::super::model::PAID;
use super::super::requests::{self, PRODUCERS, Send};
use super::*;

impl Client {
    pub(super) async fn send_half(&mut self) -> Result<(), Lost> {
        let queue = (PAID, self.random(2) as u32);
        let id = self.model().fresh();
        let (key, commits) = (format!("half-{id}"), self.random(2) == 0);
        let properties = [
            (property::TRANSACTION_PREPARED, "true"),
            (property::PRODUCER_GROUP, PRODUCERS),
            (property::UNIQ_KEY, &*key),
        ];
        let send = Send {
            topic: PAID,
            queue: queue.1,
            body: Model::body(id),
            properties: &properties,
            sys_flag: sys_flag::TRANSACTION_PREPARED,
            born_ms: self.env.wall_ms(),
        };
        self.model().sends_half(queue, id, commits, self.env.now());
        let life = self.life();
        let Some(answer) = self.call_in(life, send.command()).await? else { return Ok(()) };
        if answer.code != response::SUCCESS {
            return Ok(());
        }
        self.model().half_stored(id, self.env.now());
        let place = OffsetMessageId::decode(answer.get("msgId").expect("a message id")).expect("a place");
        let (log, state) = (place.physical_offset, number(&answer, "queueOffset"));
        self.halves.push(Half { queue, id, log, state, life });
        Ok(())
    }

    /// Ends a transaction as it was decided, and then tries the contrary, which must be refused.
    pub(super) async fn end_half(&mut self) -> Result<(), Lost> {
        // Some are left to be asked for.
        if self.halves.is_empty() || self.random(3) == 0 {
            return Ok(());
        }
        let at = self.random(self.halves.len() as u64) as usize;
        let Half { queue, id, log, state, life } = self.halves.swap_remove(at);
        if self.life() != life {
            return Ok(());
        }
        let commits = self.model().ends_half(id);
        let answer = self.call_in(life, requests::end_transaction(log, state, commits, false)).await?;
        if answer.is_none_or(|answer| answer.code != response::SUCCESS) {
            return Ok(());
        }
        if commits {
            self.model().acknowledged(queue, None, id, self.env.now());
        }
        let contrary = self.call_in(life, requests::end_transaction(log, state, !commits, true)).await?;
        let is_refused = contrary.is_none_or(|answer| answer.code != response::SUCCESS);
        assert!(is_refused, "{queue:?}: the transaction of message {id} has ended twice");
        Ok(())
    }
}
