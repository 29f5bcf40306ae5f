//! The body of REGISTER_BROKER (103), plain or compressed.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::{DataVersion, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType};
use crate::json::{self, Dialect, JsonError};

/// What a broker tells a name server about its topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBrokerBody {
    /// Filter servers; of old brokers.
    pub filter_server_list: Vec<String>,
    /// The topics.
    pub topic_config_serialize_wrapper: TopicConfigSerializeWrapper,
}

/// Why a registration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterBodyError {
    /// Bad JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not compressed as stated.
    #[error("the registration cannot be decompressed: {0}")]
    Inflate(String),
    /// Decompressed, it is over the limit.
    #[error("the registration is over the limit of {limit} bytes when decompressed")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// It ends too early.
    #[error("the registration ends in the middle of {field}")]
    Truncated {
        /// Of what.
        field: &'static str,
    },
    /// A topic's line has other fields.
    #[error("\"{line}\" is no topic's configuration")]
    BadTopic {
        /// The line, cut to 160 characters.
        line: String,
    },
}

impl RegisterBrokerBody {
    /// Reads the body. When `compressed`, at most `limit` bytes are inflated. What follows behind the topics (static
    /// topics) is not read.
    pub fn decode(
        body: &[u8],
        compressed: bool,
        limit: usize,
    ) -> Result<RegisterBrokerBody, RegisterBodyError> {
        if !compressed {
            return Ok(json::from_slice(body)?);
        }
        let mut plain = Vec::new();
        let mut inflater = flate2::read::ZlibDecoder::new(body).take(limit as u64 + 1);
        inflater.read_to_end(&mut plain).map_err(|e| RegisterBodyError::Inflate(e.to_string()))?;
        if plain.len() > limit {
            return Err(RegisterBodyError::TooLong { limit });
        }
        RegisterBrokerBody::decode_plain(&plain)
    }

    fn decode_plain(mut rest: &[u8]) -> Result<RegisterBrokerBody, RegisterBodyError> {
        let mut wrapper = TopicConfigSerializeWrapper {
            data_version: json::from_slice(sized(&mut rest, "the data version")?)?,
            ..TopicConfigSerializeWrapper::default()
        };
        for _ in 0..number(&mut rest, "the number of topics")? {
            let topic = topic(sized(&mut rest, "a topic")?)?;
            wrapper.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = json::from_slice(sized(&mut rest, "the filter servers")?)?;
        Ok(RegisterBrokerBody { filter_server_list, topic_config_serialize_wrapper: wrapper })
    }
}

/// A compressed registration in the making, so that a large one need not be made at a stretch: topics are added, and then
/// it is compressed a part at a time. The layout of Java's `RegisterBrokerBody.encode(true)`: parts behind their lengths
/// (`i32`), which are the version's JSON, each topic's line behind the number of topics, the filter servers' JSON, and then
/// the number of static topics. A line has no place for `order` and `topicSysFlag`; attributes are left out, which name
/// servers have no use for, and those before 5.0 cannot read.
pub struct CompressedRegistration {
    plain: Vec<u8>,
    /// Where the number of topics stands.
    count_at: usize,
    topics: i32,
}

/// What is compressed at a time, in bytes.
const COMPRESSED_AT_ONCE: usize = 64 << 10;

impl CompressedRegistration {
    /// Of a table of this version, without topics yet.
    pub fn new(version: &DataVersion) -> CompressedRegistration {
        let mut plain = Vec::new();
        put_sized(&mut plain, &json::to_vec(version, Dialect::Java));
        let count_at = plain.len();
        plain.extend(0i32.to_be_bytes());
        CompressedRegistration { plain, count_at, topics: 0 }
    }

    /// Adds a topic, with these permissions. No topic's name has a space, which would end it.
    pub fn add(&mut self, topic: &TopicConfig, perm: i32) {
        let TopicConfig { topic_name, read_queue_nums, write_queue_nums, topic_filter_type, .. } = topic;
        debug_assert!(!topic_name.contains(' '), "{topic_name:?}");
        let filter = topic_filter_type.name();
        let line = format!("{topic_name} {read_queue_nums} {write_queue_nums} {perm} {filter}");
        put_sized(&mut self.plain, line.as_bytes());
        self.topics += 1;
    }

    /// The whole body; `rest` is called between its parts.
    pub async fn compress<F: Future<Output = ()>>(
        mut self,
        mut rest: impl FnMut() -> F,
    ) -> io::Result<Vec<u8>> {
        self.plain[self.count_at..][..4].copy_from_slice(&self.topics.to_be_bytes());
        put_sized(&mut self.plain, b"[]");
        self.plain.extend(0i32.to_be_bytes());
        let mut deflater = ZlibEncoder::new(Vec::new(), Compression::fast());
        for part in self.plain.chunks(COMPRESSED_AT_ONCE) {
            deflater.write_all(part)?;
            rest().await;
        }
        deflater.finish()
    }
}

fn put_sized(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as i32).to_be_bytes());
    to.extend(bytes);
}

