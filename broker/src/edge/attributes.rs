//! What a topic's attributes ask of a message that is sent to it: its type, and that it is stored once.

use ringmq_protocol::body::TopicConfig;
use ringmq_protocol::properties::{self, NAME_VALUE_SEPARATOR, names as property};

use crate::control::Refusal;
use crate::control::topics::DEDUPE_WINDOW;
use crate::message::Once;
use crate::remarks;

/// Longest DEDUPE_KEY, in bytes.
const MAX_DEDUPE_KEY: usize = 512;

/// Refuses a message of another type than the topic's attribute says; without the attribute, every type is taken.
pub fn check_type(config: &TopicConfig, properties: &str) -> Result<(), Refusal> {
    let expected = config.attributes.get("message.type").map_or("UNSPECIFIED", String::as_str);
    let actual = message_type(properties);
    match expected {
        "UNSPECIFIED" | "MIXED" => Ok(()),
        _ if expected == actual => Ok(()),
        _ => Err(remarks::wrong_message_type(expected, actual)),
    }
}

/// Whether batches are stored as one record each in the topic.
pub fn is_batch_cq(config: &TopicConfig) -> bool {
    config.attributes.get("queue.type").is_some_and(|kind| kind == "BatchCQ")
}

/// The type of a message, as Java's `TopicMessageType.parseFromMessageProperty`.
pub fn message_type(text: &str) -> &'static str {
    let has = |name| properties::find(text, name).is_some();
    let delays = [
        property::DELAY_TIME_LEVEL,
        property::TIMER_DELIVER_MS,
        property::TIMER_DELAY_SEC,
        property::TIMER_DELAY_MS,
    ];
    let prepared = properties::find(text, property::TRANSACTION_PREPARED);
    if prepared.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        "TRANSACTION"
    } else if delays.into_iter().any(has) {
        "DELAY"
    } else if has(property::SHARDING_KEY) {
        "FIFO"
    } else if has(property::PRIORITY) {
        "PRIORITY"
    } else {
        "NORMAL"
    }
}

/// How a message with this DEDUPE_KEY is stored in the topic; `None`: like any other, as the topic has no window.
pub fn once(config: &TopicConfig, key: &str, properties: &str) -> Result<Option<Box<Once>>, Refusal> {
    let window = config.attributes.get(DEDUPE_WINDOW).and_then(|window| window.parse::<i64>().ok());
    let Some(window_ms) = window.filter(|window| *window > 0) else { return Ok(None) };
    if key.len() > MAX_DEDUPE_KEY {
        let why = format!("it has {} bytes, the limit is {MAX_DEDUPE_KEY}", key.len());
        return Err(remarks::bad_dedupe_key(&why));
    }
    if matches!(message_type(properties), "TRANSACTION" | "DELAY") {
        return Err(remarks::bad_dedupe_key("delayed and transactional messages cannot have one"));
    }
    let key = [property::DEDUPE_KEY, char::from(NAME_VALUE_SEPARATOR).encode_utf8(&mut [0; 1]), key].concat();
    Ok(Some(Box::new(Once { key: key.into(), window_ms })))
}

/// Refuses a batch with a DEDUPE_KEY in it: a batch is stored as one, and its messages may have different keys.
pub fn check_batch(config: &TopicConfig, body: &[u8]) -> Result<(), Refusal> {
    let name = [property::DEDUPE_KEY.as_bytes(), &[NAME_VALUE_SEPARATOR]].concat();
    let has_key = || body.windows(name.len()).any(|part| part == name);
    if config.attributes.contains_key(DEDUPE_WINDOW) && has_key() {
        return Err(remarks::bad_dedupe_key("the messages of a batch cannot have one"));
    }
    Ok(())
}

/// The queue of a message that is stored once: it follows from the key, so that a repeat comes to the same shard
/// whichever queue its producer chose.
pub fn queue_of(once: &Once, write_queues: i32) -> u32 {
    let hash = properties::java_hash(&once.key) as u32;
    hash % write_queues.max(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(attributes: &[(&str, &str)]) -> TopicConfig {
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        TopicConfig { attributes: attributes.collect(), ..TopicConfig::default() }
    }

    #[test]
    fn types_are_told_as_java_tells_them() {
        for (text, expected) in [
            ("", "NORMAL"),
            ("TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}", "TRANSACTION"),
            ("TRAN_MSG\u{1}false\u{2}DELAY\u{1}3\u{2}", "DELAY"),
            ("__SHARDINGKEY\u{1}k\u{2}_SYS_MSG_PRIORITY_\u{1}3\u{2}", "FIFO"),
            ("_SYS_MSG_PRIORITY_\u{1}3\u{2}", "PRIORITY"),
        ] {
            assert_eq!(message_type(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_type_is_enforced_where_it_is_set() {
        let fifo = topic(&[("message.type", "FIFO")]);
        assert!(check_type(&fifo, "__SHARDINGKEY\u{1}k\u{2}").is_ok());
        assert_eq!(
            check_type(&fifo, "").unwrap_err().remark,
            "TopicMessageType validate failed, the expected type is FIFO, but actual type is NORMAL"
        );
        for free in
            [topic(&[]), topic(&[("message.type", "MIXED")]), topic(&[("message.type", "UNSPECIFIED")])]
        {
            assert!(check_type(&free, "DELAY\u{1}3\u{2}").is_ok());
        }
    }

    #[test]
    fn keys_count_within_a_window_only() {
        let window = topic(&[("dedupe.window", "60000")]);
        let found = once(&window, "k", "").unwrap().unwrap();
        assert_eq!((&*found.key, found.window_ms), ("DEDUPE_KEY\u{1}k", 60_000));
        assert!(queue_of(&found, 4) < 4);
        assert!(once(&topic(&[]), "k", "").unwrap().is_none());
        assert!(once(&topic(&[("dedupe.window", "0")]), "k", "").unwrap().is_none());
        assert!(once(&window, &"k".repeat(513), "").is_err());
        assert!(once(&window, "k", "DELAY\u{1}3\u{2}").is_err());
        assert!(
            check_batch(&window, b"..DEDUPE_KEY\x01k").is_err() && check_batch(&window, b"DEDUPE").is_ok()
        );
    }
}
