//! Messages as consumers get them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::properties::names;
use ringmq_protocol::record::{RecordError, RecordView, sys_flag};

use super::Compression;
use super::getters::property_getters;
use super::properties::Properties;

/// A message from a broker, with where and when it was stored.
#[derive(Clone, Debug)]
pub struct MessageExt {
    /// The topic; of a retried message, the one that it was first sent to.
    pub topic: String,
    /// The body, unpacked. A body that cannot be unpacked stays as it was stored, with its bit in `sys_flag` set.
    pub body: Bytes,
    /// The queue that it was read from; of a retried message, one of the group's retry topic.
    pub queue: MessageQueue,
    /// Offset in that queue.
    pub queue_offset: i64,
    /// Where the broker stored it.
    pub commit_log_offset: i64,
    /// Bytes of the stored record.
    pub store_size: usize,
    /// When the producer made it, in ms since 1970.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// When the broker stored it, in ms since 1970.
    pub store_timestamp: i64,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often it was consumed without success.
    pub reconsume_times: i32,
    /// Physical offset of the half message of a transaction, else 0.
    pub prepared_transaction_offset: i64,
    /// See [`ringmq_protocol::record::sys_flag`].
    pub sys_flag: i32,
    /// The application's own flag.
    pub flag: i32,
    pub(super) properties: Properties,
}

impl MessageExt {
    /// Reads the record at the start of `bytes`, which came from a queue of `broker_name`; also tells its length.
    pub(crate) fn decode(bytes: &Bytes, broker_name: &str) -> Result<(MessageExt, usize), RecordError> {
        MessageExt::decode_as(bytes, |record| MessageQueue {
            broker_name: broker_name.to_owned(),
            queue_id: record.queue_id,
            topic: record.topic.to_owned(),
        })
    }

    fn decode_as(
        bytes: &Bytes,
        queue: impl FnOnce(&RecordView<'_>) -> MessageQueue,
    ) -> Result<(MessageExt, usize), RecordError> {
        let record = RecordView::decode(bytes)?;
        record.check_body()?;
        let queue = queue(&record);
        let mut message = MessageExt {
            topic: record.topic.to_owned(),
            body: bytes.slice(record.body_at..record.body_at + record.body.len()),
            queue,
            queue_offset: record.queue_offset,
            commit_log_offset: record.physical_offset,
            store_size: record.bytes.len(),
            born_timestamp: record.born_timestamp,
            born_host: record.born_host,
            store_timestamp: record.store_timestamp,
            store_host: record.store_host,
            reconsume_times: record.reconsume_times,
            prepared_transaction_offset: record.prepared_transaction_offset,
            sys_flag: record.sys_flag,
            flag: record.flag,
            properties: Properties::new(bytes.slice_ref(record.properties.as_bytes())),
        };
        message.unpack();
        Ok((message, record.bytes.len()))
    }

    /// Reads the message in a request of a broker; Java leaves the record's length out there.
    pub(crate) fn decode_lone(bytes: &Bytes, broker_name: &str) -> Result<MessageExt, RecordError> {
        if bytes.len() < 4 || bytes[..4] != [0; 4] {
            return Ok(MessageExt::decode(bytes, broker_name)?.0);
        }
        let mut whole = bytes.to_vec();
        whole[..4].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        Ok(MessageExt::decode(&whole.into(), broker_name)?.0)
    }

    /// Reads the body of a pull of `queue`, which told the ends of that queue; the ids in the records are those of the
    /// queues that the messages were first written to.
    pub(crate) fn decode_pulled(
        mut body: Bytes,
        queue: &MessageQueue,
        (first, last): (i64, i64),
    ) -> Result<Vec<MessageExt>, RecordError> {
        let mut messages = Vec::new();
        while !body.is_empty() {
            let (mut message, len) = MessageExt::decode_as(&body, |_| queue.clone())?;
            message.properties.set_ends(first, last);
            messages.push(message);
            body = body.slice(len..);
        }
        Ok(messages)
    }

    /// Reads the answer to a query.
    pub(crate) fn decode_all(mut body: Bytes, broker_name: &str) -> Result<Vec<MessageExt>, RecordError> {
        let mut messages = Vec::new();
        while !body.is_empty() {
            let (message, len) = MessageExt::decode(&body, broker_name)?;
            messages.push(message);
            body = body.slice(len..);
        }
        Ok(messages)
    }

    pub(super) fn unpack(&mut self) {
        if self.sys_flag & sys_flag::COMPRESSED == 0 {
            return;
        }
        match Compression::of(self.sys_flag).and_then(|c| c.unpack(&self.body)) {
            Ok(body) => {
                self.body = body.into();
                self.sys_flag &= !(sys_flag::COMPRESSED | sys_flag::COMPRESSION_TYPE);
            }
            Err(error) => tracing::warn!(target: "ringmq_client::consumer", queue = ?self.queue,
                offset = self.queue_offset, %error, "a body stays packed"),
        }
    }

    /// The producer's id of the message, which stays the same through retries; the broker's when the producer gave
    /// none.
    pub fn msg_id(&self) -> String {
        self.property(names::UNIQ_KEY).map_or_else(|| self.offset_msg_id(), str::to_owned)
    }

    /// The broker's id of the message: where it is stored.
    pub fn offset_msg_id(&self) -> String {
        let id = OffsetMessageId { store_host: self.store_host, physical_offset: self.commit_log_offset };
        id.encode().to_string()
    }

    property_getters!();

    /// A property, one of the system's or of the application.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    /// Every property, by name.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        self.properties.map()
    }

