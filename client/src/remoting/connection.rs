//! One connection: requests are written in order by one task, answers are read by another and matched by opaque.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Frame, FrameError, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hook::RpcHook;
use super::request::{Request, response_head};
use crate::env::ByteStream;
use crate::error::CallError;
use crate::sync::lock;

/// Frames that wait for the writer; behind them callers wait within their deadlines.
const OUTBOX: usize = 1024;
/// Requests without an answer yet, as in Java's client.
const MAX_IN_FLIGHT: usize = 65_535;
/// How often it is looked whether a connection is idle.
const IDLE_LOOK: Duration = Duration::from_millis(100);
/// Bodies up to this size are copied next to their header, to go out in one write.
const COPY_LIMIT: usize = 32 << 10;
/// Room made for each read.
const READ_SIZE: usize = 16 << 10;
/// Frames written at once.
const WRITE_BATCH: usize = 64;

/// A request or a oneway message that the peer sent on its own.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub connection: Connection,
    pub command: Command,
}

type Answer = Result<Command, CallError>;

/// Calls that wait for their answers; none is added any more once the connection ended.
#[derive(Debug, Default)]
struct Pending {
    calls: HashMap<i32, oneshot::Sender<Answer>>,
    ended: Option<CallError>,
}

#[derive(Debug)]
struct Shared {
    addr: Arc<str>,
    outbox: mpsc::Sender<[Bytes; 2]>,
    pending: Mutex<Pending>,
    in_flight: Semaphore,
    next_opaque: AtomicI32,
    opened: Instant,
    /// One more than the ms since `opened` when bytes came last; 0 as long as none came.
    heard_ms: AtomicU64,
    hooks: Arc<[Arc<dyn RpcHook>]>,
    stop: CancellationToken,
}

/// A handle of a connection. The connection lives until it breaks, is closed, or its parent token is cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
}

/// What connections need of their owner.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub limits: Limits,
    pub hooks: Arc<[Arc<dyn RpcHook>]>,
    pub inbound: mpsc::Sender<Incoming>,
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// Takes the call out of the table when its future is dropped, answered or not.
struct Registered<'a> {
    shared: &'a Shared,
    opaque: i32,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(&self.shared.pending).calls.remove(&self.opaque);
    }
}

impl Connection {
    /// Starts the two tasks of a connection on an open stream.
    pub(crate) fn start(stream: Box<dyn ByteStream>, addr: Arc<str>, around: &Surroundings) -> Connection {
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let shared = Arc::new(Shared {
            addr,
            outbox,
            pending: Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            next_opaque: AtomicI32::new(0),
            opened: Instant::now(),
            heard_ms: AtomicU64::new(0),
            hooks: around.hooks.clone(),
            stop: around.stop.child_token(),
        });
        let connection = Connection { shared };
        let (read, write) = tokio::io::split(stream);
        around.tasks.spawn(connection.clone().run_writer(write, queue));
        around.tasks.spawn(connection.clone().run_reader(read, around.limits, around.inbound.clone()));
        connection
    }

    /// The peer.
    pub(crate) fn addr(&self) -> &Arc<str> {
        &self.shared.addr
    }

