//! Transactions: half messages, their ends, their checks, and crashes at every moment.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use common::*;
use ringmq_env::sim::{Crash, Sim};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::properties;
use ringmq_protocol::record::{RecordView, records};

const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;
const CHECK: i32 = request::CHECK_TRANSACTION_STATE;

fn half(topic: &str, queue: i32, body: &str, more: &str) -> Command {
    let properties = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}bank\u{2}UNIQ_KEY\u{1}{body}\u{2}{more}");
    let mut send = send(topic, queue, body, &properties);
    send.ext.retain(|(name, _)| name != "f" && name != "g");
    // Born when it comes, or as it seems a little later.
    send.with_ext("f", 4).with_ext("g", 1_900_000_000_000i64)
}

fn born_long_ago(half: Command) -> Command {
    let mut half = half;
    half.ext.retain(|(name, _)| name != "g");
    half.with_ext("g", 1_700_000_000_000i64)
}

/// Where a half message lies, as its producer knows from the answer to the send or from a check.
#[derive(Clone, Copy, Debug)]
struct Place {
    log: i64,
    state: i64,
}

fn sent_to(answer: &Command) -> Place {
    assert_eq!(answer.code, response::SUCCESS, "{answer:?}");
    let id = OffsetMessageId::decode(answer.get("msgId").unwrap()).unwrap();
    Place { log: id.physical_offset, state: number(answer, "queueOffset") }
}

fn checked_at(check: &Command) -> Place {
    Place { log: number(check, "commitLogOffset"), state: number(check, "tranStateTableOffset") }
}

fn end(place: Place, verdict: i32, from_check: bool) -> Command {
    Command::request(request::END_TRANSACTION, 0)
        .with_ext("producerGroup", "bank")
        .with_ext("tranStateTableOffset", place.state)
        .with_ext("commitLogOffset", place.log)
        .with_ext("commitOrRollback", verdict)
        .with_ext("fromTransactionCheck", from_check)
        .with_ext("msgId", "id")
}

fn producer_heartbeat(client: &str) -> Command {
    let body = format!(
        r#"{{"clientID":"{client}","consumerDataSet":[],"producerDataSet":[{{"groupName":"bank"}}]}}"#
    );
    Command::request(request::HEART_BEAT, 0).with_body(body)
}

async fn visible(client: &mut Client, topic: &str, queue: i32) -> Vec<String> {
    bodies(&client.call(pull("readers", topic, queue, 0, 0, "*")).await)
}

#[test]
fn a_half_message_is_seen_once_it_is_committed_and_never_if_it_is_rolled_back() {
    let sim = Sim::new(60);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        assert_eq!(client.call(send("t", 0, "first", "")).await.code, 0);
        for queue in 0..2 {
            let held = client.send_all(vec![pull("readers", "t", queue, 1, 15_000, "x")]).await[0];
            let answer = client.call(half("t", queue, "paid", "TAGS\u{1}x\u{2}")).await;
            let place = sent_to(&answer);
            assert_eq!(
                (number(&answer, "queueId"), answer.get("transactionId")),
                (i64::from(queue), Some("paid"))
            );
            assert!(!visible(&mut client, "t", queue).await.contains(&"paid".to_owned()));
            assert_eq!(client.call(end(place, COMMIT, false)).await.code, response::SUCCESS);
            if queue == 0 {
                let found = client.answer(held).await;
                let record = records(&found.body).next().unwrap().unwrap();
                assert_eq!(record.body, b"paid");
                assert_eq!((record.sys_flag, record.topic, record.queue_id), (COMMIT, "t", 0));
                assert_eq!(record.prepared_transaction_offset, place.log);
                let property = |name| properties::find(record.properties, name);
                assert_eq!(
                    (property("TRAN_MSG"), property("__transactionId__")),
                    (Some("true"), Some("paid"))
                );
                assert_eq!((property("REAL_TOPIC"), property("REAL_QID")), (Some("t"), Some("0")));
                assert_eq!(property("RINGMQ_DUE"), None);
            }
            let again = client.call(end(place, COMMIT, false)).await;
            assert_eq!(again.remark.as_deref(), Some("Find prepared transaction message failed"));

            let place = sent_to(&client.call(half("t", queue, "refused", "")).await);
            assert_eq!(client.call(end(place, ROLLBACK, false)).await.code, response::SUCCESS);
            let late = client.call(end(place, COMMIT, false)).await;
            assert_eq!(late.code, response::SYSTEM_ERROR, "a message that is rolled back stays so");
            let seen = visible(&mut client, "t", queue).await;
            assert!(seen.contains(&"paid".to_owned()) && !seen.contains(&"refused".to_owned()), "{seen:?}");
        }
        broker.stop().await;
    });
}

