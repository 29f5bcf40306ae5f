//! Messages on the wire: packed, encoded once, sent as often as it takes.

use bytes::{Bytes, BytesMut};
use ringmq_protocol::batch::BatchMessage;
use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{SendHeaderV2, SendResponseHeader};
use ringmq_protocol::names::is_retry_topic;
use ringmq_protocol::names::topics::AUTO_CREATE_TOPIC_KEY_TOPIC;
use ringmq_protocol::properties::{self, names};
use ringmq_protocol::record::sys_flag;

use super::error::{BatchRule, SendError};
use super::{SendReceipt, SendStatus};
use crate::client::route::DEFAULT_TOPIC_QUEUE_NUMS;
use crate::error::CallError;
use crate::message::{Compression, Message};
use crate::remoting::{bad_answer, refused};

/// What a send's header and body are made of, whichever queue they go to.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub topic: String,
    /// The id of the message; of a batch, the ids with commas between them.
    pub msg_id: String,
    pub body: Bytes,
    properties: String,
    sys_flag: i32,
    flag: i32,
    born_timestamp: i64,
    batch: bool,
    /// An answer to a request.
    reply: bool,
    /// Of a message that goes to a retry topic.
    reconsume_times: i32,
    max_reconsume_times: Option<i32>,
}

/// When and how bodies are packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    pub compression: Compression,
    /// Shorter bodies stay as they are.
    pub over: usize,
    /// Longest body before it is packed.
    pub limit: usize,
}

impl Parcel {
    /// Of one message. `id` makes an id if the message has none yet.
    pub(crate) fn single(
        mut message: Message,
        id: impl Fn() -> String,
        packing: Packing,
        now_ms: i64,
    ) -> Result<Parcel, SendError> {
        check_size(message.body().len(), packing.limit)?;
        let msg_id = identify(&mut message, id);
        let pack = message.body().len() >= packing.over;
        let (body, packed) = match pack {
            true => (packing.compression.pack(message.body())?.into(), packing.compression.sys_flag()),
            false => (message.body().clone(), 0),
        };
        let half = message.property(names::TRANSACTION_PREPARED) == Some("true");
        let sys_flag = packed | if half { sys_flag::TRANSACTION_PREPARED } else { 0 };
        // Of a message to a retry topic, these two travel in the header.
        let mut reconsume = |name| message.take(name).and_then(|times| times.parse().ok());
        Ok(Parcel {
            reconsume_times: reconsume(names::RECONSUME_TIME).unwrap_or(0),
            max_reconsume_times: reconsume(names::MAX_RECONSUME_TIMES),
            properties: message.encoded_properties(),
            topic: message.topic().to_owned(),
            msg_id,
            body,
            sys_flag,
            flag: message.flag(),
            born_timestamp: now_ms,
            batch: false,
            reply: message.is_reply(),
        })
    }

    /// Of several messages, stored next to each other in one queue.
    pub(crate) fn batch(
        mut messages: Vec<Message>,
        id: impl Fn() -> String,
        limit: usize,
        now_ms: i64,
    ) -> Result<Parcel, SendError> {
        check_batch(&messages)?;
        let ids: Vec<String> = messages.iter_mut().map(|message| identify(message, &id)).collect();
        let mut body = BytesMut::new();
        for message in &messages {
            let properties = message.encoded_properties();
            BatchMessage { flag: message.flag(), body: message.body(), properties: &properties }
                .write(&mut body);
        }
        check_size(body.len(), limit)?;
        let wait = messages[0].property(names::WAIT_STORE_MSG_OK).unwrap_or("true");
        let mut properties = String::new();
        properties::push(&mut properties, names::WAIT_STORE_MSG_OK, wait);
        Ok(Parcel {
            topic: messages[0].topic().to_owned(),
            msg_id: ids.join(","),
            body: body.freeze(),
            properties,
            sys_flag: 0,
            flag: 0,
            born_timestamp: now_ms,
            batch: true,
            reply: false,
            reconsume_times: 0,
            max_reconsume_times: None,
        })
    }

