//! The metrics endpoint of a whole broker in the simulator.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use common::*;
use ringmq_env::sim::Sim;
use ringmq_env::{Env, Stream, StreamReader, StreamWriter};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;

async fn get(sim: &Sim, address: SocketAddr, request: &str) -> String {
    let stream = sim.node("scraper").connect(address, Duration::from_secs(1)).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    for byte in request.as_bytes() {
        writer.write_all(&[IoSlice::new(std::slice::from_ref(byte))]).await.unwrap();
    }
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(4096);
        if reader.read(&mut buffer).await.unwrap_or(0) == 0 {
            return String::from_utf8(buffer.to_vec()).unwrap();
        }
    }
}

/// The line's value; what is not there counts nothing.
fn value(text: &str, line: &str) -> f64 {
    let of = |rest: &str| rest.trim().parse::<f64>().unwrap();
    text.lines().filter_map(|text| text.strip_prefix(line)).map(of).sum()
}

#[test]
fn what_waits_and_what_filters_reject_is_counted() {
    let sim = Sim::new(4);
    sim.run(async {
        let broker = start(&sim, &["metrics-port=5557"]).await;
        let metrics = broker.metrics.unwrap();
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let scrape = async || get(&sim, metrics, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").await;
        for properties in
            ["TIMER_DELAY_SEC\u{1}30\u{2}", "TIMER_DELAY_SEC\u{1}1800\u{2}", "a\u{1}1\u{2}", "a\u{1}2\u{2}"]
        {
            assert_eq!(client.call(send("t", 0, "body", properties)).await.code, 0);
        }
        let half = client.call(send("t", 0, "body", "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}p\u{2}")).await;
        assert_eq!(half.code, 0);
        let mut sql = pull("readers", "t", 0, 0, 0, "a = 1");
        sql.ext.retain(|(name, _)| name != "expressionType");
        assert_eq!(client.call(sql.with_ext("expressionType", "SQL92")).await.code, 0);
        sim.node("scraper").sleep(Duration::from_secs(21)).await;
        let text = scrape().await;
        for (line, expected) in [
            ("ringmq_delayed_messages{in=\"memory\"}", 2.0),
            ("ringmq_delayed_due_messages{shard=\"0\",within=\"0\"}", 0.0),
            ("ringmq_delayed_due_messages{shard=\"0\",within=\"60\"}", 1.0),
            ("ringmq_delayed_due_messages{shard=\"0\",within=\"3600\"}", 2.0),
            ("ringmq_half_messages", 1.0),
            ("ringmq_filter_evaluations_total{wanted=\"yes\"}", 1.0),
            ("ringmq_filter_evaluations_total{wanted=\"no\"}", 1.0),
        ] {
            assert_eq!(value(&text, line), expected, "{line} in\n{text}");
        }
        let id = ringmq_protocol::message_id::OffsetMessageId::decode(half.get("msgId").unwrap()).unwrap();
        let end = Command::request(request::END_TRANSACTION, 0)
            .with_ext("producerGroup", "p")
            .with_ext("tranStateTableOffset", number(&half, "queueOffset"))
            .with_ext("commitLogOffset", id.physical_offset)
            .with_ext("commitOrRollback", 8)
            .with_ext("msgId", "m");
        assert_eq!(client.call(end).await.code, 0);
        sim.node("scraper").sleep(Duration::from_secs(30)).await;
        let text = scrape().await;
        for (line, expected) in [
            ("ringmq_delayed_messages{in=\"memory\"}", 1.0),
            ("ringmq_delayed_delivered_total", 1.0),
            ("ringmq_half_messages", 0.0),
            ("ringmq_transactions_total{outcome=\"committed\"}", 1.0),
        ] {
            assert_eq!(value(&text, line), expected, "{line} in\n{text}");
        }
        broker.stop().await;
    });
}

#[test]
fn prometheus_reads_what_all_shards_and_cores_counted() {
    let sim = Sim::new(3);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2", "metrics-port=5557"]).await;
        let metrics = broker.metrics.unwrap();
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in [0, 1, 2, 3, 3] {
            assert_eq!(client.call(send("orders", queue, "body", "")).await.code, 0);
        }
        assert_eq!(client.call(pull("readers", "orders", 3, 0, 0, "*")).await.code, 0);
        for topic in ["%DLQ%readers", "%RETRY%readers", "%RETRY%readers"] {
            assert_eq!(client.call(send(topic, 0, "body", "")).await.code, 0);
        }
        let held = r#"{"consumerGroup":"readers","clientId":"c","mqSet":
            [{"topic":"orders","brokerName":"b","queueId":0},{"topic":"orders","brokerName":"b","queueId":1}]}"#;
        let lock = Command::request(request::LOCK_BATCH_MQ, 0).with_body(held);
        assert_eq!(client.call(lock).await.code, 0);
        sim.node("scraper").sleep(Duration::from_secs(21)).await;
        let text = get(&sim, metrics, "GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{text}");
        for line in [
            "ringmq_put_messages_total 8\n",
            "ringmq_dead_letters{group=\"readers\"} 1\n",
            "ringmq_dlq_arrivals_total{group=\"readers\"} 1\n",
            "ringmq_group_retries_total{group=\"readers\"} 2\n",
            "ringmq_queue_locks{group=\"readers\"} 2\n",
            "ringmq_get_messages_total 2\n",
            "ringmq_put_seconds_count 8\n",
            "ringmq_topic_put_messages_total{topic=\"orders\"} 5\n",
            "ringmq_group_get_messages_total{topic=\"orders\",group=\"readers\"} 2\n",
            "ringmq_connections 1\n",
            "# TYPE ringmq_put_seconds histogram\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let head = get(&sim, metrics, "HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(head.ends_with("\r\n\r\n") && head.contains("200 OK"), "{head}");
        assert!(get(&sim, metrics, "GET /other HTTP/1.1\r\n\r\n").await.contains("404"));
        assert!(get(&sim, metrics, "\u{1}\u{2}\r\n\r\n").await.contains("400"));
        let long = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(9000));
        assert!(get(&sim, metrics, &long).await.contains("431"));
        broker.stop().await;
    });
}
