//! The JSON header, read in place and as leniently as fastjson reads it.

mod forms;
mod usual;

use std::borrow::Cow;

use smallvec::SmallVec;

pub use forms::Forms;
use forms::Head;

use crate::header::{Entries, Entry, ExtFields, Header, HeaderError, SerializeType, USUAL_FIELDS};
use crate::json::scan::{self, Span, SyntaxError};
use crate::language::Language;

/// Reads a header; strings are unescaped in place. Linear in the header's length, without recursion; allocates only
/// when there are no forms, which have memory for the entries, or when the form is learned.
pub(crate) fn parse<'a>(
    bytes: &'a mut [u8],
    max_fields: usize,
    mut forms: Option<&'a mut Forms>,
) -> Result<Header<'a>, HeaderError> {
    let mut entries = match &mut forms {
        Some(forms) => forms.take_entries(),
        None => Entries::with_capacity(USUAL_FIELDS),
    };
    let head = head(bytes, max_fields, forms.as_deref_mut(), &mut entries)?;
    usual::unescape(&head.escaped, bytes, &mut entries)?;
    let text = match head.is_ascii {
        // SAFETY: every byte is ASCII, but for the characters that `scan::unescape` wrote whole.
        true => unsafe { std::str::from_utf8_unchecked(bytes) },
        false => std::str::from_utf8(bytes).map_err(|e| HeaderError::NotUtf8 { at: e.valid_up_to() })?,
    };
    let entries = match forms {
        Some(forms) => Cow::Borrowed(forms.keep_entries(entries)),
        None => Cow::Owned(entries),
    };
    Ok(Header {
        code: head.code,
        language: head.language,
        version: head.version,
        opaque: head.opaque,
        flag: head.flag,
        remark: head.remark.map(|span| &text[span.start..span.end]),
        serialize: SerializeType::Json,
        // SAFETY: the entries were found in these bytes; each begins and ends at a quote, bracket, comma or space, or where
        // an escape was undone, and so between two characters.
        ext: unsafe { ExtFields::new(text, entries) },
    })
}

/// Reads all but the ext fields, which become `entries`: by a form that is known, or as clients write, or leniently. What
/// [`Head::escaped`] names is yet to be unescaped.
fn head(
    bytes: &mut [u8],
    max_fields: usize,
    mut forms: Option<&mut Forms>,
    entries: &mut Entries,
) -> Result<Head, HeaderError> {
    let known = forms.as_mut().and_then(|forms| forms.read(bytes, max_fields, entries));
    if let Some(head) = known {
        return Ok(head);
    }
    let Some(usual) = usual::read(bytes, max_fields, entries) else {
        let fields = leniently(bytes, max_fields, entries)?;
        let language = language(fields.language.of(bytes));
        return Ok(Head::new(&fields, language, false, SmallVec::new()));
    };
    let language = language(usual.fields.language.of(bytes));
    if let Some(forms) = forms
        && forms.is_wanted(bytes)
    {
        forms.learn(bytes, &usual, language, entries);
    }
    Ok(Head::new(&usual.fields, language, usual.is_ascii, usual.escaped))
}

/// Reads a header of any form, with its ext fields as `entries`.
fn leniently(bytes: &mut [u8], max_fields: usize, entries: &mut Entries) -> Result<Fields, HeaderError> {
    entries.clear();
    Parser { bytes, at: 0, entries, max_fields }.header()
}

