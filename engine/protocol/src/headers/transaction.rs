//! Transactions (37, 39), replies (326) and recalls (370).

use super::ext_header;

ext_header! {
    /// Header of END_TRANSACTION (37).
    pub struct EndTransactionHeader<'a> {
        /// Topic of the message.
        pub topic: Option<&'a str> = "topic",
        /// Producer group.
        pub producer_group: &'a str = "producerGroup",
        /// Queue offset of the half message.
        pub tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Physical offset of the half message.
        pub commit_log_offset: i64 = "commitLogOffset",
        /// [`crate::record::sys_flag::TRANSACTION_COMMIT`], [`crate::record::sys_flag::TRANSACTION_ROLLBACK`], or 0
        /// when it is not known yet.
        pub commit_or_rollback: i32 = "commitOrRollback",
        /// Whether the broker asked.
        pub from_transaction_check: bool = "fromTransactionCheck" or false,
        /// The message's UNIQ_KEY.
        pub msg_id: &'a str = "msgId",
        /// Id of the transaction.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// The broker's name.
        pub broker_name: Option<&'a str> = "bname",
    }
}

ext_header! {
    /// Header of CHECK_TRANSACTION_STATE (39).
    pub struct CheckTransactionStateHeader<'a> {
        /// Topic of the message.
        pub topic: Option<&'a str> = "topic",
        /// Queue offset of the half message.
        pub tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Physical offset of the half message.
        pub commit_log_offset: i64 = "commitLogOffset",
        /// The message's UNIQ_KEY, or its offset id.
        pub msg_id: Option<&'a str> = "msgId",
        /// Id of the transaction.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// Offset id of the half message.
        pub offset_msg_id: Option<&'a str> = "offsetMsgId",
        /// The broker's name.
        pub broker_name: Option<&'a str> = "bname",
    }
}

ext_header! {
    /// Header of PUSH_REPLY_MESSAGE_TO_CLIENT (326).
    pub struct ReplyMessageHeader<'a> {
        /// Producer group.
        pub producer_group: &'a str = "producerGroup",
        /// Topic of the reply.
        pub topic: &'a str = "topic",
        /// Template for a topic that does not exist yet.
        pub default_topic: &'a str = "defaultTopic" or "TBW102",
        /// Queues of a topic that does not exist yet.
        pub default_topic_queue_nums: i32 = "defaultTopicQueueNums" or 4,
        /// Queue.
        pub queue_id: i32 = "queueId",
        /// See [`crate::record::sys_flag`].
        pub sys_flag: i32 = "sysFlag",
        /// When the reply was made, in ms.
        pub born_timestamp: i64 = "bornTimestamp",
        /// The sender's own flag.
        pub flag: i32 = "flag",
        /// Encoded properties.
        pub properties: Option<&'a str> = "properties",
        /// How often it was consumed.
        pub reconsume_times: Option<i32> = "reconsumeTimes",
        /// Of a unit.
        pub unit_mode: Option<bool> = "unitMode",
        /// The sender's address, as Java prints it: `/1.2.3.4:5`.
        pub born_host: &'a str = "bornHost",
        /// The broker's address, likewise.
        pub store_host: &'a str = "storeHost",
        /// When the broker got it, in ms.
        pub store_timestamp: i64 = "storeTimestamp",
    }
}

ext_header! {
    /// Header of RECALL_MESSAGE (370).
    pub struct RecallMessageHeader<'a> {
        /// Producer group.
        pub producer_group: Option<&'a str> = "producerGroup",
        /// Topic.
        pub topic: &'a str = "topic",
        /// What the send's answer gave.
        pub recall_handle: Option<&'a str> = "recallHandle",
        /// The broker's name.
        pub broker_name: Option<&'a str> = "bname",
    }
}

ext_header! {
    /// Header of RECALL_MESSAGE's answer.
    pub struct RecallMessageResponseHeader<'a> {
        /// UNIQ_KEY of the message that is not delivered.
        pub msg_id: &'a str = "msgId",
    }
}
