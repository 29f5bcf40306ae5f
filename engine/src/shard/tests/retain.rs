use std::time::Duration;

use futures_lite::future;
use ringmq_env::sim::{Crash, Sim, SimEnv};
use ringmq_env::{File, OpenOptions};
use ringmq_protocol::names::topics;

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn policy() -> RetentionPolicy {
    RetentionPolicy {
        reserved_ms: 72 * HOUR_MS,
        delete_hours: (0..24).collect(),
        max_bytes: 0,
        max_used_percent: 75,
        force_percent: 85,
    }
}

fn options() -> ShardOptions {
    let watermark = ShardOptions { disk_watermark_percent: 90, ..shard_options(Path::new("/store"), true) };
    ShardOptions { segment_size: 64 << 10, max_record_size: 20_000, ..watermark }
}

/// A shard with several segments.
async fn filled(env: &SimEnv, messages: u32) -> Shard<SimEnv> {
    let shard = Shard::open(env.clone(), options()).await.unwrap();
    append_some(&shard, messages).await;
    shard
}

async fn append_some(shard: &Shard<SimEnv>, messages: u32) {
    for number in 0..messages {
        let topic = if number % 2 == 0 { "T" } else { "U" };
        let end = send(shard, topic, 0, &[number as u8; 3000]).end;
        committed(shard, end).await;
    }
}

/// Appends a message that waits.
async fn append_waiting(shard: &Shard<SimEnv>) {
    let waits = message(topics::TIMER_TOPIC, 0, b"later", &[b"RINGMQ_DUE\x015\x02"]);
    let end = shard.append(&[waits]).unwrap().end;
    committed(shard, end).await;
}

/// Settles the first message that is due.
async fn settle_first(shard: &Shard<SimEnv>) {
    let due = shard.due(PendingKind::Delayed, 5, 2).await.unwrap();
    let end = shard.append_settling(&message("T", 0, b"now", &[]), &due[0]).unwrap().end;
    committed(shard, end).await;
}

async fn retain(
    shard: &Shard<SimEnv>,
    policy: &RetentionPolicy,
    topics: &[TopicRetention],
) -> Vec<DeleteReason> {
    let mut reasons = Vec::new();
    loop {
        let retained = shard.retain_oldest(policy, topics).await.unwrap();
        let Some(reason) = retained.reason else { break };
        assert!(retained.segments > 0 && retained.deleted > 0);
        reasons.extend(vec![reason; retained.segments]);
    }
    shard.retain_topics(policy, topics).await.unwrap();
    reasons
}

fn range(shard: &Shard<SimEnv>, topic: &str) -> (i64, i64) {
    let range = shard.queue_range(topic, QueueId(0)).unwrap();
    (range.min.0, range.max.0)
}

#[test]
fn messages_go_by_segments_once_all_in_one_have_expired() {
    let sim = Sim::new(31);
    sim.set_time_limit(Duration::from_secs(60));
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 100).await;
        assert_eq!(retain(&shard, &policy(), &[]).await, []);
        sim.jump_wall_clock("a", 73 * HOUR_MS);
        let night = RetentionPolicy { delete_hours: Vec::new(), ..policy() };
        assert_eq!(retain(&shard, &night, &[]).await, [], "not in these hours");
        append_some(&shard, 4).await;
        let reasons = retain(&shard, &policy(), &[]).await;
        assert!(
            reasons.len() >= 3 && reasons.iter().all(|reason| *reason == DeleteReason::Expired),
            "{reasons:?}"
        );
        let (min, max) = range(&shard, "T");
        assert!(min > 30 && max == 52, "{min} {max}");
        let read = shard.read(&request("T", 0, 0)).await.unwrap();
        assert_eq!((read.status, read.next_offset.0), (ReadStatus::OffsetTooSmall, min));
        assert_eq!(whole_queue(&shard, "T", 0).await.len() as i64, max - min);
        shard.close().await;
        let shard = Shard::open(env, options()).await.unwrap();
        assert_eq!((range(&shard, "T"), shard.damage()), ((min, max), vec![]), "deleted is not damaged");
        shard.close().await;
    });
}

