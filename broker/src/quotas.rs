//! Quotas: how many messages and bytes a second the broker, a topic and a group may send or pull. Token buckets of one
//! core, without locks: each core has the share of a limit that falls to the queues it hosts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use ringmq_engine::QueueId;
use ringmq_env::Instant;
use ringmq_protocol::body::{SubscriptionGroupConfig, TopicConfig};
use rustc_hash::FxBuildHasher;

use crate::control::Change;
use crate::mailbox::CoreId;
use crate::metrics::Figures;
use crate::routing::Routing;

/// The attribute of a topic or a group of producers: messages sent a second.
pub const SEND: &str = "quota.send";
/// The attribute of a topic or a group of producers: bytes of bodies sent a second.
pub const SEND_BYTES: &str = "quota.send.bytes";
/// The attribute of a topic or a group: messages pulled a second.
pub const PULL: &str = "quota.pull";
/// The attribute of a topic or a group: bytes of records pulled a second.
pub const PULL_BYTES: &str = "quota.pull.bytes";
/// Most that a quota may be.
pub const MAX: i64 = 1 << 40;
/// What a bucket holds when nobody asked for long, in seconds of its rate.
const BURST_SECONDS: f64 = 1.0;

/// The broker's own quotas, messages and bytes a second; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerQuotas {
    /// Messages sent.
    pub send: u64,
    /// Bytes of bodies sent.
    pub send_bytes: u64,
    /// Messages pulled.
    pub pull: u64,
    /// Bytes of records pulled.
    pub pull_bytes: u64,
}

/// A quota that is used up for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Whose, as a client is told.
    whose: String,
    what: &'static str,
    limit: u64,
    /// What this core's share of the limit is, if it is not all of it.
    share: Option<u64>,
    ahead: u64,
    /// When there is something of it again.
    pub wait: Duration,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Over { whose, what, limit, share, ahead, wait } = self;
        write!(f, "{whose} is {ahead} {what} over its quota of {limit} a second")?;
        if let Some(share) = share {
            write!(f, " ({share} here)")?;
        }
        write!(f, ", free again in {} ms", wait.as_millis().max(1))
    }
}

/// A token bucket. What is taken may bring it below nothing, so that a batch or a large message passes; then others wait
/// until it is filled again.
#[derive(Debug)]
struct Bucket {
    what: &'static str,
    limit: u64,
    /// Tokens a second.
    rate: f64,
    level: f64,
    filled: Option<Instant>,
}

impl Bucket {
    fn new(what: &'static str, limit: u64, share: f64) -> Option<Bucket> {
        // The last queue of a share is not starved by rounding.
        let rate = (limit as f64 * share).max(1e-3);
        (limit > 0 && share > 0.0).then(|| Bucket { what, limit, rate, level: rate.max(1.0), filled: None })
    }

    fn capacity(&self) -> f64 {
        (self.rate * BURST_SECONDS).max(1.0)
    }

    fn fill(&mut self, now: Instant) {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.since(filled));
        self.level = (self.level + self.rate * since.as_secs_f64()).min(self.capacity());
        self.filled = Some(now);
    }

    fn over(&mut self, now: Instant, whose: impl Fn() -> String) -> Option<Over> {
        self.fill(now);
        if self.level > 0.0 {
            return None;
        }
        let missing = 1.0 - self.level;
        let share = self.rate.round() as u64;
        Some(Over {
            whose: whose(),
            what: self.what,
            limit: self.limit,
            share: (share != self.limit).then_some(share),
            ahead: (-self.level).ceil() as u64,
            wait: Duration::from_secs_f64((missing / self.rate).min(3600.0)),
        })
    }
}

/// Messages and bytes of one direction.
#[derive(Debug, Default)]
struct Pair {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Requests that came when it was used up.
    refused: u64,
}

impl Pair {
    fn new(messages: u64, bytes: u64, share: f64) -> Pair {
        let (messages, bytes) =
            (Bucket::new("messages", messages, share), Bucket::new("bytes", bytes, share));
        Pair { messages, bytes, refused: 0 }
    }

    fn is_off(&self) -> bool {
        self.messages.is_none() && self.bytes.is_none()
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.messages.iter_mut().chain(&mut self.bytes)
    }

