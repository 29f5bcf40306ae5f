//! Topic attributes: `+name=value,-name` as RocketMQ's admin tools send them.

use std::collections::BTreeMap;

use super::super::refusal::Refusal;
use crate::quotas;

/// The `message.type` attribute.
const MESSAGE_TYPE: &str = "message.type";

/// How long the topic's messages are kept, in hours.
pub const RESERVE_TIME: &str = "reserve.time";
/// The attribute that says for how long a topic remembers its messages' DEDUPE_KEYs, in ms. RingMQ's own.
pub const DEDUPE_WINDOW: &str = "dedupe.window";
/// Longest window of [`DEDUPE_WINDOW`]: a week.
const MAX_DEDUPE_WINDOW_MS: i64 = 7 * 86_400_000;

/// What a topic attribute may be set to.
enum Values {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A whole number that is not below this.
    AtLeast(i64),
    /// Known to RocketMQ, not served by this broker yet whatever its value.
    Unserved,
}

/// A topic attribute that RocketMQ knows.
struct Attribute {
    name: &'static str,
    /// Whether it may be changed or removed once the topic exists.
    changeable: bool,
    values: Values,
}

/// The attributes of RocketMQ's `TopicAttributes`, with what this broker can keep of each.
const ATTRIBUTES: [Attribute; 10] = [
    Attribute { name: "queue.type", changeable: false, values: Values::OneOf(&["SimpleCQ", "BatchCQ"]) },
    Attribute { name: "cleanup.policy", changeable: false, values: Values::OneOf(&["DELETE"]) },
    Attribute {
        name: MESSAGE_TYPE,
        changeable: true,
        values: Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "MIXED",
            "PRIORITY",
        ]),
    },
    // Hours, as in Java's tiered store; -1: as long as the broker keeps everything.
    Attribute { name: RESERVE_TIME, changeable: true, values: Values::AtLeast(-1) },
    Attribute { name: DEDUPE_WINDOW, changeable: true, values: Values::Number(0, MAX_DEDUPE_WINDOW_MS) },
    quota(quotas::SEND),
    quota(quotas::SEND_BYTES),
    quota(quotas::PULL),
    quota(quotas::PULL_BYTES),
    Attribute { name: "lite.topic.expiration", changeable: true, values: Values::Unserved },
];

/// The attributes of a consumer group: RingMQ's own.
const GROUP_ATTRIBUTES: [Attribute; 4] =
    [quota(quotas::SEND), quota(quotas::SEND_BYTES), quota(quotas::PULL), quota(quotas::PULL_BYTES)];

const fn quota(name: &'static str) -> Attribute {
    Attribute { name, changeable: true, values: Values::Number(0, quotas::MAX) }
}

/// Splits `+key1=value1,-key2` into what is to be set and removed, signs kept.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut parsed = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) if key.contains('+') => (key, value),
            Some((key, _)) => return Err(error("add/alter attribute format is wrong: ", key)),
            None if part.contains('-') => (part, ""),
            None => return Err(error("delete attribute format is wrong: ", part)),
        };
        if parsed.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(error("key duplication: ", key));
        }
    }
    Ok(parsed)
}

/// Whether the signed changes make a topic one that takes messages of every type.
pub(super) fn asks_for_mixed_types(changes: &BTreeMap<String, String>) -> bool {
    changes.iter().any(|(key, value)| key.strip_prefix('+') == Some(MESSAGE_TYPE) && value == "MIXED")
}

/// Applies signed changes to a topic's attributes. `current` is `None` while the topic is created.
pub(super) fn alter(
    current: Option<&BTreeMap<String, String>>,
    changes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    alter_known(&ATTRIBUTES, current, changes)
}

/// The same for a consumer group's.
pub fn alter_group(
    current: Option<&BTreeMap<String, String>>,
    changes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    alter_known(&GROUP_ATTRIBUTES, current, changes)
}

fn alter_known(
    known: &[Attribute],
    current: Option<&BTreeMap<String, String>>,
    changes: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let creating = current.is_none();
    let mut altered = current.cloned().unwrap_or_default();
    let mut seen = Vec::with_capacity(changes.len());
    for (signed, value) in changes {
        let key = signed.get(1..).unwrap_or_default();
        if key.is_empty() || key.contains(['+', '-']) {
            return Err(Refusal::system_error("kv string format wrong."));
        }
        if seen.contains(&key) {
            return Err(error("alter duplication key. key: ", key));
        }
        seen.push(key);
        match signed.as_bytes()[0] {
            b'+' => {
                check(known, key, Some(value), creating)?;
                altered.insert(key.to_owned(), value.clone());
            }
            _ if creating => {
                return Err(error("only add attribute is supported while creating topic. key: ", key));
            }
            b'-' if altered.contains_key(key) => {
                check(known, key, None, creating)?;
                altered.remove(key);
            }
            b'-' => return Err(error("attempt to delete a nonexistent key: ", key)),
            _ => return Err(error("wrong format key: ", key)),
        }
    }
    Ok(altered)
}

