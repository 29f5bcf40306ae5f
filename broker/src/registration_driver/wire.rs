//! One connection to a name server: a request at a time, each with its answer.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_env::{Env, Stream, StreamCloser, StreamReader, StreamWriter};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, FrameError, Limits};

use super::watch::Watch;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Spare bytes that a read has at least.
const READ_BYTES: usize = 4096;

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The name has no address.
    #[error("{0} cannot be resolved: {1}")]
    Resolve(String, io::Error),
    /// Nobody answers at the address.
    #[error("{0} cannot be connected: {1}")]
    Connect(SocketAddr, io::Error),
    /// The request could not be written.
    #[error("the connection failed: {0}")]
    Write(io::Error),
    /// The connection ended before the answer.
    #[error("the connection was closed")]
    Closed,
    /// What came is no frame.
    #[error("it sent what is no answer: {0}")]
    Frame(#[from] FrameError),
    /// There was no answer in time.
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
}

/// What the reader task and the caller share.
struct Shared {
    /// The answer that came last.
    answer: RefCell<Option<Command>>,
    /// Why the connection ended, until somebody has asked.
    end: RefCell<Option<WireError>>,
    closed: Cell<bool>,
    /// The first request of those that wait for their answers; 0 when none does.
    waiting_for: Cell<i32>,
    timed_out: Cell<bool>,
    happened: Watch,
    closer: StreamCloser,
}

/// A connection that was made.
pub(super) struct Wire<E: Env> {
    env: E,
    writer: <E::Stream as Stream>::Writer,
    shared: Rc<Shared>,
    last_opaque: i32,
}

impl<E: Env> Wire<E> {
    /// Connects to the first of the server's addresses that answers. `noticed` is notified when the connection ends.
    pub async fn connect(env: &E, server: &str, noticed: Rc<Watch>) -> Result<Wire<E>, WireError> {
        let failed = |error| WireError::Resolve(server.to_owned(), error);
        let mut result = Err(failed(io::ErrorKind::NotFound.into()));
        for addr in env.resolve(server).await.map_err(failed)? {
            match env.connect(addr, CONNECT_TIMEOUT).await {
                Ok(stream) => return Ok(Wire::new(env, stream, noticed)),
                Err(error) => result = Err(WireError::Connect(addr, error)),
            }
        }
        result
    }

    fn new(env: &E, stream: E::Stream, noticed: Rc<Watch>) -> Wire<E> {
        let (reader, writer) = stream.into_split();
        let shared = Rc::new(Shared {
            answer: RefCell::default(),
            end: RefCell::default(),
            closed: Cell::default(),
            waiting_for: Cell::default(),
            timed_out: Cell::default(),
            happened: Watch::default(),
            closer: writer.closer(),
        });
        env.spawn(read_answers(reader, shared.clone(), noticed));
        Wire { env: env.clone(), writer, shared, last_opaque: 0 }
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }

    /// Sends requests, at least one, one after the other, until one of them is refused; returns the last answer. When
    /// the time for all of them is over the connection is closed, which ends the wait: nothing in flight is dropped.
    pub async fn call(
        &mut self,
        requests: impl IntoIterator<Item = Command>,
        timeout: Duration,
    ) -> Result<Command, WireError> {
        let call = self.last_opaque + 1;
        self.shared.waiting_for.set(call);
        self.env.spawn(end_in_time(self.env.clone(), timeout, self.shared.clone(), call));
        let result = self.exchange_all(requests).await;
        self.shared.waiting_for.set(0);
        match result {
            Err(_) if self.shared.timed_out.get() => Err(WireError::TimedOut(timeout)),
            other => other,
        }
    }

    async fn exchange_all(
        &mut self,
        requests: impl IntoIterator<Item = Command>,
    ) -> Result<Command, WireError> {
        let mut last = Err(WireError::Closed);
        for mut request in requests {
            self.last_opaque += 1;
            request.opaque = self.last_opaque;
            let answer = self.exchange(&request).await?;
            let is_refused = answer.code != response::SUCCESS;
            last = Ok(answer);
            if is_refused {
                break;
            }
        }
        last
    }

    async fn exchange(&mut self, request: &Command) -> Result<Command, WireError> {
        let mut head = BytesMut::new();
        request.encode_json_head(&mut head, request.body.len());
        let parts = [io::IoSlice::new(&head), io::IoSlice::new(&request.body)];
        self.writer.write_all(&parts).await.map_err(WireError::Write)?;
        loop {
            let version = self.shared.happened.version();
            let answer = self.shared.answer.borrow_mut().take();
            if let Some(answer) =
                answer.filter(|answer| answer.is_response() && answer.opaque == request.opaque)
            {
                return Ok(answer);
            }
            if self.is_closed() {
                return Err(self.shared.end.borrow_mut().take().unwrap_or(WireError::Closed));
            }
            self.shared.happened.changed_since(version).await;
        }
    }

    /// Ends the connection.
    pub fn close(self) {
        self.shared.closer.close();
    }
}

/// Ends the connection if a call's requests still wait when the time is over.
async fn end_in_time(env: impl Env, timeout: Duration, shared: Rc<Shared>, call: i32) {
    env.sleep(timeout).await;
    if shared.waiting_for.get() == call {
        shared.timed_out.set(true);
        shared.closer.close();
    }
}

async fn read_answers(mut reader: impl StreamReader, shared: Rc<Shared>, noticed: Rc<Watch>) {
    let limits = Limits::default();
    let mut input = BytesMut::new();
    let end = loop {
        match take_frame(&mut input, &limits) {
            Ok(Some(answer)) => {
                *shared.answer.borrow_mut() = Some(answer);
                shared.happened.notify();
                continue;
            }
            Ok(None) => {}
            Err(error) => break WireError::Frame(error),
        }
        input.reserve(READ_BYTES);
        if !matches!(reader.read(&mut input).await, Ok(1..)) {
            break WireError::Closed;
        }
    };
    *shared.end.borrow_mut() = Some(end);
    shared.closed.set(true);
    shared.happened.notify();
    shared.closer.close();
    noticed.notify();
}

fn take_frame(input: &mut BytesMut, limits: &Limits) -> Result<Option<Command>, FrameError> {
    match frame::peek(input, limits)? {
        Some(size) if size <= input.len() => Command::decode(&mut input.split_to(size), limits).map(Some),
        _ => Ok(None),
    }
}
