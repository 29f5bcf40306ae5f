//! Which messages of a queue a pull wants: by the hash of their tag, or by an SQL92 expression over their properties.

use std::cell::Cell;
use std::sync::Arc;

use hashbrown::HashMap;
use ringmq_filter::{Filter, FilterError};
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::RecordView;
use rustc_hash::FxBuildHasher;

use crate::control::sessions::GroupView;
use crate::tag_filter::TagFilter;

/// Steps of a filter's program that one read takes at most; it goes on with the next read.
const MAX_STEPS: usize = 100_000;
/// Compiled expressions that one core keeps for pulls that bring theirs along.
const MAX_CACHED: usize = 256;

/// The expression type of SQL92.
pub const SQL92: &str = "SQL92";

/// Whether an expression type stands for tags, as Java's `ExpressionType.isTagType`.
pub fn is_tag_type(expression_type: &str) -> bool {
    matches!(expression_type, "" | "TAG")
}

/// A filter of messages.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageFilter {
    /// By tag.
    Tag(TagFilter),
    /// By properties.
    Sql(Arc<Filter>),
    /// Of a retry topic: what the group's filters of the messages' original topics want.
    Original(Arc<GroupView>),
}

impl MessageFilter {
    /// Whether every message is wanted.
    pub fn is_all(&self) -> bool {
        *self == MessageFilter::Tag(TagFilter::All)
    }

    /// Whether a message with this tags code may be wanted.
    pub fn matches_code(&self, code: i64) -> bool {
        match self {
            MessageFilter::Tag(filter) => filter.matches(code),
            MessageFilter::Sql(_) | MessageFilter::Original(_) => true,
        }
    }

    /// Whether the tags code decides alone.
    pub fn is_by_tag(&self) -> bool {
        matches!(self, MessageFilter::Tag(_))
    }

    /// Whether the stored record is wanted; `verdicts` counts what an expression said.
    pub fn matches_record(&self, record: &[u8], verdicts: &Verdicts) -> bool {
        let filter = match self {
            MessageFilter::Tag(_) => return true,
            MessageFilter::Sql(filter) => Some(&**filter),
            MessageFilter::Original(_) => None,
        };
        let Ok(view) = RecordView::decode(record) else { return false };
        let filter = match (self, filter) {
            (MessageFilter::Original(group), None) => {
                let topic = properties::find(view.properties, property::RETRY_TOPIC);
                topic.and_then(|topic| group.filters.get(topic)).map(|filter| &**filter)
            }
            (_, filter) => filter,
        };
        let Some(filter) = filter else { return true };
        let wanted = filter.matches(properties::iter(view.properties));
        verdicts.count(wanted);
        wanted
    }

    /// Most records that one read looks at.
    pub fn max_scanned(&self) -> usize {
        let cost = match self {
            MessageFilter::Tag(_) => 1,
            MessageFilter::Sql(filter) => filter.cost(),
            MessageFilter::Original(group) => {
                group.filters.values().map(|filter| filter.cost()).max().unwrap_or(1)
            }
        };
        (MAX_STEPS / cost.max(1)).max(1)
    }
}

/// What expressions said of messages.
#[derive(Debug, Default)]
pub struct Verdicts {
    evaluated: Cell<u64>,
    rejected: Cell<u64>,
}

impl Verdicts {
    fn count(&self, wanted: bool) {
        self.evaluated.set(self.evaluated.get() + 1);
        self.rejected.set(self.rejected.get() + u64::from(!wanted));
    }

    /// Messages that expressions were evaluated for.
    pub fn evaluated(&self) -> u64 {
        self.evaluated.get()
    }

    /// Of these, the ones that were not wanted.
    pub fn rejected(&self) -> u64 {
        self.rejected.get()
    }
}

/// The compiled expressions of pulls that bring theirs along, on one core.
#[derive(Default)]
pub struct FilterCache(HashMap<Box<str>, Arc<Filter>, FxBuildHasher>);

impl FilterCache {
    /// The expression compiled, now or earlier.
    pub fn get(&mut self, expression: &str) -> Result<Arc<Filter>, FilterError> {
        if let Some(filter) = self.0.get(expression) {
            return Ok(filter.clone());
        }
        let filter = Arc::new(Filter::compile(expression)?);
        if self.0.len() >= MAX_CACHED {
            self.0.clear();
        }
        self.0.insert(expression.into(), filter.clone());
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Vec<u8> {
        let properties: &[&[u8]] = &[text.as_bytes()];
        let host = "127.0.0.1:1".parse().unwrap();
        let fields = ringmq_protocol::record::RecordFields {
            queue_id: 0,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"b",
            topic: "t",
            properties,
        };
        let mut record = vec![0; fields.encoded_len().unwrap()];
        fields.encode_into(&mut record);
        record
    }

    #[test]
    fn a_retry_message_is_held_to_the_filter_of_its_original_topic() {
        let mut group = GroupView::default();
        group.filters.insert("orders".into(), Arc::new(Filter::compile("price > 5").unwrap()));
        let filter = MessageFilter::Original(Arc::new(group));
        let verdicts = Verdicts::default();
        let matches = |text: &str| filter.matches_record(&record(text), &verdicts);
        assert!(matches("RETRY_TOPIC\u{1}orders\u{2}price\u{1}6\u{2}"));
        assert!(!matches("RETRY_TOPIC\u{1}orders\u{2}price\u{1}5\u{2}"));
        assert!(matches("RETRY_TOPIC\u{1}others\u{2}price\u{1}5\u{2}") && matches("price\u{1}5\u{2}"));
        assert_eq!((verdicts.evaluated(), verdicts.rejected()), (2, 1));
    }

    #[test]
    fn an_expensive_filter_looks_at_fewer_messages_a_read() {
        let scanned = |terms: usize| {
            let expression = vec!["a = 1"; terms].join(" OR ");
            MessageFilter::Sql(Arc::new(Filter::compile(&expression).unwrap())).max_scanned()
        };
        assert!(scanned(1) > 800 && scanned(1000) < 50 && scanned(1000) > 0);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_no_errors() {
        let mut cache = FilterCache::default();
        for n in 0..MAX_CACHED + 10 {
            cache.get(&format!("a = {n}")).unwrap();
        }
        assert!(cache.0.len() <= MAX_CACHED && cache.get("a >").is_err());
        assert!(Arc::ptr_eq(&cache.get("b = 1").unwrap(), &cache.get("b = 1").unwrap()));
    }
}
