//! Clients' membership: who is there, and what the broker tells them.

use super::ext_header;

/// Ext fields of a heartbeat's answer.
pub mod heartbeat {
    /// "true": the client may leave its subscriptions out.
    pub const IS_SUPPORT_HEART_BEAT_V2: &str = "IS_SUPPORT_HEART_BEAT_V2";
    /// "true": the broker wants the subscriptions again.
    pub const IS_SUB_CHANGE: &str = "IS_SUB_CHANGE";
}

ext_header! {
    /// Header of UNREGISTER_CLIENT (35).
    pub struct UnregisterClientHeader<'a> {
        /// The client.
        pub client_id: &'a str = "clientID",
        /// Producer group that it leaves.
        pub producer_group: Option<&'a str> = "producerGroup",
        /// Consumer group that it leaves.
        pub consumer_group: Option<&'a str> = "consumerGroup",
    }
}

ext_header! {
    /// Header of the requests that only name a consumer group (38, 40, 203).
    pub struct ConsumerGroupHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
    }
}

ext_header! {
    /// Header of GET_PRODUCER_CONNECTION_LIST (204).
    pub struct ProducerGroupHeader<'a> {
        /// Producer group.
        pub producer_group: &'a str = "producerGroup",
    }
}

ext_header! {
    /// Header of RESET_CONSUMER_CLIENT_OFFSET (220).
    pub struct ResetOffsetHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Consumer group.
        pub group: &'a str = "group",
        /// The time to go to, in ms.
        pub timestamp: i64 = "timestamp",
        /// Whether offsets may go back.
        pub is_force: bool = "isForce",
    }
}

ext_header! {
    /// Header of GET_CONSUMER_STATUS_FROM_CLIENT (221).
    pub struct ConsumerStatusHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Consumer group.
        pub group: &'a str = "group",
    }
}

ext_header! {
    /// Header of INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223).
    pub struct InvokeConsumerStatusHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Consumer group.
        pub group: &'a str = "group",
        /// The client, by its id; all when missing or blank.
        pub client_addr: Option<&'a str> = "clientAddr",
    }
}

ext_header! {
    /// Header of GET_CONSUMER_RUNNING_INFO (307).
    pub struct ConsumerRunningInfoHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The client.
        pub client_id: &'a str = "clientId",
        /// Whether stack traces are wanted.
        pub jstack_enable: Option<bool> = "jstackEnable",
    }
}

ext_header! {
    /// Header of CONSUME_MESSAGE_DIRECTLY (309).
    pub struct ConsumeMessageDirectlyHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The client.
        pub client_id: Option<&'a str> = "clientId",
        /// The message.
        pub msg_id: Option<&'a str> = "msgId",
        /// The broker's name.
        pub broker_name: Option<&'a str> = "brokerName",
        /// Topic.
        pub topic: Option<&'a str> = "topic",
        /// System flag of the topic.
        pub topic_sys_flag: Option<i32> = "topicSysFlag",
        /// System flag of the group.
        pub group_sys_flag: Option<i32> = "groupSysFlag",
    }
}
