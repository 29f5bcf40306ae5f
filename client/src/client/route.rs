//! Routes: which brokers have a topic, and where they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_protocol::body::{MessageQueue, QueueData, TopicRouteData, perm};
use ringmq_protocol::names::topics::AUTO_CREATE_TOPIC_KEY_TOPIC;
use tokio::time::Instant;

use super::namesrv::{NameServers, RouteError};
use crate::remoting::Remoting;
use crate::sync::lock;

/// The broker id of a master.
pub(crate) const MASTER_ID: i64 = 0;
/// How long the route of a topic that does not exist yet is believed.
const PROVISIONAL_LIFE: Duration = Duration::from_secs(1);
/// Shortest time between two questions for a topic that failures make.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
/// Queues that a client asks for at most in a topic that does not exist yet.
pub(crate) const DEFAULT_TOPIC_QUEUE_NUMS: i32 = 4;

/// The queues of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    data: TopicRouteData,
    /// Queues to send to, in the order of the name server.
    pub publish: Vec<MessageQueue>,
    /// Queues to read from, sorted as every member of a group must sort them.
    pub subscribe: Vec<MessageQueue>,
}

impl TopicRoute {
    fn new(topic: &str, data: TopicRouteData) -> TopicRoute {
        let queue = |broker: &str, queue_id| MessageQueue {
            broker_name: broker.to_owned(),
            queue_id,
            topic: topic.to_owned(),
        };
        let queues = |count: i32, broker: &str| (0..count).map(|id| queue(broker, id)).collect::<Vec<_>>();
        let publish = match data.order_topic_conf.as_deref().filter(|conf| !conf.is_empty()) {
            Some(conf) => ordered(conf).flat_map(|(broker, count)| queues(count, broker)).collect(),
            None => data
                .queue_datas
                .iter()
                .filter(|q| q.perm & perm::WRITE != 0 && has_master(&data, &q.broker_name))
                .flat_map(|q| queues(q.write_queue_nums, &q.broker_name))
                .collect(),
        };
        let readable = data.queue_datas.iter().filter(|q| q.perm & perm::READ != 0);
        let mut subscribe: Vec<_> =
            readable.flat_map(|q| queues(q.read_queue_nums, &q.broker_name)).collect();
        subscribe.sort();
        subscribe.dedup();
        TopicRoute { data, publish, subscribe }
    }

    /// Names of the brokers that have the topic.
    pub(crate) fn brokers(&self) -> impl Iterator<Item = &str> {
        self.data.broker_datas.iter().map(|b| b.broker_name.as_str())
    }
}

/// `broker:queues;broker:queues`
fn ordered(conf: &str) -> impl Iterator<Item = (&str, i32)> {
    conf.split(';').filter_map(|piece| {
        let (broker, count) = piece.split_once(':')?;
        Some((broker, count.trim().parse().ok()?))
    })
}

fn has_master(data: &TopicRouteData, broker: &str) -> bool {
    data.broker_datas.iter().any(|b| b.broker_name == broker && b.broker_addrs.contains_key(&MASTER_ID))
}

#[derive(Clone, Debug)]
struct Cached {
    route: Arc<TopicRoute>,
    /// Made from the template of topics to be created; not believed after this time.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    cached: Mutex<Option<Cached>>,
    /// Held by the one task that asks the name server. When one last did.
    asking: tokio::sync::Mutex<Option<Instant>>,
}

impl Slot {
    fn fresh(&self) -> Option<Arc<TopicRoute>> {
        let cached = lock(&self.cached).clone()?;
        cached.until.is_none_or(|until| Instant::now() < until).then_some(cached.route)
    }
}

/// Addresses of a broker and its replicas, by id.
type Addrs = BTreeMap<i64, Arc<str>>;

/// The routes of all topics in use, and the addresses of the brokers in them.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    brokers: Mutex<HashMap<String, Addrs>>,
}

/// Who is asked, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub remoting: &'a Remoting,
    pub name_servers: &'a NameServers,
    pub timeout: Duration,
}