#[test]
fn a_topic_may_keep_its_messages_for_less_time_or_more() {
    let sim = Sim::new(32);
    sim.run(async {
        let shard = filled(&sim.node("a"), 100).await;
        let keeps = |hours| TopicRetention { topic: "T".into(), queues: 1, reserved_ms: hours * HOUR_MS };
        sim.jump_wall_clock("a", 2 * HOUR_MS);
        append_some(&shard, 2).await;
        assert_eq!(retain(&shard, &policy(), &[keeps(1)]).await, []);
        assert_eq!(
            (range(&shard, "T"), range(&shard, "U")),
            ((50, 51), (0, 51)),
            "less time: its offsets go up"
        );
        assert_eq!(whole_queue(&shard, "T", 0).await.len(), 1);
        sim.jump_wall_clock("a", 80 * HOUR_MS);
        append_some(&shard, 2).await;
        assert_eq!(retain(&shard, &policy(), &[keeps(200)]).await, [], "more time: the segments stay");
        assert!(!retain(&shard, &policy(), &[]).await.is_empty());
        shard.close().await;
    });
}

#[test]
fn too_long_a_log_and_a_full_disk_take_the_oldest_whatever_their_age() {
    let sim = Sim::new(33);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 200).await;
        let small = RetentionPolicy { max_bytes: 300 << 10, ..policy() };
        let reasons = retain(&shard, &small, &[]).await;
        assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == DeleteReason::TooMuch));
        let space = env.disk_space(Path::new("/store")).await.unwrap();
        // What is kept for the next segments goes first.
        let spares = names(&env, ".spare").await.len() as u64 * (64 << 10);
        let used = space.total - space.available - spares;
        sim.set_quota("a", Some(used * 100 / 93));
        env.sleep(Duration::from_secs(2)).await;
        // The first append has the disk looked at.
        while shard.append(&[message("T", 0, b"x", &[])]).is_ok() {
            env.sleep(Duration::from_millis(10)).await;
        }
        let never = RetentionPolicy { force_percent: 100, ..policy() };
        assert_eq!(retain(&shard, &never, &[]).await, []);
        let reasons = retain(&shard, &policy(), &[]).await;
        assert!(
            !reasons.is_empty() && reasons.iter().all(|reason| *reason == DeleteReason::DiskFull),
            "{reasons:?}"
        );
        let end = send(&shard, "T", 0, b"there is room again").end;
        while shard.next_commit().await.unwrap().committed < end {}
        shard.close().await;
    });
}

/// A topic that keeps its messages for less time lets them go while the index has them in memory alone.
#[test]
fn what_a_topic_keeps_no_more_still_counts_after_a_start() {
    let sim = Sim::new(34);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 20).await;
        let short = TopicRetention { topic: "T".into(), queues: 1, reserved_ms: HOUR_MS };
        sim.jump_wall_clock("a", 2 * HOUR_MS);
        retain(&shard, &policy(), std::slice::from_ref(&short)).await;
        assert_eq!(range(&shard, "T"), (10, 10));
        for boundary in [Boundary::Lower, Boundary::Upper] {
            let found = shard.offset_by_time("T", QueueId(0), 0, boundary).await.unwrap();
            assert_eq!(
                found,
                QueueOffset(10),
                "a consumer that goes there must find itself where the queue begins"
            );
        }
        assert!(shard.checkpoint().await);
        append_some(&shard, 4).await;
        retain(&shard, &policy(), &[short]).await;
        assert_eq!(range(&shard, "T"), (10, 12));
        shard.close().await;
        let shard = Shard::open(env, options()).await.unwrap();
        assert_eq!(range(&shard, "T"), (0, 12), "until it is asked for again");
        assert_eq!(whole_queue(&shard, "T", 0).await.len(), 12);
        assert_eq!(send(&shard, "T", 0, b"next").first_queue_offset.0, 12);
        shard.close().await;
    });
}

