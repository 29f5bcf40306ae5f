//! Consumption by POP, which a broker chooses for a group that leaves the dividing of queues to it. Runs when
//! `RINGMQ_TEST_NAMESRV` names a broker's name server and `RINGMQ_TEST_JAVA_LIB` a directory with the jars of
//! rocketmq-tools 5.5.0.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bounded, client, lacks, unique};
use ringmq_client::admin::NewTopic;
use ringmq_client::consumer::RetryDelay;
use ringmq_client::{Batch, Client, ConsumeFrom, Consumed, Message, PushConsumer};

const MESSAGES: usize = 40;

/// Java's admin tool.
async fn mqadmin(lib: &str, args: &[&str]) -> String {
    let name_servers = std::env::var("RINGMQ_TEST_NAMESRV").unwrap();
    let mut command = Command::new("java");
    command.args(["-cp", &format!("{lib}/*"), "org.apache.rocketmq.tools.command.MQAdminStartup"]);
    command.args(args).args(["-n", &name_servers]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bodies with the failures before, as listeners got them.
type Seen = Arc<Mutex<Vec<(String, i32)>>>;

/// A member whose listener fails with one message once.
async fn member(client: &Client, topic: &str, group: &str, seen: Seen) -> PushConsumer {
    let builder = client.push_consumer(group).subscribe(topic, "wanted").client_rebalance(false);
    let builder = builder.rebalance_interval(Duration::from_secs(1)).pop_invisible(Duration::from_secs(20));
    let listener = move |batch: Batch| {
        let body = String::from_utf8(batch[0].body.to_vec()).unwrap();
        let times = batch[0].reconsume_times;
        let fails = body == "7" && times == 0;
        seen.lock().unwrap().push((body, times));
        async move { if fails { Consumed::Failed(RetryDelay::Growing) } else { Consumed::All } }
    };
    builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2400 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}");
}

#[tokio::test]
async fn members_share_queues_and_failures_come_again() {
    if lacks("pop") {
        return eprintln!("skipped: the broker has no POP");
    }
    let (Ok(lib), Some(first)) = (std::env::var("RINGMQ_TEST_JAVA_LIB"), client().await) else { return };
    let second = client().await.unwrap();
    bounded(async {
        let (topic, group) = (NewTopic { queues: 2, ..NewTopic::new(unique("client_pop")) }, unique("g"));
        first.admin().create_topic(&topic).await.unwrap();
        let topic = topic.name;
        while first.admin().queues(&topic).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        mqadmin(&lib, &["updateSubGroup", "-c", "DefaultCluster", "-g", &group]).await;
        let command =
            ["setConsumeMode", "-c", "DefaultCluster", "-t", &topic, "-g", &group, "-m", "POP", "-q", "0"];
        let mode = mqadmin(&lib, &command).await;

        let (one, two) = (Seen::default(), Seen::default());
        let members = [
            member(&first, &topic, &group, one.clone()).await,
            member(&second, &topic, &group, two.clone()).await,
        ];
        // Each has all queues of the broker.
        let pops = |member: &PushConsumer| {
            member.queues().iter().any(|queue| queue.topic == topic && queue.queue_id == -1)
        };
        until(&format!("POP: {mode}"), || members.iter().all(pops)).await;
        let producer = first.producer("client_test").start().unwrap();
        for i in 0..MESSAGES {
            let wanted = Message::builder(&topic).tag("wanted").body(i.to_string()).build().unwrap();
            producer.send(wanted).await.unwrap();
            let other = Message::builder(&topic).tag("other").body("not wanted").build().unwrap();
            producer.send(other).await.unwrap();
        }
        let all = || [one.lock().unwrap().clone(), two.lock().unwrap().clone()].concat();
        until("the failure again", || all().contains(&("7".to_owned(), 1))).await;
        until("everything", || all().len() > MESSAGES).await;
        let status = mqadmin(&lib, &["consumerStatus", "-g", &group, "-i", first.id()]).await;
        assert!(status.contains("#Consumer Pop Detail#"), "{status}");
        let [first_member, second_member] = members;
        first_member.shutdown().await;
        second_member.shutdown().await;

        // What was acknowledged does not come again when its time is over: 20 s, and the broker's own delay.
        let late = Seen::default();
        let later = member(&first, &topic, &group, late.clone()).await;
        until("POP again", || pops(&later)).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(*late.lock().unwrap(), []);
        let mut bodies: Vec<_> = all().into_iter().map(|(body, _)| body.parse::<usize>().unwrap()).collect();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!(bodies, (0..MESSAGES).collect::<Vec<_>>());
        later.shutdown().await;
        first.shutdown().await;
        second.shutdown().await;
    })
    .await;
}