fn number(rest: &mut &[u8], field: &'static str) -> Result<usize, RegisterBodyError> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(RegisterBodyError::Truncated { field })?;
    *rest = behind;
    usize::try_from(i32::from_be_bytes(*bytes)).map_err(|_| RegisterBodyError::Truncated { field })
}

fn sized<'a>(rest: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], RegisterBodyError> {
    let len = number(rest, field)?;
    let (bytes, behind) = rest.split_at_checked(len).ok_or(RegisterBodyError::Truncated { field })?;
    *rest = behind;
    Ok(bytes)
}

/// `name readQueues writeQueues perm filterType {attributes}`
fn topic(line: &[u8]) -> Result<TopicConfig, RegisterBodyError> {
    let text = String::from_utf8_lossy(line);
    let bad = || RegisterBodyError::BadTopic { line: text.chars().take(160).collect() };
    let mut fields = text.splitn(6, ' ');
    let mut field = || fields.next().ok_or_else(bad);
    let topic_name = field()?.to_owned();
    let read_queue_nums = field()?.parse().map_err(|_| bad())?;
    let write_queue_nums = field()?.parse().map_err(|_| bad())?;
    let perm = field()?.parse().map_err(|_| bad())?;
    let topic_filter_type = TopicFilterType::from_name(field()?).ok_or_else(bad)?;
    let attributes = match field() {
        Ok(attributes) => json::from_slice(attributes.as_bytes())?,
        Err(_) => Default::default(),
    };
    Ok(TopicConfig {
        attributes,
        perm,
        read_queue_nums,
        topic_filter_type,
        topic_name,
        write_queue_nums,
        ..TopicConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The layout of Java's `RegisterBrokerBody.encode(true)`.
    fn compressed(topics: &[&str]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut put = |text: &str| {
            plain.extend((text.len() as i32).to_be_bytes());
            plain.extend(text.as_bytes());
        };
        put(r#"{"counter":3,"stateVersion":1,"timestamp":9}"#);
        plain.extend((topics.len() as i32).to_be_bytes());
        for text in topics.iter().chain(&[r#"["f:1"]"#]) {
            plain.extend((text.len() as i32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        plain.extend(0i32.to_be_bytes());
        let mut deflater = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        deflater.write_all(&plain).unwrap();
        deflater.finish().unwrap()
    }

    #[test]
    fn compressed_registrations_are_read() {
        let body = compressed(&[
            "T 8 4 6 SINGLE_TAG {\"+k\":\"v w\"}",
            "U 1 1 2 MULTI_TAG {}",
            "V 1 1 2 SINGLE_TAG",
        ]);
        let read = RegisterBrokerBody::decode(&body, true, 1024).unwrap();
        let wrapper = &read.topic_config_serialize_wrapper;
        assert_eq!((wrapper.data_version.counter, wrapper.data_version.state_version), (3, 1));
        let topic = &wrapper.topic_config_table["T"];
        assert_eq!((topic.read_queue_nums, topic.write_queue_nums, topic.perm), (8, 4, 6));
        assert_eq!(topic.attributes["+k"], "v w");
        assert_eq!(wrapper.topic_config_table["U"].topic_filter_type, TopicFilterType::MultiTag);
        assert_eq!(
            (wrapper.topic_config_table.len(), &read.filter_server_list[..]),
            (3, &["f:1".to_owned()][..])
        );
    }

    #[test]
    fn what_is_written_compressed_is_what_java_writes() {
        let version = DataVersion { counter: 3, state_version: 1, timestamp: 9 };
        let mut made = CompressedRegistration::new(&version);
        let topic = TopicConfig {
            topic_name: "T".into(),
            read_queue_nums: 8,
            write_queue_nums: 4,
            topic_sys_flag: 3,
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            ..TopicConfig::default()
        };
        made.add(&topic, 6);
        made.add(&TopicConfig { topic_filter_type: TopicFilterType::MultiTag, ..topic }, 2);
        let mut whole = std::pin::pin!(made.compress(|| std::future::ready(())));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(body) = whole.as_mut().poll(&mut context) else {
            panic!("nothing is waited for")
        };
        let inflate = |body: &[u8]| {
            let mut plain = Vec::new();
            flate2::read::ZlibDecoder::new(body).read_to_end(&mut plain).unwrap();
            String::from_utf8(plain).unwrap()
        };
        let golden = compressed(&["T 8 4 6 SINGLE_TAG", "T 8 4 2 MULTI_TAG"]);
        assert_eq!(inflate(&body.unwrap()), inflate(&golden).replace("\u{7}[\"f:1\"]", "\u{2}[]"));
    }

    #[test]
    fn broken_registrations_are_errors() {
        let error = |body: &[u8], limit| RegisterBrokerBody::decode(body, true, limit).unwrap_err();
        let body = compressed(&["T 8 4 x SINGLE_TAG {}"]);
        assert_eq!(error(&body, 1024), RegisterBodyError::BadTopic { line: "T 8 4 x SINGLE_TAG {}".into() });
        assert_eq!(error(&body, 50), RegisterBodyError::TooLong { limit: 50 });
        assert!(matches!(error(b"no zlib", 50), RegisterBodyError::Inflate(_)));
    }
}
