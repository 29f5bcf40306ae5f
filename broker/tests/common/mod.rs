//! A broker in the simulator, and a client that speaks the protocol and nothing else.

#![allow(dead_code, reason = "each test binary needs a part of it")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_broker::{BrokerConfig, BrokerEvent, BrokerHandle, Machine};
use ringmq_env::sim::{Sim, SimEnv};
use ringmq_env::{Env, Stream, StreamReader, StreamWriter};
use ringmq_options::{Role, Settings};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Limits, peek};
use ringmq_protocol::record::{RecordView, records};

/// The simulated node that the broker runs on.
pub const BROKER: &str = "broker";

/// A running broker of the simulator.
pub struct TestBroker {
    pub handle: BrokerHandle,
    pub address: SocketAddr,
    pub vip: SocketAddr,
    pub metrics: Option<SocketAddr>,
}

/// A configuration for the simulator's broker, with these `key=value` on top.
pub fn config(sim: &Sim, sets: &[&str]) -> BrokerConfig {
    let mut settings = Settings::new(Role::Broker);
    let bind = format!("bind={}", sim.ip(BROKER));
    let small = ["segment-size=64MiB", "memory=512MiB", "tail-memory=16MiB", &bind];
    for set in small.iter().chain(sets) {
        settings.apply_set(set).unwrap_or_else(|error| panic!("{set}: {error}"));
    }
    let machine = Machine { cores: 2, memory: 4 << 30, cgroup_memory: None, address: None };
    BrokerConfig::from_settings(&settings, &machine).unwrap()
}

/// Starts a broker, and returns once it serves.
pub async fn start(sim: &Sim, sets: &[&str]) -> TestBroker {
    sim.node(BROKER);
    let config = config(sim, sets);
    let cores = config.cores;
    let (plan, handle) = ringmq_broker::plan(config, "");
    for core in 0..cores {
        let env = sim.node(BROKER);
        env.clone().spawn(ringmq_broker::run_core(plan.clone(), core, env));
    }
    drop(plan);
    match handle.events().recv_async().await {
        Ok(BrokerEvent::Ready(ready)) => TestBroker {
            handle,
            address: ready.listening[0],
            vip: ready.listening[1],
            metrics: ready.metrics,
        },
        other => panic!("the broker did not start: {other:?}"),
    }
}

impl TestBroker {
    /// Stops the broker, and returns once it has.
    pub async fn stop(self) {
        self.handle.stop();
        assert_eq!(self.handle.events().recv_async().await, Ok(BrokerEvent::Stopped));
    }
}

/// A connection of a client.
pub struct Client {
    reader: <<SimEnv as Env>::Stream as Stream>::Reader,
    writer: <<SimEnv as Env>::Stream as Stream>::Writer,
    buffer: BytesMut,
    opaque: i32,
    /// Commands that came while another was waited for.
    stashed: VecDeque<Command>,
}

impl Client {
    /// Connects from the simulated node of that name.
    pub async fn connect(sim: &Sim, node: &str, address: SocketAddr) -> Client {
        let env = sim.node(node);
        let stream = env.connect(address, Duration::from_secs(3)).await.unwrap();
        let (reader, writer) = stream.into_split();
        Client { reader, writer, buffer: BytesMut::new(), opaque: 0, stashed: VecDeque::new() }
    }

    /// The same; `None` when nobody listens.
    pub async fn try_connect(sim: &Sim, node: &str, address: SocketAddr) -> Option<Client> {
        let env = sim.node(node);
        let stream = env.connect(address, Duration::from_secs(3)).await.ok()?;
        let (reader, writer) = stream.into_split();
        Some(Client { reader, writer, buffer: BytesMut::new(), opaque: 0, stashed: VecDeque::new() })
    }

    /// Sends requests; `None` when the broker is gone.
    pub async fn try_send(&mut self, commands: Vec<Command>) -> Option<Vec<i32>> {
        let mut bytes = BytesMut::new();
        let mut opaques = Vec::new();
        for mut command in commands {
            self.opaque += 1;
            command.opaque = self.opaque;
            opaques.push(self.opaque);
            command.encode_json(&mut bytes);
        }
        self.write(&bytes).await.ok()?;
        Some(opaques)
    }

    /// Sends a request, and waits for its answer; `None` when the broker is gone. What else comes is dropped.
    pub async fn try_call(&mut self, command: Command) -> Option<Command> {
        let opaque = self.try_send(vec![command]).await?[0];
        loop {
            let command = self.next().await?;
            if command.is_response() && command.opaque == opaque {
                return Some(command);
            }
        }
    }

