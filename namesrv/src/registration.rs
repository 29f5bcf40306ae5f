//! The body of a registration (103), plain or compressed (E.4).

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use crate::routes::{DataVersion, QueueData};

/// Most bytes that a compressed body may grow to: far more than a broker's table, far less than memory.
const MAX_INFLATED: u64 = 64 << 20;

/// What the body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    /// Version of the broker's topic table.
    pub data_version: DataVersion,
    /// Its topics.
    pub topics: BTreeMap<String, QueueData>,
    /// Whether it has static topics, whose mapping this name server does not keep.
    pub has_static_topics: bool,
}

/// Why a body is no registration.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not the JSON that is expected.
    #[error("the body is not what is expected: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a zlib stream, or one that ends early or grows beyond the limit.
    #[error("the compressed body cannot be read (at most {MAX_INFLATED} bytes): {0}")]
    Compressed(#[from] std::io::Error),
    /// A length in the compressed body is negative or larger than what is left.
    #[error("the compressed body says {length} bytes where {left} are left")]
    Length {
        /// The length field.
        length: i32,
        /// Bytes left.
        left: usize,
    },
    /// A topic line in the compressed body.
    #[error("\"{0}\" is no topic: expected a name and three numbers")]
    Topic(String),
}

#[derive(Clone, Copy, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonVersion {
    counter: i64,
    state_version: i64,
    timestamp: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JsonTopic {
    perm: i32,
    read_queue_nums: i32,
    write_queue_nums: i32,
    topic_sys_flag: i32,
}

