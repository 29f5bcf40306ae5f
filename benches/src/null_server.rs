//! A server that answers every send and every pull at once with a fixed result and stores nothing: what the machine,
//! the kernel's sockets and the load generator allow at best.

use std::collections::HashMap;
use std::net::SocketAddr;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::load::{Connection, wait};
use crate::wire::{GET_MAX_OFFSET, PULL_MESSAGE, Request, number_after, write_record};

const LISTENER: Token = Token(0);
/// Messages that a pull gets, and the bytes of their bodies.
const PULL_MESSAGES: usize = 32;
const PULL_BODY: usize = 1024;
/// Where its queues end: far beyond what a run reads.
const MAX_OFFSET: u64 = 1 << 40;

/// Serves until killed.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("null server on {}", listener.local_addr()?);
    let mut pulled = Vec::new();
    (0..PULL_MESSAGES).for_each(|_| write_record(PULL_BODY, &mut pulled));
    let (mut clients, mut next) = (HashMap::new(), 1);
    let mut events = Events::with_capacity(1024);
    loop {
        wait(&mut poll, &mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(next), interest)?;
                    // A client that has gone again already is no reason to end.
                    if stream.set_nodelay(true).is_ok() {
                        clients.insert(next, Connection::new(stream));
                    }
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&event.token().0)
                && serve_ready(client, &pulled).is_err()
            {
                clients.remove(&event.token().0);
            }
        }
    }
}

/// Answers what is there; an error once the connection is over.
fn serve_ready(client: &mut Connection, pulled: &[u8]) -> anyhow::Result<()> {
    while client.fill()? {
        let mut answers = std::mem::take(&mut client.output);
        while let Some(request) = Request::parse(client.received())? {
            answer(&request, pulled, &mut answers)?;
            let len = request.frame_len;
            client.consume(len);
        }
        client.output = answers;
        client.flush()?;
    }
    client.flush()
}

fn answer(request: &Request<'_>, pulled: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
    match request.code {
        PULL_MESSAGE => {
            let next = number_after(request.header, b"\"queueOffset\":\"")? as u64 + PULL_MESSAGES as u64;
            let fields = format!(
                "\"nextBeginOffset\":\"{next}\",\"minOffset\":\"0\",\"maxOffset\":\"{MAX_OFFSET}\",\
                 \"suggestWhichBrokerId\":\"0\""
            );
            write_answer(request.opaque, &fields, pulled, out);
        }
        GET_MAX_OFFSET => write_answer(request.opaque, &format!("\"offset\":\"{MAX_OFFSET}\""), &[], out),
        _ => {
            let fields = "\"queueId\":\"0\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\"DefaultRegion\",\
                          \"msgId\":\"7F00000100002A9F0000000000000000\",\"queueOffset\":\"0\"";
            write_answer(request.opaque, fields, &[], out);
        }
    }
    Ok(())
}

fn write_answer(opaque: i64, fields: &str, body: &[u8], out: &mut Vec<u8>) {
    let header = format!(
        "{{\"code\":0,\"extFields\":{{{fields}}},\"flag\":1,\"language\":\"JAVA\",\"opaque\":{opaque},\
         \"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}}"
    );
    out.extend_from_slice(&((4 + header.len() + body.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(body);
}
