//! What a listener's outcomes come to in orderly consumption.

use std::collections::VecDeque;

use super::stock::Stock;
use super::*;

use ConsumedOrderly::{All, Pending, Rollback, Suspend};

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How often every message of the tests had failed when it was stored.
const FAILED_BEFORE: i32 = 2;

/// A delivery: the offset, how often it failed here before, and when, since the script was written.
type Delivery = (i64, i32, Duration);

/// A listener that takes some time for each message and answers as it was told, in the end with [`All`].
#[derive(Clone)]
struct Script {
    began: Instant,
    outcomes: Arc<Mutex<VecDeque<(Duration, ConsumedOrderly)>>>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Script {
    fn new(outcomes: impl IntoIterator<Item = (f64, ConsumedOrderly)>) -> Script {
        let outcomes = outcomes.into_iter().map(|(time, outcome)| (seconds(time), outcome));
        Script {
            began: Instant::now(),
            outcomes: Arc::new(Mutex::new(outcomes.collect())),
            deliveries: Arc::default(),
        }
    }

    /// As many outcomes of listeners that take no time.
    fn at_once(outcomes: impl IntoIterator<Item = ConsumedOrderly>) -> Script {
        Script::new(outcomes.into_iter().map(|outcome| (0.0, outcome)))
    }

    fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.deliveries).clone()
    }

    /// Offsets and failures.
    fn messages(&self) -> Vec<(i64, i32)> {
        self.deliveries().iter().map(|(offset, failures, _)| (*offset, *failures)).collect()
    }

    /// The pauses between deliveries, in ms.
    fn pauses(&self) -> Vec<u128> {
        let deliveries = self.deliveries();
        deliveries.windows(2).map(|two| (two[1].2 - two[0].2).as_millis()).collect()
    }
}

impl OrderlyListener for Script {
    async fn consume(&self, batch: Batch) -> ConsumedOrderly {
        let failures = batch[0].reconsume_times - FAILED_BEFORE;
        lock(&self.deliveries).push((batch[0].queue_offset, failures, self.began.elapsed()));
        let next = lock(&self.outcomes).pop_front();
        let (time, outcome) = next.unwrap_or((Duration::ZERO, All));
        tokio::time::sleep(time).await;
        outcome
    }
}

async fn start(client: &Client, script: &Script) -> PushConsumer {
    let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
    let builder = builder.persist_interval(seconds(0.1)).suspend(seconds(0.2)).max_reconsume_times(9);
    builder.start_orderly(script.clone()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_is_committed_with_the_next_all() {
    let stock = Stock::new(1, 0..4);
    let client = client(&stock.network).await;
    let script = Script::new([(1.0, Pending), (1.0, Pending), (1.0, All), (1.0, Pending)]);
    let consumer = start(&client, &script).await;
    tokio::time::sleep(seconds(2.9)).await;
    assert_eq!((script.messages().len(), committed(&stock.network)), (3, Vec::new()));
    tokio::time::sleep(seconds(3.0)).await;
    assert_eq!(script.messages(), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    assert_eq!(committed(&stock.network), ["3"]);
    consumer.shutdown().await;
    // The one that was pending when its member left comes to the next member.
    let script = Script::at_once([]);
    let consumer = start(&client, &script).await;
    tokio::time::sleep(seconds(1.0)).await;
    assert_eq!(script.messages(), [(3, 0)]);
    consumer.shutdown().await;
    assert_eq!(committed(&stock.network).last().map(String::as_str), Some("4"));
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_everything_pending_again_in_order() {
    let stock = Stock::new(1, 0..4);
    let client = client(&stock.network).await;
    let script = Script::at_once([
        Pending,
        Pending,
        Rollback(Some(seconds(0.7))),
        Pending,
        Pending,
        All,
        Rollback(None),
    ]);
    let consumer = start(&client, &script).await;
    tokio::time::sleep(seconds(0.5)).await;
    assert_eq!((script.messages().len(), committed(&stock.network)), (3, Vec::new()));
    tokio::time::sleep(seconds(2.0)).await;
    // To come again behind a rollback is no failure, and what is committed stays so.
    let messages = [(0, 0), (1, 0), (2, 0), (0, 0), (1, 0), (2, 0), (3, 0), (3, 0)];
    assert_eq!(script.messages(), messages);
    assert_eq!(script.pauses(), [0, 0, 700, 0, 0, 0, 200]);
    assert_eq!(committed(&stock.network), ["3", "4"]);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_stands_still_for_as_long_as_its_listener_says() {
    let stock = Stock::new(1, 0..2);
    let client = client(&stock.network).await;
    let times = [Some(seconds(3.0)), None, Some(seconds(100.0)), Some(Duration::ZERO)];
    let script = Script::at_once(times.map(Suspend));
    let consumer = start(&client, &script).await;
    tokio::time::sleep(seconds(40.0)).await;
    assert_eq!(script.messages(), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]);
    // Java's limits are 10 ms and 30 s; a suspension without a time is the consumer's own.
    let pauses = script.pauses();
    let expected = [3000, 200, 30_000, 10, 0];
    assert!(pauses.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) < 3), "{pauses:?}");
    assert_eq!(committed(&stock.network).last().map(String::as_str), Some("2"));
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_failed_too_often_goes_to_the_dead_letters_and_the_queue_goes_on() {
    let stock = Stock::new(1, 0..2);
    let client = client(&stock.network).await;
    let script = Script::at_once([Suspend(None); 8]);
    let consumer = start(&client, &script).await;
    tokio::time::sleep(seconds(5.0)).await;
    let failures = (0..8).map(|failures| (0, failures));
    assert_eq!(script.messages(), failures.chain([(1, 0)]).collect::<Vec<_>>());
    let copies = stock.network.seen(request::SEND_MESSAGE_V2);
    let fields = ["b", "j", "l"].map(|name| copies[0].1.get(name));
    assert_eq!((copies.len(), fields), (1, [Some("%RETRY%g"), Some("10"), Some("9")]));
    assert_eq!(committed(&stock.network).last().map(String::as_str), Some("2"));
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn progress_of_a_queue_that_leaves_is_stored_however_long_its_listener_takes() {
    let stock = Stock::new(1, 0..2);
    let client = client(&stock.network).await;
    let script = Script::new([(0.0, All), (8.0, Suspend(None))]);
    let builder = client.push_consumer("g").subscribe("t", "*").subscribe("u", "*");
    let builder = builder.consume_from(ConsumeFrom::FirstOffset).persist_interval(seconds(3.0));
    let consumer = builder.start_orderly(script.clone()).await.unwrap();
    tokio::time::sleep(seconds(1.0)).await;
    consumer.unsubscribe("t").await;
    tokio::time::sleep(seconds(10.0)).await;
    assert_eq!(script.messages(), [(0, 0), (1, 0)]);
    assert_eq!(committed(&stock.network), ["1"]);
    consumer.shutdown().await;
    client.shutdown().await;
}
