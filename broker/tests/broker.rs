//! The whole broker in the simulator: two cores, two shards, clients over simulated sockets.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::sim::{DiskFault, DiskOpKind, Sim};
use ringmq_protocol::batch::BatchMessage;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::record::records;

#[test]
fn what_is_sent_is_pulled_in_order_from_every_queue() {
    let sim = Sim::new(1);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in 0..4 {
            let commands = (0..20).map(|n| send("orders", queue, &format!("{queue}-{n}"), "TAGS\u{1}a\u{2}"));
            let opaques = client.send_all(commands.collect()).await;
            for (offset, opaque) in opaques.into_iter().enumerate() {
                let answer = client.answer(opaque).await;
                assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
                assert_eq!(number(&answer, "queueOffset"), offset as i64);
                assert_eq!(number(&answer, "queueId"), i64::from(queue));
                assert_eq!(answer.get("MSG_REGION"), Some("DefaultRegion"));
                assert_eq!(answer.get("transactionId").map(str::len), Some(32));
                assert_eq!(answer.get("msgId").map(str::len), Some(32));
            }
        }
        for queue in 0..4 {
            let answer = client.call(pull("readers", "orders", queue, 0, 0, "*")).await;
            assert_eq!((answer.code, answer.remark.as_deref()), (response::SUCCESS, Some("FOUND")));
            let expected: Vec<String> = (0..20).map(|n| format!("{queue}-{n}")).collect();
            assert_eq!(bodies(&answer), expected);
            assert_eq!(number(&answer, "nextBeginOffset"), 20);
            assert_eq!((number(&answer, "minOffset"), number(&answer, "maxOffset")), (0, 20));
            let record = records(&answer.body).next().unwrap().unwrap();
            assert!(record.properties.contains("CLUSTER\u{1}DefaultCluster\u{2}"), "{}", record.properties);
            assert!(record.properties.contains("UNIQ_KEY\u{1}"));
        }
        broker.stop().await;
    });
}

#[test]
fn a_held_pull_is_woken_by_what_it_wants_and_by_nothing_else() {
    let sim = Sim::new(2);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut producer = Client::connect(&sim, "producer", broker.address).await;
        let mut consumer = Client::connect(&sim, "consumer", broker.address).await;
        for queue in 0..2 {
            assert_eq!(producer.call(send("news", queue, "first", "TAGS\u{1}b\u{2}")).await.code, 0);
            let held = consumer.send_all(vec![pull("g", "news", queue, 1, 15_000, "a")]).await[0];
            sim.sleep(Duration::from_secs(1)).await;
            assert_eq!(producer.call(send("news", queue, "unwanted", "TAGS\u{1}b\u{2}")).await.code, 0);
            sim.sleep(Duration::from_secs(1)).await;
            let before = sim.now();
            assert_eq!(producer.call(send("news", queue, "wanted", "TAGS\u{1}a\u{2}")).await.code, 0);
            let stored = sim.now();
            let answer = consumer.answer(held).await;
            assert_eq!(bodies(&answer), ["wanted"]);
            assert_eq!(number(&answer, "nextBeginOffset"), 3);
            assert!(stored > before && sim.now().since(stored) < Duration::from_millis(1));
        }
        broker.stop().await;
    });
}

#[test]
fn a_held_pull_ends_at_its_deadline_or_with_the_broker() {
    let sim = Sim::new(3);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(send("quiet", 0, "x", "")).await.code, 0);
        let began = sim.now();
        let answer = client.call(pull("g", "quiet", 0, 1, 3_000, "*")).await;
        assert_eq!(
            (answer.code, answer.remark.as_deref()),
            (response::PULL_NOT_FOUND, Some("OFFSET_OVERFLOW_ONE"))
        );
        let took = sim.now().since(began);
        assert!(took >= Duration::from_secs(3) && took < Duration::from_millis(3_200), "{took:?}");
        let mut gone = Client::connect(&sim, "gone", broker.address).await;
        gone.send_all(vec![pull("g", "quiet", 1, 0, 10_000, "*")]).await;
        drop(gone);
        let held = client.send_all(vec![pull("g", "quiet", 1, 0, 10_000, "*")]).await[0];
        sim.sleep(Duration::from_millis(100)).await;
        let began = sim.now();
        broker.handle.stop();
        assert_eq!(client.answer(held).await.code, response::PULL_NOT_FOUND);
        assert!(sim.now().since(began) < Duration::from_secs(1));
        broker.stop().await;
    });
}

