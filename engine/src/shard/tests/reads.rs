use super::*;

#[test]
fn messages_are_read_back_from_memory_from_disk_and_after_reopening() {
    for sync_flush in [true, false] {
        on_disk(move |env, dir| async move {
            let shard = Shard::open(env.clone(), shard_options(&dir, sync_flush)).await.unwrap();
            let body = |n: usize| vec![n as u8; 500 + n % 4000];
            for n in 0..2000 {
                let appended = send(&shard, "T", (n % 3) as u32, &body(n));
                assert_eq!(appended.first_queue_offset.0, n as i64 / 3);
                if n % 100 == 99 {
                    let arrivals = committed(&shard, appended.end).await;
                    assert_eq!(arrivals.last().unwrap().queue_offset, appended.first_queue_offset);
                }
            }
            let wanted = |queue: usize| (0..2000).filter(|n| n % 3 == queue).map(body).collect::<Vec<_>>();
            for queue in 0..3 {
                assert_eq!(whole_queue(&shard, "T", queue as u32).await, wanted(queue));
            }
            assert!(shard.stats().messages_read_cold > 100, "the tail's memory does not hold all");
            shard.close().await;
            assert!(shard.next_commit().await.is_none());
            assert_eq!(shard.append(&[message("T", 0, b"", &[])]), Err(AppendError::Closed));

            let shard = Shard::open(env.clone(), shard_options(&dir, sync_flush)).await.unwrap();
            for queue in 0..3 {
                assert_eq!(whole_queue(&shard, "T", queue as u32).await, wanted(queue));
            }
            assert_eq!(send(&shard, "T", 1, b"next").first_queue_offset.0, 667);
            shard.close().await;
        });
    }
}

#[test]
fn a_batch_is_contiguous_and_its_end_acknowledges_all() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env, shard_options(&dir, true)).await.unwrap();
        let batch = [message("T", 0, b"a", &[]), message("T", 0, b"b", &[]), message("T", 0, b"c", &[])];
        let appended = shard.append(&batch).unwrap();
        assert_eq!((appended.first_queue_offset.0, appended.physical_offsets.len()), (0, 3));
        assert!(shard.read_hot(&request("T", 0, 0)).unwrap().messages == 0, "not committed yet");
        assert_eq!(committed(&shard, appended.end).await.len(), 3);
        let read = shard.read_hot(&request("T", 0, 0)).unwrap();
        assert_eq!((read.messages, read.parts.len()), (3, 1), "neighbours come as one part");
        assert_eq!(bodies(&read.parts), [b"a", b"b", b"c"]);
        for (n, physical) in appended.physical_offsets.iter().enumerate() {
            let record = shard.record_at(physical.position()).await.unwrap().unwrap();
            assert_eq!(RecordView::decode(&record).unwrap().queue_offset, n as i64);
        }
        shard.close().await;
    });
}

#[test]
fn the_statuses_are_those_of_rocketmq() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env, shard_options(&dir, true)).await.unwrap();
        let mut end = LogPosition(0);
        for n in 0..5u8 {
            let tags: &[u8] = if n == 3 { b"TAGS\x01b\x02" } else { b"TAGS\x01a" };
            end = shard.append(&[message("T", 0, &[n; 1000], &[tags])]).unwrap().end;
        }
        let status = |topic, offset| {
            let read = shard.read_hot(&request(topic, 0, offset)).unwrap();
            (read.status, read.next_offset.0)
        };
        assert_eq!(status("T", 0), (ReadStatus::NoMatchedLogicQueue, 0));
        committed(&shard, end).await;
        assert_eq!(status("T", 5), (ReadStatus::OffsetOverflowOne, 5));
        assert_eq!(status("T", 9), (ReadStatus::OffsetOverflowBadly, 5));
        assert_eq!(status("T", -1), (ReadStatus::OffsetTooSmall, 0));
        assert_eq!(status("other", 4), (ReadStatus::NoMatchedLogicQueue, 0));
        assert_eq!(status("T", 1), (ReadStatus::Found, 5));

        let tags_b = |code| code == 98;
        let filtered = |offset| ReadRequest { tag_filter: Some(&tags_b), ..request("T", 0, offset) };
        let read = shard.read_hot(&filtered(0)).unwrap();
        assert_eq!((read.messages, read.next_offset.0, bodies(&read.parts)), (1, 5, vec![vec![3; 1000]]));
        let read = shard.read_hot(&filtered(4)).unwrap();
        assert_eq!((read.status, read.next_offset.0), (ReadStatus::NoMatchedMessage, 5));
        let read = shard.read_hot(&ReadRequest { max_bytes: 2300, ..request("T", 0, 0) }).unwrap();
        assert_eq!((read.messages, read.next_offset.0), (2, 2));
        let read = shard.read(&ReadRequest { max_bytes: 1, ..request("T", 0, 4) }).await.unwrap();
        assert_eq!((read.messages, read.next_offset.0), (1, 5), "the first message always fits");
        shard.close().await;
    });
}

#[test]
fn keys_times_and_positions_are_looked_up() {
    on_disk(|env, dir| async move {
        let shard = Shard::open(env, shard_options(&dir, false)).await.unwrap();
        let first =
            shard.append(&[message("T", 0, b"1", &[b"KEYS\x01k1 k2", b"\x02UNIQ_KEY\x01U1\x02"])]).unwrap();
        // A body that is a record itself must not be taken for one.
        let record = {
            committed(&shard, first.end).await;
            shard.record_at(first.physical_offsets[0].position()).await.unwrap().unwrap()
        };
        let second = shard.append(&[message("T", 1, &record, &[b"KEYS\x01k2\x02"])]).unwrap();
        committed(&shard, second.end).await;
        let query = |key| KeyQuery { topic: "T", key, max_messages: 10, begin_ms: 0, end_ms: i64::MAX };
        let found = shard.query_keys(&query("k2")).await.unwrap();
        let queues: Vec<_> =
            found.iter().map(|record| RecordView::decode(record).unwrap().queue_id).collect();
        assert_eq!(queues, [1, 0], "the newest comes first");
        assert_eq!(shard.query_keys(&query("U1")).await.unwrap().len(), 1);
        assert_eq!(shard.query_keys(&query("k")).await.unwrap().len(), 0);

        let inner = LogPosition(second.physical_offsets[0].position().0 + 88);
        assert!(shard.record_at(inner).await.unwrap().is_none());
        for odd in [0, 1, 4096, second.end.0 - 1, second.end.0, u64::MAX >> 9] {
            assert!(shard.record_at(LogPosition(odd)).await.unwrap().is_none());
        }
        let time = shard.store_time("T", QueueId(0), QueueOffset(0)).await.unwrap();
        assert_eq!(time, Some(first.store_timestamp));
        assert_eq!(shard.store_time("T", QueueId(0), QueueOffset(1)).await.unwrap(), None);
        assert_eq!(shard.stats().earliest_store_ms, first.store_timestamp);
        let by_time = shard.offset_by_time("T", QueueId(0), first.store_timestamp + 1, Boundary::Lower).await;
        assert_eq!(by_time.unwrap(), QueueOffset(1));

        // What the caller has found in the properties is not looked for again.
        let text = "TAGS\x01a\x02KEYS\x01k3\x02";
        let known = Known { indexed: Some(Indexed::of(text)), ..Known::default() };
        let third = shard.append_known(known, &[message("T", 1, b"3", &[text.as_bytes()])]).unwrap();
        committed(&shard, third.end).await;
        assert_eq!(bodies(&shard.query_keys(&query("k3")).await.unwrap()), [b"3"]);
        shard.close().await;
    });
}