fn check(known: &[Attribute], key: &str, value: Option<&str>, creating: bool) -> Result<(), Refusal> {
    let Some(attribute) = known.iter().find(|attribute| attribute.name == key) else {
        return Err(error("unsupported key: ", key));
    };
    if !creating && !attribute.changeable {
        return Err(error("attempt to update an unchangeable attribute. key: ", key));
    }
    match (&attribute.values, value) {
        (Values::OneOf(values), Some(value)) if !values.contains(&value) => {
            Err(Refusal::system_error(format!("value is not in set: [{}]", values.join(", "))))
        }
        (Values::AtLeast(least), Some(value)) if !value.parse::<i64>().is_ok_and(|value| value >= *least) => {
            Err(Refusal::system_error(format!("value is not in range: [{least}, {}]", i64::MAX)))
        }
        (Values::Number(min, max), Some(value)) => match value.parse::<i64>() {
            Ok(number) if (*min..=*max).contains(&number) => Ok(()),
            Ok(_) => Err(Refusal::system_error(format!("value is not in range({min}, {max})"))),
            Err(_) => Err(Refusal::system_error(format!("value is not a number: {value}"))),
        },
        (Values::Unserved, Some(_)) => {
            Err(Refusal::system_error(format!("{key} is not supported by this broker")))
        }
        _ => Ok(()),
    }
}

fn error(text: &str, key: &str) -> Refusal {
    Refusal::system_error(format!("{text}{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(current: Option<&[(&str, &str)]>, text: &str) -> Result<Vec<(String, String)>, String> {
        let current = current.map(|pairs| {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>()
        });
        let changes = parse(text).map_err(|refusal| refusal.remark)?;
        alter(current.as_ref(), &changes)
            .map(|map| map.into_iter().collect())
            .map_err(|refusal| refusal.remark)
    }

    #[test]
    fn sets_and_removes() {
        let fifo = vec![("message.type".to_owned(), "FIFO".to_owned())];
        assert_eq!(altered(None, "+message.type=FIFO").unwrap(), fifo);
        assert_eq!(altered(Some(&[("message.type", "NORMAL")]), "+message.type=FIFO").unwrap(), fifo);
        assert_eq!(altered(Some(&[("message.type", "NORMAL")]), "-message.type").unwrap(), vec![]);
        assert_eq!(altered(None, "").unwrap(), vec![]);
    }

    #[test]
    fn reserve_time_is_a_number_of_hours() {
        assert_eq!(altered(None, "+reserve.time=48").unwrap(), [("reserve.time".into(), "48".into())]);
        assert_eq!(altered(None, "+reserve.time=-1").unwrap().len(), 1);
        for bad in ["+reserve.time=-2", "+reserve.time=1d", "+reserve.time="] {
            assert!(altered(None, bad).unwrap_err().contains("not in range"), "{bad}");
        }
    }

    #[test]
    fn remarks_are_javas() {
        let remark = |current, text| altered(current, text).unwrap_err();
        assert_eq!(remark(None, "message.type=FIFO"), "add/alter attribute format is wrong: message.type");
        assert_eq!(remark(None, "message"), "delete attribute format is wrong: message");
        assert_eq!(remark(None, "+a=1,+a=2"), "key duplication: +a");
        assert_eq!(remark(None, "+a=1"), "unsupported key: a");
        assert_eq!(
            remark(None, "-message.type"),
            "only add attribute is supported while creating topic. key: message.type"
        );
        assert_eq!(remark(Some(&[]), "-message.type"), "attempt to delete a nonexistent key: message.type");
        assert_eq!(
            remark(Some(&[]), "+queue.type=SimpleCQ"),
            "attempt to update an unchangeable attribute. key: queue.type"
        );
        assert_eq!(remark(None, "+=1"), "kv string format wrong.");
        assert_eq!(remark(None, "+dedupe.window=soon"), "value is not a number: soon");
        assert_eq!(remark(None, "+dedupe.window=-1"), "value is not in range(0, 604800000)");
        assert!(altered(None, "+dedupe.window=60000").is_ok());
    }
}
