//! What the index needs to know of a message, taken from its properties in one pass.

use ringmq_protocol::properties::{self, names};
use ringmq_protocol::record::sys_flag;
use smallvec::SmallVec;

/// Most messages of an inner batch: Java's index counts them in 16 bits.
const MAX_INNER: u32 = i16::MAX as u32;

/// The properties that are indexed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Indexed<'a> {
    /// Hash of TAGS; 0 without.
    pub tags_code: i64,
    /// KEYS, one by one, UNIQ_KEY, and DEDUPE_KEY with its name, as it stands in the properties.
    pub keys: SmallVec<[&'a str; 4]>,
}

impl<'a> Indexed<'a> {
    /// From a record's encoded properties. A message of a rolled back transaction has no keys.
    pub(super) fn of(properties: &'a str, sys_flag: i32) -> Indexed<'a> {
        let (mut tags, mut keys, mut unique, mut dedupe) = (None, None, None, None);
        for (name, value) in properties::iter(properties) {
            // The last one of a name counts, as in Java's map.
            match name {
                "TAGS" => tags = Some(value),
                "KEYS" => keys = Some(value),
                "UNIQ_KEY" => unique = Some(value),
                "DEDUPE_KEY" => {
                    let start = name.as_ptr() as usize - properties.as_ptr() as usize;
                    dedupe = properties.get(start..start + name.len() + 1 + value.len());
                }
                _ => {}
            }
        }
        let tags_code = tags.map_or(0, properties::tags_code);
        let mut indexed = Indexed { tags_code, keys: SmallVec::new() };
        if sys_flag & sys_flag::TRANSACTION_TYPE != sys_flag::TRANSACTION_ROLLBACK {
            indexed.keys.extend(unique);
            indexed.keys.extend(dedupe);
            keys.into_iter().for_each(|keys| indexed.keys.extend(properties::keys(keys)));
        }
        indexed
    }

    /// Whether a query by `key` should find the message.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.keys.contains(&key)
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
        let indexed = Indexed::of(text, 0);
        assert_eq!(indexed.tags_code, i64::from(properties::java_hash("TagA")));
        assert_eq!(indexed.keys[..], ["U", "k1", "k2"]);
        assert!(indexed.has_key("k2") && !indexed.has_key("old"));
        let indexed = Indexed::of("KEYS\u{1}k\u{2}DEDUPE_KEY\u{1}d 1\u{2}", 0);
        assert_eq!(indexed.keys[..], ["DEDUPE_KEY\u{1}d 1", "k"]);
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
        let indexed = Indexed::of("KEYS\u{1}k\u{2}TAGS\u{1}t", sys_flag::TRANSACTION_ROLLBACK);
        assert_eq!((indexed.tags_code, indexed.keys.len()), (i64::from(properties::java_hash("t")), 0));
        assert_eq!(Indexed::of("", 0), Indexed::default());
    }
}
