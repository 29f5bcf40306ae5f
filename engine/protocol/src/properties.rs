//! Message properties: `name 0x01 value 0x02 name 0x01 value 0x02 …`.

use memchr::memchr_iter;
use smallvec::SmallVec;

use crate::marks::Marks;

/// Stands between a name and its value.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Stands behind each value.
pub const PROPERTY_SEPARATOR: u8 = 2;
/// Most bytes of properties that a record holds.
pub const MAX_LEN: usize = i16::MAX as usize;

/// Names of properties that the broker or the clients give a meaning (Java's `MessageConst`).
pub mod names {
    macro_rules! names {
        ($($name:ident = $value:literal,)*) => {
            $(
                #[doc = concat!("The property `", $value, "`.")]
                pub const $name: &str = $value;
            )*
        };
    }

    names! {
        KEYS = "KEYS",
        TAGS = "TAGS",
        WAIT_STORE_MSG_OK = "WAIT",
        DELAY_TIME_LEVEL = "DELAY",
        RETRY_TOPIC = "RETRY_TOPIC",
        REAL_TOPIC = "REAL_TOPIC",
        REAL_QUEUE_ID = "REAL_QID",
        TRANSACTION_PREPARED = "TRAN_MSG",
        PRODUCER_GROUP = "PGROUP",
        MIN_OFFSET = "MIN_OFFSET",
        MAX_OFFSET = "MAX_OFFSET",
        ORIGIN_MESSAGE_ID = "ORIGIN_MESSAGE_ID",
        RECONSUME_TIME = "RECONSUME_TIME",
        MSG_REGION = "MSG_REGION",
        TRACE_SWITCH = "TRACE_ON",
        UNIQ_KEY = "UNIQ_KEY",
        EXTEND_UNIQ_INFO = "EXTEND_UNIQ_INFO",
        MAX_RECONSUME_TIMES = "MAX_RECONSUME_TIMES",
        CONSUME_START_TIMESTAMP = "CONSUME_START_TIME",
        INNER_NUM = "INNER_NUM",
        INNER_BASE = "INNER_BASE",
        TRANSACTION_CHECK_TIMES = "TRANSACTION_CHECK_TIMES",
        INSTANCE_ID = "INSTANCE_ID",
        CORRELATION_ID = "CORRELATION_ID",
        REPLY_TO_CLIENT = "REPLY_TO_CLIENT",
        CLUSTER = "CLUSTER",
        MESSAGE_TYPE = "MSG_TYPE",
        POP_CK = "POP_CK",
        SHARDING_KEY = "__SHARDINGKEY",
        INNER_MULTI_DISPATCH = "INNER_MULTI_DISPATCH",
        INNER_MULTI_QUEUE_OFFSET = "INNER_MULTI_QUEUE_OFFSET",
        TIMER_DELAY_SEC = "TIMER_DELAY_SEC",
        TIMER_DELAY_MS = "TIMER_DELAY_MS",
        TIMER_DELIVER_MS = "TIMER_DELIVER_MS",
        BORN_HOST = "__BORNHOST",
        BORN_TIMESTAMP = "BORN_TIMESTAMP",
        DEDUPE_KEY = "DEDUPE_KEY",
        PRIORITY = "_SYS_MSG_PRIORITY_",
        CRC32 = "__CRC32#",
        DUE = "RINGMQ_DUE",
        DEAD_BECAUSE = "RINGMQ_DEAD_BECAUSE",
        TIMER_OUT_MS = "TIMER_OUT_MS",
        TIMER_ENQUEUE_MS = "TIMER_ENQUEUE_MS",
        TIMER_DEQUEUE_MS = "TIMER_DEQUEUE_MS",
        TIMER_ROLL_TIMES = "TIMER_ROLL_TIMES",
        TIMER_DEL_UNIQKEY = "TIMER_DEL_UNIQKEY",
        TIMER_DELAY_LEVEL = "TIMER_DELAY_LEVEL",
        DLQ_ORIGIN_TOPIC = "DLQ_ORIGIN_TOPIC",
        DLQ_ORIGIN_MESSAGE_ID = "DLQ_ORIGIN_MESSAGE_ID",
        MESSAGE_TTL = "TTL",
        REPLY_ARRIVE_TIME = "ARRIVE_TIME",
        PUSH_REPLY_TIME = "PUSH_REPLY_TIME",
        CHECK_IMMUNITY_TIME = "CHECK_IMMUNITY_TIME_IN_SECONDS",
    }
}

/// The pairs of encoded properties, as Java reads them: pieces without a name, without a value or without the
/// separator between them are passed over.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    text: &'a str,
    /// Where the next piece starts.
    at: usize,
    separators: Marks<'a, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR>,
}

/// Name and value of each property, in the order of the text.
pub fn iter(properties: &str) -> Iter<'_> {
    Iter { text: properties, at: 0, separators: Marks::new(properties.as_bytes()) }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        while self.at < self.text.len() {
            let start = self.at;
            let mut name_end = None;
            let end = loop {
                match self.separators.next() {
                    Some(at) if self.text.as_bytes()[at] == NAME_VALUE_SEPARATOR => {
                        name_end.get_or_insert(at);
                    }
                    Some(at) => break at,
                    None => break self.text.len(),
                }
            };
            self.at = end + 1;
            if let Some(name_end) = name_end.filter(|name_end| start < *name_end && name_end + 1 < end) {
                return Some((&self.text[start..name_end], &self.text[name_end + 1..end]));
            }
        }
        None
    }
}