    fn over(&mut self, now: Instant, whose: impl Fn() -> String) -> Option<Over> {
        let over = self.buckets().find_map(|bucket| bucket.over(now, &whose));
        self.refused += u64::from(over.is_some());
        over
    }

    fn take(&mut self, messages: u64, bytes: u64) {
        self.messages.iter_mut().for_each(|bucket| bucket.level -= messages as f64);
        self.bytes.iter_mut().for_each(|bucket| bucket.level -= bytes as f64);
    }
}

/// What one owner may send and pull.
#[derive(Debug, Default)]
struct Both {
    send: Pair,
    pull: Pair,
}

type Owned = HashMap<Arc<str>, Both, FxBuildHasher>;

/// The quotas of one core.
#[derive(Debug)]
pub struct Quotas {
    core: CoreId,
    routing: Routing,
    broker: Both,
    topics: Owned,
    groups: Owned,
    /// The groups whose sends have a quota, whatever this core's share of it is.
    senders: HashSet<Arc<str>, FxBuildHasher>,
}

impl Quotas {
    /// Only the broker's own.
    pub fn new(core: CoreId, routing: Routing, own: BrokerQuotas) -> Quotas {
        let share = routing.hosted(core).count() as f64 / f64::from(routing.shards);
        let send = Pair::new(own.send, own.send_bytes, share);
        let pull = Pair::new(own.pull, own.pull_bytes, share);
        Quotas {
            core,
            routing,
            broker: Both { send, pull },
            topics: Owned::default(),
            groups: Owned::default(),
            senders: HashSet::default(),
        }
    }

