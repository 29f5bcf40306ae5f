//! Messages that have more than one entry in the index: those dispatched to LMQs, and inner batches.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use common::*;
use ringmq_env::sim::{Crash, Sim};
use ringmq_protocol::batch::BatchMessage;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::properties;
use ringmq_protocol::record::{RecordView, records, sys_flag};

const WITH_LMQS: [&str; 4] = ["cores=1", "lmq=true", "multi-dispatch=true", "max-lmqs=100"];

fn dispatched(queue: i32, body: &str, lmqs: &str) -> Command {
    let properties =
        format!("TAGS\u{1}t\u{2}INNER_MULTI_DISPATCH\u{1}{lmqs}\u{2}INNER_MULTI_QUEUE_OFFSET\u{1}9,9\u{2}");
    send("parent", queue, body, &properties)
}

async fn read(client: &mut Client, lmq: &str, offset: i64) -> Vec<String> {
    bodies(&client.call(pull("readers", lmq, 0, offset, 0, "*")).await)
}

async fn bounds(client: &mut Client, topic: &str) -> (i64, i64) {
    let min = client.call(about_queue(request::GET_MIN_OFFSET, topic, 0)).await;
    let max = client.call(about_queue(request::GET_MAX_OFFSET, topic, 0)).await;
    (number(&min, "offset"), number(&max, "offset"))
}

#[test]
fn a_message_is_stored_once_and_readable_from_each_lmq_at_its_offset_there() {
    let sim = Sim::new(90);
    sim.run(async {
        let broker = start(&sim, &WITH_LMQS).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "parent", "").await;
        for n in 0..6 {
            let lmqs = if n % 2 == 0 { "%LMQ%a,other,%LMQ%b" } else { "%LMQ%b,%LMQ%b" };
            let answer = client.call(dispatched(n % 4, &format!("m{n}"), lmqs)).await;
            assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        }
        assert_eq!(read(&mut client, "%LMQ%a", 0).await, ["m0", "m2", "m4"]);
        assert_eq!(read(&mut client, "%LMQ%b", 2).await, ["m2", "m3", "m4", "m5"]);
        assert_eq!(bounds(&mut client, "%LMQ%a").await, (0, 3));
        assert_eq!(bounds(&mut client, "%LMQ%b").await, (0, 6));
        let answer = client.call(pull("readers", "%LMQ%b", 0, 4, 0, "t")).await;
        let record = records(&answer.body).next().unwrap().unwrap();
        assert_eq!((record.topic, record.queue_id), ("parent", 0), "the record is the parent's");
        let offsets = properties::find(record.properties, "INNER_MULTI_QUEUE_OFFSET");
        assert_eq!(offsets, Some("2,,4"), "a producer's own offsets count for nothing");
        broker.stop().await;
    });
}

#[test]
fn lmqs_and_offsets_committed_in_them_outlive_a_crash() {
    let sim = Sim::new(91);
    sim.run(async {
        let broker = start(&sim, &WITH_LMQS).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "parent", "").await;
        for n in 0..40 {
            let lmqs = format!("%LMQ%{},%LMQ%all", n % 10);
            assert_eq!(client.call(dispatched(n % 4, &format!("m{n}"), &lmqs)).await.code, response::SUCCESS);
        }
        assert_eq!(read(&mut client, "%LMQ%3", 0).await, ["m3", "m13", "m23", "m33"]);
        let commit = about_queue(request::UPDATE_CONSUMER_OFFSET, "%LMQ%3", 0)
            .with_ext("consumerGroup", "readers")
            .with_ext("commitOffset", 2);
        assert_eq!(client.call(commit).await.code, response::SUCCESS);
        sim.sleep(std::time::Duration::from_secs(5)).await;
        drop(broker);
        sim.crash(BROKER, Crash::PowerLosingAll);
        let broker = start(&sim, &WITH_LMQS).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let committed =
            about_queue(request::QUERY_CONSUMER_OFFSET, "%LMQ%3", 0).with_ext("consumerGroup", "readers");
        assert_eq!(number(&client.call(committed).await, "offset"), 2);
        assert_eq!(read(&mut client, "%LMQ%3", 0).await, ["m3", "m13", "m23", "m33"]);
        assert_eq!(read(&mut client, "%LMQ%all", 30).await.len(), 10);
        client.call(dispatched(0, "after", "%LMQ%3")).await;
        assert_eq!(read(&mut client, "%LMQ%3", 3).await, ["m33", "after"]);
        broker.stop().await;
    });
}

