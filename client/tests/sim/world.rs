//! A cluster, a group, a producer, and trouble.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_client::consumer::RetryDelay;
use ringmq_client::{
    Batch, Client, ClientConfig, ConsumeFrom, Consumed, ConsumedOrderly, Message, MessageQueue, PushConsumer,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::broker::{self, Broker, QUEUES};
use super::net::{Host, Hub, SimClock};

const TOPIC: &str = "t";
const GROUP: &str = "g";
const BROKERS: [&str; 2] = ["a", "b"];
/// Most members of the group.
const MOST: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Concurrent,
    Orderly,
}

/// What happened.
#[derive(Default)]
struct Facts {
    /// Bodies that a broker has acknowledged.
    sent: BTreeSet<String>,
    /// Bodies that a listener was done with.
    done: BTreeSet<String>,
    /// Of each queue, the offsets that a listener was done with.
    offsets: BTreeMap<MessageQueue, BTreeSet<i64>>,
    /// How many listeners are at work on a queue.
    working: HashMap<MessageQueue, usize>,
    exclusive: bool,
    sending: bool,
}

type Shared = Arc<Mutex<Facts>>;

/// A listener at work on a queue.
struct Working(Shared, MessageQueue);

impl Working {
    /// Says which rule a listener would break that gets this batch now.
    fn begin(facts: &Shared, batch: &Batch) -> Result<Working, String> {
        let mut now = facts.lock().unwrap();
        let (queue, first) = (batch.queue().clone(), batch[0].queue_offset);
        let working = now.working.entry(queue.clone()).or_default();
        *working += 1;
        let alone = *working == 1;
        let guard = Working(facts.clone(), queue.clone());
        let missing = {
            let done = now.offsets.entry(queue.clone()).or_default();
            (0..first).find(|offset| !done.contains(offset))
        };
        let exclusive = now.exclusive;
        drop(now);
        match missing {
            Some(missing) => Err(format!("{queue:?}: {first} was given out before {missing} was done")),
            None if exclusive && !alone => Err(format!("{queue:?}: two listeners at work")),
            None => Ok(guard),
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        *self.0.lock().unwrap().working.get_mut(&self.1).unwrap() -= 1;
    }
}

fn done(facts: &Shared, batch: &Batch) {
    let mut facts = facts.lock().unwrap();
    for message in batch.iter() {
        facts.done.insert(String::from_utf8(message.body.to_vec()).unwrap());
        facts.offsets.entry(batch.queue().clone()).or_default().insert(message.queue_offset);
    }
}

struct Member {
    host: String,
    client: Client,
    consumer: PushConsumer,
}

pub struct World {
    kind: Kind,
    hub: Hub,
    brokers: Vec<Broker>,
    members: Vec<Member>,
    facts: Shared,
    began: Instant,
    hosts: usize,
    /// Rules that were broken.
    broken: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub async fn new(kind: Kind) -> World {
        let hub = Hub::default();
        broker::start_name_server(&hub, &BROKERS);
        let brokers = BROKERS.map(|name| Broker::new(&hub, name)).to_vec();
        brokers.iter().for_each(Broker::start);
        World {
            kind,
            hub,
            brokers,
            members: Vec::new(),
            facts: Shared::default(),
            began: Instant::now(),
            hosts: 0,
            broken: Arc::default(),
        }
    }

    /// From now on, two listeners at one queue break a rule.
    pub fn exclusive(&self) {
        self.facts.lock().unwrap().exclusive = true;
    }

    pub fn queue_count(&self) -> usize {
        BROKERS.len() * QUEUES as usize
    }

    /// The queues of the topic that the members have, all together.
    pub fn queues(&self) -> Vec<MessageQueue> {
        let queues = self.members.iter().flat_map(|member| member.consumer.queues());
        queues.filter(|queue| queue.topic == TOPIC).collect()
    }

    async fn client(&mut self) -> (String, Client) {
        self.hosts += 1;
        let name = format!("host{:03}", self.hosts);
        let mut config = ClientConfig::new("ns:9876");
        config.instance_name = name.clone();
        config.network = Arc::new(Host { hub: self.hub.clone(), name: name.clone() });
        config.clock = Arc::new(SimClock(self.began));
        (name, Client::connect(config).await.unwrap())
    }

    /// Another member joins.
    pub async fn join(&mut self) {
        let (host, client) = self.client().await;
        let (facts, broken) = (self.facts.clone(), self.broken.clone());
        let builder = client.push_consumer(GROUP).subscribe(TOPIC, "*").suspend(Duration::from_millis(100));
        let builder = builder.consume_from(ConsumeFrom::FirstOffset);
        let consumer = match self.kind {
            Kind::Concurrent => builder.start(move |batch: Batch| concurrent(facts.clone(), batch)).await,
            Kind::Orderly => {
                builder.start_orderly(move |batch: Batch| orderly(facts.clone(), broken.clone(), batch)).await
            }
        };
        self.members.push(Member { host, client, consumer: consumer.unwrap() });
    }

    /// A member goes, in order or by death.
    pub async fn leave(&mut self, in_order: bool) {
        let member = self.members.swap_remove(fastrand::usize(..self.members.len()));
        match in_order {
            true => member.consumer.shutdown().await,
            false => drop(member.consumer),
        }
        member.client.shutdown().await;
    }

