//! Headers of POP: a broker hands messages out one by one, and each is acknowledged by its handle.

use super::ext_header;

ext_header! {
    /// Header of POP_MESSAGE (200050).
    pub struct PopHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue; -1 for all of the broker's.
        pub queue_id: i32 = "queueId",
        /// Most messages wanted; 32 is the limit.
        pub max_msg_nums: i32 = "maxMsgNums",
        /// How long the messages are kept from others, in ms.
        pub invisible_time: i64 = "invisibleTime",
        /// How long the broker may wait for messages, in ms.
        pub poll_time: i64 = "pollTime",
        /// When the request was made, in ms since 1970.
        pub born_time: i64 = "bornTime",
        /// Where a new group starts: 0 at the first message, 1 behind the last.
        pub init_mode: i32 = "initMode",
        /// Kind of the expression: TAG or SQL92.
        pub exp_type: Option<&'a str> = "expType",
        /// Expression.
        pub exp: Option<&'a str> = "exp",
        /// Whether messages of a queue are handed out in order.
        pub order: Option<bool> = "order",
        /// The same for all attempts of one request.
        pub attempt_id: Option<&'a str> = "attemptId",
    }
}

ext_header! {
    /// Header of a pop's answer.
    pub struct PopResponseHeader<'a> {
        /// When the messages were handed out, in ms since 1970.
        pub pop_time: i64 = "popTime",
        /// How long they are kept from others, in ms.
        pub invisible_time: i64 = "invisibleTime",
        /// Queue of the broker's own record of them.
        pub revive_qid: i32 = "reviveQid",
        /// About how many messages there are behind them.
        pub rest_num: i64 = "restNum",
        /// `retryFlag queueId startOffset`, with `;` between queues.
        pub start_offset_info: Option<&'a str> = "startOffsetInfo",
        /// `retryFlag queueId offset,offset`, with `;` between queues.
        pub msg_offset_info: Option<&'a str> = "msgOffsetInfo",
        /// How often messages were handed out, in order.
        pub order_count_info: Option<&'a str> = "orderCountInfo",
    }
}

ext_header! {
    /// Header of ACK_MESSAGE (200051).
    pub struct AckHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic that the message was handed out from: the one that was asked for, or its retry topic.
        pub topic: &'a str = "topic",
        /// Queue of that topic.
        pub queue_id: i32 = "queueId",
        /// The message's handle.
        pub extra_info: &'a str = "extraInfo",
        /// Offset in that queue.
        pub offset: i64 = "offset",
    }
}

ext_header! {
    /// Header of CHANGE_MESSAGE_INVISIBLETIME (200053).
    pub struct ChangeInvisibleTimeHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic that the message was handed out from: the one that was asked for, or its retry topic.
        pub topic: &'a str = "topic",
        /// Queue of that topic.
        pub queue_id: i32 = "queueId",
        /// The message's handle.
        pub extra_info: &'a str = "extraInfo",
        /// Offset in that queue.
        pub offset: i64 = "offset",
        /// How long from now it is kept from everybody, in ms.
        pub invisible_time: i64 = "invisibleTime",
    }
}
