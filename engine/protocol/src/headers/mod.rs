//! The requests' and responses' own headers, which travel as ext fields (part B): typed, borrowed from the frame.
//!
//! A field that Java marks mandatory and that is missing is an error; a field that Java reads as a default is an
//! `Option` or has that default.

mod admin;
mod broker;
mod client;
mod field;
mod message;
mod namesrv;
mod pop;
mod send;
mod transaction;

pub use admin::*;
pub use broker::*;
pub use client::*;
pub use field::{ExtError, Field};
pub use message::*;
pub use namesrv::*;
pub use pop::*;
pub use send::*;
pub use transaction::*;

use crate::header::ExtFields;
use crate::writer::FieldSink;

/// A header that is written as ext fields.
pub trait ExtHeader {
    /// Writes the fields, those that are `None` left out.
    fn write_to(&self, sink: &mut dyn FieldSink);
}

/// A header that is read from ext fields.
pub trait FromExt<'a>: Sized {
    /// Reads names and values; unknown ones are passed over, and when a name stands twice, the last one counts.
    fn from_fields(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, ExtError>;

    /// Reads the fields of a header that was received.
    fn from_ext(ext: &ExtFields<'a>) -> Result<Self, ExtError> {
        Self::from_fields(ext.iter())
    }
}

/// Declares a header: each field with its name on the wire and, behind `or`, what stands for a missing one.
macro_rules! ext_header {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$life:lifetime>)? {
            $($(#[$field_meta:meta])* pub $field:ident: $ty:ty = $wire:literal $(or $default:expr)?,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $(<$life>)? $crate::headers::ExtHeader for $name $(<$life>)? {
            fn write_to(&self, sink: &mut dyn $crate::writer::FieldSink) {
                $($crate::headers::Field::write(&self.$field, $wire, sink);)*
            }
        }

        $crate::headers::ext_header!(@read $name ($($life)?) {
            $($field = $wire $(or $default)?,)*
        });
    };
    (@read $name:ident ($life:lifetime) { $($field:ident = $wire:literal $(or $default:expr)?,)* }) => {
        impl<$life> $crate::headers::FromExt<$life> for $name<$life> {
            fn from_fields(
                fields: impl Iterator<Item = (&$life str, &$life str)>,
            ) -> Result<Self, $crate::headers::ExtError> {
                $crate::headers::ext_header!(@body fields { $($field = $wire $(or $default)?,)* })
            }
        }
    };
    (@read $name:ident () { $($field:ident = $wire:literal $(or $default:expr)?,)* }) => {
        impl<'a> $crate::headers::FromExt<'a> for $name {
            fn from_fields(
                fields: impl Iterator<Item = (&'a str, &'a str)>,
            ) -> Result<Self, $crate::headers::ExtError> {
                $crate::headers::ext_header!(@body fields { $($field = $wire $(or $default)?,)* })
            }
        }
    };
    (@body $fields:ident { $($field:ident = $wire:literal $(or $default:expr)?,)* }) => {{
        #[allow(non_camel_case_types)]
        enum Name { $($field,)* Unknown }
        // Bytes, not text, as patterns: by length and letter, instead of one comparison after the other.
        #[inline]
        #[allow(non_upper_case_globals)]
        fn name_of(bytes: &[u8]) -> Name {
            $(const $field: &[u8] = $wire.as_bytes();)*
            match bytes {
                $($field => Name::$field,)*
                _ => Name::Unknown,
            }
        }
        $(let mut $field = None;)*
        for (name, value) in $fields {
            match name_of(name.as_bytes()) {
                $(Name::$field => $field = Some(value),)*
                Name::Unknown => {}
            }
        }
        Ok(Self {
            $($field: $crate::headers::ext_header!(@value $field, $wire $(, $default)?),)*
        })
    }};
    (@value $field:ident, $wire:literal) => {
        $crate::headers::Field::read($field, $wire)?
    };
    (@value $field:ident, $wire:literal, $default:expr) => {
        <Option<_> as $crate::headers::Field>::read($field, $wire)?.unwrap_or($default)
    };
}
use ext_header;
