//! The ROCKETMQ binary header.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::command::Command;
use crate::header::{Entries, Entry, ExtFields, Header, HeaderError, SerializeType};
use crate::language::Language;

/// A piece of the header from one position up to another.
type Piece = (usize, usize);

/// Reads a header. Fields with an empty name or value are left out, as Java leaves them null.
///
/// The lengths between names and values are zeroed on the way: then the ext fields as a whole are UTF-8 exactly if
/// each name and each value is, and one check does for all.
pub(crate) fn parse(bytes: &mut [u8], max_fields: usize) -> Result<Header<'_>, HeaderError> {
    let mut reader = Reader { bytes, at: 0 };
    let code = i16::from_be_bytes(reader.array("code")?);
    let [language] = reader.array("language")?;
    let version = i16::from_be_bytes(reader.array("version")?);
    let opaque = i32::from_be_bytes(reader.array("opaque")?);
    let flag = i32::from_be_bytes(reader.array("flag")?);
    let remark = reader.sized("remark")?;
    let ext = reader.sized("extFields")?;
    let entries = ext_entries(&mut bytes[ext.0..ext.1], max_fields)?;
    let remark = if remark.0 < remark.1 { Some(utf8(bytes, remark)?) } else { None };
    Ok(Header {
        code: i32::from(code),
        language: Language::from_ordinal(language),
        version: i32::from(version),
        opaque,
        flag,
        remark,
        serialize: SerializeType::RocketMq,
        // SAFETY: the entries were found in these bytes, and zeroes stand in front of each name and each value: what
        // is UTF-8 as a whole begins no character in one and ends it in another.
        ext: unsafe { ExtFields::new(utf8(bytes, ext)?, Cow::Owned(entries)) },
    })
}

fn utf8(bytes: &[u8], (start, end): Piece) -> Result<&str, HeaderError> {
    std::str::from_utf8(&bytes[start..end]).map_err(|e| HeaderError::NotUtf8 { at: start + e.valid_up_to() })
}

fn ext_entries(bytes: &mut [u8], max_fields: usize) -> Result<Entries, HeaderError> {
    let mut entries = Entries::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut reader = Reader { bytes, at };
        let name_len = i32::from(i16::from_be_bytes(reader.array("a field's name")?));
        let name = reader.take("a field's name", name_len)?;
        let value = reader.sized("a field's value")?;
        at = reader.at;
        bytes[start..name.0].fill(0);
        bytes[name.1..value.0].fill(0);
        if value.0 == value.1 || name.0 == name.1 {
            continue;
        }
        if entries.len() == max_fields {
            return Err(HeaderError::TooManyFields { limit: max_fields });
        }
        entries.push(Entry {
            name_start: name.0 as u32,
            name_end: name.1 as u32,
            value_start: value.0 as u32,
            value_end: value.1 as u32,
        });
    }
    Ok(entries)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], HeaderError> {
        let left = &self.bytes[self.at..];
        let value =
            left.first_chunk().ok_or(HeaderError::Truncated { field, needed: N, left: left.len() })?;
        self.at += N;
        Ok(*value)
    }

    fn take(&mut self, field: &'static str, len: i32) -> Result<Piece, HeaderError> {
        let needed = usize::try_from(len).map_err(|_| HeaderError::NegativeLength { field, value: len })?;
        let left = self.bytes.len() - self.at;
        if needed > left {
            return Err(HeaderError::Truncated { field, needed, left });
        }
        let start = self.at;
        self.at += needed;
        Ok((start, self.at))
    }

    /// A piece behind its i32 length.
    fn sized(&mut self, field: &'static str) -> Result<Piece, HeaderError> {
        let len = i32::from_be_bytes(self.array(field)?);
        self.take(field, len)
    }
}

/// Appends a command's header in this form. The code and the version are cut to 16 bits, as Java cuts them.
pub(crate) fn write(command: &Command, out: &mut BytesMut) {
    out.put_i16(command.code as i16);
    out.put_u8(command.language.ordinal());
    out.put_i16(command.version as i16);
    out.put_i32(command.opaque);
    out.put_i32(command.flag);
    put_sized(out, command.remark.as_deref().unwrap_or_default());
    let ext_at = out.len();
    out.put_i32(0);
    for (name, value) in &command.ext {
        assert!(name.len() <= i16::MAX as usize, "ext field names are short");
        out.put_i16(name.len() as i16);
        out.put_slice(name.as_bytes());
        put_sized(out, value);
    }
    let ext_len = out.len() - ext_at - 4;
    out[ext_at..ext_at + 4].copy_from_slice(&(ext_len as i32).to_be_bytes());
}

fn put_sized(out: &mut BytesMut, text: &str) {
    out.put_i32(text.len() as i32);
    out.put_slice(text.as_bytes());
}
