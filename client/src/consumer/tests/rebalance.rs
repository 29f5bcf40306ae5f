//! When queues change hands, and who is told.

use super::stock::Stock;
use super::*;

fn sleep(seconds: f64) -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_secs_f64(seconds))
}

/// A consumer of three topics.
async fn start(client: &Client) -> PushConsumer {
    let builder = ["t", "u", "v"].iter().fold(client.push_consumer("g"), |b, topic| b.subscribe(*topic, "*"));
    builder.consume_from(ConsumeFrom::FirstOffset).start(|_: Batch| async { Consumed::All }).await.unwrap()
}

/// Queues of the three topics.
fn queues(consumer: &PushConsumer) -> usize {
    consumer.queues().iter().filter(|queue| !queue.topic.starts_with('%')).count()
}

#[tokio::test(start_paused = true)]
async fn one_heartbeat_tells_of_a_whole_round() {
    let stock = Stock::new(4, 0..0);
    let client = client(&stock.network).await;
    let consumer = start(&client).await;
    sleep(0.5).await;
    assert_eq!(queues(&consumer), 12);
    // One before the consumer divides queues, and one behind.
    let beats = stock.network.seen(request::HEART_BEAT);
    assert_eq!(beats.iter().filter(|(addr, _)| addr == "b:1").count(), 2);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_slave_that_is_gone_delays_no_topic() {
    let stock = Stock::new(4, 0..0);
    stock.network.kill("b:2");
    stock.members_are(&["127.0.0.1@me", "127.0.0.1@you"]).await;
    let client = client(&stock.network).await;
    let consumer = start(&client).await;
    // By now connects to the slave back off for seconds, and heartbeats wait for them.
    sleep(15.0).await;
    assert_eq!(queues(&consumer), 6);
    stock.members_are(&["127.0.0.1@me"]).await;
    sleep(0.5).await;
    assert_eq!(queues(&consumer), 12);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_timer_notices_what_nobody_told() {
    let stock = Stock::new(4, 0..0);
    let client = client(&stock.network).await;
    let consumer = start(&client).await;
    sleep(1.0).await;
    stock.members_become(&["127.0.0.1@me", "127.0.0.1@you"]);
    sleep(17.0).await;
    assert_eq!(queues(&consumer), 12);
    sleep(3.0).await;
    assert_eq!(queues(&consumer), 6);
    consumer.shutdown().await;
    client.shutdown().await;
}
