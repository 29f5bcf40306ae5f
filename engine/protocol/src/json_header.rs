//! The JSON header (part A.2), read in place and as leniently as fastjson reads it.

use crate::header::{Entries, Entry, ExtFields, Header, HeaderError, SerializeType};
use crate::json::scan::{self, Span, SyntaxError};
use crate::language::Language;

/// Reads a header; strings are unescaped in place. Linear in the header's length, without recursion; allocates only
/// when there are more than 24 ext fields.
pub(crate) fn parse(bytes: &mut [u8], max_fields: usize) -> Result<Header<'_>, HeaderError> {
    let mut parser = Parser { bytes, at: 0, entries: Entries::new(), max_fields };
    let fields = parser.header()?;
    let Parser { bytes, entries, .. } = parser;
    let text = std::str::from_utf8(bytes).map_err(|e| HeaderError::NotUtf8 { at: e.valid_up_to() })?;
    Ok(Header {
        code: fields.code,
        language: language(fields.language.of(text.as_bytes())),
        version: fields.version,
        opaque: fields.opaque,
        flag: fields.flag,
        remark: fields.remark.map(|span| &text[span.start..span.end]),
        serialize: SerializeType::Json,
        ext: ExtFields::new(text, entries),
    })
}

/// The language by name or by ordinal.
fn language(name: &[u8]) -> Language {
    match std::str::from_utf8(name) {
        Ok("") => Language::Java,
        Ok(name) => match name.parse::<u8>() {
            Ok(ordinal) => Language::from_ordinal(ordinal),
            Err(_) => Language::from_name(name),
        },
        Err(_) => Language::Other,
    }
}

/// What the header holds besides the ext fields.
#[derive(Default)]
struct Fields {
    code: i32,
    version: i32,
    opaque: i32,
    flag: i32,
    language: Span,
    remark: Option<Span>,
}

struct Parser<'a> {
    bytes: &'a mut [u8],
    at: usize,
    entries: Entries,
    max_fields: usize,
}

