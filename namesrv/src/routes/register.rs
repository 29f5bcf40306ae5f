//! Registration of a broker (103).

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_env::Instant;

use super::*;

/// What a broker states about itself.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub broker_name: String,
    /// Its id: 0 for a master.
    pub broker_id: i64,
    /// The address that clients use.
    pub addr: String,
    /// The address that replicas use.
    pub ha_addr: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether a slave may stand in for the master; `None`: a broker too old to say.
    pub acting_master: Option<bool>,
    /// How long it may be silent.
    pub silence: Duration,
    /// Version of its topic table.
    pub data_version: DataVersion,
    /// Its topics.
    pub topics: BTreeMap<String, QueueData>,
    /// Whether topics that it does not name are gone.
    pub complete: bool,
}

/// The master of a slave that registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Master {
    /// Address for clients.
    pub addr: String,
    /// Address for replicas.
    pub ha_addr: String,
}

/// A registration of one topic by a broker that is not known: Java's "register broker failed".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

impl RouteTables {
    /// Takes over what a broker states. Returns its master when it is a slave of a live one.
    pub fn register(
        &mut self,
        registration: Registration,
        connection: ConnectionId,
        now: Instant,
    ) -> Result<Option<Master>, Rejected> {
        let r = registration;
        self.clusters.entry(r.cluster.clone()).or_default().insert(r.broker_name.clone());
        let broker = self.brokers.entry(r.broker_name.as_str().into()).or_default();
        broker.cluster.clone_from(&r.cluster);
        broker.acting_master = r.acting_master == Some(true);
        broker.zone.clone_from(&r.zone);
        // The same address under another id has changed its role.
        broker.addrs.retain(|id, addr| *addr != r.addr || *id == r.broker_id);
        if self.is_stale(&r) {
            self.live.remove(&address(&r.cluster, &r.addr));
            return Ok(None);
        }
        let broker = self.brokers.get_mut(&*r.broker_name).expect("it was entered above");
        if !broker.addrs.contains_key(&r.broker_id) && r.topics.len() == 1 {
            self.forget_if_empty(&r.broker_name);
            return Err(Rejected);
        }
        let first = broker.addrs.insert(r.broker_id, r.addr.clone()).is_none();
        self.take_topics(&r, first);
        self.enter_live(&r, connection, now);
        Ok(self.master_of(&r))
    }

    /// Whether the id belongs to another address that has seen a later change of role.
    fn is_stale(&self, r: &Registration) -> bool {
        let holder = self.brokers.get(&*r.broker_name).and_then(|broker| broker.addrs.get(&r.broker_id));
        let Some(holder) = holder.filter(|holder| **holder != r.addr) else { return false };
        let held = self.data_version(&r.cluster, holder);
        held.is_some_and(|held| held.state_version > r.data_version.state_version)
    }

    /// A refused registration leaves no empty broker behind (Java's does).
    fn forget_if_empty(&mut self, broker_name: &str) {
        if self.brokers.get(broker_name).is_some_and(|broker| broker.addrs.is_empty()) {
            self.remove_broker(broker_name);
        }
    }

    /// The master's topics count; without a master those of the lowest slave that is new enough to say so.
    fn take_topics(&mut self, r: &Registration, first: bool) {
        let (broker_name, broker) =
            self.brokers.get_key_value(&*r.broker_name).expect("it was entered before");
        let broker_name = broker_name.clone();
        let master = r.broker_id == MASTER_ID;
        let lowest = broker.addrs.keys().next() == Some(&r.broker_id);
        let prime_slave = !master && r.acting_master.is_some() && lowest;
        if !master && !prime_slave {
            return;
        }
        let lost_bits = if prime_slave && broker.acting_master { PERM_WRITE } else { 0 };
        let changed = first || self.version_changed(&r.cluster, &r.addr, &r.data_version);
        if r.complete {
            self.drop_topics_except(&r.broker_name, &r.topics);
        }
        for (topic, queue) in &r.topics {
            let brokers = self.topics.entry(topic.clone()).or_default();
            if changed || !brokers.contains(&broker_name) {
                let queue = QueueData { perm: queue.perm & !lost_bits, ..*queue };
                brokers.insert(&broker_name, queue);
            }
        }
    }

    fn drop_topics_except(&mut self, broker_name: &str, kept: &BTreeMap<String, QueueData>) {
        self.topics.retain(|topic, brokers| {
            if !kept.contains_key(topic) {
                brokers.remove(broker_name);
            }
            !brokers.is_empty()
        });
    }

    fn enter_live(&mut self, r: &Registration, connection: ConnectionId, now: Instant) {
        let live = Live {
            broker_name: r.broker_name.clone(),
            last: now,
            silence: r.silence,
            data_version: r.data_version,
            connection,
            ha_addr: r.ha_addr.clone(),
        };
        self.live.insert(address(&r.cluster, &r.addr), live);
    }

    fn master_of(&self, r: &Registration) -> Option<Master> {
        if r.broker_id == MASTER_ID {
            return None;
        }
        let addr = self.brokers.get(&*r.broker_name)?.addrs.get(&MASTER_ID)?;
        let live = self.live.get(&address(&r.cluster, addr))?;
        Some(Master { addr: addr.clone(), ha_addr: live.ha_addr.clone() })
    }
}