    /// Writes bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(&[std::io::IoSlice::new(bytes)]).await
    }

    /// Sends requests in one write; their opaques.
    pub async fn send_all(&mut self, commands: Vec<Command>) -> Vec<i32> {
        let mut bytes = BytesMut::new();
        let mut opaques = Vec::new();
        for mut command in commands {
            self.opaque += 1;
            command.opaque = self.opaque;
            opaques.push(self.opaque);
            command.encode_json(&mut bytes);
        }
        self.write(&bytes).await.unwrap();
        opaques
    }

    /// Sends commands with the opaques that they have: answers to the broker.
    pub async fn send_as_they_are(&mut self, commands: Vec<Command>) {
        let mut bytes = BytesMut::new();
        commands.iter().for_each(|command| command.encode_json(&mut bytes));
        self.write(&bytes).await.unwrap();
    }

    /// Sends a request, and waits for its answer.
    pub async fn call(&mut self, command: Command) -> Command {
        let opaque = self.send_all(vec![command]).await[0];
        self.answer(opaque).await
    }

    /// Waits for the answer to a request that was sent.
    pub async fn answer(&mut self, opaque: i32) -> Command {
        self.wait_for(|command| command.is_response() && command.opaque == opaque).await
    }

    /// Waits for a command of the broker's own.
    pub async fn pushed(&mut self, code: i32) -> Command {
        self.wait_for(|command| !command.is_response() && command.code == code).await
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Command) -> bool) -> Command {
        if let Some(place) = self.stashed.iter().position(&wanted) {
            return self.stashed.remove(place).unwrap();
        }
        loop {
            let command = self.next().await.expect("the broker keeps the connection");
            if wanted(&command) {
                return command;
            }
            self.stashed.push_back(command);
        }
    }

    /// The next command; `None` when the broker has closed the connection.
    pub async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(size) = peek(&self.buffer, &Limits::default()).unwrap()
                && self.buffer.len() >= size
            {
                let mut frame = self.buffer.split_to(size);
                return Some(Command::decode(&mut frame, &Limits::default()).unwrap());
            }
            self.buffer.reserve(64 << 10);
            match self.reader.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// SEND_MESSAGE_V2.
pub fn send(topic: &str, queue: i32, body: &str, properties: &str) -> Command {
    Command::request(request::SEND_MESSAGE_V2, 0)
        .with_ext("a", "producers")
        .with_ext("b", topic)
        .with_ext("c", "TBW102")
        .with_ext("d", 4)
        .with_ext("e", queue)
        .with_ext("f", 0)
        .with_ext("g", 1_700_000_000_000i64)
        .with_ext("h", 7)
        .with_ext("i", properties)
        .with_ext("j", 0)
        .with_ext("k", false)
        .with_ext("m", false)
        .with_body(body.to_owned())
}

/// UPDATE_AND_CREATE_TOPIC: four queues, and these attributes.
pub fn topic(name: &str, attributes: &str) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC, 0)
        .with_ext("topic", name)
        .with_ext("defaultTopic", "TBW102")
        .with_ext("readQueueNums", 4)
        .with_ext("writeQueueNums", 4)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("order", false)
        .with_ext("attributes", attributes)
}

/// Makes a topic of four queues with these attributes.
pub async fn create(client: &mut Client, name: &str, attributes: &str) {
    let answer = client.call(topic(name, attributes)).await;
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
}

/// PULL_MESSAGE with the subscription in the request.
pub fn pull(group: &str, topic: &str, queue: i32, offset: i64, suspend_ms: u64, expression: &str) -> Command {
    let flags = 4 | if suspend_ms > 0 { 2 } else { 0 };
    Command::request(request::PULL_MESSAGE, 0)
        .with_ext("consumerGroup", group)
        .with_ext("topic", topic)
        .with_ext("queueId", queue)
        .with_ext("queueOffset", offset)
        .with_ext("maxMsgNums", 32)
        .with_ext("sysFlag", flags)
        .with_ext("commitOffset", 0)
        .with_ext("suspendTimeoutMillis", suspend_ms)
        .with_ext("subscription", expression)
        .with_ext("subVersion", 0)
        .with_ext("expressionType", "TAG")
}

/// HEART_BEAT of a push consumer.
pub fn heartbeat(client: &str, group: &str, topic: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{client}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"CLUSTERING","subscriptionDataSet":
        [{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],
        "topic":"{topic}"}}],"unitMode":false}}],"producerDataSet":[]}}"#
    );
    Command::request(request::HEART_BEAT, 0).with_body(body)
}

/// A request about one queue.
pub fn about_queue(code: i32, topic: &str, queue: i32) -> Command {
    Command::request(code, 0).with_ext("topic", topic).with_ext("queueId", queue)
}

/// A number among an answer's ext fields.
pub fn number(answer: &Command, name: &str) -> i64 {
    answer.get(name).unwrap_or_else(|| panic!("{name} in {answer:?}")).parse().unwrap()
}

/// The bodies of the records in an answer.
pub fn bodies(answer: &Command) -> Vec<String> {
    let text = |record: RecordView<'_>| String::from_utf8(record.body.to_vec()).unwrap();
    records(&answer.body).map(|record| text(record.unwrap())).collect()
}
