//! The running name server: accepts, serves, looks for silent brokers, saves the KV configuration.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_env::{Env, Instant, Listener, Stream, StreamWriter};
use ringmq_options::Settings;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Frame, Limits};

use crate::config::NamesrvConfig;
use crate::connection::{self, End, Open, Service};
use crate::kv::{KvChange, KvFile, KvFileError, KvTable};
use crate::processor::{Outcome, State};
use crate::routes::{ConnectionId, Departure};

/// KV changes that may wait for the disk; further ones hold their connection up.
const KV_QUEUE: usize = 256;
/// Longest time between two looks at idle connections and silent brokers.
const LONGEST_SCAN: Duration = Duration::from_secs(1);
/// Least time between two log lines about peers that do not speak the protocol.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Why a name server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The KV configuration cannot be read.
    #[error(transparent)]
    Kv(#[from] KvFileError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the kernel said.
        error: std::io::Error,
    },
}

/// A KV change on its way to the disk, and where to tell what became of it.
struct KvJob {
    change: KvChange,
    done: flume::Sender<Result<(), String>>,
}

struct Shared<E: Env> {
    env: E,
    config: NamesrvConfig,
    limits: Limits,
    state: Rc<RefCell<State>>,
    connections: RefCell<HashMap<ConnectionId, Rc<Open>>>,
    last_id: Cell<u64>,
    kv_jobs: flume::Sender<KvJob>,
    /// KV changes that are not answered yet.
    unanswered: Cell<usize>,
    stopping: Cell<bool>,
    complaints: Complaints,
}

/// A running name server; lives on the core that started it. Cheap to clone.
pub struct Namesrv<E: Env> {
    shared: Rc<Shared<E>>,
    listener: Rc<E::Listener>,
}

impl<E: Env> Clone for Namesrv<E> {
    fn clone(&self) -> Namesrv<E> {
        Namesrv { shared: Rc::clone(&self.shared), listener: Rc::clone(&self.listener) }
    }
}

impl<E: Env> Namesrv<E> {
    /// Reads the KV configuration and listens. When this returns, brokers and clients are served.
    pub async fn start(env: E, config: NamesrvConfig, settings: Settings) -> Result<Namesrv<E>, StartError> {
        let file = KvFile::open(env.clone(), &config.data).await?;
        let kv = file.load().await?;
        let listener = env.listen(config.listen).await;
        let listener = listener.map_err(|error| StartError::Listen { addr: config.listen, error })?;
        let state = Rc::new(RefCell::new(State::new(settings, kv)));
        let (kv_jobs, jobs) = flume::bounded(KV_QUEUE);
        env.spawn(save_changes(file, Rc::clone(&state), jobs));
        let shared = Rc::new(Shared {
            limits: Limits {
                max_frame: config.max_frame_size,
                max_header: config.max_header_size,
                ..Limits::default()
            },
            env: env.clone(),
            config,
            state,
            connections: RefCell::default(),
            last_id: Cell::new(0),
            kv_jobs,
            unanswered: Cell::new(0),
            stopping: Cell::new(false),
            complaints: Complaints::default(),
        });
        let namesrv = Namesrv { shared, listener: Rc::new(listener) };
        env.spawn(accept(Rc::clone(&namesrv.shared), Rc::clone(&namesrv.listener)));
        env.spawn(scan(Rc::clone(&namesrv.shared)));
        Ok(namesrv)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Stops accepting, waits until what was asked of the KV configuration is durable, and closes every
    /// connection. Tasks of this server may still end behind it.
    pub async fn stop(&self) {
        self.shared.stopping.set(true);
        self.listener.close();
        while self.shared.unanswered.get() > 0 {
            self.shared.env.sleep(Duration::from_millis(1)).await;
        }
        for open in self.shared.connections.borrow().values() {
            open.closer.close();
        }
    }
}

async fn accept<E: Env>(shared: Rc<Shared<E>>, listener: Rc<E::Listener>) {
    while let Ok(stream) = listener.accept().await {
        if shared.connections.borrow().len() >= shared.config.max_connections {
            shared.complaints.tell(&shared.env, stream.peer_addr(), &"there are too many connections");
            continue;
        }
        shared.env.spawn(serve(Rc::clone(&shared), stream));
    }
}

async fn serve<E: Env>(shared: Rc<Shared<E>>, stream: E::Stream) {
    let peer = stream.peer_addr();
    let id = ConnectionId(shared.last_id.get() + 1);
    shared.last_id.set(id.0);
    let (reader, writer) = stream.into_split();
    let open = Rc::new(Open { closer: writer.closer(), last: Cell::new(shared.env.now()) });
    shared.connections.borrow_mut().insert(id, Rc::clone(&open));
    let service = Connection { shared: Rc::clone(&shared), id, open };
    let end = connection::serve(reader, writer, &service, &shared.limits).await;
    shared.connections.borrow_mut().remove(&id);
    if let End::Frame(error) = &end {
        shared.complaints.tell(&shared.env, peer, error);
    }
    tracing::debug!(%peer, %end, "connection ended");
    let gone = shared.state.borrow().tables.registered_over(id);
    shared.unregister(&gone, "its connection is closed");
}

/// Requests of one connection.
struct Connection<E: Env> {
    shared: Rc<Shared<E>>,
    id: ConnectionId,
    open: Rc<Open>,
}

impl<E: Env> Service for Connection<E> {
    async fn answer(&self, frame: &Frame<'_>, out: &mut BytesMut) {
        if frame.header.is_response() {
            return;
        }
        let outcome = self.shared.state.borrow_mut().process(frame, self.id, self.shared.env.now());
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Change(change) => self.shared.change(change, frame.header.opaque).await,
        };
        if !frame.header.is_oneway() {
            answer.encode_json(out);
        }
    }

