//! Headers that look like one before: a client writes the same names in the same order again and again, so that only
//! the values need to be read. What stands between them is compared.

use smallvec::SmallVec;

use super::Fields;
use super::usual::{self, Usual};
use crate::header::{Entries, Entry};
use crate::json::scan::Span;
use crate::language::Language;
use crate::marks;

/// Forms that are kept: of a few clients' sends, pulls and heartbeats.
const MOST: usize = 8;
/// Bytes of a header that is worth keeping.
const MAX_LEN: usize = 2048;
/// Of the headers that are of no known form, one in so many is learned, so that a client whose headers all differ
/// costs no more than without forms.
const LEARN_EVERY: u32 = 4;

/// The forms of the JSON headers that a core has read, the last one first. It belongs to one core, and takes some
/// 20 KiB at most.
#[derive(Debug, Default)]
pub struct Forms {
    known: Vec<Form>,
    misses: u32,
}

/// A header but for its ext fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub code: i32,
    pub version: i32,
    pub opaque: i32,
    pub flag: i32,
    pub language: Language,
    pub remark: Option<Span>,
    /// Whether all of it is ASCII.
    pub is_ascii: bool,
    /// Places among the entries of the texts that have escapes, which still stand.
    pub escaped: SmallVec<[u8; 4]>,
}

impl Head {
    pub(super) fn new(
        fields: &Fields,
        language: Language,
        is_ascii: bool,
        escaped: SmallVec<[u8; 4]>,
    ) -> Head {
        let &Fields { code, version, opaque, flag, remark, .. } = fields;
        Head { code, version, opaque, flag, language, remark, is_ascii, escaped }
    }
}

impl Forms {
    /// Reads a header of a known form, with its ext fields as `entries`, which are empty.
    pub(super) fn read(&mut self, bytes: &[u8], max_fields: usize, entries: &mut Entries) -> Option<Head> {
        for at in 0..self.known.len() {
            if let Some(head) = self.known[at].read(bytes, max_fields, entries) {
                self.known[..=at].rotate_right(1);
                return Some(head);
            }
            entries.clear();
        }
        None
    }

    /// Whether the form of a header that [`Forms::read`] did not know should be learned.
    pub(super) fn is_wanted(&mut self, bytes: &[u8]) -> bool {
        self.misses = self.misses.wrapping_add(1);
        self.misses % LEARN_EVERY == 1 && bytes.len() <= MAX_LEN
    }

    /// Keeps the form of a header that was read, whose escapes still stand.
    pub(super) fn learn(&mut self, bytes: &[u8], read: &Usual, language: Language, entries: &Entries) {
        if let Some(form) = Form::of(bytes, read, language, entries) {
            self.known.truncate(MOST - 1);
            self.known.insert(0, form);
        }
    }
}

/// What the headers of one form share.
#[derive(Debug)]
struct Form {
    parts: Vec<Part>,
    /// Behind the last value.
    end: Literal,
    /// How many of the parts are ext fields.
    fields: usize,
    code: i32,
    version: i32,
    flag: i32,
    language: Language,
}

/// A value and what stands in front of it.
#[derive(Debug)]
struct Part {
    before: Literal,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Opaque,
    Remark,
    /// A text; its name, of so many bytes, ends three bytes before it: `"name":"`.
    Ext(u32),
}

impl Form {
    fn of(bytes: &[u8], read: &Usual, language: Language, entries: &Entries) -> Option<Form> {
        let fields = &read.fields;
        let ext = entries.iter().map(|e| {
            let value = Span { start: e.value_start as usize, end: e.value_end as usize };
            (value, Value::Ext(e.name_end - e.name_start))
        });
        let mut values: Vec<(Span, Value)> = ext.collect();
        values.extend(read.opaque.map(|opaque| (opaque, Value::Opaque)));
        values.extend(fields.remark.map(|remark| (remark, Value::Remark)));
        values.sort_unstable_by_key(|(span, _)| span.start);
        let (mut parts, mut at) = (Vec::with_capacity(values.len()), 0);
        for (span, value) in values {
            parts.push(Part { before: Literal::new(&bytes[at..span.start])?, value });
            at = span.end;
        }
        let end = Literal::new(&bytes[at..])?;
        let (code, version, flag) = (fields.code, fields.version, fields.flag);
        (entries.len() <= entries.inline_size()).then_some(Form {
            parts,
            end,
            fields: entries.len(),
            code,
            version,
            flag,
            language,
        })
    }

