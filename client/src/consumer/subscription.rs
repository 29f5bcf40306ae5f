//! Subscriptions: a topic and the tags wanted.

use std::collections::BTreeSet;

use ringmq_protocol::body::SubscriptionData;
use ringmq_protocol::properties::java_hash;

use crate::message::MessageExt;

/// What stands for all tags.
const ALL: &str = "*";

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
