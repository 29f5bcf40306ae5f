//! Requests and replies against a broker.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::time::Duration;

use common::{bounded, client, lacks, unique};
use ringmq_client::producer::RequestError;
use ringmq_client::{Batch, ConsumeFrom, Consumed, Message};

#[tokio::test]
async fn replies_come_back_to_who_asked() {
    if lacks("request-reply") {
        return eprintln!("skipped: the broker passes no replies on");
    }
    let (Some(asking), Some(answering)) = (client().await, client().await) else { return };
    bounded(async {
        let topic = unique("client_request");
        let requester = asking.producer(unique("p")).start().unwrap();
        requester.send(Message::new(&topic, "create").unwrap()).await.unwrap();
        let responder = answering.producer(unique("p")).start().unwrap();
        let listener = move |batch: Batch| {
            let responder = responder.clone();
            async move {
                for message in batch.iter().filter(|message| *message.body != *b"create") {
                    let body = [b"re: ", &*message.body].concat();
                    let reply = Message::reply(message, body).unwrap();
                    responder.send(reply).await.unwrap();
                }
                Consumed::All
            }
        };
        let builder = answering.push_consumer(unique("g")).subscribe(&topic, "*");
        let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await.unwrap();
        for i in 0..5 {
            let message = Message::new(&topic, format!("question {i}")).unwrap();
            let reply = requester.request(message, Duration::from_secs(20)).await.unwrap();
            assert_eq!(&*reply.body, format!("re: question {i}").as_bytes());
        }
        let nobody = Message::new(unique("client_request"), "hello?").unwrap();
        let error = requester.request(nobody, Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(&error, RequestError::NoReply { .. }) && error.is_retryable(), "{error}");
        consumer.shutdown().await;
        asking.shutdown().await;
        answering.shutdown().await;
    })
    .await;
}
