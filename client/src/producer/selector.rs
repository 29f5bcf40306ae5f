//! Picking the queue of a message.

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::properties::java_hash;

use crate::message::Message;

/// Picks a queue: what makes messages ordered. Closures are selectors.
pub trait QueueSelector: Send + Sync {
    /// The index of the queue; `queues` is never empty. All queues of the topic are there, in the name server's
    /// order, whether their broker answers or not.
    fn select(&self, queues: &[MessageQueue], message: &Message) -> usize;
}

impl<F: Fn(&[MessageQueue], &Message) -> usize + Send + Sync> QueueSelector for F {
    fn select(&self, queues: &[MessageQueue], message: &Message) -> usize {
        self(queues, message)
    }
}

/// One key, one queue, and the same one that Java's `SelectMessageQueueByHash` picks for the same text.
#[derive(Clone, Copy, Debug)]
pub struct ByHash<'a>(pub &'a str);

impl QueueSelector for ByHash<'_> {
    fn select(&self, queues: &[MessageQueue], _message: &Message) -> usize {
        (java_hash(self.0) % queues.len() as i32).unsigned_abs() as usize
    }
}

/// Any queue (`SelectMessageQueueByRandom`).
#[derive(Clone, Copy, Debug)]
pub struct AtRandom;

impl QueueSelector for AtRandom {
    fn select(&self, queues: &[MessageQueue], _message: &Message) -> usize {
        fastrand::usize(..queues.len())
    }
}

/// Any queue of the brokers in these machine rooms, by brokers that are named `room@name`; any queue at all when no
/// broker is there (`SelectMessageQueueByMachineRoom`, which in Java never got beyond its name).
#[derive(Clone, Copy, Debug)]
pub struct InMachineRooms<'a>(pub &'a [&'a str]);

impl QueueSelector for InMachineRooms<'_> {
    fn select(&self, queues: &[MessageQueue], message: &Message) -> usize {
        let room = |queue: &MessageQueue| queue.broker_name.split_once('@').map(|(room, _)| room.to_owned());
        let near = |queue: &&MessageQueue| room(queue).is_some_and(|room| self.0.contains(&room.as_str()));
        let here: Vec<usize> =
            queues.iter().enumerate().filter(|(_, queue)| near(queue)).map(|(at, _)| at).collect();
        fastrand::choice(here).unwrap_or_else(|| AtRandom.select(queues, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_pick_as_java_does() {
        let queues = vec![MessageQueue::default(); 7];
        let message = Message::new("t", "b").unwrap();
        // "polygenelubricants".hashCode() is Integer.MIN_VALUE: value % 7 == -2, and Java takes the absolute value.
        assert_eq!(ByHash("polygenelubricants").select(&queues, &message), 2);
        assert_eq!(ByHash("TagA").select(&queues, &message), 2_598_919 % 7);
        assert!(AtRandom.select(&queues, &message) < 7);
    }

    #[test]
    fn rooms_are_in_brokers_names() {
        let queue = |broker: &str| MessageQueue { broker_name: broker.to_owned(), ..MessageQueue::default() };
        let (queues, message) = ([queue("a@1"), queue("b@1"), queue("b")], Message::new("t", "b").unwrap());
        assert_eq!(InMachineRooms(&["b"]).select(&queues, &message), 1);
        assert!(InMachineRooms(&["c"]).select(&queues, &message) < 3);
    }
}
