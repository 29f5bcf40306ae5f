//! A log as long as physical offsets can say.

use super::*;

const SEGMENT: u64 = 256 << 10;

/// An empty segment of the shard of [`shard_options`], by docs/store-format.md.
fn segment(start: u64) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT as usize];
    let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
    put(0, b"RINGSEGM");
    put(8, &crate::STORE_FORMAT.to_le_bytes());
    put(16, &42_u64.to_le_bytes());
    put(24, &start.to_le_bytes());
    put(32, &SEGMENT.to_le_bytes());
    put(40, &1_u64.to_le_bytes());
    put(48, &3_u16.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..56]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_log_at_its_end_refuses_appends_and_serves_what_it_has() {
    on_disk(|env, dir| async move {
        let start = LOG_END.0 - 6 * SEGMENT;
        std::fs::create_dir_all(dir.join("log")).unwrap();
        std::fs::write(dir.join("log").join(format!("{start:020}.log")), segment(start)).unwrap();
        let body = vec![7; 100 << 10];
        let shard = Shard::open(env.clone(), shard_options(&dir, true)).await.unwrap();
        let mut stored = 0;
        let refused = loop {
            match shard.append(&[message("t", 0, &body, &[])]) {
                Ok(appended) => {
                    let offset = appended.physical_offsets[0];
                    assert_eq!(offset.shard(), ShardId(3));
                    assert!(offset.position().0 >= start && offset.get() < 1 << 53);
                    committed(&shard, appended.end).await;
                    stored += 1;
                }
                Err(error) => break error,
            }
        };
        assert!((4..=12).contains(&stored), "{stored}");
        let position = shard.stats().log_staged;
        assert_eq!(refused, AppendError::LogFull { shard: 3, position, limit: 1 << 45 });
        assert_eq!(whole_queue(&shard, "t", 0).await.len(), stored);
        shard.close().await;

        let shard = Shard::open(env, shard_options(&dir, true)).await.unwrap();
        let refused = shard.append(&[message("t", 0, &body, &[])]);
        assert!(matches!(refused, Err(AppendError::LogFull { .. })), "{refused:?}");
        assert_eq!(whole_queue(&shard, "t", 0).await.len(), stored);
        shard.close().await;
    });
}
