//! Producers that are online (RocketMQ's ProducerManager).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ringmq_env::Instant;
use ringmq_protocol::body::{ProducerConnection, ProducerInfo, ProducerTableInfo};
use rustc_hash::FxBuildHasher;

use super::consumers::describe_connection;
use super::{Client, Clock, ConnectionId, ConnectionIndex, Member};

/// The producer groups with at least one member.
#[derive(Default)]
pub struct ProducerTable {
    groups: HashMap<Arc<str>, BTreeMap<ConnectionId, Member>, FxBuildHasher>,
    connections: ConnectionIndex,
    /// The connection that each client was last heard on.
    clients: HashMap<Arc<str>, ConnectionId, FxBuildHasher>,
}

impl ProducerTable {
    /// Nobody is online.
    pub fn new() -> ProducerTable {
        ProducerTable::default()
    }

    /// Takes in what a heartbeat says of one group.
    pub fn register(&mut self, client: &Client, group: &str, clock: Clock) {
        let name = self.groups.get_key_value(group).map_or_else(|| group.into(), |(name, _)| name.clone());
        let members = self.groups.entry(name.clone()).or_default();
        let member = Member { client: client.clone(), heard: clock };
        self.clients.insert(client.client_id.clone(), client.connection);
        if members.insert(client.connection, member).is_none() {
            self.connections.add(client.connection, &name);
        }
    }

    /// Removes one member, if it is one.
    pub fn unregister(&mut self, group: &str, connection: ConnectionId) {
        let Some(members) = self.groups.get_mut(group) else { return };
        let Some(member) = members.remove(&connection) else { return };
        if members.is_empty() {
            self.groups.remove(group);
        }
        self.connections.remove(connection, group);
        let client_id = &member.client.client_id;
        let is_last = self.connections.groups(connection).is_empty();
        if is_last && self.clients.get(client_id) == Some(&connection) {
            self.clients.remove(client_id);
        }
    }

    /// The connection that a producer with this client id was last heard on (Java's findChannel).
    pub fn find(&self, client_id: &str) -> Option<ConnectionId> {
        self.clients.get(client_id).copied()
    }

    /// The connections of a group's members, in order.
    pub fn members(&self, group: &str) -> Vec<ConnectionId> {
        self.groups.get(group).map(|members| members.keys().copied().collect()).unwrap_or_default()
    }

    /// Removes the connection from every group that it is in.
    pub fn connection_closed(&mut self, connection: ConnectionId) {
        for group in self.connections.groups(connection) {
            self.unregister(&group, connection);
        }
    }

    /// The connections that have been silent for longer than `expiry`.
    pub fn silent(&self, now: Instant, expiry: Duration) -> BTreeSet<ConnectionId> {
        let members = self.groups.values().flatten();
        members
            .filter(|(_, member)| member.is_silent(now, expiry))
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// The answer of 204; `None` when nobody of the group is online.
    pub fn describe(&self, group: &str) -> Option<ProducerConnection> {
        let members = self.groups.get(group)?;
        Some(ProducerConnection { connection_set: members.values().map(describe_connection).collect() })
    }

    /// The answer of 328.
    pub fn describe_all(&self) -> ProducerTableInfo {
        let groups = self.groups.iter();
        let data = groups
            .map(|(name, members)| (name.to_string(), members.values().map(describe_producer).collect()));
        ProducerTableInfo { data: data.collect() }
    }
}

fn describe_producer(member: &Member) -> ProducerInfo {
    ProducerInfo {
        client_id: member.client.client_id.to_string(),
        // Java prints a socket address that was never a host name with a slash before it.
        remote_ip: format!("/{}", member.client.addr),
        language: member.client.language,
        version: member.client.version,
        last_update_timestamp: member.heard.wall_ms,
    }
}
