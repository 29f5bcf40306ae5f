//! The body of SEND_BATCH_MESSAGE (320): small messages back to back.

/// Bytes of a message beside its body and its properties.
const FIXED_LEN: usize = 5 * 4 + 2;

/// Why a batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// A message ends in the middle of a field.
    #[error("message {index} of the batch ends in the middle of {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// Which message.
        index: usize,
        /// The field.
        field: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A length is negative.
    #[error("message {index} of the batch has the negative length {value} of {field}")]
    NegativeLength {
        /// Which message.
        index: usize,
        /// The field.
        field: &'static str,
        /// The length.
        value: i32,
    },
    /// The fields do not fill the message's size.
    #[error("message {index} of the batch says {stated} bytes, its fields take {actual}")]
    SizeMismatch {
        /// Which message.
        index: usize,
        /// By the size field.
        stated: usize,
        /// By the fields.
        actual: usize,
    },
    /// The properties are not UTF-8.
    #[error("the properties of message {index} of the batch are not UTF-8")]
    NotUtf8 {
        /// Which message.
        index: usize,
    },
    /// There are too many messages.
    #[error("the batch has more messages than the limit of {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The body is empty.
    #[error("the batch has no message")]
    Empty,
}

/// One message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The producer's own flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// Encoded properties.
    pub properties: &'a str,
}

impl BatchMessage<'_> {
    /// Appends the message to a batch's body. Panics when the body is over 2 GiB or the properties over 32767 bytes,
    /// which no broker takes.
    pub fn write(&self, out: &mut bytes::BytesMut) {
        use bytes::BufMut;
        let size = FIXED_LEN + self.body.len() + self.properties.len();
        assert!(size <= i32::MAX as usize && self.properties.len() <= crate::properties::MAX_LEN);
        out.put_i32(size as i32);
        out.put_i32(0); // magic number, unused
        out.put_i32(0); // CRC, unused
        out.put_i32(self.flag);
        out.put_i32(self.body.len() as i32);
        out.put_slice(self.body);
        out.put_i16(self.properties.len() as i16);
        out.put_slice(self.properties.as_bytes());
    }
}

/// The messages of a batch, in order; ends behind the first error.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    rest: &'a [u8],
    index: usize,
    limit: usize,
}

impl<'a> Batch<'a> {
    /// Of a request's body; more than `limit` messages are an error, and so is none.
    pub fn new(body: &'a [u8], limit: usize) -> Result<Batch<'a>, BatchError> {
        if body.is_empty() {
            return Err(BatchError::Empty);
        }
        Ok(Batch { rest: body, index: 0, limit })
    }

    fn message(&mut self) -> Result<BatchMessage<'a>, BatchError> {
        if self.index == self.limit {
            return Err(BatchError::TooMany { limit: self.limit });
        }
        let all = self.rest;
        let stated = self.len("the size")?;
        self.take("the unused fields", 8)?;
        let flag = self.i32("the flag")?;
        let body_len = self.len("the body's length")?;
        let body = self.take("the body", body_len)?;
        let properties_len = i16::from_be_bytes(self.array("the properties' length")?);
        let properties_len = self.not_negative("the properties", i32::from(properties_len))?;
        let properties = self.take("the properties", properties_len)?;
        let actual = all.len() - self.rest.len();
        let index = self.index;
        if stated != actual {
            return Err(BatchError::SizeMismatch { index, stated, actual });
        }
        let properties = std::str::from_utf8(properties).map_err(|_| BatchError::NotUtf8 { index })?;
        self.index += 1;
        Ok(BatchMessage { flag, body, properties })
    }

    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], BatchError> {
        let index = self.index;
        let left = self.rest.len();
        let (taken, rest) =
            self.rest.split_at_checked(needed).ok_or(BatchError::Truncated { index, field, needed, left })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BatchError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, BatchError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    fn len(&mut self, field: &'static str) -> Result<usize, BatchError> {
        let value = self.i32(field)?;
        self.not_negative(field, value)
    }

    fn not_negative(&self, field: &'static str, value: i32) -> Result<usize, BatchError> {
        usize::try_from(value).map_err(|_| BatchError::NegativeLength { index: self.index, field, value })
    }
}

impl<'a> Iterator for Batch<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.message();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}