/// The value of a property; the last one when it stands twice, as in Java's map.
pub fn find<'a>(properties: &'a str, name: &str) -> Option<&'a str> {
    iter(properties).filter(|(n, _)| *n == name).last().map(|(_, value)| value)
}

/// Appends a property, with a separator in front if the text so far lacks it. Neither text may hold a separator.
pub fn push(properties: &mut String, name: &str, value: &str) {
    debug_assert!(!name.is_empty() && !has_separator(name) && !has_separator(value));
    if needs_separator(properties) {
        properties.push(char::from(PROPERTY_SEPARATOR));
    }
    properties.push_str(name);
    properties.push(char::from(NAME_VALUE_SEPARATOR));
    properties.push_str(value);
    properties.push(char::from(PROPERTY_SEPARATOR));
}

/// Whether a separator must be written before anything is appended.
pub fn needs_separator(properties: &str) -> bool {
    properties.as_bytes().last().is_some_and(|b| *b != PROPERTY_SEPARATOR)
}

/// Whether a text holds a byte that separates properties, and so can be neither name nor value.
pub fn has_separator(text: &str) -> bool {
    memchr::memchr2(NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, text.as_bytes()).is_some()
}

/// What is left of `properties` without those named in `drop`: slices of the text, in order, each ending with its
/// separator (the last one may lack it, as in the original).
pub fn without<'a>(properties: &'a str, drop: &[&str]) -> SmallVec<[&'a str; 4]> {
    let mut parts = SmallVec::new();
    let (mut kept, mut at) = (0, 0);
    for end in memchr_iter(PROPERTY_SEPARATOR, properties.as_bytes())
        .map(|i| i + 1)
        .chain((needs_separator(properties)).then_some(properties.len()))
    {
        let piece = properties[at..end].trim_end_matches(char::from(PROPERTY_SEPARATOR));
        let name = piece.split_once(char::from(NAME_VALUE_SEPARATOR)).map(|(name, _)| name);
        if name.is_some_and(|n| drop.contains(&n)) {
            parts.extend((kept < at).then(|| &properties[kept..at]));
            kept = end;
        }
        at = end;
    }
    parts.extend((kept < properties.len()).then(|| &properties[kept..]));
    parts
}

/// The keys of a message, out of its property KEYS.
pub fn keys(value: &str) -> impl Iterator<Item = &str> {
    value.split(' ').filter(|key| !key.is_empty())
}

/// The tags code of the property TAGS: Java's `hashCode` of the text, sign-extended; 0 without tags.
pub fn tags_code(tags: &str) -> i64 {
    i64::from(java_hash(tags))
}

/// Java's `String.hashCode`.
pub fn java_hash(text: &str) -> i32 {
    let step = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
    if text.is_ascii() {
        return text.bytes().fold(0, |hash, b| step(hash, i32::from(b)));
    }
    text.encode_utf16().fold(0, |hash, unit| step(hash, i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "KEYS\u{1}a b\u{2}TAGS\u{1}x\u{2}bad\u{2}\u{1}v\u{2}k\u{1}\u{2}u\u{1}p\u{1}q\u{2}TAGS\u{1}y";

    #[test]
    fn reads_as_java_does() {
        let pairs: Vec<_> = iter(TEXT).collect();
        assert_eq!(pairs, [("KEYS", "a b"), ("TAGS", "x"), ("u", "p\u{1}q"), ("TAGS", "y")]);
        assert_eq!(find(TEXT, "TAGS"), Some("y"));
        assert_eq!(find(TEXT, "k"), None);
        assert_eq!(keys(" a  b ").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn drops_by_name_without_touching_the_rest() {
        assert_eq!(without(TEXT, &["nothing"]).as_slice(), [TEXT]);
        assert_eq!(without("", &["a"]).len(), 0);
        let parts = without("a\u{1}1\u{2}b\u{1}2\u{2}c\u{1}3\u{2}", &["b"]);
        assert_eq!(parts.as_slice(), ["a\u{1}1\u{2}", "c\u{1}3\u{2}"]);
        assert_eq!(
            without(TEXT, &["TAGS", "KEYS"]).concat(),
            "bad\u{2}\u{1}v\u{2}k\u{1}\u{2}u\u{1}p\u{1}q\u{2}"
        );
    }

    #[test]
    fn pushes_with_separators() {
        let mut text = String::from("a\u{1}1");
        push(&mut text, "b", "2");
        assert_eq!(text, "a\u{1}1\u{2}b\u{1}2\u{2}");
    }

    #[test]
    fn hashes_as_java_does() {
        assert_eq!(tags_code(""), 0);
        assert_eq!(tags_code("TagA"), 2_598_919);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash("中文"), 20_013 * 31 + 25_991);
    }
}
