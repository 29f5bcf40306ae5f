//! With many topics, what a send needs of its own is in no cache: its metadata, and its queue in the index. Before the
//! first of some requests that were received together is handled, all of that is fetched, side by side.
//!
//! Nothing depends on what is found here. It is found with a glance at the headers, which the requests' own handling reads.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use ringmq_engine::QueueId;
use ringmq_env::Env;
use ringmq_protocol::frame;
use smallvec::SmallVec;

use crate::connection::MAX_IN_A_ROW;
use crate::core::Core;

/// Length, serialize type and header length.
const PREFIX: usize = 8;
/// What a topic and a queue's number follow in the headers of sends.
static FIELDS: LazyLock<[(Finder<'_>, Finder<'_>); 2]> = LazyLock::new(|| {
    [("\"b\":\"", "\"e\":\""), ("\"topic\":\"", "\"queueId\":\"")]
        .map(|(topic, queue)| (Finder::new(topic), Finder::new(queue)))
});

/// Has fetched what those of the first requests in `received` need that go to the same shard as the first.
pub fn look_ahead<E: Env>(core: &Core<E>, received: &[u8]) {
    let metadata = core.metadata.borrow();
    if !metadata.has_many_topics() {
        return;
    }
    let sends: SmallVec<[_; MAX_IN_A_ROW]> =
        frames(core, received).take(MAX_IN_A_ROW).filter_map(glance).collect();
    let topics = metadata.topic_table();
    let likely = sends.iter().filter_map(|(topic, queue)| Some((topics.prefetch(topic)?, *queue)));
    let likely: SmallVec<[_; MAX_IN_A_ROW]> = likely.collect();
    let known = likely.iter().map(|(topic, queue)| (topics.prefetch_rest(*topic), *queue));
    let known: SmallVec<[_; MAX_IN_A_ROW]> = known.collect();
    let Some(shard) = known.first().map(|(place, _)| place.shard) else { return };
    let here = known.into_iter().filter(|(place, _)| place.shard == shard);
    let queues: SmallVec<[_; MAX_IN_A_ROW]> = here.collect();
    core.prefetch_queues(shard, &queues);
}

/// The whole frames at the beginning of `received`.
fn frames<'a, E: Env>(core: &Core<E>, mut received: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    std::iter::from_fn(move || {
        let size = frame::peek(received, core.limits()).ok()??;
        let (frame, behind) = received.split_at_checked(size)?;
        received = behind;
        Some(frame)
    })
}

/// Topic and queue of a send, if its header looks like that of one.
fn glance(frame: &[u8]) -> Option<(&str, QueueId)> {
    let header = u32::from_be_bytes([0, *frame.get(5)?, *frame.get(6)?, *frame.get(7)?]) as usize;
    let header = frame.get(PREFIX..PREFIX + header)?;
    FIELDS.iter().find_map(|(topic, queue)| {
        let (topic, behind) = value(header, topic)?;
        let queue = value(behind, queue).and_then(|(queue, _)| queue.parse().ok());
        Some((topic, QueueId(queue.unwrap_or_default())))
    })
}

/// The text behind `name`, up to the next quote, and what is behind that.
fn value<'a>(header: &'a [u8], name: &Finder<'_>) -> Option<(&'a str, &'a [u8])> {
    let from = name.find(header)? + name.needle().len();
    let len = memchr::memchr(b'"', &header[from..])?;
    let text = std::str::from_utf8(&header[from..from + len]).ok()?;
    Some((text, &header[from + len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &str) -> Vec<u8> {
        let len = header.len() as u32;
        [&(len + 4).to_be_bytes()[..], &len.to_be_bytes(), header.as_bytes()].concat()
    }

    #[test]
    fn a_glance_finds_topic_and_queue_of_sends_alone() {
        let v2 = frame(r#"{"code":310,"extFields":{"a":"g","b":"orders","c":"TBW102","d":"4","e":"7"}}"#);
        assert_eq!(glance(&v2), Some(("orders", QueueId(7))));
        let v1 = frame(r#"{"code":10,"extFields":{"queueId":"1","topic":"orders","bornTimestamp":"1"}}"#);
        assert_eq!(
            glance(&v1),
            Some(("orders", QueueId(0))),
            "what stands before the topic is not looked for"
        );
        for none in ["", "{}", r#"{"b":"never ends"#] {
            assert_eq!(glance(&frame(none)), None, "{none}");
        }
        assert_eq!(glance(b"\0\0"), None);
        assert_eq!(glance(&frame("{}")[..9]), None);
    }
}