    /// Sends all the time, in the background.
    pub fn send_for(&mut self, time: Duration) {
        let mut config = ClientConfig::new("ns:9876");
        config.network = Arc::new(Host { hub: self.hub.clone(), name: "producer".to_owned() });
        config.clock = Arc::new(SimClock(self.began));
        let facts = self.facts.clone();
        facts.lock().unwrap().sending = true;
        tokio::spawn(async move {
            let client = Client::connect(config).await.unwrap();
            let producer = client.producer("p").start().unwrap();
            let (began, mut number) = (Instant::now(), 0);
            while began.elapsed() < time {
                // Several at a time, so that queues hold more than one.
                let mut sends = JoinSet::new();
                for _ in 0..fastrand::usize(1..12) {
                    number += 1;
                    let (producer, body) = (producer.clone(), format!("{number:05}"));
                    sends.spawn(async move {
                        // What was not acknowledged may come, and need not.
                        let sent = producer.send(Message::new(TOPIC, body.clone()).unwrap()).await;
                        sent.is_ok().then_some(body)
                    });
                }
                let sent = sends.join_all().await;
                facts.lock().unwrap().sent.extend(sent.into_iter().flatten());
                sleep(Duration::from_millis(fastrand::u64(100..1500))).await;
            }
            facts.lock().unwrap().sending = false;
            client.shutdown().await;
        });
    }

    /// Faults, one after the other and sometimes together; none is left at the end.
    pub async fn trouble(&mut self, time: Duration, restarts: bool) {
        let began = Instant::now();
        while began.elapsed() < time {
            sleep(Duration::from_millis(fastrand::u64(1000..10_000))).await;
            match fastrand::u32(..5) {
                0 => self.partition(),
                1 if restarts => self.restart(),
                2 if self.members.len() > 1 => self.leave(true).await,
                3 if self.members.len() > 1 => self.leave(false).await,
                _ if self.members.len() < MOST => self.join().await,
                _ => self.partition(),
            }
        }
        // The longest fault is over by then.
        sleep(Duration::from_secs(45)).await;
        self.hub.mend_all();
    }

    /// One member and one broker do not reach each other for a while.
    fn partition(&self) {
        let host = self.members[fastrand::usize(..self.members.len())].host.clone();
        let addr = broker::addr(BROKERS[fastrand::usize(..BROKERS.len())]);
        self.hub.cut(&host, &addr);
        let hub = self.hub.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(fastrand::u64(500..40_000))).await;
            hub.mend(&host, &addr);
        });
    }

    fn restart(&self) {
        let broker = self.brokers[fastrand::usize(..self.brokers.len())].clone();
        broker.crash();
        tokio::spawn(async move {
            sleep(Duration::from_millis(fastrand::u64(200..10_000))).await;
            broker.start();
        });
    }

    /// Waits until every message that a broker acknowledged was consumed.
    pub async fn all_consumed(&self, bound: Duration) {
        let began = Instant::now();
        loop {
            let lost: Vec<String> = {
                let facts = self.facts.lock().unwrap();
                match facts.sending {
                    true => vec!["still sending".to_owned()],
                    false => facts.sent.difference(&facts.done).cloned().collect(),
                }
            };
            if lost.is_empty() {
                break;
            }
            assert!(began.elapsed() < bound, "after {bound:?}, not consumed: {lost:?}");
            sleep(Duration::from_millis(100)).await;
        }
        assert!(self.facts.lock().unwrap().sent.len() > 30, "too little was sent to show anything");
        assert_eq!(*self.broken.lock().unwrap(), Vec::<String>::new());
    }

    /// Everybody leaves in order; what is committed then is what was done.
    pub async fn end(&mut self) {
        while !self.members.is_empty() {
            self.leave(true).await;
        }
        let facts = self.facts.lock().unwrap();
        for broker in &self.brokers {
            for ((topic, queue_id), committed) in broker.committed(GROUP) {
                if topic != TOPIC || self.kind == Kind::Concurrent {
                    continue;
                }
                let queue = MessageQueue { broker_name: broker.name.to_owned(), queue_id, topic };
                let done = facts.offsets.get(&queue).map_or(0, |offsets| offsets.len() as i64);
                assert!(committed <= done, "{queue:?}: {committed} of {done} are committed");
            }
        }
    }
}

/// Takes a moment or longer; fails sometimes.
async fn concurrent(facts: Shared, batch: Batch) -> Consumed {
    sleep(Duration::from_millis(fastrand::u64(0..3000))).await;
    match fastrand::u32(..20) {
        0 => Consumed::Failed(RetryDelay::Growing),
        1 => panic!("a listener's own fault"),
        _ => {
            done(&facts, &batch);
            Consumed::All
        }
    }
}

async fn orderly(facts: Shared, broken: Arc<Mutex<Vec<String>>>, batch: Batch) -> ConsumedOrderly {
    let _working = match Working::begin(&facts, &batch) {
        Ok(working) => working,
        Err(rule) => {
            broken.lock().unwrap().push(rule);
            return ConsumedOrderly::All;
        }
    };
    sleep(Duration::from_millis(fastrand::u64(0..50))).await;
    if fastrand::u32(..10) == 0 {
        return ConsumedOrderly::Suspend(None);
    }
    done(&facts, &batch);
    ConsumedOrderly::All
}
