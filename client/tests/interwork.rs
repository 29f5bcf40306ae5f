//! Members of one group in Java and in Rust share the queues: with every strategy that both have, whoever comes first
//! and stands first among the sorted client ids, through joins, leaves and kills. Runs when
//! `RINGMQ_TEST_NAMESRV` names a broker's name server and `RINGMQ_TEST_JAVA_LIB` a directory with the jars of
//! rocketmq-client 5.5.0 and what it depends on.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{client, lacks, unique};
use ringmq_client::admin::NewTopic;
use ringmq_client::allocate::{
    AllocateStrategy, Averagely, AveragelyByCircle, ByConfig, ByMachineRoom, ConsistentHash,
    MachineRoomNearby, MachineRoomResolver, Members,
};
use ringmq_client::{
    Batch, Client, ClientConfig, Compression, ConsumeFrom, Consumed, Message, MessageQueue, PushConsumer,
};

/// An odd number, so that shares are uneven.
const QUEUES: i32 = 7;
/// How long a change of members may take to be seen everywhere, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);
/// All of it.
const WHOLE: Duration = Duration::from_secs(300);
/// The last one has the broker divide the queues.
const STRATEGIES: [&str; 7] =
    ["AVG", "AVG_BY_CIRCLE", "CONSISTENT_HASH", "MACHINE_ROOM", "MACHINE_ROOM_NEARBY", "CONFIG", "BROKER"];

/// Names of queues, and bodies of messages.
type Names = BTreeSet<String>;

fn name(queue: &MessageQueue) -> String {
    format!("{}/{}", queue.broker_name, queue.queue_id)
}

/// Queues with even ids are in Java's room.
#[derive(Debug)]
struct Rooms;

impl MachineRoomResolver for Rooms {
    fn broker_room(&self, queue: &MessageQueue) -> Option<String> {
        Some(if queue.queue_id % 2 == 0 { "java" } else { "rust" }.to_owned())
    }

    fn client_room(&self, client_id: &str) -> Option<String> {
        Some(if client_id.contains("java") { "java" } else { "rust" }.to_owned())
    }
}

/// One group with two members.
struct Case {
    strategy: &'static str,
    java_first: bool,
    java_leads: bool,
    group: String,
    queues: Vec<MessageQueue>,
    rust: Mutex<Option<PushConsumer>>,
    got: Arc<Mutex<Names>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Java,
    Rust,
}

impl Case {
    /// A client of its own: of a client that stays for other groups, a heartbeat that crosses with the farewell of one
    /// brings the group back, and brokers keep it for two minutes.
    fn java_instance(&self) -> String {
        format!("{}_java_{}", if self.java_leads { "a" } else { "z" }, self.group)
    }

    /// The Rust client that it is in; the first one is killed.
    fn client(&self) -> usize {
        usize::from(!self.java_leads)
    }

    fn first(&self) -> Who {
        if self.java_first { Who::Java } else { Who::Rust }
    }

    fn second(&self) -> Who {
        if self.java_first { Who::Rust } else { Who::Java }
    }

    fn half(&self, of: Who) -> Vec<MessageQueue> {
        let odd = i32::from(of == Who::Rust);
        self.queues.iter().filter(|queue| queue.queue_id % 2 == odd).cloned().collect()
    }

    fn strategy(&self, of: Who) -> Arc<dyn AllocateStrategy> {
        match self.strategy {
            "AVG_BY_CIRCLE" => Arc::new(AveragelyByCircle),
            "CONSISTENT_HASH" => Arc::new(ConsistentHash::default()),
            "MACHINE_ROOM" => Arc::new(ByMachineRoom { rooms: ["room".to_owned()].into() }),
            "MACHINE_ROOM_NEARBY" => Arc::new(MachineRoomNearby { inner: Averagely, resolver: Rooms }),
            "CONFIG" => Arc::new(ByConfig { queues: self.half(of) }),
            _ => Arc::new(Averagely),
        }
    }

    /// What a member must have when these are the members.
    fn expected(&self, of: Who, members: &[Who]) -> Names {
        let id = |who: Who| match who {
            Who::Java => format!("127.0.0.1@{}", self.java_instance()),
            Who::Rust => format!("127.0.0.1@{}", instance(self.client())),
        };
        let mut clients: Vec<String> = members.iter().copied().map(id).collect();
        clients.sort();
        let asked =
            Members { group: &self.group, client_id: &id(of), queues: &self.queues, clients: &clients };
        self.strategy(of).allocate(&asked).unwrap().iter().map(name).collect()
    }

    fn rust_has(&self, topic: &str) -> Names {
        let queues = self.rust.lock().unwrap().as_ref().map(PushConsumer::queues).unwrap_or_default();
        queues.iter().filter(|queue| queue.topic == topic).map(name).collect()
    }
}

