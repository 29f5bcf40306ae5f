//! Frames of the real Java broker and its clients, read and written again; see golden/README.md for each one's story.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::PathBuf;

use bytes::BytesMut;
use ringmq_protocol::batch::Batch;
use ringmq_protocol::body::*;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Frame, Limits};
use ringmq_protocol::header::{Header, SerializeType};
use ringmq_protocol::headers::*;
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::language::Language;
use ringmq_protocol::message_id::{self, OffsetMessageId};
use ringmq_protocol::record::{RecordFields, RecordView, records};
use ringmq_protocol::response::{SendResponse, write_pull_head};
use ringmq_protocol::writer::Trailer;
use ringmq_protocol::{properties, version};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(directory().join(format!("{name}.bin"))).unwrap()
}

fn body(name: &str) -> Vec<u8> {
    Command::decode(&mut golden(name), &Limits::default()).unwrap().body.to_vec()
}

fn with_header(name: &str, check: impl FnOnce(Header<'_>, &[u8])) {
    let mut bytes = golden(name);
    let frame = Frame::parse(&mut bytes, &Limits::default()).unwrap();
    check(frame.header, frame.body);
}

/// The frame without `"extFields":{}`, which means the same as no ext fields and is not written here.
fn without_empty_ext(frame: Vec<u8>) -> Vec<u8> {
    let (prefix, rest) = frame.split_at(8);
    let text = String::from_utf8_lossy(rest);
    let Some(at) = text.find(r#""extFields":{},"#) else { return frame };
    let cut = r#""extFields":{},"#.len();
    let shorter = |word: &[u8]| (u32::from_be_bytes(word.try_into().unwrap()) - cut as u32).to_be_bytes();
    [&shorter(&prefix[..4])[..], &shorter(&prefix[4..]), &rest[..at], &rest[at + cut..]].concat()
}

#[test]
fn every_frame_is_written_again_byte_for_byte() {
    let mut frames = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "bin") {
            continue;
        }
        let original = std::fs::read(&path).unwrap();
        assert_eq!(frame::peek(&original, &Limits::default()), Ok(Some(original.len())), "{path:?}");
        let command = Command::decode(&mut original.clone(), &Limits::default()).unwrap();
        let mut again = BytesMut::new();
        match original[4] {
            0 => command.encode_json(&mut again),
            _ => command.encode_binary(&mut again),
        }
        assert_eq!(again.to_vec(), without_empty_ext(original), "{path:?}");
        frames += 1;
    }
    assert_eq!(frames, 57);
}

#[test]
fn sends_are_the_same_in_all_three_forms() {
    for (name, code, serialize) in [
        ("send-v2-request", request::SEND_MESSAGE_V2, SerializeType::Json),
        ("send-v2-binary-request", request::SEND_MESSAGE_V2, SerializeType::RocketMq),
        ("send-v1-request", request::SEND_MESSAGE, SerializeType::Json),
    ] {
        with_header(name, |header, body| {
            assert_eq!((header.code, header.serialize), (code, serialize));
            assert_eq!((header.language, header.version, header.flag), (Language::Java, version::CURRENT, 0));
            let send = SendHeader::for_code(header.code, &header.ext).unwrap();
            assert_eq!((send.producer_group, send.topic), ("golden_producer", "GoldenTopic"));
            assert_eq!((send.default_topic, send.default_topic_queue_nums), ("TBW102", 4));
            assert_eq!((send.sys_flag, send.flag, send.reconsume_times), (0, 0, Some(0)));
            assert_eq!(
                (send.unit_mode, send.batch, send.broker_name),
                (Some(false), Some(false), Some("broker-a"))
            );
            let text = send.properties.unwrap();
            assert_eq!(properties::find(text, "colour"), Some("blau ü \"q\""));
            assert_eq!(properties::find(text, "TAGS"), Some("TagA"));
            let key = properties::find(text, "UNIQ_KEY").unwrap();
            let sent = send.born_timestamp;
            let birth = message_id::birth_time(key, sent + 10_000).unwrap();
            assert!((0..1_000).contains(&(sent - birth).abs()), "{birth} for {sent}");
            assert_eq!(body, b"hello golden");
        });
    }
}