    /// A property of the message.
    #[cfg(feature = "trace")]
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        properties::find(&self.properties, name)
    }

    pub(crate) fn code(&self) -> i32 {
        match (self.batch, self.reply) {
            (true, _) => request::SEND_BATCH_MESSAGE,
            (false, true) => request::SEND_REPLY_MESSAGE_V2,
            (false, false) => request::SEND_MESSAGE_V2,
        }
    }

    pub(crate) fn header<'a>(&'a self, group: &'a str, queue: &'a MessageQueue) -> SendHeaderV2<'a> {
        SendHeaderV2 {
            producer_group: group,
            topic: &self.topic,
            default_topic: AUTO_CREATE_TOPIC_KEY_TOPIC,
            default_topic_queue_nums: DEFAULT_TOPIC_QUEUE_NUMS,
            queue_id: queue.queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            flag: self.flag,
            properties: Some(&self.properties),
            reconsume_times: Some(self.reconsume_times),
            unit_mode: Some(false),
            max_reconsume_times: self.max_reconsume_times,
            batch: Some(self.batch),
            broker_name: Some(&queue.broker_name),
        }
    }

    /// What the broker's answer says.
    pub(crate) fn receipt(
        &self,
        addr: &str,
        queue: &MessageQueue,
        answer: Command,
    ) -> Result<SendReceipt, CallError> {
        let status = match answer.code {
            response::SUCCESS => SendStatus::Ok,
            response::FLUSH_DISK_TIMEOUT => SendStatus::FlushDiskTimeout,
            response::FLUSH_SLAVE_TIMEOUT => SendStatus::FlushSlaveTimeout,
            response::SLAVE_NOT_AVAILABLE => SendStatus::SlaveNotAvailable,
            _ => return Err(refused(addr, answer)),
        };
        let header: SendResponseHeader<'_> = answer.header().map_err(|error| bad_answer(addr, error))?;
        Ok(SendReceipt {
            status,
            msg_id: self.msg_id.clone(),
            offset_msg_id: header.msg_id.to_owned(),
            queue: MessageQueue { queue_id: header.queue_id, ..queue.clone() },
            queue_offset: header.queue_offset,
            transaction_id: header.transaction_id.map(str::to_owned),
            recall_handle: header.recall_handle.map(str::to_owned),
            region: header.msg_region.map(str::to_owned),
            traced: header.trace_on.unwrap_or(true),
        })
    }
}

fn identify(message: &mut Message, id: impl Fn() -> String) -> String {
    if let Some(id) = message.property(names::UNIQ_KEY) {
        return id.to_owned();
    }
    let id = id();
    message.set(names::UNIQ_KEY, id.clone());
    id
}

fn check_size(size: usize, limit: usize) -> Result<(), SendError> {
    if size > limit { Err(SendError::TooLarge { size, limit }) } else { Ok(()) }
}

fn check_batch(messages: &[Message]) -> Result<(), BatchRule> {
    let first = messages.first().ok_or(BatchRule::Empty)?;
    let wait = |message: &Message| message.property(names::WAIT_STORE_MSG_OK).map(str::to_owned);
    if messages.iter().any(|m| m.topic() != first.topic()) {
        return Err(BatchRule::OneTopic);
    }
    if messages.iter().any(|m| wait(m) != wait(first)) {
        return Err(BatchRule::OneWait);
    }
    if messages.iter().any(Message::is_delayed) {
        return Err(BatchRule::NotDelayed);
    }
    if is_retry_topic(first.topic()) {
        return Err(BatchRule::NotRetry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Delivery;

    fn message(topic: &str) -> Message {
        Message::new(topic, "body").unwrap()
    }

    #[test]
    fn long_bodies_are_packed() {
        let packing = Packing { compression: Compression::Zlib, over: 100, limit: 1000 };
        let parcel = |len| {
            let message = Message::new("t", vec![b'x'; len]).unwrap();
            Parcel::single(message, || "ID".to_owned(), packing, 5)
        };
        let (plain, packed) = (parcel(99).unwrap(), parcel(100).unwrap());
        assert_eq!((plain.body.len(), plain.sys_flag), (99, 0));
        assert_eq!(packed.sys_flag, Compression::Zlib.sys_flag());
        assert!(packed.body.len() < 99);
        assert_eq!(plain.properties, "UNIQ_KEY\u{1}ID\u{2}WAIT\u{1}true\u{2}");
        assert!(matches!(parcel(1001), Err(SendError::TooLarge { size: 1001, limit: 1000 })));
    }

    #[test]
    fn batches_keep_their_rules() {
        assert_eq!(check_batch(&[]), Err(BatchRule::Empty));
        assert_eq!(check_batch(&[message("a"), message("b")]), Err(BatchRule::OneTopic));
        let careless = Message::builder("a").body("b").wait_store_ok(false).build().unwrap();
        assert_eq!(check_batch(&[message("a"), careless]), Err(BatchRule::OneWait));
        let late = Message::builder("a").body("b").delivery(Delivery::Level(1)).build().unwrap();
        assert_eq!(check_batch(&[message("a"), late]), Err(BatchRule::NotDelayed));
        assert_eq!(check_batch(&[message("%RETRY%g")]), Err(BatchRule::NotRetry));
        let batch = Parcel::batch(vec![message("a"), message("a")], || "I".to_owned(), 1000, 5).unwrap();
        assert_eq!((batch.code(), &*batch.msg_id), (320, "I,I"));
        let bodies: Vec<_> =
            ringmq_protocol::batch::Batch::new(&batch.body, 9).unwrap().map(|m| m.unwrap().body).collect();
        assert_eq!(bodies, [b"body", b"body"]);
    }
}