/// Each kind in its turn, so that Java has them all to unpack.
fn packing(turn: i32) -> Compression {
    match turn % 3 {
        #[cfg(feature = "lz4")]
        1 => Compression::Lz4,
        #[cfg(feature = "zstd")]
        2 => Compression::Zstd,
        _ => Compression::Zlib,
    }
}

fn instance(client: usize) -> String {
    format!("m_rust_{client}")
}

/// What the Java members print.
#[derive(Default)]
struct Printed {
    queues: BTreeMap<String, Names>,
    got: BTreeMap<String, Names>,
}

impl Printed {
    fn line(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (kind, group, rest) = (words.next(), words.next().unwrap_or_default(), words.next());
        let rest = rest.unwrap_or_default();
        match kind {
            Some("q") => {
                let queues = rest.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
                self.queues.insert(group.to_owned(), queues.collect());
            }
            Some("m") => {
                self.got.entry(group.to_owned()).or_default().insert(rest.to_owned());
            }
            _ => {}
        }
    }
}

/// The Java members, all in one process; killed when the test ends.
struct Java {
    process: Child,
    input: Mutex<ChildStdin>,
    printed: Arc<Mutex<Printed>>,
}

impl Drop for Java {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Java {
    fn start(lib: &str) -> Java {
        let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
        let mut process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-Drocketmq.client.rebalance.waitInterval=1000"])
            .args(["-cp", &format!("{lib}/*"), "tests/java/Member.java", &name_servers])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let printed = Arc::new(Mutex::new(Printed::default()));
        let reader = printed.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| reader.lock().unwrap().line(&line));
        });
        Java { input: Mutex::new(process.stdin.take().unwrap()), process, printed }
    }

    fn tell(&self, line: &str) {
        writeln!(self.input.lock().unwrap(), "{line}").unwrap();
    }

    fn has(&self, group: &str) -> Names {
        self.printed.lock().unwrap().queues.get(group).cloned().unwrap_or_default()
    }

    fn got(&self, group: &str) -> Names {
        self.printed.lock().unwrap().got.get(group).cloned().unwrap_or_default()
    }
}

struct World {
    topic: String,
    java: Java,
    clients: Vec<Option<Client>>,
    cases: Vec<Case>,
}

