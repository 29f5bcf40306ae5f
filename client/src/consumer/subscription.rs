//! Subscriptions: a topic and the tags wanted.

use std::collections::BTreeSet;

use ringmq_protocol::body::SubscriptionData;
use ringmq_protocol::properties::java_hash;

use crate::message::MessageExt;

/// What stands for all tags.
const ALL: &str = "*";
/// Java's name of SQL92 expressions.
const SQL92: &str = "SQL92";

/// Which messages of a topic a consumer gets. Texts are tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// `*` for all messages, or tags with `||` between them.
    Tags(String),
    /// An SQL92 expression over the properties, such as `a > 5 AND b IS NOT NULL`. Brokers must have it enabled
    /// (`enablePropertyFilter`).
    Sql(String),
}

impl Filter {
    /// Every message.
    pub fn all() -> Filter {
        Filter::Tags(ALL.to_owned())
    }

    /// By an SQL92 expression.
    pub fn sql(expression: impl Into<String>) -> Filter {
        Filter::Sql(expression.into())
    }

    /// As brokers are told.
    pub(crate) fn subscription(&self, topic: &str, version: i64) -> SubscriptionData {
        match self {
            Filter::Tags(tags) => by_tag(topic, tags, version),
            Filter::Sql(expression) => SubscriptionData {
                topic: topic.to_owned(),
                sub_string: expression.clone(),
                expression_type: SQL92.to_owned(),
                sub_version: version,
                ..SubscriptionData::default()
            },
        }
    }
}

impl From<&str> for Filter {
    fn from(tags: &str) -> Filter {
        Filter::Tags(tags.to_owned())
    }
}

impl From<String> for Filter {
    fn from(tags: String) -> Filter {
        Filter::Tags(tags)
    }
}

impl From<&String> for Filter {
    fn from(tags: &String) -> Filter {
        Filter::Tags(tags.clone())
    }
}

/// Whether brokers judge the messages, and not tags.
pub(crate) fn is_sql(subscription: &SubscriptionData) -> bool {
    subscription.expression_type == SQL92
}

/// A subscription by tag. The expression is `*` or empty for everything, or tags with `||` between them.
pub(crate) fn by_tag(topic: &str, expression: &str, version: i64) -> SubscriptionData {
    let tags: BTreeSet<&str> = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect();
    let all = tags.is_empty() || expression.trim() == ALL;
    let tags: Vec<String> = tags.into_iter().filter(|_| !all).map(str::to_owned).collect();
    SubscriptionData {
        topic: topic.to_owned(),
        sub_string: if all { ALL.to_owned() } else { expression.to_owned() },
        code_set: tags.iter().map(|tag| java_hash(tag)).collect::<BTreeSet<_>>().into_iter().collect(),
        tags_set: tags,
        sub_version: version,
        ..SubscriptionData::default()
    }
}

/// Whether a message is wanted. Brokers compare hash codes of tags, so some that are not wanted come too.
pub(crate) fn wants(subscription: &SubscriptionData, message: &MessageExt) -> bool {
    let tags = &subscription.tags_set;
    tags.is_empty() || message.tag().is_some_and(|tag| tags.iter().any(|t| t == tag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests_support::record;

    #[test]
    fn expressions() {
        for everything in ["*", "", " * ", " || "] {
            let all = by_tag("t", everything, 1);
            assert_eq!((&*all.sub_string, all.tags_set.len()), ("*", 0), "{everything:?}");
        }
        let two = by_tag("t", "TagA || b", 7);
        assert_eq!((two.tags_set, &*two.sub_string), (vec!["TagA".into(), "b".into()], "TagA || b"));
        assert_eq!((two.code_set, two.sub_version), (vec![98, 2_598_919], 7));
    }

    #[test]
    fn sql_goes_to_the_broker_as_it_is() {
        let subscription = Filter::sql("a > 5").subscription("t", 7);
        assert_eq!((&*subscription.expression_type, &*subscription.sub_string), ("SQL92", "a > 5"));
        assert!(is_sql(&subscription) && subscription.tags_set.is_empty());
        let bytes = record("t", 0, b"b", 0, "").into();
        assert!(wants(&subscription, &MessageExt::decode(&bytes, "b").unwrap().0));
    }

    #[test]
    fn tags_are_compared_as_text() {
        // "Aa" and "BB" have the same hash code.
        let subscription = by_tag("t", "Aa", 1);
        let wanted = |properties: &str| {
            let bytes = record("t", 0, b"b", 0, properties).into();
            wants(&subscription, &MessageExt::decode(&bytes, "b").unwrap().0)
        };
        assert!(wanted("TAGS\u{1}Aa\u{2}"));
        assert!(!wanted("TAGS\u{1}BB\u{2}"));
        assert!(!wanted(""));
    }
}