    /// Sets a property of the system's; the caller knows that it is legal.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.properties.insert(name, value.into());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ringmq_protocol::record::RecordFields;

    /// A record of `body` as a broker stores it.
    pub(crate) fn record(
        topic: &str,
        queue_offset: i64,
        body: &[u8],
        sys_flag: i32,
        properties: &str,
    ) -> Vec<u8> {
        let fields = RecordFields {
            queue_id: 3,
            flag: 9,
            queue_offset,
            physical_offset: 1000 + queue_offset,
            sys_flag,
            born_timestamp: 5,
            born_host: "10.0.0.1:5".parse().unwrap(),
            store_timestamp: 6,
            store_host: "10.0.0.2:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body,
            topic,
            properties: &[properties.as_bytes()],
        };
        let mut out = vec![0; fields.encoded_len().unwrap()];
        fields.encode_into(&mut out);
        out
    }

    #[test]
    fn records_become_messages() {
        let packed = Compression::Zlib.pack(b"hello hello hello").unwrap();
        let flag = Compression::Zlib.sys_flag();
        let mut body = record("t", 7, b"plain", 0, "TAGS\u{1}a\u{2}KEYS\u{1}x y\u{2}");
        body.extend(record("t", 8, &packed, flag, "UNIQ_KEY\u{1}U\u{2}"));
        body.extend(record("t", 9, b"no frame", flag, ""));
        let messages = MessageExt::decode_all(body.into(), "b").unwrap();
        let [plain, packed, damaged] = &messages[..] else { panic!("{}", messages.len()) };
        assert_eq!((&*plain.body, plain.tag(), plain.queue_offset), (&b"plain"[..], Some("a"), 7));
        assert_eq!(plain.keys().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(plain.msg_id(), "0A00000200002A9F00000000000003EF");
        assert_eq!((&*packed.body, packed.sys_flag), (&b"hello hello hello"[..], 0));
        assert_eq!(packed.msg_id(), "U");
        assert_eq!((&*damaged.body, damaged.sys_flag), (&b"no frame"[..], flag));
        assert_eq!(damaged.queue, MessageQueue { broker_name: "b".into(), queue_id: 3, topic: "t".into() });
    }

    #[test]
    fn damage_is_told() {
        let mut body = record("t", 7, b"plain", 0, "");
        *body.iter_mut().rev().nth(5).unwrap() ^= 1;
        assert!(MessageExt::decode_all(body.into(), "b").is_err());
    }
}
