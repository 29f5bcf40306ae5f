//! Headers that look like one before: a client writes the same names in the same order again and again, so that only
//! the values need to be read, and of these only what was ever seen to differ. The rest is compared.

use smallvec::SmallVec;

use super::Fields;
use super::usual::{self, Usual};
use crate::header::{Entries, Entry, USUAL_FIELDS};
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

/// The forms of the JSON headers that a core has read, the last one first, and memory for the ext fields of the one that
/// it reads. It belongs to one core, and takes about 100 KiB at most.
#[derive(Debug, Default)]
pub struct Forms {
    known: Vec<Form>,
    misses: u32,
    entries: Entries,
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
    /// Memory for a header's entries, empty.
    pub(super) fn take_entries(&mut self) -> Entries {
        self.entries.clear();
        std::mem::take(&mut self.entries)
    }

    /// Keeps the memory for the next header, and shows what is in it.
    pub(super) fn keep_entries(&mut self, entries: Entries) -> &[Entry] {
        self.entries = entries;
        &self.entries
    }

    /// Reads a header of a known form, with its ext fields as `entries`, which are empty.
    pub(super) fn read(&mut self, bytes: &[u8], max_fields: usize, entries: &mut Entries) -> Option<Head> {
        for at in 0..self.known.len() {
            if let Some(head) = self.known[at].read(bytes, max_fields, entries) {
                if at > 0 {
                    self.known[..=at].rotate_right(1);
                }
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

/// What the headers of one form share, and what they have had in common so far.
#[derive(Debug)]
struct Form {
    /// Holds for each header of the form.
    whole: Shape,
    /// The same, with the values that were never seen to differ as part of what is compared: most are a client's own, or
    /// defaults. Tried first.
    quick: Option<Shape>,
    /// The first header of the form, and where its values are.
    sample: Box<[u8]>,
    values: Vec<(Span, Value)>,
    /// Which of the values have differed from the sample's. None comes back, so that `quick` is made anew a few times only.
    varies: Vec<bool>,
    /// How many of the values are ext fields.
    fields: usize,
    code: i32,
    version: i32,
    flag: i32,
    language: Language,
}

/// The values of a header, with what stands between them.
#[derive(Debug)]
struct Shape {
    parts: Vec<Part>,
    /// Behind the last value.
    end: Part,
}

/// What stands in front of a value, up to the value before.
#[derive(Debug)]
struct Part {
    before: Literal,
    /// Ext fields whose values are part of `before`, with their places in that.
    same: Vec<Entry>,
    /// What kind of value follows; none at the end.
    value: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Opaque,
    Remark,
    /// A text; its name, of so many bytes, ends three bytes before it: `"name":"`.
    Ext(u32),
}

/// What varies among the headers of a form.
#[derive(Default)]
struct Found {
    opaque: i32,
    remark: Option<Span>,
    /// Whether there may be something that is not ASCII.
    high: bool,
    escaped: SmallVec<[u8; 4]>,
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
        // What is undone in place, or is no ASCII, is read each time.
        let is_plain = |text: &[u8]| text.is_ascii() && !text.contains(&b'\\');
        let varies = |(span, value): &(Span, Value)| !value.is_ext() || !is_plain(span.of(bytes));
        let (code, version, flag) = (fields.code, fields.version, fields.flag);
        (entries.len() <= USUAL_FIELDS).then_some(Form {
            whole: Shape::of(bytes, &values, |_| true)?,
            quick: None,
            varies: values.iter().map(varies).collect(),
            sample: bytes.into(),
            values,
            fields: entries.len(),
            code,
            version,
            flag,
            language,
        })
    }

    fn read(&mut self, bytes: &[u8], max_fields: usize, entries: &mut Entries) -> Option<Head> {
        if self.fields > max_fields {
            return None;
        }
        entries.reserve(self.fields);
        let quick = self.quick.as_ref().and_then(|quick| quick.read(bytes, entries));
        let found = match quick {
            Some(found) => found,
            None => {
                entries.clear();
                let found = self.whole.read(bytes, entries)?;
                self.compare(bytes, entries);
                found
            }
        };
        Some(Head {
            code: self.code,
            version: self.version,
            opaque: found.opaque,
            flag: self.flag,
            language: self.language,
            remark: found.remark,
            is_ascii: !found.high,
            escaped: found.escaped,
        })
    }

    /// Learns from a header of the form, which has these entries, what may differ.
    #[cold]
    fn compare(&mut self, bytes: &[u8], entries: &Entries) {
        let ext = self.values.iter().zip(&mut self.varies).filter(|((_, value), _)| value.is_ext());
        for (((span, _), varies), entry) in ext.zip(entries) {
            let value = &bytes[entry.value_start as usize..entry.value_end as usize];
            *varies |= *value != *span.of(&self.sample);
        }
        self.quick = Shape::of(&self.sample, &self.values, |place| self.varies[place]);
    }
}

impl Value {
    fn is_ext(self) -> bool {
        matches!(self, Value::Ext(_))
    }
}

impl Shape {
    /// Of a header with these values; `is_read` tells of each place among them whether the value is read, or else always
    /// the same.
    fn of(bytes: &[u8], values: &[(Span, Value)], is_read: impl Fn(usize) -> bool) -> Option<Shape> {
        let (mut parts, mut at, mut same) = (Vec::with_capacity(values.len()), 0, Vec::new());
        for (place, (span, value)) in values.iter().enumerate() {
            match value {
                Value::Ext(name_len) if !is_read(place) => {
                    let (value_start, value_end) = ((span.start - at) as u32, (span.end - at) as u32);
                    same.push(Entry::behind_its_name(*name_len, value_start, value_end));
                }
                _ => {
                    let before = Literal::new(&bytes[at..span.start])?;
                    parts.push(Part { before, same: std::mem::take(&mut same), value: Some(*value) });
                    at = span.end;
                }
            }
        }
        let end = Part { before: Literal::new(&bytes[at..])?, same, value: None };
        Some(Shape { parts, end })
    }

    #[inline]
    fn read(&self, bytes: &[u8], entries: &mut Entries) -> Option<Found> {
        let (mut found, mut at) = (Found::default(), 0);
        for part in &self.parts {
            at = part.skip(bytes, at, entries)?;
            if let Some(Value::Opaque) = part.value {
                found.opaque = usual::int(bytes, &mut at)?;
                continue;
            }
            let text = Text::at(bytes, at)?;
            match part.value {
                Some(Value::Ext(name_len)) => {
                    if text.is_escaped {
                        found.escaped.push(u8::try_from(entries.len()).ok()?);
                    }
                    entries.push(Entry::behind_its_name(name_len, at as u32, text.end as u32));
                }
                _ if text.is_escaped => return None,
                _ => found.remark = Some(Span { start: at, end: text.end }),
            }
            (at, found.high) = (text.end, found.high | text.high);
        }
        (self.end.skip(bytes, at, entries)? == bytes.len()).then_some(found)
    }
}

impl Part {
    /// Where the value begins, if what should stand in front of it does at `at`.
    #[inline(always)]
    fn skip(&self, bytes: &[u8], at: usize, entries: &mut Entries) -> Option<usize> {
        let behind = self.before.skip(bytes, at)?;
        entries.extend(self.same.iter().map(|entry| entry.moved(at as u32)));
        Some(behind)
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
