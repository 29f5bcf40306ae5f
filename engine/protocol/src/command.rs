//! Owned requests and responses, for all that is not on the hot path.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use crate::binary_header;
use crate::frame::{Frame, FrameError, Limits, PREFIX_BYTES};
use crate::header::{FLAG_ONEWAY, FLAG_RESPONSE, SerializeType};
use crate::headers::{ExtError, FromExt};
use crate::language::Language;
use crate::version;
use crate::writer::{FieldSink, HeaderWriter, Trailer, fill_prefix};

/// A request or a response with its own memory: Java's `RemotingCommand`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Request or response code.
    pub code: i32,
    /// The sender's language.
    pub language: Language,
    /// The sender's version ordinal.
    pub version: i32,
    /// Ties a response to its request.
    pub opaque: i32,
    /// See [`FLAG_RESPONSE`] and [`FLAG_ONEWAY`].
    pub flag: i32,
    /// Free text.
    pub remark: Option<String>,
    /// The fields of the request's own header, in the order of the wire.
    pub ext: Vec<(Cow<'static, str>, String)>,
    /// The body; empty when there is none.
    pub body: Bytes,
}

impl Command {
    /// A request from RingMQ that wants an answer.
    pub fn request(code: i32, opaque: i32) -> Command {
        Command { code, opaque, version: version::CURRENT, ..Command::default() }
    }

    /// A request that wants no answer.
    pub fn oneway(code: i32, opaque: i32) -> Command {
        Command { flag: FLAG_ONEWAY, ..Command::request(code, opaque) }
    }

    /// An answer from RingMQ.
    pub fn response(code: i32, opaque: i32) -> Command {
        Command { flag: FLAG_RESPONSE, ..Command::request(code, opaque) }
    }

    /// With a remark.
    pub fn with_remark(mut self, remark: impl Into<String>) -> Command {
        self.remark = Some(remark.into());
        self
    }

    /// With a body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Command {
        self.body = body.into();
        self
    }

    /// With one more ext field.
    pub fn with_ext(mut self, name: impl Into<Cow<'static, str>>, value: impl ToString) -> Command {
        self.ext.push((name.into(), value.to_string()));
        self
    }

    /// With the fields of a typed header behind those that are there.
    pub fn with_header(mut self, header: &impl crate::headers::ExtHeader) -> Command {
        header.write_to(&mut self.ext);
        self
    }

    /// The typed header in the ext fields.
    pub fn header<'a, H: FromExt<'a>>(&'a self) -> Result<H, ExtError> {
        H::from_fields(self.ext.iter().map(|(name, value)| (name.as_ref(), value.as_str())))
    }

    /// The value of an ext field; the last one when it stands twice.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.ext.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether this answers a request.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether the sender wants no answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Appends the whole frame with a JSON header. Panics as [`HeaderWriter::finish`] does.
    pub fn encode_json(&self, out: &mut BytesMut) {
        self.encode_json_head(out, self.body.len());
        out.put_slice(&self.body);
    }

    /// Appends prefix and JSON header for a body of `body_len` bytes that the caller sends right behind; the
    /// command's own body is not looked at.
    pub fn encode_json_head(&self, out: &mut BytesMut, body_len: usize) {
        let mut writer = HeaderWriter::begin(out, self.code);
        for (name, value) in &self.ext {
            writer.ext_str(name, value);
        }
        writer.finish(
            &Trailer {
                flag: self.flag,
                language: self.language,
                opaque: self.opaque,
                remark: self.remark.as_deref(),
                version: self.version,
            },
            body_len,
        );
    }

    /// Appends the whole frame with a ROCKETMQ header, in which codes above 32767 do not survive.
    pub fn encode_binary(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&[0; PREFIX_BYTES]);
        binary_header::write(self, out);
        fill_prefix(&mut out[start..], SerializeType::RocketMq, self.body.len());
        out.put_slice(&self.body);
    }

    /// Reads one whole frame into memory of its own; see [`Frame::parse`].
    pub fn decode(frame: &mut [u8], limits: &Limits) -> Result<Command, FrameError> {
        let Frame { header, body, .. } = Frame::parse(frame, limits)?;
        Ok(Command {
            code: header.code,
            language: header.language,
            version: header.version,
            opaque: header.opaque,
            flag: header.flag,
            remark: header.remark.map(str::to_owned),
            ext: header.ext.iter().map(|(n, v)| (Cow::Owned(n.to_owned()), v.to_owned())).collect(),
            body: Bytes::copy_from_slice(body),
        })
    }
}

impl FieldSink for Vec<(Cow<'static, str>, String)> {
    fn str(&mut self, name: &'static str, value: &str) {
        self.push((Cow::Borrowed(name), value.to_owned()));
    }

    fn int(&mut self, name: &'static str, value: i64) {
        self.push((Cow::Borrowed(name), value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::request;
    use crate::headers::UnregisterClientHeader;

    #[test]
    fn a_typed_header_goes_in_and_comes_out() {
        let header =
            UnregisterClientHeader { client_id: "c", producer_group: None, consumer_group: Some("g") };
        let command = Command::request(request::UNREGISTER_CLIENT, 1).with_header(&header);
        assert_eq!(command.header::<UnregisterClientHeader>(), Ok(header));
        let missing = Command::request(request::UNREGISTER_CLIENT, 1);
        let error = missing.header::<UnregisterClientHeader>().unwrap_err();
        assert_eq!(error, ExtError::Missing { field: "clientID" });
    }
}
