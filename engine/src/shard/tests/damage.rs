//! Damage to every kind of file: the shard opens, serves what is whole and nothing else, and gives no offset twice.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::task::Poll;

use ringmq_protocol::names::topics;

use super::*;
use crate::inspect::inspect_shard;

const QUEUES: u32 = 3;
/// Waiting records of each kind that are stored at a time.
const WAITING: i64 = 20;
const WAITS: &[u8] = b"it waits";
const KINDS: [PendingKind; 2] = [PendingKind::Delayed, PendingKind::Half];
/// Stores that are damaged at random; a store of 1000 messages each.
const ROUNDS: u32 = 6;

/// Acknowledged: body by queue and offset.
type Acknowledged = BTreeMap<(u32, i64), Vec<u8>>;

/// A small store with several segments, index runs, and runs of waiting records.
async fn filled<E: Env>(env: &E, dir: &Path, acknowledged: &mut Acknowledged) {
    let shard = Shard::open(env.clone(), options(dir)).await.unwrap();
    append_some(&shard, acknowledged, 400).await;
    append_waiting(&shard).await;
    shard.checkpoint().await;
    append_some(&shard, acknowledged, 400).await;
    append_waiting(&shard).await;
    shard.checkpoint().await;
    append_some(&shard, acknowledged, 200).await;
    shard.close().await;
}

/// Stores some records that wait, one of which is settled.
async fn append_waiting<E: Env>(shard: &Shard<E>) {
    for topic in [topics::TIMER_TOPIC, topics::TRANS_HALF_TOPIC] {
        for due_ms in 1000..1000 + WAITING {
            let due = format!("RINGMQ_DUE\u{1}{due_ms}\u{2}");
            let appended = shard.append(&[message(topic, 0, WAITS, &[due.as_bytes()])]).unwrap();
            committed(shard, appended.end).await;
        }
    }
    for kind in KINDS {
        let due = shard.due(kind, 1000, 1).await.unwrap();
        let settled = shard.append_settling(&message("outcomes", 0, b"outcome", &[]), &due[0]).unwrap();
        committed(shard, settled.end).await;
    }
}

/// Whatever is due is a record that was stored to wait, and is what was stored, or is not to be had.
async fn check_waiting<E: Env>(shard: &Shard<E>) {
    for kind in KINDS {
        for record in shard.due(kind, i64::MAX - 1, usize::MAX).await.unwrap_or_default() {
            if let Ok(Some(bytes)) = shard.read_pending(&record, false).await {
                assert_eq!(PendingRecord::read(record.position, &bytes), Some(record));
                assert_eq!(RecordView::decode(&bytes).unwrap().body, WAITS);
            }
        }
    }
}

fn options(dir: &Path) -> ShardOptions {
    ShardOptions { segment_size: 64 << 10, max_record_size: 20_000, ..shard_options(dir, true) }
}

async fn append_some<E: Env>(shard: &Shard<E>, acknowledged: &mut Acknowledged, count: u32) {
    let mut last = LogPosition(0);
    for number in 0..count {
        let queue = number % QUEUES;
        let body = format!("queue {queue} message {}", acknowledged.len()).into_bytes();
        let body = body.repeat(1 + number as usize % 7);
        let appended = send(shard, "T", queue, &body);
        let before = acknowledged.insert((queue, appended.first_queue_offset.0), body);
        assert_eq!(
            before, None,
            "offset {} of queue {queue} was given before",
            appended.first_queue_offset.0
        );
        last = appended.end;
        if number % 16 == 0 {
            committed(shard, last).await;
        }
    }
    committed(shard, last).await;
}

