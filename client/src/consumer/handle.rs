//! The handle of a message that was popped: eight words, which tell the broker where it handed the message out.

use std::collections::HashMap;

use ringmq_protocol::headers::PopResponseHeader;
use ringmq_protocol::names::retry_topic;
use ringmq_protocol::properties::names;

use crate::message::MessageExt;

/// What a handle says, as far as this client needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    /// The whole of it.
    pub text: String,
    /// The topic that the message was handed out from.
    pub topic: String,
    pub broker_name: String,
    pub queue_id: i32,
    pub offset: i64,
    /// When other members may get the message, in ms since 1970.
    pub visible_ms: i64,
}

impl Handle {
    /// `startOffset popTime invisibleTime reviveQid retryFlag brokerName queueId queueOffset`, of a message of `topic`.
    pub(super) fn parse(text: &str, topic: &str, group: &str) -> Option<Handle> {
        let words: Vec<&str> = text.split(' ').collect();
        let [_, pop_time, invisible, _, flag, broker, queue_id, offset, ..] = words[..] else { return None };
        let pop_time: i64 = pop_time.parse().ok()?;
        Some(Handle {
            topic: match flag {
                "1" => format!("{}_{topic}", retry_topic(group)),
                "2" => format!("{}+{topic}", retry_topic(group)),
                _ => topic.to_owned(),
            },
            text: text.to_owned(),
            broker_name: broker.to_owned(),
            queue_id: queue_id.parse().ok()?,
            offset: offset.parse().ok()?,
            visible_ms: pop_time + invisible.parse::<i64>().ok()?,
        })
    }
}

/// Makes the handles of the messages of one answer.
pub(super) struct Handles<'a> {
    header: &'a PopResponseHeader<'a>,
    broker_name: &'a str,
    /// First offset by retry flag and queue.
    starts: HashMap<(&'a str, &'a str), &'a str>,
}

impl<'a> Handles<'a> {
    pub(super) fn new(header: &'a PopResponseHeader<'a>, broker_name: &'a str) -> Handles<'a> {
        let pieces = header.start_offset_info.unwrap_or_default().split(';');
        let starts = pieces.filter_map(|piece| {
            let mut words = piece.split(' ');
            Some(((words.next()?, words.next()?), words.next()?))
        });
        Handles { header, broker_name, starts: starts.collect() }
    }

    /// The handle of a message: messages that were handed out before bring theirs. `None` when the answer lacks it.
    pub(super) fn of(&self, message: &MessageExt) -> Option<String> {
        if let Some(handle) = message.property(names::POP_CK) {
            return Some(handle.to_owned());
        }
        let queue = message.queue.queue_id.to_string();
        let start = self.starts.get(&("0", queue.as_str()))?;
        let PopResponseHeader { pop_time, invisible_time, revive_qid, .. } = self.header;
        let (broker, offset) = (self.broker_name, message.queue_offset);
        Some(format!("{start} {pop_time} {invisible_time} {revive_qid} 0 {broker} {queue} {offset}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests_support::record;

    #[test]
    fn handles_are_made_and_read() {
        let header = PopResponseHeader {
            pop_time: 1000,
            invisible_time: 60_000,
            revive_qid: 4,
            rest_num: 0,
            start_offset_info: Some("0 3 5;1 0 9"),
            msg_offset_info: Some("0 3 7,8;1 0 9"),
            order_count_info: None,
        };
        let message = |properties: &str| {
            MessageExt::decode(&record("t", 7, b"x", 0, properties).into(), "b").unwrap().0
        };
        let handles = Handles::new(&header, "b");
        let made = handles.of(&message("")).unwrap();
        assert_eq!(made, "5 1000 60000 4 0 b 3 7");
        let handle = Handle::parse(&made, "t", "g").unwrap();
        assert_eq!((&*handle.topic, &*handle.broker_name, handle.queue_id, handle.offset), ("t", "b", 3, 7));
        assert_eq!(handle.visible_ms, 61_000);
        let brought = handles.of(&message("POP_CK\u{1}9 1 2 0 1 b 0 9\u{2}")).unwrap();
        assert_eq!(Handle::parse(&brought, "t", "g").unwrap().topic, "%RETRY%g_t");
        assert_eq!(Handle::parse("9 1 2 0 2 b 0 9", "t", "g").unwrap().topic, "%RETRY%g+t");
        assert_eq!(Handle::parse("9 1 2", "t", "g"), None);
        let header = PopResponseHeader { start_offset_info: None, ..header };
        assert_eq!(Handles::new(&header, "b").of(&message("")), None);
    }
}