impl Routes {
    /// The route of a topic, from the cache if it is there.
    pub(crate) async fn get(&self, topic: &str, asking: Asking<'_>) -> Result<Arc<TopicRoute>, RouteError> {
        let slot = self.slot(topic);
        if let Some(route) = slot.fresh() {
            return Ok(route);
        }
        let mut asked = slot.asking.lock().await;
        match slot.fresh() {
            Some(route) => Ok(route),
            None => self.ask(topic, &slot, &mut asked, asking).await,
        }
    }

    /// As [`Routes::get`]; for a topic that does not exist, the queues that it will have once the first message has
    /// created it.
    pub(crate) async fn to_publish(
        &self,
        topic: &str,
        asking: Asking<'_>,
    ) -> Result<Arc<TopicRoute>, RouteError> {
        match self.get(topic, asking).await {
            Err(RouteError::NoTopic(_)) => self.ask_template(topic, asking).await,
            other => other,
        }
    }

    /// Asks the name server again, whatever the cache has.
    pub(crate) async fn refresh(
        &self,
        topic: &str,
        asking: Asking<'_>,
    ) -> Result<Arc<TopicRoute>, RouteError> {
        let slot = self.slot(topic);
        let mut asked = slot.asking.lock().await;
        self.ask(topic, &slot, &mut asked, asking).await
    }

    /// Asks again, unless somebody has asked a moment ago: for failures, which come in crowds.
    pub(crate) async fn refresh_old(&self, topic: &str, asking: Asking<'_>) -> Result<(), RouteError> {
        let slot = self.slot(topic);
        let mut asked = slot.asking.lock().await;
        if asked.is_none_or(|at| at.elapsed() > REFRESH_PAUSE) {
            self.ask(topic, &slot, &mut asked, asking).await?;
        }
        Ok(())
    }

    /// Asks for every topic in use again. Topics that fail keep what they have.
    pub(crate) async fn refresh_all(&self, asking: Asking<'_>) {
        let topics: Vec<String> = lock(&self.slots).keys().cloned().collect();
        for topic in topics {
            if let Err(error) = self.refresh(&topic, asking).await {
                tracing::debug!(target: "ringmq_client::route", topic, %error, "the route was not refreshed");
            }
        }
        self.rebuild_brokers();
    }

    async fn ask(
        &self,
        topic: &str,
        slot: &Slot,
        asked: &mut Option<Instant>,
        asking: Asking<'_>,
    ) -> Result<Arc<TopicRoute>, RouteError> {
        *asked = Some(Instant::now());
        let data = asking.name_servers.route(asking.remoting, topic, asking.timeout).await?;
        Ok(self.put(topic, slot, data, None))
    }

    async fn ask_template(&self, topic: &str, asking: Asking<'_>) -> Result<Arc<TopicRoute>, RouteError> {
        let template = AUTO_CREATE_TOPIC_KEY_TOPIC;
        let data = asking.name_servers.route(asking.remoting, template, asking.timeout).await;
        let mut data = data.map_err(|error| match error {
            RouteError::NoTopic(_) => RouteError::NoTopic(topic.to_owned()),
            other => other,
        })?;
        data.queue_datas.iter_mut().for_each(as_new_topic);
        let until = Instant::now() + PROVISIONAL_LIFE;
        Ok(self.put(topic, &self.slot(topic), data, Some(until)))
    }

    fn put(&self, topic: &str, slot: &Slot, data: TopicRouteData, until: Option<Instant>) -> Arc<TopicRoute> {
        self.add_brokers(&data);
        let route = TopicRoute::new(topic, data);
        let mut cached = lock(&slot.cached);
        let route = match cached.take() {
            Some(old) if *old.route == route => old.route,
            _ => Arc::new(route),
        };
        *cached = Some(Cached { route: route.clone(), until });
        route
    }

