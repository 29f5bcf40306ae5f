//! Tokens, read one at a time: what stands behind the end of an expression is never looked at, as in Java, whose
//! grammar does not ask for the end of the text.

use crate::FilterError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Eof,
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
    Decimal,
    Float,
    Text,
    Id,
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Open,
    Comma,
    Close,
    Plus,
    Minus,
}

const KEYWORDS: [(&str, Kind); 12] = [
    ("NOT", Kind::Not),
    ("AND", Kind::And),
    ("OR", Kind::Or),
    ("BETWEEN", Kind::Between),
    ("IN", Kind::In),
    ("TRUE", Kind::True),
    ("FALSE", Kind::False),
    ("NULL", Kind::Null),
    ("IS", Kind::Is),
    ("CONTAINS", Kind::Contains),
    ("STARTSWITH", Kind::StartsWith),
    ("ENDSWITH", Kind::EndsWith),
];

impl Kind {
    /// As Java's parser names it in its errors.
    pub fn image(self) -> &'static str {
        match self {
            Kind::Eof => "<EOF>",
            Kind::Not => "\"NOT\"",
            Kind::And => "\"AND\"",
            Kind::Or => "\"OR\"",
            Kind::Between => "\"BETWEEN\"",
            Kind::In => "\"IN\"",
            Kind::True => "\"TRUE\"",
            Kind::False => "\"FALSE\"",
            Kind::Null => "\"NULL\"",
            Kind::Is => "\"IS\"",
            Kind::Contains => "\"CONTAINS\"",
            Kind::StartsWith => "\"STARTSWITH\"",
            Kind::EndsWith => "\"ENDSWITH\"",
            Kind::Decimal => "<DECIMAL_LITERAL>",
            Kind::Float => "<FLOATING_POINT_LITERAL>",
            Kind::Text => "<STRING_LITERAL>",
            Kind::Id => "<ID>",
            Kind::Equal => "\"=\"",
            Kind::NotEqual => "\"<>\"",
            Kind::Greater => "\">\"",
            Kind::GreaterEqual => "\">=\"",
            Kind::Less => "\"<\"",
            Kind::LessEqual => "\"<=\"",
            Kind::Open => "\"(\"",
            Kind::Comma => "\",\"",
            Kind::Close => "\")\"",
            Kind::Plus => "\"+\"",
            Kind::Minus => "\"-\"",
        }
    }
}

/// A token of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    /// As it stands in the text.
    pub text: &'a str,
    /// Where it begins.
    at: usize,
}

/// Reads tokens from a text.
pub struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(source: &'a str) -> Lexer<'a> {
        Lexer { source, at: 0 }
    }

    /// The next token; [`Kind::Eof`] at the end.
    pub fn next(&mut self) -> Result<Token<'a>, FilterError> {
        self.skip()?;
        let (at, rest) = (self.at, &self.source[self.at..]);
        let Some((kind, len)) = scan(rest) else { return Err(self.error(at)) };
        self.at += len;
        Ok(Token { kind, text: &rest[..len], at })
    }

    /// Passes over white space and comments.
    fn skip(&mut self) -> Result<(), FilterError> {
        loop {
            let rest = &self.source[self.at..];
            let len = match rest.as_bytes() {
                [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c', ..] => 1,
                // Without the end of its line it is no comment but two signs.
                [b'-', b'-', ..] => match rest.find(['\n', '\r']) {
                    Some(end) => end + 1,
                    None => return Ok(()),
                },
                [b'/', b'*', ..] => match rest[2..].find("*/") {
                    Some(end) => end + 4,
                    None => return Err(self.error(self.at)),
                },
                _ => return Ok(()),
            };
            self.at += len;
        }
    }

    /// What begins at `at` is no token.
    fn error(&self, at: usize) -> FilterError {
        let rest = &self.source[at..];
        let mut ahead = rest.chars();
        let first = ahead.next().unwrap_or_default();
        // Only where a longer token may have begun has Java read on.
        let begun = match (first, ahead.next()) {
            ('\'', _) | ('/', Some('*')) => rest.len(),
            ('/' | '.', _) => 1,
            _ => 0,
        };
        let wrong = rest[begun..].chars().next();
        let read = begun + wrong.map_or(0, char::len_utf8);
        let text = match wrong {
            Some(wrong) if read < rest.len() => {
                let (line, column) = self.position(at + begun);
                let code = wrong.encode_utf16(&mut [0; 2])[0];
                let wrong = escaped(wrong.encode_utf8(&mut [0; 4]));
                let after = escaped(&rest[..begun]);
                format!(
                    "Lexical error at line {line}, column {column}.  Encountered: \"{wrong}\" ({code}), after : \
                     \"{after}\""
                )
            }
            _ => {
                let (line, column) = match rest.ends_with(['\n', '\r']) {
                    true => (self.position(self.source.len()).0 + 1, 0),
                    false => self.position(self.source.len()),
                };
                // Java shows what was read only from its second character on.
                let after = if rest.chars().nth(1).is_some() { escaped(rest) } else { String::new() };
                format!(
                    "Lexical error at line {line}, column {column}.  Encountered: <EOF> after : \"{after}\""
                )
            }
        };
        FilterError::Lexical(text)
    }

    /// Line and column of the token.
    pub fn position_of(&self, token: &Token<'_>) -> (usize, usize) {
        // Java gives the end of the text the place of the last character.
        match token.kind {
            Kind::Eof if token.at > 0 => self.position(token.at - 1),
            Kind::Eof => (0, 0),
            _ => self.position(token.at),
        }
    }

    /// Line and column, both from 1, of the byte at `at`; tabs reach to multiples of 8.
    fn position(&self, at: usize) -> (usize, usize) {
        let (mut line, mut column, mut previous) = (1, 0, ' ');
        for (_, c) in self.source.char_indices().take_while(|(i, _)| *i <= at) {
            if previous == '\n' || (previous == '\r' && c != '\n') {
                (line, column) = (line + 1, 0);
            }
            column = if c == '\t' { column + 8 - column % 8 } else { column + c.len_utf16() };
            previous = c;
        }
        (line, if at >= self.source.len() { column + 1 } else { column })
    }
}