#[test]
fn offsets_outside_of_the_queue_are_corrected() {
    let sim = Sim::new(4);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for n in 0..3 {
            assert_eq!(client.call(send("t", 0, &n.to_string(), "")).await.code, 0);
        }
        let answer = client.call(pull("g", "t", 0, 100, 5_000, "*")).await;
        assert_eq!(answer.code, response::PULL_OFFSET_MOVED);
        assert_eq!(answer.remark.as_deref(), Some("OFFSET_OVERFLOW_BADLY"));
        let nothing = client.call(pull("g", "t", 1, 7, 5_000, "*")).await;
        assert_eq!((nothing.code, number(&nothing, "nextBeginOffset")), (response::PULL_OFFSET_MOVED, 0));
        let unmatched = client.call(pull("g", "t", 0, 0, 5_000, "none")).await;
        assert_eq!(
            (unmatched.code, number(&unmatched, "nextBeginOffset")),
            (response::PULL_RETRY_IMMEDIATELY, 3)
        );
        let limited = client.call(pull("g", "t", 0, 0, 0, "*").with_ext("maxMsgBytes", 1)).await;
        assert_eq!(bodies(&limited), ["0"]);
        broker.stop().await;
    });
}

fn offset_request(code: i32, group: &str, topic: &str, queue: i32) -> Command {
    about_queue(code, topic, queue).with_ext("consumerGroup", group)
}

#[test]
fn committed_offsets_and_messages_survive_a_restart() {
    let sim = Sim::new(5);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(heartbeat("c1", "g", "t")).await.code, 0);
        for queue in 0..2 {
            let query = offset_request(request::QUERY_CONSUMER_OFFSET, "g", "t", queue);
            let expected = if queue == 0 { response::QUERY_NOT_FOUND } else { response::SUCCESS };
            assert_eq!(client.call(query.clone()).await.code, expected, "0 once the topic exists");
            assert_eq!(client.call(send("t", queue, "one", "")).await.code, 0);
            assert_eq!(number(&client.call(query.clone()).await, "offset"), 0);
            let strict = client.call(query.with_ext("setZeroIfNotFound", false)).await;
            assert_eq!(strict.code, response::QUERY_NOT_FOUND);
        }
        for queue in 0..2 {
            let commit = offset_request(request::UPDATE_CONSUMER_OFFSET, "g", "t", queue);
            let commit = commit.with_ext("commitOffset", 1 + queue);
            assert_eq!(client.call(commit).await.code, response::SUCCESS);
        }
        let unknown =
            offset_request(request::UPDATE_CONSUMER_OFFSET, "nobody", "t", 0).with_ext("commitOffset", 1);
        assert_eq!(client.call(unknown).await.remark.as_deref(), Some("Group nobody not exist!"));
        broker.stop().await;

        let broker = start(&sim, &["cores=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in 0..2 {
            let query = offset_request(request::QUERY_CONSUMER_OFFSET, "g", "t", queue);
            assert_eq!(number(&client.call(query).await, "offset"), i64::from(1 + queue));
            assert_eq!(bodies(&client.call(pull("g", "t", queue, 0, 0, "*")).await), ["one"]);
            let max = client.call(about_queue(request::GET_MAX_OFFSET, "t", queue)).await;
            assert_eq!(number(&max, "offset"), 1);
        }
        broker.stop().await;
    });
}

