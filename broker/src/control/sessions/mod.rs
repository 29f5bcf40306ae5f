//! Who is connected: the members of consumer groups with what they subscribe to, and producers. Known from
//! heartbeats, forgotten when a connection ends, says so, or stays silent for too long. Core 0 owns both tables.

mod consumers;
mod producers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use ringmq_env::Instant;
use ringmq_filter::Filter;
use ringmq_protocol::body::{ConsumeType, MessageModel, SubscriptionData};
use ringmq_protocol::language::Language;
use rustc_hash::FxBuildHasher;

pub use consumers::{ConsumerTable, GroupLeft, Heard, Membership, Subscriptions};
pub use producers::ProducerTable;

/// A client's connection, as core 0 and the core that holds the socket both know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// The core that holds the socket.
    pub core: u16,
    /// Never used twice on that core.
    pub serial: u64,
}

/// The time, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic: what expiry goes by.
    pub now: Instant,
    /// Wall clock in ms since 1970: what users see.
    pub wall_ms: i64,
}

/// A client behind a connection, as its request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its connection.
    pub connection: ConnectionId,
    /// The name that it chose, unique among the members of a group.
    pub client_id: Arc<str>,
    /// The other end of the connection.
    pub addr: SocketAddr,
    /// What it is written in.
    pub language: Language,
    /// Its version's ordinal.
    pub version: i32,
}

/// What the members of a consumer group say about themselves: what a pull is checked against on every core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupView {
    /// Push, pull or POP, if they say so.
    pub consume_type: Option<ConsumeType>,
    /// Clustering or broadcasting, if they say so.
    pub message_model: Option<MessageModel>,
    /// What is subscribed to, by topic.
    pub subscriptions: BTreeMap<Arc<str>, Arc<SubscriptionData>>,
    /// The SQL92 expressions among them, compiled; an expression that is none is missing.
    pub filters: BTreeMap<Arc<str>, Arc<Filter>>,
    /// The client ids of the members of a group that broadcasts by push, by their connections; of other groups none.
    pub broadcasters: BTreeMap<ConnectionId, Arc<str>>,
}

/// One connection's membership.
#[derive(Clone, Debug)]
struct Member {
    client: Client,
    /// Time of the last heartbeat.
    heard: Clock,
}

impl Member {
    fn is_silent(&self, now: Instant, expiry: std::time::Duration) -> bool {
        now.since(self.heard.now) > expiry
    }
}

/// Which groups a connection is in, so that its end need not search them all.
#[derive(Default)]
struct ConnectionIndex(HashMap<ConnectionId, Vec<Arc<str>>, FxBuildHasher>);

impl ConnectionIndex {
    fn add(&mut self, connection: ConnectionId, group: &Arc<str>) {
        let groups = self.0.entry(connection).or_default();
        debug_assert!(!groups.contains(group), "a connection joins a group once");
        groups.push(group.clone());
    }

    fn remove(&mut self, connection: ConnectionId, group: &str) {
        if let Some(groups) = self.0.get_mut(&connection) {
            groups.retain(|name| **name != *group);
            if groups.is_empty() {
                self.0.remove(&connection);
            }
        }
    }

    fn groups(&self, connection: ConnectionId) -> Vec<Arc<str>> {
        self.0.get(&connection).cloned().unwrap_or_default()
    }
}
