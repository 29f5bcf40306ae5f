//! Reading messages and offsets.

use super::{ExtError, Field, ext_header};
use crate::writer::FieldSink;

/// Bits of a pull's sysFlag (Java's `PullSysFlag`).
pub mod pull_sys_flag {
    /// The request commits an offset too.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The broker may hold the request until a message is there.
    pub const SUSPEND: i32 = 1 << 1;
    /// The request carries the subscription.
    pub const SUBSCRIPTION: i32 = 1 << 2;
    /// The subscription is a class filter.
    pub const CLASS_FILTER: i32 = 1 << 3;
    /// From a lite pull consumer.
    pub const LITE_PULL: i32 = 1 << 4;
}

ext_header! {
    /// Header of PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361).
    pub struct PullHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue.
        pub queue_id: i32 = "queueId",
        /// First queue offset wanted.
        pub queue_offset: i64 = "queueOffset",
        /// Most messages wanted.
        pub max_msg_nums: i32 = "maxMsgNums",
        /// See [`pull_sys_flag`].
        pub sys_flag: i32 = "sysFlag",
        /// Offset to commit, if the flag says so.
        pub commit_offset: i64 = "commitOffset" or 0,
        /// How long the broker may hold the request, in ms.
        pub suspend_timeout_millis: i64 = "suspendTimeoutMillis" or 0,
        /// Subscription expression, if the flag says so.
        pub subscription: Option<&'a str> = "subscription",
        /// Version of the subscription.
        pub sub_version: i64 = "subVersion" or 0,
        /// TAG or SQL92; TAG when missing.
        pub expression_type: Option<&'a str> = "expressionType",
        /// Most bytes of records wanted.
        pub max_msg_bytes: Option<i32> = "maxMsgBytes",
        /// Who asks, see [`request_source`].
        pub request_source: Option<i32> = "requestSource",
        /// Client that the proxy asks for.
        pub proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId",
    }
}

/// Values of a pull's `requestSource`.
pub mod request_source {
    /// A client.
    pub const SDK: i32 = -1;
    /// A proxy, for ordered consumption.
    pub const PROXY_FOR_ORDER: i32 = 0;
    /// A proxy, for broadcasting.
    pub const PROXY_FOR_BROADCAST: i32 = 1;
    /// A proxy, for streaming.
    pub const PROXY_FOR_STREAM: i32 = 2;
}

ext_header! {
    /// Header of a pull's answer.
    pub struct PullResponseHeader {
        /// Broker id to pull from next.
        pub suggest_which_broker_id: i64 = "suggestWhichBrokerId" or 0,
        /// For static topics.
        pub offset_delta: Option<i64> = "offsetDelta",
        /// System flag of the group.
        pub group_sys_flag: Option<i32> = "groupSysFlag",
        /// Queue offset to pull next.
        pub next_begin_offset: i64 = "nextBeginOffset",
        /// Queue offset behind the last.
        pub max_offset: i64 = "maxOffset",
        /// First queue offset.
        pub min_offset: i64 = "minOffset",
        /// System flag of the topic.
        pub topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Why a pull is forbidden.
        pub forbidden_type: Option<i32> = "forbiddenType",
    }
}

ext_header! {
    /// Header of QUERY_MESSAGE (12).
    pub struct QueryMessageHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// One of KEYS, or the UNIQ_KEY.
        pub key: &'a str = "key",
        /// Most messages wanted.
        pub max_num: i32 = "maxNum",
        /// First store time, in ms.
        pub begin_timestamp: i64 = "beginTimestamp",
        /// Last store time, in ms.
        pub end_timestamp: i64 = "endTimestamp",
        /// The key is a UNIQ_KEY.
        pub unique_key_query: Option<bool> = "_UNIQUE_KEY_QUERY",
        /// What the key is: K of KEYS, U a UNIQ_KEY, T a tag; of clients since 5.4.
        pub index_type: Option<&'a str> = "indexType",
    }
}

ext_header! {
    /// Header of QUERY_MESSAGE's answer.
    pub struct QueryMessageResponseHeader {
        /// Store time of the last indexed message.
        pub index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        /// Physical offset of the last indexed message.
        pub index_last_update_phyoffset: i64 = "indexLastUpdatePhyoffset",
    }
}

ext_header! {
    /// Header of QUERY_CONSUMER_OFFSET (14).
    pub struct QueryConsumerOffsetHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue.
        pub queue_id: i32 = "queueId",
        /// Whether 0 is an answer for a group without an offset; true when missing.
        pub set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

ext_header! {
    /// Header of UPDATE_CONSUMER_OFFSET (15).
    pub struct UpdateConsumerOffsetHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue.
        pub queue_id: i32 = "queueId",
        /// Next queue offset to consume.
        pub commit_offset: i64 = "commitOffset",
    }
}

ext_header! {
    /// Header of the answers that are one offset (14, 29, 30, 31).
    pub struct OffsetResponseHeader {
        /// The offset.
        pub offset: i64 = "offset",
    }
}

ext_header! {
    /// Header of GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
    pub struct QueueHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue.
        pub queue_id: i32 = "queueId",
    }
}

/// Which of two answers a search by time gives when no message has that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoundaryType {
    /// The first message at or after it.
    #[default]
    Lower,
    /// The last message at or before it.
    Upper,
}

impl<'a> Field<'a> for BoundaryType {
    /// A missing or unknown value is LOWER, as in Java.
    fn read(value: Option<&'a str>, _field: &'static str) -> Result<BoundaryType, ExtError> {
        Ok(match value {
            Some(value) if value.eq_ignore_ascii_case("upper") => BoundaryType::Upper,
            _ => BoundaryType::Lower,
        })
    }

    fn write(&self, field: &'static str, sink: &mut dyn FieldSink) {
        sink.str(field, if *self == BoundaryType::Upper { "UPPER" } else { "LOWER" });
    }
}

ext_header! {
    /// Header of SEARCH_OFFSET_BY_TIMESTAMP (29).
    pub struct SearchOffsetHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue.
        pub queue_id: i32 = "queueId",
        /// The time, in ms.
        pub timestamp: i64 = "timestamp",
        /// What to answer when no message has that time.
        pub boundary_type: BoundaryType = "boundaryType",
    }
}

ext_header! {
    /// Header of GET_EARLIEST_MSG_STORETIME's answer.
    pub struct TimestampResponseHeader {
        /// The time, in ms; -1 when there is no message.
        pub timestamp: i64 = "timestamp",
    }
}

ext_header! {
    /// Header of VIEW_MESSAGE_BY_ID (33).
    pub struct ViewMessageHeader<'a> {
        /// Topic; old clients send none.
        pub topic: Option<&'a str> = "topic",
        /// Physical offset.
        pub offset: i64 = "offset",
    }
}
