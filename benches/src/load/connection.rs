//! A non-blocking connection that buffers both ways.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::wire::Answer;

const FIRST_INPUT: usize = 64 * 1024;
/// Longest wait for the answer of a [`Connection::ask`].
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits for events; a signal that interrupts the wait (a process that goes on after a pause gets one) is no end.
pub fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> std::io::Result<()> {
    loop {
        match poll.poll(events, timeout) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// One connection. Requests are appended to [`Connection::output`] and leave with [`Connection::flush`].
pub struct Connection {
    stream: TcpStream,
    /// What is to be sent; bytes before `sent` are already.
    pub output: Vec<u8>,
    sent: usize,
    /// Received bytes are `input[parsed..filled]`.
    input: Vec<u8>,
    parsed: usize,
    filled: usize,
}

impl Connection {
    /// Connects, and has `poll` report under `token`.
    pub fn open(poll: &Poll, broker: SocketAddr, token: usize) -> anyhow::Result<Connection> {
        let stream =
            std::net::TcpStream::connect(broker).with_context(|| format!("connecting to {broker}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection::new(stream))
    }

    /// Over a stream that is registered already.
    pub fn new(stream: TcpStream) -> Connection {
        Connection { stream, output: Vec::new(), sent: 0, input: vec![0; FIRST_INPUT], parsed: 0, filled: 0 }
    }

    /// Sends one request over a connection of its own, waits for its answer, and returns what `read` makes of it.
    pub fn ask<T>(
        broker: SocketAddr,
        request: &[u8],
        read: impl FnOnce(&Answer<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut stream =
            std::net::TcpStream::connect(broker).with_context(|| format!("connecting to {broker}"))?;
        stream.set_read_timeout(Some(ASK_TIMEOUT))?;
        stream.write_all(request)?;
        let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(answer) = Answer::parse(&input)? {
                return read(&answer);
            }
            let count = stream.read(&mut chunk)?;
            anyhow::ensure!(count > 0, "the broker closed the connection");
            input.extend_from_slice(&chunk[..count]);
        }
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("writing to the broker"),
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once; false when nothing is there. An end of the stream is an error.
    pub fn fill(&mut self) -> anyhow::Result<bool> {
        self.make_room();
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => anyhow::bail!("the other side closed the connection"),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e).context("reading from the other side"),
        }
    }

    /// What was received and not yet consumed.
    pub fn received(&self) -> &[u8] {
        &self.input[self.parsed..self.filled]
    }

    /// Consumes the first `count` bytes of what was received.
    pub fn consume(&mut self, count: usize) {
        self.parsed += count;
        assert!(self.parsed <= self.filled, "consumed more than was received");
        if self.parsed == self.filled {
            (self.parsed, self.filled) = (0, 0);
        }
    }

    fn make_room(&mut self) {
        if self.filled < self.input.len() {
            return;
        }
        if self.parsed > 0 {
            self.input.copy_within(self.parsed..self.filled, 0);
            (self.parsed, self.filled) = (0, self.filled - self.parsed);
        } else {
            self.input.resize(2 * self.input.len(), 0);
        }
    }
}
