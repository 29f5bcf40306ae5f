//! How much is pulled, from whom, and when not.

use ringmq_protocol::headers::pull_sys_flag;

use super::stock::{Stock, pulled};
use super::*;

fn sleep(seconds: f64) -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_secs_f64(seconds))
}

/// How many messages are held of each queue of "t".
fn held(consumer: &PushConsumer) -> Vec<usize> {
    let held = consumer.group.held();
    held.iter().filter(|process| process.queue.topic == "t").map(|process| process.size().0).collect()
}

/// Where a queue of "t" was pulled: address, offset, and whether the pull committed.
fn pulls(network: &MemoryNetwork) -> Vec<(String, String, bool)> {
    let of_t = network.seen(request::PULL_MESSAGE).into_iter().filter(|(_, c)| c.get("topic") == Some("t"));
    let flag = |command: &Command| command.get("sysFlag").unwrap().parse::<i32>().unwrap();
    of_t.map(|(addr, c)| {
        let commits = flag(&c) & pull_sys_flag::COMMIT_OFFSET != 0;
        (addr, c.get("queueOffset").unwrap().to_owned(), commits)
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn thresholds_of_a_topic_are_shared_by_its_queues_that_are_here() {
    // Bodies have ten bytes.
    for (messages, bytes) in [(40, 1 << 20), (1 << 20, 400)] {
        let stock = Stock::new(4, 0..1000);
        let client = client(&stock.network).await;
        let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
        let builder = builder.pull_batch(1).pull_threshold_for_topic(messages, bytes);
        let consumer = builder.start(|_: Batch| std::future::pending::<Consumed>()).await.unwrap();
        sleep(1.0).await;
        assert_eq!(held(&consumer), [10, 10, 10, 10]);
        // Nothing was consumed, and yet there is room: the two queues that stay share what four did.
        stock.members_are(&["127.0.0.1@me", "127.0.0.1@you"]).await;
        sleep(1.0).await;
        assert_eq!(held(&consumer), [20, 20]);
        stock.members_are(&["127.0.0.1@me"]).await;
        sleep(1.0).await;
        assert_eq!(held(&consumer), [20, 20, 10, 10]);
        consumer.shutdown().await;
        client.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pulls_follow_the_suggested_slave_and_come_back_when_it_is_gone() {
    let stock = Stock::new(1, 0..0);
    let master = stock.network.answers("b:1").unwrap();
    let suggested = Arc::new(Mutex::new(1));
    let told = suggested.clone();
    stock.network.peer("b:1", move |command| match command.code {
        request::PULL_MESSAGE => pulled(command, &(0..4), *lock(&told)),
        _ => master(command),
    });
    stock.network.peer("b:2", |command| match command.code {
        request::PULL_MESSAGE => pulled(command, &(0..2), 1),
        _ => Some(Command::response(0, 0)),
    });
    let client = client(&stock.network).await;
    let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
    let builder = builder.pull_batch(1).pull_interval(Duration::from_secs(1));
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
    sleep(4.0).await;
    let pull = |addr: &str, offset: &str, commits| (addr.to_owned(), offset.to_owned(), commits);
    // A slave takes no offsets; the last one holds its pull.
    let mut expected = vec![pull("b:1", "0", false), pull("b:2", "1", false), pull("b:2", "2", false)];
    assert_eq!(pulls(&stock.network), expected);
    *lock(&suggested) = 7;
    stock.network.kill("b:2");
    sleep(4.0).await;
    // The master goes on, and so it does when it suggests somebody whom no route names.
    expected.extend([pull("b:1", "2", true), pull("b:1", "3", true), pull("b:1", "4", true)]);
    assert_eq!(pulls(&stock.network), expected);
    consumer.shutdown().await;
    let commits = stock.network.seen(request::UPDATE_CONSUMER_OFFSET);
    assert!(commits.iter().all(|(addr, _)| addr == "b:1"), "{commits:?}");
    assert_eq!(committed(&stock.network).last().map(String::as_str), Some("4"));
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pulled_while_the_consumer_is_suspended() {
    let stock = Stock::new(1, 0..1000);
    let client = client(&stock.network).await;
    let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
    let builder = builder.pull_batch(1).pull_interval(Duration::from_secs(1));
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await.unwrap();
    sleep(4.5).await;
    assert_eq!(pulls(&stock.network).len(), 5);
    consumer.suspend();
    sleep(60.0).await;
    // What was consumed before is stored all the same, and the member stays one.
    assert_eq!((pulls(&stock.network).len(), committed(&stock.network)), (5, vec!["5".to_owned()]));
    assert!(stock.network.seen(request::HEART_BEAT).len() >= 2);
    consumer.resume();
    sleep(4.5).await;
    assert_eq!(pulls(&stock.network).len(), 10);
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn so_many_listeners_run_at_a_time_and_get_so_many_messages() {
    let stock = Stock::new(4, 0..100);
    let client = client(&stock.network).await;
    let builder = client.push_consumer("g").subscribe("t", "*").consume_from(ConsumeFrom::FirstOffset);
    let (running, most, sizes) =
        (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let listener = {
        let (running, most, sizes) = (running.clone(), most.clone(), sizes.clone());
        move |batch: Batch| {
            let (running, most, sizes) = (running.clone(), most.clone(), sizes.clone());
            async move {
                lock(&sizes).push(batch.len());
                *lock(&running) += 1;
                let now = *lock(&running);
                let before = *lock(&most);
                *lock(&most) = before.max(now);
                sleep(0.1).await;
                *lock(&running) -= 1;
                Consumed::All
            }
        }
    };
    let consumer = builder.consume_tasks(3).consume_batch(7).start(listener).await.unwrap();
    sleep(10.0).await;
    let sizes = lock(&sizes).clone();
    assert_eq!((sizes.iter().sum::<usize>(), sizes.iter().max(), *lock(&most)), (400, Some(&7), 3));
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_polls_changes_what_it_reads() {
    let stock = Stock::new(3, 0..5);
    let client = client(&stock.network).await;
    let queue = |id| MessageQueue { broker_name: "b".into(), queue_id: id, topic: "t".into() };
    let builder = client.lite_pull_consumer("g").assign([queue(0), queue(1)]);
    let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start().await.unwrap();
    consumer.assign([queue(1), queue(2)]).await.unwrap();
    assert_eq!(consumer.queues(), [queue(1), queue(2)]);
    // What was assigned a moment ago can be sought.
    assert!(consumer.seek(&queue(2), 3) && !consumer.seek(&queue(0), 3));
    let mut seen = Vec::new();
    for _ in 0..2 {
        let messages = consumer.poll(Duration::from_secs(5)).await;
        seen.push((messages[0].queue.queue_id, messages.len()));
    }
    seen.sort();
    assert_eq!(seen, [(1, 5), (2, 2)]);
    assert!(consumer.poll(Duration::from_secs(5)).await.is_empty());
    // One that comes back while it is given back.
    consumer.assign([queue(0)]).await.unwrap();
    consumer.assign([queue(1)]).await.unwrap();
    assert!(consumer.seek(&queue(1), 0));
    consumer.assign([queue(0), queue(1)]).await.unwrap();
    assert!(consumer.seek(&queue(0), 4) && consumer.queues().len() == 2);
    consumer.shutdown().await;

    let consumer = client.lite_pull_consumer("h").subscribe("t", "*").start().await.unwrap();
    let refused = consumer.assign([queue(0)]).await;
    assert!(matches!(refused, Err(ConsumerError::Shares(group)) if group == "h"));
    consumer.shutdown().await;
    client.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_poll_goes_on_where_the_queue_begins_without_commits_of_its_own() {
    let stock = Stock::new(1, 10..12);
    let client = client(&stock.network).await;
    let builder = client.lite_pull_consumer("g").subscribe("t", "*").auto_commit(false);
    let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start().await.unwrap();
    for _ in 0..2 {
        let messages = consumer.poll(Duration::from_secs(10)).await;
        assert_eq!(messages.iter().map(|message| message.queue_offset).collect::<Vec<_>>(), [10, 11]);
        consumer.commit().await;
        // To read something again that is gone takes nothing back.
        let queue = &consumer.queues()[0];
        assert!(consumer.seek(queue, 0));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(consumer.committed(queue).await.unwrap(), Some(12));
    }
    consumer.shutdown().await;
    client.shutdown().await;
}
