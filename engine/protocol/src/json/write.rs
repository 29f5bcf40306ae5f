//! JSON text as fastjson writes it.

use bytes::{BufMut, BytesMut};

use crate::text::any_of;

/// Appends `text` as a JSON string: quotes, backslashes and control characters escaped, all else as it is.
pub(crate) fn string(out: &mut BytesMut, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.put_u8(b'"');
    if !is_plain(text) {
        let mut plain = 0;
        for (i, b) in bytes.iter().enumerate().filter(|(_, b)| is_escaped(**b)) {
            out.put_slice(&bytes[plain..i]);
            plain = i + 1;
            escape(out, *b);
        }
        out.put_slice(&bytes[plain..]);
    } else {
        out.put_slice(bytes);
    }
    out.put_u8(b'"');
}

/// Whether nothing in a text needs an escape.
#[inline]
pub(crate) fn is_plain(text: &str) -> bool {
    !any_of(text.as_bytes(), is_escaped)
}

#[inline]
fn is_escaped(b: u8) -> bool {
    (b < b' ') | (b == b'"') | (b == b'\\')
}

/// Appends the escape of a quote, a backslash or a control character.
pub(crate) fn escape(out: &mut BytesMut, b: u8) {
    match b {
        b'"' => out.put_slice(b"\\\""),
        b'\\' => out.put_slice(b"\\\\"),
        b'\n' => out.put_slice(b"\\n"),
        b'\r' => out.put_slice(b"\\r"),
        b'\t' => out.put_slice(b"\\t"),
        0x08 => out.put_slice(b"\\b"),
        0x0c => out.put_slice(b"\\f"),
        _ => unicode(out, u16::from(b)),
    }
}

/// Appends a code unit as `\u` and four digits.
pub(crate) fn unicode(out: &mut BytesMut, unit: u16) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |shift: u16| DIGITS[usize::from((unit >> shift) & 15)];
    out.put_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Appends an integer.
pub(crate) fn int(out: &mut BytesMut, value: i64) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}