/// Reads every queue, over what is missing, and checks that each message is one that was acknowledged there.
async fn check<E: Env>(shard: &Shard<E>, acknowledged: &Acknowledged) -> usize {
    let mut found = 0;
    for queue in 0..QUEUES {
        let Some(range) = shard.queue_range("T", QueueId(queue)) else { continue };
        let mut offset = range.min.0;
        while offset < range.max.0 {
            let Ok(read) = shard.read(&request("T", queue, offset)).await else {
                offset += 1;
                continue;
            };
            for view in read.parts.iter().flat_map(|part| records(part)).map(Result::unwrap) {
                let wanted = acknowledged.get(&(queue, view.queue_offset));
                assert_eq!(wanted.map(Vec::as_slice), Some(view.body), "queue {queue} {}", view.queue_offset);
                found += 1;
            }
            assert!(read.next_offset.0 > offset, "a read goes on");
            offset = read.next_offset.0;
        }
    }
    found
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn runs(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("index"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "run"))
        .collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

fn change(path: &Path, at: usize, byte: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= byte;
    std::fs::write(path, bytes).unwrap();
}

/// Damages a filled store, opens it twice, and returns how many messages were there each time, and what was told.
async fn after<E: Env>(env: E, dir: &Path, damage: impl FnOnce(&Path)) -> (usize, usize, Vec<Damage>) {
    let mut acknowledged = Acknowledged::new();
    filled(&env, dir, &mut acknowledged).await;
    damage(dir);
    let shard = Shard::open(env.clone(), options(dir)).await.unwrap();
    let first = check(&shard, &acknowledged).await;
    check_waiting(&shard).await;
    let told = shard.damage();
    append_some(&shard, &mut acknowledged, 30).await;
    shard.close().await;
    let shard = Shard::open(env, options(dir)).await.unwrap();
    let second = check(&shard, &acknowledged).await;
    assert!(second >= first + 30, "{second} messages, {first} before 30 more");
    shard.close().await;
    (first, second, told)
}

#[test]
fn a_lost_index_is_rebuilt_and_nothing_is_lost() {
    on_disk(|env, dir| async move {
        let (first, _, told) = after(env, &dir, |dir| {
            runs(dir).iter().for_each(|run| std::fs::remove_file(run).unwrap());
        })
        .await;
        assert_eq!((first, told), (1000, vec![]));
    });
}

#[test]
fn a_damaged_run_in_the_middle_is_rebuilt_and_the_newer_ones_are_kept() {
    on_disk(|env, dir| async move {
        let mut acknowledged = Acknowledged::new();
        filled(&env, &dir, &mut acknowledged).await;
        let before = runs(&dir);
        assert_eq!(before.len(), 3);
        change(&before[1], 20, 1);
        let kept = std::fs::read(&before[2]).unwrap();
        let shard = Shard::open(env, options(&dir)).await.unwrap();
        assert_eq!(runs(&dir), before, "too few to be merged");
        assert!(kept == std::fs::read(&before[2]).unwrap());
        let told = shard.damage();
        assert_eq!((check(&shard, &acknowledged).await, told.len(), told[0].len), (1000, 1, 0));
        shard.close().await;
    });
}

/// A start that rebuilds a run over a stretch of the log that is lost ends right after it has put the run in place.
#[test]
fn a_start_that_was_cut_short_forgets_no_loss() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        let kept = send(&shard, "alone", 0, b"before the stretch that will be lost").end;
        committed(&shard, kept).await;
        let lost = send(&shard, "alone", 0, b"in it").first_queue_offset;
        for _ in 0..2 {
            append_some(&shard, &mut Acknowledged::new(), 400).await;
            shard.checkpoint().await;
        }
        shard.close().await;
        let (rebuilt, segment) = (runs(&dir).remove(0), segments(&dir).remove(0));
        std::fs::remove_file(&rebuilt).unwrap();
        let len = std::fs::metadata(&segment).unwrap().len() - kept.0;
        let segment = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
        segment.write_all_at(&vec![0; len as usize], kept.0).unwrap();

        is_refused_twice(&env, &dir).await;
        assert!(!rebuilt.exists());

        let mut opening = Box::pin(Shard::open(env.clone(), options(&dir)));
        let in_place = std::future::poll_fn(|cx| {
            let is_ready = opening.as_mut().poll(cx).is_ready();
            if is_ready || rebuilt.exists() { Poll::Ready(is_ready) } else { Poll::Pending }
        });
        assert!(!in_place.await, "it was not cut short");
        drop(opening);
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        let next = send(&shard, "alone", 0, b"the next").first_queue_offset;
        assert!(next.0 > lost.0 + 1, "an offset was given twice, or nothing was lost");
        shard.close().await;
    });
}

/// Whoever restores a file because a strict start was refused must find the store as it was.
async fn is_refused_unchanged<E: Env>(env: &E, dir: &Path) {
    let read = || -> Vec<_> { files(dir).iter().map(|path| std::fs::read(path).unwrap()).collect() };
    let before = read();
    is_refused_twice(env, dir).await;
    assert!(before == read(), "a refused start has changed the store");
}

