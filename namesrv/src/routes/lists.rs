//! What is asked of the tables.

use super::*;

/// A topic's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Broker name and queues, sorted by name.
    pub queues: Vec<(&'a str, &'a QueueData)>,
    /// Broker name and addresses, sorted by name.
    pub brokers: Vec<(&'a str, &'a BrokerData)>,
}

impl Route<'_> {
    /// Keeps what a client of `zone` is to see: brokers of that zone, and those without a master.
    pub fn keep_zone(&mut self, zone: &str) {
        let seen = |broker: &BrokerData| {
            let same = broker.zone.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(zone));
            same || !broker.addrs.contains_key(&MASTER_ID)
        };
        self.brokers.retain(|(_, broker)| seen(broker));
        let brokers = &self.brokers;
        self.queues.retain(|(name, _)| brokers.iter().any(|(kept, _)| kept == name));
    }
}

/// Clusters and brokers, for `clusterList`.
#[derive(Clone, Copy, Debug)]
pub struct Clusters<'a> {
    /// Broker name to addresses.
    pub brokers: &'a BTreeMap<Rc<str>, BrokerData>,
    /// Cluster to broker names.
    pub clusters: &'a BTreeMap<String, BTreeSet<String>>,
}

/// Names that are topics by convention: clusters and brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemTopics {
    /// Cluster and broker names.
    pub names: Vec<String>,
    /// The address of some broker.
    pub broker_addr: Option<String>,
}

/// Which unit topics are listed (311, 312, 313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitFilter {
    /// Unit topics.
    Unit,
    /// Topics with unit subscriptions.
    UnitSub,
    /// Topics with unit subscriptions that are no unit topics.
    UnitSubNotUnit,
}

impl UnitFilter {
    fn takes(self, sys_flag: i32) -> bool {
        let (unit, unit_sub) = (sys_flag & 1 != 0, sys_flag & 2 != 0);
        match self {
            UnitFilter::Unit => unit,
            UnitFilter::UnitSub => unit_sub,
            UnitFilter::UnitSubNotUnit => unit_sub && !unit,
        }
    }
}

impl RouteTables {
    /// A topic's route; `None` without queues or without a broker.
    pub fn route(&self, topic: &str) -> Option<Route<'_>> {
        let queues = self.topics.get(topic)?;
        let brokers = queues.iter().filter_map(|(name, _)| Some((name, self.brokers.get(name)?)));
        let (brokers, queues): (Vec<_>, _) = (brokers.collect(), queues.iter().collect());
        (!brokers.is_empty()).then_some(Route { queues, brokers })
    }

    /// Clusters and brokers.
    pub fn clusters(&self) -> Clusters<'_> {
        Clusters { brokers: &self.brokers, clusters: &self.clusters }
    }

    /// The broker of that name.
    pub fn broker(&self, name: &str) -> Option<&BrokerData> {
        self.brokers.get(name)
    }

    /// Every topic.
    pub fn all_topics(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// The topics on brokers of a cluster.
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<String> {
        let Some(names) = self.clusters.get(cluster) else { return Vec::new() };
        self.topics_where(|brokers| brokers.iter().any(|(name, _)| names.contains(name)))
    }

    /// Unit topics, by the flags of any broker (Java looks at whichever comes first in a hash table).
    pub fn unit_topics(&self, filter: UnitFilter) -> Vec<String> {
        self.topics_where(|brokers| brokers.iter().any(|(_, queue)| filter.takes(queue.topic_sys_flag)))
    }

    fn topics_where(&self, takes: impl Fn(&TopicQueues) -> bool) -> Vec<String> {
        let taken = self.topics.iter().filter(|(_, brokers)| takes(brokers));
        taken.map(|(topic, _)| topic.clone()).collect()
    }

    /// Cluster names, broker names, and the address of some broker.
    pub fn system_topics(&self) -> SystemTopics {
        let mut names = BTreeSet::new();
        for (cluster, brokers) in &self.clusters {
            names.insert(cluster.clone());
            names.extend(brokers.iter().cloned());
        }
        let broker_addr = self.brokers.values().find_map(|broker| broker.addrs.values().next().cloned());
        SystemTopics { names: names.into_iter().collect(), broker_addr }
    }
}
