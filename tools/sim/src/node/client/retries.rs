//! Messages that a consumer sends back: once each, to be consumed again, and then as a dead letter.

use super::super::model::{DEAD, GROUP, RETRY};
use super::super::requests;
use super::delayed::LEVELS;
use super::*;

impl Client {
    pub(super) async fn send_back(&mut self) -> Result<(), Lost> {
        let Some(Seen { topic, id, log, life }) = self.seen else { return Ok(()) };
        let is_new = [ORDERS, RETRY].contains(&topic) && self.life() == life;
        if !is_new || !self.model().sends_back(topic, id) {
            return Ok(());
        }
        let level = self.random(LEVELS.len() as u64) as usize;
        let wall_ms = self.env.wall_ms();
        let (queue, due_ms) = match topic {
            RETRY => ((DEAD, 0), 0),
            _ => ((RETRY, 0), wall_ms + LEVELS[level]),
        };
        self.model().sends(queue, id, due_ms, self.env.now());
        let answer = self.call_in(life, requests::send_back(GROUP, log, level as i32 + 1)).await?;
        let now = self.env.now();
        match answer.map(|answer| answer.code) {
            Some(response::SUCCESS) => self.model().acknowledged(queue, None, id, now),
            Some(_) => self.model().refused(queue, id, now),
            None => {}
        }
        Ok(())
    }
}