#[test]
fn a_pull_of_an_lmq_waits_for_the_next_message() {
    let sim = Sim::new(92);
    sim.run(async {
        let broker = start(&sim, &WITH_LMQS).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut reader = Client::connect(&sim, "reader", broker.address).await;
        create(&mut client, "parent", "").await;
        client.call(dispatched(0, "first", "%LMQ%x")).await;
        let held = reader.send_all(vec![pull("readers", "%LMQ%x", 0, 1, 20_000, "*")]).await[0];
        client.call(dispatched(2, "second", "%LMQ%x")).await;
        assert_eq!(bodies(&reader.answer(held).await), ["second"]);
        broker.stop().await;
    });
}

#[test]
fn more_lmqs_than_there_may_be_are_refused_and_those_there_are_go_on() {
    let sim = Sim::new(93);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "lmq=true", "multi-dispatch=true", "max-lmqs=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "parent", "").await;
        assert_eq!(client.call(dispatched(0, "1", "%LMQ%a,%LMQ%b")).await.code, response::SUCCESS);
        let refused = client.call(dispatched(0, "2", "%LMQ%a,%LMQ%c")).await;
        assert_eq!(refused.code, response::SYSTEM_ERROR);
        let remark = refused.remark.unwrap();
        assert!(
            remark.starts_with("[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]") && remark.contains("the limit is 2"),
            "{remark}"
        );
        assert_eq!(client.call(dispatched(0, "3", "%LMQ%b")).await.code, response::SUCCESS);
        assert_eq!(read(&mut client, "%LMQ%a", 0).await, ["1"]);
        assert_eq!(read(&mut client, "%LMQ%b", 0).await, ["1", "3"]);
        broker.stop().await;
    });
}

#[test]
fn a_store_of_several_shards_has_its_lmqs_in_the_first_one() {
    let sim = Sim::new(95);
    sim.run(async {
        let sets = ["cores=2", "shards=3", "lmq=true", "multi-dispatch=true"];
        let broker = start(&sim, &sets).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "parent", "").await;
        for n in 0..6 {
            let answer = client.call(dispatched(n % 4, &format!("m{n}"), "%LMQ%a,%LMQ%b")).await;
            assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
            let queue = i32::try_from(number(&answer, "queueId")).unwrap();
            let stored =
                client.call(pull("readers", "parent", queue, number(&answer, "queueOffset"), 0, "*")).await;
            assert_eq!(bodies(&stored), [format!("m{n}")], "it is where the answer says");
        }
        let commit = about_queue(request::UPDATE_CONSUMER_OFFSET, "%LMQ%b", 0);
        let commit = commit.with_ext("consumerGroup", "readers").with_ext("commitOffset", 4);
        assert_eq!(client.call(commit).await.code, response::SUCCESS);
        sim.sleep(std::time::Duration::from_secs(6)).await;
        sim.crash(BROKER, Crash::Power);
        drop(broker);
        let broker = start(&sim, &sets).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for lmq in ["%LMQ%a", "%LMQ%b"] {
            assert_eq!(read(&mut client, lmq, 0).await, ["m0", "m1", "m2", "m3", "m4", "m5"]);
            assert_eq!(bounds(&mut client, lmq).await, (0, 6));
        }
        let committed = about_queue(request::QUERY_CONSUMER_OFFSET, "%LMQ%b", 0);
        let committed = client.call(committed.with_ext("consumerGroup", "readers")).await;
        assert_eq!(number(&committed, "offset"), 4);
        let answer = client.call(dispatched(3, "m6", "%LMQ%b")).await;
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
        assert_eq!(read(&mut client, "%LMQ%b", 6).await, ["m6"]);
        broker.stop().await;
    });
}

#[test]
fn without_lmqs_a_list_of_them_means_nothing() {
    let sim = Sim::new(94);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "parent", "").await;
        assert_eq!(client.call(dispatched(0, "m", "%LMQ%a")).await.code, response::SUCCESS);
        let answer = client.call(pull("readers", "%LMQ%a", 0, 0, 0, "*")).await;
        assert_eq!(answer.code, response::TOPIC_NOT_EXIST);
        broker.stop().await;
    });
}

