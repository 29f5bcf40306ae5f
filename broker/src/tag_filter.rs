//! Which messages of a queue a pull wants, decided by the hash of their tag. The consumer compares the tags
//! themselves afterwards, because hashes may collide.

use std::sync::Arc;

use ringmq_protocol::properties::tags_code;

/// A filter by tag hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagFilter {
    /// Every message.
    #[default]
    All,
    /// Messages whose tags code is among these.
    Codes(Arc<[i64]>),
}

impl TagFilter {
    /// From an expression like `TagA || TagB`; empty and `*` mean every message. `None` when it names no tag at
    /// all, which Java calls a parse failure.
    pub fn parse(expression: &str) -> Option<TagFilter> {
        if expression.is_empty() || expression == "*" {
            return Some(TagFilter::All);
        }
        // Java's `split` drops empty pieces at the end only, and fails when nothing is left.
        let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let any_piece = expression.split("||").any(|piece| !piece.is_empty());
        any_piece.then(|| TagFilter::Codes(tags.map(tags_code).collect()))
    }

    /// From the hashes that a heartbeat tells.
    pub fn from_codes(codes: impl IntoIterator<Item = i32>) -> TagFilter {
        TagFilter::Codes(codes.into_iter().map(i64::from).collect())
    }

    /// Whether a message with this tags code may match.
    pub fn matches(&self, code: i64) -> bool {
        match self {
            TagFilter::All => true,
            TagFilter::Codes(codes) => codes.contains(&code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expressions_as_java_does() {
        assert_eq!(TagFilter::parse(""), Some(TagFilter::All));
        assert_eq!(TagFilter::parse("*"), Some(TagFilter::All));
        assert_eq!(TagFilter::parse("||"), None);
        let filter = TagFilter::parse(" TagA || TagB||").unwrap();
        assert!(filter.matches(tags_code("TagA")) && filter.matches(tags_code("TagB")));
        assert!(!filter.matches(tags_code("TagC")) && !filter.matches(0));
    }
}
