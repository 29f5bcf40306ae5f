//! A client of the model: it sends, pulls, commits and creates, and holds every answer against the model.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::Env;
use ringmq_env::sim::SimEnv;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::record::records;

use super::model::{GROUP, Model, QUEUES, TOPIC};
use super::wire::{self, Lost, Wire};

/// How long an answer may take while things go wrong.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer may take when nothing goes wrong any more.
const CALM: Duration = Duration::from_secs(30);
/// How long a pull may be held, in ms.
const SUSPEND_MS: u64 = 2_000;

/// A client with its own connection.
pub struct Client {
    env: SimEnv,
    server: SocketAddr,
    model: Rc<RefCell<Model>>,
    wire: Option<Wire>,
    limit: Duration,
    number: u32,
    next: Vec<i64>,
    topics: u32,
}

fn number(answer: &Command, name: &str) -> i64 {
    let value = answer.get(name).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

impl Client {
    /// Not connected yet.
    pub fn new(env: SimEnv, server: SocketAddr, model: Rc<RefCell<Model>>, number: u32) -> Client {
        let next = vec![0; QUEUES as usize];
        Client { env, server, model, wire: None, limit: PATIENCE, number, next, topics: 0 }
    }

    async fn call(&mut self, command: Command) -> Result<Command, Lost> {
        if self.wire.is_none() {
            self.wire = Some(Wire::connect(&self.env, self.server).await?);
        }
        let wire = self.wire.as_mut().expect("connected above");
        let answer = wire.call(command, self.limit).await;
        if answer.is_err() {
            self.wire = None;
        }
        answer
    }

    /// Works until so many operations are done, answered or not.
    pub async fn work(mut self, operations: u32) {
        for _ in 0..operations {
            if self.operation().await.is_err() {
                self.env.sleep(Duration::from_millis(50 + self.env.random() % 1000)).await;
            }
            if self.env.random().is_multiple_of(2) {
                self.env.sleep(Duration::from_micros(self.env.random() % 200_000)).await;
            }
        }
    }

    async fn operation(&mut self) -> Result<(), Lost> {
        let queue = (self.env.random() % u64::from(QUEUES)) as u32;
        match self.env.random() % 20 {
            0..10 => self.send(queue).await.map(drop),
            10..16 => self.pull(queue, SUSPEND_MS).await.map(drop),
            16 => self.create().await,
            17 => self.look_at_commit(queue).await,
            _ => self.commit(queue).await,
        }
    }

    /// Sends a message; true if it was acknowledged.
    async fn send(&mut self, queue: u32) -> Result<bool, Lost> {
        let id = self.model.borrow_mut().sends(queue);
        let answer = self.call(wire::send(TOPIC, queue, Model::body(id))).await?;
        let mut model = self.model.borrow_mut();
        match answer.code {
            response::SUCCESS => model.acknowledged(queue, number(&answer, "queueOffset"), id),
            _ => model.refused(queue, id),
        }
        Ok(answer.code == response::SUCCESS)
    }

    /// Pulls from where this client got to; true if there was something.
    async fn pull(&mut self, queue: u32, suspend_ms: u64) -> Result<bool, Lost> {
        let offset = self.next[queue as usize];
        let answer = self.call(wire::pull(GROUP, TOPIC, queue, offset, suspend_ms)).await?;
        if answer.code == response::PULL_OFFSET_MOVED || answer.code == response::PULL_RETRY_IMMEDIATELY {
            // The queue ends before: with ASYNC_FLUSH the power took what was read.
            self.next[queue as usize] = 0;
        }
        if answer.code != response::SUCCESS {
            return Ok(false);
        }
        let mut expected = offset;
        for record in records(&answer.body) {
            let record = record.unwrap_or_else(|error| panic!("queue {queue} at {expected}: {error}"));
            assert_eq!((record.topic, record.queue_id as u32), (TOPIC, queue));
            assert_eq!(record.queue_offset, expected, "queue {queue}");
            self.model.borrow_mut().read(queue, expected, record.body);
            expected += 1;
        }
        assert_eq!(number(&answer, "nextBeginOffset"), expected, "queue {queue}");
        self.next[queue as usize] = expected;
        Ok(true)
    }

    /// Commits where this client got to. Each client has a queue of its own, so that offsets only grow.
    async fn commit(&mut self, queue: u32) -> Result<(), Lost> {
        let offset = self.next[queue as usize];
        if self.number != 0 || offset == 0 {
            return Ok(());
        }
        let commit = self.model.borrow_mut().commits(queue, offset);
        let command = wire::about_queue(request::UPDATE_CONSUMER_OFFSET, GROUP, TOPIC, queue);
        let answer = self.call(command.with_ext("commitOffset", offset)).await?;
        if answer.code == response::SUCCESS {
            self.model.borrow_mut().committed(queue, commit, self.env.now());
        }
        Ok(())
    }

    async fn look_at_commit(&mut self, queue: u32) -> Result<(), Lost> {
        let command = wire::about_queue(request::QUERY_CONSUMER_OFFSET, GROUP, TOPIC, queue);
        let answer = self.call(command.with_ext("setZeroIfNotFound", false)).await?;
        match answer.code {
            response::SUCCESS => self.model.borrow().found_commit(queue, Some(number(&answer, "offset"))),
            response::QUERY_NOT_FOUND => self.model.borrow().found_commit(queue, None),
            _ => {}
        }
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Lost> {
        self.topics += 1;
        let topic = format!("topic-{}-{}", self.number, self.topics);
        let answer = self.call(wire::create_topic(&topic, 2)).await?;
        if answer.code == response::SUCCESS {
            self.model.borrow_mut().topics.insert(topic);
        }
        Ok(())
    }

    /// Creates what all clients use; again until it is there.
    pub async fn prepare(&mut self) {
        loop {
            let topic = self.call(wire::create_topic(TOPIC, QUEUES)).await;
            let group = self.call(wire::create_group(GROUP)).await;
            if [topic, group].iter().all(|a| a.as_ref().is_ok_and(|answer| answer.code == response::SUCCESS))
            {
                return;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nothing goes wrong any more: everything is answered, everything known is there, and what is sent now is read.
    pub async fn check_all(&mut self) {
        (self.limit, self.wire) = (CALM, None);
        for queue in 0..QUEUES {
            self.look_at_commit(queue).await.expect("an answer about the committed offset");
            let mut tries = 0;
            while !self.send(queue).await.expect("an answer to a send") {
                tries += 1;
                assert!(tries < 60, "sends to queue {queue} are still refused");
                self.env.sleep(Duration::from_secs(1)).await;
            }
            self.next[queue as usize] = 0;
            while self.pull(queue, 0).await.expect("an answer to a pull") {}
            let max = self.call(wire::about_queue(request::GET_MAX_OFFSET, GROUP, TOPIC, queue)).await;
            let max = number(&max.expect("an answer about the end"), "offset");
            assert_eq!(max, self.next[queue as usize], "queue {queue} is readable to its end");
            self.model.borrow().read_whole(queue, max);
        }
        let topics = self.model.borrow().topics.clone();
        for topic in topics {
            let command = Command::request(request::GET_TOPIC_CONFIG, 0).with_ext("topic", &topic);
            let answer = self.call(command).await.expect("an answer about a topic");
            assert_eq!(answer.code, response::SUCCESS, "{topic} is lost: {answer:?}");
        }
    }

    /// The name server tells where the topic is, within a minute.
    pub async fn check_route(&mut self, namesrv: SocketAddr) {
        for _ in 0..60 {
            if let Ok(mut wire) = Wire::connect(&self.env, namesrv).await {
                let route = Command::request(request::GET_ROUTEINFO_BY_TOPIC, 0).with_ext("topic", TOPIC);
                if wire.call(route, CALM).await.is_ok_and(|answer| answer.code == response::SUCCESS) {
                    return;
                }
            }
            self.env.sleep(Duration::from_secs(1)).await;
        }
        panic!("the name server does not know the topic's broker");
    }
}
