//! Records with several index entries: of messages that are dispatched to LMQs, and inner batches.

use ringmq_protocol::record::sys_flag;

use super::*;

fn with_lmqs(dir: &Path) -> ShardOptions {
    ShardOptions { lmq_limit: Some(1000), ..shard_options(dir, true) }
}

fn dispatch(shard: &Shard<GlommioEnv>, body: &[u8], lmqs: &str) -> Appended {
    let list = format!("INNER_MULTI_DISPATCH\u{1}{lmqs}\u{2}");
    shard.append(&[message("T", 1, body, &[list.as_bytes(), b"k\x01v"])]).unwrap()
}

/// The bodies that are read from a queue, and the offset behind them.
async fn read_all(shard: &Shard<GlommioEnv>, topic: &str, from: i64) -> (Vec<Vec<u8>>, i64) {
    let (mut found, mut next) = (Vec::new(), from);
    while shard.queue_range(topic, QueueId(0)).is_some_and(|range| next < range.max.0) {
        let read = shard.read(&ReadRequest { max_messages: 8, ..request(topic, 0, next) }).await.unwrap();
        found.extend(bodies(&read.parts));
        assert!(read.next_offset.0 > next);
        next = read.next_offset.0;
    }
    (found, next)
}

/// Opens the shard three times: with its index, with none, and once more.
async fn reopen(env: &GlommioEnv, dir: &Path, time: usize) -> Shard<GlommioEnv> {
    if time == 1 {
        for entry in env.read_dir(&dir.join("index")).await.unwrap() {
            if entry.name.ends_with(".run") {
                env.remove_file(&dir.join("index").join(entry.name)).await.unwrap();
            }
        }
    }
    Shard::open(env.clone(), with_lmqs(dir)).await.unwrap()
}

#[test]
fn lmqs_are_read_from_memory_from_runs_and_from_an_index_that_was_rebuilt() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env.clone(), with_lmqs(&dir)).await.unwrap();
        let mut end = LogPosition(0);
        for n in 0..60_u8 {
            let lmqs = format!("%LMQ%{},nothing,%LMQ%all", n % 3);
            end = dispatch(&shard, &[n], &lmqs).end;
        }
        let arrivals = committed(&shard, end).await;
        assert_eq!(arrivals.len(), 3 * 60, "its own queue and two LMQs are told of each");
        assert_eq!((shard.stats().messages_appended, shard.stats().lmqs), (60, 4));
        let all: Vec<Vec<u8>> = (0..60).map(|n| vec![n]).collect();
        let third: Vec<Vec<u8>> = (0..60).filter(|n| n % 3 == 1).map(|n| vec![n]).collect();
        assert_eq!(read_all(&shard, "%LMQ%all", 0).await, (all.clone(), 60));
        shard.close().await;
        for time in 0..3 {
            let shard = reopen(&env, &dir, time).await;
            assert_eq!(read_all(&shard, "%LMQ%all", 0).await, (all.clone(), 60), "opening {time}");
            assert_eq!(read_all(&shard, "%LMQ%1", 0).await, (third.clone(), 20));
            assert_eq!(whole_queue(&shard, "T", 1).await, all);
            assert!(shard.queue_range("nothing", QueueId(0)).is_none());
            shard.close().await;
        }
    });
}

#[test]
fn a_limit_holds_for_new_lmqs_and_what_may_not_be_dispatched_is_not() {
    on_disk(|env, dir| async move {
        let options = ShardOptions { lmq_limit: Some(2), ..with_lmqs(&dir) };
        let shard = Shard::open(env, options).await.unwrap();
        dispatch(&shard, b"1", "%LMQ%a,%LMQ%b");
        let list = [&b"INNER_MULTI_DISPATCH\x01%LMQ%b,%LMQ%c"[..]];
        let refused = shard.append(&[message("T", 1, b"2", &list)]);
        assert_eq!(refused, Err(AppendError::TooManyLmqs { known: 2, limit: 2 }));
        let mut end = dispatch(&shard, b"3", "%LMQ%b,%LMQ%b,%LMQ%/,plain").end;
        for topic in ["%RETRY%g", "%DLQ%g", "SCHEDULE_TOPIC_XXXX", "rmq_sys_x", "RMQ_SYS_TRANS_HALF_TOPIC"] {
            end = shard.append(&[message(topic, 0, b"own", &list)]).unwrap().end;
        }
        committed(&shard, end).await;
        assert_eq!(read_all(&shard, "%LMQ%a", 0).await.0, [b"1"]);
        assert_eq!(read_all(&shard, "%LMQ%b", 0).await.0, [b"1", b"3"]);
        shard.close().await;
    });
}

#[test]
fn an_inner_batch_is_found_at_each_of_its_offsets_and_read_once() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env.clone(), with_lmqs(&dir)).await.unwrap();
        let batch = |body: &'static [u8], count: u32| {
            let property = format!("INNER_NUM\u{1}{count}\u{2}");
            let parts = [property.as_bytes()];
            let inner = NewMessage { sys_flag: sys_flag::INNER_BATCH, ..message("B", 0, body, &parts) };
            shard.append(&[inner]).unwrap()
        };
        assert_eq!(batch(b"three", 3).first_queue_offset.0, 0);
        assert_eq!(batch(b"hundred", 100).first_queue_offset.0, 3);
        let last = shard.append(&[message("B", 0, b"one", &[])]).unwrap();
        assert_eq!(last.first_queue_offset.0, 103);
        let arrivals = committed(&shard, last.end).await;
        assert_eq!(arrivals.iter().map(|a| a.queue_offset.0).collect::<Vec<_>>(), [2, 102, 103]);
        let everything: [&[u8]; 3] = [b"three", b"hundred", b"one"];
        assert_eq!(read_all(&shard, "B", 0).await, (everything.map(<[u8]>::to_vec).to_vec(), 104));
        shard.close().await;
        for time in 0..3 {
            let shard = reopen(&env, &dir, time).await;
            for (from, first) in [(0, 0), (2, 0), (3, 1), (50, 1), (102, 1), (103, 2)] {
                let wanted = everything[first..].iter().map(|body| body.to_vec()).collect();
                assert_eq!(read_all(&shard, "B", from).await, (wanted, 104), "from {from}, opening {time}");
            }
            let nothing = |_: &[u8]| false;
            let filter = RecordFilter { matches: &nothing, max_scanned: 800 };
            let none = ReadRequest { record_filter: Some(filter), ..request("B", 0, 0) };
            let read = shard.read(&none).await.unwrap();
            assert_eq!((read.messages, read.next_offset.0), (0, 104));
            shard.close().await;
        }
    });
}