#[test]
fn members_of_a_group_hear_of_each_other() {
    let sim = Sim::new(6);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut first = Client::connect(&sim, "first", broker.address).await;
        let mut second = Client::connect(&sim, "second", broker.address).await;
        let answer = first.call(heartbeat("c1", "g", "t")).await;
        assert_eq!(answer.get("IS_SUPPORT_HEART_BEAT_V2"), Some("true"));
        assert!(answer.version >= 232);
        first.pushed(request::NOTIFY_CONSUMER_IDS_CHANGED).await;
        assert_eq!(second.call(heartbeat("c2", "g", "t")).await.code, 0);
        for member in [&mut first, &mut second] {
            let told = member.pushed(request::NOTIFY_CONSUMER_IDS_CHANGED).await;
            assert_eq!(told.get("consumerGroup"), Some("g"));
            let list =
                Command::request(request::GET_CONSUMER_LIST_BY_GROUP, 0).with_ext("consumerGroup", "g");
            let list = member.call(list).await;
            assert_eq!(&list.body[..], br#"{"consumerIdList":["c1","c2"]}"#);
        }
        drop(second);
        first.pushed(request::NOTIFY_CONSUMER_IDS_CHANGED).await;
        let list = Command::request(request::GET_CONSUMER_LIST_BY_GROUP, 0).with_ext("consumerGroup", "g");
        assert_eq!(&first.call(list).await.body[..], br#"{"consumerIdList":["c1"]}"#);
        broker.stop().await;
    });
}

#[test]
fn a_pull_without_an_expression_uses_the_heartbeats_subscription() {
    let sim = Sim::new(7);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(send("t", 0, "x", "")).await.code, 0);
        let plain = |version| {
            let mut command = pull("g", "t", 0, 0, 0, "");
            for (name, value) in &mut command.ext {
                match &**name {
                    "sysFlag" => *value = "0".into(),
                    "subVersion" => *value = format!("{version}"),
                    _ => {}
                }
            }
            command
        };
        let unknown = client.call(plain(0)).await;
        assert_eq!(unknown.code, response::SUBSCRIPTION_NOT_EXIST, "{unknown:?}");
        assert_eq!(client.call(heartbeat("c1", "g", "t")).await.code, 0);
        assert_eq!(bodies(&client.call(plain(1)).await), ["x"]);
        assert_eq!(client.call(plain(2)).await.code, response::SUBSCRIPTION_NOT_LATEST);
        broker.stop().await;
    });
}

#[test]
fn a_batch_is_stored_as_one() {
    let sim = Sim::new(8);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut body = bytes::BytesMut::new();
        for n in 0..3 {
            let text = format!("m{n}");
            let properties = format!("UNIQ_KEY\u{1}U{n}\u{2}KEYS\u{1}k{n}");
            BatchMessage { flag: n, body: text.as_bytes(), properties: &properties }.write(&mut body);
        }
        let mut batch = send("t", 1, "", "WAIT\u{1}true\u{2}").with_body(body.freeze());
        batch.code = request::SEND_BATCH_MESSAGE;
        let answer = client.call(batch.clone()).await;
        assert_eq!((answer.code, number(&answer, "queueOffset")), (response::SUCCESS, 0), "{answer:?}");
        assert_eq!(answer.get("msgId").unwrap().split(',').count(), 3);
        let found = client.call(pull("g", "t", 1, 0, 0, "*")).await;
        assert_eq!(bodies(&found), ["m0", "m1", "m2"]);
        let flags: Vec<i32> = records(&found.body).map(|record| record.unwrap().flag).collect();
        assert_eq!(flags, [0, 1, 2]);
        let last = records(&found.body).last().unwrap().unwrap();
        assert_eq!(last.properties, "UNIQ_KEY\u{1}U2\u{2}KEYS\u{1}k2", "no property of the batch's own");
        let broken = batch.with_body(&b"\0\0\0\x20garbage"[..]);
        assert_eq!(client.call(broken).await.code, response::MESSAGE_ILLEGAL);
        broker.stop().await;
    });
}

