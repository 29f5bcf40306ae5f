//! Names of topics and groups: what is allowed, with Java's own remarks, and which belong to the system.

/// Longest topic that is neither a retry nor a DLQ topic.
pub const TOPIC_MAX_LENGTH: usize = 127;
/// Longest retry or DLQ topic.
pub const RETRY_OR_DLQ_TOPIC_MAX_LENGTH: usize = 255;
/// Longest group.
pub const GROUP_MAX_LENGTH: usize = 120;
/// What the retry topic of a group starts with.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// What the dead-letter topic of a group starts with.
pub const DLQ_PREFIX: &str = "%DLQ%";
/// What a light message queue (LMQ) starts with.
pub const LMQ_PREFIX: &str = "%LMQ%";
/// Longest name of an LMQ.
pub const LMQ_MAX_LENGTH: usize = 255;
/// What further system topics start with.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// What further system groups start with.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// System topics by their Java constants (`TopicValidator`).
pub mod topics {
    /// Template of topics that are created on first send.
    pub const AUTO_CREATE_TOPIC_KEY_TOPIC: &str = "TBW102";
    /// Delayed messages.
    pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
    /// The benchmark's topic.
    pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
    /// Half messages.
    pub const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
    /// What became of half messages.
    pub const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
    /// Message traces.
    pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
    /// Half messages that were asked for too often.
    pub const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
    /// The broker's own test.
    pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
    /// Events of moved offsets.
    pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
    /// Checkpoints.
    pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
    /// Timer messages.
    pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
    /// What comes behind the cluster's name in the reply topic.
    pub const REPLY_TOPIC_POSTFIX: &str = "REPLY_TOPIC";
}

/// Topics that are the system's whatever cluster and broker are called.
const SYSTEM_TOPICS: [&str; 10] = [
    topics::AUTO_CREATE_TOPIC_KEY_TOPIC,
    topics::SCHEDULE_TOPIC,
    topics::BENCHMARK_TOPIC,
    topics::TRANS_HALF_TOPIC,
    topics::TRANS_OP_HALF_TOPIC,
    topics::TRACE_TOPIC,
    topics::TRANS_CHECK_MAX_TIME_TOPIC,
    topics::SELF_TEST_TOPIC,
    topics::OFFSET_MOVED_EVENT,
    topics::CHECKPOINT_TOPIC,
];

/// Topics that clients may not send to.
const NOT_FOR_CLIENTS: [&str; 6] = [
    topics::SCHEDULE_TOPIC,
    topics::TRANS_HALF_TOPIC,
    topics::TRANS_OP_HALF_TOPIC,
    topics::TRANS_CHECK_MAX_TIME_TOPIC,
    topics::SELF_TEST_TOPIC,
    topics::OFFSET_MOVED_EVENT,
];

/// System consumer groups by their Java constants (`MixAll`).
pub mod groups {
    /// Group of consumers that name none.
    pub const DEFAULT_CONSUMER: &str = "DEFAULT_CONSUMER";
    /// mqadmin's group.
    pub const TOOLS_CONSUMER: &str = "TOOLS_CONSUMER";
    /// Group of the delay service.
    pub const SCHEDULE_CONSUMER: &str = "SCHEDULE_CONSUMER";
    /// Group of filter servers.
    pub const FILTERSRV_CONSUMER: &str = "FILTERSRV_CONSUMER";
    /// Group of the monitor.
    pub const MONITOR_CONSUMER: &str = "__MONITOR_CONSUMER";
    /// Group of the broker's own test.
    pub const SELF_TEST_CONSUMER: &str = "SELF_TEST_C_GROUP";
    /// Group of Aliyun's HTTP proxy.
    pub const ONS_HTTP_PROXY: &str = "CID_ONS-HTTP-PROXY";
    /// Group of Aliyun's permission service.
    pub const ONSAPI_PERMISSION: &str = "CID_ONSAPI_PERMISSION";
    /// Group of Aliyun's owner service.
    pub const ONSAPI_OWNER: &str = "CID_ONSAPI_OWNER";
    /// Group of Aliyun's pull service.
    pub const ONSAPI_PULL: &str = "CID_ONSAPI_PULL";
    /// Group of the transaction service.
    pub const SYS_TRANS: &str = "CID_RMQ_SYS_TRANS";
}

const SYSTEM_GROUPS: [&str; 11] = [
    groups::DEFAULT_CONSUMER,
    groups::TOOLS_CONSUMER,
    groups::SCHEDULE_CONSUMER,
    groups::FILTERSRV_CONSUMER,
    groups::MONITOR_CONSUMER,
    groups::SELF_TEST_CONSUMER,
    groups::ONS_HTTP_PROXY,
    groups::ONSAPI_PERMISSION,
    groups::ONSAPI_OWNER,
    groups::ONSAPI_PULL,
    groups::SYS_TRANS,
];

/// Why a name is refused. The text is the remark that Java answers with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A topic without a name.
    #[error("The specified topic is blank.")]
    TopicBlank,
    /// A topic with other characters.
    #[error("The specified topic: {0}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    TopicIllegal(String),
    /// A topic that is too long.
    #[error("The specified topic: {0}, is longer than topic max length: {TOPIC_MAX_LENGTH}")]
    TopicTooLong(String),
    /// A retry or DLQ topic that is too long.
    #[error(
        "The specified topic is DLQ or Retry topic: {0}, and it's longer than topic max length: {RETRY_OR_DLQ_TOPIC_MAX_LENGTH}"
    )]
    RetryOrDlqTopicTooLong(String),
    /// A group without a name.
    #[error("The specified group is blank.")]
    GroupBlank,
    /// A group with other characters.
    #[error("The specified group: {0}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    GroupIllegal(String),
    /// A group that is too long.
    #[error("The specified group: {0}, is longer than group max length: {GROUP_MAX_LENGTH}")]
    GroupTooLong(String),
}

