//! Reads JSON as fastjson does.

use std::borrow::Cow;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Visitor};

use super::scan::{self, MAX_DEPTH, Span, SyntaxError};

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is not JSON, not even fastjson's.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// It is not UTF-8.
    #[error("the JSON text is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// It is JSON of another kind.
    #[error("{0}")]
    Shape(String),
}

impl de::Error for JsonError {
    fn custom<T: std::fmt::Display>(message: T) -> JsonError {
        JsonError::Shape(message.to_string())
    }
}

/// Reads a value as leniently as fastjson: numbers in strings and the other way round, single quotes, bare keys,
/// objects as keys, several commas for one, enums by name or ordinal, null for anything (0, false, empty). Unknown
/// fields are passed over; which fields may be missing is for the type to say.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(text).map_err(|e| JsonError::NotUtf8 { at: e.valid_up_to() })?;
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Reader<'de> {
    text: &'de str,
    at: usize,
    /// Objects and arrays that are open.
    depth: u32,
}

impl<'de> Reader<'de> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, SyntaxError> {
        self.at = scan::skip_space(self.text.as_bytes(), self.at);
        let next = self.text.as_bytes().get(self.at).copied();
        next.ok_or(SyntaxError::Ended { within: "a value", at: self.at })
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        self.at = scan::skip_space(self.text.as_bytes(), self.at);
        if self.at < self.text.len() {
            return Err(SyntaxError::Expected { expected: "the end of the text", at: self.at });
        }
        Ok(())
    }

    fn span(&self, span: Span) -> &'de str {
        &self.text[span.start..span.end]
    }

    /// Any value as text: a string's content, a number or boolean as it stands, the JSON of an object or array;
    /// `None` for null.
    fn scalar(&mut self) -> Result<Option<Cow<'de, str>>, JsonError> {
        let text = self.text.as_bytes();
        let value = match self.peek()? {
            b'"' | b'\'' => return self.string().map(Some),
            b'{' | b'[' => Span { start: self.at, end: scan::skip_value(text, self.at)? },
            _ => scan::bare(text, self.at)?,
        };
        self.at = value.end;
        let value = self.span(value);
        Ok((value != "null").then_some(Cow::Borrowed(value)))
    }

    /// A string whose quote is at hand.
    fn string(&mut self) -> Result<Cow<'de, str>, JsonError> {
        let (span, escaped) = scan::quoted(self.text.as_bytes(), self.at)?;
        self.at = span.end + 1;
        let raw = self.span(span);
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        let mut bytes = raw.as_bytes().to_vec();
        let len = scan::unescape(&mut bytes)?;
        bytes.truncate(len);
        let text = String::from_utf8(bytes)
            .map_err(|e| JsonError::NotUtf8 { at: span.start + e.utf8_error().valid_up_to() })?;
        Ok(Cow::Owned(text))
    }

    /// Opens an object or array; `None` for null, which reads as an empty one.
    fn open(&mut self, bracket: u8, expected: &'static str) -> Result<Option<()>, JsonError> {
        if self.peek()? == bracket {
            if self.depth == MAX_DEPTH {
                return Err(SyntaxError::TooDeep { limit: MAX_DEPTH, at: self.at }.into());
            }
            self.depth += 1;
            self.at += 1;
            return Ok(Some(()));
        }
        let at = self.at;
        match self.scalar()?.as_deref() {
            None | Some("" | "null") => Ok(None),
            Some(_) => Err(SyntaxError::Expected { expected, at }.into()),
        }
    }

    /// Skips commas and reads the closing bracket, if it is there.
    fn closed(&mut self, bracket: u8) -> Result<bool, SyntaxError> {
        self.at = scan::skip_commas(self.text.as_bytes(), self.at);
        if self.peek()? != bracket {
            return Ok(false);
        }
        self.at += 1;
        self.depth -= 1;
        Ok(true)
    }
}

