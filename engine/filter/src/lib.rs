//! RocketMQ's SQL92 message filters, sans-I/O.
//!
//! An expression such as `price > 10 AND color IN ('red', 'blue')` is compiled once a subscription into a small
//! program for a stack machine, and evaluated over a message's properties without recursion and without allocating.
//! Syntax, types, three-valued logic and the conversions between text and numbers are those of RocketMQ's own
//! filter, its oddities included: consumers of both brokers must see the same messages. Where Java would overflow
//! its stack or take any length, there is a limit with an error that names it.
//!
//! ```
//! use ringmq_filter::Filter;
//!
//! let filter = Filter::compile("price BETWEEN 5 AND 10 OR urgent IS NOT NULL")?;
//! assert!(filter.matches([("price", "7")]));
//! assert!(!filter.matches([("price", "cheap")]));
//! # Ok::<(), ringmq_filter::FilterError>(())
//! ```

mod number;
mod parser;
mod program;
mod text;
mod token;

pub use program::{Filter, Outcome};

/// Most bytes of an expression.
pub const MAX_LENGTH: usize = 64 << 10;
/// Deepest nesting of parentheses and signs.
pub const MAX_DEPTH: usize = 256;

/// Why an expression was not compiled. The text of all but the limits is what RocketMQ's broker answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Longer than [`MAX_LENGTH`].
    #[error("the filter expression has {len} bytes, the limit is {MAX_LENGTH}")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the filter expression is nested deeper than {MAX_DEPTH} levels, the limit")]
    TooDeep,
    /// A text that begins no token.
    #[error("org.apache.rocketmq.filter.parser.TokenMgrError: {0}")]
    Lexical(String),
    /// A token where another one was expected.
    #[error("org.apache.rocketmq.filter.parser.ParseException: {0}")]
    Syntax(String),
    /// A literal, or an operand of the wrong type.
    #[error("java.lang.{0}")]
    Type(String),
}