impl Parser<'_> {
    fn header(&mut self) -> Result<Fields, HeaderError> {
        let mut fields = Fields::default();
        self.open()?;
        while let Some(name) = self.name()? {
            match name.of(self.bytes) {
                b"code" => fields.code = self.int("code")?,
                b"version" => fields.version = self.int("version")?,
                b"opaque" => fields.opaque = self.int("opaque")?,
                b"flag" => fields.flag = self.int("flag")?,
                b"language" => fields.language = self.scalar()?.unwrap_or_default(),
                b"remark" => fields.remark = self.scalar()?,
                b"extFields" => self.ext_fields()?,
                _ => self.at = scan::skip_value(self.bytes, self.at)?,
            }
        }
        self.at = scan::skip_space(self.bytes, self.at);
        if self.at < self.bytes.len() {
            return Err(SyntaxError::Expected { expected: "the end of the header", at: self.at }.into());
        }
        Ok(fields)
    }

    /// Reads `{`.
    fn open(&mut self) -> Result<(), SyntaxError> {
        self.at = scan::skip_space(self.bytes, self.at);
        match self.bytes.get(self.at) {
            Some(b'{') => self.at += 1,
            Some(_) => return Err(SyntaxError::Expected { expected: "'{'", at: self.at }),
            None => return Err(SyntaxError::Ended { within: "an object", at: self.at }),
        }
        Ok(())
    }

    /// Reads the next member's name and its colon; `None` at the `}`.
    #[inline]
    fn name(&mut self) -> Result<Option<Span>, SyntaxError> {
        self.at = scan::skip_commas(self.bytes, self.at);
        let name = match self.bytes.get(self.at) {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b'"' | b'\'') => self.string()?,
            Some(b'{' | b'[') => {
                let start = self.at;
                self.at = scan::skip_value(self.bytes, start)?;
                Span { start, end: self.at }
            }
            Some(_) => self.bare()?,
            None => return Err(SyntaxError::Ended { within: "an object", at: self.at }),
        };
        self.at = scan::skip_space(self.bytes, self.at);
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(SyntaxError::Expected { expected: "':'", at: self.at });
        }
        self.at = scan::skip_space(self.bytes, self.at + 1);
        Ok(Some(name))
    }

    /// Reads the next member if it is of the usual kind: two strings in double quotes, with only a comma in front.
    #[inline]
    fn usual_field(&mut self) -> Result<Option<(Span, Span)>, SyntaxError> {
        let at = self.at + usize::from(self.bytes.get(self.at) == Some(&b','));
        if self.bytes.get(at) != Some(&b'"') {
            return Ok(None);
        }
        let Some(name) = scan::short(self.bytes, at + 1) else { return Ok(None) };
        if self.bytes.get(name.end..name.end + 3) != Some(b"\":\"") {
            return Ok(None);
        }
        self.at = name.end + 2;
        if let Some(value) = scan::short(self.bytes, self.at + 1) {
            self.at = value.end + 1;
            return Ok(Some((name, value)));
        }
        Ok(Some((name, self.string()?)))
    }

    /// Reads a string whose quote is at hand, unescaped.
    #[inline]
    fn string(&mut self) -> Result<Span, SyntaxError> {
        let (mut span, escaped) = scan::quoted(self.bytes, self.at)?;
        self.at = span.end + 1;
        if escaped {
            span.end = span.start + scan::unescape(&mut self.bytes[span.start..span.end])?;
        }
        Ok(span)
    }

    #[inline]
    fn bare(&mut self) -> Result<Span, SyntaxError> {
        let span = scan::bare(self.bytes, self.at)?;
        self.at = span.end;
        Ok(span)
    }

    /// Reads any value as text: a string's content, a number or boolean as it stands, the JSON of an object or array;
    /// `None` for null.
    #[inline]
    fn scalar(&mut self) -> Result<Option<Span>, SyntaxError> {
        match self.bytes.get(self.at) {
            Some(b'"' | b'\'') => self.string().map(Some),
            Some(b'{' | b'[') => {
                let start = self.at;
                self.at = scan::skip_value(self.bytes, start)?;
                Ok(Some(Span { start, end: self.at }))
            }
            _ => {
                let span = self.bare()?;
                Ok((span.of(self.bytes) != b"null").then_some(span))
            }
        }
    }

    /// Reads an integer, quoted or not; null and the empty string read as 0, as in Java.
    fn int(&mut self, field: &'static str) -> Result<i32, HeaderError> {
        let Some(span) = self.scalar()? else { return Ok(0) };
        let text = span.of(self.bytes);
        if text.is_empty() || text == b"null" {
            return Ok(0);
        }
        let text = std::str::from_utf8(text).map_err(|_| HeaderError::NotANumber { field })?;
        text.parse().map_err(|_| HeaderError::NotANumber { field })
    }

    fn ext_fields(&mut self) -> Result<(), HeaderError> {
        self.entries.clear();
        if self.bytes.get(self.at) != Some(&b'{') {
            return match self.scalar()? {
                None => Ok(()),
                Some(span) => {
                    Err(SyntaxError::Expected { expected: "extFields as an object", at: span.start }.into())
                }
            };
        }
        self.open()?;
        loop {
            let (name, value) = match self.usual_field()? {
                Some(field) => field,
                None => {
                    let Some(name) = self.name()? else { break };
                    let Some(value) = self.scalar()? else { continue };
                    (name, value)
                }
            };
            if self.entries.len() == self.max_fields {
                return Err(HeaderError::TooManyFields { limit: self.max_fields });
            }
            self.entries.push(Entry {
                name_start: name.start as u32,
                name_end: name.end as u32,
                value_start: value.start as u32,
                value_end: value.end as u32,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, check: impl FnOnce(Header<'_>)) {
        let mut bytes = text.as_bytes().to_vec();
        check(parse(&mut bytes, 64).unwrap());
    }

    fn error(text: &[u8]) -> HeaderError {
        parse(&mut text.to_vec(), 3).unwrap_err()
    }

    #[test]
    fn takes_what_fastjson_takes() {
        let text = r#" {'flag':"1", "unknown":{"a":[1,{2:'}'}]}, "code":310,,language:9,"version":null,
            "extFields":{"a":"x\u0001\"y","n":12,b:true,'z':null,"o":{"k":[1]}, "a2":""},
            {"k":1}:2, 3:4, "opaque":"-7" , "remark":"中\n" , "serializeTypeCurrentRPC":"JSON"} "#;
        parsed(text, |header| {
            assert_eq!((header.code, header.flag, header.opaque, header.version), (310, 1, -7, 0));
            assert_eq!(header.language, Language::Go);
            assert_eq!(header.remark, Some("中\n"));
            let ext: Vec<_> = header.ext.iter().collect();
            let expected =
                [("a", "x\u{1}\"y"), ("n", "12"), ("b", "true"), ("o", r#"{"k":[1]}"#), ("a2", "")];
            assert_eq!(ext, expected);
        });
    }

    #[test]
    fn the_last_of_two_counts() {
        parsed(r#"{"code":1,"code":2,"extFields":{"a":"1","a":"2"}}"#, |header| {
            assert_eq!(header.code, 2);
            assert_eq!(header.ext.get("a"), Some("2"));
            assert_eq!(header.ext.get("b"), None);
        });
        parsed(r#"{"extFields":{"a":"1"},"extFields":null,"remark":null,"language":"CPP"}"#, |header| {
            assert!(header.ext.is_empty());
            assert_eq!((header.remark, header.language), (None, Language::Cpp));
        });
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(error(b""), SyntaxError::Ended { within: "an object", at: 0 }.into());
        assert_eq!(error(b"[1]"), SyntaxError::Expected { expected: "'{'", at: 0 }.into());
        assert_eq!(error(b"{\"code\":true}"), HeaderError::NotANumber { field: "code" });
        assert_eq!(error(b"{\"code\":99999999999}"), HeaderError::NotANumber { field: "code" });
        assert_eq!(error(b"{\"extFields\":{a:1,b:2,c:3,d:4}}"), HeaderError::TooManyFields { limit: 3 });
        assert_eq!(error(b"{\"remark\":\"\xff\"}"), HeaderError::NotUtf8 { at: 11 });
        let expected = SyntaxError::Expected { expected: "the end of the header", at: 3 };
        assert_eq!(error(b"{} x"), expected.into());
        assert!(matches!(error(b"{\"code\" 1}"), HeaderError::Syntax(SyntaxError::Expected { .. })));
    }
}
