//! Calls to brokers and name servers: one connection for each address, made when it is needed.

mod connection;
mod hook;
mod request;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::Limits;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use connection::{Connection, Incoming};
pub use hook::{Namespace, OutgoingRequest, RpcHook};
pub(crate) use request::Request;

use crate::config::ClientConfig;
use crate::env::{ByteStream, Network};
use crate::error::CallError;
use crate::metrics;
use crate::sync::lock;
use connection::Surroundings;

/// Requests of brokers that wait for the client.
pub(crate) const INBOUND: usize = 1024;
/// First pause behind a failed connect; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// How long calls have to end on a connection whose server goes away: longer than brokers hold a pull.
const RETIREMENT: Duration = Duration::from_secs(30);
/// Longest pause between two connects to an address.
const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// An address and its connection, if there is one.
#[derive(Debug, Default)]
struct Slot {
    current: Mutex<Option<Connection>>,
    /// Held by the one task that connects.
    connecting: tokio::sync::Mutex<Backoff>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    fn failed(&mut self) {
        let pause = MIN_BACKOFF.saturating_mul(1 << self.failures.min(8)).min(MAX_BACKOFF);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
    }
}

impl Slot {
    fn live(&self) -> Option<Connection> {
        lock(&self.current).clone().filter(|c| !c.is_closed())
    }
}

/// Every connection of a client.
#[derive(Debug)]
pub(crate) struct Remoting {
    network: Arc<dyn Network>,
    connect_timeout: Duration,
    slots: Mutex<HashMap<Arc<str>, Arc<Slot>>>,
    /// Told of each new connection: whoever is behind it may have forgotten this client.
    opened: Arc<Notify>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Tls>,
    around: Surroundings,
}

impl Remoting {
    /// `inbound` gets what brokers send on their own, `opened` is told of new connections, and `tasks` and `stop` are
    /// the client's.
    pub(crate) fn new(
        config: &ClientConfig,
        inbound: mpsc::Sender<Incoming>,
        opened: Arc<Notify>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Remoting {
        Remoting {
            network: config.network.clone(),
            connect_timeout: config.connect_timeout,
            slots: Mutex::default(),
            opened,
            #[cfg(feature = "tls")]
            tls: config.tls.clone(),
            around: Surroundings {
                limits: Limits::default(),
                hooks: config.rpc_hooks.clone().into(),
                inbound,
                tasks,
                stop,
            },
        }
    }

    /// Calls `addr` and waits for the answer, whatever its code. A server that is going away is called once more on
    /// a new connection; calls under way on the old one may end. Cancel-safe, but for what the peer may have done by then.
    pub(crate) async fn call(
        &self,
        addr: &str,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Command, CallError> {
        let (began, _in_flight) = (Instant::now(), metrics::in_flight());
        let answer = self.exchange(addr, request, began + timeout).await;
        metrics::called(request.code, began.elapsed(), answer.is_ok());
        answer
    }

    async fn exchange(
        &self,
        addr: &str,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Command, CallError> {
        let (answer, connection) = self.exchange_once(addr, request, deadline).await?;
        if answer.code != response::GO_AWAY {
            return Ok(answer);
        }
        self.retire(addr, connection);
        Ok(self.exchange_once(addr, request, deadline).await?.0)
    }

    /// Takes a connection out of use. What others have under way on it may end: the server said that it takes nothing
    /// new, not that it drops what it has.
    fn retire(&self, addr: &str, connection: Connection) {
        let (_, slot) = self.slot(addr);
        {
            let mut current = lock(&slot.current);
            if !current.as_ref().is_some_and(|now| now.is_same(&connection)) {
                return;
            }
            *current = None;
        }
        let stop = self.around.stop.clone();
        self.around.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(RETIREMENT, connection.idle()) => {
                    connection.close("the server asked to go away");
                }
            }
        });
    }

