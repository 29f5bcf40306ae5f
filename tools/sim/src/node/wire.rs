//! A client's connection: requests of the protocol over a simulated socket, each with a time limit.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::future;
use ringmq_env::sim::{SimEnv, SimReader, SimWriter};
use ringmq_env::{Env, Stream, StreamReader, StreamWriter};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Limits, peek};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Room for one read.
const READ: usize = 64 << 10;

/// The connection broke, or nothing came in time: nobody knows what became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// A connection.
pub struct Wire {
    env: SimEnv,
    reader: SimReader,
    writer: SimWriter,
    buffer: BytesMut,
    opaque: i32,
}

impl Wire {
    /// Connects to a server.
    pub async fn connect(env: &SimEnv, server: SocketAddr) -> Result<Wire, Lost> {
        let (reader, writer) = env.connect(server, CONNECT).await.map_err(|_| Lost)?.into_split();
        Ok(Wire { env: env.clone(), reader, writer, buffer: BytesMut::new(), opaque: 0 })
    }

    /// Sends a request and waits for its answer. After an error the connection is of no more use.
    pub async fn call(&mut self, command: Command, limit: Duration) -> Result<Command, Lost> {
        let env = self.env.clone();
        let late = async {
            env.sleep(limit).await;
            Err(Lost)
        };
        future::or(self.exchange(command), late).await
    }

    async fn exchange(&mut self, mut command: Command) -> Result<Command, Lost> {
        self.opaque += 1;
        command.opaque = self.opaque;
        let mut bytes = BytesMut::new();
        command.encode_json(&mut bytes);
        self.writer.write_all(&[std::io::IoSlice::new(&bytes)]).await.map_err(|_| Lost)?;
        loop {
            let answer = self.next().await?;
            if answer.is_response() && answer.opaque == self.opaque {
                return Ok(answer);
            }
        }
    }

    async fn next(&mut self) -> Result<Command, Lost> {
        loop {
            let size = peek(&self.buffer, &Limits::default()).expect("what a broker sends are frames");
            if let Some(size) = size.filter(|size| self.buffer.len() >= *size) {
                let mut frame = self.buffer.split_to(size);
                return Ok(Command::decode(&mut frame, &Limits::default()).expect("a frame of the protocol"));
            }
            self.buffer.reserve(READ);
            match self.reader.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(Lost),
                Ok(_) => {}
            }
        }
    }
}

/// SEND_MESSAGE_V2.
pub fn send(topic: &str, queue: u32, body: Vec<u8>) -> Command {
    let fields =
        [("a", "producers"), ("b", topic), ("c", "TBW102"), ("i", ""), ("k", "false"), ("m", "false")];
    let numbers = [("d", 4), ("e", i64::from(queue)), ("f", 0), ("g", 1_700_000_000_000), ("h", 0), ("j", 0)];
    let command = Command::request(request::SEND_MESSAGE_V2, 0).with_body(body);
    let command = fields.iter().fold(command, |command, (name, value)| command.with_ext(*name, value));
    numbers.iter().fold(command, |command, (name, value)| command.with_ext(*name, value))
}

/// PULL_MESSAGE of everything.
pub fn pull(group: &str, topic: &str, queue: u32, offset: i64, suspend_ms: u64) -> Command {
    about_queue(request::PULL_MESSAGE, group, topic, queue)
        .with_ext("queueOffset", offset)
        .with_ext("maxMsgNums", 32)
        .with_ext("sysFlag", if suspend_ms > 0 { 6 } else { 4 })
        .with_ext("commitOffset", 0)
        .with_ext("suspendTimeoutMillis", suspend_ms)
        .with_ext("subscription", "*")
        .with_ext("subVersion", 0)
        .with_ext("expressionType", "TAG")
}

/// A request of a group about a queue.
pub fn about_queue(code: i32, group: &str, topic: &str, queue: u32) -> Command {
    Command::request(code, 0)
        .with_ext("consumerGroup", group)
        .with_ext("topic", topic)
        .with_ext("queueId", queue)
}

/// UPDATE_AND_CREATE_TOPIC.
pub fn create_topic(topic: &str, queues: u32) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC, 0)
        .with_ext("topic", topic)
        .with_ext("defaultTopic", "TBW102")
        .with_ext("readQueueNums", queues)
        .with_ext("writeQueueNums", queues)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("topicSysFlag", 0)
        .with_ext("order", false)
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP.
pub fn create_group(group: &str) -> Command {
    let body = format!("{{\"groupName\":\"{group}\"}}");
    Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0).with_body(body)
}
