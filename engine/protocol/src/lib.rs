//! RocketMQ's remoting protocol, sans-I/O: frames, headers, bodies and the stored record.
//!
//! A receiver calls [`frame::peek`] until a whole frame is there and [`frame::Frame::parse`] on its bytes; the
//! request's own header comes from `headers` by [`headers::FromExt`]. A sender uses [`command::Command`], or
//! [`writer::HeaderWriter`] where it is hot. Nothing here reads a clock, a file or a socket; no input panics.

pub mod batch;
mod binary_header;
pub mod body;
pub mod codes;
pub mod command;
pub mod crc;
pub mod frame;
pub mod header;
pub mod headers;
pub mod json;
mod json_header;
pub mod language;
mod marks;
pub mod message_id;
pub mod names;
pub mod properties;
pub mod record;
pub mod response;
pub mod text;
pub mod version;
pub mod writer;
