//! Tools that look at groups' offsets and move them.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::Env;
use ringmq_env::sim::Sim;
use ringmq_protocol::body::QueryConsumeTimeSpanBody;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::json;

fn commit(group: &str, topic: &str, queue: i32, offset: i64) -> Command {
    about_queue(request::UPDATE_CONSUMER_OFFSET, topic, queue)
        .with_ext("consumerGroup", group)
        .with_ext("commitOffset", offset)
}

fn committed(group: &str, topic: &str, queue: i32) -> Command {
    about_queue(request::QUERY_CONSUMER_OFFSET, topic, queue).with_ext("consumerGroup", group)
}

fn reset(group: &str, topic: &str, timestamp: i64) -> Command {
    Command::request(request::INVOKE_BROKER_TO_RESET_OFFSET, 0)
        .with_ext("group", group)
        .with_ext("topic", topic)
        .with_ext("timestamp", timestamp)
        .with_ext("isForce", true)
}

fn text(answer: &Command) -> &str {
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    std::str::from_utf8(&answer.body).unwrap()
}

/// Sends five messages to each of four queues, a second apart; the store time of the third.
async fn fill(sim: &Sim, client: &mut Client) -> i64 {
    let mut third = 0;
    for n in 0..5 {
        sim.sleep(Duration::from_secs(1)).await;
        third = if n == 2 { sim.node(BROKER).wall_ms() } else { third };
        for queue in 0..4 {
            assert_eq!(client.call(send("t", queue, &n.to_string(), "")).await.code, 0);
        }
    }
    third
}

#[test]
fn a_reset_moves_a_group_where_it_is_and_once() {
    let sim = Sim::new(50);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let third = fill(&sim, &mut client).await;
        assert_eq!(client.call(heartbeat("c@1", "g", "t")).await.code, 0);
        for queue in 0..4 {
            assert_eq!(client.call(commit("g", "t", queue, 5)).await.code, 0);
        }
        let held = client.send_all(vec![pull("g", "t", 1, 5, 15_000, "*")]).await[0];
        sim.sleep(Duration::from_millis(50)).await;

        let answer = client.call(reset("g", "t", third)).await;
        assert!(
            text(&answer).contains(r#"{"brokerName":"broker-a","queueId":3,"topic":"t"}:2"#),
            "{answer:?}"
        );
        let moved = client.answer(held).await;
        assert_eq!(
            (moved.code, moved.remark.as_deref()),
            (response::PULL_OFFSET_MOVED, Some("OFFSET_RESET"))
        );
        assert_eq!(number(&moved, "nextBeginOffset"), 2);
        assert_eq!(client.call(commit("g", "t", 1, 2)).await.remark, None, "taken up, so it commits again");

        let ignored = client.call(commit("g", "t", 0, 5)).await;
        let remark = Some("Offset has been previously reset");
        assert_eq!((ignored.code, ignored.remark.as_deref()), (response::SUCCESS, remark));
        assert_eq!(number(&client.call(committed("g", "t", 0)).await, "offset"), 2);
        let moved = client.call(pull("g", "t", 0, 5, 0, "*")).await;
        assert_eq!((moved.code, number(&moved, "nextBeginOffset")), (response::PULL_OFFSET_MOVED, 2));
        assert_eq!(bodies(&client.call(pull("g", "t", 0, 2, 0, "*")).await), ["2", "3", "4"]);

        let there = client.call(pull("g", "t", 2, 2, 0, "*")).await;
        assert_eq!(bodies(&there), ["2", "3", "4"], "who is there already need not move");
        broker.stop().await;
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(number(&client.call(committed("g", "t", 3)).await, "offset"), 2);
        broker.stop().await;
    });
}

