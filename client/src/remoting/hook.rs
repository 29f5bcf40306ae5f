//! What a program adds to every request (Java's `RPCHook`).

use std::borrow::Cow;
use std::fmt;

/// Looks at requests on their way out, and at their answers.
pub trait RpcHook: fmt::Debug + Send + Sync {
    /// Called before a request is encoded. May add fields; everything else stands.
    fn before_request(&self, request: &mut OutgoingRequest<'_>);

    /// Called when an answer came, with the codes of the request and of the answer.
    fn after_response(&self, addr: &str, request_code: i32, response_code: i32) {
        let _ = (addr, request_code, response_code);
    }
}

/// Ext fields, by name.
pub(super) type Fields = Vec<(Cow<'static, str>, String)>;

/// A request on its way out.
#[derive(Debug)]
pub struct OutgoingRequest<'a> {
    /// Who gets it.
    pub addr: &'a str,
    /// Request code.
    pub code: i32,
    /// Its body.
    pub body: &'a [u8],
    pub(super) fields: Fields,
}

impl OutgoingRequest<'_> {
    /// Its fields, in no order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// Sets a field.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.fields.retain(|(present, _)| present != name);
        self.fields.push((Cow::Borrowed(name), value.into()));
    }
}

/// Puts every request into a namespace of a proxy (Java's `namespaceV2`). Names of topics and groups stay as they are.
#[derive(Clone, Debug)]
pub struct Namespace(pub String);

impl RpcHook for Namespace {
    fn before_request(&self, request: &mut OutgoingRequest<'_>) {
        request.set("nsd", "true");
        request.set("ns", &self.0);
    }
}
