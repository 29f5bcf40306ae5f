//! Every request code of RocketMQ, and what this broker makes of it. The dispatch refuses by this table what is not
//! served, and docs/compatibility.md shows it: a test holds the two together.

use ringmq_protocol::codes::response;

use crate::control::Refusal;

/// What becomes of a request with a code when it comes to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Answered; with a note on what of it is not.
    Served(&'static str),
    /// Refused, and why.
    Refused(&'static str),
    /// The broker sends it to clients.
    Pushed(&'static str),
    /// Not the broker's: who answers it.
    Elsewhere(&'static str),
}

/// One request code.
#[derive(Clone, Copy, Debug)]
pub struct RequestCode {
    /// The code.
    pub code: i32,
    /// RocketMQ's name of it.
    pub name: &'static str,
    /// What becomes of it.
    pub support: Support,
}

const DEAD: &str = "no RocketMQ 5 component serves it";
const TIMERS: &str =
    "what is delayed comes from the log: there are no delay offsets, no wheel and no checkpoint of one";
const POP: &str = "POP consumption is not served yet";
const LITE: &str = "lite topics are not served";
const ASSIGNMENT: &str =
    "the broker does not divide queues: a consumer needs clientRebalance=true, or it gets none";
const STATIC: &str = "static topics are not served";
const AUTH: &str = "access control is not served yet";
const REPLICAS: &str = "replicas are not served yet";
const CONTROLLER: &str = "the controller, which RingMQ does not have";
const CONTAINER: &str = "the broker container, which RingMQ does not have";
const NAME_SERVER: &str = "the name server";
const NO_FILES: &str = "RingMQ keeps no file for each queue and no RocksDB: there is nothing to do";
const RETENTION: &str = "what has expired is deleted by itself (`retention-interval`)";
const COLD: &str = "Java's page cache control, which direct I/O has no use for";

use Support::{Elsewhere, Pushed, Refused, Served};

/// What becomes of each request code, in order.
pub const REQUEST_CODES: &[RequestCode] = &[
    row(10, "SEND_MESSAGE", Served("")),
    row(11, "PULL_MESSAGE", Served("filtered by tag or SQL92; class filters are refused")),
    row(12, "QUERY_MESSAGE", Served("")),
    row(13, "QUERY_BROKER_OFFSET", Refused(DEAD)),
    row(14, "QUERY_CONSUMER_OFFSET", Served("")),
    row(15, "UPDATE_CONSUMER_OFFSET", Served("")),
    row(17, "UPDATE_AND_CREATE_TOPIC", Served("COMPACTION is refused")),
    row(18, "UPDATE_AND_CREATE_TOPIC_LIST", Served("as 17")),
    row(21, "GET_ALL_TOPIC_CONFIG", Served("")),
    row(22, "GET_TOPIC_CONFIG_LIST", Refused(DEAD)),
    row(23, "GET_TOPIC_NAME_LIST", Refused(DEAD)),
    row(
        25,
        "UPDATE_BROKER_CONFIG",
        Refused("options are read at the start only: restart with the new value"),
    ),
    row(26, "GET_BROKER_CONFIG", Served("")),
    row(27, "TRIGGER_DELETE_FILES", Refused(DEAD)),
    row(28, "GET_BROKER_RUNTIME_INFO", Served("every key; 0 where RingMQ has nothing of the kind")),
    row(29, "SEARCH_OFFSET_BY_TIMESTAMP", Served("")),
    row(30, "GET_MAX_OFFSET", Served("")),
    row(31, "GET_MIN_OFFSET", Served("")),
    row(32, "GET_EARLIEST_MSG_STORETIME", Served("")),
    row(33, "VIEW_MESSAGE_BY_ID", Served("")),
    row(34, "HEART_BEAT", Served("")),
    row(35, "UNREGISTER_CLIENT", Served("")),
    row(36, "CONSUMER_SEND_MSG_BACK", Served("")),
    row(37, "END_TRANSACTION", Served("")),
    row(38, "GET_CONSUMER_LIST_BY_GROUP", Served("")),
    row(
        39,
        "CHECK_TRANSACTION_STATE",
        Pushed("to a producer of the group, for a half message that is not ended"),
    ),
    row(40, "NOTIFY_CONSUMER_IDS_CHANGED", Pushed("to the members of a group when one joins or leaves")),
    row(41, "LOCK_BATCH_MQ", Served("")),
    row(42, "UNLOCK_BATCH_MQ", Served("")),
    row(43, "GET_ALL_CONSUMER_OFFSET", Served("")),
    row(45, "GET_ALL_DELAY_OFFSET", Refused(TIMERS)),
    row(46, "CHECK_CLIENT_CONFIG", Served("")),
    row(47, "GET_CLIENT_CONFIG", Refused(DEAD)),
    row(60, "GET_TIMER_CHECK_POINT", Refused(TIMERS)),
    row(61, "GET_TIMER_METRICS", Refused(TIMERS)),
    row(100, "PUT_KV_CONFIG", Elsewhere(NAME_SERVER)),
    row(101, "GET_KV_CONFIG", Elsewhere(NAME_SERVER)),
    row(102, "DELETE_KV_CONFIG", Elsewhere(NAME_SERVER)),
    row(103, "REGISTER_BROKER", Elsewhere(NAME_SERVER)),
    row(104, "UNREGISTER_BROKER", Elsewhere(NAME_SERVER)),
    row(105, "GET_ROUTEINFO_BY_TOPIC", Elsewhere(NAME_SERVER)),
    row(106, "GET_BROKER_CLUSTER_INFO", Elsewhere(NAME_SERVER)),
    row(200, "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP", Served("")),
    row(201, "GET_ALL_SUBSCRIPTIONGROUP_CONFIG", Served("")),
    row(202, "GET_TOPIC_STATS_INFO", Served("")),
    row(203, "GET_CONSUMER_CONNECTION_LIST", Served("")),
    row(204, "GET_PRODUCER_CONNECTION_LIST", Served("")),
    row(205, "WIPE_WRITE_PERM_OF_BROKER", Elsewhere(NAME_SERVER)),
    row(206, "GET_ALL_TOPIC_LIST_FROM_NAMESERVER", Elsewhere(NAME_SERVER)),
    row(207, "DELETE_SUBSCRIPTIONGROUP", Served("")),
    row(208, "GET_CONSUME_STATS", Served("")),
    row(209, "SUSPEND_CONSUMER", Refused(DEAD)),
    row(210, "RESUME_CONSUMER", Refused(DEAD)),
    row(211, "RESET_CONSUMER_OFFSET_IN_CONSUMER", Refused(DEAD)),
    row(212, "RESET_CONSUMER_OFFSET_IN_BROKER", Refused(DEAD)),
    row(213, "ADJUST_CONSUMER_THREAD_POOL", Refused(DEAD)),
    row(214, "WHO_CONSUME_THE_MESSAGE", Refused(DEAD)),
    row(215, "DELETE_TOPIC_IN_BROKER", Served("")),
    row(216, "DELETE_TOPIC_IN_NAMESRV", Elsewhere(NAME_SERVER)),
    row(217, "REGISTER_TOPIC_IN_NAMESRV", Elsewhere(NAME_SERVER)),
    row(219, "GET_KVLIST_BY_NAMESPACE", Elsewhere(NAME_SERVER)),
    row(
        220,
        "RESET_CONSUMER_CLIENT_OFFSET",
        Pushed("to a group's consumers for 222, with server-side-reset off"),
    ),
    row(221, "GET_CONSUMER_STATUS_FROM_CLIENT", Pushed("to consumers for 223")),
    row(222, "INVOKE_BROKER_TO_RESET_OFFSET", Served("")),
    row(223, "INVOKE_BROKER_TO_GET_CONSUMER_STATUS", Served("")),
    row(224, "GET_TOPICS_BY_CLUSTER", Elsewhere(NAME_SERVER)),
    row(225, "UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST", Served("")),
    row(300, "QUERY_TOPIC_CONSUME_BY_WHO", Served("")),
    row(301, "REGISTER_FILTER_SERVER", Refused(DEAD)),
    row(302, "REGISTER_MESSAGE_FILTER_CLASS", Refused(DEAD)),
    row(303, "QUERY_CONSUME_TIME_SPAN", Served("")),
    row(304, "GET_SYSTEM_TOPIC_LIST_FROM_NS", Elsewhere(NAME_SERVER)),
    row(305, "GET_SYSTEM_TOPIC_LIST_FROM_BROKER", Served("")),
    row(306, "CLEAN_EXPIRED_CONSUMEQUEUE", Refused(NO_FILES)),
    row(307, "GET_CONSUMER_RUNNING_INFO", Served("")),
    row(308, "QUERY_CORRECTION_OFFSET", Served("")),
    row(309, "CONSUME_MESSAGE_DIRECTLY", Served("")),
    row(310, "SEND_MESSAGE_V2", Served("")),
    row(311, "GET_UNIT_TOPIC_LIST", Elsewhere(NAME_SERVER)),
    row(312, "GET_HAS_UNIT_SUB_TOPIC_LIST", Elsewhere(NAME_SERVER)),
    row(313, "GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST", Elsewhere(NAME_SERVER)),
    row(314, "CLONE_GROUP_OFFSET", Served("without a topic, all of the group's: Java clones none")),
    row(
        315,
        "VIEW_BROKER_STATS_DATA",
        Served("TOPIC_PUT_NUMS/SIZE, GROUP_GET_NUMS/SIZE, BROKER_PUT_NUMS, BROKER_GET_NUMS"),
    ),
    row(316, "CLEAN_UNUSED_TOPIC", Refused(NO_FILES)),
    row(317, "GET_BROKER_CONSUME_STATS", Served("")),
    row(318, "UPDATE_NAMESRV_CONFIG", Elsewhere(NAME_SERVER)),
    row(319, "GET_NAMESRV_CONFIG", Elsewhere(NAME_SERVER)),
    row(320, "SEND_BATCH_MESSAGE", Served("")),
    row(321, "QUERY_CONSUME_QUEUE", Served("1,000 entries at most")),
    row(322, "QUERY_DATA_VERSION", Elsewhere(NAME_SERVER)),
    row(323, "RESUME_CHECK_HALF_MESSAGE", Served("for what was given up")),
    row(324, "SEND_REPLY_MESSAGE", Served("")),
    row(325, "SEND_REPLY_MESSAGE_V2", Served("")),
    row(326, "PUSH_REPLY_MESSAGE_TO_CLIENT", Pushed("to the producer that waits for a reply")),
    row(327, "ADD_WRITE_PERM_OF_BROKER", Elsewhere(NAME_SERVER)),
    row(328, "GET_ALL_PRODUCER_INFO", Served("")),
    row(329, "DELETE_EXPIRED_COMMITLOG", Refused(RETENTION)),
    row(343, "QUERY_TOPICS_BY_CONSUMER", Served("")),
    row(345, "QUERY_SUBSCRIPTION_BY_CONSUMER", Served("")),
    row(351, "GET_TOPIC_CONFIG", Served("")),
    row(352, "GET_SUBSCRIPTIONGROUP_CONFIG", Served("a group that does not exist is described, not created")),
    row(353, "UPDATE_AND_GET_GROUP_FORBIDDEN", Served("")),
    row(354, "CHECK_ROCKSDB_CQ_WRITE_PROGRESS", Refused(NO_FILES)),
    row(355, "EXPORT_ROCKSDB_CONFIG_TO_JSON", Refused(NO_FILES)),
    row(361, "LITE_PULL_MESSAGE", Served("as 11")),
    row(370, "RECALL_MESSAGE", Served("")),
    row(400, "QUERY_ASSIGNMENT", Refused(ASSIGNMENT)),
    row(401, "SET_MESSAGE_REQUEST_MODE", Refused(ASSIGNMENT)),
    row(402, "GET_ALL_MESSAGE_REQUEST_MODE", Refused(ASSIGNMENT)),
    row(513, "UPDATE_AND_CREATE_STATIC_TOPIC", Refused(STATIC)),
    row(901, "GET_BROKER_MEMBER_GROUP", Elsewhere(NAME_SERVER)),
    row(902, "ADD_BROKER", Elsewhere(CONTAINER)),
    row(903, "REMOVE_BROKER", Elsewhere(CONTAINER)),
    row(904, "BROKER_HEARTBEAT", Elsewhere(NAME_SERVER)),
    row(905, "NOTIFY_MIN_BROKER_ID_CHANGE", Refused(REPLICAS)),
    row(906, "EXCHANGE_BROKER_HA_INFO", Refused(REPLICAS)),
    row(907, "GET_BROKER_HA_STATUS", Refused(REPLICAS)),
    row(908, "RESET_MASTER_FLUSH_OFFSET", Refused(REPLICAS)),
    row(1001, "CONTROLLER_ALTER_SYNC_STATE_SET", Elsewhere(CONTROLLER)),
    row(1002, "CONTROLLER_ELECT_MASTER", Elsewhere(CONTROLLER)),
    row(1003, "CONTROLLER_REGISTER_BROKER", Elsewhere(CONTROLLER)),
    row(1004, "CONTROLLER_GET_REPLICA_INFO", Elsewhere(CONTROLLER)),
    row(1005, "CONTROLLER_GET_METADATA_INFO", Elsewhere(CONTROLLER)),
    row(1006, "CONTROLLER_GET_SYNC_STATE_DATA", Elsewhere(CONTROLLER)),
    row(1007, "GET_BROKER_EPOCH_CACHE", Refused(REPLICAS)),
    row(1008, "NOTIFY_BROKER_ROLE_CHANGED", Refused(REPLICAS)),
    row(1009, "UPDATE_CONTROLLER_CONFIG", Elsewhere(CONTROLLER)),
    row(1010, "GET_CONTROLLER_CONFIG", Elsewhere(CONTROLLER)),
    row(1011, "CLEAN_BROKER_DATA", Elsewhere(CONTROLLER)),
    row(1012, "CONTROLLER_GET_NEXT_BROKER_ID", Elsewhere(CONTROLLER)),
    row(1013, "CONTROLLER_APPLY_BROKER_ID", Elsewhere(CONTROLLER)),
    row(1014, "BROKER_CLOSE_CHANNEL_REQUEST", Elsewhere(CONTROLLER)),
    row(1015, "CHECK_NOT_ACTIVE_BROKER_REQUEST", Elsewhere(CONTROLLER)),
    row(1016, "GET_BROKER_LIVE_INFO_REQUEST", Elsewhere(CONTROLLER)),
    row(1017, "GET_SYNC_STATE_DATA_REQUEST", Elsewhere(CONTROLLER)),
    row(1018, "RAFT_BROKER_HEART_BEAT_EVENT_REQUEST", Elsewhere(CONTROLLER)),
    row(2001, "UPDATE_COLD_DATA_FLOW_CTR_CONFIG", Refused(COLD)),
    row(2002, "REMOVE_COLD_DATA_FLOW_CTR_CONFIG", Refused(COLD)),
    row(2003, "GET_COLD_DATA_FLOW_CTR_INFO", Refused(COLD)),
    row(2004, "SET_COMMITLOG_READ_MODE", Refused(COLD)),
    row(3001, "AUTH_CREATE_USER", Refused(AUTH)),
    row(3002, "AUTH_UPDATE_USER", Refused(AUTH)),
    row(3003, "AUTH_DELETE_USER", Refused(AUTH)),
    row(3004, "AUTH_GET_USER", Refused(AUTH)),
    row(3005, "AUTH_LIST_USER", Refused(AUTH)),
    row(3006, "AUTH_CREATE_ACL", Refused(AUTH)),
    row(3007, "AUTH_UPDATE_ACL", Refused(AUTH)),
    row(3008, "AUTH_DELETE_ACL", Refused(AUTH)),
    row(3009, "AUTH_GET_ACL", Refused(AUTH)),
    row(3010, "AUTH_LIST_ACL", Refused(AUTH)),
    row(5001, "SWITCH_TIMER_ENGINE", Refused(TIMERS)),
    row(200050, "POP_MESSAGE", Refused(POP)),
    row(200051, "ACK_MESSAGE", Refused(POP)),
    row(200052, "PEEK_MESSAGE", Refused(POP)),
    row(200053, "CHANGE_MESSAGE_INVISIBLETIME", Refused(POP)),
    row(200054, "NOTIFICATION", Refused(POP)),
    row(200055, "POLLING_INFO", Refused(POP)),
    row(200056, "POP_ROLLBACK", Refused(POP)),
    row(200070, "POP_LITE_MESSAGE", Refused(LITE)),
    row(200071, "LITE_SUBSCRIPTION_CTL", Refused(LITE)),
    row(200072, "ACK_LITE_MESSAGE", Refused(LITE)),
    row(200073, "NOTIFY_UNSUBSCRIBE_LITE", Refused(LITE)),
    row(200074, "GET_BROKER_LITE_INFO", Refused(LITE)),
    row(200075, "GET_PARENT_TOPIC_INFO", Refused(LITE)),
    row(200076, "GET_LITE_TOPIC_INFO", Refused(LITE)),
    row(200077, "GET_LITE_CLIENT_INFO", Refused(LITE)),
    row(200078, "GET_LITE_GROUP_INFO", Refused(LITE)),
    row(200079, "TRIGGER_LITE_DISPATCH", Refused(LITE)),
    row(200151, "BATCH_ACK_MESSAGE", Refused(POP)),
];

const fn row(code: i32, name: &'static str, support: Support) -> RequestCode {
    RequestCode { code, name, support }
}

/// What becomes of a request with this code; `None` for a code that RocketMQ does not know.
pub fn find(code: i32) -> Option<&'static RequestCode> {
    let place = REQUEST_CODES.binary_search_by_key(&code, |row| row.code).ok()?;
    Some(&REQUEST_CODES[place])
}

/// The refusal of a request whose code is not served: Java's words, and behind them which request it is and why.
pub fn not_supported(code: i32) -> Refusal {
    let mut remark = format!(" request type {code} not supported");
    if let Some(row) = find(code) {
        let why = match row.support {
            Served(_) | Pushed(_) => "it cannot be asked of this port",
            Refused(why) => why,
            Elsewhere(who) => &format!("it is for {who}"),
        };
        remark += &format!(": {}: {why}", row.name);
    }
    Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, remark)
}

/// The table of docs/compatibility.md.
pub fn markdown() -> String {
    let mut page = String::from("| code | request | broker |\n|---:|---|---|\n");
    for RequestCode { code, name, support } in REQUEST_CODES {
        let support = match support {
            Served("") => "served".to_owned(),
            Served(note) => format!("served; {note}"),
            Refused(why) => format!("refused: {why}"),
            Pushed(when) => format!("sent by the broker {when}"),
            Elsewhere(who) => format!("for {who}"),
        };
        page += &format!("| {code} | {name} | {support} |\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::codes::request;

    use super::*;

    const PAGE: &str = include_str!("../../docs/compatibility.md");

    #[test]
    fn the_table_is_in_order_and_names_codes_as_the_protocol_does() {
        assert!(REQUEST_CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for row in REQUEST_CODES {
            assert!(request::name(row.code).is_none_or(|name| name == row.name), "{row:?}");
        }
        for code in 0..200_200 {
            assert!(request::name(code).is_none() || find(code).is_some(), "{code} is missing");
        }
    }

    #[test]
    fn the_page_shows_the_table() {
        assert!(PAGE.contains(&markdown()), "put this into docs/compatibility.md:\n{}", markdown());
    }

    #[test]
    fn a_refusal_begins_with_javas_words() {
        assert_eq!(not_supported(7).remark, " request type 7 not supported");
        let refusal = not_supported(60);
        assert_eq!(refusal.code, 3);
        assert_eq!(
            refusal.remark,
            " request type 60 not supported: GET_TIMER_CHECK_POINT: what is delayed comes from the log: there are no \
             delay offsets, no wheel and no checkpoint of one"
        );
        assert!(not_supported(105).remark.ends_with(": GET_ROUTEINFO_BY_TOPIC: it is for the name server"));
    }
}
