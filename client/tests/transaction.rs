//! Transactions against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{bounded, client, consumed, lacks, unique};
use ringmq_client::producer::TransactionState;
use ringmq_client::{Message, MessageExt};

#[tokio::test]
async fn what_is_committed_is_seen_and_what_is_rolled_back_is_not() {
    if lacks("transaction") {
        return eprintln!("skipped: the broker has no transactions");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let (topic, group) = (unique("client_tx"), unique("p"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let checker = {
            let asked = asked.clone();
            move |message: MessageExt| {
                asked.lock().unwrap().push(String::from_utf8(message.body.to_vec()).unwrap());
                async move {
                    match &*message.body {
                        b"late commit" => TransactionState::Commit,
                        _ => TransactionState::Rollback,
                    }
                }
            }
        };
        let producer = client.producer(&group).start_transactional(checker).unwrap();
        let (consumer, seen) = consumed(&client, &topic, "*").await;
        for (text, state) in [
            ("commit", TransactionState::Commit),
            ("rollback", TransactionState::Rollback),
            ("late commit", TransactionState::Unknown),
            ("late rollback", TransactionState::Unknown),
        ] {
            let message = Message::new(&topic, text).unwrap();
            let receipt = producer.send(message, move |_| async move { state }).await.unwrap();
            assert_eq!(receipt.state, state);
            assert_eq!(receipt.half.transaction_id.as_deref(), Some(receipt.half.msg_id.as_str()));
        }
        seen.count(1).await;
        assert_eq!(seen.all(), ["commit"]);
        // The broker asks about the two that are not decided, after some seconds.
        while asked.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        seen.count(2).await;
        assert_eq!(seen.sorted(), ["commit", "late commit"]);
        producer.shutdown().await;
        consumer.shutdown().await;
        client.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_panic_in_the_local_transaction_leaves_it_open() {
    if lacks("transaction") {
        return eprintln!("skipped: the broker has no transactions");
    }
    let Some(client) = client().await else { return };
    bounded(async {
        let asked = Arc::new(tokio::sync::Notify::new());
        let checker = {
            let asked = asked.clone();
            move |_| {
                asked.notify_one();
                async { TransactionState::Rollback }
            }
        };
        let producer = client.producer(unique("p")).start_transactional(checker).unwrap();
        let message = Message::new(unique("client_tx"), "x").unwrap();
        let receipt = producer.send(message, |_| async { panic!("the application's own fault") }).await;
        assert_eq!(receipt.unwrap().state, TransactionState::Unknown);
        asked.notified().await;
        client.shutdown().await;
    })
    .await;
}
