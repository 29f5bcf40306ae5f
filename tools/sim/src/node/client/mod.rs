//! A client of the model: it does what producers, consumers and administrators do, and holds every answer against the
//! model.

mod admin;
mod delayed;
mod locks;
mod memory;
mod messages;
mod offsets;
mod once;
mod producer;
mod retries;
mod transactions;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::Env;
use ringmq_env::sim::SimEnv;
use ringmq_protocol::body::TopicRouteData;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::json;

use super::model::{Model, ORDERS, QueueName};
use super::wire::{Lost, Wire};
pub use producer::answer_checks;

/// How long an answer may take while things go wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// Questions that are asked at a time when nothing goes wrong any more.
const MANY: u64 = 100;
/// How long an answer may take when nothing goes wrong any more.
const CALM: Duration = Duration::from_secs(30);

/// What a client knows before it has asked anybody.
#[derive(Clone)]
pub struct Home {
    /// The broker's name.
    pub broker: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Where its metrics are.
    pub metrics: SocketAddr,
    /// Name servers, who know that too.
    pub name_servers: Vec<SocketAddr>,
    /// Nothing makes the machine, its disk or the network slow or silent: each request is answered in time, or its
    /// connection ends.
    pub is_prompt: bool,
    /// What the broker owes.
    pub model: Rc<RefCell<Model>>,
}

/// A message that this client has read and may send back.
#[derive(Clone, Copy)]
struct Seen {
    topic: &'static str,
    id: u64,
    log: i64,
    life: u64,
}

/// A half message whose transaction this client has not ended.
struct Half {
    queue: QueueName,
    id: u64,
    log: i64,
    state: i64,
    life: u64,
}

/// A timer that may be recalled.
struct Timer {
    queue: QueueName,
    id: u64,
    handle: String,
}

/// A client with its own connection.
pub struct Client {
    env: SimEnv,
    home: Home,
    wire: Option<Wire>,
    limit: Duration,
    /// Its name, for as long as nothing it asked for may still be on its way.
    id: String,
    next: BTreeMap<QueueName, i64>,
    seen: Option<Seen>,
    halves: Vec<Half>,
    timers: Vec<Timer>,
    /// Keys of messages that it may send again.
    keys: Vec<u64>,
}

