//! What the broker asks of its clients: replies handed to who waits for them, and what tools want to know of consumers.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::sim::Sim;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::record::RecordView;

const REPLY_TOPIC: &str = "DefaultCluster_REPLY_TOPIC";

fn producer_heartbeat(client: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{client}","consumerDataSet":[],"producerDataSet":[{{"groupName":"requesters"}}]}}"#
    );
    Command::request(request::HEART_BEAT, 0).with_body(body)
}

fn reply(code: i32, properties: &str) -> Command {
    let reply = send(REPLY_TOPIC, 0, "pong", properties);
    if code == request::SEND_REPLY_MESSAGE_V2 {
        return Command { code, ..reply };
    }
    let long = [
        ("a", "producerGroup"),
        ("b", "topic"),
        ("c", "defaultTopic"),
        ("d", "defaultTopicQueueNums"),
        ("e", "queueId"),
        ("f", "sysFlag"),
        ("g", "bornTimestamp"),
        ("h", "flag"),
        ("i", "properties"),
        ("j", "reconsumeTimes"),
        ("k", "unitMode"),
        ("m", "batch"),
    ];
    let name = |short: &str| long.iter().find(|(s, _)| *s == short).unwrap().1;
    let ext = reply.ext.iter().map(|(short, value)| (name(short).into(), value.clone())).collect();
    Command { code, ext, ..reply }
}

fn answer_to(pushed: &Command, code: i32) -> Command {
    Command::response(code, pushed.opaque)
}

#[test]
fn a_reply_goes_to_who_waits_for_it_and_is_stored() {
    let sim = Sim::new(40);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        for code in [request::SEND_REPLY_MESSAGE, request::SEND_REPLY_MESSAGE_V2] {
            let mut requester = Client::connect(&sim, "requester", broker.address).await;
            let mut responder = Client::connect(&sim, "responder", broker.address).await;
            assert_eq!(requester.call(producer_heartbeat("10.0.0.9@1")).await.code, 0);
            let properties =
                "REPLY_TO_CLIENT\u{1}10.0.0.9@1\u{2}CORRELATION_ID\u{1}c1\u{2}UNIQ_KEY\u{1}u1\u{2}";
            let sent = responder.send_all(vec![reply(code, properties)]).await[0];
            let pushed = requester.pushed(request::PUSH_REPLY_MESSAGE_TO_CLIENT).await;
            assert_eq!(&*pushed.body, b"pong");
            assert_eq!((pushed.get("topic"), pushed.get("queueId")), (Some(REPLY_TOPIC), Some("0")));
            let text = pushed.get("properties").unwrap();
            assert!(text.starts_with(properties) && text.contains("\u{2}PUSH_REPLY_TIME\u{1}"), "{text}");
            assert!(
                !pushed.is_oneway() && pushed.get("bornHost").is_some() && pushed.get("storeHost").is_some()
            );
            requester.send_as_they_are(vec![answer_to(&pushed, response::SUCCESS)]).await;
            let answer = responder.answer(sent).await;
            assert_eq!((answer.code, answer.remark.as_deref()), (response::SUCCESS, None));
            assert_eq!(answer.get("TRACE_ON"), Some("true"));
        }
        let mut reader = Client::connect(&sim, "reader", broker.address).await;
        let stored = reader.call(pull("g", REPLY_TOPIC, 0, 0, 0, "*")).await;
        assert_eq!(bodies(&stored), ["pong", "pong"]);
        broker.stop().await;
    });
}

#[test]
fn a_reply_that_nobody_takes_is_refused_with_javas_remarks() {
    let sim = Sim::new(41);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut responder = Client::connect(&sim, "responder", broker.address).await;
        let refused = |answer: Command| (answer.code, answer.remark.unwrap_or_default());
        let nobody = responder.call(reply(request::SEND_REPLY_MESSAGE_V2, "")).await;
        assert_eq!(refused(nobody), (1, "reply message properties[REPLY_TO_CLIENT] is null".into()));
        let to = "REPLY_TO_CLIENT\u{1}r\u{2}";
        let absent = responder.call(reply(request::SEND_REPLY_MESSAGE_V2, to)).await;
        assert_eq!(refused(absent), (1, "push reply message fail, channel of <r> not found.".into()));

        let mut requester = Client::connect(&sim, "requester", broker.address).await;
        assert_eq!(requester.call(producer_heartbeat("r")).await.code, 0);
        let sent = responder.send_all(vec![reply(request::SEND_REPLY_MESSAGE_V2, to)]).await[0];
        let pushed = requester.pushed(request::PUSH_REPLY_MESSAGE_TO_CLIENT).await;
        requester.send_as_they_are(vec![answer_to(&pushed, response::SYSTEM_ERROR)]).await;
        assert_eq!(refused(responder.answer(sent).await), (1, "push reply message to rfail.".into()));

        let began = sim.now();
        let silent = responder.call(reply(request::SEND_REPLY_MESSAGE_V2, to)).await;
        assert_eq!(refused(silent), (1, "push reply message to rfail.".into()));
        let took = sim.now().since(began);
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(11), "{took:?}");
        requester.pushed(request::PUSH_REPLY_MESSAGE_TO_CLIENT).await;

        let sent = responder.send_all(vec![reply(request::SEND_REPLY_MESSAGE_V2, to)]).await[0];
        requester.pushed(request::PUSH_REPLY_MESSAGE_TO_CLIENT).await;
        drop(requester);
        assert_eq!(refused(responder.answer(sent).await), (1, "push reply message to rfail.".into()));
        let absent = responder.call(reply(request::SEND_REPLY_MESSAGE_V2, to)).await;
        assert_eq!(refused(absent), (1, "push reply message fail, channel of <r> not found.".into()));
        broker.stop().await;
    });
}