#[test]
fn what_does_not_match_does_not_end_a_transaction() {
    let sim = Sim::new(61);
    sim.run(async {
        let broker = start(&sim, &["cores=2", "shards=2"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let plain = sent_to(&client.call(send("t", 0, "plain", "")).await);
        let place = sent_to(&client.call(half("t", 0, "half", "")).await);
        let not_found = "Find prepared transaction message failed";
        let mut other_group = end(place, COMMIT, false);
        other_group.ext.retain(|(name, _)| name != "producerGroup");
        for (end, remark) in [
            (end(plain, COMMIT, false), not_found),
            (end(Place { log: place.log + 1, ..place }, COMMIT, false), not_found),
            (end(Place { log: -1, ..place }, COMMIT, false), not_found),
            (end(Place { log: 77 << 45, ..place }, ROLLBACK, false), not_found),
            (end(Place { state: 9, ..place }, COMMIT, false), "The transaction state table offset wrong"),
            (other_group.with_ext("producerGroup", "thief"), "The producer group wrong"),
        ] {
            let refused = client.call(end).await;
            assert_eq!((refused.code, refused.remark.as_deref()), (response::SYSTEM_ERROR, Some(remark)));
        }
        // Unknown, and nonsense: no answer, and nothing happens.
        client.send_all(vec![end(place, 0, false), end(place, 5, false)]).await;
        let immune = half("t", 0, "immune", "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}5\u{2}");
        let old = sent_to(&client.call(born_long_ago(immune)).await);
        let refused = client.call(end(old, COMMIT, false)).await;
        assert_eq!(refused.code, response::ILLEGAL_OPERATION, "it was born long ago: the check decides");
        assert_eq!(client.call(end(old, COMMIT, true)).await.code, response::SUCCESS);
        assert_eq!(client.call(end(place, COMMIT, false)).await.code, response::SUCCESS);
        assert_eq!(visible(&mut client, "t", 0).await, ["plain", "immune", "half"]);
        broker.stop().await;

        let broker = start(&sim, &["cores=2", "shards=2", "reject-transactions=true"]).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let refused = client.call(half("t", 0, "no", "")).await;
        assert_eq!(refused.code, response::NO_PERMISSION);
        assert!(refused.remark.unwrap().ends_with("] sending transaction message is forbidden"));
        broker.stop().await;
    });
}

#[test]
fn a_producer_is_asked_until_it_knows() {
    let sim = Sim::new(62);
    sim.run(async {
        let sets = ["cores=2", "shards=2", "transaction-timeout=1s", "transaction-check-interval=2s"];
        let broker = start(&sim, &sets).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        let mut reader = Client::connect(&sim, "reader", broker.address).await;
        assert_eq!(client.call(producer_heartbeat("p@1")).await.code, 0);
        for queue in 0..2 {
            let began = sim.now();
            let body = format!("order-{queue}");
            let first = sent_to(&client.call(half("t", queue, &body, "")).await);
            let mut asked = Vec::new();
            for nth in 0..3 {
                let check = client.pushed(CHECK).await;
                let waited = sim.now().since(began);
                let due = Duration::from_millis(1000 + 2000 * nth);
                let early = Duration::from_millis(5);
                assert!(waited + early >= due && waited < due + Duration::from_millis(500), "{waited:?}");
                assert!(check.is_oneway());
                assert_eq!((check.get("msgId"), check.get("transactionId")), (Some(&*body), Some(&*body)));
                let id = OffsetMessageId::decode(check.get("offsetMsgId").unwrap()).unwrap();
                assert_eq!(id.physical_offset, number(&check, "commitLogOffset"));
                let record = RecordView::decode(&check.body).unwrap();
                assert_eq!((record.topic, record.queue_id, record.body), ("t", queue, body.as_bytes()));
                let times = properties::find(record.properties, "TRANSACTION_CHECK_TIMES").unwrap();
                assert_eq!(times, (nth + 1).to_string());
                asked.push(checked_at(&check));
            }
            assert_eq!(visible(&mut reader, "t", queue).await.len(), 0);
            // Each place that the producer was told of will do, the first one too.
            let place = if queue == 0 { first } else { asked[1] };
            assert_eq!(client.call(end(place, COMMIT, true)).await.code, response::SUCCESS);
            assert_eq!(visible(&mut reader, "t", queue).await, [body]);
            let again = client.call(end(asked[2], ROLLBACK, true)).await;
            assert_eq!(again.code, response::SYSTEM_ERROR);
        }
        broker.stop().await;
    });
}

/// RESUME_CHECK_HALF_MESSAGE.
fn resume(broker: std::net::SocketAddr, physical_offset: i64) -> Command {
    let id = OffsetMessageId { store_host: broker, physical_offset };
    Command::request(request::RESUME_CHECK_HALF_MESSAGE, 0)
        .with_ext("topic", "t")
        .with_ext("msgId", id.encode())
}

fn given_up_queue(record: &RecordView<'_>) -> i32 {
    properties::find(record.properties, "REAL_QID").unwrap().parse().unwrap()
}

#[test]
fn a_half_message_that_nobody_ends_is_given_up_where_operators_find_it() {
    let sim = Sim::new(63);
    sim.run(async {
        let sets = [
            "cores=2",
            "shards=2",
            "transaction-timeout=100ms",
            "transaction-check-interval=1s",
            "transaction-check-max=3",
        ];
        let broker = start(&sim, &sets).await;
        let mut client = Client::connect(&sim, "client", broker.address).await;
        for queue in 0..2 {
            sent_to(&client.call(half("t", queue, &format!("lost-{queue}"), "")).await);
        }
        // Nobody of the group is online for two checks; for the third somebody is, who does not know.
        sim.sleep(Duration::from_millis(1500)).await;
        assert_eq!(client.call(producer_heartbeat("p@1")).await.code, 0);
        let last = client.pushed(CHECK).await;
        sim.sleep(Duration::from_secs(3)).await;
        let mut lost = Vec::new();
        for queue in 0..2 {
            lost.extend(visible(&mut client, "TRANS_CHECK_MAX_TIME_TOPIC", queue).await);
            assert_eq!(visible(&mut client, "t", queue).await.len(), 0);
        }
        lost.sort_unstable();
        assert_eq!(lost, ["lost-0", "lost-1"]);
        let late = client.call(end(checked_at(&last), COMMIT, true)).await;
        assert_eq!(late.code, response::SYSTEM_ERROR, "what is given up has its outcome");
        let given_up = client.call(pull("readers", "TRANS_CHECK_MAX_TIME_TOPIC", 0, 0, 0, "*")).await;
        let given_up = RecordView::decode(&given_up.body).unwrap();
        let resumed = client.call(resume(broker.address, given_up.physical_offset)).await;
        assert_eq!(resumed.code, response::SUCCESS, "{resumed:?}");
        let check = loop {
            let check = client.pushed(CHECK).await;
            let record = RecordView::decode(&check.body).unwrap();
            if properties::find(record.properties, "TRANSACTION_CHECK_TIMES") == Some("1") {
                break check;
            }
        };
        assert_eq!(client.call(end(checked_at(&check), COMMIT, true)).await.code, response::SUCCESS);
        let topic = visible(&mut client, "t", given_up_queue(&given_up)).await;
        assert_eq!(topic, [String::from_utf8(given_up.body.to_vec()).unwrap()]);
        for nothing in [given_up.physical_offset + 1, 1 << 40, -1] {
            let refused = client.call(resume(broker.address, nothing)).await;
            assert_eq!(refused.code, response::SYSTEM_ERROR, "{refused:?}");
        }
        broker.stop().await;
    });
}

/// What the test knows of its half messages.
#[derive(Default)]
struct Ledger {
    next: u64,
    /// Whose send was acknowledged.
    stored: BTreeSet<u64>,
}

fn is_committed(number: u64) -> bool {
    !number.is_multiple_of(3)
}

fn verdict(number: u64) -> i32 {
    if is_committed(number) { COMMIT } else { ROLLBACK }
}

/// Sends half messages and ends most of them, until the broker is gone.
async fn trade(sim: &Sim, address: std::net::SocketAddr, ledger: Rc<RefCell<Ledger>>, until: u64) {
    let Some(mut client) = Client::try_connect(sim, "trader", address).await else { return };
    while ledger.borrow().next < until {
        let number = {
            let mut ledger = ledger.borrow_mut();
            ledger.next += 1;
            ledger.next - 1
        };
        let queue = (number % 4) as i32;
        let Some(answer) = client.try_call(half("t", queue, &number.to_string(), "")).await else { return };
        let place = sent_to(&answer);
        ledger.borrow_mut().stored.insert(number);
        // Some are left to the checks, and some are ended twice.
        let times = [0, 1, 1, 2][(number % 4 + number / 4) as usize % 4];
        for _ in 0..times {
            if client.try_call(end(place, verdict(number), false)).await.is_none() {
                return;
            }
        }
    }
}

/// Answers checks until the broker is gone; now and then it does not know yet.
async fn answer_checks(sim: &Sim, address: std::net::SocketAddr) {
    let Some(mut client) = Client::try_connect(sim, "producer", address).await else { return };
    if client.try_call(producer_heartbeat("p@1")).await.is_none() {
        return;
    }
    while let Some(command) = client.next().await {
        if command.is_response() || command.code != CHECK {
            continue;
        }
        let record = RecordView::decode(&command.body).unwrap();
        let number: u64 = std::str::from_utf8(record.body).unwrap().parse().unwrap();
        let knows = !sim.random().is_multiple_of(4);
        let end = end(checked_at(&command), if knows { verdict(number) } else { 0 }, true);
        if client.try_send(vec![end]).await.is_none() {
            return;
        }
    }
}

async fn everything(client: &mut Client) -> BTreeMap<u64, usize> {
    let mut seen = BTreeMap::new();
    for queue in 0..4 {
        let mut offset = 0;
        loop {
            let found = client.call(pull("readers", "t", queue, offset, 0, "*")).await;
            let bodies = bodies(&found);
            if bodies.is_empty() {
                break;
            }
            offset += bodies.len() as i64;
            for body in bodies {
                *seen.entry(body.parse().unwrap()).or_default() += 1;
            }
        }
    }
    seen
}

fn crashes_leave_one_outcome(seed: u64, crash: Crash) {
    let sim = Sim::new(seed);
    sim.run(async {
        let sets = [
            "cores=2",
            "shards=2",
            "transaction-timeout=100ms",
            "transaction-check-interval=150ms",
            "transaction-check-max=1000",
        ];
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        for life in 1..=3 {
            let broker = start(&sim, &sets).await;
            let trading = trade(&sim, broker.address, ledger.clone(), life * 40);
            let checking = answer_checks(&sim, broker.address);
            let moment = Duration::from_micros(20_000 + sim.random() % 300_000);
            futures_lite::future::or(sim.sleep(moment), async {
                futures_lite::future::zip(trading, checking).await;
            })
            .await;
            sim.crash(BROKER, crash);
        }
        let broker = start(&sim, &sets).await;
        futures_lite::future::or(sim.sleep(Duration::from_secs(2)), answer_checks(&sim, broker.address))
            .await;
        let mut client = Client::connect(&sim, "reader", broker.address).await;
        let seen = everything(&mut client).await;
        let stored = ledger.borrow().stored.clone();
        assert!(stored.len() > 20, "{} half messages were stored", stored.len());
        for (number, times) in &seen {
            assert!(is_committed(*number), "seed {seed}: {number} was rolled back, and is seen");
            assert_eq!(*times, 1, "seed {seed}: {number} is seen more than once");
        }
        let wanted = stored.iter().copied().filter(|number| is_committed(*number));
        for number in wanted {
            assert!(seen.contains_key(&number), "seed {seed}: {number} was committed, and is not seen");
        }
        broker.stop().await;
    });
}

#[test]
fn whatever_crashes_when_each_half_message_has_one_outcome() {
    crashes_leave_one_outcome(600, Crash::Process);
    crashes_leave_one_outcome(700, Crash::PowerLosingAll);
}