    fn alive(&self) {
        self.open.last.set(self.shared.env.now());
    }
}

impl<E: Env> Shared<E> {
    /// Answers a KV change once it is durable.
    async fn change(&self, change: KvChange, opaque: i32) -> Command {
        let (done, outcome) = flume::bounded(1);
        self.unanswered.set(self.unanswered.get() + 1);
        let result = match self.kv_jobs.send_async(KvJob { change, done }).await {
            Ok(()) => outcome.recv_async().await,
            Err(_) => Err(flume::RecvError::Disconnected),
        };
        self.unanswered.set(self.unanswered.get() - 1);
        match result {
            Ok(Ok(())) => Command::response(response::SUCCESS, opaque),
            Ok(Err(error)) => Command::response(response::SYSTEM_ERROR, opaque).with_remark(error),
            Err(_) => Command::response(response::SYSTEM_ERROR, opaque).with_remark("shutting down"),
        }
    }

    fn unregister(&self, gone: &[Departure], reason: &'static str) {
        for departure in gone {
            tracing::info!(broker = %departure.broker_name, addr = %departure.addr, reason, "broker is gone");
            self.state.borrow_mut().tables.unregister(departure);
        }
    }

    fn close_idle(&self, now: Instant) {
        for open in self.connections.borrow().values() {
            if now.since(open.last.get()) > self.config.idle_timeout {
                open.closer.close();
            }
        }
    }
}

/// Looks for silent brokers at the interval of the options, and for idle connections at least every second.
async fn scan<E: Env>(shared: Rc<Shared<E>>) {
    let mut last_scan = shared.env.now();
    while !shared.stopping.get() {
        let interval = shared.state.borrow().settings.duration("broker-scan-interval");
        shared.env.sleep(interval.min(LONGEST_SCAN)).await;
        let now = shared.env.now();
        shared.close_idle(now);
        if now.since(last_scan) >= interval {
            last_scan = now;
            let silent = shared.state.borrow().tables.silent(now);
            shared.unregister(&silent, "it has been silent for too long");
        }
    }
}

/// Makes changes durable one file at a time, and visible after that. Ends with the last sender.
async fn save_changes<E: Env>(file: KvFile<E>, state: Rc<RefCell<State>>, jobs: flume::Receiver<KvJob>) {
    while let Ok(first) = jobs.recv_async().await {
        let jobs: Vec<KvJob> = std::iter::once(first).chain(jobs.try_iter().take(KV_QUEUE)).collect();
        let mut next: KvTable = state.borrow().kv.clone();
        jobs.iter().for_each(|job| next.apply(&job.change));
        let saved = file.save(&next).await.map_err(|error| error.to_string());
        match &saved {
            Ok(()) => state.borrow_mut().kv = next,
            Err(error) => tracing::error!(%error, "the KV configuration could not be saved"),
        }
        for job in jobs {
            // A connection that is gone no longer waits for its answer.
            let _ = job.done.send(saved.clone());
        }
    }
}

/// A log line about bad peers, at most one in a while, with the number of those left out.
#[derive(Debug, Default)]
struct Complaints {
    last: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Complaints {
    fn tell(&self, env: &impl Env, peer: SocketAddr, reason: &dyn std::fmt::Display) {
        let now = env.now();
        if self.last.get().is_some_and(|last| now.since(last) < COMPLAINT_INTERVAL) {
            self.left_out.set(self.left_out.get() + 1);
            return;
        }
        self.last.set(Some(now));
        let left_out = self.left_out.take();
        tracing::warn!(%peer, %reason, left_out, "connection refused");
    }
}

#[cfg(test)]
mod tests;