fn batch(name: &str, count: usize, properties: &str) -> Command {
    let mut body = bytes::BytesMut::new();
    for n in 0..count {
        let text = format!("{name}-{n}");
        BatchMessage { flag: 0, body: text.as_bytes(), properties: "k\u{1}v" }.write(&mut body);
    }
    let mut command = send("batches", 0, "", properties).with_body(body.freeze());
    command.code = request::SEND_BATCH_MESSAGE;
    command
}

/// Base offset, number of messages and flags of each record in an answer.
fn shapes(answer: &Command) -> Vec<(i64, String, i32)> {
    let shape = |view: RecordView<'_>| {
        let count = properties::find(view.properties, "INNER_NUM").unwrap_or("1").to_owned();
        (view.queue_offset, count, view.sys_flag & (sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP))
    };
    records(&answer.body).map(|record| shape(record.unwrap())).collect()
}

const INNER: i32 = sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP;

#[test]
fn a_batch_of_a_batch_topic_is_one_record_with_an_offset_for_each_message() {
    let sim = Sim::new(95);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "batches", "+queue.type=BatchCQ").await;
        let first = client.call(batch("a", 3, "UNIQ_KEY\u{1}BATCH-A\u{2}")).await;
        assert_eq!((number(&first, "queueOffset"), first.get("batchUniqId")), (0, Some("BATCH-A")));
        assert!(!first.get("msgId").unwrap().contains(','), "one id for all of them");
        let second = client.call(batch("b", 100, "UNIQ_KEY\u{1}BATCH-B\u{2}")).await;
        assert_eq!(number(&second, "queueOffset"), 3);
        let single = client.call(send("batches", 0, "single", "")).await;
        assert_eq!(number(&single, "queueOffset"), 103);
        let max = client.call(about_queue(request::GET_MAX_OFFSET, "batches", 0)).await;
        assert_eq!(number(&max, "offset"), 104);
        assert_batches(&mut client).await;
        drop(broker);
        sim.crash(BROKER, Crash::PowerLosingAll);
        let broker = start(&sim, &["cores=1", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_batches(&mut client).await;
        broker.stop().await;
    });
}

/// Each record comes once to who reads on where an answer ends, and is there at all of its offsets.
async fn assert_batches(client: &mut Client) {
    let (mut seen, mut next) = (Vec::new(), 0);
    while next < 104 {
        let answer = client.call(pull("readers", "batches", 0, next, 0, "*")).await;
        seen.extend(shapes(&answer));
        next = number(&answer, "nextBeginOffset");
    }
    let everything = [(0, "3".to_owned(), INNER), (3, "100".to_owned(), INNER), (103, "1".to_owned(), 0)];
    assert_eq!(seen, everything);
    let inside = client.call(pull("readers", "batches", 0, 50, 0, "*")).await;
    assert_eq!(shapes(&inside)[0], (3, "100".to_owned(), INNER));
    assert!(number(&inside, "nextBeginOffset") >= 103);
}

#[test]
fn batches_are_taken_apart_where_java_does_and_bad_ones_are_refused() {
    let sim = Sim::new(96);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "batches", "+queue.type=BatchCQ").await;
        let without_id = client.call(batch("a", 3, "")).await;
        assert_eq!((without_id.code, without_id.get("batchUniqId")), (response::SUCCESS, None));
        let answer = client.call(pull("readers", "batches", 0, 0, 0, "*")).await;
        assert_eq!(shapes(&answer), [0, 1, 2].map(|offset| (offset, "1".to_owned(), 0)));
        let mut cut = batch("a", 3, "UNIQ_KEY\u{1}B\u{2}");
        cut.body.truncate(cut.body.len() - 1);
        assert_eq!(client.call(cut).await.code, response::MESSAGE_ILLEGAL);
        let lying = send("batches", 0, "m", "INNER_NUM\u{1}7\u{2}");
        assert_eq!(client.call(lying).await.code, response::MESSAGE_ILLEGAL);
        let changed = client.call(topic("batches", "+queue.type=SimpleCQ")).await;
        assert_ne!(changed.code, response::SUCCESS, "the type of the queues stays");
        // The flag of a single send's header makes it a batch, too.
        let mut by_flag = batch("c", 2, "UNIQ_KEY\u{1}C\u{2}");
        by_flag.code = request::SEND_MESSAGE_V2;
        by_flag.ext.retain(|(name, _)| name != "m");
        let by_flag = by_flag.with_ext("m", true);
        let answer = client.call(by_flag).await;
        assert_eq!((number(&answer, "queueOffset"), answer.get("batchUniqId")), (3, Some("C")));
        broker.stop().await;
    });
}