    /// Whether calls can only fail.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.stop.is_cancelled()
    }

    /// Whether it is this very connection.
    pub(crate) fn is_same(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Waits until no call is under way and nothing waits to be written, or the connection has ended.
    pub(crate) async fn idle(&self) {
        loop {
            tokio::time::sleep(IDLE_LOOK).await;
            let quiet =
                lock(&self.shared.pending).calls.is_empty() && self.shared.outbox.capacity() == OUTBOX;
            if quiet || self.is_closed() {
                return;
            }
        }
    }

    /// Ends the connection; calls in flight fail.
    pub(crate) fn close(&self, reason: &str) {
        self.end(CallError::Closed { addr: self.shared.addr.clone(), reason: reason.to_owned() });
    }

    fn end(&self, error: CallError) {
        let calls = {
            let mut pending = lock(&self.shared.pending);
            pending.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut pending.calls)
        };
        self.shared.stop.cancel();
        for (_, call) in calls {
            // A caller that has gone wants no answer.
            let _ = call.send(Err(error.clone()));
        }
    }

    /// Sends a request and waits for its answer, whatever its code. Dropping the future forgets the answer; the
    /// request may have gone out.
    pub(crate) async fn call(&self, request: &Request<'_>, deadline: Instant) -> Answer {
        let began = Instant::now();
        match timeout_at(deadline, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.timed_out(began, deadline)),
        }
    }

    async fn exchange(&self, request: &Request<'_>) -> Answer {
        let shared = &*self.shared;
        let _permit = shared.in_flight.acquire().await.map_err(|_| CallError::Shutdown)?;
        let opaque = shared.next_opaque.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut pending = lock(&shared.pending);
            if let Some(error) = &pending.ended {
                return Err(error.clone());
            }
            pending.calls.insert(opaque, sender);
        }
        let _registered = Registered { shared, opaque };
        self.put([self.head(request, opaque, false), request.body.clone()]).await?;
        answer.await.unwrap_or_else(|_| Err(self.broken("the answer was lost")))
    }

    fn head(&self, request: &Request<'_>, opaque: i32, oneway: bool) -> Bytes {
        match self.shared.hooks.is_empty() {
            true => request.head(opaque, oneway),
            false => request.hooked_head(opaque, oneway, &self.shared.addr, &self.shared.hooks),
        }
    }

    /// A peer that was silent for the whole time of a call is taken for dead: the next call gets a new connection.
    fn timed_out(&self, began: Instant, deadline: Instant) -> CallError {
        let shared = &*self.shared;
        let began_ms = began.saturating_duration_since(shared.opened).as_millis() as u64;
        if shared.heard_ms.load(Ordering::Relaxed) <= began_ms
            && deadline - began > Duration::from_millis(100)
        {
            self.close("it was silent for the time of a call");
        }
        CallError::Timeout { addr: shared.addr.clone(), after: deadline - began }
    }

    /// Sends a request that gets no answer; returns when the writer has taken it over.
    pub(crate) async fn oneway(&self, request: &Request<'_>, deadline: Instant) -> Result<(), CallError> {
        let began = Instant::now();
        let opaque = self.shared.next_opaque.fetch_add(1, Ordering::Relaxed);
        let parts = [self.head(request, opaque, true), request.body.clone()];
        match timeout_at(deadline, self.put(parts)).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out(began, deadline)),
        }
    }

    /// Answers a request of the peer.
    pub(crate) async fn respond(&self, opaque: i32, response: Command) -> Result<(), CallError> {
        let body = response.body.clone();
        self.put([response_head(response, opaque), body]).await
    }

    async fn put(&self, parts: [Bytes; 2]) -> Result<(), CallError> {
        self.shared.outbox.send(parts).await.map_err(|_| self.broken("it is closed"))
    }

    fn broken(&self, reason: &str) -> CallError {
        let ended = lock(&self.shared.pending).ended.clone();
        ended.unwrap_or_else(|| CallError::Closed {
            addr: self.shared.addr.clone(),
            reason: reason.to_owned(),
        })
    }

    async fn run_writer(
        self,
        mut write: WriteHalf<Box<dyn ByteStream>>,
        mut queue: mpsc::Receiver<[Bytes; 2]>,
    ) {
        let stop = self.shared.stop.clone();
        let work = async {
            let mut frames = Vec::with_capacity(WRITE_BATCH);
            let mut buf = BytesMut::new();
            while queue.recv_many(&mut frames, WRITE_BATCH).await > 0 {
                for part in frames.drain(..).flatten() {
                    if part.len() > COPY_LIMIT {
                        write.write_all(&buf).await?;
                        buf.clear();
                        write.write_all(&part).await?;
                    } else {
                        buf.extend_from_slice(&part);
                    }
                }
                write.write_all(&buf).await?;
                buf.clear();
                write.flush().await?;
            }
            Ok::<(), std::io::Error>(())
        };
        tokio::select! {
            result = work => {
                if let Err(error) = result {
                    self.close(&error.to_string());
                }
            }
            () = stop.cancelled() => {}
        }
        // The peer may be gone already, and then there is nothing to tell it.
        let _ = write.shutdown().await;
    }

    async fn run_reader(
        self,
        read: ReadHalf<Box<dyn ByteStream>>,
        limits: Limits,
        inbound: mpsc::Sender<Incoming>,
    ) {
        let stop = self.shared.stop.clone();
        tokio::select! {
            reason = self.read_frames(read, limits, &inbound) => self.close(&reason),
            () = stop.cancelled() => self.end(CallError::Shutdown),
        }
    }

    /// Reads until the connection breaks; returns why.
    async fn read_frames(
        &self,
        mut read: ReadHalf<Box<dyn ByteStream>>,
        limits: Limits,
        inbound: &mpsc::Sender<Incoming>,
    ) -> String {
        let mut buf = BytesMut::new();
        loop {
            match self.take_frames(&mut buf, &limits, inbound) {
                Ok(wanted) => buf.reserve(wanted.max(READ_SIZE)),
                Err(error) => return error.to_string(),
            }
            match read.read_buf(&mut buf).await {
                Ok(0) => return "the peer closed it".to_owned(),
                Ok(_) => {
                    let heard = self.shared.opened.elapsed().as_millis() as u64 + 1;
                    self.shared.heard_ms.store(heard, Ordering::Relaxed);
                }
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Takes every whole frame; returns how many bytes the next one lacks, as far as that is known.
    fn take_frames(
        &self,
        buf: &mut BytesMut,
        limits: &Limits,
        inbound: &mpsc::Sender<Incoming>,
    ) -> Result<usize, FrameError> {
        loop {
            match frame::peek(buf, limits)? {
                Some(size) if buf.len() >= size => {
                    let command = decode(buf.split_to(size), limits)?;
                    self.take(command, inbound);
                }
                Some(size) => return Ok(size - buf.len()),
                None => return Ok(0),
            }
        }
    }

    fn take(&self, command: Command, inbound: &mpsc::Sender<Incoming>) {
        if command.is_response() {
            let call = lock(&self.shared.pending).calls.remove(&command.opaque);
            if let Some(call) = call {
                // A caller that has gone wants no answer.
                let _ = call.send(Ok(command));
            }
            return;
        }
        let code = command.code;
        if inbound.try_send(Incoming { connection: self.clone(), command }).is_err() {
            tracing::warn!(target: "ringmq_client::remoting", addr = %self.shared.addr, code,
                "a request of the broker was dropped: too many wait");
        }
    }
}

/// Decodes a frame; the body stays in the memory that it was received in.
fn decode(mut frame: BytesMut, limits: &Limits) -> Result<Command, FrameError> {
    let Frame { header, body_at, .. } = Frame::parse(&mut frame, limits)?;
    let mut command = Command {
        code: header.code,
        language: header.language,
        version: header.version,
        opaque: header.opaque,
        flag: header.flag,
        remark: header.remark.map(str::to_owned),
        ext: header.ext.iter().map(|(n, v)| (n.to_owned().into(), v.to_owned())).collect(),
        body: Bytes::new(),
    };
    command.body = frame.freeze().slice(body_at..);
    Ok(command)
}
