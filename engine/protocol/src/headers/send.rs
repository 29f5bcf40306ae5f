//! Send requests (10, 310, 320) and their answer.

use super::{ExtError, FromExt, ext_header};
use crate::codes::request;
use crate::header::ExtFields;

ext_header! {
    /// Header of SEND_MESSAGE (10), SEND_REPLY_MESSAGE (324): long names.
    pub struct SendHeaderV1<'a> {
        /// Producer group.
        pub producer_group: &'a str = "producerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Template for a topic that does not exist yet.
        pub default_topic: &'a str = "defaultTopic" or "TBW102",
        /// Queues of a topic that does not exist yet.
        pub default_topic_queue_nums: i32 = "defaultTopicQueueNums" or 4,
        /// Queue; below 0 the broker picks one.
        pub queue_id: i32 = "queueId",
        /// See [`crate::record::sys_flag`].
        pub sys_flag: i32 = "sysFlag" or 0,
        /// When the message was made, in ms.
        pub born_timestamp: i64 = "bornTimestamp" or 0,
        /// The producer's own flag.
        pub flag: i32 = "flag" or 0,
        /// Encoded properties.
        pub properties: Option<&'a str> = "properties",
        /// How often it was consumed.
        pub reconsume_times: Option<i32> = "reconsumeTimes",
        /// Of a unit.
        pub unit_mode: Option<bool> = "unitMode",
        /// Most times that it may be consumed.
        pub max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        /// Several messages in the body.
        pub batch: Option<bool> = "batch",
        /// The broker's name, of clients that go through a proxy.
        pub broker_name: Option<&'a str> = "bname",
    }
}

ext_header! {
    /// Header of SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), SEND_REPLY_MESSAGE_V2 (325): one-letter names.
    pub struct SendHeaderV2<'a> {
        /// Producer group.
        pub producer_group: &'a str = "a",
        /// Topic.
        pub topic: &'a str = "b",
        /// Template for a topic that does not exist yet.
        pub default_topic: &'a str = "c" or "TBW102",
        /// Queues of a topic that does not exist yet.
        pub default_topic_queue_nums: i32 = "d" or 4,
        /// Queue; below 0 the broker picks one.
        pub queue_id: i32 = "e",
        /// See [`crate::record::sys_flag`].
        pub sys_flag: i32 = "f" or 0,
        /// When the message was made, in ms.
        pub born_timestamp: i64 = "g" or 0,
        /// The producer's own flag.
        pub flag: i32 = "h" or 0,
        /// Encoded properties.
        pub properties: Option<&'a str> = "i",
        /// How often it was consumed.
        pub reconsume_times: Option<i32> = "j",
        /// Of a unit.
        pub unit_mode: Option<bool> = "k",
        /// Most times that it may be consumed.
        pub max_reconsume_times: Option<i32> = "l",
        /// Several messages in the body.
        pub batch: Option<bool> = "m",
        /// The broker's name, of clients that go through a proxy.
        pub broker_name: Option<&'a str> = "n",
    }
}

/// A send's header whichever its form.
pub type SendHeader<'a> = SendHeaderV2<'a>;

impl<'a> From<SendHeaderV1<'a>> for SendHeaderV2<'a> {
    fn from(v1: SendHeaderV1<'a>) -> SendHeaderV2<'a> {
        SendHeaderV2 {
            producer_group: v1.producer_group,
            topic: v1.topic,
            default_topic: v1.default_topic,
            default_topic_queue_nums: v1.default_topic_queue_nums,
            queue_id: v1.queue_id,
            sys_flag: v1.sys_flag,
            born_timestamp: v1.born_timestamp,
            flag: v1.flag,
            properties: v1.properties,
            reconsume_times: v1.reconsume_times,
            unit_mode: v1.unit_mode,
            max_reconsume_times: v1.max_reconsume_times,
            batch: v1.batch,
            broker_name: v1.broker_name,
        }
    }
}

impl<'a> SendHeaderV2<'a> {
    /// Reads the header of a send request by its code: short names for 310, 320 and 325, long ones for the others.
    pub fn for_code(code: i32, ext: &ExtFields<'a>) -> Result<SendHeader<'a>, ExtError> {
        match code {
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                SendHeaderV2::from_ext(ext)
            }
            _ => Ok(SendHeaderV1::from_ext(ext)?.into()),
        }
    }
}

ext_header! {
    /// Header of a send's answer.
    pub struct SendResponseHeader<'a> {
        /// Offset message id; of a batch, the ids of all messages with commas between them.
        pub msg_id: &'a str = "msgId",
        /// Queue that it went to.
        pub queue_id: i32 = "queueId",
        /// Queue offset; of a batch, that of the first message.
        pub queue_offset: i64 = "queueOffset",
        /// The message's UNIQ_KEY.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// Id of an inner batch.
        pub batch_uniq_id: Option<&'a str> = "batchUniqId",
        /// Handle to recall a timer message.
        pub recall_handle: Option<&'a str> = "recallHandle",
        /// Region of the broker.
        pub msg_region: Option<&'a str> = "MSG_REGION",
        /// Whether to trace.
        pub trace_on: Option<bool> = "TRACE_ON",
    }
}

ext_header! {
    /// Header of CONSUMER_SEND_MSG_BACK (36).
    pub struct SendMsgBackHeader<'a> {
        /// Physical offset of the message.
        pub offset: i64 = "offset",
        /// Consumer group.
        pub group: &'a str = "group",
        /// Delay level; 0 lets the broker choose, below 0 goes to the DLQ at once.
        pub delay_level: i32 = "delayLevel",
        /// The message's id.
        pub origin_msg_id: Option<&'a str> = "originMsgId",
        /// The message's topic.
        pub origin_topic: Option<&'a str> = "originTopic",
        /// Of a unit.
        pub unit_mode: Option<bool> = "unitMode",
        /// Most times that it may be consumed.
        pub max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }
}
