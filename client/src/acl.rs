//! Signing requests with an access key (Java's `AclClientRPCHook`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::remoting::{OutgoingRequest, RpcHook};

const ACCESS_KEY: &str = "AccessKey";
const SECURITY_TOKEN: &str = "SecurityToken";
const SIGNATURE: &str = "Signature";

/// An account of a broker that asks for one. A hook of [`crate::ClientConfig::rpc_hooks`] that signs every request with
/// HMAC-SHA1. The signature keeps nobody from reading or repeating a request: use TLS too.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
    security_token: Option<String>,
}

impl fmt::Debug for Credentials {
    /// The secret stays one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of a user.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Credentials {
        Credentials { access_key: access_key.into(), secret_key: secret_key.into(), security_token: None }
    }

    /// With the token of a temporary account.
    pub fn security_token(mut self, token: impl Into<String>) -> Credentials {
        self.security_token = Some(token.into());
        self
    }

    /// The values of all fields in the order of their names, and then the body, are signed.
    fn sign(&self, request: &OutgoingRequest<'_>) -> String {
        let sorted: BTreeMap<&str, &str> = request.fields().filter(|(name, _)| *name != SIGNATURE).collect();
        // HMAC takes keys of every length.
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret_key.as_bytes()).expect("a key of any length");
        sorted.values().for_each(|value| mac.update(value.as_bytes()));
        mac.update(request.body);
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl RpcHook for Credentials {
    fn before_request(&self, request: &mut OutgoingRequest<'_>) {
        request.set(ACCESS_KEY, &self.access_key);
        if let Some(token) = &self.security_token {
            request.set(SECURITY_TOKEN, token);
        }
        let signature = self.sign(request);
        request.set(SIGNATURE, signature);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::tests_support::outgoing;

    #[test]
    fn fields_are_signed_in_the_order_of_their_names() {
        let mut request = outgoing(&[("topic", "t"), ("a", "1")], b"body");
        Credentials::new("ak", "sk").before_request(&mut request);
        let fields: BTreeMap<_, _> = request.fields().collect();
        // AccessKey, a, topic: python's hmac.new(b"sk", b"ak1tbody", "sha1").
        assert_eq!(fields["Signature"], "we/2oo13T/3xpYoa41BWj5ua68Q=");
        assert_eq!(fields["AccessKey"], "ak");
        assert!(!format!("{:?}", Credentials::new("ak", "secret")).contains("secret"));
    }
}
