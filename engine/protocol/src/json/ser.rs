//! Writes JSON as fastjson does.

use bytes::{BufMut, BytesMut};
use serde::ser::{self, Serialize};

use super::write;

/// The two forms that Java writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Integers and objects as keys stand without quotes; non-ASCII as it is.
    Java,
    /// Standard JSON: all keys quoted. The name server 5.5.0 asks fastjson2 for BrowserCompatible text too, and gets
    /// non-ASCII as it is.
    Standard,
}

/// The JSON text of a value. Fields that are `None` are left out.
///
/// Panics if the type has no JSON form in Java: an enum variant with content. No type of this crate has any.
pub fn to_vec<T: Serialize + ?Sized>(value: &T, dialect: Dialect) -> Vec<u8> {
    let mut writer = Writer { out: BytesMut::with_capacity(256), dialect };
    value.serialize(&mut writer).expect("bodies have a JSON form");
    writer.out.into()
}

/// Why a type has no JSON form.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoForm(String);

impl ser::Error for NoForm {
    fn custom<T: std::fmt::Display>(message: T) -> NoForm {
        NoForm(message.to_string())
    }
}

struct Writer {
    out: BytesMut,
    dialect: Dialect,
}

impl Writer {
    fn string(&mut self, text: &str) {
        write::string(&mut self.out, text);
    }

    fn open(&mut self, bracket: u8) -> Members<'_> {
        self.out.put_u8(bracket);
        Members { close: bracket + 2, first: true, writer: self }
    }
}

/// The inside of an object or an array.
struct Members<'a> {
    writer: &'a mut Writer,
    /// The closing bracket: two behind the opening one in ASCII.
    close: u8,
    first: bool,
}

impl Members<'_> {
    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.writer.out.put_u8(b',');
        }
    }

    fn end(self) {
        self.writer.out.put_u8(self.close);
    }
}

fn no_form<T>(what: &str) -> Result<T, NoForm> {
    Err(NoForm(format!("{what} has no JSON form in Java")))
}

macro_rules! ints {
    ($($name:ident: $ty:ty,)*) => {
        $(fn $name(self, value: $ty) -> Result<(), NoForm> {
            self.out.put_slice(itoa::Buffer::new().format(value).as_bytes());
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = NoForm;
    type SerializeSeq = Members<'a>;
    type SerializeTuple = Members<'a>;
    type SerializeTupleStruct = Members<'a>;
    type SerializeTupleVariant = ser::Impossible<(), NoForm>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = ser::Impossible<(), NoForm>;

    ints! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), NoForm> {
        self.out.put_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), NoForm> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), NoForm> {
        // As in Java, a whole number keeps its ".0" and what is no number becomes null.
        match value.is_finite() {
            true => self.out.put_slice(format!("{value:?}").as_bytes()),
            false => self.out.put_slice(b"null"),
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), NoForm> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), NoForm> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), NoForm> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), NoForm> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NoForm> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), NoForm> {
        self.out.put_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), NoForm> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _i: u32,
        variant: &'static str,
    ) -> Result<(), NoForm> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), NoForm> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _i: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), NoForm> {
        no_form(name)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Members<'a>, NoForm> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Members<'a>, NoForm> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Members<'a>, NoForm> {
        Ok(self.open(b'['))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _i: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, NoForm> {
        no_form(name)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Members<'a>, NoForm> {
        Ok(self.open(b'{'))
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Members<'a>, NoForm> {
        Ok(self.open(b'{'))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _i: u32,
        _variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, NoForm> {
        no_form(name)
    }
}

impl ser::SerializeSeq for Members<'_> {
    type Ok = ();
    type Error = NoForm;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoForm> {
        self.comma();
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), NoForm> {
        Members::end(self);
        Ok(())
    }
}

impl ser::SerializeTuple for Members<'_> {
    type Ok = ();
    type Error = NoForm;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoForm> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), NoForm> {
        Members::end(self);
        Ok(())
    }
}

impl ser::SerializeTupleStruct for Members<'_> {
    type Ok = ();
    type Error = NoForm;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoForm> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), NoForm> {
        Members::end(self);
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = NoForm;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NoForm> {
        self.comma();
        let start = self.writer.out.len();
        key.serialize(&mut *self.writer)?;
        if self.writer.dialect == Dialect::Standard && self.writer.out[start] != b'"' {
            let bare = self.writer.out.split_off(start);
            self.writer.string(&String::from_utf8_lossy(&bare));
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoForm> {
        self.writer.out.put_u8(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), NoForm> {
        Members::end(self);
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = NoForm;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NoForm> {
        let (start, was_first) = (self.writer.out.len(), self.first);
        self.comma();
        self.writer.string(name);
        self.writer.out.put_u8(b':');
        let value_at = self.writer.out.len();
        value.serialize(&mut *self.writer)?;
        if self.writer.out[value_at..] == *b"null" {
            self.writer.out.truncate(start);
            self.first = was_first;
        }
        Ok(())
    }

    fn end(self) -> Result<(), NoForm> {
        Members::end(self);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(serde::Serialize, PartialEq, Eq, PartialOrd, Ord)]
    struct Key {
        a: i32,
    }

    #[derive(serde::Serialize)]
    struct Body {
        by_key: BTreeMap<Key, f64>,
        by_number: BTreeMap<i64, &'static str>,
        list: Vec<Option<bool>>,
        none: Option<i32>,
        text: &'static str,
    }

    fn body() -> Body {
        Body {
            by_key: BTreeMap::from([(Key { a: 1 }, 2.0), (Key { a: 2 }, f64::NAN)]),
            by_number: BTreeMap::from([(0, "x"), (-1, "y")]),
            list: vec![Some(true), None],
            none: None,
            text: "ü\"<\n",
        }
    }

    #[test]
    fn javas_keys_stand_bare() {
        assert_eq!(
            String::from_utf8(to_vec(&body(), Dialect::Java)).unwrap(),
            r#"{"by_key":{{"a":1}:2.0,{"a":2}:null},"by_number":{-1:"y",0:"x"},"list":[true,null],"text":"ü\"<\n"}"#
        );
    }

    #[test]
    fn standard_json_is_standard() {
        let text = to_vec(&body(), Dialect::Standard);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"by_key":{"{\"a\":1}":2.0,"{\"a\":2}":null},"by_number":{"-1":"y","0":"x"},"list":[true,null],"text":"ü\"<\n"}"#
        );
    }
}
