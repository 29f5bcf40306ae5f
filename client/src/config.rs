//! What a client is told when it starts.

use std::sync::Arc;
use std::time::Duration;

use crate::env::{Clock, Network, SystemClock, Tcp};
use crate::remoting::RpcHook;

/// Settings of a [`crate::Client`]; defaults are those of Java's `ClientConfig`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Addresses of the name servers, `host:port`. A host's name is looked up at each connect, and all its addresses
    /// are tried.
    pub name_servers: Vec<String>,
    /// Where the list is asked for when [`ClientConfig::name_servers`] is empty, and every two minutes then:
    /// `http://host:port/path`, whose answer is `addr;addr` (Java's `rocketmq.namesrv.domain`).
    pub name_server_lookup: Option<String>,
    /// Tells clients of one machine apart. "DEFAULT" stands for a name that no other process has; a broadcasting
    /// consumer's offsets are kept under the name as it is given here.
    pub instance_name: String,
    /// Further part of the client id.
    pub unit_name: Option<String>,
    /// Time limit of calls that have none of their own: routes, heartbeats, offsets, locks.
    pub call_timeout: Duration,
    /// Time limit of a connect.
    pub connect_timeout: Duration,
    /// How often the routes of all topics in use are asked for.
    pub route_poll_interval: Duration,
    /// How often brokers hear of this client.
    pub heartbeat_interval: Duration,
    /// Whether heartbeats leave subscriptions out that a broker has already (Java's `useHeartbeatV2`): not.
    pub heartbeat_v2: bool,
    /// Whether messages are sent to the port two below a broker's own (Java's VIP channel): not.
    pub vip_channel: bool,
    /// What is added to every request, in this order.
    pub rpc_hooks: Vec<Arc<dyn RpcHook>>,
    /// Encrypts all connections: none is.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::Tls>,
    /// Opens connections.
    pub network: Arc<dyn Network>,
    /// Tells the time of day.
    pub clock: Arc<dyn Clock>,
}

impl ClientConfig {
    /// Defaults with these name servers, `host:port` with `;` between them as Java writes them.
    pub fn new(name_servers: &str) -> ClientConfig {
        let list = name_servers.split(';').map(str::trim).filter(|addr| !addr.is_empty());
        ClientConfig {
            name_servers: list.map(str::to_owned).collect(),
            name_server_lookup: None,
            instance_name: DEFAULT_INSTANCE.to_owned(),
            unit_name: None,
            call_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            route_poll_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_v2: false,
            vip_channel: false,
            rpc_hooks: Vec::new(),
            #[cfg(feature = "tls")]
            tls: None,
            network: Arc::new(Tcp),
            clock: Arc::new(SystemClock),
        }
    }

    /// As [`ClientConfig::new`] with the name servers of the environment variable `NAMESRV_ADDR`.
    pub fn from_env() -> ClientConfig {
        ClientConfig::new(&std::env::var("NAMESRV_ADDR").unwrap_or_default())
    }
}

/// The instance name that stands for one of the process.
pub(crate) const DEFAULT_INSTANCE: &str = "DEFAULT";
