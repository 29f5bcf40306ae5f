//! Queues go to members in the same machine room, if there are any.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use ringmq_protocol::body::MessageQueue;

use super::{AllocateError, AllocateStrategy, Members};

/// Tells where brokers and clients stand.
pub trait MachineRoomResolver: fmt::Debug + Send + Sync {
    /// Room of the queue's broker; `None` when it is not known.
    fn broker_room(&self, queue: &MessageQueue) -> Option<String>;
    /// Room of a client; `None` when it is not known.
    fn client_room(&self, client_id: &str) -> Option<String>;
}

/// Runs an inner strategy within each room; the queues of rooms without a member are divided among all members
/// (`AllocateMachineRoomNearby`).
#[derive(Clone, Debug)]
pub struct MachineRoomNearby<S, R> {
    /// The inner strategy.
    pub inner: S,
    /// Tells the rooms.
    pub resolver: R,
}

impl<S: AllocateStrategy, R: MachineRoomResolver> AllocateStrategy for MachineRoomNearby<S, R> {
    fn name(&self) -> Cow<'static, str> {
        format!("MACHINE_ROOM_NEARBY-{}", self.inner.name()).into()
    }

    fn allocate(&self, members: &Members<'_>) -> Result<Vec<MessageQueue>, AllocateError> {
        if members.position()?.is_none() {
            return Ok(Vec::new());
        }
        let mut queues = by_room(members.queues, |q| self.resolver.broker_room(q), |q| format!("{q:?}"))?;
        let clients = by_room(members.clients, |c| self.resolver.client_room(c), String::clone)?;
        let own = self.resolver.client_room(members.client_id);
        let own = own.ok_or_else(|| AllocateError::NoRoom { of: members.client_id.to_owned() })?;
        let mut allocated = match queues.remove(&own) {
            Some(queues) => {
                self.inner.allocate(&Members { queues: &queues, clients: &clients[&own], ..*members })?
            }
            None => Vec::new(),
        };
        for (_, queues) in queues.iter().filter(|(room, _)| !clients.contains_key(*room)) {
            allocated.extend(self.inner.allocate(&Members { queues, ..*members })?);
        }
        Ok(allocated)
    }
}

/// Sorts items into their rooms, keeping their order; an empty room's name counts as unknown.
fn by_room<T: Clone>(
    items: &[T],
    room: impl Fn(&T) -> Option<String>,
    describe: impl Fn(&T) -> String,
) -> Result<BTreeMap<String, Vec<T>>, AllocateError> {
    let mut rooms: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for item in items {
        let room = room(item).filter(|r| !r.is_empty());
        let room = room.ok_or_else(|| AllocateError::NoRoom { of: describe(item) })?;
        rooms.entry(room).or_default().push(item.clone());
    }
    Ok(rooms)
}