#[test]
fn typed_headers_write_what_they_read() {
    macro_rules! same {
        ($($name:literal as $header:ty $(, besides $ignored:literal)?;)*) => {
            $(with_header($name, |header, _| {
                let typed = <$header>::from_ext(&header.ext).unwrap();
                let mut written = Command::default().with_header(&typed).ext;
                written.sort();
                let mut read: Vec<_> = header.ext.iter().collect();
                read.retain(|(name, _)| ![$($ignored)?].contains(name));
                read.sort();
                let written: Vec<_> = written.iter().map(|(n, v)| (n.as_ref(), v.as_str())).collect();
                assert_eq!(written, read, $name);
            });)*
        };
    }
    same! {
        "send-v2-request" as SendHeaderV2;
        "send-v1-request" as SendHeaderV1;
        "send-batch-request" as SendHeaderV2;
        "send-response" as SendResponseHeader;
        "pull-request" as PullHeader, besides "bname";
        "pull-binary-request" as PullHeader, besides "bname";
        "pull-response" as PullResponseHeader;
        "query-offset-request" as QueryConsumerOffsetHeader, besides "bname";
        "query-offset-response" as OffsetResponseHeader;
        "update-offset-request" as UpdateConsumerOffsetHeader, besides "bname";
        "search-offset-request" as SearchOffsetHeader, besides "bname";
        "earliest-response" as TimestampResponseHeader;
        "query-message-request" as QueryMessageHeader;
        "query-message-response" as QueryMessageResponseHeader;
        "unregister-client-request" as UnregisterClientHeader;
        "consumer-list-request" as ConsumerGroupHeader;
        "notify-consumer-ids-request" as ConsumerGroupHeader;
        "route-request" as GetRouteInfoHeader;
        "register-broker-request" as RegisterBrokerHeader;
        "kv-get-request" as KvConfigHeader;
        "kv-get-response" as GetKvConfigResponseHeader;
        "reset-offset-request" as InvokeResetOffsetHeader;
    }
}

#[test]
fn the_hot_answers_are_javas_byte_for_byte() {
    with_header("send-response", |header, _| {
        let typed = SendResponseHeader::from_ext(&header.ext).unwrap();
        let mut out = BytesMut::new();
        SendResponse {
            opaque: header.opaque,
            code: response::SUCCESS,
            remark: None,
            msg_id: typed.msg_id,
            queue_id: typed.queue_id,
            queue_offset: typed.queue_offset,
            transaction_id: typed.transaction_id,
            recall_handle: typed.recall_handle,
            batch_uniq_id: None,
            region: "DefaultRegion",
            trace_on: true,
        }
        .write(&mut out);
        assert_eq!(out.to_vec(), golden("send-response"));
    });
    with_header("pull-response", |header, body| {
        let typed = PullResponseHeader::from_ext(&header.ext).unwrap();
        let mut out = BytesMut::new();
        let trailer = Trailer::response(header.opaque, header.remark);
        write_pull_head(&mut out, response::SUCCESS, &typed, &trailer, body.len());
        out.extend_from_slice(body);
        assert_eq!(out.to_vec(), golden("pull-response"));
    });
}

fn written_again(record: &RecordView<'_>) -> Vec<u8> {
    let (head, tail) = record.properties.as_bytes().split_at(record.properties.len() / 2);
    let parts = [head, tail];
    let fields = RecordFields {
        queue_id: record.queue_id,
        flag: record.flag,
        queue_offset: record.queue_offset,
        physical_offset: record.physical_offset,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_timestamp: record.store_timestamp,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: record.prepared_transaction_offset,
        body: record.body,
        topic: record.topic,
        properties: &parts,
    };
    let mut out = vec![0; fields.encoded_len().unwrap()];
    fields.encode_into(&mut out);
    out
}

#[test]
fn stored_records_are_javas_byte_for_byte() {
    let mut seen = Vec::new();
    for name in ["pull-response", "pull-user-property-response", "query-message-response"] {
        let body = body(name);
        let mut again = Vec::new();
        for record in records(&body) {
            let record = record.unwrap();
            record.check_body().unwrap();
            assert_eq!(record.topic, "GoldenTopic");
            let id =
                OffsetMessageId { store_host: record.store_host, physical_offset: record.physical_offset };
            seen.push((record.queue_offset, id.encode().to_string(), record.body.to_vec()));
            again.extend(written_again(&record));
        }
        assert_eq!(again, body, "{name}");
    }
    // The ids are those of send-batch-response and send-response.
    let expected = [
        (0, "7F000002000078BF0000000000000128", "batch 0"),
        (1, "7F000002000078BF00000000000001F3", "batch 1"),
        (2, "7F000002000078BF00000000000002BE", "batch 2"),
        (0, "7F000002000078BF0000000000000000", "hello golden"),
        (0, "7F000002000078BF0000000000000000", "hello golden"),
    ];
    assert_eq!(seen, expected.map(|(offset, id, body)| (offset, id.to_owned(), body.as_bytes().to_vec())));
}

#[test]
fn batches_are_javas_byte_for_byte() {
    for name in ["send-batch-request", "send-batch-binary-request"] {
        let body = body(name);
        let messages: Vec<_> = Batch::new(&body, 100).unwrap().collect::<Result<_, _>>().unwrap();
        let texts: Vec<_> = messages.iter().map(|m| m.body).collect();
        assert_eq!(texts, [b"batch 0", b"batch 1", b"batch 2"]);
        assert_eq!(properties::find(messages[2].properties, "KEYS"), Some("K2"));
        let mut again = BytesMut::new();
        messages.iter().for_each(|m| m.write(&mut again));
        assert_eq!(again.to_vec(), body);
    }
}

