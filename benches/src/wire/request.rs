//! Requests as templates: a frame is built once, and only its changing digits are written for each request.

use memchr::memmem;

use super::{GET_MAX_OFFSET, OPAQUE_BASE, OPAQUE_DIGITS, PULL_MESSAGE, frame, write_digits};

/// Least body: it starts with the time stamp from which end-to-end latency is taken.
pub const MIN_BODY: usize = 8;

const SEND_MESSAGE_V2: i32 = 310;
const SEND_BATCH_MESSAGE: i32 = 320;
const GET_BROKER_RUNTIME_INFO: i32 = 28;
/// Digits of the number behind a topic's name.
const TOPIC_DIGITS: usize = 6;
/// Digits of the message's number in its unique key.
const UNIQUE_DIGITS: usize = 16;
const OFFSET_DIGITS: usize = 15;
const UNIQUE_KEY: &str = "7F0000010000018B0000000000000000";

/// What is sent.
#[derive(Clone, Debug)]
pub struct SendShape<'a> {
    /// Topic, or what the names of several begin with.
    pub topic: &'a str,
    /// Topics; with more than one, each name ends in its number.
    pub topics: usize,
    /// Bytes of each body, at least [`MIN_BODY`].
    pub body_len: usize,
    /// Messages of each request; more than one makes it a batch.
    pub batch: usize,
}

impl SendShape<'_> {
    /// The name of the topic with this number.
    pub fn topic_name(&self, number: usize) -> String {
        topic_name(self.topic, self.topics, number)
    }
}

fn topic_name(topic: &str, topics: usize, number: usize) -> String {
    if topics > 1 { format!("{topic}{number:0TOPIC_DIGITS$}") } else { topic.to_owned() }
}

/// A send request in which opaque, topic number, queue, unique keys and time stamps change.
pub struct SendTemplate {
    bytes: Vec<u8>,
    opaque_at: usize,
    queue_at: usize,
    topic_at: Option<usize>,
    /// Where each message's number goes.
    unique_at: Vec<usize>,
    /// Where each body begins.
    bodies_at: Vec<usize>,
}

impl SendTemplate {
    /// A template for all requests of this shape.
    pub fn new(shape: &SendShape<'_>) -> SendTemplate {
        assert!(shape.body_len >= MIN_BODY, "a body holds at least its time stamp");
        let (code, properties, body) = if shape.batch > 1 {
            (SEND_BATCH_MESSAGE, String::new(), batch_body(shape))
        } else {
            (SEND_MESSAGE_V2, json_properties(), body(shape.body_len))
        };
        let bytes = frame(&send_header(code, &shape.topic_name(0), &properties, shape.batch > 1), &body);
        let after =
            |needle: &str| memmem::find(&bytes, needle.as_bytes()).expect("in the template") + needle.len();
        let (opaque_at, queue_at) = (after("\"opaque\":"), after("\"e\":\""));
        let topic_at = (shape.topics > 1).then(|| after(&format!("\"b\":\"{}", shape.topic)));
        let unique = memmem::find_iter(&bytes, UNIQUE_KEY).map(|at| at + UNIQUE_KEY.len() - UNIQUE_DIGITS);
        let unique_at: Vec<usize> = unique.collect();
        let first_body = bytes.len() - body.len() + if shape.batch > 1 { BATCH_HEAD } else { 0 };
        let stride = BATCH_HEAD + shape.body_len + 2 + raw_properties().len();
        let bodies_at = (0..shape.batch).map(|n| first_body + n * stride).collect();
        SendTemplate { opaque_at, queue_at, topic_at, unique_at, bodies_at, bytes }
    }

    /// Appends one request. `slot` comes back in [`super::Answer::slot`]; `number` is the first message's;
    /// `stamp_ns` goes into every body.
    pub fn write(&self, slot: u32, topic: usize, queue: u32, number: u64, stamp_ns: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        write_digits(&mut request[self.opaque_at..][..OPAQUE_DIGITS], u64::from(OPAQUE_BASE + slot));
        write_digits(&mut request[self.queue_at..][..2], u64::from(queue));
        if let Some(at) = self.topic_at {
            write_digits(&mut request[at..][..TOPIC_DIGITS], topic as u64);
        }
        for (at, number) in self.unique_at.iter().zip(number..) {
            write_digits(&mut request[*at..][..UNIQUE_DIGITS], number);
        }
        for at in &self.bodies_at {
            request[*at..][..8].copy_from_slice(&stamp_ns.to_be_bytes());
        }
    }
}

fn send_header(code: i32, topic: &str, properties: &str, batch: bool) -> String {
    format!(
        "{{\"code\":{code},\"extFields\":{{\"a\":\"bench_producer\",\"b\":\"{topic}\",\"c\":\"TBW102\",\"d\":\"8\",\
         \"e\":\"00\",\"f\":\"0\",\"g\":\"1700000000000\",\"h\":\"0\",\"i\":\"{properties}\",\"j\":\"0\",\
         \"k\":\"false\",\"m\":\"{batch}\"}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{OPAQUE_BASE},\
         \"serializeTypeCurrentRPC\":\"JSON\",\"version\":401}}"
    )
}

fn json_properties() -> String {
    raw_properties().replace('\u{1}', "\\u0001").replace('\u{2}', "\\u0002")
}

