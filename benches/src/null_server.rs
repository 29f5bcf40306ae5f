//! A server that answers every send at once with a fixed result and stores nothing: what the machine, the kernel's
//! sockets and the load generator allow at best.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::wire;

const LISTENER: Token = Token(0);
const READ_CHUNK: usize = 256 * 1024;

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Serves until killed.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("null server on {}", listener.local_addr()?);
    let (mut clients, mut next) = (HashMap::new(), 1);
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(next), interest)?;
                    clients.insert(next, Client { stream, input: Vec::new(), output: Vec::new() });
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&event.token().0)
                && !client.serve_ready()
            {
                clients.remove(&event.token().0);
            }
        }
    }
}

impl Client {
    /// Answers what is there; false once the connection is over.
    fn serve_ready(&mut self) -> bool {
        loop {
            let at = self.input.len();
            self.input.resize(at + READ_CHUNK, 0);
            let read = self.stream.read(&mut self.input[at..]);
            self.input.truncate(at + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
            if self.answer_whole_frames().is_err() || !self.flush() {
                return false;
            }
        }
    }

    fn answer_whole_frames(&mut self) -> anyhow::Result<()> {
        let mut at = 0;
        while let Some(length) = self.input[at..].first_chunk::<4>() {
            let end = at + 4 + u32::from_be_bytes(*length) as usize;
            if end > self.input.len() {
                break;
            }
            let header_len =
                u32::from_be_bytes([0, self.input[at + 5], self.input[at + 6], self.input[at + 7]]);
            let header = self.input.get(at + 8..at + 8 + header_len as usize);
            let opaque = wire::request_opaque(header.unwrap_or_default())?;
            write_answer(opaque, &mut self.output);
            at = end;
        }
        self.input.drain(..at);
        Ok(())
    }

    fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

fn write_answer(opaque: i64, out: &mut Vec<u8>) {
    let header = format!(
        "{{\"code\":0,\"extFields\":{{\"queueId\":\"0\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\"DefaultRegion\",\
         \"msgId\":\"7F00000100002A9F0000000000000000\",\"queueOffset\":\"0\"}},\"flag\":1,\"language\":\"JAVA\",\
         \"opaque\":{opaque},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}}"
    );
    out.extend_from_slice(&((4 + header.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(header.len() as u32).to_be_bytes());
    out.extend_from_slice(header.as_bytes());
}
