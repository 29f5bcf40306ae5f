//! Every codec against random values (what is written reads as it was) and random bytes (no panic, no endless loop).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use ringmq_protocol::batch::{Batch, BatchMessage};
use ringmq_protocol::body::*;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Frame, Limits};
use ringmq_protocol::headers::{FromExt, PullHeader, SendHeader};
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::language::Language;
use ringmq_protocol::message_id::{OffsetMessageId, UniqueKeys, birth_time};
use ringmq_protocol::record::{RecordFields, RecordView, records, sys_flag};
use ringmq_protocol::{names, properties};

/// Frames to damage: a send in JSON and in binary, a batch, a pull's answer, a heartbeat.
const SEEDS: [&[u8]; 5] = [
    include_bytes!("golden/send-v2-request.bin"),
    include_bytes!("golden/send-v2-binary-request.bin"),
    include_bytes!("golden/send-batch-request.bin"),
    include_bytes!("golden/pull-response.bin"),
    include_bytes!("golden/heartbeat-request.bin"),
];

/// Text that is hard on escapes, separators and UTF-8.
fn text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        '"', '\\', '\'', '\u{1}', '\u{2}', '\n', '{', '}', ':', ',', 'ü', '中', '😀', '\u{2028}',
    ]);
    vec(prop_oneof![prop::char::range(' ', '~'), odd, any::<char>()], 0..24).prop_map(String::from_iter)
}

fn host() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
    let v6 = any::<[u8; 16]>().prop_map(|ip| IpAddr::V6(Ipv6Addr::from(ip)).to_canonical());
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

/// A command without what the wire cannot tell from nothing: empty texts in the binary form, a name twice is kept.
fn command() -> impl Strategy<Value = Command> {
    let ext = vec((text().prop_filter("names are not empty", |t| !t.is_empty()), text()), 0..30);
    let numbers = (any::<i16>(), any::<i16>(), any::<i32>(), any::<i32>(), 0u8..14);
    (numbers, proptest::option::of(text()), ext, vec(any::<u8>(), 0..64)).prop_map(
        |((code, version, opaque, flag, language), remark, ext, body)| Command {
            code: i32::from(code),
            language: Language::from_ordinal(language),
            version: i32::from(version),
            opaque,
            flag,
            remark,
            ext: ext.into_iter().map(|(name, value)| (Cow::Owned(name), value)).collect(),
            body: body.into(),
        },
    )
}

/// Reads everything that bytes could be; only whether it comes back matters.
fn read_everything(bytes: &[u8]) {
    let limits = Limits { max_ext_fields: 64, ..Limits::default() };
    let _ = frame::peek(bytes, &limits);
    if let Ok(frame) = Frame::parse(&mut bytes.to_vec(), &limits) {
        for (name, value) in frame.header.ext.iter() {
            assert!(frame.header.ext.get(name).is_some());
            properties::iter(value).for_each(drop);
            properties::without(value, &[name]);
        }
        let _ = SendHeader::for_code(frame.header.code, &frame.header.ext);
        let _ = PullHeader::from_ext(&frame.header.ext);
    }
    records(bytes).for_each(drop);
    if let Ok(batch) = Batch::new(bytes, 10) {
        assert!(batch.count() <= 11);
    }
    let _ = json::from_slice::<HeartbeatData>(bytes);
    let _ = json::from_slice::<ConsumeStats>(bytes);
    let _ = RegisterBrokerBody::decode(bytes, true, 1 << 16);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (OffsetMessageId::decode(text), birth_time(text, 1), names::validate_topic(text));
    }
}