impl World {
    async fn join(&self, case: &Case, who: Who) {
        match who {
            Who::Java => {
                let (strategy, instance) = (case.strategy, case.java_instance());
                let config: Vec<String> = case.half(who).iter().map(name).collect();
                let (group, topic, config) = (&case.group, &self.topic, config.join(","));
                self.java.tell(&format!("join {group} {topic} {strategy} {instance} {config}"));
            }
            Who::Rust => {
                let client = self.clients[case.client()].as_ref().unwrap();
                let got = case.got.clone();
                let builder = client.push_consumer(&case.group).subscribe(&self.topic, "*");
                let builder = builder.consume_from(ConsumeFrom::FirstOffset).allocate(case.strategy(who));
                let builder = builder.client_rebalance(case.strategy != "BROKER");
                let builder = builder.rebalance_interval(Duration::from_secs(1));
                let consumer = builder.start(move |batch: Batch| {
                    let texts = batch.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap());
                    got.lock().unwrap().extend(texts);
                    async { Consumed::All }
                });
                *case.rust.lock().unwrap() = Some(consumer.await.unwrap());
            }
        }
    }

    async fn leave(&self, case: &Case, who: Who) {
        match who {
            Who::Java => self.java.tell(&format!("leave {}", case.group)),
            Who::Rust => {
                let consumer = case.rust.lock().unwrap().take();
                consumer.unwrap().shutdown().await;
            }
        }
    }

    fn has(&self, case: &Case, who: Who) -> Names {
        match who {
            Who::Java => self.java.has(&case.group),
            Who::Rust => case.rust_has(&self.topic),
        }
    }

    /// Waits until each member of these cases has what the strategy gives it, all at one moment.
    async fn shared<'a>(&self, what: &str, cases: impl IntoIterator<Item = (&'a Case, Vec<Who>)>) {
        for (case, members) in cases {
            let began = tokio::time::Instant::now();
            loop {
                let wrong =
                    members.iter().find(|who| self.has(case, **who) != case.expected(**who, &members));
                let Some(who) = wrong else { break };
                assert!(
                    began.elapsed() < LIMIT,
                    "{what}, {}, java first {}, java leads {}: {who:?} has {:?}, not {:?}",
                    case.strategy,
                    case.java_first,
                    case.java_leads,
                    self.has(case, *who),
                    case.expected(*who, &members)
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Sends to each queue; returns what was sent, by queue.
    async fn send(&self, round: &str) -> BTreeMap<String, String> {
        let client = self.clients.iter().flatten().next().unwrap();
        let mut sent = BTreeMap::new();
        for queue in &self.cases[0].queues {
            let body = format!("{round}:{}", name(queue));
            let producer = client.producer("client_test").compression(packing(queue.queue_id), 1);
            let producer = producer.start().unwrap();
            producer.send_to(Message::new(&self.topic, body.clone()).unwrap(), queue).await.unwrap();
            sent.insert(name(queue), body);
        }
        sent
    }

    /// Waits until the members of these cases got the messages of their queues.
    async fn received<'a>(
        &self,
        sent: &BTreeMap<String, String>,
        cases: impl IntoIterator<Item = (&'a Case, Vec<Who>)>,
    ) {
        for (case, members) in cases {
            for who in &members {
                let mine: Names =
                    case.expected(*who, &members).iter().map(|queue| sent[queue].clone()).collect();
                let began = tokio::time::Instant::now();
                loop {
                    let got = match who {
                        Who::Java => self.java.got(&case.group),
                        Who::Rust => case.got.lock().unwrap().clone(),
                    };
                    if got.is_superset(&mine) {
                        break;
                    }
                    assert!(began.elapsed() < LIMIT, "{}: {who:?} got {got:?} of {mine:?}", case.strategy);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn topic(client: &Client) -> Vec<MessageQueue> {
    let topic = NewTopic { queues: QUEUES, ..NewTopic::new(unique("client_mixed")) };
    client.admin().create_topic(&topic).await.unwrap();
    loop {
        match client.admin().queues(&topic.name).await {
            Ok(queues) => return queues,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn cases(queues: &[MessageQueue]) -> Vec<Case> {
    // The strategy finds a queue's room in its broker's name.
    let rooms = queues[0].broker_name.starts_with("room@");
    let mut cases = Vec::new();
    let possible = |strategy: &&str| match *strategy {
        "MACHINE_ROOM" => rooms,
        "BROKER" => !lacks("assignment"),
        _ => true,
    };
    for strategy in STRATEGIES.into_iter().filter(possible) {
        let orders: &[(bool, bool)] = match strategy {
            "AVG" => &[(false, false), (false, true), (true, false), (true, true)],
            _ => &[(false, false), (true, true)],
        };
        for &(java_first, java_leads) in orders {
            let (rust, got, queues) = (Mutex::default(), Arc::default(), queues.to_vec());
            let group = unique(&format!("g_{}", cases.len()));
            cases.push(Case { strategy, java_first, java_leads, group, queues, rust, got });
        }
    }
    cases
}

async fn rust_client(number: usize) -> Option<Client> {
    let mut config = ClientConfig::new(&std::env::var("RINGMQ_TEST_NAMESRV").unwrap());
    config.instance_name = instance(number);
    Some(Client::connect(config).await.unwrap())
}

#[tokio::test]
async fn java_and_rust_share_groups() {
    let (Ok(lib), Some(client)) = (std::env::var("RINGMQ_TEST_JAVA_LIB"), client().await) else { return };
    let queues = topic(&client).await;
    client.shutdown().await;
    let clients = vec![rust_client(0).await, rust_client(1).await];
    let (java, topic) = (Java::start(&lib), queues[0].topic.clone());
    let world = World { topic, java, clients, cases: cases(&queues) };
    tokio::time::timeout(WHOLE, share(world)).await.expect("the test hangs");
}

async fn share(mut world: World) {
    let both = || vec![Who::Java, Who::Rust];
    for case in &world.cases {
        world.join(case, case.first()).await;
    }
    world.shared("the first is alone", world.cases.iter().map(|case| (case, vec![case.first()]))).await;
    for case in &world.cases {
        world.join(case, case.second()).await;
    }
    world.shared("the second came", world.cases.iter().map(|case| (case, both()))).await;
    let sent = world.send("both").await;
    world.received(&sent, world.cases.iter().map(|case| (case, both()))).await;

    for case in &world.cases {
        world.leave(case, case.first()).await;
    }
    world.shared("the first left", world.cases.iter().map(|case| (case, vec![case.second()]))).await;
    for case in &world.cases {
        world.join(case, case.first()).await;
    }
    world.shared("it came back", world.cases.iter().map(|case| (case, both()))).await;

    // A client that is dropped says nothing to anybody: to brokers it is as dead as a killed one.
    for case in world.cases.iter().filter(|case| case.client() == 0) {
        case.rust.lock().unwrap().take();
    }
    world.clients[0].take();
    let survivors = |who: Who, client| {
        world.cases.iter().filter(move |case| case.client() == client).map(move |case| (case, vec![who]))
    };
    world.shared("Rust was killed", survivors(Who::Java, 0)).await;
    let sent = world.send("java").await;
    world.received(&sent, survivors(Who::Java, 0)).await;
    world.java.process.kill().unwrap();
    let survivors =
        || world.cases.iter().filter(|case| case.client() == 1).map(|case| (case, vec![Who::Rust]));
    world.shared("Java was killed", survivors()).await;
    let sent = world.send("rust").await;
    world.received(&sent, survivors()).await;
    for case in world.cases.iter().filter(|case| case.client() == 1) {
        world.leave(case, Who::Rust).await;
    }
    world.clients[1].take().unwrap().shutdown().await;
}