#[test]
fn messages_are_found_by_id_key_and_time() {
    let sim = Sim::new(9);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut ids = Vec::new();
        for queue in 0..4 {
            let properties = format!("KEYS\u{1}all only{queue}\u{2}UNIQ_KEY\u{1}U{queue}\u{2}");
            let answer = client.call(send("t", queue, &queue.to_string(), &properties)).await;
            assert_eq!(answer.get("transactionId"), Some(format!("U{queue}").as_str()));
            ids.push(OffsetMessageId::decode(answer.get("msgId").unwrap()).unwrap());
            sim.sleep(Duration::from_millis(100)).await;
        }
        for (queue, id) in ids.iter().enumerate() {
            assert_eq!(id.store_host, broker.address);
            let view =
                Command::request(request::VIEW_MESSAGE_BY_ID, 0).with_ext("offset", id.physical_offset);
            assert_eq!(bodies(&client.call(view).await), [queue.to_string()]);
        }
        let nowhere = Command::request(request::VIEW_MESSAGE_BY_ID, 0).with_ext("offset", 123_456_789);
        assert_eq!(
            client.call(nowhere).await.remark.as_deref(),
            Some("can not find message by the offset, 123456789")
        );
        let query = |key: &str| {
            Command::request(request::QUERY_MESSAGE, 0)
                .with_ext("topic", "t")
                .with_ext("key", key)
                .with_ext("maxNum", 3)
                .with_ext("beginTimestamp", 0)
                .with_ext("endTimestamp", i64::MAX)
        };
        assert_eq!(bodies(&client.call(query("all")).await), ["3", "2", "1"]);
        assert_eq!(bodies(&client.call(query("only2")).await), ["2"]);
        let unique = client.call(query("U1").with_ext("_UNIQUE_KEY_QUERY", true)).await;
        assert_eq!(bodies(&unique), ["1"]);
        assert_eq!(client.call(query("none")).await.code, response::QUERY_NOT_FOUND);
        let earliest = client.call(about_queue(request::GET_EARLIEST_MSG_STORETIME, "t", 2)).await;
        let time = number(&earliest, "timestamp");
        for (at, offset) in [(time, 0), (time + 1, 1)] {
            let search = about_queue(request::SEARCH_OFFSET_BY_TIMESTAMP, "t", 2).with_ext("timestamp", at);
            assert_eq!(number(&client.call(search).await, "offset"), offset);
        }
        let never = client.call(about_queue(request::GET_EARLIEST_MSG_STORETIME, "t", 5)).await;
        assert_eq!(number(&never, "timestamp"), -1);
        broker.stop().await;
    });
}

#[test]
fn what_is_not_served_is_refused_with_the_reason() {
    let sim = Sim::new(10);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2", "max-message-size=1MiB"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let cases = [
            (
                Command::request(4711, 0),
                response::REQUEST_CODE_NOT_SUPPORTED,
                " request type 4711 not supported",
            ),
            (send("bad topic", 0, "x", ""), response::INVALID_PARAMETER, "illegal characters"),
            (send("SELF_TEST_TOPIC", 0, "x", ""), response::NO_PERMISSION, "is forbidden"),
            (
                send("t", 99, "x", ""),
                response::INVALID_PARAMETER,
                "request queueId[99] is illegal, TopicConfig [",
            ),
            (send("t", 0, "", ""), response::MESSAGE_ILLEGAL, "msg body length limit 1048576B"),
            (
                send("t", 0, &"x".repeat((1 << 20) + 1), ""),
                response::MESSAGE_ILLEGAL,
                "the message is illegal",
            ),
            (
                send("t", 0, "x", &format!("k\u{1}{}\u{2}", "v".repeat(32_760))),
                response::MESSAGE_ILLEGAL,
                "32KB",
            ),
            (pull("g", "nowhere", 0, 0, 0, "*"), response::TOPIC_NOT_EXIST, "topic[nowhere] not exist"),
            (pull("g", "t", 8, 0, 0, "*"), response::INVALID_PARAMETER, "queueId[8] is illegal"),
            (Command::request(request::PULL_MESSAGE, 0), response::SYSTEM_ERROR, "consumerGroup"),
        ];
        assert_eq!(client.call(send("t", -1, "x", "")).await.code, response::SUCCESS);
        for (command, code, words) in cases {
            let answer = client.call(command).await;
            assert_eq!(answer.code, code, "{answer:?}");
            assert!(answer.remark.as_deref().unwrap_or_default().contains(words), "{answer:?}");
        }
        broker.stop().await;
    });
}

