//! The tables of the name server (Java's RouteInfoManager), without I/O: time and connections are handed in.
//!
//! Brokers register with all their topics again and again; nothing here outlives the process. Everything is kept
//! sorted, so that answers are the same on every name server that knows the same.

mod lists;
mod queues;
mod register;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::Instant;
pub use ringmq_protocol::body::DataVersion;

pub use lists::{Clusters, Route, SystemTopics, UnitFilter};
use queues::TopicQueues;
pub use register::Registration;
#[cfg(test)]
pub use register::{Master, Rejected};

/// The broker id of a master.
pub const MASTER_ID: i64 = 0;
/// Bits of a permission.
pub const PERM_READ: i32 = 4;
/// See [`PERM_READ`].
pub const PERM_WRITE: i32 = 2;

/// How long a broker that states nothing else may be silent.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(120);

/// A connection of this process, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A topic's queues on one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueData {
    /// Queues to read.
    pub read_queue_nums: i32,
    /// Queues to write.
    pub write_queue_nums: i32,
    /// [`PERM_READ`] and [`PERM_WRITE`].
    pub perm: i32,
    /// Bit 0: unit topic, bit 1: unit subscription.
    pub topic_sys_flag: i32,
}

/// The addresses of one broker name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerData {
    /// The cluster that it is in.
    pub cluster: String,
    /// Broker id to address; id 0 is the master.
    pub addrs: BTreeMap<i64, String>,
    /// The zone that it stated.
    pub zone: Option<String>,
    /// A slave may stand in for the master, for reading.
    pub acting_master: bool,
}

/// What is known of one address that registered.
#[derive(Clone, Debug)]
struct Live {
    broker_name: String,
    last: Instant,
    silence: Duration,
    data_version: DataVersion,
    connection: ConnectionId,
    ha_addr: String,
}

/// Cluster and address: what Java tells live brokers apart by.
type Address = (String, String);

/// A broker that leaves, as request 104, a closed connection or silence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Cluster name.
    pub cluster: String,
    /// Address that registered.
    pub addr: String,
    /// Broker name.
    pub broker_name: String,
}

/// The tables.
#[derive(Debug, Default)]
pub struct RouteTables {
    /// Topic to broker name to queues.
    topics: BTreeMap<String, TopicQueues>,
    /// Broker name to addresses.
    brokers: BTreeMap<Rc<str>, BrokerData>,
    /// Cluster to broker names.
    clusters: BTreeMap<String, BTreeSet<String>>,
    live: BTreeMap<Address, Live>,
}

impl RouteTables {
    /// Whether the version registered for this address differs from `version`, or there is none.
    pub fn version_changed(&self, cluster: &str, addr: &str, version: &DataVersion) -> bool {
        self.data_version(cluster, addr) != Some(*version)
    }

    /// The version registered for this address.
    pub fn data_version(&self, cluster: &str, addr: &str) -> Option<DataVersion> {
        self.live.get(&address(cluster, addr)).map(|live| live.data_version)
    }

    /// A sign of life from an address; unknown ones are passed over, as in Java.
    pub fn heartbeat(&mut self, cluster: &str, addr: &str, now: Instant) {
        if let Some(live) = self.live.get_mut(&address(cluster, addr)) {
            live.last = live.last.max(now);
        }
    }

    /// Removes one broker address, and what is left without any.
    pub fn unregister(&mut self, departure: &Departure) {
        self.live.remove(&address(&departure.cluster, &departure.addr));
        let Some(broker) = self.brokers.get_mut(&*departure.broker_name) else { return };
        broker.addrs.retain(|_, addr| *addr != departure.addr);
        if broker.addrs.is_empty() {
            self.remove_broker(&departure.broker_name);
        } else if broker.acting_master && !broker.addrs.contains_key(&MASTER_ID) {
            self.set_perm(&departure.broker_name, |perm| perm & !PERM_WRITE);
        }
    }

    fn remove_broker(&mut self, name: &str) {
        self.brokers.remove(name);
        self.clusters.retain(|_, names| {
            names.remove(name);
            !names.is_empty()
        });
        self.topics.retain(|_, brokers| {
            brokers.remove(name);
            !brokers.is_empty()
        });
    }

    /// Changes the permission of every topic on a broker; how many topics it has.
    fn set_perm(&mut self, broker_name: &str, change: impl Fn(i32) -> i32) -> usize {
        let queues = self.topics.values_mut().filter_map(|brokers| brokers.get_mut(broker_name));
        queues.map(|queue| queue.perm = change(queue.perm)).count()
    }

    /// Takes the write permission from every topic of a broker (205); how many topics it has.
    pub fn wipe_write_perm(&mut self, broker_name: &str) -> usize {
        self.set_perm(broker_name, |perm| perm & !PERM_WRITE)
    }

    /// Sets the permission of every topic of a broker to reading and writing (327, which loses other bits in Java
    /// too); how many topics it has.
    pub fn add_write_perm(&mut self, broker_name: &str) -> usize {
        self.set_perm(broker_name, |_| PERM_READ | PERM_WRITE)
    }

    /// What registered over a connection that is closed now.
    pub fn registered_over(&self, connection: ConnectionId) -> Vec<Departure> {
        self.departures(|live| live.connection == connection)
    }

    /// What has been silent for longer than it promised.
    pub fn silent(&self, now: Instant) -> Vec<Departure> {
        self.departures(|live| now.since(live.last) > live.silence)
    }

    fn departures(&self, gone: impl Fn(&Live) -> bool) -> Vec<Departure> {
        let gone = self.live.iter().filter(|(_, live)| gone(live));
        gone.map(|((cluster, addr), live)| Departure {
            cluster: cluster.clone(),
            addr: addr.clone(),
            broker_name: live.broker_name.clone(),
        })
        .collect()
    }

    /// Removes a topic (216): everywhere, or from the brokers of one cluster.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(cluster) = cluster else {
            self.topics.remove(topic);
            return;
        };
        let (Some(names), Some(brokers)) = (self.clusters.get(cluster), self.topics.get_mut(topic)) else {
            return;
        };
        brokers.retain(|name| !names.contains(name));
        if brokers.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Adds queues that an administrator states (217); those behind the first one of an unknown broker are passed
    /// over, as in Java.
    pub fn register_topic(&mut self, topic: &str, queues: impl IntoIterator<Item = (String, QueueData)>) {
        for (broker_name, queue) in queues {
            let Some((broker_name, _)) = self.brokers.get_key_value(&*broker_name) else { return };
            self.topics.entry(topic.to_owned()).or_default().insert(broker_name, queue);
        }
    }
}

fn address(cluster: &str, addr: &str) -> Address {
    (cluster.to_owned(), addr.to_owned())
}
