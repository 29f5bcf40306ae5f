//! The lexer that headers and bodies share: lenient as fastjson is, linear in time, without recursion.

use crate::marks;

/// Deepest nesting of objects and arrays that is read. Java's own bodies nest six deep.
pub const MAX_DEPTH: u32 = 60;

/// Why a text is not JSON, not even fastjson's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Something else was needed.
    #[error("expected {expected} at byte {at} of the JSON text")]
    Expected {
        /// What was needed.
        expected: &'static str,
        /// Where, from the start of the text.
        at: usize,
    },
    /// The text ends in the middle.
    #[error("the JSON text ends at byte {at} in the middle of {within}")]
    Ended {
        /// What was not finished.
        within: &'static str,
        /// Length of the text.
        at: usize,
    },
    /// A backslash is followed by what is no escape.
    #[error("bad escape at byte {at} of a JSON string")]
    BadEscape {
        /// Where, from the start of the string.
        at: usize,
    },
    /// Objects and arrays are nested too deeply.
    #[error("the JSON text nests deeper than {limit} at byte {at}")]
    TooDeep {
        /// The limit.
        limit: u32,
        /// Where.
        at: usize,
    },
}

/// A piece of text by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.end]
    }
}

/// Skips white space.
#[inline]
pub(crate) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x08) = bytes.get(at) {
        at += 1;
    }
    at
}

/// Skips white space and commas: fastjson takes several commas for one.
#[inline]
pub(crate) fn skip_commas(bytes: &[u8], mut at: usize) -> usize {
    if let Some([b',', b'"']) = bytes.get(at..at + 2) {
        return at + 1;
    }
    loop {
        at = skip_space(bytes, at);
        if bytes.get(at) != Some(&b',') {
            return at;
        }
        at += 1;
    }
}

