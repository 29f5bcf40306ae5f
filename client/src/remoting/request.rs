//! Requests on their way out.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringmq_protocol::command::Command;
use ringmq_protocol::header::{FLAG_ONEWAY, FLAG_RESPONSE};
use ringmq_protocol::headers::ExtHeader;
use ringmq_protocol::language::Language;
use ringmq_protocol::version;
use ringmq_protocol::writer::{HeaderWriter, Trailer};

use super::hook::{Fields, OutgoingRequest, RpcHook};

/// A request: code, header and body. It borrows its header, so that nothing is copied before it is encoded.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    /// Request code.
    pub code: i32,
    /// Its own header, if it has one.
    pub header: Option<&'a (dyn ExtHeader + Sync)>,
    /// Its body.
    pub body: Bytes,
}

impl<'a> Request<'a> {
    pub(crate) fn new(code: i32, header: &'a (dyn ExtHeader + Sync)) -> Request<'a> {
        Request { code, header: Some(header), body: Bytes::new() }
    }

    pub(crate) fn bodied(code: i32, body: impl Into<Bytes>) -> Request<'static> {
        Request { code, header: None, body: body.into() }
    }

    pub(crate) fn with_body(mut self, body: Bytes) -> Request<'a> {
        self.body = body;
        self
    }

    /// The frame up to its body.
    pub(super) fn head(&self, opaque: i32, oneway: bool) -> Bytes {
        self.write(opaque, oneway, |writer| {
            if let Some(header) = self.header {
                header.write_to(writer);
            }
        })
    }

    /// As [`Request::head`], with what hooks add.
    pub(super) fn hooked_head(
        &self,
        opaque: i32,
        oneway: bool,
        addr: &str,
        hooks: &[Arc<dyn RpcHook>],
    ) -> Bytes {
        let mut outgoing = OutgoingRequest { addr, code: self.code, body: &self.body, fields: Fields::new() };
        if let Some(header) = self.header {
            header.write_to(&mut outgoing.fields);
        }
        hooks.iter().for_each(|hook| hook.before_request(&mut outgoing));
        self.write(opaque, oneway, |writer| {
            outgoing.fields().for_each(|(name, value)| writer.ext_str(name, value));
        })
    }

    fn write(&self, opaque: i32, oneway: bool, fields: impl FnOnce(&mut HeaderWriter<'_>)) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        let mut writer = HeaderWriter::begin(&mut out, self.code);
        fields(&mut writer);
        let flag = if oneway { FLAG_ONEWAY } else { 0 };
        let trailer =
            Trailer { flag, language: Language::Rust, opaque, remark: None, version: version::CURRENT };
        writer.finish(&trailer, self.body.len());
        out.freeze()
    }
}

/// The frame of an answer up to its body.
pub(crate) fn response_head(mut response: Command, opaque: i32) -> Bytes {
    response.opaque = opaque;
    response.flag |= FLAG_RESPONSE;
    response.language = Language::Rust;
    let mut out = BytesMut::with_capacity(256);
    response.encode_json_head(&mut out, response.body.len());
    out.freeze()
}