/// An integer: as such, or the whole part of a decimal number.
fn integer(text: &str) -> Option<i128> {
    if text.is_empty() || text == "null" {
        return Some(0);
    }
    text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| n as i128))
}

macro_rules! ints {
    ($($name:ident: $ty:ty => $visit:ident,)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let Some(text) = self.scalar()? else { return visitor.$visit(0) };
            let value = integer(&text).and_then(|n| <$ty>::try_from(n).ok());
            visitor.$visit(value.ok_or_else(|| mismatch(&text, stringify!($ty)))?)
        })*
    };
}

fn mismatch(text: &str, expected: &str) -> JsonError {
    let start: String = text.chars().take(64).collect();
    JsonError::Shape(format!("\"{start}\" is no {expected}"))
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, JsonError> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = JsonError;

    ints! {
        deserialize_i8: i8 => visit_i8,
        deserialize_i16: i16 => visit_i16,
        deserialize_i32: i32 => visit_i32,
        deserialize_i64: i64 => visit_i64,
        deserialize_u8: u8 => visit_u8,
        deserialize_u16: u16 => visit_u16,
        deserialize_u32: u32 => visit_u32,
        deserialize_u64: u64 => visit_u64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.peek()? {
            b'{' => return self.deserialize_map(visitor),
            b'[' => return self.deserialize_seq(visitor),
            b'"' | b'\'' => return self.deserialize_str(visitor),
            _ => {}
        }
        let Some(text) = self.scalar()? else { return visitor.visit_unit() };
        match &*text {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            number => match (number.parse::<i64>(), number.parse::<f64>()) {
                (Ok(n), _) => visitor.visit_i64(n),
                (_, Ok(n)) => visitor.visit_f64(n),
                _ => visit_text(text, visitor),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let text = self.scalar()?.unwrap_or_default();
        match &*text {
            _ if text.eq_ignore_ascii_case("true") => visitor.visit_bool(true),
            "1" => visitor.visit_bool(true),
            "" | "0" | "null" => visitor.visit_bool(false),
            _ if text.eq_ignore_ascii_case("false") => visitor.visit_bool(false),
            _ => Err(mismatch(&text, "boolean")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.scalar()?.as_deref() {
            None | Some("" | "null") => visitor.visit_f64(0.0),
            Some(text) => visitor.visit_f64(text.parse().map_err(|_| mismatch(text, "number"))?),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let text = self.scalar()?.unwrap_or_default();
        visit_text(text, visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        let before = self.peek().map(|_| self.at)?;
        if self.text.as_bytes()[before] == b'n' && self.scalar()?.is_none() {
            return visitor.visit_none();
        }
        self.at = before;
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.scalar()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.open(b'[', "an array")? {
            Some(()) => visitor.visit_seq(Members { reader: self, done: false }),
            None => visitor.visit_seq(Members { reader: self, done: true }),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.open(b'{', "an object")? {
            Some(()) => visitor.visit_map(Members { reader: self, done: false }),
            None => visitor.visit_map(Members { reader: self, done: true }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let text = self.scalar()?.unwrap_or_default();
        let by_ordinal = text.parse::<usize>().ok().and_then(|i| variants.get(i));
        // The Go client writes `BroadCasting`.
        let by_name = || variants.iter().find(|variant| is_same_name(variant, &text));
        match by_ordinal.or_else(by_name) {
            Some(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            None => visitor.visit_enum(StrDeserializer::new(&text)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.peek()?;
        self.at = scan::skip_value(self.text.as_bytes(), self.at)?;
        visitor.visit_unit()
    }
}

/// Whether fastjson takes two names of an enum's variant for the same: case, `_` and `-` do not count.
fn is_same_name(variant: &str, text: &str) -> bool {
    let letters = |name: &'_ str| {
        let counts = |byte: &u8| *byte != b'_' && *byte != b'-';
        name.bytes().filter(counts).map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>()
    };
    letters(variant) == letters(text)
}

/// The inside of an object or an array.
struct Members<'a, 'de> {
    reader: &'a mut Reader<'de>,
    done: bool,
}

impl<'de> de::SeqAccess<'de> for Members<'_, 'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        self.done = self.done || self.reader.closed(b']')?;
        if self.done {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Members<'_, 'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        self.done = self.done || self.reader.closed(b'}')?;
        if self.done {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        if self.reader.peek()? != b':' {
            return Err(SyntaxError::Expected { expected: "':'", at: self.reader.at }.into());
        }
        self.reader.at += 1;
        seed.deserialize(&mut *self.reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Body {
        number: i64,
        small: i32,
        real: f64,
        yes: bool,
        text: String,
        list: Vec<i32>,
        by_number: BTreeMap<i64, String>,
        by_key: BTreeMap<Key, i64>,
        choice: Option<Choice>,
        inner: Option<Box<Body>>,
    }

    #[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
    #[serde(default)]
    struct Key {
        a: i32,
        b: String,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Choice {
        Left,
        Right,
    }

    fn read(text: &str) -> Body {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn reads_what_fastjson_reads() {
        let body = read(
            r#" {"number":"12",'small':3.0,real:"1e2","yes":"TRUE","text":5,"list":[1,"2",,null],"unknown":{"a":[{}]},
                "by_number":{0:"a","1":"b\u00e4"},"by_key":{{"a":1,"b":"x"}:7,{b:'y'}:"8"},"choice":1,"inner":{"choice":"LEFT"}} "#,
        );
        let inner = Body { choice: Some(Choice::Left), ..Body::default() };
        let expected = Body {
            number: 12,
            small: 3,
            real: 100.0,
            yes: true,
            text: "5".into(),
            list: vec![1, 2, 0],
            by_number: BTreeMap::from([(0, "a".into()), (1, "bä".into())]),
            by_key: BTreeMap::from([(Key { a: 1, b: "x".into() }, 7), (Key { a: 0, b: "y".into() }, 8)]),
            choice: Some(Choice::Right),
            inner: Some(Box::new(inner)),
        };
        assert_eq!(body, expected);
    }

    #[test]
    fn enums_go_by_name_without_regard_to_case() {
        for text in ["RIGHT", "Right", "right", "RI_GHT", "1"] {
            assert_eq!(read(&format!(r#"{{"choice":"{text}"}}"#)).choice, Some(Choice::Right));
        }
    }

    #[test]
    fn null_reads_as_javas_default() {
        let names =
            ["number", "small", "real", "yes", "text", "list", "by_number", "by_key", "choice", "inner"];
        let text: Vec<_> = names.iter().map(|name| format!("\"{name}\":null")).collect();
        assert_eq!(read(&format!("{{{}}}", text.join(","))), Body::default());
        assert_eq!(read("null"), Body::default());
    }

    #[test]
    fn what_it_cannot_read_is_an_error() {
        let error = |text: &str| from_slice::<Body>(text.as_bytes()).unwrap_err();
        assert_eq!(error(r#"{"small":3000000000}"#), JsonError::Shape("\"3000000000\" is no i32".into()));
        assert_eq!(error(r#"{"list":1}"#), SyntaxError::Expected { expected: "an array", at: 8 }.into());
        assert_eq!(error("{} {"), SyntaxError::Expected { expected: "the end of the text", at: 3 }.into());
        assert!(matches!(error(r#"{"choice":"UP"}"#), JsonError::Shape(_)));
        assert!(matches!(error(r#"{"choice":2}"#), JsonError::Shape(_)));
        assert_eq!(from_slice::<Body>(b"{\xff"), Err(JsonError::NotUtf8 { at: 1 }));
        let deep = r#"{"inner":"#.repeat(MAX_DEPTH as usize + 1);
        assert!(matches!(error(&deep), JsonError::Syntax(SyntaxError::TooDeep { limit: MAX_DEPTH, .. })));
    }
}
