//! What tools ask the broker.

use super::ext_header;

ext_header! {
    /// Header of UPDATE_AND_CREATE_TOPIC (17).
    pub struct CreateTopicHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Template.
        pub default_topic: Option<&'a str> = "defaultTopic",
        /// Queues to read.
        pub read_queue_nums: i32 = "readQueueNums",
        /// Queues to write.
        pub write_queue_nums: i32 = "writeQueueNums",
        /// Permission bits.
        pub perm: i32 = "perm",
        /// SINGLE_TAG or MULTI_TAG.
        pub topic_filter_type: Option<&'a str> = "topicFilterType",
        /// System flag.
        pub topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Whether queues are ordered.
        pub order: bool = "order" or false,
        /// Changes to attributes: `+name=value,-name`.
        pub attributes: Option<&'a str> = "attributes",
        /// Whether to overrule a static topic.
        pub force: Option<bool> = "force",
    }
}

ext_header! {
    /// Header of the requests that only name a topic (202, 215, 217, 300, 351).
    pub struct TopicHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
    }
}

ext_header! {
    /// Header of GET_ALL_TOPIC_CONFIG (21), of which a field that is there asks for a page.
    pub struct GetAllTopicConfigHeader<'a> {
        /// First topic of the page.
        pub topic_seq: Option<i32> = "topicSeq",
        /// Data version (JSON) that the caller counts from.
        pub data_version: Option<&'a str> = "dataVersion",
        /// Most topics of the page.
        pub max_topic_num: Option<i32> = "maxTopicNum",
    }
}

ext_header! {
    /// Header of a page of topics.
    pub struct GetAllTopicConfigResponseHeader {
        /// Topics in all.
        pub total_topic_num: Option<i32> = "totalTopicNum",
    }
}

ext_header! {
    /// Header of GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201), of which a field that is there asks for a page.
    pub struct GetAllSubscriptionGroupHeader<'a> {
        /// First group of the page.
        pub group_seq: Option<i32> = "groupSeq",
        /// Data version (JSON) that the caller counts from.
        pub data_version: Option<&'a str> = "dataVersion",
        /// Most groups of the page.
        pub max_group_num: Option<i32> = "maxGroupNum",
    }
}

ext_header! {
    /// Header of a page of groups.
    pub struct GetAllSubscriptionGroupResponseHeader {
        /// Groups in all.
        pub total_group_num: Option<i32> = "totalGroupNum",
    }
}

ext_header! {
    /// Header of DELETE_SUBSCRIPTIONGROUP (207).
    pub struct DeleteSubscriptionGroupHeader<'a> {
        /// Group.
        pub group_name: &'a str = "groupName",
        /// Whether its offsets go too.
        pub clean_offset: bool = "cleanOffset" or false,
    }
}

ext_header! {
    /// Header of GET_CONSUME_STATS (208).
    pub struct GetConsumeStatsHeader<'a> {
        /// Consumer group.
        pub consumer_group: &'a str = "consumerGroup",
        /// Topic; all of the group's when missing.
        pub topic: Option<&'a str> = "topic",
        /// Topics with `;` between them.
        pub topic_list: Option<&'a str> = "topicList",
    }
}

ext_header! {
    /// Header of the requests that only name a group (343, 352).
    pub struct GroupHeader<'a> {
        /// Group.
        pub group: &'a str = "group",
    }
}

ext_header! {
    /// Header of GET_BROKER_CONFIG's answer.
    pub struct GetBrokerConfigResponseHeader<'a> {
        /// Data version as JSON.
        pub version: &'a str = "version",
    }
}

ext_header! {
    /// Header of INVOKE_BROKER_TO_RESET_OFFSET (222).
    pub struct InvokeResetOffsetHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Consumer group.
        pub group: &'a str = "group",
        /// Queue; all below 0.
        pub queue_id: i32 = "queueId" or -1,
        /// Offset to go to; by time when missing.
        pub offset: Option<i64> = "offset",
        /// The time to go to, in ms.
        pub timestamp: i64 = "timestamp",
        /// Whether offsets may go back.
        pub is_force: bool = "isForce",
    }
}

ext_header! {
    /// Header of VIEW_BROKER_STATS_DATA (315).
    pub struct ViewBrokerStatsDataHeader<'a> {
        /// Statistic.
        pub stats_name: &'a str = "statsName",
        /// Of what.
        pub stats_key: &'a str = "statsKey",
    }
}

ext_header! {
    /// Header of CLONE_GROUP_OFFSET (314).
    pub struct CloneGroupOffsetHeader<'a> {
        /// Whose offsets.
        pub src_group: &'a str = "srcGroup",
        /// Who gets them.
        pub dest_group: &'a str = "destGroup",
        /// Topic; all of the group when missing or blank.
        pub topic: Option<&'a str> = "topic",
        /// Whether it does not matter what the source subscribes to now.
        pub offline: bool = "offline" or false,
    }
}

ext_header! {
    /// Header of QUERY_CORRECTION_OFFSET (308).
    pub struct QueryCorrectionOffsetHeader<'a> {
        /// Groups that do not count, with commas between them.
        pub filter_groups: Option<&'a str> = "filterGroups",
        /// Group to compare with.
        pub compare_group: &'a str = "compareGroup",
        /// Topic.
        pub topic: &'a str = "topic",
    }
}

ext_header! {
    /// Header of QUERY_CONSUME_QUEUE (321).
    pub struct QueryConsumeQueueHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Queue within the topic.
        pub queue_id: i32 = "queueId",
        /// First entry wanted.
        pub index: i64 = "index",
        /// How many.
        pub count: i32 = "count",
        /// Group whose subscription is wanted, too.
        pub consumer_group: Option<&'a str> = "consumerGroup",
    }
}

ext_header! {
    /// Header of RESUME_CHECK_HALF_MESSAGE (323).
    pub struct ResumeCheckHalfMessageHeader<'a> {
        /// Topic.
        pub topic: Option<&'a str> = "topic",
        /// The offset message id of the half message that was given up.
        pub msg_id: Option<&'a str> = "msgId",
    }
}

ext_header! {
    /// Header of QUERY_CONSUME_TIME_SPAN (303).
    pub struct QueryConsumeTimeSpanHeader<'a> {
        /// Topic.
        pub topic: &'a str = "topic",
        /// Consumer group.
        pub group: &'a str = "group",
    }
}

ext_header! {
    /// Header of GET_BROKER_CONSUME_STATS (317).
    pub struct GetBrokerConsumeStatsHeader {
        /// Whether ordered topics alone are wanted.
        pub is_order: bool = "isOrder",
    }
}

ext_header! {
    /// Header of UPDATE_AND_GET_GROUP_FORBIDDEN (353).
    pub struct UpdateGroupForbiddenHeader<'a> {
        /// Consumer group.
        pub group: &'a str = "group",
        /// Topic.
        pub topic: &'a str = "topic",
        /// Whether the group may read the topic from now on; only asked when missing.
        pub readable: Option<bool> = "readable",
    }
}