/// With ASYNC_FLUSH the tail journal may know less to be on the device than retention has deleted since.
#[test]
fn the_log_ends_where_it_did_although_what_was_known_of_it_is_deleted() {
    let sim = Sim::new(35);
    sim.run(async {
        let env = sim.node("a");
        let lazy = || ShardOptions { sync_flush: false, flush_interval_ms: 1 << 30, ..options() };
        let shard = Shard::open(env.clone(), lazy()).await.unwrap();
        append_some(&shard, 100).await;
        assert!(shard.checkpoint().await, "all is flushed now, and no slot of the journal says so");
        let little = RetentionPolicy { max_bytes: 100 << 10, ..policy() };
        assert!(retain(&shard, &little, &[]).await.len() > 2);
        let (before, end) = (range(&shard, "T"), shard.stats().log_committed);
        sim.crash("a", Crash::Process);
        let shard = Shard::open(sim.node("a"), lazy()).await.unwrap();
        assert_eq!((range(&shard, "T"), shard.stats().log_committed, shard.damage()), (before, end, vec![]));
        shard.close().await;
    });
}

/// A power failure keeps any of the segments whose deletion had begun: the one with a record, and not the one with what
/// settled it. Without a table the log is scanned for what waits.
#[test]
fn what_is_left_of_deleted_segments_does_not_wait_again() {
    let sim = Sim::new(37);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 2).await;
        append_waiting(&shard).await;
        append_some(&shard, 30).await;
        settle_first(&shard).await;
        append_some(&shard, 100).await;
        let log = Path::new("/store/log");
        let first = env.read_dir(log).await.unwrap().into_iter().map(|file| file.name).min().unwrap();
        let file = env.open(&log.join(&first), OpenOptions::default()).await.unwrap();
        let bytes = file.read_at(0, file.size().await.unwrap() as usize).await.unwrap();
        let little = RetentionPolicy { max_bytes: 100 << 10, ..policy() };
        assert!(retain(&shard, &little, &[]).await.len() > 1);

        sim.crash("a", Crash::Process);
        let env = sim.node("a");
        let options_of_new = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = env.open(&log.join(&first), options_of_new).await.unwrap();
        file.write_at(bytes, 0).await.unwrap();
        for kind in ["delayed", "half"] {
            env.remove_file(&Path::new("/store/pending").join(kind).join("state")).await.unwrap();
        }
        let shard = Shard::open(env, options()).await.unwrap();
        assert_eq!(shard.pending_stats(PendingKind::Delayed).count, 0);
        shard.close().await;
    });
}

/// What settled a record may be deleted before the table of waiting records has been saved again.
#[test]
fn what_was_settled_and_deleted_does_not_wait_again() {
    let sim = Sim::new(36);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 2).await;
        append_waiting(&shard).await;
        assert!(shard.checkpoint().await, "the table has it");
        settle_first(&shard).await;
        append_some(&shard, 100).await;
        let little = RetentionPolicy { max_bytes: 100 << 10, ..policy() };
        assert!(!retain(&shard, &little, &[]).await.is_empty());
        sim.crash("a", Crash::Process);
        let shard = Shard::open(sim.node("a"), options()).await.unwrap();
        assert_eq!(shard.pending_stats(PendingKind::Delayed).count, 0);
        shard.close().await;
    });
}

async fn names(env: &SimEnv, suffix: &str) -> Vec<String> {
    let files = env.read_dir(Path::new("/store/log")).await.unwrap();
    files.into_iter().map(|file| file.name).filter(|name| name.ends_with(suffix)).collect()
}

#[test]
fn expired_segments_are_used_again_also_after_a_start() {
    let sim = Sim::new(38);
    sim.run(async {
        let mut env = sim.node("a");
        let little = RetentionPolicy { max_bytes: 200 << 10, ..policy() };
        let mut shard = filled(&env, 200).await;
        for life in 0..3 {
            retain(&shard, &little, &[]).await;
            assert_eq!(names(&env, ".spare").await.len(), 4, "no more are kept");
            append_some(&shard, 200).await;
            let stats = shard.stats();
            assert!(stats.segments_reused >= 4, "{life}: {stats:?}");
            assert!(stats.segments_made > stats.segments_reused, "there were too few");
            let (min, max) = range(&shard, "T");
            assert!(min > 0 && max == (life + 2) * 100);
            retain(&shard, &little, &[]).await;
            match life {
                0 => shard.close().await,
                _ => sim.crash("a", Crash::Process),
            }
            env = sim.node("a");
            shard = Shard::open(env.clone(), options()).await.unwrap();
            assert_eq!(shard.damage(), vec![]);
            let (min, max) = range(&shard, "T");
            assert_eq!(whole_queue(&shard, "T", 0).await.len() as i64, max - min);
        }
        shard.close().await;
    });
}