#[test]
fn tools_hear_what_a_consumer_itself_answers() {
    let sim = Sim::new(42);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut consumer = Client::connect(&sim, "consumer", broker.address).await;
        let mut tool = Client::connect(&sim, "tool", broker.address).await;
        let sent = tool.call(send("t", 0, "once more", "KEYS\u{1}k\u{2}")).await;
        assert_eq!(consumer.call(heartbeat("c@1", "g", "t")).await.code, 0);

        let ask = |client: &str| {
            Command::request(request::GET_CONSUMER_RUNNING_INFO, 0)
                .with_ext("consumerGroup", "g")
                .with_ext("clientId", client)
                .with_ext("jstackEnable", true)
        };
        let absent = tool.call(ask("nobody")).await;
        assert_eq!(absent.remark.as_deref(), Some("The Consumer <g> <nobody> not online"));
        let asked = tool.send_all(vec![ask("c@1")]).await[0];
        let relayed = consumer.pushed(request::GET_CONSUMER_RUNNING_INFO).await;
        assert_eq!((relayed.get("clientId"), relayed.get("jstackEnable")), (Some("c@1"), Some("true")));
        let info = answer_to(&relayed, response::SUCCESS).with_body("{\"any\":1}");
        consumer.send_as_they_are(vec![info]).await;
        assert_eq!(&*tool.answer(asked).await.body, b"{\"any\":1}");

        let directly = Command::request(request::CONSUME_MESSAGE_DIRECTLY, 0)
            .with_ext("consumerGroup", "g")
            .with_ext("clientId", "c@1")
            .with_ext("topic", "t")
            .with_ext("msgId", sent.get("msgId").unwrap());
        let asked = tool.send_all(vec![directly.clone()]).await[0];
        let relayed = consumer.pushed(request::CONSUME_MESSAGE_DIRECTLY).await;
        assert_eq!(RecordView::decode(&relayed.body).unwrap().body, b"once more");
        assert_eq!((relayed.get("brokerName"), relayed.get("topicSysFlag")), (Some("broker-a"), Some("0")));
        let failed = answer_to(&relayed, response::SYSTEM_ERROR).with_remark("as it says");
        consumer.send_as_they_are(vec![failed]).await;
        let answer = tool.answer(asked).await;
        assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("as it says")));
        let bad = tool.call(Command { ext: vec![("consumerGroup".into(), "g".into())], ..directly }).await;
        assert_eq!(bad.remark.as_deref(), Some("msgId [] is no offset message id"));

        let asked = tool.send_all(vec![ask("c@1")]).await[0];
        assert_eq!(tool.answer(asked).await.code, response::CONSUME_MSG_TIMEOUT);
        broker.stop().await;
    });
}

#[test]
fn a_consumers_status_is_gathered_from_the_consumers() {
    let sim = Sim::new(43);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut consumer = Client::connect(&sim, "consumer", broker.address).await;
        let mut tool = Client::connect(&sim, "tool", broker.address).await;
        let ask = Command::request(request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, 0)
            .with_ext("topic", "t")
            .with_ext("group", "g");
        let nobody = tool.call(ask.clone()).await;
        assert_eq!(nobody.remark.as_deref(), Some("No Any Consumer online in the consumer group: [g]"));
        assert_eq!(consumer.call(heartbeat("c@1", "g", "t")).await.code, 0);
        let asked = tool.send_all(vec![ask]).await[0];
        let pushed = consumer.pushed(request::GET_CONSUMER_STATUS_FROM_CLIENT).await;
        assert_eq!((pushed.get("topic"), pushed.get("group")), (Some("t"), Some("g")));
        let body = r#"{"messageQueueTable":{{"brokerName":"broker-a","queueId":1,"topic":"t"}:7}}"#;
        consumer.send_as_they_are(vec![answer_to(&pushed, 0).with_body(body)]).await;
        let answer = tool.answer(asked).await;
        let expected = r#"{"consumerTable":{"c@1":{{"brokerName":"broker-a","queueId":1,"topic":"t"}:7}}"#;
        assert!(std::str::from_utf8(&answer.body).unwrap().starts_with(expected), "{answer:?}");
        broker.stop().await;
    });
}