async fn is_refused_twice<E: Env>(env: &E, dir: &Path) {
    for _ in 0..2 {
        let opened = Shard::open(env.clone(), ShardOptions { strict: true, ..options(dir) }).await;
        assert!(matches!(opened.err(), Some(OpenError::Strict { .. })));
    }
}

/// A queue had nothing outside of the first segment: the run of that says where it goes on.
#[test]
fn a_missing_first_segment_is_told_and_its_queues_go_on() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        send(&shard, "alone", 0, b"one");
        let last = send(&shard, "alone", 0, b"another");
        committed(&shard, last.end).await;
        shard.checkpoint().await;
        append_some(&shard, &mut Acknowledged::new(), 400).await;
        shard.close().await;
        let (first, elsewhere) = (segments(&dir).remove(0), dir.join("elsewhere"));
        std::fs::rename(&first, &elsewhere).unwrap();
        is_refused_unchanged(&env, &dir).await;
        let ShardOptions { id, store_id, .. } = options(&dir);
        let found = inspect_shard(&env, &dir, id, store_id).await.unwrap();
        assert!(found.damage.iter().any(|damage| damage.what.contains("oldest segments are missing")));
        std::fs::rename(&elsewhere, &first).unwrap();
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        assert_eq!((shard.damage(), whole_queue(&shard, "alone", 0).await.len()), (vec![], 2));
        shard.close().await;

        std::fs::remove_file(&first).unwrap();
        let mut given = last.first_queue_offset;
        for is_first in [true, false] {
            let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
            let told = shard.damage();
            assert!(told.iter().all(|damage| damage.what.contains("oldest segments are missing")));
            assert_eq!(
                (told.len(), told.iter().any(|damage| damage.len > 0)),
                (usize::from(is_first), is_first)
            );
            let range = shard.queue_range("alone", QueueId(0)).unwrap();
            assert!(range.min > last.first_queue_offset, "what is lost is not there");
            let next = send(&shard, "alone", 0, b"next");
            assert!(next.first_queue_offset > given, "an offset was given twice");
            given = next.first_queue_offset;
            committed(&shard, next.end).await;
            shard.close().await;
        }
    });
}

/// A store that was put back without its log: the index alone says where the queues go on.
#[test]
fn a_log_of_which_nothing_is_left_is_told_and_its_queues_go_on() {
    on_disk(|env, dir| async move {
        let mut acknowledged = Acknowledged::new();
        filled(&env, &dir, &mut acknowledged).await;
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        shard.checkpoint().await;
        shard.close().await;
        let ends = (0..QUEUES).map(|queue| shard.queue_range("T", QueueId(queue)).unwrap().max);
        let ends: Vec<_> = ends.collect();
        drop(shard);
        segments(&dir).iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
        std::fs::remove_file(dir.join("tail")).unwrap();
        let ShardOptions { id, store_id, .. } = options(&dir);
        assert_ne!(inspect_shard(&env, &dir, id, store_id).await.unwrap().damage, []);
        is_refused_unchanged(&env, &dir).await;
        for next in 0..3 {
            let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
            assert_eq!(shard.damage().iter().any(|damage| damage.len > 0), next == 0);
            for (queue, end) in (0..).zip(&ends) {
                let sent = send(&shard, "T", queue, b"next");
                assert!(sent.first_queue_offset.0 >= end.0 + next, "an offset was given twice");
                committed(&shard, sent.end).await;
            }
            shard.close().await;
        }
    });
}

#[test]
fn a_lost_tail_journal_costs_what_it_alone_had() {
    on_disk(|env, dir| async move {
        let (first, _, told) = after(env, &dir, |dir| {
            std::fs::remove_file(dir.join("tail")).unwrap();
        })
        .await;
        // The index says what was there; the last bytes, 8 KiB at most, are gone.
        assert!((940..1000).contains(&first), "{first}");
        assert!(!told.is_empty());
    });
}

#[test]
fn a_damaged_segment_header_costs_nothing_and_is_mended() {
    on_disk(|env, dir| async move {
        let (first, _, told) = after(env.clone(), &dir, |dir| {
            let all = segments(dir);
            change(&all[1], 17, 1);
            change(&all[all.len() - 1], 17, 1);
        })
        .await;
        assert_eq!((first, told.len()), (1000, 2));
        let shard = Shard::open(env, options(&dir)).await.unwrap();
        assert_eq!(shard.damage(), []);
        shard.close().await;
    });
}

