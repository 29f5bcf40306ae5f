//! The client: what all producers and consumers of a process share.

mod heartbeat;
mod inbound;
mod lookup;
mod members;
mod namesrv;
mod offsets;
mod queue_locks;
mod replies;
pub(crate) mod route;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::{MessageQueue, TopicRouteData};
use ringmq_protocol::command::Command;
use ringmq_protocol::message_id::UniqueKeys;
use ringmq_protocol::names::NameError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use lookup::LookupError;
pub(crate) use members::{Member, TransactionCheck};
pub use namesrv::RouteError;
pub(crate) use replies::Awaited;

use crate::admin::Admin;
use crate::config::{ClientConfig, DEFAULT_INSTANCE};
use crate::consumer::{LitePullConsumerBuilder, PullConsumer, PushConsumerBuilder};
use crate::error::CallError;
use crate::producer::ProducerBuilder;
use crate::remoting::{INBOUND, Remoting, Request};
use crate::sync::lock;
use members::Members;
use namesrv::NameServers;
use replies::Replies;
use route::{Asking, Routes, TopicRoute};

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The list of name servers is empty.
    #[error("no name server is configured")]
    NoNameServer,
    /// The list of name servers could not be had.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// There is no way to any name server; this is the last one.
    #[error("no way to the name server {addr}: {source}")]
    NoNetwork {
        /// The name server.
        addr: String,
        /// What the network said.
        source: io::Error,
    },
}

impl ConnectError {
    /// Whether the same may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConnectError::NoNameServer => false,
            ConnectError::Lookup(error) => error.is_retryable(),
            ConnectError::NoNetwork { .. } => true,
        }
    }
}

/// Everything behind a [`Client`].
pub(crate) struct Instance {
    pub config: ClientConfig,
    pub client_id: String,
    pub local_ip: IpAddr,
    pub remoting: Remoting,
    pub routes: Routes,
    name_servers: NameServers,
    unique_keys: Mutex<UniqueKeys>,
    members: Members,
    replies: Replies,
    /// Brokers that were told about everybody who is here now, or could not be.
    introduced: Mutex<HashSet<Arc<str>>>,
    /// The subscriptions that brokers have, by the fingerprint of the heartbeat that brought them.
    fingerprints: Mutex<HashMap<Arc<str>, i32>>,
    /// These are not worth anything any more.
    untold: AtomicBool,
    /// Held while brokers are told who is here, and who leaves: a heartbeat must not bring back who has left.
    telling: tokio::sync::Mutex<()>,
    /// A heartbeat is wanted before its time.
    beat_soon: Arc<Notify>,
}

