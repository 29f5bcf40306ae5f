//! Consumer groups that are online (RocketMQ's ConsumerManager).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ringmq_env::Instant;
use ringmq_filter::Filter;
use ringmq_protocol::body::{
    Connection, ConsumeFromWhere, ConsumeType, ConsumerConnection, MessageModel, SubscriptionData,
};
use rustc_hash::FxBuildHasher;

use crate::message_filter::SQL92;

use super::{Client, Clock, ConnectionId, ConnectionIndex, GroupView, Member};

/// What a heartbeat says of one consumer group.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The group.
    pub group: Arc<str>,
    /// Push, pull or POP.
    pub consume_type: Option<ConsumeType>,
    /// Clustering or broadcasting.
    pub message_model: Option<MessageModel>,
    /// Where a new group starts.
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// What the client subscribes to.
    pub subscriptions: Subscriptions,
    /// Hash of the subscriptions (heartbeat v2), else 0.
    pub fingerprint: i32,
}

/// The subscriptions of a heartbeat.
#[derive(Clone, Debug)]
pub enum Subscriptions {
    /// All of them: what is not among them is no longer subscribed to.
    Whole(Vec<SubscriptionData>),
    /// The same as last time (heartbeat v2).
    Unchanged,
}

/// What a heartbeat changed in one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// A member joined, or the set of topics changed: the members have to share the queues out anew.
    pub rebalance: bool,
    /// What the other cores must know now, if it is not what they know.
    pub view: Option<Arc<GroupView>>,
    /// The client has to send its subscriptions in full: this broker does not have the ones that it means.
    pub subscriptions_wanted: bool,
}

struct Group {
    members: BTreeMap<ConnectionId, Member>,
    consume_from_where: Option<ConsumeFromWhere>,
    view: Arc<GroupView>,
    /// Fingerprint of the last heartbeat, of whichever member.
    fingerprint: i32,
}

/// The consumer groups with at least one member.
pub struct ConsumerTable {
    groups: HashMap<Arc<str>, Group, FxBuildHasher>,
    connections: ConnectionIndex,
}

impl ConsumerTable {
    /// Nobody is online.
    pub fn new() -> ConsumerTable {
        ConsumerTable { groups: HashMap::default(), connections: ConnectionIndex::default() }
    }

