//! The body of REGISTER_BROKER (103), plain or compressed.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::{TopicConfig, TopicConfigSerializeWrapper, TopicFilterType};
use crate::json::{self, JsonError};

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
    fn broken_registrations_are_errors() {
        let error = |body: &[u8], limit| RegisterBrokerBody::decode(body, true, limit).unwrap_err();
        let body = compressed(&["T 8 4 x SINGLE_TAG {}"]);
        assert_eq!(error(&body, 1024), RegisterBodyError::BadTopic { line: "T 8 4 x SINGLE_TAG {}".into() });
        assert_eq!(error(&body, 50), RegisterBodyError::TooLong { limit: 50 });
        assert!(matches!(error(b"no zlib", 50), RegisterBodyError::Inflate(_)));
    }
}
