//! Bytes that should be text.

use std::str::Utf8Error;

/// As [`std::str::from_utf8`], and quicker for the texts of headers, which are short and mostly ASCII.
#[inline]
pub fn utf8(bytes: &[u8]) -> Result<&str, Utf8Error> {
    if is_ascii(bytes) {
        // SAFETY: ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes)
}

/// As [`slice::is_ascii`], which looks at up to 63 bytes one by one.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    !any_of(bytes, |byte| byte >= 0x80)
}

/// Whether `is` of any byte, which is asked of 16 at a time, without a branch among them. What is left over at the end is
/// asked once more with the bytes before, so that none is looked at by itself but in short texts.
#[inline(always)]
pub(crate) fn any_of(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    const BLOCK: usize = 16;
    const HALF: usize = BLOCK / 2;
    match (bytes.last_chunk::<BLOCK>(), bytes.first_chunk::<HALF>(), bytes.last_chunk::<HALF>()) {
        (Some(last), ..) => any_in(bytes.as_chunks::<BLOCK>().0.iter().chain([last]), is),
        (None, Some(first), Some(last)) => any_in([first, last].into_iter(), is),
        _ => bytes.iter().any(|byte| is(*byte)),
    }
}

#[inline(always)]
fn any_in<'a, const N: usize>(blocks: impl Iterator<Item = &'a [u8; N]>, is: impl Fn(u8) -> bool) -> bool {
    let mut any = [0; N];
    for block in blocks {
        any.iter_mut().zip(block).for_each(|(any, byte)| *any |= u8::from(is(*byte)));
    }
    any.iter().fold(0, |all, any| all | any) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_that_is_not_ascii_is_found_wherever_it_stands() {
        for len in 0..70 {
            let mut bytes = vec![0x7f; len];
            assert!(is_ascii(&bytes), "{len}");
            for at in 0..len {
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes), "{at} of {len}");
                bytes[at] = 0x7f;
            }
        }
    }

    #[test]
    fn only_utf8_is_text() {
        assert_eq!(utf8(b"a\x01b"), Ok("a\u{1}b"));
        assert_eq!(utf8("中".as_bytes()), Ok("中"));
        assert_eq!(utf8(b"ab\xff").unwrap_err().valid_up_to(), 2);
    }
}
