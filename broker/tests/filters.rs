//! SQL92 filters, from the subscription to the pull that waits.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::sim::Sim;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;

/// A heartbeat of a group that subscribes with `expression`, which is of `kind`.
fn subscribe(group: &str, topic: &str, kind: &str, expression: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{group}@1","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"CLUSTERING","subscriptionDataSet":
        [{{"classFilterMode":{},"codeSet":[],"expressionType":"{kind}","subString":"{expression}","subVersion":5,
        "tagsSet":[],"topic":"{topic}"}}],"unitMode":false}}],"producerDataSet":[]}}"#,
        kind == "CLASS",
    );
    Command::request(request::HEART_BEAT, 0).with_body(body)
}

/// A pull by what the group's heartbeat said, of that version.
fn pull_as_subscribed(group: &str, offset: i64, suspend_ms: u64, version: i64) -> Command {
    let pull = pull(group, "orders", 0, offset, suspend_ms, "");
    let mut ext: Vec<_> = pull.ext.clone();
    for (name, value) in &mut ext {
        match &**name {
            "sysFlag" => *value = if suspend_ms > 0 { "2" } else { "0" }.into(),
            "subVersion" => *value = version.to_string(),
            _ => {}
        }
    }
    Command { ext, ..pull }
}

async fn send_prices(client: &mut Client, prices: std::ops::Range<i32>) {
    for price in prices {
        let properties = format!("price\u{1}{price}\u{2}");
        let answer = client.call(send("orders", 0, &format!("order {price}"), &properties)).await;
        assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    }
}

#[test]
fn a_subscription_by_sql_gets_what_matches_and_goes_on_behind_what_does_not() {
    let sim = Sim::new(60);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        send_prices(&mut client, 0..20).await;
        let beat = subscribe("g", "orders", "SQL92", "price > 4 AND NOT (price BETWEEN 6 AND 18)");
        assert_eq!(client.call(beat).await.code, response::SUCCESS);
        let answer = client.call(pull_as_subscribed("g", 0, 0, 5)).await;
        assert_eq!(bodies(&answer), ["order 5", "order 19"]);
        assert_eq!(number(&answer, "nextBeginOffset"), 20);
        let answer = client.call(pull_as_subscribed("g", 6, 0, 5)).await;
        assert_eq!(bodies(&answer), ["order 19"]);
        let mut nothing = pull_as_subscribed("g", 0, 0, 5);
        nothing.ext.retain(|(name, _)| &**name != "maxMsgNums");
        let answer = client.call(nothing.with_ext("maxMsgNums", 1)).await;
        assert_eq!((bodies(&answer).len(), number(&answer, "nextBeginOffset")), (1, 6));
        broker.stop().await;
    });
}

#[test]
fn a_held_pull_is_woken_by_messages_that_match_alone() {
    let sim = Sim::new(61);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut producer = Client::connect(&sim, "producer", broker.address).await;
        send_prices(&mut producer, 0..1).await;
        client.call(subscribe("g", "orders", "SQL92", "price = 7")).await;
        let held = client.send_all(vec![pull_as_subscribed("g", 1, 15_000, 5)]).await[0];
        sim.sleep(Duration::from_secs(1)).await;
        send_prices(&mut producer, 1..7).await;
        sim.sleep(Duration::from_secs(1)).await;
        let before = sim.now();
        send_prices(&mut producer, 7..8).await;
        let answer = client.answer(held).await;
        assert_eq!(bodies(&answer), ["order 7"]);
        assert_eq!(number(&answer, "nextBeginOffset"), 8);
        assert!(sim.now().since(before) < Duration::from_secs(1));
        let held = client.send_all(vec![pull_as_subscribed("g", 8, 5_000, 5)]).await[0];
        // A pull that came after them would be answered at once.
        sim.sleep(Duration::from_secs(1)).await;
        send_prices(&mut producer, 8..10).await;
        let answer = client.answer(held).await;
        assert_eq!(answer.code, response::PULL_NOT_FOUND);
        assert_eq!(number(&answer, "nextBeginOffset"), 10, "what was refused is not looked at again");
        broker.stop().await;
    });
}

#[test]
fn a_held_pull_is_answered_when_the_groups_subscription_changes() {
    let sim = Sim::new(63);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        send_prices(&mut client, 0..1).await;
        client.call(subscribe("g", "orders", "SQL92", "price = 7")).await;
        client.call(subscribe("h", "orders", "SQL92", "price = 7")).await;
        let mut other = Client::connect(&sim, "other", broker.address).await;
        let others = other.send_all(vec![pull_as_subscribed("h", 1, 15_000, 5)]).await[0];
        let held = client.send_all(vec![pull_as_subscribed("g", 1, 15_000, 5)]).await[0];
        sim.sleep(Duration::from_secs(1)).await;
        let changed = sim.now();
        let mut beat = subscribe("g", "orders", "SQL92", "price = 2");
        beat.body =
            String::from_utf8(beat.body.to_vec()).unwrap().replace("Version\":5", "Version\":6").into();
        client.send_all(vec![beat]).await;
        let answer = client.answer(held).await;
        assert_eq!((answer.code, number(&answer, "nextBeginOffset")), (response::PULL_NOT_FOUND, 1));
        assert!(sim.now().since(changed) < Duration::from_secs(1));
        // The next one is held to the new expression; the other group still waits for its own.
        let held = client.send_all(vec![pull_as_subscribed("g", 1, 15_000, 6)]).await[0];
        let mut producer = Client::connect(&sim, "producer", broker.address).await;
        send_prices(&mut producer, 1..8).await;
        assert_eq!(bodies(&client.answer(held).await), ["order 2"]);
        assert_eq!(bodies(&other.answer(others).await), ["order 7"]);
        broker.stop().await;
    });
}

#[test]
fn what_cannot_be_filtered_by_is_refused_with_javas_codes() {
    let sim = Sim::new(62);
    sim.run(async {
        let broker = start(&sim, &["cores=1", "shards=1"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        send_prices(&mut client, 0..3).await;
        for (group, kind, expression, version, code) in [
            ("good", "SQL92", "price > 1", 5, response::SUCCESS),
            ("late", "SQL92", "price > 1", 6, response::SUBSCRIPTION_NOT_LATEST),
            ("bad", "SQL92", "price >", 5, response::FILTER_DATA_NOT_EXIST),
            ("class", "CLASS", "package.Filter", 5, response::SYSTEM_ERROR),
            ("lua", "LUA", "true", 5, response::SYSTEM_ERROR),
        ] {
            client.call(subscribe(group, "orders", kind, expression)).await;
            let answer = client.call(pull_as_subscribed(group, 0, 0, version)).await;
            assert_eq!(answer.code, code, "{group}: {answer:?}");
        }
        let with_expression = |expression: &str| {
            let mut pull = pull("simple", "orders", 0, 0, 0, expression);
            pull.ext.retain(|(name, _)| &**name != "expressionType");
            pull.with_ext("expressionType", "SQL92")
        };
        assert_eq!(bodies(&client.call(with_expression("price > 1")).await), ["order 2"]);
        let answer = client.call(with_expression("price > 'x'")).await;
        assert_eq!(answer.code, response::SUBSCRIPTION_PARSE_FAILED);
        broker.stop().await;
        let broker = start(&sim, &["cores=1", "shards=1", "property-filter=false"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let answer = client.call(with_expression("price > 1")).await;
        let remark = "The broker does not support consumer to filter message by SQL92";
        assert_eq!((answer.code, answer.remark.as_deref()), (response::SYSTEM_ERROR, Some(remark)));
        broker.stop().await;
    });
}