#[test]
fn a_missing_segment_costs_its_own_messages() {
    on_disk(|env, dir| async move {
        let (first, _, told) = after(env, &dir, |dir| {
            std::fs::remove_file(&segments(dir)[2]).unwrap();
        })
        .await;
        assert!(first > 500 && first < 1000, "{first}");
        assert!(told[0].what.contains("missing") && told[0].len == 64 << 10, "{told:?}");
    });
}

#[test]
fn a_segment_that_is_cut_off_costs_what_is_cut() {
    on_disk(|env, dir| async move {
        let (first, _, told) = after(env, &dir, |dir| {
            let all = segments(dir);
            let (middle, last) = (&all[1], &all[all.len() - 2]);
            for (path, len) in [(middle, 10_000), (last, 8192)] {
                std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
            }
        })
        .await;
        assert!(first > 300 && first < 1000, "{first}");
        assert!(told.iter().any(|damage| damage.offset == 10_000), "{told:?}");
    });
}

/// The journal has the partial sector of a log whose last segment is shorter than that.
#[test]
fn a_log_goes_on_in_a_segment_that_is_cut_off() {
    for len in [0, 4096, 5000, 8192] {
        on_disk(move |env, dir| async move {
            after(env, &dir, |dir| {
                for path in segments(dir).iter().rev().take(2) {
                    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
                }
            })
            .await;
        });
    }
}

/// A deletion whose mark names a place behind what damage left of the log takes nothing that is stored later.
#[test]
fn a_deletion_behind_the_end_of_the_log_takes_nothing_new() {
    on_disk(|env, dir| async move {
        let open = || Shard::open(env.clone(), options(&dir));
        let log = |dir: &Path| {
            let is_log =
                |path: &PathBuf| path.ends_with("tail") || path.extension().is_some_and(|e| e == "log");
            files(dir).into_iter().filter(is_log)
        };
        let shard = open().await.unwrap();
        committed(&shard, send(&shard, "T", 0, b"first").end).await;
        shard.close().await;
        let old: Vec<_> = log(&dir).map(|path| (std::fs::read(&path).unwrap(), path)).collect();
        let shard = open().await.unwrap();
        for _ in 0..9 {
            committed(&shard, send(&shard, "U", 0, &[1; 900]).end).await;
        }
        shard.delete_topic("U").await.unwrap();
        shard.close().await;
        old.into_iter().for_each(|(bytes, path)| std::fs::write(path, bytes).unwrap());
        for stored in 1..4 {
            let shard = open().await.unwrap();
            committed(&shard, send(&shard, "U", 0, &[2; 900]).end).await;
            assert_eq!(whole_queue(&shard, "U", 0).await.len(), stored);
            shard.close().await;
        }
    });
}

#[test]
fn a_strict_start_of_a_whole_store_is_like_any_other() {
    on_disk(|env, dir| async move {
        let strict = ShardOptions { strict: true, ..options(&dir) };
        for expected in 0..4 {
            let shard = Shard::open(env.clone(), strict.clone()).await.unwrap();
            let range = shard.queue_range("T", QueueId(0));
            assert_eq!(
                (shard.damage(), range.map_or(0, |range| range.max.0)),
                (vec![], (expected - 2).max(0))
            );
            // Not in the first two lives, in which the log has no segment.
            if expected > 1 {
                committed(&shard, send(&shard, "T", 0, b"one").end).await;
            }
            shard.close().await;
        }
    });
}

#[test]
fn a_strict_start_is_refused_and_changes_nothing() {
    on_disk(|env, dir| async move {
        let mut acknowledged = Acknowledged::new();
        filled(&env, &dir, &mut acknowledged).await;
        std::fs::remove_file(&segments(&dir)[1]).unwrap();
        is_refused_unchanged(&env, &dir).await;
        let strict = ShardOptions { strict: true, ..options(&dir) };
        let refused = Shard::open(env, strict).await.err().unwrap();
        assert!(matches!(refused, OpenError::Strict { count: 1, .. }), "{refused}");
    });
}

