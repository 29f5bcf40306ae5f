//! The HTTP side: `GET /metrics` on a port of its own, one answer for each connection. Runs on core 0.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_env::{Env, Listener, Stream, StreamReader, StreamWriter};

use super::gather::gather;
use crate::core::Core;

/// Longest request, in bytes.
const MAX_REQUEST: usize = 8 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most connections at once; those beyond are closed.
const MAX_CONNECTIONS: usize = 16;
/// A connection that has not its answer by then is closed.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Not whole yet.
    More,
    /// The figures.
    Metrics { body: bool },
    /// Something else: status line and reason.
    Refused(&'static str, &'static str),
}

/// Answers scrapes until the listener is closed.
pub async fn serve<E: Env>(core: Rc<Core<E>>, listener: Rc<E::Listener>) {
    let open = Rc::new(Cell::new(0));
    while let Ok(stream) = listener.accept().await {
        if open.get() >= MAX_CONNECTIONS || core.is_stopping() {
            continue;
        }
        open.set(open.get() + 1);
        let (core, open) = (core.clone(), open.clone());
        core.env.clone().spawn(async move {
            if let Err(error) = answer(&core, stream).await {
                tracing::debug!(%error, "a scrape of the metrics failed");
            }
            open.set(open.get() - 1);
        });
    }
}

async fn answer<E: Env>(core: &Rc<Core<E>>, stream: E::Stream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (closer, env, done) = (writer.closer(), core.env.clone(), Rc::new(Cell::new(false)));
    let answered = done.clone();
    core.env.spawn(async move {
        env.sleep(TIME_LIMIT).await;
        if !answered.get() {
            closer.close();
        }
    });
    let asked = read_request(&mut reader).await?;
    let (status, body, with_body) = match asked {
        Asked::Metrics { body } => {
            let figures = gather(core).await;
            ("200 OK", figures.to_text(|| core.env.yield_now()).await, body)
        }
        Asked::Refused(status, reason) => (status, format!("{reason}\n"), true),
        Asked::More => return Ok(()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if with_body { body.as_bytes() } else { &[] };
    let sent = writer.write_all(&[io::IoSlice::new(head.as_bytes()), io::IoSlice::new(body)]).await;
    done.set(true);
    writer.closer().close();
    sent
}

/// Reads until the request's head is whole, is no HTTP, or the other end closes ([`Asked::More`]).
async fn read_request(reader: &mut impl StreamReader) -> io::Result<Asked> {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        buffer.reserve(1024);
        if reader.read(&mut buffer).await? == 0 {
            return Ok(Asked::More);
        }
        match understand(&buffer) {
            Asked::More if buffer.len() > MAX_REQUEST => {
                return Ok(Asked::Refused(
                    "431 Request Header Fields Too Large",
                    "a request has at most 8192 bytes",
                ));
            }
            Asked::More => {}
            asked => return Ok(asked),
        }
    }
}

fn understand(bytes: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Asked::More,
        Err(_) => Asked::Refused("400 Bad Request", "this is no HTTP request"),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            match (request.method.unwrap_or_default(), path) {
                ("GET", "/metrics") => Asked::Metrics { body: true },
                ("HEAD", "/metrics") => Asked::Metrics { body: false },
                (_, "/metrics") => {
                    Asked::Refused("405 Method Not Allowed", "the metrics are asked for with GET")
                }
                _ => Asked::Refused("404 Not Found", "the metrics are at /metrics"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> &'static str {
        match understand(request.as_bytes()) {
            Asked::Refused(status, _) => &status[..3],
            Asked::Metrics { .. } => "200",
            Asked::More => "",
        }
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), "200");
        assert_eq!(status("GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "200");
        assert_eq!(understand(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Asked::Metrics { body: false });
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost"), "");
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status("\0\0\0\u{1}\0"), "400");
        let many: String = (0..=MAX_HEADERS).map(|n| format!("h{n}: v\r\n")).collect();
        assert_eq!(status(&format!("GET /metrics HTTP/1.1\r\n{many}\r\n")), "400");
    }
}
