//! TLS, by rustls.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use tokio_rustls::rustls::{
    self, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier,
};

use crate::env::ByteStream;

/// Why the TLS settings do not make sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Certificates or a key that cannot be read.
    #[error("not PEM: {0}")]
    Pem(#[from] pem::Error),
    /// What rustls says about them.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// No certificate to judge servers by.
    #[error("no root certificate is configured, and the system has none")]
    NoRoots,
    /// The name is no host name.
    #[error("{0} is no server name")]
    ServerName(String),
}

/// How connections are encrypted. All connections of a client are, those to name servers too.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Starts with no roots of one's own, no client certificate, and the server's name from its address.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::default()
    }

    /// With settings of rustls as they are.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Tls {
        Tls { config, server_name: None }
    }

    /// Encrypts a connection to `addr`, which is `host:port`.
    pub(crate) async fn wrap(
        &self,
        addr: &str,
        stream: Box<dyn ByteStream>,
    ) -> io::Result<Box<dyn ByteStream>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host(addr)).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

fn host(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::ServerName(host.to_owned()))
}

/// Builds [`Tls`]; nothing is checked before [`TlsBuilder::build`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct TlsBuilder {
    roots: Vec<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
    trust_everybody: bool,
}

impl TlsBuilder {
    /// Judges servers by these certificates (PEM), instead of the system's. May be called again for more.
    pub fn roots_pem(mut self, pem: impl Into<Vec<u8>>) -> TlsBuilder {
        self.roots.push(pem.into());
        self
    }

    /// Shows servers this certificate, with its chain, and its key (both PEM).
    pub fn client_pem(mut self, certificates: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> TlsBuilder {
        self.client = Some((certificates.into(), key.into()));
        self
    }

    /// Expects this name in every server's certificate, whatever its address.
    pub fn server_name(mut self, name: impl Into<String>) -> TlsBuilder {
        self.server_name = Some(name.into());
        self
    }

    /// Takes every certificate, as Java's client does by default (`tls.test.mode.enable`): nobody can listen, but
    /// everybody can pretend to be the server.
    pub fn trust_everybody(mut self) -> TlsBuilder {
        self.trust_everybody = true;
        self
    }

    /// Checks everything.
    pub fn build(self) -> Result<Tls, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match self.trust_everybody {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Everybody(provider))),
            false => builder.with_root_certificates(self.store()?),
        };
        let config = match &self.client {
            Some((certificates, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        let server_name = self.server_name.as_deref().map(server_name).transpose()?;
        Ok(Tls { config: Arc::new(config), server_name })
    }

    fn store(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        for pem in &self.roots {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                store.add(certificate?)?;
            }
        }
        if self.roots.is_empty() {
            // Some certificates of a system may be of no use to rustls; the others are.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
    }
}

/// Trusts every certificate; checks only that the server has its key.
#[derive(Debug)]
struct Everybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsAcceptor;

    /// A server with a certificate for "broker.test", behind a pipe, that sends one word.
    fn server() -> (Vec<u8>, Box<dyn ByteStream>) {
        let made = rcgen::generate_simple_self_signed(vec!["broker.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        tokio::spawn(async move {
            if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(theirs).await {
                let _ = stream.write_all(b"hello").await;
            }
        });
        (made.cert.pem().into_bytes(), Box::new(ours))
    }

    async fn word(tls: &Tls, addr: &str, stream: Box<dyn ByteStream>) -> io::Result<String> {
        let mut stream = tls.wrap(addr, stream).await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        Ok(String::from_utf8_lossy(&word).into_owned())
    }

    #[tokio::test]
    async fn servers_are_judged_by_roots_and_name() {
        let (pem, stream) = server();
        let tls = Tls::builder().roots_pem(pem).build().unwrap();
        assert_eq!(word(&tls, "broker.test:10911", stream).await.unwrap(), "hello");
        let (pem, stream) = server();
        let tls = Tls::builder().roots_pem(pem.clone()).build().unwrap();
        assert!(word(&tls, "127.0.0.1:10911", stream).await.is_err());
        let (pem, stream) = server();
        let tls = Tls::builder().roots_pem(pem).server_name("broker.test").build().unwrap();
        assert_eq!(word(&tls, "127.0.0.1:10911", stream).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn strangers_are_refused_unless_everybody_is_trusted() {
        let ((other, _), (_, stream)) = (server(), server());
        let tls = Tls::builder().roots_pem(other).server_name("broker.test").build().unwrap();
        assert!(word(&tls, "[::1]:1", stream).await.is_err());
        let (_, stream) = server();
        let tls = Tls::builder().trust_everybody().build().unwrap();
        assert_eq!(word(&tls, "[::1]:1", stream).await.unwrap(), "hello");
    }

    #[test]
    fn nonsense_is_told() {
        assert!(matches!(Tls::builder().roots_pem("no certificate").build(), Err(TlsError::NoRoots)));
        let builder = Tls::builder().trust_everybody();
        assert!(matches!(builder.clone().server_name("a b").build(), Err(TlsError::ServerName(_))));
        assert!(matches!(builder.client_pem("", "").build(), Err(TlsError::Pem(_))));
    }
}