fn raw_properties() -> String {
    format!("UNIQ_KEY\u{1}{UNIQUE_KEY}\u{2}WAIT\u{1}true\u{2}")
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + (i * 7 % 26) as u8).collect()
}

/// Bytes before the body of a message in a batch: size, magic, CRC, flag, body length.
const BATCH_HEAD: usize = 20;

fn batch_body(shape: &SendShape<'_>) -> Vec<u8> {
    let (body, properties) = (body(shape.body_len), raw_properties());
    let size = BATCH_HEAD + body.len() + 2 + properties.len();
    let mut message = Vec::with_capacity(size);
    for number in [size as u32, 0, 0, 0, body.len() as u32] {
        message.extend_from_slice(&number.to_be_bytes());
    }
    message.extend_from_slice(&body);
    message.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    message.extend_from_slice(properties.as_bytes());
    message.repeat(shape.batch)
}

/// A pull request of one topic in which opaque, queue and offset change.
pub struct PullTemplate {
    bytes: Vec<u8>,
    opaque_at: usize,
    queue_at: usize,
    offset_at: usize,
}

impl PullTemplate {
    /// Pulls up to `max_messages` of all tags; waits at the broker for up to `wait_ms` when nothing is there.
    pub fn new(topic: &str, group: &str, max_messages: u32, wait_ms: u32) -> PullTemplate {
        // Flags: 2 wait, 4 the subscription is in the request.
        let flags = if wait_ms > 0 { 6 } else { 4 };
        let header = format!(
            "{{\"code\":{PULL_MESSAGE},\"extFields\":{{\"consumerGroup\":\"{group}\",\"topic\":\"{topic}\",\
             \"queueId\":\"00\",\"queueOffset\":\"000000000000000\",\"maxMsgNums\":\"{max_messages}\",\
             \"sysFlag\":\"{flags}\",\"commitOffset\":\"0\",\"suspendTimeoutMillis\":\"{wait_ms}\",\
             \"subscription\":\"*\",\"subVersion\":\"0\",\"expressionType\":\"TAG\"}},\"flag\":0,\
             \"language\":\"JAVA\",\"opaque\":{OPAQUE_BASE},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":401}}"
        );
        let bytes = frame(&header, &[]);
        let after =
            |needle: &str| memmem::find(&bytes, needle.as_bytes()).expect("in the template") + needle.len();
        let (opaque_at, queue_at) = (after("\"opaque\":"), after("\"queueId\":\""));
        PullTemplate { offset_at: after("\"queueOffset\":\""), opaque_at, queue_at, bytes }
    }

    /// Appends one request.
    pub fn write(&self, slot: u32, queue: u32, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let request = &mut out[start..];
        write_digits(&mut request[self.opaque_at..][..OPAQUE_DIGITS], u64::from(OPAQUE_BASE + slot));
        write_digits(&mut request[self.queue_at..][..2], u64::from(queue));
        write_digits(&mut request[self.offset_at..][..OFFSET_DIGITS], offset);
    }
}

/// Asks for the offset behind the queue's last message (`offset` of the answer).
pub fn max_offset_request(topic: &str, queue: u32) -> Vec<u8> {
    simple_request(GET_MAX_OFFSET, &format!("\"topic\":\"{topic}\",\"queueId\":\"{queue}\""))
}

/// Asks for the broker's runtime information.
pub fn runtime_info_request() -> Vec<u8> {
    simple_request(GET_BROKER_RUNTIME_INFO, "")
}

fn simple_request(code: i32, fields: &str) -> Vec<u8> {
    let header = format!(
        "{{\"code\":{code},\"extFields\":{{{fields}}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{OPAQUE_BASE},\
         \"serializeTypeCurrentRPC\":\"JSON\",\"version\":401}}"
    );
    frame(&header, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_stamped_request_carries_what_changes() {
        let shape = SendShape { topic: "T", topics: 10, body_len: 16, batch: 1 };
        let mut out = Vec::new();
        SendTemplate::new(&shape).write(77, 9, 3, 123, 0x6162, &mut out);
        let all = text(&out);
        assert!(all.contains("\"opaque\":1000000077") && all.contains("\"e\":\"03\""), "{all}");
        assert!(all.contains("\"b\":\"T000009\"") && all.contains("0000000000000123"), "{all}");
        assert_eq!(u32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
        assert_eq!(out[out.len() - 16..][..8], 0x6162_u64.to_be_bytes());
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_key_and_stamp() {
        let shape = SendShape { topic: "T", topics: 1, body_len: 32, batch: 3 };
        let mut out = Vec::new();
        SendTemplate::new(&shape).write(1, 0, 0, 41, u64::MAX, &mut out);
        let all = text(&out);
        for key in ["0000000000000041", "0000000000000042", "0000000000000043"] {
            assert!(all.contains(key), "{key}");
        }
        assert_eq!(memmem::find_iter(&out, &[0xff; 8]).count(), 3);
        assert!(all.contains("\"code\":320"));
    }

    #[test]
    fn a_pull_names_queue_and_offset() {
        let mut out = Vec::new();
        PullTemplate::new("T", "G", 32, 0).write(5, 7, 1234, &mut out);
        let all = text(&out);
        assert!(
            all.contains("\"queueId\":\"07\"") && all.contains("\"queueOffset\":\"000000000001234\""),
            "{all}"
        );
    }
}
