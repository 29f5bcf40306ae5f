//! A blocking remoting client of a few lines, and a reader of stored records, both written against the published
//! formats and not with RingMQ's own codec: a check that shares code with what it checks proves less.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

const SEND_MESSAGE_V2: i32 = 310;
const PULL_MESSAGE: i32 = 11;
const QUERY_CONSUMER_OFFSET: i32 = 14;
const UPDATE_CONSUMER_OFFSET: i32 = 15;
/// The pull's subscription stands in the request.
const PULL_WITH_SUBSCRIPTION: i32 = 4;
const FOUND: i64 = 0;
const NOT_FOUND: i64 = 19;
const RETRY_AT_ONCE: i64 = 20;
const MOVED: i64 = 21;
const QUERY_NOT_FOUND: i64 = 22;

/// A connection with one request in flight.
pub struct Client {
    stream: TcpStream,
    opaque: i32,
}

/// An answer's code, fields and body.
struct Answer {
    code: i64,
    remark: String,
    fields: Map<String, Value>,
    body: Vec<u8>,
}

/// Where a message was stored, as the broker acknowledged it.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Queue of the topic.
    pub queue: u32,
    /// Offset in the queue.
    pub offset: i64,
}

/// Why a message was not stored, as the broker said it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// RocketMQ's response code.
    pub code: i64,
    /// The broker's words.
    pub remark: String,
}

/// Queue offset and body of each.
type Messages = Vec<(i64, Vec<u8>)>;

/// What a pull found.
pub struct Pulled {
    /// Messages with their queue offsets.
    pub messages: Messages,
    /// When each of them was stored, in ms since 1970.
    pub stored_ms: Vec<i64>,
    /// Where the next pull goes on.
    pub next: i64,
    /// End of the queue.
    pub max: i64,
}

