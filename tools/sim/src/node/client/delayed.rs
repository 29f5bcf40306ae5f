//! Delayed messages, timers and recalls.

use ringmq_protocol::properties::names as property;

use super::super::model::TIMED;
use super::super::requests::{PRODUCERS, Send};
use super::*;

/// The first delay levels, in ms.
pub(super) const LEVELS: [i64; 3] = [1_000, 5_000, 10_000];
/// Furthest time of a timer, in ms.
const FURTHEST_MS: u64 = 30_000;

impl Client {
    pub(super) async fn send_later(&mut self) -> Result<(), Lost> {
        let queue = (TIMED, self.random(2) as u32);
        let (id, wall_ms) = (self.model().fresh(), self.env.wall_ms());
        let level = self.random(LEVELS.len() as u64) as usize;
        let delay_ms = self.random(FURTHEST_MS) as i64;
        let (name, value, due_ms) = match self.random(3) {
            0 => (property::DELAY_TIME_LEVEL, level as i64 + 1, wall_ms + LEVELS[level]),
            1 => (property::TIMER_DELAY_MS, delay_ms, wall_ms + delay_ms),
            _ => (property::TIMER_DELIVER_MS, wall_ms + delay_ms, wall_ms + delay_ms),
        };
        let (value, key) = (value.to_string(), format!("timer-{id}"));
        let properties = [(name, value.as_str()), (property::UNIQ_KEY, key.as_str())];
        let (topic, body) = (TIMED, Model::body(id));
        let send =
            Send { topic, queue: queue.1, body, properties: &properties, sys_flag: 0, born_ms: wall_ms };
        self.model().sends(queue, id, due_ms, self.env.now());
        let answer = self.call(send.command()).await?;
        let (mut model, now) = (self.home.model.borrow_mut(), self.env.now());
        if answer.code != response::SUCCESS {
            model.refused(queue, id, now);
            return Ok(());
        }
        model.acknowledged(queue, None, id, now);
        if let Some(handle) = answer.get("recallHandle") {
            self.timers.push(Timer { queue, id, handle: handle.to_owned() });
        }
        Ok(())
    }

    pub(super) async fn recall(&mut self) -> Result<(), Lost> {
        if self.timers.is_empty() {
            return Ok(());
        }
        let at = self.random(self.timers.len() as u64) as usize;
        let Timer { queue, id, handle } = self.timers.swap_remove(at);
        let command = Command::request(request::RECALL_MESSAGE, 0)
            .with_ext("producerGroup", PRODUCERS)
            .with_ext("topic", queue.0)
            .with_ext("recallHandle", handle);
        self.model().recalls(queue, id);
        let answer = self.call(command).await?;
        if answer.code == response::SUCCESS {
            self.model().recalled(queue, id, self.env.now());
        }
        Ok(())
    }
}