/// `bytes` with the frame's two lengths in front.
fn framed(serialize: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = (4 + header.len() + body.len()) as u32;
    let mark = header.len() as u32 | u32::from(serialize) << 24;
    [&length.to_be_bytes()[..], &mark.to_be_bytes(), header, body].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_no_trouble(bytes in vec(any::<u8>(), 0..400), serialize in 0u8..3) {
        read_everything(&bytes);
        read_everything(&framed(serialize, &bytes, b""));
    }

    #[test]
    fn random_text_is_no_trouble(
        text in r#"[{}\[\]:,"'\\u0-9a-c nlt.\x01\x02ü]{0,120}"#,
        start in prop::sample::select(vec!["", "{\"extFields\":{", "{\"consumerDataSet\":[{", "{\"offsetTable\":{{"]),
    ) {
        let text = [start, &text].concat();
        read_everything(text.as_bytes());
        read_everything(&framed(0, text.as_bytes(), b""));
    }

    #[test]
    fn damaged_frames_are_no_trouble(
        seed in prop::sample::select(SEEDS.to_vec()),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = seed.to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_everything(&bytes);
        let header = u32::from_be_bytes([0, seed[5], seed[6], seed[7]]) as usize;
        read_everything(&bytes[8 + header..]);
        bytes.truncate(cut.index(seed.len()));
        read_everything(&bytes);
        if bytes.len() > 8 {
            read_everything(&framed(seed[4], &bytes[8..], b""));
        }
    }

    #[test]
    fn commands_survive_json(command in command()) {
        let mut out = BytesMut::from(&b"before"[..]);
        command.encode_json(&mut out);
        let mut frame = out.split_off(6);
        prop_assert_eq!(frame::peek(&frame[..8], &Limits::default()), Ok(Some(frame.len())));
        prop_assert_eq!(Command::decode(&mut frame, &Limits::default()).unwrap(), command);
    }

    #[test]
    fn commands_survive_binary(mut command in command()) {
        let mut out = BytesMut::new();
        command.encode_binary(&mut out);
        command.ext.retain(|(_, value)| !value.is_empty());
        command.remark = command.remark.filter(|remark| !remark.is_empty());
        prop_assert_eq!(Command::decode(&mut out, &Limits::default()).unwrap(), command);
    }

    #[test]
    fn frames_are_never_read_early(seed in prop::sample::select(SEEDS.to_vec()), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(seed.len());
        let known = frame::peek(&seed[..cut], &Limits::default()).unwrap();
        prop_assert_eq!(known, (cut >= 4).then_some(seed.len()));
        prop_assert!(Frame::parse(&mut seed[..cut].to_vec(), &Limits::default()).is_err());
    }

    #[test]
    fn records_survive(
        hosts in (host(), host()),
        body in vec(any::<u8>(), 0..200),
        topic in "[a-zA-Z%_]{1,200}",
        props in vec("[a-z]{0,20}\x01[a-z]{0,20}\x02", 0..6),
        numbers in any::<(i32, i32, i64, i64, i32, i64, i64, i32, i64)>(),
    ) {
        let parts: Vec<&[u8]> = props.iter().map(|p| p.as_bytes()).collect();
        let n = numbers;
        let fields = RecordFields {
            queue_id: n.0, flag: n.1, queue_offset: n.2, physical_offset: n.3, sys_flag: n.4,
            born_timestamp: n.5, born_host: hosts.0, store_timestamp: n.6, store_host: hosts.1,
            reconsume_times: n.7, prepared_transaction_offset: n.8, body: &body, topic: &topic, properties: &parts,
        };
        let len = fields.encoded_len().unwrap();
        let mut out = vec![0xAA; len + 3];
        fields.encode_into(&mut out[..len]);
        let view = RecordView::decode(&out).unwrap();
        view.check_body().unwrap();
        let got = (view.queue_id, view.flag, view.queue_offset, view.physical_offset, n.4, view.born_timestamp,
            view.store_timestamp, view.reconsume_times, view.prepared_transaction_offset);
        prop_assert_eq!(got, numbers);
        let host_bits = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
        prop_assert_eq!(view.sys_flag & !host_bits, n.4 & !host_bits);
        prop_assert_eq!((view.born_host, view.store_host), hosts);
        prop_assert_eq!((view.topic, view.body, view.bytes.len()), (topic.as_str(), &body[..], len));
        prop_assert_eq!(view.properties, props.concat());
        prop_assert_eq!(&out[view.body_at..view.body_at + body.len()], &body[..]);
        for cut in 0..len {
            prop_assert!(RecordView::decode(&out[..cut]).is_err());
        }
        let body_at = view.body_at;
        if let Some(at) = body.len().checked_sub(1) {
            out[body_at + at] ^= 1;
            prop_assert!(RecordView::decode(&out).unwrap().check_body().is_err());
        }
    }

    #[test]
    fn batches_survive(messages in vec((any::<i32>(), vec(any::<u8>(), 0..50), text()), 1..8)) {
        let mut body = BytesMut::new();
        let messages: Vec<_> = messages
            .iter()
            .map(|(flag, body, properties)| BatchMessage { flag: *flag, body, properties })
            .collect();
        messages.iter().for_each(|m| m.write(&mut body));
        let read: Vec<_> = Batch::new(&body, messages.len()).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(&read, &messages);
        prop_assert!(Batch::new(&body, messages.len() - 1).unwrap().any(|m| m.is_err()));
        prop_assert!(Batch::new(&body[..body.len() - 1], 100).unwrap().any(|m| m.is_err()));
    }

    #[test]
    fn properties_survive(pairs in vec(("[a-z]{1,3}", "[^\x01\x02]{1,6}"), 0..8), drop in "[a-z]{1,3}") {
        let mut text = String::new();
        pairs.iter().for_each(|(name, value)| properties::push(&mut text, name, value));
        let read: Vec<_> = properties::iter(&text).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(&read, &pairs);
        let last = pairs.iter().rev().find(|(name, _)| *name == drop).map(|(_, value)| value.as_str());
        prop_assert_eq!(properties::find(&text, &drop), last);
        let kept: Vec<_> = pairs.iter().filter(|(name, _)| *name != drop).cloned().collect();
        let rest = properties::without(&text, &[&drop]).concat();
        let read: Vec<_> = properties::iter(&rest).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        prop_assert_eq!(read, kept);
    }

    #[test]
    fn ids_survive(host in host(), offset in any::<i64>(), now in 0i64..4_000_000_000_000) {
        let id = OffsetMessageId { store_host: host, physical_offset: offset };
        prop_assert_eq!(OffsetMessageId::decode(&id.encode()), Ok(id));
        let mut keys = UniqueKeys::new(host.ip(), 77, 9);
        prop_assert_eq!(birth_time(&keys.next(now), now + 1), Ok(now));
    }

    #[test]
    fn bodies_survive_both_dialects(names in vec(text(), 1..4), numbers in any::<(i64, i32, bool)>()) {
        let name = |i: usize| names[i % names.len()].clone();
        let route = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: [(numbers.0, name(0)), (0, name(1))].into(),
                broker_name: name(2),
                enable_acting_master: numbers.2,
                zone_name: numbers.2.then(|| name(3)),
                ..BrokerData::default()
            }],
            filter_server_table: [(name(0), names.clone())].into(),
            order_topic_conf: None,
            queue_datas: vec![QueueData { perm: numbers.1, ..QueueData::default() }],
        };
        for dialect in [Dialect::Java, Dialect::Standard] {
            prop_assert_eq!(json::from_slice::<TopicRouteData>(&json::to_vec(&route, dialect)).unwrap(), route.clone());
        }
        let queue = MessageQueue { broker_name: name(0), queue_id: numbers.1, topic: name(1) };
        let reset = ResetOffsetBody { offset_table: [(queue, numbers.0)].into() };
        prop_assert_eq!(json::from_slice::<ResetOffsetBody>(&json::to_vec(&reset, Dialect::Java)).unwrap(), reset);
    }
}