#[test]
fn a_reset_of_one_queue_goes_to_an_offset_within_it() {
    let sim = Sim::new(51);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        fill(&sim, &mut client).await;
        let refused = client.call(reset("nobody", "t", 0)).await;
        assert_eq!((refused.code, refused.remark.as_deref()), (26, Some("Group nobody does not exist")));
        assert_eq!(client.call(heartbeat("c@1", "g", "t")).await.code, 0);
        let refused = client.call(reset("g", "missing", 0)).await;
        assert_eq!((refused.code, refused.remark.as_deref()), (17, Some("Topic missing does not exist")));
        let one = |offset: i64| reset("g", "t", 0).with_ext("queueId", 1).with_ext("offset", offset);
        for offset in [7, -2] {
            let refused = client.call(one(offset)).await;
            let remark = format!("Target offset {offset} not in consume queue range [0-5]");
            assert_eq!((refused.code, refused.remark), (1, Some(remark)));
        }
        assert!(text(&client.call(one(3)).await).contains(r#""queueId":1,"topic":"t"}:3"#));
        assert_eq!(number(&client.call(committed("g", "t", 1)).await, "offset"), 3);
        let far = client.call(reset("g", "t", 0).with_ext("queueId", 99)).await;
        assert_eq!(far.code, response::SYSTEM_ERROR);
        assert!(text(&client.call(reset("g", "t", -1)).await).contains(r#""queueId":2,"topic":"t"}:5"#));
        broker.stop().await;
    });
}

#[test]
fn without_resets_in_the_broker_the_consumers_are_told() {
    let sim = Sim::new(52);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2", "server-side-reset=false"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut consumer = Client::connect(&sim, "consumer", broker.address).await;
        let third = fill(&sim, &mut client).await;
        let refused = client.call(reset("g", "t", third)).await;
        assert_eq!(refused.remark.as_deref(), Some("THe consumer group <g> not exist"));
        assert_eq!(consumer.call(heartbeat("c@1", "g", "t")).await.code, 0);
        for queue in 0..4 {
            assert_eq!(client.call(commit("g", "t", queue, i64::from(queue))).await.code, 0);
        }
        let gentle = Command { ext: reset("g", "t", third).ext, ..reset("g", "t", third) };
        let mut gentle = gentle;
        gentle.ext.retain(|(name, _)| name != "isForce");
        let answer = client.call(gentle.with_ext("isForce", false)).await;
        let pushed = consumer.pushed(request::RESET_CONSUMER_CLIENT_OFFSET).await;
        assert!(pushed.is_oneway());
        assert_eq!((pushed.get("group"), pushed.get("topic")), (Some("g"), Some("t")));
        assert_eq!(pushed.body, answer.body);
        assert!(text(&answer).contains(r#""queueId":1,"topic":"t"}:1"#), "nothing is skipped without force");
        assert!(text(&answer).contains(r#""queueId":3,"topic":"t"}:2"#));

        let mut cpp = reset("g", "t", third);
        cpp.language = ringmq_protocol::language::Language::Cpp;
        assert!(text(&client.call(cpp).await).contains(r#""queueId":1,"topic":"t"}:2"#));
        let list = consumer.pushed(request::RESET_CONSUMER_CLIENT_OFFSET).await;
        let body = std::str::from_utf8(&list.body).unwrap();
        assert!(
            body.starts_with(r#"{"offsetTable":[{"brokerName":"broker-a","offset":2,"queueId":0,"#),
            "{body}"
        );
        drop(consumer);
        sim.sleep(Duration::from_millis(10)).await;
        assert_eq!(client.call(reset("g", "t", third)).await.code, response::CONSUMER_NOT_ONLINE);
        broker.stop().await;
    });
}

#[test]
fn offsets_are_cloned_compared_and_described() {
    let sim = Sim::new(53);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let third = fill(&sim, &mut client).await;
        for group in ["g", "h"] {
            assert_eq!(client.call(heartbeat("c@1", group, "t")).await.code, 0);
        }
        for queue in 0..4 {
            assert_eq!(client.call(commit("g", "t", queue, i64::from(queue) + 1)).await.code, 0);
        }
        let clone = Command::request(request::CLONE_GROUP_OFFSET, 0)
            .with_ext("srcGroup", "g")
            .with_ext("destGroup", "h")
            .with_ext("offline", true);
        assert_eq!(client.call(clone.with_ext("topic", "t")).await.code, 0);
        assert_eq!(number(&client.call(committed("h", "t", 3)).await, "offset"), 4);

        assert_eq!(client.call(commit("h", "t", 0, 0)).await.code, 0);
        let correction = Command::request(request::QUERY_CORRECTION_OFFSET, 0)
            .with_ext("compareGroup", "g")
            .with_ext("topic", "t");
        let answer = client.call(correction.clone()).await;
        assert_eq!(text(&answer), r#"{"correctionOffsets":{0:0,1:2,2:3,3:4}}"#);
        let answer = client.call(correction.with_ext("filterGroups", "h")).await;
        assert_eq!(text(&answer), r#"{"correctionOffsets":{0:1,1:2,2:3,3:4}}"#);

        let span = Command::request(request::QUERY_CONSUME_TIME_SPAN, 0).with_ext("group", "g");
        let answer = client.call(span.clone().with_ext("topic", "t")).await;
        let spans: QueryConsumeTimeSpanBody = json::from_slice(&answer.body).unwrap();
        let second = &spans.consume_time_span_set[2];
        assert_eq!((spans.consume_time_span_set.len(), second.message_queue.queue_id), (4, 2));
        let at = |ms: i64, of_third: i64| (ms - third - of_third).abs() < 100;
        assert!(at(second.min_time_stamp, -2000) && at(second.max_time_stamp, 2000), "{second:?}");
        assert!(at(second.consume_time_stamp, 0) && (1000..1100).contains(&second.delay_time), "{second:?}");
        assert_eq!(client.call(span.with_ext("topic", "missing")).await.code, response::TOPIC_NOT_EXIST);

        let all = Command::request(request::GET_BROKER_CONSUME_STATS, 0).with_ext("isOrder", false);
        let answer = client.call(all).await;
        assert!(text(&answer).contains(r#"{"g":[{"consumeTps":"#), "{answer:?}");
        assert!(text(&answer).contains(r#""totalDiff":21"#), "{answer:?}");
        broker.stop().await;
    });
}

#[test]
fn a_group_that_is_forbidden_a_topic_does_not_get_it() {
    let sim = Sim::new(54);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(send("t", 0, "x", "")).await.code, 0);
        assert_eq!(client.call(heartbeat("c@1", "g", "t")).await.code, 0);
        let ask = Command::request(request::UPDATE_AND_GET_GROUP_FORBIDDEN, 0)
            .with_ext("group", "g")
            .with_ext("topic", "t");
        assert_eq!(text(&client.call(ask.clone()).await), r#"{"group":"g","readable":true,"topic":"t"}"#);
        let forbid = client.call(ask.clone().with_ext("readable", false)).await;
        assert_eq!(text(&forbid), r#"{"group":"g","readable":false,"topic":"t"}"#);
        // By the heartbeat's subscription: a pull that brings its own is not looked at, as with Java.
        let mut by_heartbeat = pull("g", "t", 0, 0, 0, "*");
        by_heartbeat.ext.retain(|(name, _)| name != "sysFlag");
        let by_heartbeat = by_heartbeat.with_ext("sysFlag", 0);
        broker.stop().await;
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(heartbeat("c@1", "g", "t")).await.code, 0);
        let refused = client.call(by_heartbeat.clone()).await;
        let remark = Some("the consumer group[g] is forbidden for topic[t]");
        assert_eq!((refused.code, refused.remark.as_deref()), (response::NO_PERMISSION, remark));
        assert_eq!(client.call(ask.with_ext("readable", true)).await.code, 0);
        assert_eq!(client.call(by_heartbeat).await.code, 0);
        broker.stop().await;
    });
}
