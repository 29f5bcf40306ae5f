//! The frame: `i32 length | u8 serialize type, u24 header length | header | body`.

use crate::header::{Header, HeaderError, SerializeType};
pub use crate::json_header::Forms;
use crate::{binary_header, json_header};

/// Bytes of the length field, which does not count itself.
pub const LENGTH_BYTES: usize = 4;
/// Bytes in front of the header.
pub const PREFIX_BYTES: usize = 8;

/// What a peer may send at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame with its length field.
    pub max_frame: usize,
    /// Bytes of a header.
    pub max_header: usize,
    /// Ext fields of a header.
    pub max_ext_fields: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_frame: 16 << 20, max_header: 64 << 10, max_ext_fields: 1024 }
    }
}

/// Why bytes are no frame. All of them end the connection, as in Java: the stream has lost its rhythm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is negative or does not even hold the header's length.
    #[error("the frame length {length} is below the minimum of 4")]
    TooShort {
        /// The length field.
        length: i32,
    },
    /// The frame is over the limit.
    #[error("the frame of {size} bytes is over the limit of {limit}")]
    TooLong {
        /// Bytes with the length field.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The header is over the limit.
    #[error("the header of {size} bytes is over the limit of {limit}")]
    HeaderTooLong {
        /// Bytes of the header.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The header is longer than the frame that holds it.
    #[error("the header of {header} bytes does not fit the frame of {frame}")]
    HeaderBeyondFrame {
        /// Bytes of the header.
        header: usize,
        /// Bytes of the frame with its length field.
        frame: usize,
    },
    /// Neither JSON nor ROCKETMQ.
    #[error("the header's serialize type {value} is neither 0 (JSON) nor 1 (ROCKETMQ)")]
    UnknownSerializeType {
        /// What was sent.
        value: u8,
    },
    /// Bytes given to [`Frame::parse`] that are not one whole frame.
    #[error("a frame of {expected} bytes was expected, {actual} were given")]
    NotWhole {
        /// Bytes of the frame by its length field.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// The header cannot be read.
    #[error("the header cannot be read: {0}")]
    Header(#[from] HeaderError),
}

/// Size of the frame at the start of `buf`, its length field included; `None` while too little has arrived to know.
///
/// The frame itself need not be there yet. Checks every limit as soon as the bytes that decide it are there, so that
/// an oversized frame is refused before it is buffered.
pub fn peek(buf: &[u8], limits: &Limits) -> Result<Option<usize>, FrameError> {
    let Some(length) = buf.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let size = usize::try_from(length).ok().filter(|l| *l >= 4).ok_or(FrameError::TooShort { length })?;
    let size = size + LENGTH_BYTES;
    if size > limits.max_frame {
        return Err(FrameError::TooLong { size, limit: limits.max_frame });
    }
    if let Some(mark) = buf.get(4..8) {
        header_mark([mark[0], mark[1], mark[2], mark[3]], size, limits)?;
    }
    Ok(Some(size))
}

/// Reads the second word: serialize type and header length.
fn header_mark(mark: [u8; 4], frame: usize, limits: &Limits) -> Result<(SerializeType, usize), FrameError> {
    let serialize =
        SerializeType::from_code(mark[0]).ok_or(FrameError::UnknownSerializeType { value: mark[0] })?;
    let header = u32::from_be_bytes([0, mark[1], mark[2], mark[3]]) as usize;
    if header > limits.max_header {
        return Err(FrameError::HeaderTooLong { size: header, limit: limits.max_header });
    }
    if header > frame - PREFIX_BYTES {
        return Err(FrameError::HeaderBeyondFrame { header, frame });
    }
    Ok((serialize, header))
}

/// A frame in the buffer that it was received in.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header<'a>,
    /// The body; a frame without one and a frame with an empty one look the same.
    pub body: &'a [u8],
    /// Where the body starts, from the start of the frame.
    pub body_at: usize,
}

impl<'a> Frame<'a> {
    /// Reads one whole frame (of the size that [`peek`] told). JSON strings are unescaped in place, so the header's
    /// bytes are of no other use afterwards; the body is left as it is.
    pub fn parse(frame: &'a mut [u8], limits: &Limits) -> Result<Frame<'a>, FrameError> {
        Frame::parse_by(frame, limits, None)
    }

    /// The same, for one who reads many frames: JSON headers that look like earlier ones are read in half the time, and
    /// nothing is allocated.
    pub fn parse_like(
        frame: &'a mut [u8],
        limits: &Limits,
        forms: &'a mut Forms,
    ) -> Result<Frame<'a>, FrameError> {
        Frame::parse_by(frame, limits, Some(forms))
    }

    fn parse_by(
        frame: &'a mut [u8],
        limits: &Limits,
        forms: Option<&'a mut Forms>,
    ) -> Result<Frame<'a>, FrameError> {
        let actual = frame.len();
        let expected = peek(frame, limits)?.unwrap_or(PREFIX_BYTES);
        let (Some(mark), true) = (frame.get(4..8), expected == actual) else {
            return Err(FrameError::NotWhole { expected, actual });
        };
        let (serialize, header_len) = header_mark([mark[0], mark[1], mark[2], mark[3]], actual, limits)?;
        let body_at = PREFIX_BYTES + header_len;
        let (head, body) = frame.split_at_mut(body_at);
        let head = &mut head[PREFIX_BYTES..];
        let header = match serialize {
            SerializeType::Json => json_header::parse(head, limits.max_ext_fields, forms)?,
            SerializeType::RocketMq => binary_header::parse(head, limits.max_ext_fields)?,
        };
        Ok(Frame { header, body, body_at })
    }
}