#[test]
fn a_header_of_a_million_fields_is_refused_in_linear_time() {
    let fields: String = (0..1_000_000).map(|i| format!("\"{i}\":0,")).collect();
    let header = format!("{{\"extFields\":{{{fields}}}}}");
    let mut bytes = framed(0, header.as_bytes(), b"");
    assert!(matches!(frame::peek(&bytes, &Limits::default()), Err(frame::FrameError::HeaderTooLong { .. })));
    let limits = Limits { max_header: 1 << 24, ..Limits::default() };
    assert!(matches!(Frame::parse(&mut bytes, &limits), Err(frame::FrameError::Header(_))));
    let limits = Limits { max_header: 1 << 24, max_ext_fields: 1 << 20, ..Limits::default() };
    assert_eq!(Frame::parse(&mut bytes, &limits).unwrap().header.ext.len(), 1_000_000);
}

#[test]
fn frames_over_the_limits_are_refused_by_their_first_bytes() {
    let limits = Limits { max_frame: 100, max_header: 50, max_ext_fields: 8 };
    let error = |bytes: &[u8]| frame::peek(bytes, &limits).unwrap_err();
    assert_eq!(error(&[0, 0, 0, 97]), frame::FrameError::TooLong { size: 101, limit: 100 });
    assert_eq!(error(&[0xff; 4]), frame::FrameError::TooShort { length: -1 });
    assert_eq!(error(&[0, 0, 0, 3]), frame::FrameError::TooShort { length: 3 });
    assert_eq!(error(&[0, 0, 0, 90, 0, 0, 0, 51]), frame::FrameError::HeaderTooLong { size: 51, limit: 50 });
    assert_eq!(
        error(&[0, 0, 0, 9, 0, 0, 0, 6]),
        frame::FrameError::HeaderBeyondFrame { header: 6, frame: 13 }
    );
    assert_eq!(error(&[0, 0, 0, 9, 7, 0, 0, 5]), frame::FrameError::UnknownSerializeType { value: 7 });
    assert_eq!(frame::peek(&[0, 0, 0], &limits), Ok(None));
    assert_eq!(frame::peek(&[0, 0, 0, 96], &limits), Ok(Some(100)));
}

/// A size that is less than what stands before the size itself can be believed, to begin with.
#[test]
fn a_record_that_states_another_size_is_refused() {
    let pulled = SEEDS[3];
    let header = u32::from_be_bytes([0, pulled[5], pulled[6], pulled[7]]) as usize;
    let record = RecordView::decode(&pulled[8 + header..]).unwrap().bytes;
    for size in 0..record.len() + 9 {
        let mut bytes = record.to_vec();
        bytes[..4].copy_from_slice(&(size as u32).to_be_bytes());
        assert_eq!(RecordView::decode(&bytes).is_ok(), size == record.len(), "{size}");
    }
}