#[test]
fn tools_see_what_the_shards_know() {
    let sim = Sim::new(11);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in 0..4 {
            assert_eq!(client.call(send("t", queue, "x", "")).await.code, 0);
        }
        let about = |code| Command::request(code, 0).with_ext("topic", "t");
        let stats = client.call(about(request::GET_TOPIC_STATS_INFO)).await;
        let text = String::from_utf8(stats.body.to_vec()).unwrap();
        assert_eq!(text.matches(r#""maxOffset":1,"minOffset":0"#).count(), 4, "{text}");
        let info = client.call(Command::request(request::GET_BROKER_RUNTIME_INFO, 0)).await;
        assert_eq!(info.code, response::SUCCESS);
        assert_eq!(client.call(about(request::DELETE_TOPIC_IN_BROKER)).await.code, response::SUCCESS);
        assert_eq!(client.call(pull("g", "t", 0, 0, 0, "*")).await.code, response::TOPIC_NOT_EXIST);
        assert_eq!(
            number(&client.call(send("t", 0, "y", "")).await, "queueOffset"),
            0,
            "the topic starts anew"
        );
        broker.stop().await;
    });
}

#[test]
fn garbage_harms_nobody_else() {
    let sim = Sim::new(12);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut good = Client::connect(&sim, "good", broker.address).await;
        assert_eq!(good.call(send("t", 0, "x", "")).await.code, 0);
        let garbage: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 0, 0, 1, 0],
            &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            &[0, 0, 0, 8, 0, 0, 0xff, 0, 1, 2, 3, 4],
            &[0, 0, 0, 10, 0, 0, 0, 6, b'{', b'"', b'a', b'"', b':', b'\\'],
            &[0, 0, 0, 8, 9, 0, 0, 4, 0, 0, 0, 0],
        ];
        for bytes in garbage {
            let mut bad = Client::connect(&sim, "bad", broker.address).await;
            bad.write(bytes).await.unwrap();
            assert_eq!(bad.next().await, None, "{bytes:?}");
            assert_eq!(good.call(send("t", 0, "x", "")).await.code, 0);
        }
        let mut slow = Client::connect(&sim, "slow", broker.address).await;
        let mut frame = bytes::BytesMut::new();
        send("t", 1, "byte by byte", "").encode_json(&mut frame);
        for byte in frame.iter() {
            slow.write(&[*byte]).await.unwrap();
        }
        assert_eq!(slow.next().await.unwrap().code, response::SUCCESS);
        let mut half = Client::connect(&sim, "half", broker.address).await;
        half.write(&frame[..frame.len() / 2]).await.unwrap();
        drop(half);
        assert_eq!(good.call(send("t", 0, "x", "")).await.code, 0);
        broker.stop().await;
    });
}

#[test]
fn connections_that_are_idle_are_closed() {
    let sim = Sim::new(13);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "idle-timeout=20s"]).await;
        let mut idle = Client::connect(&sim, "idle", broker.vip).await;
        let mut busy = Client::connect(&sim, "busy", broker.vip).await;
        for _ in 0..6 {
            sim.sleep(Duration::from_secs(5)).await;
            busy.call(about_queue(request::GET_MAX_OFFSET, "t", 0)).await;
        }
        assert_eq!(idle.next().await, None);
        assert_eq!(busy.call(about_queue(request::GET_MAX_OFFSET, "t", 0)).await.code, response::SUCCESS);
        broker.stop().await;
    });
}