/// A string whose opening quote (`"` or `'`) is at `at`: the text between the quotes, and whether it has escapes.
#[inline]
pub(crate) fn quoted(bytes: &[u8], at: usize) -> Result<(Span, bool), SyntaxError> {
    let quote = bytes[at];
    debug_assert!(quote == b'"' || quote == b'\'');
    let start = at + 1;
    let (mut from, mut escaped) = (start, false);
    loop {
        let Some(end) = find_either(bytes, from, quote, b'\\') else {
            return Err(SyntaxError::Ended { within: "a string", at: bytes.len() });
        };
        if bytes[end] == quote {
            return Ok((Span { start, end }, escaped));
        }
        escaped = true;
        from = end + 2;
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// A bit in each byte of the result marks where `word` has `c`; above the lowest one there may be false ones.
#[inline]
fn marks(word: u64, c: u8) -> u64 {
    let zeros = word ^ (ONES * u64::from(c));
    zeros.wrapping_sub(ONES) & !zeros & (ONES << 7)
}

/// Where `a` or `b` stands next, from `from` on.
///
/// Most strings of a header are short: 32 bytes are looked at in words before the call of `memchr` pays.
#[inline]
fn find_either(bytes: &[u8], from: usize, a: u8, b: u8) -> Option<usize> {
    let rest = bytes.get(from..)?;
    for (i, word) in rest.as_chunks::<8>().0.iter().take(4).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = marks(word, a) | marks(word, b);
        if found != 0 {
            return Some(from + i * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let looked_at = rest.len().min(32) / 8 * 8;
    let found = match rest.len() - looked_at {
        0..8 => rest[looked_at..].iter().position(|c| *c == a || *c == b),
        _ => memchr::memchr2(a, b, &rest[looked_at..]),
    };
    found.map(|i| from + looked_at + i)
}

/// A token without quotes: a number, `true`, `null`, a bare key.
#[inline]
pub(crate) fn bare(bytes: &[u8], at: usize) -> Result<Span, SyntaxError> {
    let mut end = at;
    while let Some(b) = bytes.get(end) {
        if matches!(b, b',' | b':' | b'}' | b']' | b'{' | b'[' | b'"' | b'\'' | 0..=b' ') {
            break;
        }
        end += 1;
    }
    if end == at {
        return Err(match bytes.get(at) {
            Some(_) => SyntaxError::Expected { expected: "a value", at },
            None => SyntaxError::Ended { within: "a value", at },
        });
    }
    Ok(Span { start: at, end })
}

/// Skips one value of any kind, nested ones too, and returns where it ends. Its inside is only checked for
/// strings that end and brackets that match.
pub(crate) fn skip_value(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut at = skip_space(bytes, at);
    // One bit for each open bracket: 1 for an object.
    let (mut kinds, mut depth) = (0u64, 0u32);
    loop {
        match bytes.get(at) {
            None => return Err(SyntaxError::Ended { within: "a value", at }),
            Some(b'"' | b'\'') => at = quoted(bytes, at)?.0.end + 1,
            Some(open @ (b'{' | b'[')) => {
                if depth == MAX_DEPTH {
                    return Err(SyntaxError::TooDeep { limit: MAX_DEPTH, at });
                }
                kinds = (kinds << 1) | u64::from(*open == b'{');
                depth += 1;
                at += 1;
            }
            Some(close @ (b'}' | b']')) => {
                if depth == 0 || (kinds & 1 == 1) != (*close == b'}') {
                    return Err(SyntaxError::Expected { expected: "a value", at });
                }
                kinds >>= 1;
                depth -= 1;
                at += 1;
            }
            Some(b',' | b':') if depth > 0 => at += 1,
            Some(_) => at = bare(bytes, at)?.end,
        }
        if depth == 0 {
            return Ok(at);
        }
        at = skip_space(bytes, at);
    }
}

/// Replaces the escapes of a string's text by what they stand for, in place, and returns the new length (never
/// longer). What is left over behind it becomes spaces, so that the buffer as a whole stays UTF-8.
pub(crate) fn unescape(text: &mut [u8]) -> Result<usize, SyntaxError> {
    let (mut from, mut to) = (0, 0);
    while from < text.len() {
        let (plain, has_escape) = plain_at(&text[from..]);
        let at = from + plain;
        let escape = if has_escape { Some(escape_at(text, at)?) } else { None };
        let next = escape.map_or(at, |(_, next)| next);
        match text[from..].first_chunk::<BLOCK>() {
            // Without a call; what is moved too much falls upon what was read.
            Some(&block) if to + BLOCK <= next => text[to..][..BLOCK].copy_from_slice(&block),
            _ => text.copy_within(from..at, to),
        }
        to += plain;
        if let Some((c, _)) = escape {
            to += c.encode_utf8(&mut text[to..]).len();
        }
        from = next;
    }
    text[to..].fill(b' ');
    Ok(to)
}

/// Bytes that are looked at and moved together.
const BLOCK: usize = 16;

/// How many bytes have no escape among them, up to the first escape or a block, and whether it is the escape that ends them.
#[inline(always)]
fn plain_at(text: &[u8]) -> (usize, bool) {
    match text.first_chunk::<BLOCK>() {
        Some(block) => {
            let (mask, _) = marks::masks::<b'\\', b'\\', BLOCK>(block);
            (BLOCK.min(mask.trailing_zeros() as usize), mask != 0)
        }
        None => {
            let found = text.iter().position(|byte| *byte == b'\\');
            (found.unwrap_or(text.len()), found.is_some())
        }
    }
}

/// The character of the escape at `at`, and where the text goes on.
#[inline(always)]
fn escape_at(text: &[u8], at: usize) -> Result<(char, usize), SyntaxError> {
    match separator(text, at) {
        Some(c) => Ok((char::from(c), at + 6)),
        None => escape(text, at),
    }
}

/// The character below 16 whose escape stands at `at`, as `\u000` and a digit: those between a message's properties are
/// nearly all that a header has. None for one that is not followed by two bytes more.
#[inline(always)]
fn separator(text: &[u8], at: usize) -> Option<u8> {
    const PREFIX: u64 = u64::from_le_bytes(*b"\\u000\0\0\0");
    const MASK: u64 = (1 << 40) - 1;
    let word = u64::from_le_bytes(*text[at..].first_chunk()?);
    let value = HEX[usize::from((word >> 40) as u8)];
    (word & MASK == PREFIX && value != NO_HEX).then_some(value)
}

/// The character of the escape at `at`, and where the text goes on.
fn escape(text: &[u8], at: usize) -> Result<(char, usize), SyntaxError> {
    let bad = SyntaxError::BadEscape { at };
    let simple = |c: char| Ok((c, at + 2));
    match *text.get(at + 1).ok_or(bad)? {
        c @ (b'"' | b'\'' | b'\\' | b'/') => simple(char::from(c)),
        b'n' => simple('\n'),
        b't' => simple('\t'),
        b'r' => simple('\r'),
        b'b' => simple('\u{8}'),
        b'f' | b'F' => simple('\u{c}'),
        b'v' => simple('\u{b}'),
        c @ b'0'..=b'7' => simple(char::from(c - b'0')),
        b'x' => Ok((char::from(hex(text, at + 2, 2).ok_or(bad)? as u8), at + 4)),
        b'u' => {
            let unit = hex(text, at + 2, 4).ok_or(bad)?;
            Ok(unicode(text, at, unit))
        }
        _ => Err(bad),
    }
}

/// The character of the `\u` escape at `at` with code unit `unit`; half a surrogate pair alone reads as `?`, which
/// is also what Java writes for it.
fn unicode(text: &[u8], at: usize, unit: u32) -> (char, usize) {
    let next = at + 6;
    if (0xd800..0xdc00).contains(&unit)
        && text.get(next..next + 2) == Some(b"\\u")
        && let Some(low @ 0xdc00..0xe000) = hex(text, next + 2, 4)
    {
        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(code).unwrap_or('?'), next + 6);
    }
    (char::from_u32(unit).unwrap_or('?'), next)
}

/// `count` hexadecimal digits as a number.
#[inline]
fn hex(text: &[u8], at: usize, count: usize) -> Option<u32> {
    let digits = text.get(at..at + count)?;
    let (number, all) = digits.iter().fold((0, 0), |(number, all), digit| {
        let value = HEX[usize::from(*digit)];
        (number << 4 | u32::from(value), all | value)
    });
    (all & 0xf0 == 0).then_some(number)
}

const NO_HEX: u8 = 0xff;

/// The value of each hexadecimal digit.
const HEX: [u8; 256] = {
    let mut table = [NO_HEX; 256];
    let mut i = 0;
    while i < 16 {
        table[b"0123456789abcdef"[i] as usize] = i as u8;
        table[b"0123456789ABCDEF"[i] as usize] = i as u8;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str) -> Result<String, SyntaxError> {
        let mut bytes = text.as_bytes().to_vec();
        let len = unescape(&mut bytes)?;
        assert!(bytes[len..].iter().all(|b| *b == b' '));
        Ok(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    proptest::proptest! {
        #[test]
        fn every_text_comes_back_from_its_escapes(parts in proptest::collection::vec(
            (proptest::prelude::any::<char>(), 0..12_u8, 0..24_usize), 0..20,
        )) {
            let (mut escaped, mut text) = (String::new(), String::new());
            for (char, form, plain) in parts {
                let short = [('\n', r"\n"), ('"', r#"\""#), ('\\', r"\\"), ('/', r"\/"), ('\u{1}', r"\u0001")];
                match short.get(usize::from(form)) {
                    Some((char, form)) => {
                        text.push(*char);
                        escaped.push_str(form);
                    }
                    None => {
                        text.push(char);
                        let units = char.encode_utf16(&mut [0; 2]).to_vec();
                        units.iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
                    }
                }
                let plain: String = "ab\u{e9}cdefg\u{4e2d}hijklmnop\u{1f600}q".chars().cycle().take(plain).collect();
                text.push_str(&plain);
                escaped.push_str(&plain);
            }
            proptest::prop_assert_eq!(unescaped(&escaped).unwrap(), text);
        }
    }

    #[test]
    fn escapes_shrink_in_place() {
        assert_eq!(unescaped(r"plain").unwrap(), "plain");
        assert_eq!(unescaped(r"UNIQ_KEY\u0001AB\u0002").unwrap(), "UNIQ_KEY\u{1}AB\u{2}");
        assert_eq!(
            unescaped(r#"\"\'\\\/\n\t\r\b\f\v\0\7\x41"#).unwrap(),
            "\"'\\/\n\t\r\u{8}\u{c}\u{b}\0\u{7}A"
        );
        assert_eq!(unescaped(r"\u4e2d\uD83D\uDE00!").unwrap(), "中😀!");
        assert_eq!(unescaped(r"\ud83d-\ude00").unwrap(), "?-?");
        assert_eq!(unescaped(r"ab\q"), Err(SyntaxError::BadEscape { at: 2 }));
        assert_eq!(unescaped(r"\u12"), Err(SyntaxError::BadEscape { at: 0 }));
        assert_eq!(unescaped("\\"), Err(SyntaxError::BadEscape { at: 0 }));
    }

    #[test]
    fn values_are_skipped_whole() {
        for value in
            [r#""a\"}b""#, "'x\"y'", "12.5e3", "null", r#"{a:[1,{"b":'}'}],2:{}}"#, "[]", r#"{{"k":1}:2}"#]
        {
            let text = format!(" {value} ,next");
            assert_eq!(skip_value(text.as_bytes(), 0), Ok(1 + value.len()), "{value}");
        }
    }

    #[test]
    fn broken_values_are_errors() {
        for text in ["", "{", "[1", "\"ab", "{]", "}", ",", "\"ab\\\"", "\"ab\\"] {
            assert!(skip_value(text.as_bytes(), 0).is_err(), "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH as usize + 1);
        assert_eq!(
            skip_value(deep.as_bytes(), 0),
            Err(SyntaxError::TooDeep { limit: MAX_DEPTH, at: MAX_DEPTH as usize })
        );
    }
}
