//! The list of name servers from an HTTP server (Java's `TopAddressing`).

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Instance, every};
use crate::env::Network;

/// How often the list is asked for, as in Java.
const INTERVAL: Duration = Duration::from_secs(120);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The URL is not `http://host[:port]/path`.
    #[error("{0} is not an address of the form http://host:port/path")]
    Url(String),
    /// The server could not be reached, or broke off.
    #[error("the address server does not answer: {0}")]
    Io(#[from] std::io::Error),
    /// It answered something else than a list.
    #[error("the address server answered: {0}")]
    Answer(String),
}

impl LookupError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, LookupError::Url(_))
    }
}

/// Asks for the list once.
pub(super) async fn fetch(
    network: &dyn Network,
    url: &str,
    timeout: Duration,
) -> Result<Vec<String>, LookupError> {
    let (authority, path) = parse(url).ok_or_else(|| LookupError::Url(url.to_owned()))?;
    let asking = async {
        let mut stream = network.connect(&authority).await?;
        // HTTP 1.0: the answer comes in one piece and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: text/plain\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(timeout, asking).await;
    let answer = answer.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    addresses(&String::from_utf8_lossy(&answer))
}

/// `host:port` and path.
fn parse(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    (!authority.starts_with(':')).then(|| (authority, format!("/{path}")))
}

fn addresses(answer: &str) -> Result<Vec<String>, LookupError> {
    let status = answer.lines().next().unwrap_or_default();
    let bad = || LookupError::Answer(status.to_owned());
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let list: Vec<String> =
        body.trim().split(';').map(str::trim).filter(|addr| !addr.is_empty()).map(str::to_owned).collect();
    let fine = status.split(' ').nth(1) == Some("200") && !list.is_empty();
    if fine { Ok(list) } else { Err(bad()) }
}

/// Keeps the client's list up to date.
pub(super) fn start(instance: &Arc<Instance>, url: String) {
    every(instance, INTERVAL, move |instance| {
        let url = url.clone();
        async move {
            let config = &instance.config;
            match fetch(&*config.network, &url, config.call_timeout).await {
                Ok(list) => instance.name_servers.replace(&list),
                Err(error) => {
                    tracing::warn!(target: "ringmq_client::route", %error, "the old name servers stay");
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::IpAddr;
    use std::sync::Mutex;

    use super::*;
    use crate::config::ClientConfig;
    use crate::env::{BoxFuture, ByteStream};
    use crate::sync::lock;
    use crate::{Client, ConnectError};

    /// An address server, and nothing else; without an answer it takes no connection.
    #[derive(Debug, Default)]
    struct AddressServer {
        answer: Mutex<Option<&'static str>>,
        asked: Mutex<Vec<String>>,
    }

    impl Network for AddressServer {
        fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
            Box::pin(async move {
                lock(&self.asked).push(addr.to_owned());
                let answer = lock(&self.answer).ok_or(io::ErrorKind::ConnectionRefused)?;
                let (ours, mut theirs) = tokio::io::duplex(4096);
                tokio::spawn(async move { theirs.write_all(answer.as_bytes()).await });
                Ok(Box::new(ours) as Box<dyn ByteStream>)
            })
        }

        fn local_ip<'a>(&'a self, _addr: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
            Box::pin(async { Ok(IpAddr::from([127, 0, 0, 1])) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_asked_for_every_two_minutes_and_stays_when_nobody_answers() {
        let server = Arc::new(AddressServer::default());
        let mut config = ClientConfig::new("");
        config.name_server_lookup = Some("http://addresses/list".to_owned());
        config.network = server.clone();
        let refused = Client::connect(config.clone()).await.unwrap_err();
        assert!(matches!(refused, ConnectError::Lookup(LookupError::Io(_))), "{refused}");

        *lock(&server.answer) = Some("HTTP/1.1 200 OK\r\n\r\na:1;b:1");
        let client = Client::connect(config).await.unwrap();
        let list = || {
            let mut list: Vec<_> = client.instance.name_servers().iter().map(ToString::to_string).collect();
            list.sort();
            list
        };
        assert_eq!(list(), ["a:1", "b:1"]);
        for (answer, expected) in [
            (Some("HTTP/1.1 200 OK\r\n\r\nb:1;c:1\n"), ["b:1", "c:1"]),
            (None, ["b:1", "c:1"]),
            (Some("HTTP/1.1 503 Busy\r\n\r\nx:1"), ["b:1", "c:1"]),
            (Some("HTTP/1.1 200 OK\r\n\r\nd:1;e:1"), ["d:1", "e:1"]),
        ] {
            *lock(&server.answer) = answer;
            tokio::time::sleep(INTERVAL + Duration::from_secs(1)).await;
            assert_eq!(list(), expected, "{answer:?}");
        }
        assert!(lock(&server.asked).iter().all(|addr| addr == "addresses:80"));
        client.shutdown().await;
    }

    #[test]
    fn urls_and_answers() {
        assert_eq!(parse("http://a:8080/x/y?z"), Some(("a:8080".into(), "/x/y?z".into())));
        assert_eq!(parse("http://a"), Some(("a:80".into(), "/".into())));
        assert_eq!(parse("https://a"), None);
        let list = addresses("HTTP/1.1 200 OK\r\nX: y\r\n\r\n1.2.3.4:9876; b:1\n").unwrap();
        assert_eq!(list, ["1.2.3.4:9876", "b:1"]);
        assert!(addresses("HTTP/1.1 404 Not Found\r\n\r\nno").is_err());
        assert!(addresses("HTTP/1.1 200 OK\r\n\r\n \n").is_err());
    }
}
