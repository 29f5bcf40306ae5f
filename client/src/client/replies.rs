//! Requests that wait for the reply that a broker pushes (326).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ringmq_protocol::properties::names;
use tokio::sync::oneshot;

use super::Instance;
use crate::message::MessageExt;
use crate::sync::lock;

/// Requests of a client that may wait at the same time.
const MAX_WAITING: usize = 65_535;

/// Who waits, by correlation id.
#[derive(Default)]
pub(super) struct Replies {
    waiting: Mutex<HashMap<String, oneshot::Sender<MessageExt>>>,
}

impl Replies {
    /// Gives a reply to whoever waits for it; false when nobody does any more.
    pub(super) fn deliver(&self, reply: MessageExt) -> bool {
        let id = reply.property(names::CORRELATION_ID).unwrap_or_default();
        let waiting = lock(&self.waiting).remove(id);
        waiting.is_some_and(|waiting| waiting.send(reply).is_ok())
    }
}

/// A reply to come. Dropping it ends the wait.
pub(crate) struct Awaited {
    instance: Arc<Instance>,
    correlation_id: String,
    reply: oneshot::Receiver<MessageExt>,
}

impl Awaited {
    /// The request's id.
    pub(crate) fn correlation_id(&self) -> &str {
        &self.correlation_id
    }

    /// The reply; `None` when the client is shut down before it comes.
    pub(crate) async fn reply(&mut self) -> Option<MessageExt> {
        tokio::select! {
            reply = &mut self.reply => reply.ok(),
            () = self.instance.stop().cancelled() => None,
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        lock(&self.instance.replies.waiting).remove(&self.correlation_id);
    }
}

impl Instance {
    /// Starts to wait for a reply; the limit when too many wait already.
    pub(crate) fn await_reply(self: &Arc<Self>, correlation_id: String) -> Result<Awaited, usize> {
        let (sender, reply) = oneshot::channel();
        let mut waiting = lock(&self.replies.waiting);
        if waiting.len() >= MAX_WAITING {
            return Err(MAX_WAITING);
        }
        waiting.insert(correlation_id.clone(), sender);
        Ok(Awaited { instance: self.clone(), correlation_id, reply })
    }
}