/// The longest token that `rest` begins with, and its length.
fn scan(rest: &str) -> Option<(Kind, usize)> {
    let bytes = rest.as_bytes();
    let one = |kind| Some((kind, 1));
    match bytes {
        [] => Some((Kind::Eof, 0)),
        [b'<', b'>', ..] => Some((Kind::NotEqual, 2)),
        [b'<', b'=', ..] => Some((Kind::LessEqual, 2)),
        [b'>', b'=', ..] => Some((Kind::GreaterEqual, 2)),
        [b'<', ..] => one(Kind::Less),
        [b'>', ..] => one(Kind::Greater),
        [b'=', ..] => one(Kind::Equal),
        [b'(', ..] => one(Kind::Open),
        [b')', ..] => one(Kind::Close),
        [b',', ..] => one(Kind::Comma),
        [b'+', ..] => one(Kind::Plus),
        [b'-', ..] => one(Kind::Minus),
        [b'\'', ..] => scan_text(bytes),
        [b'0'..=b'9' | b'.', ..] => scan_number(bytes),
        [b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$', ..] => Some(scan_word(rest)),
        _ => None,
    }
}

fn scan_word(rest: &str) -> (Kind, usize) {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'$';
    let len = rest.bytes().position(|b| !is_part(b)).unwrap_or(rest.len());
    let keyword = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&rest[..len]));
    (keyword.map_or(Kind::Id, |(_, kind)| *kind), len)
}

/// A text up to its closing quote; two quotes within stand for one.
fn scan_text(bytes: &[u8]) -> Option<(Kind, usize)> {
    let mut at = 1;
    loop {
        at += bytes[at..].iter().position(|b| *b == b'\'')? + 1;
        if bytes.get(at) != Some(&b'\'') {
            return Some((Kind::Text, at));
        }
        at += 1;
    }
}

fn digits(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Bytes of an exponent at `at`, 0 if there is none.
fn exponent(bytes: &[u8], at: usize) -> usize {
    if !matches!(bytes.get(at), Some(b'e' | b'E')) {
        return 0;
    }
    let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
    match digits(bytes, (at + 1 + sign).min(bytes.len())) {
        0 => 0,
        count => 1 + sign + count,
    }
}

fn scan_number(bytes: &[u8]) -> Option<(Kind, usize)> {
    let whole = digits(bytes, 0);
    if bytes.get(whole) == Some(&b'.') {
        let fraction = digits(bytes, whole + 1);
        if whole + fraction == 0 {
            return None;
        }
        let len = whole + 1 + fraction;
        return Some((Kind::Float, len + exponent(bytes, len)));
    }
    match exponent(bytes, whole) {
        0 if bytes[0] == b'0' => Some((Kind::Decimal, 1)),
        0 => {
            let suffix = usize::from(matches!(bytes.get(whole), Some(b'l' | b'L')));
            Some((Kind::Decimal, whole + suffix))
        }
        len => Some((Kind::Float, whole + len)),
    }
}

/// A text as Java's parser shows it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(0) => {}
            Ok(8) => out.push_str("\\b"),
            Ok(b'\t') => out.push_str("\\t"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(12) => out.push_str("\\f"),
            Ok(b'\r') => out.push_str("\\r"),
            Ok(quoted @ (b'"' | b'\'' | b'\\')) => out.extend(['\\', char::from(quoted)]),
            Ok(plain @ 0x20..=0x7e) => out.push(char::from(plain)),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<Kind> {
        let mut lexer = Lexer::new(source);
        let mut kinds = Vec::new();
        loop {
            match lexer.next().unwrap().kind {
                Kind::Eof => return kinds,
                kind => kinds.push(kind),
            }
        }
    }

    #[test]
    fn reads_the_longest_token() {
        use Kind::*;
        assert_eq!(kinds("a<>1 in IN inx"), [Id, NotEqual, Decimal, In, In, Id]);
        assert_eq!(kinds("007 5l 5e 5. .5E-3 5e+ 0.0"), {
            [Decimal, Decimal, Decimal, Decimal, Decimal, Id, Float, Float, Decimal, Id, Plus, Float]
        });
        assert_eq!(kinds("'a''b' '' /* x ** / */ -- c\n ) --"), [Text, Text, Close, Minus, Minus]);
    }

    #[test]
    fn says_where_no_token_begins() {
        let error = |source| Lexer::new(source).next().unwrap_err().to_string();
        let at = "org.apache.rocketmq.filter.parser.TokenMgrError: Lexical error at line ";
        assert_eq!(error("\n # "), format!("{at}2, column 2.  Encountered: \"#\" (35), after : \"\""));
        assert_eq!(error("'ab"), format!("{at}1, column 4.  Encountered: <EOF> after : \"\\'ab\""));
    }
}