impl Instance {
    pub(crate) fn asking(&self) -> Asking<'_> {
        Asking {
            remoting: &self.remoting,
            name_servers: &self.name_servers,
            timeout: self.config.call_timeout,
        }
    }

    pub(crate) async fn route(&self, topic: &str) -> Result<Arc<TopicRoute>, RouteError> {
        self.routes.get(topic, self.asking()).await
    }

    /// Asks a name server.
    pub(crate) async fn ask_name_server(
        &self,
        request: &Request<'_>,
    ) -> Result<(Arc<str>, Command), RouteError> {
        self.name_servers.call(&self.remoting, request, self.config.call_timeout).await
    }

    /// The route of a topic as the name server has it now.
    pub(crate) async fn fresh_route(&self, topic: &str) -> Result<TopicRouteData, RouteError> {
        self.name_servers.route(&self.remoting, topic, self.config.call_timeout).await
    }

    /// Addresses of the name servers.
    pub(crate) fn name_servers(&self) -> Arc<[Arc<str>]> {
        self.name_servers.all()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.config.clock.now_ms()
    }

    /// A new message id.
    pub(crate) fn unique_key(&self) -> String {
        lock(&self.unique_keys).next(self.now_ms()).to_string()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        self.remoting.tasks()
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        self.remoting.stop()
    }

    /// Adds a producer. `checker` answers for its transactions.
    pub(crate) fn add_producer(&self, group: &str, checker: Option<Arc<dyn TransactionCheck>>) {
        self.members.add_producer(group, checker);
        lock(&self.introduced).clear();
        self.heartbeat_soon();
    }

    pub(crate) fn remove_producer(&self, group: &str) {
        self.members.remove_producer(group);
    }

    pub(crate) fn has_producer(&self, group: &str) -> bool {
        self.members.has_producer(group)
    }

    /// Adds a consumer; false when the group has one already.
    pub(crate) fn add_consumer(&self, group: &str, member: Arc<dyn Member>) -> bool {
        self.members.add_consumer(group, member)
    }

    /// Removes this consumer, and not another one that has taken its place.
    pub(crate) fn remove_consumer<M: Member>(&self, group: &str, member: &M) {
        self.members.remove_consumer(group, member);
    }

    /// Where messages to a queue are sent.
    pub(crate) async fn send_addr(&self, queue: &MessageQueue) -> Result<Arc<str>, CallError> {
        let addr = self.master_of(queue).await?;
        Ok(if self.config.vip_channel { vip(&addr) } else { addr })
    }

    /// The address of the queue's master; asks for the route once if it is not known.
    pub(crate) async fn master_of(&self, queue: &MessageQueue) -> Result<Arc<str>, CallError> {
        if let Some(addr) = self.routes.master(&queue.broker_name) {
            return Ok(addr);
        }
        if let Err(RouteError::Call(error)) = self.routes.refresh(&queue.topic, self.asking()).await {
            return Err(error);
        }
        self.routes.master(&queue.broker_name).ok_or_else(|| unknown_broker(&queue.broker_name))
    }

    /// Asks for all routes and forgets brokers that have gone.
    async fn poll_routes(&self) {
        self.routes.refresh_all(self.asking()).await;
        let brokers = self.routes.addrs(false);
        self.remoting.retain(|addr| {
            let broker =
                |broker: &Arc<str>| **broker == *addr || (self.config.vip_channel && *vip(broker) == *addr);
            self.name_servers.contains(addr) || brokers.iter().any(broker)
        });
    }
}

/// Runs `work` every `period` until the client stops, first after one period.
fn every<F>(instance: &Arc<Instance>, period: Duration, work: impl Fn(Arc<Instance>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, weak) = (instance.stop().clone(), Arc::downgrade(instance));
    instance.tasks().spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(instance) = weak.upgrade() else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = work(instance) => {}
            }
        }
    });
}

/// A client of a RocketMQ cluster: connections, routes and heartbeats, shared by the producers and consumers that are
/// made from it. Cloning gives another handle.
///
/// When the last handle, producer and consumer is dropped, everything stops at once; [`Client::shutdown`] also waits
/// until nothing runs any more.
#[derive(Clone)]
pub struct Client {
    pub(crate) instance: Arc<Instance>,
    _stop: Arc<StopOnDrop>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id()).finish_non_exhaustive()
    }
}

struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Client {
    /// Starts a client. Nothing is sent yet: brokers and name servers are spoken to when there is something to say.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// Cancel-safe: when it is dropped, there is no client.
    pub async fn connect(mut config: ClientConfig) -> Result<Client, ConnectError> {
        let lookup = config.name_server_lookup.clone().filter(|_| config.name_servers.is_empty());
        if let Some(url) = &lookup {
            config.name_servers = lookup::fetch(&*config.network, url, config.call_timeout).await?;
        }
        let name_servers = NameServers::new(&config.name_servers);
        let local_ip = local_ip(&config).await?;
        let (inbound, requests) = mpsc::channel(INBOUND);
        let stop = CancellationToken::new();
        let beat_soon = Arc::new(Notify::new());
        let remoting = Remoting::new(&config, inbound, beat_soon.clone(), TaskTracker::new(), stop.clone());
        let (poll, beat) = (config.route_poll_interval, config.heartbeat_interval);
        let instance = Arc::new(Instance {
            client_id: client_id(&config, local_ip),
            local_ip,
            remoting,
            routes: Routes::default(),
            name_servers,
            unique_keys: Mutex::new(UniqueKeys::new(key_ip(local_ip), std::process::id(), fastrand::u32(..))),
            members: Members::default(),
            replies: Replies::default(),
            introduced: Mutex::default(),
            fingerprints: Mutex::default(),
            untold: AtomicBool::new(false),
            telling: tokio::sync::Mutex::default(),
            beat_soon,
            config,
        });
        inbound::start(&instance, requests);
        every(&instance, poll, |instance| async move { instance.poll_routes().await });
        heartbeat::start(&instance, beat);
        if let Some(url) = lookup {
            lookup::start(&instance, url);
        }
        Ok(Client { instance, _stop: Arc::new(StopOnDrop(stop)) })
    }

    /// The id that brokers know this client by.
    pub fn id(&self) -> &str {
        &self.instance.client_id
    }

    /// Starts to build a producer of this group.
    pub fn producer(&self, group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), group.into())
    }

    /// Starts to build a consumer of this group, to which messages are pushed.
    pub fn push_consumer(&self, group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(self.clone(), group.into())
    }

    /// Starts to build a consumer of this group that is polled.
    pub fn lite_pull_consumer(&self, group: impl Into<String>) -> LitePullConsumerBuilder {
        LitePullConsumerBuilder::new(self.clone(), group.into())
    }

    /// Makes a consumer of this group whose every pull is the program's own.
    pub fn pull_consumer(&self, group: impl Into<String>) -> Result<PullConsumer, NameError> {
        PullConsumer::new(self.clone(), group.into())
    }

    /// Operations on the cluster: topics, offsets, queries.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Stops everything and returns when no task of the client runs any more. Shut consumers down first: what they
    /// have not committed is delivered again.
    ///
    /// Cancel-safe: when the future is dropped, what was begun goes on.
    pub async fn shutdown(&self) {
        self.instance.stop().cancel();
        self.instance.tasks().close();
        self.instance.tasks().wait().await;
    }
}

/// This machine's address on its way to the first name server that there is a way to. A name that takes longer to look
/// up than a connect may is passed over.
async fn local_ip(config: &ClientConfig) -> Result<IpAddr, ConnectError> {
    let mut failure = ConnectError::NoNameServer;
    for addr in &config.name_servers {
        let found = tokio::time::timeout(config.connect_timeout, config.network.local_ip(addr)).await;
        match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(local_ip) => return Ok(local_ip),
            Err(source) => failure = ConnectError::NoNetwork { addr: addr.to_owned(), source },
        }
    }
    Err(failure)
}

/// Java's `ip@instance[@unit]`.
fn client_id(config: &ClientConfig, local_ip: IpAddr) -> String {
    let instance = match config.instance_name.as_str() {
        DEFAULT_INSTANCE => format!("{}#{}", std::process::id(), fastrand::u64(..) >> 1),
        name => name.to_owned(),
    };
    match &config.unit_name {
        Some(unit) => format!("{local_ip}@{instance}@{unit}"),
        None => format!("{local_ip}@{instance}"),
    }
}

/// The address of a broker's VIP channel: two ports below.
fn vip(addr: &Arc<str>) -> Arc<str> {
    let parts = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if port > 2 => format!("{host}:{}", port - 2).into(),
        _ => addr.clone(),
    }
}

/// Message ids tell an IPv4 address, or an IPv6 address that has no other reading.
fn key_ip(local_ip: IpAddr) -> IpAddr {
    if local_ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { local_ip }
}

/// The error of a call to a broker that no route names.
pub(crate) fn unknown_broker(broker: &str) -> CallError {
    CallError::Connect { addr: broker.into(), reason: "no route names this broker".to_owned() }
}

#[cfg(test)]
mod tests;
