//! Signed requests against a broker that checks them. Runs when `RINGMQ_TEST_ACL_NAMESRV` names the name server of
//! such a broker, `RINGMQ_TEST_ACL_KEY` and `RINGMQ_TEST_ACL_SECRET` a user who may do everything, and
//! `RINGMQ_TEST_ACL_BROKER` the version of the broker: those before 5 know the older access control only.
#![allow(clippy::unwrap_used)] // helpers of tests
#![cfg(feature = "acl")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{bounded, unique, watched};
use ringmq_client::acl::Credentials;
use ringmq_client::admin::{AdminError, NewTopic};
use ringmq_client::{CallError, Client, ClientConfig, Message, SendError, SendReceipt};
use ringmq_protocol::codes::response;

struct Secured {
    name_servers: String,
    key: String,
    secret: String,
    /// Accounts are in a file of the broker's.
    older: bool,
}

impl Secured {
    fn from_env() -> Option<Secured> {
        let variable = |name: &str| std::env::var(format!("RINGMQ_TEST_ACL_{name}"));
        let Ok(name_servers) = variable("NAMESRV") else {
            eprintln!("skipped: RINGMQ_TEST_ACL_NAMESRV is not set");
            return None;
        };
        let older = variable("BROKER").unwrap().starts_with('4');
        let (key, secret) = (variable("KEY").unwrap(), variable("SECRET").unwrap());
        Some(Secured { name_servers, key, secret, older })
    }

    async fn client(&self, credentials: Option<Credentials>) -> Client {
        let mut config = ClientConfig::new(&self.name_servers);
        config.rpc_hooks = credentials.into_iter().map(|hook| Arc::new(hook) as _).collect();
        Client::connect(config).await.unwrap()
    }

    async fn right(&self) -> Client {
        self.client(Some(Credentials::new(&self.key, &self.secret))).await
    }

    /// A topic that exists, for those who may not create one.
    async fn topic(&self) -> String {
        let client = self.right().await;
        let topic = NewTopic { queues: 2, ..NewTopic::new(unique("client_acl")) };
        client.admin().create_topic(&topic).await.unwrap();
        while client.admin().queues(&topic.name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.shutdown().await;
        topic.name
    }
}

async fn send(client: &Client, topic: &str) -> Result<SendReceipt, SendError> {
    let producer = client.producer(unique("p")).start().unwrap();
    let queues = producer.queues(topic).await.unwrap();
    producer.send_to(Message::new(topic, "signed").unwrap(), &queues[0]).await
}

#[tokio::test]
async fn the_right_key_sends_and_consumes() {
    let Some(secured) = Secured::from_env() else { return };
    bounded(async {
        let (topic, client) = (secured.topic().await, secured.right().await);
        let (consumer, seen) = watched(&client, &topic, "*").await;
        send(&client, &topic).await.unwrap();
        seen.count(1).await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

/// What a refusal must tell: who refused, that it was the key, and that to try again is no use there.
fn assert_denied(error: &CallError, code: i32, words: &str) {
    let CallError::Refused { addr, code: found, remark } = error else { panic!("{error:?}") };
    assert_eq!(*found, code, "{remark}");
    assert!(addr.starts_with("127.0.0.1:") && remark.contains(words), "{addr}: {remark}");
}

#[tokio::test]
async fn a_wrong_secret_an_unknown_user_and_nobody_are_refused() {
    let Some(secured) = Secured::from_env() else { return };
    bounded(async {
        let topic = secured.topic().await;
        // The older access control answers as to any failure.
        let (code, words) = match secured.older {
            true => (response::SYSTEM_ERROR, ["Check signature failed", "No acl config", "No accessKey"]),
            false => {
                (response::NO_PERMISSION, ["check signature failed", "not found", "username cannot be null"])
            }
        };
        let wrong = Some(Credentials::new(&secured.key, "wrong"));
        let strange = Some(Credentials::new("stranger", "wrong"));
        for (credentials, words) in [wrong, strange, None].into_iter().zip(words) {
            let client = secured.client(credentials).await;
            let error = send(&client, &topic).await.unwrap_err();
            assert_denied(error.call().unwrap(), code, words);
            let admin = client.admin().create_topic(&NewTopic::new(unique("client_acl"))).await.unwrap_err();
            let AdminError::Call(error) = admin else { panic!("{admin:?}") };
            assert_denied(&error, code, words);
            client.shutdown().await;
        }
    })
    .await;
}