/// The language by name or by ordinal.
fn language(name: &[u8]) -> Language {
    if name == b"JAVA" {
        return Language::Java;
    }
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
    entries: &'a mut Entries,
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
        while let Some(name) = self.name()? {
            let Some(value) = self.scalar()? else { continue };
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
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str, check: impl FnOnce(Header<'_>)) {
        let mut bytes = text.as_bytes().to_vec();
        check(parse(&mut bytes, 64, None).unwrap());
    }

    fn error(text: &[u8]) -> HeaderError {
        parse(&mut text.to_vec(), 3, None).unwrap_err()
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

    /// What a header says, both ways of reading it.
    fn both(bytes: &[u8]) -> (Option<String>, Result<String, HeaderError>) {
        let (mut one, mut two) = (bytes.to_vec(), bytes.to_vec());
        let (mut first, mut second) = (Entries::new(), Entries::new());
        let usual = usual::read(bytes, 64, &mut first);
        let usual = usual.and_then(|usual| {
            usual::unescape(&usual.escaped, &mut one, &mut first).ok()?;
            Some(told(&one, &usual.fields, &first))
        });
        let lenient = leniently(&mut two, 64, &mut second);
        (usual, lenient.map(|fields| told(&two, &fields, &second)))
    }

    fn told(bytes: &[u8], fields: &Fields, entries: &Entries) -> String {
        let span = |s: u32, e: u32| String::from_utf8_lossy(&bytes[s as usize..e as usize]).into_owned();
        let ext: Vec<_> = entries
            .iter()
            .map(|e| (span(e.name_start, e.name_end), span(e.value_start, e.value_end)))
            .collect();
        let &Fields { code, version, opaque, flag, language, remark } = fields;
        let texts = [language, remark.unwrap_or_default()].map(|text| text.of(bytes).to_vec());
        format!("{code} {version} {opaque} {flag} {texts:?} {} {ext:?}", remark.is_some())
    }

    /// What a header says, or why it cannot be read.
    fn whole(bytes: &[u8], max_fields: usize, forms: Option<&mut Forms>) -> Result<String, HeaderError> {
        let mut bytes = bytes.to_vec();
        parse(&mut bytes, max_fields, forms).map(|header| format!("{header:?}"))
    }

    /// Forms that know the one header.
    fn forms_of(text: &[u8]) -> Forms {
        let mut forms = Forms::default();
        whole(text, 64, Some(&mut forms)).unwrap();
        assert!(forms.read(text, 64, &mut Entries::new()).is_some(), "it was learned");
        forms
    }

    const USUAL: &str = concat!(
        r#"{"code":310,"extFields":{"a":"g","b":"中","i":"K\u0001v\u0002\"x\\","e":"","m":"false"},"flag":0,"#,
        r#""language":"JAVA","opaque":-77,"remark":"r","serializeTypeCurrentRPC":"JSON","version":475}"#
    );

    #[test]
    fn what_clients_write_is_read_in_one_pass() {
        for text in [USUAL, r#"{"code":0,"extFields":{}}"#, r#"{"opaque":2147483647}"#] {
            let (usual, lenient) = both(text.as_bytes());
            assert_eq!(usual.expect("of the usual form"), lenient.unwrap());
        }
        for text in ["{}", "{\"code\":2147483648}", "{\"code\":1} ", "{\"code\":1,}", "{\"code\":\"1\"}"] {
            assert_eq!(both(text.as_bytes()).0, None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_of_reading_agree(
            changes in prop::collection::vec((any::<prop::sample::Index>(), "[\"\\\\,:{}'u0a ]"), 0..4),
            cut: Option<prop::sample::Index>,
        ) {
            let mut bytes = USUAL.as_bytes().to_vec();
            for (at, c) in changes {
                let at = at.index(bytes.len());
                bytes[at] = c.as_bytes()[0];
            }
            bytes.truncate(cut.map_or(usize::MAX, |cut| cut.index(bytes.len())));
            let (usual, lenient) = both(&bytes);
            if let Some(usual) = usual {
                prop_assert_eq!(Ok(usual), lenient);
            }
            // What a known form says of it, if it is of that form, is the same, too.
            let known = whole(&bytes, 64, Some(&mut forms_of(USUAL.as_bytes())));
            prop_assert_eq!(known, whole(&bytes, 64, None));
        }
    }

    proptest! {
        #[test]
        fn what_differs_among_headers_of_a_form_is_read(
            headers in prop::collection::vec(
                (
                    prop_oneof![4 => Just("group"), 1 => Just("other group"), 1 => Just("中")],
                    prop_oneof![2 => Just("T"), 1 => Just("a topic whose name is longer than sixteen bytes"), 1 => Just("")],
                    prop_oneof![2 => Just(String::new()), 1 => "(K\\\\u0001v\\\\u0002|[a-z]{1,20}|\\\\n|中|\\\\q){0,4}"],
                    any::<i32>(),
                    prop_oneof![3 => Just(r#""false""#), 1 => Just(r#""true""#), 1 => Just(r#""\u0002""#), 1 => Just("null")],
                ),
                1..12,
            ),
        ) {
            let mut forms = Forms::default();
            for (group, topic, properties, opaque, batch) in headers {
                let text = format!(
                    "{{\"code\":310,\"extFields\":{{\"a\":\"{group}\",\"topic\":\"{topic}\",\"c\":\"TBW102\",\
                     \"i\":\"{properties}\",\"m\":{batch}}},\"flag\":0,\"opaque\":{opaque},\"version\":475}}"
                );
                let known = whole(text.as_bytes(), 64, Some(&mut forms));
                prop_assert_eq!(known, whole(text.as_bytes(), 64, None), "{}", text);
            }
        }
    }

    #[test]
    fn values_of_a_known_form_are_read_whatever_they_are() {
        let form = |topic: &str, properties: &str, opaque: &str, remark: &str| {
            format!(
                "{{\"code\":310,\"extFields\":{{\"a\":\"group\",\"topic\":\"{topic}\",\"i\":\"{properties}\"}},\"flag\":0,\
                 \"language\":\"GO\",\"opaque\":{opaque},\"remark\":\"{remark}\",\"version\":475}}"
            )
        };
        let mut forms = forms_of(form("T", "", "1", "").as_bytes());
        for (topic, properties, opaque, remark) in [
            ("", "", "-7", ""),
            ("a topic whose name is longer than sixteen bytes", "K\\u0001v\\u0002", "2147483647", "why"),
            ("中", "\\\"\\\\", "0", "中"),
            ("\\u4e2d", "中\\n", "12", "-"),
        ] {
            let text = form(topic, properties, opaque, remark);
            let head = forms.read(text.as_bytes(), 64, &mut Entries::new());
            assert!(head.is_some(), "{text}");
            let known = whole(text.as_bytes(), 64, Some(&mut forms));
            assert_eq!(known, whole(text.as_bytes(), 64, None), "{text}");
        }
        let bad = form("T", "\\q", "1", "");
        assert_eq!(whole(bad.as_bytes(), 64, Some(&mut forms)), whole(bad.as_bytes(), 64, None));
        let text = form("T", "", "1", "");
        let limited = whole(text.as_bytes(), 2, Some(&mut forms));
        assert_eq!(limited, Err(HeaderError::TooManyFields { limit: 2 }));
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
