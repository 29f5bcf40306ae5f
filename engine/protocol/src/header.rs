//! The header of a frame as a view of the received bytes, whichever of the two forms it came in.

use std::borrow::Cow;

use crate::json::scan::SyntaxError;
use crate::language::Language;

/// Bit of the flag that marks a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of the flag that marks a request without an answer.
pub const FLAG_ONEWAY: i32 = 2;

/// The two forms of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SerializeType {
    /// JSON text.
    #[default]
    Json,
    /// Java's ROCKETMQ binary form.
    RocketMq,
}

impl SerializeType {
    /// From the first byte of the frame's second word.
    pub fn from_code(code: u8) -> Option<SerializeType> {
        match code {
            0 => Some(SerializeType::Json),
            1 => Some(SerializeType::RocketMq),
            _ => None,
        }
    }

    /// The first byte of the frame's second word.
    pub fn code(self) -> u8 {
        match self {
            SerializeType::Json => 0,
            SerializeType::RocketMq => 1,
        }
    }
}

/// Why a header cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not JSON.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A field that is a number holds something else.
    #[error("the header field {field} is not a 32-bit integer")]
    NotANumber {
        /// The field.
        field: &'static str,
    },
    /// There are too many ext fields.
    #[error("the header has more ext fields than the limit of {limit}")]
    TooManyFields {
        /// The limit.
        limit: usize,
    },
    /// A text is not UTF-8.
    #[error("the header is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where, from the start of the header.
        at: usize,
    },
    /// A binary header ends in the middle of a field.
    #[error("the header ends in the middle of {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A length in a binary header is negative.
    #[error("the length {value} of {field} is negative")]
    NegativeLength {
        /// The field.
        field: &'static str,
        /// The length.
        value: i32,
    },
}

/// The header of a request or a response.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// Request or response code.
    pub code: i32,
    /// Language of the sender.
    pub language: Language,
    /// Version ordinal of the sender, see [`crate::version`].
    pub version: i32,
    /// Number that ties a response to its request.
    pub opaque: i32,
    /// [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Free text, mostly the reason of a failure.
    pub remark: Option<&'a str>,
    /// The form that the header came in.
    pub serialize: SerializeType,
    /// The fields of the request's own header.
    pub ext: ExtFields<'a>,
}

impl Header<'_> {
    /// Whether this answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }
}

/// Where a field's name and value stand in the header.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub name_start: u32,
    pub name_end: u32,
    pub value_start: u32,
    pub value_end: u32,
}

impl Entry {
    /// A value in quotes whose name, of so many bytes, ends three bytes before it: `"name":"`.
    #[inline(always)]
    pub(crate) fn behind_its_name(name_len: u32, value_start: u32, value_end: u32) -> Entry {
        let name_end = value_start - 3;
        Entry { name_start: name_end - name_len, name_end, value_start, value_end }
    }

    /// So many bytes further on.
    #[inline(always)]
    pub(crate) fn moved(self, by: u32) -> Entry {
        let Entry { name_start, name_end, value_start, value_end } = self;
        Entry {
            name_start: name_start + by,
            name_end: name_end + by,
            value_start: value_start + by,
            value_end: value_end + by,
        }
    }
}

/// Entries while a header is read.
pub(crate) type Entries = Vec<Entry>;

/// Ext fields of a usual header: a V2 send has 14 and a few of hooks.
pub(crate) const USUAL_FIELDS: usize = 24;

/// Name and value of each field.
struct Fields<'a, 'e> {
    text: &'a str,
    entries: std::slice::Iter<'e, Entry>,
}

impl<'a> Fields<'a, '_> {
    #[inline(always)]
    fn field(text: &'a str, e: &Entry) -> (&'a str, &'a str) {
        let part = |start: u32, end: u32| {
            let range = start as usize..end as usize;
            debug_assert!(text.get(range.clone()).is_some(), "{range:?} of {text}");
            // SAFETY: promised to `ExtFields::new`. A send's header has 28 such parts, and looking at their bounds again
            // is a tenth of reading it.
            unsafe { text.get_unchecked(range) }
        };
        (part(e.name_start, e.name_end), part(e.value_start, e.value_end))
    }
}

impl<'a> Iterator for Fields<'a, '_> {
    type Item = (&'a str, &'a str);

    #[inline(always)]
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let entry = self.entries.next()?;
        Some(Fields::field(self.text, entry))
    }
}

impl<'a> DoubleEndedIterator for Fields<'a, '_> {
    #[inline(always)]
    fn next_back(&mut self) -> Option<(&'a str, &'a str)> {
        let entry = self.entries.next_back()?;
        Some(Fields::field(self.text, entry))
    }
}

/// The ext fields, borrowed from the header's bytes. When a name stands twice, the last one counts.
#[derive(Clone, Debug, Default)]
pub struct ExtFields<'a> {
    text: &'a str,
    entries: Cow<'a, [Entry]>,
}

impl<'a> ExtFields<'a> {
    /// # Safety
    ///
    /// Each of the `entries` has a name and a value that are ranges of `text`, on character boundaries.
    pub(crate) unsafe fn new(text: &'a str, entries: Cow<'a, [Entry]>) -> ExtFields<'a> {
        ExtFields { text, entries }
    }

    /// Fields, with those that stand twice.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Name and value of each field, in the order of the wire.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a str, &'a str)> + '_ {
        Fields { text: self.text, entries: self.entries.iter() }
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().rev().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}
