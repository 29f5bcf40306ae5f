//! Values of ext fields: always text on the wire, typed in Java's header classes.

use crate::writer::FieldSink;

/// Why the ext fields do not make the request's header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtError {
    /// A mandatory field is missing; the text is Java's.
    #[error("the custom field <{field}> is null")]
    Missing {
        /// Its name on the wire.
        field: &'static str,
    },
    /// A field holds something else than its type.
    #[error("the custom field <{field}> should be {expected}, not \"{value}\"")]
    Invalid {
        /// Its name on the wire.
        field: &'static str,
        /// The type.
        expected: &'static str,
        /// The value, cut to 64 characters.
        value: String,
    },
}

impl ExtError {
    #[cold]
    fn invalid(field: &'static str, expected: &'static str, value: &str) -> ExtError {
        ExtError::Invalid { field, expected, value: value.chars().take(64).collect() }
    }
}

/// A type that a field of a header can have.
pub trait Field<'a>: Sized {
    /// Reads the value; `None` when the field is missing.
    fn read(value: Option<&'a str>, field: &'static str) -> Result<Self, ExtError>;
    /// Writes the value, if there is one.
    fn write(&self, field: &'static str, sink: &mut dyn FieldSink);
}

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn read(value: Option<&'a str>, field: &'static str) -> Result<Self, ExtError> {
        value.ok_or(ExtError::Missing { field })
    }

    fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
        sink.str(field, self);
    }
}

/// The number that digits alone stand for, if there are no more of them than `most`, with which none overflows.
#[inline(always)]
fn digits(text: &str, most: usize) -> Option<i64> {
    if text.is_empty() || text.len() > most {
        return None;
    }
    let mut number = 0;
    for byte in text.bytes() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + i64::from(digit);
    }
    Some(number)
}

/// A number that is not digits alone, or has many.
#[cold]
fn parsed<T: std::str::FromStr>(
    value: &str,
    field: &'static str,
    expected: &'static str,
) -> Result<T, ExtError> {
    value.parse().map_err(|_| ExtError::invalid(field, expected, value))
}

macro_rules! int_field {
    ($ty:ty, $most:literal, $expected:literal) => {
        impl<'a> Field<'a> for $ty {
            #[inline(always)]
            fn read(value: Option<&'a str>, field: &'static str) -> Result<Self, ExtError> {
                let value = value.ok_or(ExtError::Missing { field })?;
                match digits(value, $most) {
                    Some(number) => Ok(number as $ty),
                    None => parsed(value, field, $expected),
                }
            }

            fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
                sink.int(field, i64::from(*self));
            }
        }
    };
}

int_field!(i32, 9, "a 32-bit integer");
int_field!(i64, 18, "a 64-bit integer");

impl<'a> Field<'a> for bool {
    #[inline]
    fn read(value: Option<&'a str>, field: &'static str) -> Result<Self, ExtError> {
        // Java's Boolean.parseBoolean: all but "true" is false.
        Ok(value.ok_or(ExtError::Missing { field })?.eq_ignore_ascii_case("true"))
    }

    fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
        sink.bool(field, *self);
    }
}

/// An empty number or boolean counts as missing.
impl<'a, T: Field<'a> + NotText> Field<'a> for Option<T> {
    #[inline(always)]
    fn read(value: Option<&'a str>, field: &'static str) -> Result<Self, ExtError> {
        value.filter(|v| !v.is_empty()).map(|v| T::read(Some(v), field)).transpose()
    }

    fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
        self.iter().for_each(|value| value.write(field, sink));
    }
}

/// Types whose text is never empty.
pub trait NotText {}
impl NotText for i32 {}
impl NotText for i64 {}
impl NotText for bool {}

impl<'a> Field<'a> for Option<&'a str> {
    #[inline]
    fn read(value: Option<&'a str>, _field: &'static str) -> Result<Self, ExtError> {
        Ok(value)
    }

    fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
        self.iter().for_each(|value| value.write(field, sink));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_read_as_they_are_parsed(text in "[+-]?[0-9]{0,21}|[0-9]{1,3}.") {
            prop_assert_eq!(i32::read(Some(&text), "f").ok(), text.parse::<i32>().ok());
            prop_assert_eq!(i64::read(Some(&text), "f").ok(), text.parse::<i64>().ok());
        }
    }
}