/// Checks a topic's name.
pub fn validate_topic(topic: &str) -> Result<(), NameError> {
    if is_blank(topic) {
        return Err(NameError::TopicBlank);
    }
    if !is_legal(topic) {
        return Err(NameError::TopicIllegal(topic.to_owned()));
    }
    if is_retry_topic(topic) || is_dlq_topic(topic) {
        if topic.len() > RETRY_OR_DLQ_TOPIC_MAX_LENGTH {
            return Err(NameError::RetryOrDlqTopicTooLong(topic.to_owned()));
        }
    } else if topic.len() > TOPIC_MAX_LENGTH {
        return Err(NameError::TopicTooLong(topic.to_owned()));
    }
    Ok(())
}

/// Checks a group's name.
pub fn validate_group(group: &str) -> Result<(), NameError> {
    if is_blank(group) {
        return Err(NameError::GroupBlank);
    }
    if !is_legal(group) {
        return Err(NameError::GroupIllegal(group.to_owned()));
    }
    if group.len() > GROUP_MAX_LENGTH {
        return Err(NameError::GroupTooLong(group.to_owned()));
    }
    Ok(())
}

fn is_blank(name: &str) -> bool {
    name.chars().all(char::is_whitespace)
}

/// `^[%|a-zA-Z0-9_-]+$`
fn is_legal(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'-' | b'_'))
}

/// Whether a topic is the retry topic of some group.
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// Whether a topic is the dead-letter topic of some group.
pub fn is_dlq_topic(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}

/// Whether a topic is an LMQ: one that messages of other topics are dispatched to.
pub fn is_lmq(topic: &str) -> bool {
    topic.starts_with(LMQ_PREFIX)
}

/// The retry topic of a group.
pub fn retry_topic(group: &str) -> String {
    [RETRY_PREFIX, group].concat()
}

/// The dead-letter topic of a group.
pub fn dlq_topic(group: &str) -> String {
    [DLQ_PREFIX, group].concat()
}

/// The reply topic of a cluster.
pub fn reply_topic(cluster: &str) -> String {
    [cluster, "_", topics::REPLY_TOPIC_POSTFIX].concat()
}

/// Whether a topic is the system's under any configuration; the topics named like the cluster and the broker, and
/// the cluster's reply topic, are for the caller to add.
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&topic)
}

/// Every name that [`is_system_topic`] knows without its prefix.
pub fn system_topics() -> &'static [&'static str] {
    &SYSTEM_TOPICS
}

/// Whether clients may not send to a topic.
pub fn is_not_for_clients(topic: &str) -> bool {
    NOT_FOR_CLIENTS.contains(&topic)
}

/// Whether a group is the system's.
pub fn is_system_group(group: &str) -> bool {
    group.starts_with(SYSTEM_GROUP_PREFIX) || SYSTEM_GROUPS.contains(&group)
}

/// Every name that [`is_system_group`] knows without its prefix.
pub fn system_groups() -> &'static [&'static str] {
    &SYSTEM_GROUPS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remark(result: Result<(), NameError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn topics_are_refused_with_javas_remarks() {
        assert_eq!(validate_topic("a-B_9%|"), Ok(()));
        assert_eq!(remark(validate_topic(" \t")), "The specified topic is blank.");
        assert_eq!(
            remark(validate_topic("a.b")),
            "The specified topic: a.b, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        let long = "x".repeat(128);
        assert_eq!(
            remark(validate_topic(&long)),
            format!("The specified topic: {long}, is longer than topic max length: 127")
        );
        assert_eq!(validate_topic(&retry_topic(&long)), Ok(()));
        let long = dlq_topic(&"x".repeat(255));
        assert_eq!(
            remark(validate_topic(&long)),
            format!(
                "The specified topic is DLQ or Retry topic: {long}, and it's longer than topic max length: 255"
            )
        );
    }

    #[test]
    fn groups_are_refused_with_javas_remarks() {
        assert_eq!(validate_group("g"), Ok(()));
        assert_eq!(remark(validate_group("")), "The specified group is blank.");
        assert_eq!(
            remark(validate_group("ü")),
            "The specified group: ü, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
        );
        let long = "g".repeat(121);
        assert_eq!(
            remark(validate_group(&long)),
            format!("The specified group: {long}, is longer than group max length: 120")
        );
    }

    #[test]
    fn the_systems_own_names_are_known() {
        assert!(is_system_topic("TBW102") && is_system_topic("rmq_sys_anything") && !is_system_topic("T"));
        assert!(is_not_for_clients("SELF_TEST_TOPIC") && !is_not_for_clients("TBW102"));
        assert!(
            is_system_group("CID_RMQ_SYS_X") && is_system_group("TOOLS_CONSUMER") && !is_system_group("g")
        );
        assert_eq!(reply_topic("DefaultCluster"), "DefaultCluster_REPLY_TOPIC");
    }
}
