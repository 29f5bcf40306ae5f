//! Quotas of the broker, of topics and of groups: busy answers at once, with limit, value and a hint; pulls that wait.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::time::Duration;

use common::*;
use ringmq_env::Env;
use ringmq_env::sim::Sim;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;

fn group(attributes: &str) -> Command {
    let body = format!(r#"{{"groupName":"slow","attributes":{attributes}}}"#);
    Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0).with_body(body.into_bytes())
}

/// Sends to the topic's four queues in turn; how many were taken, and the last remark of the others.
async fn taken(client: &mut Client, topic: &str, messages: i32) -> (usize, Option<String>) {
    let (mut taken, mut remark) = (0, None);
    for n in 0..messages {
        let answer = client.call(send(topic, n % 4, "body", "")).await;
        match answer.code {
            response::SUCCESS => taken += 1,
            response::SYSTEM_BUSY => remark = answer.remark,
            _ => panic!("{answer:?}"),
        }
    }
    (taken, remark)
}

#[test]
fn a_topic_over_its_quota_is_refused_until_there_is_something_of_it_again() {
    let sim = Sim::new(81);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        create(&mut client, "limited", "+quota.send=40").await;
        create(&mut client, "free", "").await;
        let (first, remark) = taken(&mut client, "limited", 200).await;
        // What is filled again while the test sends counts too.
        assert!((40..80).contains(&first), "{first}");
        let remark = remark.unwrap();
        for part in
            ["[OVER_QUOTA]", "topic limited is", "over its quota of 40 a second (20 here)", "free again in"]
        {
            assert!(remark.contains(part), "{remark}");
        }
        assert_eq!(taken(&mut client, "free", 200).await, (200, None));
        sim.node("client").sleep(Duration::from_secs(2)).await;
        assert!(taken(&mut client, "limited", 40).await.0 >= 38);
        create(&mut client, "limited", "-quota.send").await;
        assert_eq!(taken(&mut client, "limited", 200).await, (200, None));
        broker.stop().await;
    });
}

#[test]
fn the_brokers_quota_counts_for_every_topic_and_outlives_nothing() {
    let sim = Sim::new(82);
    sim.run(async {
        let broker = start(&sim, &["send-quota-bytes=1000"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        // A large message passes whole, and the next ones wait for it.
        assert_eq!(client.call(send("a", 0, &"x".repeat(5000), "")).await.code, response::SUCCESS);
        let refused = client.call(send("b", 0, "x", "")).await;
        assert_eq!(refused.code, response::SYSTEM_BUSY);
        assert!(refused.remark.unwrap().contains("this broker is"), "whose quota it is");
        sim.node("client").sleep(Duration::from_secs(5)).await;
        assert_eq!(client.call(send("b", 0, "x", "")).await.code, response::SUCCESS);
        broker.stop().await;
    });
}

#[test]
fn a_group_of_producers_is_refused_in_every_topic() {
    let sim = Sim::new(85);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let body = r#"{"groupName":"producers","attributes":{"+quota.send":"40"}}"#;
        let limit = Command::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, 0).with_body(body);
        assert_eq!(client.call(limit).await.code, response::SUCCESS);
        let (first, remark) = taken(&mut client, "a", 200).await;
        assert!((40..80).contains(&first), "{first}");
        assert!(remark.unwrap().contains("group producers is"), "whose quota it is");
        assert!(taken(&mut client, "b", 20).await.0 < 10, "another topic is none of another quota");
        broker.stop().await;
    });
}

#[test]
fn a_groups_pulls_wait_for_its_quota_or_are_refused() {
    let sim = Sim::new(83);
    sim.run(async {
        let broker = start(&sim, &["metrics-port=5557"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(group(r#"{"+quota.pull":"10"}"#)).await.code, response::SUCCESS);
        for _ in 0..64 {
            assert_eq!(client.call(send("t", 0, "body", "")).await.code, response::SUCCESS);
        }
        // 32 at once are 22 too many: the next pull comes when they are made up for.
        assert_eq!(bodies(&client.call(pull("slow", "t", 0, 0, 0, "*")).await).len(), 32);
        let refused = client.call(pull("slow", "t", 0, 32, 0, "*")).await;
        assert_eq!(refused.code, response::SYSTEM_BUSY);
        assert!(refused.remark.unwrap().contains("group slow is"), "whose quota it is");
        let asked = sim.now();
        assert_eq!(bodies(&client.call(pull("slow", "t", 0, 32, 15_000, "*")).await).len(), 32);
        let waited = sim.now().since(asked);
        assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
        assert_eq!(bodies(&client.call(pull("fast", "t", 0, 0, 0, "*")).await).len(), 32);
        // At the end of the queue there is nothing that could be too much.
        assert_eq!(client.call(pull("slow", "t", 0, 64, 0, "*")).await.code, response::PULL_NOT_FOUND);
        broker.stop().await;
    });
}

#[test]
fn what_is_no_quota_is_refused() {
    let sim = Sim::new(84);
    sim.run(async {
        let broker = start(&sim, &[]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for (attributes, remark) in [
            ("+quota.send=-1", "value is not in range(0, 1099511627776)"),
            ("+quota.pull.bytes=much", "value is not a number: much"),
        ] {
            let refused = client.call(topic("t", attributes)).await;
            assert_eq!((refused.code, refused.remark.as_deref()), (response::SYSTEM_ERROR, Some(remark)));
        }
        let refused = client.call(group(r#"{"+quota.reads":"10"}"#)).await;
        assert_eq!(refused.remark.as_deref(), Some("unsupported key: quota.reads"));
        broker.stop().await;
    });
}