    fn read(&self, bytes: &[u8], max_fields: usize, entries: &mut Entries) -> Option<Head> {
        let (mut opaque, mut remark, mut escaped) = (0, None, SmallVec::new());
        let (mut at, mut high) = (0, false);
        for part in &self.parts {
            at = part.before.skip(bytes, at)?;
            if let Value::Opaque = part.value {
                opaque = usual::int(bytes, &mut at)?;
                continue;
            }
            let text = Text::at(bytes, at)?;
            match part.value {
                Value::Ext(name_len) => {
                    if text.is_escaped {
                        escaped.push(u8::try_from(entries.len()).ok()?);
                    }
                    let (value_start, name_end) = (at as u32, at as u32 - 3);
                    let name_start = name_end - name_len;
                    entries.push(Entry { name_start, name_end, value_start, value_end: text.end as u32 });
                }
                _ if text.is_escaped => return None,
                _ => remark = Some(Span { start: at, end: text.end }),
            }
            (at, high) = (text.end, high | text.high);
        }
        let is_whole = self.end.skip(bytes, at)? == bytes.len() && self.fields <= max_fields;
        is_whole.then_some(Head {
            code: self.code,
            version: self.version,
            opaque,
            flag: self.flag,
            language: self.language,
            remark,
            is_ascii: !high,
            escaped,
        })
    }
}

/// Text that must be there as it is. Most have few bytes: the first eight are compared as one number.
#[derive(Debug)]
struct Literal {
    first: u64,
    mask: u64,
    rest: Box<[u8]>,
    len: usize,
}

impl Literal {
    /// `None` for what is not ASCII.
    fn new(text: &[u8]) -> Option<Literal> {
        let (first, rest) = text.split_at(text.len().min(8));
        let mask = word(&[0xff; 8][..first.len()]);
        let (first, rest, len) = (word(first), rest.into(), text.len());
        text.is_ascii().then_some(Literal { first, mask, rest, len })
    }

    /// Where it ends, if it stands at `at`.
    #[inline]
    fn skip(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let here = bytes.get(at..)?;
        let first = here.first_chunk::<8>().map_or_else(|| word(here), |first| u64::from_le_bytes(*first));
        if (first ^ self.first) & self.mask != 0 {
            return None;
        }
        let is_here = self.rest.is_empty() || here.get(8..)?.starts_with(&self.rest);
        is_here.then_some(at + self.len)
    }
}

/// Up to eight bytes as a number, the missing ones zero.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// A text in quotes.
struct Text {
    /// Place of the quote behind it.
    end: usize,
    is_escaped: bool,
    /// Whether there may be something that is not ASCII.
    high: bool,
}

impl Text {
    /// The text that begins at `at`, behind its first quote.
    #[inline(always)]
    fn at(bytes: &[u8], at: usize) -> Option<Text> {
        let mut text = Text { end: at, is_escaped: false, high: false };
        loop {
            let rest = bytes.get(text.end..)?;
            let (found, high) = marks::first::<b'"', b'\\'>(rest);
            text.high |= high;
            text.end += found?;
            if bytes[text.end] == b'"' {
                return Some(text);
            }
            // What stands behind a backslash ends nothing.
            text.is_escaped = true;
            text.end += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str, bytes: &str) -> Option<usize> {
        Literal::new(text.as_bytes()).unwrap().skip(bytes.as_bytes(), 1)
    }

    #[test]
    fn literals_are_compared_to_the_last_byte() {
        for text in ["a", "\":\"", "12345678", "123456789", "twenty bytes, or less"] {
            assert_eq!(literal(text, &format!("_{text}")), Some(1 + text.len()));
            assert_eq!(literal(text, &format!("_{text}, and more")), Some(1 + text.len()));
            assert_eq!(literal(text, &format!("_{}", &text[..text.len() - 1])), None);
            assert_eq!(literal(text, &format!("_{}#", &text[..text.len() - 1])), None);
        }
        assert!(Literal::new("ä".as_bytes()).is_none());
    }

    #[test]
    fn as_many_forms_as_fit_are_kept() {
        let mut forms = Forms::default();
        let mut known = |code: usize| {
            let text = format!("{{\"code\":{code},\"extFields\":{{\"a\":\"{code}\"}}}}");
            let mut entries = Entries::new();
            if forms.read(text.as_bytes(), 1, &mut entries).is_some() {
                return true;
            }
            let read = usual::read(text.as_bytes(), 1, &mut entries).unwrap();
            forms.learn(text.as_bytes(), &read, Language::Java, &entries);
            false
        };
        assert!(!(0..MOST).any(&mut known));
        assert!((0..MOST).all(&mut known));
        assert!(!known(MOST), "a new one, instead of the one that was not seen for longest");
        assert!(!known(0) && known(2));
        assert_eq!(forms.known.len(), MOST);
    }
}
