//! The properties of a received message, kept as they came: most are never looked at.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use ringmq_protocol::properties::{self, names};

/// Properties by name. Shares the memory of the pull that brought them until they are asked for as a map, or changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties {
    /// As they travel: UTF-8.
    text: Bytes,
    /// The first and the last offset of the queue, as the pull told them.
    ends: Option<(i64, i64)>,
    /// All of them; goes before the text once it is there.
    map: OnceLock<BTreeMap<String, String>>,
}

impl Properties {
    /// `text` was UTF-8 when it was looked at last.
    pub(super) fn new(text: Bytes) -> Properties {
        Properties { text, ends: None, map: OnceLock::new() }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let made = self.ends.is_some() && [names::MIN_OFFSET, names::MAX_OFFSET].contains(&name);
        match self.map.get() {
            None if !made => properties::find(self.text(), name),
            _ => self.map().get(name).map(String::as_str),
        }
    }

    pub(super) fn map(&self) -> &BTreeMap<String, String> {
        self.map.get_or_init(|| {
            let texts = properties::iter(self.text()).map(|(n, v)| (n.to_owned(), v.to_owned()));
            let mut map: BTreeMap<String, String> = texts.collect();
            if let Some((first, last)) = self.ends {
                map.insert(names::MIN_OFFSET.to_owned(), first.to_string());
                map.insert(names::MAX_OFFSET.to_owned(), last.to_string());
            }
            map
        })
    }

    pub(super) fn insert(&mut self, name: &str, value: String) {
        self.map();
        if let Some(map) = self.map.get_mut() {
            map.insert(name.to_owned(), value);
        }
    }

    /// Sets the ends of the queue; for messages that were just decoded.
    pub(super) fn set_ends(&mut self, first: i64, last: i64) {
        self.ends = Some((first, last));
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_text_and_as_a_map_they_are_the_same() {
        let mut properties = Properties::new(Bytes::from_static(b"a\x011\x02b\x012\x02a\x013\x02"));
        assert_eq!(
            (properties.get("a"), properties.get("b"), properties.get("c")),
            (Some("3"), Some("2"), None)
        );
        properties.set_ends(4, 9);
        assert_eq!(properties.get("a"), Some("3"));
        assert!(properties.map.get().is_none());
        assert_eq!(
            (properties.get(names::MIN_OFFSET), properties.get(names::MAX_OFFSET)),
            (Some("4"), Some("9"))
        );
        assert_eq!((properties.get("a"), properties.map().len()), (Some("3"), 4));
        properties.insert("a", "5".to_owned());
        assert_eq!((properties.get("a"), properties.get("b")), (Some("5"), Some("2")));
    }
}