    async fn exchange_once(
        &self,
        addr: &str,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<(Command, Connection), CallError> {
        let connection = self.connection(addr, deadline).await?;
        let answer = connection.call(request, deadline).await?;
        self.around.hooks.iter().for_each(|hook| hook.after_response(addr, request.code, answer.code));
        Ok((answer, connection))
    }

    /// As [`Remoting::call`], with every code but SUCCESS an error.
    pub(crate) async fn call_ok(
        &self,
        addr: &str,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<Command, CallError> {
        let answer = self.call(addr, request, timeout).await?;
        if answer.code == response::SUCCESS { Ok(answer) } else { Err(refused(addr, answer)) }
    }

    /// Sends a request without an answer.
    pub(crate) async fn oneway(
        &self,
        addr: &str,
        request: &Request<'_>,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let deadline = Instant::now() + timeout;
        self.connection(addr, deadline).await?.oneway(request, deadline).await
    }

    /// Closes connections to addresses that `keep` does not name.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut gone = Vec::new();
        lock(&self.slots).retain(|addr, slot| {
            let kept = keep(addr);
            if !kept {
                gone.extend(slot.live());
            }
            kept
        });
        gone.iter().for_each(|connection| connection.close("no route names it any more"));
    }

    #[cfg(test)]
    pub(crate) fn is_connected(&self, addr: &str) -> bool {
        lock(&self.slots).get(addr).and_then(|slot| slot.live()).is_some()
    }

    /// Where the tasks of the client belong.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.around.tasks
    }

    /// Cancelled when the client shuts down.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.around.stop
    }

    async fn connection(&self, addr: &str, deadline: Instant) -> Result<Connection, CallError> {
        if self.around.stop.is_cancelled() {
            return Err(CallError::Shutdown);
        }
        let (addr, slot) = self.slot(addr);
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        let began = Instant::now();
        timeout_at(deadline, self.connect(&addr, &slot))
            .await
            .unwrap_or_else(|_| Err(CallError::Timeout { addr, after: deadline - began }))
    }

    fn slot(&self, addr: &str) -> (Arc<str>, Arc<Slot>) {
        let mut slots = lock(&self.slots);
        if let Some((addr, slot)) = slots.get_key_value(addr) {
            return (addr.clone(), slot.clone());
        }
        let (addr, slot) = (Arc::<str>::from(addr), Arc::<Slot>::default());
        slots.insert(addr.clone(), slot.clone());
        (addr, slot)
    }

    async fn open(&self, addr: &str) -> io::Result<Box<dyn ByteStream>> {
        let stream = self.network.connect(addr).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.wrap(addr, stream).await;
        }
        Ok(stream)
    }

    /// One task connects; the others wait for it, and then find its connection.
    async fn connect(&self, addr: &Arc<str>, slot: &Slot) -> Result<Connection, CallError> {
        let mut backoff = slot.connecting.lock().await;
        if let Some(connection) = slot.live() {
            return Ok(connection);
        }
        if let Some(not_before) = backoff.not_before {
            sleep_until(not_before).await;
        }
        let opening = tokio::time::timeout(self.connect_timeout, self.open(addr));
        let reason = match opening.await {
            Ok(Ok(stream)) => {
                *backoff = Backoff::default();
                let connection = Connection::start(stream, addr.clone(), &self.around);
                *lock(&slot.current) = Some(connection.clone());
                self.opened.notify_one();
                return Ok(connection);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {:?}", self.connect_timeout),
        };
        backoff.failed();
        Err(CallError::Connect { addr: addr.clone(), reason })
    }
}

/// The error that an answer stands for.
pub(crate) fn refused(addr: &str, answer: Command) -> CallError {
    CallError::Refused { addr: addr.into(), code: answer.code, remark: answer.remark.unwrap_or_default() }
}

/// The error of an answer that makes no sense.
pub(crate) fn bad_answer(addr: &str, reason: impl ToString) -> CallError {
    CallError::BadAnswer { addr: addr.into(), reason: reason.to_string() }
}

#[cfg(all(test, feature = "acl"))]
pub(crate) mod tests_support {
    use super::OutgoingRequest;

    /// A request with these fields.
    pub(crate) fn outgoing<'a>(fields: &[(&'static str, &str)], body: &'a [u8]) -> OutgoingRequest<'a> {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).to_owned())).collect();
        OutgoingRequest { addr: "b:1", code: 310, body, fields }
    }
}

#[cfg(test)]
mod tests;