/// Reads a body and writes it again. Java writes hash maps in their own order, so the text may only be compared as
/// its bytes in any order; that it reads as the same shows that they are in a good one.
fn body_again<T>(name: &str, dialect: Dialect) -> T
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let original = body(name);
    let value: T = json::from_slice(&original).unwrap();
    let again = json::to_vec(&value, dialect);
    assert_eq!(json::from_slice::<T>(&again).unwrap(), value, "{name}");
    let sorted = |mut bytes: Vec<u8>| {
        bytes.sort_unstable();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert_eq!(sorted(again), sorted(original), "{name}");
    value
}

fn java<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str) -> T {
    body_again(name, Dialect::Java)
}

#[test]
fn routes_are_read_in_both_dialects() {
    for (name, dialect) in
        [("route-standard-response", Dialect::Standard), ("route-legacy-response", Dialect::Java)]
    {
        let route: TopicRouteData = body_again(name, dialect);
        assert_eq!(route.broker_datas[0].broker_name, "broker-a");
        assert!(route.broker_datas[0].broker_addrs[&0].ends_with(":30911"), "{name}");
        assert_eq!(json::to_vec(&route, dialect), body(name), "{name}");
    }
}

#[test]
fn bodies_are_read_and_written_as_java_does() {
    let heartbeat: HeartbeatData = java("heartbeat-request");
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_from_where, Some(ConsumeFromWhere::FirstOffset));
    assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
    assert_eq!(consumer.subscription_data_set[1].tags_set, ["TagA", "TagC", "TagB"]);
    let codes = consumer.subscription_data_set[1].tags_set.iter().map(|tag| properties::java_hash(tag));
    assert_eq!(codes.collect::<Vec<_>>(), consumer.subscription_data_set[1].code_set);
    assert_eq!(json::to_vec(&heartbeat, Dialect::Java), body("heartbeat-request"));
    java::<HeartbeatData>("heartbeat-binary-request");

    let registration: RegisterBrokerBody = java("register-broker-request");
    assert_eq!(registration.topic_config_serialize_wrapper.topic_config_table["TBW102"].perm, 7);
    java::<RegisterBrokerBody>("register-one-topic-request");
    assert_eq!(java::<ConsumerIdList>("consumer-list-response").consumer_id_list.len(), 1);
    assert_eq!(java::<LockBatchRequestBody>("lock-request").mq_set[0].topic, "GoldenTopic");
    assert_eq!(java::<LockBatchRequestBody>("unlock-request").mq_set.len(), 4);
    assert_eq!(java::<LockBatchResponseBody>("lock-response").lock_ok_mq_set.len(), 1);
    assert_eq!(
        java::<ClusterInfo>("cluster-info-response").cluster_addr_table["DefaultCluster"],
        ["broker-a"]
    );
    let queue = MessageQueue { broker_name: "broker-a".into(), queue_id: 0, topic: "GoldenTopic".into() };
    assert_eq!(java::<ConsumeStats>("consume-stats-response").offset_table[&queue].consumer_offset, 3);
    assert_eq!(java::<TopicStatsTable>("topic-stats-response").offset_table[&queue].max_offset, 3);
    assert_eq!(java::<ResetOffsetBody>("reset-offset-response").offset_table[&queue], 0);
    assert_eq!(java::<ConsumeStatsList>("consume-stats-list-response").total_diff, 5);
    assert_eq!(java::<BrokerStatsData>("broker-stats-response").stats_minute.sum, 5);
    assert_eq!(java::<ConsumerConnection>("consumer-connection-response").connection_set[0].version, 513);
    assert_eq!(java::<ProducerConnection>("producer-connection-response").connection_set.len(), 1);
    assert_eq!(java::<ProducerTableInfo>("producer-info-response").data["golden_producer"].len(), 1);
    assert_eq!(java::<TopicList>("topic-list-response").topic_list.len(), 17);
    assert_eq!(java::<KvTable>("runtime-info-response").table["brokerVersionDesc"], "V5_5_0");
    assert_eq!(java::<TopicConfigSerializeWrapper>("topic-configs-response").data_version.counter, 2);
    assert_eq!(java::<TopicConfig>("topic-config-response").read_queue_nums, 4);
    assert_eq!(java::<SubscriptionGroupWrapper>("groups-response").subscription_group_table.len(), 9);
    let info: ConsumerRunningInfo = json::from_slice(&body("running-info-response")).unwrap();
    assert!(info.mq_table[&queue].locked);
}