#[test]
fn spares_go_before_any_message_does() {
    // Above what takes messages whatever their age, and above what refuses sends.
    [88, 92].into_iter().for_each(spares_go_first);
}

fn spares_go_first(percent: u64) {
    let sim = Sim::new(39);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 200).await;
        let small = RetentionPolicy { max_bytes: 300 << 10, ..policy() };
        retain(&shard, &small, &[]).await;
        let segments = names(&env, ".log").await;
        assert_eq!(names(&env, ".spare").await.len(), 4);
        let space = env.disk_space(Path::new("/store")).await.unwrap();
        // Below the mark without the spares, and above with them.
        sim.set_quota("a", Some((space.total - space.available) * 100 / percent));
        assert_eq!(retain(&shard, &policy(), &[]).await, [], "{percent} %");
        assert_eq!((names(&env, ".spare").await, names(&env, ".log").await), (vec![], segments));
        shard.close().await;
    });
}

#[test]
fn a_spare_is_not_used_while_it_is_read() {
    let sim = Sim::new(40);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 100).await;
        let log = shard.0.log.clone();
        let position = log.first_record().unwrap();
        let there = log.read_cold(position, 1000).await.unwrap();
        let mut read = Box::pin(log.read_cold(position, 1000));
        assert!(future::poll_once(&mut read).await.is_none(), "it is under way");
        let little = RetentionPolicy { max_bytes: 200 << 10, ..policy() };
        retain(&shard, &little, &[]).await;
        assert!(!names(&env, ".spare").await.is_empty());
        append_some(&shard, 300).await;
        assert_eq!(names(&env, ".spare").await.len(), 1, "all are used but one");
        assert_eq!(read.await.unwrap()[..], there[..]);
        append_some(&shard, 100).await;
        assert_eq!(names(&env, ".spare").await, Vec::<String>::new());
        shard.close().await;
    });
}

/// Behind the end of such a log lie the headers of old frames, which recovery must not read one by one.
#[test]
fn a_log_that_ends_in_a_reused_segment_is_opened_at_once() {
    let sim = Sim::new(41);
    sim.run(async {
        let env = sim.node("a");
        // Larger than what is read at once.
        let large = || ShardOptions { segment_size: 3 << 20, ..options() };
        let shard = Shard::open(env.clone(), large()).await.unwrap();
        let little = RetentionPolicy { max_bytes: 1 << 20, ..policy() };
        while shard.stats().segments_reused < 2 {
            append_some(&shard, 50).await;
            retain(&shard, &little, &[]).await;
        }
        shard.close().await;
        let begun = env.now();
        let shard = Shard::open(env.clone(), large()).await.unwrap();
        let took = env.now().since(begun);
        assert!(took < Duration::from_millis(30), "{took:?}");
        shard.close().await;
    });
}

#[test]
fn what_is_too_old_makes_room_before_what_is_not() {
    let sim = Sim::new(42);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 150).await;
        sim.jump_wall_clock("a", 73 * HOUR_MS);
        append_some(&shard, 150).await;
        let space = env.disk_space(Path::new("/store")).await.unwrap();
        // Above what takes messages whatever their age until the old ones are gone.
        sim.set_quota("a", Some((space.total - space.available) * 100 / 87));
        let reasons = retain(&shard, &policy(), &[]).await;
        assert!(
            reasons.len() >= 3 && reasons.iter().all(|reason| *reason == DeleteReason::Expired),
            "{reasons:?}"
        );
        shard.close().await;
    });
}

#[test]
fn a_spare_that_somebody_removed_is_not_missed() {
    let sim = Sim::new(43);
    sim.run(async {
        let env = sim.node("a");
        let shard = filled(&env, 200).await;
        retain(&shard, &RetentionPolicy { max_bytes: 200 << 10, ..policy() }, &[]).await;
        for name in names(&env, ".spare").await {
            env.remove_file(&Path::new("/store/log").join(name)).await.unwrap();
        }
        append_some(&shard, 200).await;
        let stats = shard.stats();
        assert_eq!((stats.segments_reused, range(&shard, "T").1), (0, 200), "{stats:?}");
        shard.close().await;
    });
}
