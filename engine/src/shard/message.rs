//! What the index needs to know of a message, taken from its properties in one pass.

use ringmq_protocol::properties::{self, names};
use ringmq_protocol::record::sys_flag;

/// Most messages of an inner batch: Java's index counts them in 16 bits.
const MAX_INNER: u32 = i16::MAX as u32;

/// The properties of a message that are indexed, as they stand in it. The last one of a name counts, as in Java's map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexed<'a> {
    /// TAGS.
    pub tags: Option<&'a str>,
    /// KEYS.
    pub keys: Option<&'a str>,
    /// UNIQ_KEY.
    pub uniq_key: Option<&'a str>,
    /// DEDUPE_KEY, with its name and the separator in front.
    pub dedupe_key: Option<&'a str>,
}

impl<'a> Indexed<'a> {
    /// From a record's encoded properties.
    pub fn of(properties: &'a str) -> Indexed<'a> {
        let mut indexed = Indexed::default();
        for (name, value) in properties::iter(properties) {
            match name {
                names::TAGS => indexed.tags = Some(value),
                names::KEYS => indexed.keys = Some(value),
                names::UNIQ_KEY => indexed.uniq_key = Some(value),
                names::DEDUPE_KEY => {
                    let start = name.as_ptr() as usize - properties.as_ptr() as usize;
                    indexed.dedupe_key = properties.get(start..start + name.len() + 1 + value.len());
                }
                _ => {}
            }
        }
        indexed
    }

    /// Hash of TAGS; 0 without.
    pub(super) fn tags_code(&self) -> i64 {
        self.tags.map_or(0, properties::tags_code)
    }

    /// The keys by which it is found, KEYS one by one. A message of a rolled back transaction has none.
    pub(super) fn each_key(&self, sys_flag: i32) -> impl Iterator<Item = &'a str> {
        let has_keys = sys_flag & sys_flag::TRANSACTION_TYPE != sys_flag::TRANSACTION_ROLLBACK;
        let Indexed { keys, uniq_key, dedupe_key, .. } = if has_keys { *self } else { Indexed::default() };
        let keys = keys.into_iter().flat_map(properties::keys);
        uniq_key.into_iter().chain(dedupe_key).chain(keys)
    }
}

/// How many queue offsets a record takes: an inner batch (of a BatchCQ topic) one for each of its messages.
pub(super) fn offsets_of(properties: &str, sys_flag: i32) -> u32 {
    if sys_flag & sys_flag::INNER_BATCH == 0 {
        return 1;
    }
    let count = properties::find(properties, names::INNER_NUM).and_then(|count| count.parse().ok());
    count.unwrap_or(1).clamp(1, MAX_INNER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_keys_are_found_and_the_last_of_a_name_counts() {
        let text = "KEYS\u{1}old\u{2}a\u{1}b\u{2}TAGS\u{1}TagA\u{2}KEYS\u{1}k1  k2\u{2}UNIQ_KEY\u{1}U\u{2}";
        let indexed = Indexed::of(text);
        assert_eq!(indexed.tags_code(), i64::from(properties::java_hash("TagA")));
        assert_eq!(indexed.each_key(0).collect::<Vec<_>>(), ["U", "k1", "k2"]);
        let indexed = Indexed::of("KEYS\u{1}k\u{2}DEDUPE_KEY\u{1}d 1\u{2}");
        assert_eq!(indexed.each_key(0).collect::<Vec<_>>(), ["DEDUPE_KEY\u{1}d 1", "k"]);
    }

    #[test]
    fn an_inner_batch_takes_an_offset_for_each_message() {
        let text = "INNER_NUM\u{1}12\u{2}";
        assert_eq!((offsets_of(text, 0), offsets_of(text, sys_flag::INNER_BATCH)), (1, 12));
        for bad in ["", "INNER_NUM\u{1}0\u{2}", "INNER_NUM\u{1}-4\u{2}", "INNER_NUM\u{1}x\u{2}"] {
            assert_eq!(offsets_of(bad, sys_flag::INNER_BATCH), 1, "{bad:?}");
        }
        assert_eq!(offsets_of("INNER_NUM\u{1}4000000\u{2}", sys_flag::INNER_BATCH), MAX_INNER);
    }

    #[test]
    fn a_rolled_back_message_is_found_by_tag_only() {
        let indexed = Indexed::of("KEYS\u{1}k\u{2}TAGS\u{1}t");
        assert_eq!(indexed.tags_code(), i64::from(properties::java_hash("t")));
        assert_eq!(indexed.each_key(sys_flag::TRANSACTION_ROLLBACK).count(), 0);
        assert_eq!(Indexed::of(""), Indexed::default());
    }
}
