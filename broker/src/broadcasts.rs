//! How far the clients of broadcasting groups have pulled (Java's BroadcastOffsetManager, `enableBroadcastOffsetStore`).
//! A broadcasting client keeps its offsets itself; but when it moves from a proxy to the broker or back, what it kept
//! stays behind, and its first pull on the other way is told where it was.
//!
//! In memory alone, as with Java. What outlives a restart is the least offset of all clients of a group, which is
//! committed every few seconds in the name of `GROUP@broadcast`: clients that nothing is known of begin there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use ringmq_engine::{QueueId, QueueOffset};
use ringmq_env::Instant;
use rustc_hash::FxBuildHasher;

/// Offsets, each of a client in a queue, that one shard keeps; of more, none that is new is kept.
pub const MAX_OFFSETS: usize = 65_536;
/// Longest id of a client that is followed, in bytes.
pub const MAX_CLIENT_ID: usize = 512;
/// How often clients that are gone are forgotten and the least offsets committed.
pub const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Who pulls for itself alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcaster {
    /// The client's id.
    pub client: Arc<str>,
    /// It pulls through a proxy.
    pub from_proxy: bool,
}

/// How long a client is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastExpiry {
    /// After its last pull, once it is offline.
    pub offline: Duration,
    /// After its last pull, though it is online.
    pub idle: Duration,
}

/// A group's subscription to a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
}

struct Client {
    /// When it pulled last.
    heard: Instant,
    from_proxy: bool,
    queues: BTreeMap<QueueId, QueueOffset>,
}

type Clients = HashMap<Arc<str>, Client, FxBuildHasher>;

/// Where a client is told to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Where its pull says.
    AsAsked,
    /// Where it was.
    At(QueueOffset),
    /// Where a client begins that nothing is known of in this queue.
    AsNew,
}

/// The clients of one shard's queues.
#[derive(Default)]
pub struct BroadcastTable {
    clients: HashMap<Subscription, Clients, FxBuildHasher>,
    /// Offsets that are kept.
    count: usize,
}

/// The name in which a group's least offsets are committed.
pub fn committing_group(group: &str) -> Arc<str> {
    format!("{group}@broadcast").into()
}

impl BroadcastTable {
    /// Offsets that are kept.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Where this pull is to begin: elsewhere than it says when the client comes another way than before, or comes
    /// through a proxy and does not know.
    pub fn start(
        &self,
        by: &Broadcaster,
        group: &Arc<str>,
        topic: &Arc<str>,
        queue_id: QueueId,
        asked: QueueOffset,
    ) -> Start {
        let key = Subscription { group: group.clone(), topic: topic.clone() };
        let known = self.clients.get(&key).and_then(|clients| clients.get(&by.client));
        let from_proxy = known.map_or(by.from_proxy, |client| client.from_proxy);
        let is_lost = from_proxy && asked.0 < 0;
        if !is_lost && from_proxy == by.from_proxy {
            return Start::AsAsked;
        }
        let offset = known.and_then(|client| client.queues.get(&queue_id));
        offset.filter(|offset| offset.0 >= 0).map_or(Start::AsNew, |offset| Start::At(*offset))
    }

    /// The client pulls from `offset` on: it has had what is before.
    pub fn pulled(
        &mut self,
        by: &Broadcaster,
        group: &Arc<str>,
        topic: &Arc<str>,
        queue_id: QueueId,
        offset: QueueOffset,
        now: Instant,
    ) {
        let key = Subscription { group: group.clone(), topic: topic.clone() };
        let known = self.clients.get(&key).and_then(|clients| clients.get(&by.client));
        if !known.is_some_and(|client| client.queues.contains_key(&queue_id)) {
            if self.count >= MAX_OFFSETS || by.client.len() > MAX_CLIENT_ID {
                return;
            }
            self.count += 1;
        }
        let fresh = || Client { heard: now, from_proxy: by.from_proxy, queues: BTreeMap::new() };
        let client = self.clients.entry(key).or_default().entry(by.client.clone()).or_insert_with(fresh);
        (client.heard, client.from_proxy) = (now, by.from_proxy);
        // Only forwards, as Java's: a pull that is repeated does not take back what was had.
        let had = client.queues.entry(queue_id).or_insert(offset);
        *had = (*had).max(offset);
    }

