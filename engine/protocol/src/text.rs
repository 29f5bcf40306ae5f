//! Bytes that should be text.

use std::str::Utf8Error;

/// As [`std::str::from_utf8`], and quicker for the texts of headers, which are short and mostly ASCII.
#[inline]
pub fn utf8(bytes: &[u8]) -> Result<&str, Utf8Error> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_utf8_is_text() {
        assert_eq!(utf8(b"a\x01b"), Ok("a\u{1}b"));
        assert_eq!(utf8("中".as_bytes()), Ok("中"));
        assert_eq!(utf8(b"ab\xff").unwrap_err().valid_up_to(), 2);
    }
}