#[test]
fn a_strict_start_writes_no_damaged_table_anew() {
    on_disk(|env, dir| async move {
        filled(&env, &dir, &mut Acknowledged::new()).await;
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        for topic in ["the first", "the second", "the third"] {
            committed(&shard, send(&shard, topic, 0, b"deleted").end).await;
            shard.delete_topic(topic).await.unwrap();
            let offsets = shard.open_table("offsets", &mut |_, _| {}).await.unwrap();
            offsets.put(topic.as_bytes(), b"offset");
            offsets.flush().await.unwrap();
        }
        shard.close().await;
        let strict = || ShardOptions { strict: true, ..options(&dir) };
        let change_second = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            change(path, bytes.windows(10).position(|bytes| bytes == b"the second").unwrap(), 1);
        };

        let offsets = dir.join("offsets.a");
        let whole = std::fs::read(&offsets).unwrap();
        change_second(&offsets);
        is_refused_unchanged(&env, &dir).await;
        // What no start goes on without is not refused for being strict.
        std::fs::remove_file(&offsets).unwrap();
        let refused = Shard::open(env.clone(), strict()).await.err().unwrap();
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
        std::fs::write(&offsets, whole).unwrap();

        change_second(&dir.join("index/marks.a"));
        is_refused_unchanged(&env, &dir).await;
        let shard = Shard::open(env.clone(), options(&dir)).await.unwrap();
        assert_eq!(shard.damage().len(), 1);
        shard.close().await;
        Shard::open(env, strict()).await.unwrap().close().await;
    });
}

/// One random change to one random file.
fn damage_at_random<E: Env>(env: &E, dir: &Path) -> String {
    let all = files(dir);
    let path = &all[env.random() as usize % all.len()];
    let mut bytes = std::fs::read(path).unwrap();
    let at = env.random() as usize % bytes.len().max(1);
    let what = env.random() % 6;
    match what {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (env.random() % 8),
        1 => bytes[at..].iter_mut().take(4096).for_each(|byte| *byte = 0),
        2 => bytes.truncate(at),
        3 => bytes[at..].iter_mut().take(700).for_each(|byte| *byte = env.random() as u8),
        4 => bytes.extend((0..5000).map(|n| n as u8)),
        _ => {
            std::fs::remove_file(path).unwrap();
            return format!("{} removed", path.display());
        }
    }
    std::fs::write(path, bytes).unwrap();
    format!("{} damaged at {at}, kind {what}", path.display())
}

#[test]
fn random_damage_is_never_served_and_never_stops_the_shard() {
    on_disk(|env, dir| async move {
        for round in 0..ROUNDS {
            let dir = dir.join(round.to_string());
            let mut acknowledged = Acknowledged::new();
            filled(&env, &dir, &mut acknowledged).await;
            let mut story = Vec::new();
            for _ in 0..1 + env.random() % 3 {
                story.push(damage_at_random(&env, &dir));
                eprintln!("round {round}: {story:?}");
                let shard = match Shard::open(env.clone(), options(&dir)).await {
                    Ok(shard) => shard,
                    // Both files of a metadata log may be beyond recognition.
                    Err(OpenError::Damaged { path, .. }) if story.len() > 1 || path.ends_with("marks.a") => {
                        break;
                    }
                    Err(error) => panic!("{error}; {story:?}"),
                };
                check(&shard, &acknowledged).await;
                check_waiting(&shard).await;
                if (0..QUEUES).all(|queue| shard.queue_range("T", QueueId(queue)).is_some()) {
                    append_some(&shard, &mut acknowledged, 20).await;
                }
                shard.close().await;
            }
        }
    });
}

#[test]
fn the_inspector_finds_everything_and_changes_nothing() {
    on_disk(|env, dir| async move {
        filled(&env, &dir, &mut Acknowledged::new()).await;
        let bytes =
            |dir: &Path| files(dir).iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
        let found = crate::inspect_shard(&env, &dir, ShardId(3), 42).await.unwrap();
        assert_eq!((found.records, found.queues.len(), found.runs, found.damage), (1084, 6, 3, vec![]));
        change(&segments(&dir)[1], 30_000, 1);
        change(&runs(&dir)[0], 5000, 1);
        let before = bytes(&dir);
        let found = crate::inspect_shard(&env, &dir, ShardId(3), 42).await.unwrap();
        assert!(found.records < 1084 && found.damage.len() == 2, "{:?}", found.damage);
        assert!(bytes(&dir) == before);
    });
}