    /// The subscriptions that clients are followed of.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        self.clients.keys().cloned().collect()
    }

    /// Forgets a subscription's clients that have not pulled for too long, and tells the least offset of the others in
    /// each queue. `online` are the ids of the group's members.
    pub fn scan(
        &mut self,
        of: &Subscription,
        now: Instant,
        expiry: BroadcastExpiry,
        online: &HashSet<Arc<str>, FxBuildHasher>,
    ) -> BTreeMap<QueueId, QueueOffset> {
        let mut least = BTreeMap::new();
        let Some(clients) = self.clients.get_mut(of) else { return least };
        let mut gone = 0;
        clients.retain(|id, client| {
            let (silent, online) = (now.since(client.heard), online.contains(id));
            if online || silent < expiry.offline {
                for (queue_id, offset) in &client.queues {
                    let least = least.entry(*queue_id).or_insert(*offset);
                    *least = (*least).min(*offset);
                }
            }
            let stays = silent < if online { expiry.idle } else { expiry.offline };
            gone += if stays { 0 } else { client.queues.len() };
            stays
        });
        self.count -= gone;
        if clients.is_empty() {
            self.clients.remove(of);
        }
        least
    }

    /// Forgets a group.
    pub fn forget_group(&mut self, group: &str) {
        self.clients.retain(|key, _| *key.group != *group);
        self.recount();
    }

    /// Forgets a topic.
    pub fn forget_topic(&mut self, topic: &str) {
        self.clients.retain(|key, _| *key.topic != *topic);
        self.recount();
    }

    fn recount(&mut self) {
        let clients = self.clients.values().flat_map(HashMap::values);
        self.count = clients.map(|client| client.queues.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueId = QueueId(0);
    const EXPIRY: BroadcastExpiry =
        BroadcastExpiry { offline: Duration::from_secs(120), idle: Duration::from_secs(300) };

    struct Case {
        table: BroadcastTable,
        group: Arc<str>,
        topic: Arc<str>,
    }

    impl Case {
        fn new() -> Case {
            Case { table: BroadcastTable::default(), group: "g".into(), topic: "t".into() }
        }

        fn start(&self, by: &Broadcaster, asked: i64) -> Start {
            self.table.start(by, &self.group, &self.topic, QUEUE, QueueOffset(asked))
        }

        fn pulled(&mut self, by: &Broadcaster, offset: i64, second: u64) {
            let now = Instant(0).after(Duration::from_secs(second));
            self.table.pulled(by, &self.group, &self.topic, QUEUE, QueueOffset(offset), now);
        }

        fn scan(&mut self, second: u64, online: bool) -> Vec<i64> {
            let now = Instant(0).after(Duration::from_secs(second));
            let online = ["c", "d"].into_iter().filter(|_| online).map(Arc::from).collect();
            let [of] = &self.table.subscriptions()[..] else { panic!("one subscription") };
            self.table.scan(of, now, EXPIRY, &online).values().map(|offset| offset.0).collect()
        }
    }

    fn client(id: &str, from_proxy: bool) -> Broadcaster {
        Broadcaster { client: id.into(), from_proxy }
    }

    #[test]
    fn a_client_that_comes_another_way_goes_on_where_it_was() {
        let mut case = Case::new();
        let (direct, proxied) = (client("c", false), client("c", true));
        assert_eq!(case.start(&direct, 0), Start::AsAsked);
        assert_eq!(case.start(&proxied, 3), Start::AsAsked, "nothing is known of it");
        assert_eq!(case.start(&proxied, -1), Start::AsNew);
        case.pulled(&direct, 7, 0);
        assert_eq!(case.start(&direct, 0), Start::AsAsked, "the same way, it is right whatever it says");
        assert_eq!(case.start(&proxied, 0), Start::At(QueueOffset(7)));
        assert_eq!(case.start(&client("d", true), -1), Start::AsNew);
        case.pulled(&proxied, 9, 1);
        assert_eq!(case.start(&proxied, 9), Start::AsAsked);
        assert_eq!(case.start(&proxied, -1), Start::At(QueueOffset(9)));
        assert_eq!(case.start(&direct, 20), Start::At(QueueOffset(9)));
        case.pulled(&proxied, 2, 2);
        assert_eq!(case.start(&direct, 20), Start::At(QueueOffset(9)), "only forwards");
    }

    #[test]
    fn the_least_offset_is_told_and_who_is_gone_is_forgotten() {
        let mut case = Case::new();
        case.pulled(&client("c", false), 7, 0);
        case.pulled(&client("d", false), 5, 100);
        assert_eq!(case.scan(110, false), [5]);
        assert_eq!((case.scan(130, false), case.table.len()), (vec![5], 1), "c has been silent for long");
        assert_eq!(
            (case.scan(399, true), case.table.len()),
            (vec![5], 1),
            "online, it may be silent for longer"
        );
        assert_eq!((case.scan(400, true), case.table.len()), (vec![5], 0));
        assert!(case.table.clients.is_empty());
        case.pulled(&client("c", false), 7, 500);
        case.table.forget_topic("u");
        assert_eq!(case.table.len(), 1);
        case.table.forget_group("g");
        assert_eq!(case.table.len(), 0);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut case = Case::new();
        for number in 0..=MAX_OFFSETS {
            case.pulled(&client(&number.to_string(), false), 1, 0);
        }
        assert_eq!(case.table.len(), MAX_OFFSETS);
        assert_eq!(
            case.start(&client(&MAX_OFFSETS.to_string(), true), 0),
            Start::AsAsked,
            "it is not followed"
        );
        case.pulled(&client("0", false), 2, 0);
        assert_eq!(case.start(&client("0", true), 0), Start::At(QueueOffset(2)));
    }
}