impl Client {
    /// Connects; every later read or write fails after a few seconds of silence.
    pub fn connect(addr: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream, opaque: 0 })
    }

    /// Whether the broker answers, whatever it answers.
    pub fn is_answered(&mut self) -> bool {
        let fields = json!({ "consumerGroup": "kill_loop", "topic": "Any", "queueId": "0" });
        self.call(QUERY_CONSUMER_OFFSET, fields, &[]).is_ok()
    }

    /// Sends a message and waits for its acknowledgement.
    pub fn send(&mut self, topic: &str, queue: u32, body: &[u8]) -> anyhow::Result<Stored> {
        match self.try_send(topic, queue, body)? {
            Ok(stored) => Ok(stored),
            Err(Refused { code, remark }) => bail!("the send was answered {code} {remark}"),
        }
    }

    /// Sends a message and waits for the answer, whatever it is.
    pub fn try_send(
        &mut self,
        topic: &str,
        queue: u32,
        body: &[u8],
    ) -> anyhow::Result<Result<Stored, Refused>> {
        self.try_send_with(topic, queue, body, "")
    }

    /// The same with properties, as they travel.
    pub fn try_send_with(
        &mut self,
        topic: &str,
        queue: u32,
        body: &[u8],
        properties: &str,
    ) -> anyhow::Result<Result<Stored, Refused>> {
        let fields = json!({
            "a": "kill_loop", "b": topic, "c": "TBW102", "d": "8", "e": queue.to_string(), "f": "0",
            "g": "1700000000000", "h": "0", "i": properties, "j": "0", "k": "false", "m": "false"
        });
        let answer = self.call(SEND_MESSAGE_V2, fields, body)?;
        if answer.code != 0 {
            return Ok(Err(Refused { code: answer.code, remark: answer.remark }));
        }
        let (queue, offset) = (answer.number("queueId")? as u32, answer.number("queueOffset")?);
        Ok(Ok(Stored { queue, offset }))
    }

    /// Pulls from `offset`, without waiting for new messages.
    pub fn pull(&mut self, topic: &str, queue: u32, offset: i64) -> anyhow::Result<Pulled> {
        let fields = json!({
            "consumerGroup": "kill_loop", "topic": topic, "queueId": queue.to_string(),
            "queueOffset": offset.to_string(), "maxMsgNums": "32", "sysFlag": PULL_WITH_SUBSCRIPTION.to_string(),
            "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
            "expressionType": "TAG"
        });
        let answer = self.call(PULL_MESSAGE, fields, &[])?;
        let (messages, stored_ms) = match answer.code {
            FOUND => records(&answer.body)?,
            NOT_FOUND | RETRY_AT_ONCE | MOVED => (Vec::new(), Vec::new()),
            code => bail!("the pull was answered {code} {}", answer.remark),
        };
        Ok(Pulled {
            messages,
            stored_ms,
            next: answer.number("nextBeginOffset")?,
            max: answer.number("maxOffset")?,
        })
    }

    /// Commits a consumer offset and waits for the answer.
    pub fn commit_offset(&mut self, topic: &str, queue: u32, offset: i64) -> anyhow::Result<()> {
        let fields = json!({
            "consumerGroup": "kill_loop", "topic": topic, "queueId": queue.to_string(),
            "commitOffset": offset.to_string()
        });
        let answer = self.call(UPDATE_CONSUMER_OFFSET, fields, &[])?;
        ensure!(answer.code == 0, "the offset commit was answered {} {}", answer.code, answer.remark);
        Ok(())
    }

    /// The committed consumer offset; `None` when there is none.
    pub fn committed_offset(&mut self, topic: &str, queue: u32) -> anyhow::Result<Option<i64>> {
        let fields = json!({ "consumerGroup": "kill_loop", "topic": topic, "queueId": queue.to_string() });
        let answer = self.call(QUERY_CONSUMER_OFFSET, fields, &[])?;
        match answer.code {
            0 => Ok(Some(answer.number("offset")?)),
            QUERY_NOT_FOUND => Ok(None),
            code => bail!("the offset query was answered {code} {}", answer.remark),
        }
    }

    fn call(&mut self, code: i32, fields: Value, body: &[u8]) -> anyhow::Result<Answer> {
        self.opaque += 1;
        let header = json!({
            "code": code, "extFields": fields, "flag": 0, "language": "JAVA", "opaque": self.opaque,
            "serializeTypeCurrentRPC": "JSON", "version": 401
        })
        .to_string();
        let mut frame = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(header.as_bytes());
        frame.extend_from_slice(body);
        self.stream.write_all(&frame)?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> anyhow::Result<Answer> {
        let mut lengths = [0; 8];
        self.stream.read_exact(&mut lengths)?;
        let length = u32::from_be_bytes([lengths[0], lengths[1], lengths[2], lengths[3]]) as usize;
        let header_len = u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]]) as usize;
        ensure!(
            length >= 4 + header_len && length < 1 << 26,
            "an answer of {length} with a header of {header_len}"
        );
        let mut header = vec![0; header_len];
        self.stream.read_exact(&mut header)?;
        let mut body = vec![0; length - 4 - header_len];
        self.stream.read_exact(&mut body)?;
        let header: Value = serde_json::from_slice(&header).context("the answer's header")?;
        ensure!(header["opaque"] == self.opaque, "the answer to another request: {header}");
        Ok(Answer {
            code: header["code"].as_i64().context("an answer without a code")?,
            remark: header["remark"].as_str().unwrap_or_default().to_owned(),
            fields: header["extFields"].as_object().cloned().unwrap_or_default(),
            body,
        })
    }
}

impl Answer {
    fn number(&self, name: &str) -> anyhow::Result<i64> {
        let value = self
            .fields
            .get(name)
            .and_then(Value::as_str)
            .with_context(|| format!("no {name} in the answer"))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }
}

/// Queue offset and body of each stored record, and when each was stored (v1 or v2, IPv4 or IPv6 hosts).
fn records(mut bytes: &[u8]) -> anyhow::Result<(Messages, Vec<i64>)> {
    let (mut found, mut stored) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let size = int(bytes, 0)? as usize;
        let record = bytes.get(..size).context("a record longer than the answer")?;
        let (queue_offset, sys_flag) = (long(record, 20)?, int(record, 36)?);
        let host = |bit: u32| if sys_flag & (1 << bit) != 0 { 20 } else { 8 };
        let body_at = 48 + host(4) + 8 + host(5) + 4 + 8;
        let body_len = int(record, body_at)? as usize;
        let body =
            record.get(body_at + 4..body_at + 4 + body_len).context("a body longer than its record")?;
        found.push((queue_offset, body.to_vec()));
        stored.push(long(record, 48 + host(4))?);
        bytes = &bytes[size..];
    }
    Ok((found, stored))
}

fn int(bytes: &[u8], at: usize) -> anyhow::Result<i32> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("a record that ends early")?;
    Ok(i32::from_be_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> anyhow::Result<i64> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).context("a record that ends early")?;
    Ok(i64::from_be_bytes(*bytes))
}