impl Default for JsonTopic {
    fn default() -> JsonTopic {
        // TopicConfig's own defaults.
        JsonTopic { perm: 6, read_queue_nums: 16, write_queue_nums: 16, topic_sys_flag: 0 }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonWrapper {
    data_version: Option<JsonVersion>,
    topic_config_table: Option<BTreeMap<String, JsonTopic>>,
    topic_queue_mapping_info_map: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct JsonBody {
    topic_config_serialize_wrapper: Option<JsonWrapper>,
}

impl From<JsonVersion> for DataVersion {
    fn from(json: JsonVersion) -> DataVersion {
        DataVersion { counter: json.counter, state_version: json.state_version, timestamp: json.timestamp }
    }
}

impl From<JsonTopic> for QueueData {
    fn from(json: JsonTopic) -> QueueData {
        QueueData {
            read_queue_nums: json.read_queue_nums,
            write_queue_nums: json.write_queue_nums,
            perm: json.perm,
            topic_sys_flag: json.topic_sys_flag,
        }
    }
}

/// Reads a plain body; an empty one states no topics.
pub fn parse(body: &[u8]) -> Result<Topics, BodyError> {
    if body.is_empty() {
        return Ok(Topics::default());
    }
    let body: JsonBody = serde_json::from_slice(body)?;
    let wrapper = body.topic_config_serialize_wrapper.unwrap_or_default();
    let topics = wrapper.topic_config_table.unwrap_or_default();
    Ok(Topics {
        data_version: wrapper.data_version.unwrap_or_default().into(),
        topics: topics.into_iter().map(|(name, topic)| (name, topic.into())).collect(),
        has_static_topics: wrapper.topic_queue_mapping_info_map.is_some_and(|map| !map.is_empty()),
    })
}

/// Reads a DataVersion (322); an empty body is version zero.
pub fn parse_version(body: &[u8]) -> Result<DataVersion, BodyError> {
    if body.is_empty() {
        return Ok(DataVersion::default());
    }
    Ok(serde_json::from_slice::<JsonVersion>(body)?.into())
}

/// Reads the queues that an administrator states for a topic (217), with their broker names.
pub fn parse_queues(body: &[u8]) -> Result<Vec<(String, QueueData)>, BodyError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Queue {
        broker_name: String,
        #[serde(flatten)]
        topic: JsonTopic,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Route {
        #[serde(default)]
        queue_datas: Vec<Queue>,
    }
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let route: Route = serde_json::from_slice(body)?;
    Ok(route.queue_datas.into_iter().map(|queue| (queue.broker_name, queue.topic.into())).collect())
}

/// Reads a compressed body: zlib over length-prefixed parts. `with_mappings`: the sender's version ends with the
/// section of static topics.
pub fn parse_compressed(body: &[u8], with_mappings: bool) -> Result<Topics, BodyError> {
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(body).take(MAX_INFLATED + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INFLATED {
        return Err(std::io::Error::other("it grows beyond that").into());
    }
    let mut parts = Parts(&bytes);
    let version: JsonVersion = serde_json::from_slice(parts.block()?)?;
    let mut topics = BTreeMap::new();
    for _ in 0..parts.number()? {
        let (name, topic) = topic_line(parts.block()?)?;
        topics.insert(name, topic);
    }
    parts.block()?; // filter servers: nothing has used them since RocketMQ 4
    let has_static_topics = with_mappings && parts.number()? > 0;
    Ok(Topics { data_version: version.into(), topics, has_static_topics })
}

/// `name readQueues writeQueues perm …`; what follows does not matter to routes.
fn topic_line(line: &[u8]) -> Result<(String, QueueData), BodyError> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    match (number(), number(), number()) {
        (Some(read_queue_nums), Some(write_queue_nums), Some(perm)) if !name.is_empty() => {
            Ok((name, QueueData { read_queue_nums, write_queue_nums, perm, topic_sys_flag: 0 }))
        }
        _ => Err(BodyError::Topic(line.chars().take(80).collect())),
    }
}

/// Parts of an inflated body.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn number(&mut self) -> Result<i32, BodyError> {
        let left = self.0.len();
        let (number, rest) = self.0.split_first_chunk::<4>().ok_or(BodyError::Length { length: 4, left })?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*number))
    }

    fn block(&mut self) -> Result<&'a [u8], BodyError> {
        let length = self.number()?;
        let left = self.0.len();
        let size = usize::try_from(length).ok().filter(|size| *size <= left);
        let (block, rest) = self.0.split_at(size.ok_or(BodyError::Length { length, left })?);
        self.0 = rest;
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use proptest::prelude::*;
    use std::io::Write;

    const BODY: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"stateVersion":1,"timestamp":17},"mappingDataVersion":{"counter":0},"topicConfigTable":{"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":2,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;

    fn block(bytes: &mut Vec<u8>, block: &str) {
        bytes.extend((block.len() as i32).to_be_bytes());
        bytes.extend(block.as_bytes());
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_bodies_are_read() {
        let topics = parse(BODY.as_bytes()).unwrap();
        let queue = QueueData { read_queue_nums: 8, write_queue_nums: 4, perm: 6, topic_sys_flag: 2 };
        assert_eq!(topics.topics, BTreeMap::from([("T".to_owned(), queue)]));
        assert_eq!(topics.data_version, DataVersion { counter: 3, state_version: 1, timestamp: 17 });
        assert!(!topics.has_static_topics);
        assert_eq!(parse(b"").unwrap(), Topics::default());
        assert!(parse(b"{nope").is_err() && parse(b"{\"topicConfigSerializeWrapper\":5}").is_err());
    }

    #[test]
    fn compressed_bodies_are_read() {
        let mut bytes = Vec::new();
        block(&mut bytes, r#"{"counter":3,"timestamp":17}"#);
        bytes.extend(2i32.to_be_bytes());
        block(&mut bytes, "T 8 4 6 SINGLE_TAG {}");
        block(&mut bytes, "U 1 1 4 SINGLE_TAG");
        block(&mut bytes, "[]");
        let old = parse_compressed(&zlib(&bytes), false).unwrap();
        assert_eq!((old.topics.len(), old.topics["T"].write_queue_nums, old.data_version.counter), (2, 4, 3));
        assert!(matches!(parse_compressed(&zlib(&bytes), true), Err(BodyError::Length { .. })));
        bytes.extend(0i32.to_be_bytes());
        assert_eq!(parse_compressed(&zlib(&bytes), true).unwrap(), old);
    }

    #[test]
    fn damaged_compressed_bodies_are_errors() {
        assert!(matches!(parse_compressed(b"nonsense", true), Err(BodyError::Compressed(_))));
        assert!(matches!(
            parse_compressed(&zlib(&[0xff; 8]), true),
            Err(BodyError::Length { length: -1, .. })
        ));
        let bomb = zlib(&vec![0; MAX_INFLATED as usize + 1]);
        assert!(matches!(parse_compressed(&bomb, true), Err(BodyError::Compressed(_))));
        let mut bytes = Vec::new();
        block(&mut bytes, "{}");
        bytes.extend(1i32.to_be_bytes());
        block(&mut bytes, "T x");
        assert!(matches!(parse_compressed(&zlib(&bytes), true), Err(BodyError::Topic(_))));
    }

    #[test]
    fn queues_of_an_administrator_are_read() {
        let body = br#"{"brokerDatas":[],"queueDatas":[{"brokerName":"a","perm":6,"readQueueNums":4,"writeQueueNums":4,"topicSysFlag":0}]}"#;
        let queue = QueueData { read_queue_nums: 4, write_queue_nums: 4, perm: 6, topic_sys_flag: 0 };
        assert_eq!(parse_queues(body).unwrap(), [("a".to_owned(), queue)]);
        assert_eq!(parse_queues(b"").unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse_queues(&bytes);
            let _ = parse_compressed(&bytes, true);
            let _ = parse_compressed(&zlib(&bytes), true);
        }
    }
}