fn number(answer: &Command, name: &str) -> i64 {
    let value = answer.get(name).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

impl Client {
    /// Not connected yet.
    pub fn new(env: SimEnv, home: Home) -> Client {
        let id = format!("client-{}", home.model.borrow_mut().fresh());
        Client {
            env,
            home,
            wire: None,
            limit: PATIENCE,
            id,
            next: BTreeMap::new(),
            seen: None,
            halves: Vec::new(),
            timers: Vec::new(),
            keys: Vec::new(),
        }
    }

    fn random(&self, end: u64) -> u64 {
        self.env.random() % end
    }

    fn pick<T: Copy>(&self, some: &[T]) -> T {
        some[self.random(some.len() as u64) as usize]
    }

    fn model(&self) -> std::cell::RefMut<'_, Model> {
        self.home.model.borrow_mut()
    }

    fn life(&self) -> u64 {
        self.home.model.borrow().life
    }

    /// Connects if need be, mostly to where a name server says that the broker is.
    async fn connect(&mut self) -> Result<(), Lost> {
        if self.wire.is_some() {
            return Ok(());
        }
        if !self.home.name_servers.is_empty() && self.random(4) > 0 {
            let name_server = self.pick(&self.home.name_servers.clone());
            self.look_up(name_server, ORDERS).await?;
        }
        self.wire = Some(Wire::connect(&self.env, self.home.address).await?);
        Ok(())
    }

    /// Asks a name server where the broker with the topic is; false when it does not know.
    async fn look_up(&mut self, name_server: SocketAddr, topic: &str) -> Result<bool, Lost> {
        let mut wire = Wire::connect(&self.env, name_server).await?;
        let question = Command::request(request::GET_ROUTEINFO_BY_TOPIC, 0).with_ext("topic", topic);
        let answer = wire.call(question, self.limit).await?;
        if answer.code != response::SUCCESS {
            return Ok(false);
        }
        let route: TopicRouteData = json::from_slice(&answer.body).expect("a route");
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == self.home.broker);
        let Some(master) = broker.and_then(|broker| broker.broker_addrs.get(&0)) else { return Ok(false) };
        assert_eq!(*master, self.home.address.to_string(), "where {} is", self.home.broker);
        Ok(true)
    }

    async fn call(&mut self, command: Command) -> Result<Command, Lost> {
        let mut answers = self.call_all(vec![command]).await?;
        answers.pop().ok_or(Lost)
    }

    async fn call_all(&mut self, commands: Vec<Command>) -> Result<Vec<Command>, Lost> {
        let losses = self.model().losses;
        self.connect().await?;
        let wire = self.wire.as_mut().expect("connected above");
        let codes: Vec<i32> = commands.iter().map(|command| command.code).collect();
        let mut answers = wire.call_all(commands, self.limit).await;
        let is_left = wire.is_late && self.home.is_prompt;
        assert!(
            !is_left,
            "requests {codes:?} have no answer in {:?}, and their connection is open",
            self.limit
        );
        if self.model().losses > losses {
            // An answer that was on its way when the power failed: what it says may be lost since.
            answers = Err(Lost);
        }
        if answers.is_err() {
            self.wire = None;
        }
        answers
    }

    /// As [`Client::call`], but only to the process of that life: what the request names means something to it alone.
    async fn call_in(&mut self, life: u64, command: Command) -> Result<Option<Command>, Lost> {
        self.connect().await?;
        // A connection to an earlier life is broken.
        if self.life() != life {
            return Ok(None);
        }
        self.call(command).await.map(Some)
    }

    /// Works until so many operations are done, answered or not.
    pub async fn work(mut self, operations: u32) {
        for _ in 0..operations {
            if self.operation().await.is_err() {
                self.env.sleep(Duration::from_millis(50 + self.random(1000))).await;
            }
            if self.random(2) == 0 {
                self.env.sleep(Duration::from_micros(self.random(200_000))).await;
            }
        }
    }

    async fn operation(&mut self) -> Result<(), Lost> {
        match self.random(32) {
            0..8 => self.send().await.map(drop),
            8..14 => self.pull_somewhere().await,
            14 => self.burst(2 + self.random(60)).await,
            15 => self.change_topics().await,
            16 => self.create_group().await,
            17 if self.random(4) == 0 => self.check_memory().await,
            17..19 => self.commit().await,
            19 => self.look_at_commit().await,
            20..22 => self.send_once().await.map(drop),
            22..25 => self.send_later().await,
            25 => self.recall().await,
            26 => self.send_half().await,
            27..29 => self.end_half().await,
            29 => self.send_back().await,
            30 => self.ask_much(2 + self.random(100)).await,
            _ => self.lock().await,
        }
    }

    /// Nothing goes wrong any more: everything is answered, everything owed is there, and what is sent now is read.
    pub async fn check_all(&mut self) {
        (self.limit, self.wire) = (CALM, None);
        self.check_sends().await;
        self.ask_much(MANY).await.expect("an answer to each of many questions");
        self.check_queues().await;
        self.check_offsets().await;
        self.check_names().await;
        self.check_memory().await.expect("metrics");
    }

    /// Every name server tells where the broker is, within a minute.
    pub async fn check_routes(&mut self) {
        self.limit = CALM;
        for name_server in self.home.name_servers.clone() {
            let mut tries = 0;
            while self.look_up(name_server, ORDERS).await != Ok(true) {
                tries += 1;
                assert!(tries < 60, "the name server {name_server} does not know {}", self.home.broker);
                self.env.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