/// Sends without an end until the broker stops reading, from several connections at once.
#[test]
fn a_full_lane_answers_busy_at_once_and_everything_is_answered() {
    let sim = Sim::new(14);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut clients = Vec::new();
        for n in 0..20 {
            clients.push(Client::connect(&sim, &format!("client{n}"), broker.address).await);
        }
        assert_eq!(clients[0].call(send("t", 0, "first", "")).await.code, 0);
        sim.on_disk(BROKER, |op| match op.kind {
            DiskOpKind::Write => DiskFault::Delay(Duration::from_secs(2)),
            _ => DiskFault::None,
        });
        let mut opaques = Vec::new();
        for client in &mut clients {
            opaques.push(client.send_all((0..1900).map(|_| send("t", 0, "x", "")).collect()).await);
        }
        let (mut stored, mut busy) = (0, 0);
        for (client, opaques) in clients.iter_mut().zip(opaques) {
            for opaque in opaques {
                let answer = client.answer(opaque).await;
                match answer.code {
                    response::SUCCESS => stored += 1,
                    response::SYSTEM_BUSY => {
                        busy += 1;
                        assert!(answer.remark.unwrap().contains("the limit is 8192"));
                    }
                    _ => panic!("{answer:?}"),
                }
            }
        }
        assert_eq!(stored + busy, 20 * 1900);
        assert!(busy > 0 && stored >= 8192, "{stored} stored, {busy} busy");
        sim.heal_disk(BROKER);
        assert_eq!(clients[0].call(send("t", 0, "last", "")).await.code, 0);
        let max = clients[0].call(about_queue(request::GET_MAX_OFFSET, "t", 0)).await;
        assert_eq!(number(&max, "offset"), stored + 2, "what was refused is not stored");
        broker.stop().await;
    });
}

/// 40 MiB at once, of which 16 may be staged, for a device that takes its time and works.
#[test]
fn what_a_slow_device_does_not_take_at_once_waits_in_the_sockets() {
    let sim = Sim::new(16);
    sim.run(async {
        let broker = start(&sim, &["cores=1"]).await;
        let mut clients = Vec::new();
        for n in 0..20 {
            clients.push(Client::connect(&sim, &format!("client{n}"), broker.address).await);
        }
        assert_eq!(clients[0].call(send("t", 0, "first", "")).await.code, 0);
        sim.on_disk(BROKER, |op| match op.kind {
            DiskOpKind::Write => DiskFault::Delay(Duration::from_millis(50)),
            _ => DiskFault::None,
        });
        let body = "x".repeat(20 << 10);
        let mut opaques = Vec::new();
        for client in &mut clients {
            opaques.push(client.send_all((0..100).map(|_| send("t", 0, &body, "")).collect()).await);
        }
        for (client, opaques) in clients.iter_mut().zip(opaques) {
            for opaque in opaques {
                let answer = client.answer(opaque).await;
                assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
            }
        }
        broker.stop().await;
    });
}

#[test]
fn a_peer_that_does_not_read_is_held_back_and_then_closed() {
    let sim = Sim::new(15);
    sim.run(async {
        let broker = start(&sim, &["cores=1"]).await;
        let mut good = Client::connect(&sim, "good", broker.address).await;
        let body = "x".repeat(200 << 10);
        assert_eq!(good.call(send("t", 0, &body, "")).await.code, 0);
        let mut deaf = Client::connect(&sim, "deaf", broker.address).await;
        deaf.send_all((0..500).map(|_| pull("g", "t", 0, 0, 0, "*")).collect()).await;
        sim.sleep(Duration::from_secs(40)).await;
        assert_eq!(good.call(send("t", 0, "y", "")).await.code, 0);
        let mut answers = 0;
        while deaf.next().await.is_some() {
            answers += 1;
        }
        assert!((1..500).contains(&answers), "{answers} of 500 answers, then the end");
        broker.stop().await;
    });
}