    /// Takes in what a change of the metadata says of quotas. A bucket whose limits change starts anew.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Topic { name, config } => {
                let both = config.as_ref().map(|config| self.of_topic(name, config));
                set(&mut self.topics, name, both);
            }
            Change::Group { name, config } => {
                let sends = |config: &SubscriptionGroupConfig| {
                    [SEND, SEND_BYTES].iter().any(|key| limit(config.attributes.get(*key)) > 0)
                };
                match config.as_ref().is_some_and(|config| sends(config)) {
                    true => drop(self.senders.insert(name.clone())),
                    false => drop(self.senders.remove(name)),
                }
                let both = config.as_ref().map(|config| self.of_group(config));
                set(&mut self.groups, name, both);
            }
            Change::Forbidden { .. } | Change::Subscriptions { .. } => {}
        }
    }

    fn of_topic(&self, name: &str, config: &TopicConfig) -> Both {
        let limit = |name: &str| limit(config.attributes.get(name));
        let share = |queues| self.share(name, queues);
        Both {
            send: Pair::new(limit(SEND), limit(SEND_BYTES), share(config.write_queue_nums)),
            pull: Pair::new(limit(PULL), limit(PULL_BYTES), share(config.read_queue_nums)),
        }
    }

    /// A group has to do with any number of topics: each core has its part of the shards.
    fn of_group(&self, config: &SubscriptionGroupConfig) -> Both {
        let limit = |name: &str| limit(config.attributes.get(name));
        let share = self.routing.hosted(self.core).count() as f64 / f64::from(self.routing.shards);
        Both {
            send: Pair::new(limit(SEND), limit(SEND_BYTES), share),
            pull: Pair::new(limit(PULL), limit(PULL_BYTES), share),
        }
    }

    /// The part of the topic's queues that this core hosts.
    fn share(&self, topic: &str, queues: i32) -> f64 {
        let queues = u32::try_from(queues).unwrap_or(0);
        let is_own = |queue: &u32| self.routing.core(self.routing.shard(topic, QueueId(*queue))) == self.core;
        if queues == 0 { 0.0 } else { (0..queues).filter(is_own).count() as f64 / f64::from(queues) }
    }

    /// The group of producers, if its sends have a quota.
    pub fn sender(&self, group: &str) -> Option<Arc<str>> {
        if self.senders.is_empty() { None } else { self.senders.get(group).cloned() }
    }

    /// Whether a message may be sent to the topic now: the clock is read where there is a quota. `sender` is a group of
    /// producers that has one.
    pub fn may_send(
        &mut self,
        topic: &str,
        sender: Option<&str>,
        now: impl Fn() -> Instant,
    ) -> Result<(), Over> {
        if !self.broker.send.is_off()
            && let Some(over) = self.broker.send.over(now(), || "this broker".to_owned())
        {
            return Err(over);
        }
        let topics = if self.topics.is_empty() { None } else { self.topics.get_mut(topic) };
        let of_topic = topics.and_then(|both| both.send.over(now(), || format!("topic {topic}")));
        let of_group = || {
            let group = sender?;
            self.groups.get_mut(group)?.send.over(now(), || format!("group {group}"))
        };
        match of_topic.or_else(of_group) {
            Some(over) => Err(over),
            None => Ok(()),
        }
    }

    /// Messages were sent to the topic.
    pub fn sent(&mut self, topic: &str, sender: Option<&str>, messages: u64, bytes: u64) {
        self.broker.send.take(messages, bytes);
        if let Some(both) = sender.and_then(|group| self.groups.get_mut(group)) {
            both.send.take(messages, bytes);
        }
        if !self.topics.is_empty()
            && let Some(both) = self.topics.get_mut(topic)
        {
            both.send.take(messages, bytes);
        }
    }

    /// Whether the group may be given messages of the topic now.
    pub fn may_pull(&mut self, topic: &str, group: &str, now: Instant) -> Result<(), Over> {
        let broker = self.broker.pull.over(now, || "this broker".to_owned());
        let topic = || self.topics.get_mut(topic)?.pull.over(now, || format!("topic {topic}"));
        let group = || self.groups.get_mut(group)?.pull.over(now, || format!("group {group}"));
        match broker.or_else(topic).or_else(group) {
            Some(over) => Err(over),
            None => Ok(()),
        }
    }

    /// The group was given messages of the topic.
    pub fn pulled(&mut self, topic: &str, group: &str, messages: u64, bytes: u64) {
        self.broker.pull.take(messages, bytes);
        let topic = self.topics.get_mut(topic).into_iter();
        topic.chain(self.groups.get_mut(group)).for_each(|both| both.pull.take(messages, bytes));
    }

    /// What was refused or put off, by whose quota it was.
    pub fn figures(&self, figures: &mut Figures) {
        let broker: Arc<str> = "".into();
        let all = std::iter::once(("broker", &broker, &self.broker))
            .chain(self.topics.iter().map(|(name, both)| ("topic", name, both)))
            .chain(self.groups.iter().map(|(name, both)| ("group", name, both)));
        for (of, name, both) in all {
            for (what, pair) in [("send", &both.send), ("pull", &both.pull)] {
                if !pair.is_off() {
                    figures.counter(
                        "ringmq_over_quota_total",
                        "Sends that were refused, and pulls that were put off or refused, because a quota was used up.",
                        &[("of", of), ("name", name), ("what", what)],
                        pair.refused,
                    );
                }
            }
        }
    }
}

fn set(owned: &mut Owned, name: &Arc<str>, both: Option<Both>) {
    match both.filter(|both| !both.send.is_off() || !both.pull.is_off()) {
        Some(both) => drop(owned.insert(name.clone(), both)),
        None => drop(owned.remove(name)),
    }
}

