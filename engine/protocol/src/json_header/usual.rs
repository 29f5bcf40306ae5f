//! The header as clients write it: without white space, numbers bare, texts in double quotes. Read in one pass over
//! its quotes; anything else is left to the lenient parser.

use smallvec::SmallVec;

use super::Fields;
use crate::header::{Entries, Entry};
use crate::json::scan::{self, Span, SyntaxError};
use crate::marks::Marks;

/// A header that was read; its escapes still stand.
pub(super) struct Usual {
    pub fields: Fields,
    pub is_ascii: bool,
    /// Where the opaque's digits are.
    pub opaque: Option<Span>,
    /// Places of the texts that have escapes, as places among the entries.
    pub escaped: SmallVec<[u8; 4]>,
}

/// Unescapes texts in place; `escaped` are their places among the entries.
pub(super) fn unescape(escaped: &[u8], bytes: &mut [u8], entries: &mut Entries) -> Result<(), SyntaxError> {
    for place in escaped {
        let entry = &mut entries[usize::from(*place)];
        let (start, end) = (entry.value_start as usize, entry.value_end as usize);
        entry.value_end = (start + scan::unescape(&mut bytes[start..end])?) as u32;
    }
    Ok(())
}

/// Reads a header of the usual form, with its ext fields as `entries`; `None` when it is of another, or wrong.
pub(super) fn read(bytes: &[u8], max_fields: usize, entries: &mut Entries) -> Option<Usual> {
    let mut reader =
        Reader { bytes, marks: Marks::new(bytes), at: 0, entries, opaque: None, escaped: SmallVec::new() };
    let fields = reader.header(max_fields)?;
    let (opaque, escaped) = (reader.opaque, reader.escaped);
    Some(Usual { fields, is_ascii: reader.marks.is_ascii(), opaque, escaped })
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Of those that `at` has not passed.
    marks: Marks<'a, b'"', b'\\'>,
    at: usize,
    entries: &'a mut Entries,
    opaque: Option<Span>,
    escaped: SmallVec<[u8; 4]>,
}

impl Reader<'_> {
    fn header(&mut self, max_fields: usize) -> Option<Fields> {
        let mut fields = Fields::default();
        let mut has_ext = false;
        self.expect(b'{')?;
        loop {
            let name = self.plain()?;
            self.expect(b':')?;
            match name.of(self.bytes) {
                b"code" => fields.code = self.int()?,
                b"flag" => fields.flag = self.int()?,
                b"opaque" => {
                    let start = self.at;
                    fields.opaque = self.int()?;
                    self.opaque = Some(Span { start, end: self.at });
                }
                b"version" => fields.version = self.int()?,
                b"language" => fields.language = self.plain()?,
                b"remark" => fields.remark = Some(self.plain()?),
                b"serializeTypeCurrentRPC" => {
                    self.plain()?;
                }
                b"extFields" if !has_ext => {
                    has_ext = true;
                    self.ext_fields(max_fields)?;
                }
                _ => return None,
            }
            match self.next()? {
                b',' => {}
                // To the last byte: all of the marks were seen, and so all blocks.
                b'}' => {
                    return (self.at == self.bytes.len() && self.marks.next().is_none()).then_some(fields);
                }
                _ => return None,
            }
        }
    }

    fn ext_fields(&mut self, max_fields: usize) -> Option<()> {
        self.expect(b'{')?;
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            let (name, false) = self.string_here()? else { return None };
            self.expect(b':')?;
            let (value, escaped) = self.string_here()?;
            if self.entries.len() == max_fields {
                return None;
            }
            if escaped {
                self.escaped.push(u8::try_from(self.entries.len()).ok()?);
            }
            self.entries.push(Entry {
                name_start: name.start as u32,
                name_end: name.end as u32,
                value_start: value.start as u32,
                value_end: value.end as u32,
            });
            match self.next()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// A text without escapes.
    #[inline]
    fn plain(&mut self) -> Option<Span> {
        let (span, escaped) = self.string()?;
        (!escaped).then_some(span)
    }

    /// A text, and whether it has escapes.
    fn string(&mut self) -> Option<(Span, bool)> {
        self.string_here()
    }

    #[inline(always)]
    fn string_here(&mut self) -> Option<(Span, bool)> {
        if self.bytes.get(self.at) != Some(&b'"') || self.marks.next()? != self.at {
            return None;
        }
        let start = self.at + 1;
        let mut end = self.marks.next()?;
        let escaped = self.bytes[end] != b'"';
        while self.bytes[end] != b'"' {
            // What stands behind a backslash ends nothing.
            let behind = end + 1;
            end = self.marks.next()?;
            if end == behind {
                end = self.marks.next()?;
            }
        }
        self.at = end + 1;
        Some((Span { start, end }, escaped))
    }

    #[inline]
    fn int(&mut self) -> Option<i32> {
        int(self.bytes, &mut self.at)
    }
}

/// The whole number without quotes at `at`, which then is behind it.
#[inline]
pub(super) fn int(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let negative = bytes.get(*at) == Some(&b'-');
    *at += usize::from(negative);
    let (start, mut value) = (*at, 0i64);
    while let Some(digit @ b'0'..=b'9') = bytes.get(*at) {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        *at += 1;
    }
    let digits = *at - start;
    let value = if negative { -value } else { value };
    i32::try_from(value).ok().filter(|_| (1..=18).contains(&digits))
}
