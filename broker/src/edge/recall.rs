//! Recalls of timer messages (370): Java's checks in Java's order, and the handles by which they are recalled.

use std::rc::Rc;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE};
use ringmq_env::Env;
use ringmq_protocol::body::perm;
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{FromExt, RecallMessageHeader, RecallMessageResponseHeader};

use super::*;
use crate::delay::When;

/// Handles may come without the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const VERSION: &str = "v1";

/// What a handle says: `v1 topic broker timestamp uniqKey`, in URL-safe base64.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Handle {
    topic: String,
    broker: String,
    /// TIMER_OUT_MS and 1; -1 when it is no number.
    timestamp: i64,
    uniq_key: String,
}

impl Handle {
    fn decode(text: &str) -> Option<Handle> {
        let bytes = LENIENT.decode(text).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let parts: Vec<&str> = text.split(' ').collect();
        let [VERSION, topic, broker, timestamp, uniq_key] = parts[..] else { return None };
        Some(Handle {
            topic: topic.to_owned(),
            broker: broker.to_owned(),
            timestamp: timestamp.parse().unwrap_or(-1),
            uniq_key: uniq_key.to_owned(),
        })
    }

    fn encode(&self) -> String {
        let Handle { topic, broker, timestamp, uniq_key } = self;
        URL_SAFE.encode(format!("{VERSION} {topic} {broker} {timestamp} {uniq_key}"))
    }
}

/// The handle of a message that is about to be stored; `None` when it cannot be recalled.
pub fn handle<E: Env>(core: &Core<E>, when: When, topic: &str, uniq_key: &[u8]) -> Option<Box<str>> {
    let When::Timer { out_ms, .. } = when else { return None };
    let config = &core.identity.config;
    let uniq_key = std::str::from_utf8(uniq_key).ok().filter(|_| config.delay.recall)?;
    let handle = Handle {
        topic: topic.to_owned(),
        broker: config.broker_name.clone(),
        timestamp: out_ms + 1,
        uniq_key: uniq_key.to_owned(),
    };
    Some(handle.encode().into())
}

/// Checks a recall and starts a task that asks every shard: the handle does not say which queue the message is for.
pub fn dispatch<E: Env>(core: &Rc<Core<E>>, connection: &Connection, reply: ReplyTo, header: &Header<'_>) {
    let asked = RecallMessageHeader::from_ext(&header.ext).map_err(|error| bad_header(&error));
    let recall = match asked.and_then(|header| check(core, connection, &header)) {
        Ok(recall) => recall,
        Err(refusal) => return refuse(core, reply, refusal),
    };
    let asking = core.clone();
    core.env.spawn(async move {
        let answers = asking.call_shards(|_| ShardCall::Recall(recall.clone())).await;
        let body = match answers.into_iter().find(|answer| matches!(answer, CallAnswer::Refused(_))) {
            Some(_) => AnswerBody::Refused(remarks::recall_error()),
            // As Java, which does not look whether there is such a message.
            None => {
                let header = RecallMessageResponseHeader { msg_id: &recall.uniq_key };
                let command = Command::response(response::SUCCESS, 0).with_header(&header);
                let region = asking.identity.config.region_id.clone();
                AnswerBody::Command(Box::new(command.with_ext("MSG_REGION", region)))
            }
        };
        asking.deliver(Answer { to: reply, credit: None, body });
        asking.flush();
    });
}

fn check<E: Env>(
    core: &Core<E>,
    connection: &Connection,
    header: &RecallMessageHeader<'_>,
) -> Result<Recall, Refusal> {
    let config = &core.identity.config;
    if !config.delay.recall {
        return Err(remarks::recall_forbidden());
    }
    if config.permission & perm::WRITE as u32 == 0 {
        return Err(remarks::recall_unavailable(response::SERVICE_NOT_AVAILABLE));
    }
    let metadata = core.metadata.borrow();
    let (topic, _) = metadata.topic(header.topic).ok_or_else(|| remarks::recall_no_topic(header.topic))?;
    let handle = Handle::decode(header.recall_handle.unwrap_or_default())
        .ok_or_else(|| remarks::recall("recall handle is invalid"))?;
    if handle.topic != header.topic {
        return Err(remarks::recall("recall failed, topic not match"));
    }
    if handle.broker != config.broker_name {
        return Err(remarks::recall_unavailable(response::ILLEGAL_OPERATION));
    }
    let left_ms = handle.timestamp.saturating_sub(core.env.wall_ms());
    if left_ms <= 0 || left_ms >= config.delay.timer_max_delay_ms {
        return Err(remarks::recall("recall failed, timestamp invalid"));
    }
    Ok(Recall {
        topic: topic.clone(),
        uniq_key: handle.uniq_key.into(),
        out_ms: handle.timestamp - 1,
        producer_group: header.producer_group.unwrap_or_default().into(),
        from: connection.address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_javas() {
        // Made by RecallMessageHandle.HandleV1.buildHandle of the Java client 5.5.0.
        let text = "djEgdG9waWMgYnJva2VyLWEgMTcwMDAwMDAwMDAwMSAwMEFBQkI=";
        let handle = Handle {
            topic: "topic".into(),
            broker: "broker-a".into(),
            timestamp: 1_700_000_000_001,
            uniq_key: "00AABB".into(),
        };
        assert_eq!(handle.encode(), text);
        assert_eq!(Handle::decode(text), Some(handle.clone()));
        assert_eq!(Handle::decode(text.trim_end_matches('=')), Some(handle));
        for wrong in ["", "x", "djE=", &URL_SAFE.encode("v2 t b 1 k"), &URL_SAFE.encode("v1 t b 1 k more")] {
            assert_eq!(Handle::decode(wrong), None, "{wrong}");
        }
        assert_eq!(
            Handle::decode(&URL_SAFE.encode("v1 t b soon k")).map(|handle| handle.timestamp),
            Some(-1)
        );
    }
}