    /// Takes in what a heartbeat says of one group.
    pub fn register(&mut self, client: &Client, membership: Membership, clock: Clock) -> Heard {
        let Membership {
            group: name,
            consume_type,
            message_model,
            consume_from_where,
            subscriptions,
            fingerprint,
        } = membership;
        let known = self.groups.get(&name).map(|group| group.fingerprint);
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group {
            members: BTreeMap::new(),
            consume_from_where,
            view: Arc::default(),
            fingerprint,
        });
        group.fingerprint = fingerprint;
        group.consume_from_where = consume_from_where;
        let member = Member { client: client.clone(), heard: clock };
        let joined = group.members.insert(client.connection, member).is_none();
        let unchanged = matches!(subscriptions, Subscriptions::Unchanged);
        let (view, topics_changed) = group.next_view(consume_type, message_model, subscriptions);
        let view = (known.is_none() || view != *group.view).then(|| Arc::new(view));
        if let Some(view) = &view {
            group.view = view.clone();
        }
        if joined {
            self.connections.add(client.connection, &name);
        }
        Heard {
            rebalance: joined || topics_changed,
            view,
            subscriptions_wanted: known.map_or(unchanged, |known| known != fingerprint),
        }
    }

    /// Removes one member; the change for the other cores if it was the last one. `None` if it was no member.
    pub fn unregister(&mut self, group: &str, connection: ConnectionId) -> Option<GroupLeft> {
        let (name, _) = self.groups.get_key_value(group)?;
        let name = name.clone();
        let entry = self.groups.get_mut(&name)?;
        entry.members.remove(&connection)?;
        let empty = entry.members.is_empty();
        let mut view = None;
        if empty {
            self.groups.remove(&name);
        } else if entry.view.broadcasters.contains_key(&connection) {
            Arc::make_mut(&mut entry.view).broadcasters.remove(&connection);
            view = Some(entry.view.clone());
        }
        self.connections.remove(connection, &name);
        Some(GroupLeft { group: name, empty, view })
    }

    /// Removes the connection from every group that it is in.
    pub fn connection_closed(&mut self, connection: ConnectionId) -> Vec<GroupLeft> {
        let groups = self.connections.groups(connection);
        groups.iter().filter_map(|group| self.unregister(group, connection)).collect()
    }

    /// The connections, with their groups, that have been silent for longer than `expiry`.
    pub fn silent(&self, now: Instant, expiry: Duration) -> BTreeSet<ConnectionId> {
        let members = self.groups.values().flat_map(|group| group.members.iter());
        members
            .filter(|(_, member)| member.is_silent(now, expiry))
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// What the group's members say; `None` when nobody of it is online.
    pub fn view(&self, group: &str) -> Option<&Arc<GroupView>> {
        self.groups.get(group).map(|group| &group.view)
    }

    /// Every group that is online.
    pub fn views(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<GroupView>)> {
        self.groups.iter().map(|(name, group)| (name, &group.view))
    }

    /// Connections of the group's members.
    pub fn members(&self, group: &str) -> Vec<ConnectionId> {
        self.groups.get(group).map(|group| group.members.keys().copied().collect()).unwrap_or_default()
    }

    /// The group's members, in the order of their connections.
    pub fn clients(&self, group: &str) -> Vec<&Client> {
        self.groups
            .get(group)
            .map_or_else(Vec::new, |group| group.members.values().map(|member| &member.client).collect())
    }

    /// The members' client ids, in order, each once: a client that has reconnected is one member, even while
    /// nobody has noticed the end of its old connection.
    pub fn client_ids(&self, group: &str) -> Vec<Arc<str>> {
        let members = self.groups.get(group).into_iter().flat_map(|group| group.members.values());
        members.map(|member| member.client.client_id.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The connection that a client of the group was last heard on.
    pub fn find(&self, group: &str, client_id: &str) -> Option<&Client> {
        let members =
            self.groups.get(group)?.members.values().filter(|member| *member.client.client_id == *client_id);
        members.max_by_key(|member| member.heard.now).map(|member| &member.client)
    }

    /// Groups that subscribe to the topic now.
    pub fn subscribers(&self, topic: &str) -> BTreeSet<Arc<str>> {
        let groups = self.groups.iter().filter(|(_, group)| group.view.subscriptions.contains_key(topic));
        groups.map(|(name, _)| name.clone()).collect()
    }

    /// The answer of 203; `None` when nobody of the group is online.
    pub fn describe(&self, group: &str) -> Option<ConsumerConnection> {
        let group = self.groups.get(group)?;
        let subscriptions = group.view.subscriptions.iter();
        Some(ConsumerConnection {
            connection_set: group.members.values().map(describe_connection).collect(),
            subscription_table: subscriptions
                .map(|(topic, data)| (topic.to_string(), SubscriptionData::clone(data)))
                .collect(),
            consume_type: group.view.consume_type,
            message_model: group.view.message_model,
            consume_from_where: group.consume_from_where,
        })
    }
}

impl Default for ConsumerTable {
    fn default() -> Self {
        ConsumerTable::new()
    }
}

/// A member has left a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLeft {
    /// The group.
    pub group: Arc<str>,
    /// It was the last one: nobody of the group is online.
    pub empty: bool,
    /// What the other cores must know now, if it is not what they know.
    pub view: Option<Arc<GroupView>>,
}

impl Group {
    /// What the group's view is after a heartbeat, and whether the set of topics changed by it.
    fn next_view(
        &self,
        consume_type: Option<ConsumeType>,
        message_model: Option<MessageModel>,
        subscriptions: Subscriptions,
    ) -> (GroupView, bool) {
        let old = &self.view.subscriptions;
        let broadcasters = self.broadcasters(consume_type, message_model);
        let Subscriptions::Whole(list) = subscriptions else {
            let view =
                GroupView { consume_type, message_model, broadcasters, ..GroupView::clone(&self.view) };
            return (view, false);
        };
        let mut next = BTreeMap::new();
        for data in list {
            match old.get_key_value(data.topic.as_str()) {
                Some((topic, known)) if known.sub_version >= data.sub_version => {
                    next.insert(topic.clone(), known.clone())
                }
                _ => next.insert(Arc::from(data.topic.as_str()), Arc::new(data)),
            };
        }
        let changed = next.len() != old.len() || !next.keys().eq(old.keys());
        let filters = self.next_filters(&next);
        (GroupView { consume_type, message_model, subscriptions: next, filters, broadcasters }, changed)
    }

    fn broadcasters(
        &self,
        consume_type: Option<ConsumeType>,
        message_model: Option<MessageModel>,
    ) -> BTreeMap<ConnectionId, Arc<str>> {
        let broadcasts =
            message_model == Some(MessageModel::Broadcasting) && consume_type == Some(ConsumeType::Passively);
        let members = self.members.iter().filter(|_| broadcasts);
        members.map(|(connection, member)| (*connection, member.client.client_id.clone())).collect()
    }

    /// The filters of the subscriptions, compiled unless they are what they were.
    fn next_filters(
        &self,
        subscriptions: &BTreeMap<Arc<str>, Arc<SubscriptionData>>,
    ) -> BTreeMap<Arc<str>, Arc<Filter>> {
        let by_sql = subscriptions.iter().filter(|(_, data)| data.expression_type == SQL92);
        let filters = by_sql.filter_map(|(topic, data)| {
            let known = self.view.filters.get(topic).filter(|filter| filter.source() == data.sub_string);
            let filter = match known {
                Some(filter) => filter.clone(),
                None => Arc::new(Filter::compile(&data.sub_string).ok()?),
            };
            Some((topic.clone(), filter))
        });
        filters.collect()
    }
}

/// A connection as 203 and 204 show it.
pub(super) fn describe_connection(member: &Member) -> Connection {
    Connection {
        client_id: member.client.client_id.to_string(),
        client_addr: member.client.addr.to_string(),
        language: member.client.language,
        version: member.client.version,
    }
}