fn limit(text: Option<&String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, queues: i32, attributes: &[(&str, &str)]) -> Change {
        let attributes =
            attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let config = TopicConfig {
            topic_name: name.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            attributes,
            ..TopicConfig::default()
        };
        Change::Topic { name: name.into(), config: Some(Arc::new(config)) }
    }

    fn quotas(cores: u16, own: BrokerQuotas) -> Quotas {
        Quotas::new(CoreId(0), Routing { shards: cores, cores, has_lmqs: false }, own)
    }

    fn at(ms: u64) -> Instant {
        Instant(0).after(Duration::from_millis(ms))
    }

    /// Messages that pass, one after the other.
    fn passed(quotas: &mut Quotas, ms: u64, tries: usize) -> usize {
        let mut pass =
            || quotas.may_send("t", None, || at(ms)).map(|()| quotas.sent("t", None, 1, 10)).is_ok();
        (0..tries).filter(|_| pass()).count()
    }

    #[test]
    fn a_topic_gets_its_rate_and_a_burst_of_a_second() {
        let mut quotas = quotas(1, BrokerQuotas::default());
        assert_eq!(passed(&mut quotas, 0, 1000), 1000);
        quotas.apply(&topic("t", 4, &[(SEND, "100")]));
        assert_eq!(passed(&mut quotas, 0, 1000), 100);
        assert_eq!(passed(&mut quotas, 500, 1000), 50);
        assert_eq!(passed(&mut quotas, 60_500, 1000), 100);
        let over = quotas.may_send("t", None, || at(60_500)).unwrap_err();
        assert_eq!(
            over.to_string(),
            "topic t is 0 messages over its quota of 100 a second, free again in 10 ms"
        );
        assert!(quotas.may_send("other", None, || at(60_500)).is_ok());
        quotas.apply(&topic("t", 4, &[]));
        assert_eq!(passed(&mut quotas, 60_500, 1000), 1000);
    }

    #[test]
    fn a_batch_passes_whole_and_is_waited_for() {
        let mut quotas = quotas(1, BrokerQuotas { send_bytes: 1000, ..BrokerQuotas::default() });
        quotas.may_send("t", None, || at(0)).unwrap();
        quotas.sent("t", None, 50, 5000);
        let over = quotas.may_send("t", None, || at(1000)).unwrap_err();
        assert_eq!(over.wait, Duration::from_millis(3001));
        assert!(over.to_string().starts_with("this broker is 3000 bytes over its quota of 1000 a second"));
        assert!(quotas.may_send("t", None, || at(4002)).is_ok());
    }

    #[test]
    fn a_core_has_the_share_of_its_queues() {
        let mut quotas = quotas(2, BrokerQuotas::default());
        quotas.apply(&topic("t", 4, &[(SEND, "100")]));
        assert_eq!(passed(&mut quotas, 0, 1000), 50);
        assert!(
            quotas.may_send("t", None, || at(0)).unwrap_err().to_string().contains("100 a second (50 here)")
        );
    }

    #[test]
    fn a_group_of_producers_has_its_quota_in_all_topics() {
        let mut quotas = quotas(1, BrokerQuotas::default());
        assert_eq!(quotas.sender("p"), None);
        let attributes = [(SEND.to_owned(), "10".to_owned())].into();
        let config = Arc::new(SubscriptionGroupConfig { attributes, ..Default::default() });
        quotas.apply(&Change::Group { name: "p".into(), config: Some(config) });
        let sender = quotas.sender("p");
        assert_eq!((sender.as_deref(), quotas.sender("q")), (Some("p"), None));
        for topic in ["t", "u"] {
            quotas.may_send(topic, sender.as_deref(), || at(0)).unwrap();
            quotas.sent(topic, sender.as_deref(), 6, 1);
        }
        let over = quotas.may_send("v", sender.as_deref(), || at(0)).unwrap_err();
        assert!(
            over.to_string().starts_with("group p is 2 messages over its quota of 10 a second"),
            "{over}"
        );
        assert!(quotas.may_send("v", None, || at(0)).is_ok());
        quotas.apply(&Change::Group { name: "p".into(), config: None });
        assert_eq!(quotas.sender("p"), None);
    }

    #[test]
    fn a_group_and_a_topic_both_count() {
        let mut quotas = quotas(1, BrokerQuotas::default());
        let attributes = [(PULL.to_owned(), "10".to_owned())].into();
        let config = SubscriptionGroupConfig { attributes, ..Default::default() };
        quotas.apply(&Change::Group { name: "g".into(), config: Some(Arc::new(config)) });
        quotas.may_pull("t", "g", at(0)).unwrap();
        quotas.pulled("t", "g", 32, 1);
        assert!(
            quotas
                .may_pull("u", "g", at(1000))
                .unwrap_err()
                .to_string()
                .starts_with("group g is 12 messages")
        );
        assert!(quotas.may_pull("t", "h", at(1000)).is_ok());
        let mut figures = Figures::default();
        quotas.figures(&mut figures);
        assert!(figures.text().contains("{of=\"group\",name=\"g\",what=\"pull\"} 1"));
    }
}