    fn slot(&self, topic: &str) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        match slots.get(topic) {
            Some(slot) => slot.clone(),
            None => slots.entry(topic.to_owned()).or_default().clone(),
        }
    }

    fn add_brokers(&self, data: &TopicRouteData) {
        let mut brokers = lock(&self.brokers);
        for broker in &data.broker_datas {
            brokers.insert(broker.broker_name.clone(), addrs(&broker.broker_addrs));
        }
    }

    /// Forgets brokers that no route names any more.
    fn rebuild_brokers(&self) {
        let slots: Vec<_> = lock(&self.slots).values().cloned().collect();
        let routes: Vec<_> = slots.iter().filter_map(|s| lock(&s.cached).clone()).map(|c| c.route).collect();
        let all = routes.iter().flat_map(|route| &route.data.broker_datas);
        *lock(&self.brokers) = all.map(|b| (b.broker_name.clone(), addrs(&b.broker_addrs))).collect();
    }

    /// The address of a master.
    pub(crate) fn master(&self, broker: &str) -> Option<Arc<str>> {
        lock(&self.brokers).get(broker)?.get(&MASTER_ID).cloned()
    }

    /// The address of the broker with this id, or else the master's, or else any.
    pub(crate) fn replica(&self, broker: &str, id: i64) -> Option<(i64, Arc<str>)> {
        let brokers = lock(&self.brokers);
        let addrs = brokers.get(broker)?;
        let found = addrs.get_key_value(&id).or_else(|| addrs.iter().next());
        found.map(|(id, addr)| (*id, addr.clone()))
    }

    /// The name of the broker at an address.
    pub(crate) fn broker_at(&self, addr: &str) -> Option<String> {
        let brokers = lock(&self.brokers);
        let found = brokers.iter().find(|(_, addrs)| addrs.values().any(|a| **a == *addr));
        found.map(|(name, _)| name.clone())
    }

    /// The addresses of all brokers, or of all masters.
    pub(crate) fn addrs(&self, masters_only: bool) -> Vec<Arc<str>> {
        let brokers = lock(&self.brokers);
        let all = brokers.values().flatten().filter(|(id, _)| !masters_only || **id == MASTER_ID);
        all.map(|(_, addr)| addr.clone()).collect()
    }
}

fn addrs(of: &BTreeMap<i64, String>) -> Addrs {
    of.iter().map(|(id, addr)| (*id, addr.as_str().into())).collect()
}

/// What a topic gets that is made from this template.
fn as_new_topic(queues: &mut QueueData) {
    let count = queues.write_queue_nums.min(DEFAULT_TOPIC_QUEUE_NUMS);
    (queues.read_queue_nums, queues.write_queue_nums) = (count, count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmq_protocol::body::BrokerData;

    fn data(order: Option<&str>) -> TopicRouteData {
        let broker = |name: &str, id: i64| BrokerData {
            broker_name: name.to_owned(),
            broker_addrs: BTreeMap::from([(id, format!("{name}:1"))]),
            ..BrokerData::default()
        };
        let queues = |broker: &str, perm| QueueData {
            broker_name: broker.to_owned(),
            perm,
            read_queue_nums: 2,
            write_queue_nums: 1,
            topic_sys_flag: 0,
        };
        TopicRouteData {
            broker_datas: vec![broker("b", 0), broker("a", 0), broker("slave", 1)],
            queue_datas: vec![queues("b", 6), queues("a", 4), queues("slave", 6)],
            order_topic_conf: order.map(str::to_owned),
            ..TopicRouteData::default()
        }
    }

    fn names(queues: &[MessageQueue]) -> Vec<String> {
        queues.iter().map(|q| format!("{}/{}", q.broker_name, q.queue_id)).collect()
    }

    #[test]
    fn queues_by_permission_and_master() {
        let route = TopicRoute::new("t", data(None));
        assert_eq!(names(&route.publish), ["b/0"]);
        assert_eq!(names(&route.subscribe), ["a/0", "a/1", "b/0", "b/1", "slave/0", "slave/1"]);
        let ordered = TopicRoute::new("t", data(Some("b:1;gone:2;nonsense")));
        assert_eq!(names(&ordered.publish), ["b/0", "gone/0", "gone/1"]);
    }

    #[test]
    fn brokers_by_id() {
        let routes = Routes::default();
        routes.add_brokers(&data(None));
        assert_eq!(routes.master("b").as_deref(), Some("b:1"));
        assert_eq!(routes.master("slave"), None);
        assert_eq!(routes.replica("slave", 0), Some((1, "slave:1".into())));
        assert_eq!((routes.addrs(true).len(), routes.addrs(false).len()), (2, 3));
        routes.rebuild_brokers();
        assert!(routes.addrs(false).is_empty());
    }
}
