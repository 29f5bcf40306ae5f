//! Messages with a DEDUPE_KEY: sent again and again, stored once.

use ringmq_protocol::properties::names as property;

use super::super::model::ONCE;
use super::super::requests::Send;
use super::super::retention::Retention;
use super::*;

/// Keys that a client sends again.
const KEYS: usize = 8;

impl Client {
    /// Sends a message with a key, new or not.
    pub(super) async fn send_once(&mut self) -> Result<(), Lost> {
        // The window is measured by the broker's clock, and a message that is deleted is not known any more.
        let is_known = self.model().is_honest && self.model().retention == Retention::All;
        let may_repeat = is_known && !self.keys.is_empty();
        let id = match may_repeat && self.random(3) > 0 {
            true => self.pick(&self.keys),
            false => self.model().fresh(),
        };
        let queue = (ONCE, 0);
        self.model().sends(queue, id, 0, self.env.now());
        self.keys.push(id);
        if self.keys.len() > KEYS {
            self.keys.remove(0);
        }
        let key = id.to_string();
        let properties = [(property::DEDUPE_KEY, key.as_str())];
        let send = Send {
            topic: ONCE,
            queue: 0,
            body: Model::body(id),
            properties: &properties,
            sys_flag: 0,
            born_ms: 1,
        };
        let answer = self.call(send.command()).await?;
        if answer.code == response::SUCCESS {
            let (now, message_id) = (self.env.now(), answer.get("msgId").expect("a message id"));
            let mut model = self.model();
            model.once(id, message_id, now);
            model.acknowledged(queue, Some(number(&answer, "queueOffset")), id, now);
        }
        Ok(())
    }
}
