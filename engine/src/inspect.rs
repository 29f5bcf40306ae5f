//! Looking at a store that no process uses, without changing it: what there is, whether every checksum and chain holds,
//! and where the messages are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmq_env::{DirEntry, Env, IoSlice};
use ringmq_protocol::record::RecordView;

use crate::damage::{Damage, DamageReport};
use crate::index;
use crate::log::inspect::LogFiles;
use crate::meta;
use crate::shard::{INDEX_DIR, OFFSETS, OpenError};
use crate::types::*;

/// What is in a directory; nothing if it is missing, as in a store that was never started to the end.
pub(crate) async fn read_dir_if_any<E: Env>(env: &E, dir: &Path) -> std::io::Result<Vec<DirEntry>> {
    match env.read_dir(dir).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries,
    }
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// The file.
    pub path: PathBuf,
    /// Log position of its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// The messages of one queue that are in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Smallest queue offset.
    pub first: i64,
    /// Largest queue offset.
    pub last: i64,
    /// How many messages.
    pub messages: u64,
    /// Their bytes as stored.
    pub bytes: u64,
}

/// What a shard's files say.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Segments in log order.
    pub segments: Vec<SegmentFacts>,
    /// First log position kept, and one past the last whole frame.
    pub log: (u64, u64),
    /// Frames and records that check out.
    pub frames: u64,
    /// Records that check out.
    pub records: u64,
    /// By topic and queue.
    pub queues: BTreeMap<(String, u32), QueueFacts>,
    /// Index runs that check out.
    pub runs: u64,
    /// Entries of the metadata logs.
    pub entries: u64,
    /// Everything that is not what was written.
    pub damage: Vec<Damage>,
}

/// Reads all of a shard's log, its index runs and its metadata logs, and checks every checksum. Changes nothing; the
/// store must not be in use.
pub async fn inspect_shard<E: Env>(
    env: &E,
    dir: &Path,
    id: ShardId,
    store_id: u64,
) -> Result<Inspection, OpenError> {
    let report = DamageReport::default();
    let (mut found, index_dir) = (Inspection::default(), dir.join(INDEX_DIR));
    let known = index::Index::claimed_end(env, &index_dir).await;
    let files = LogFiles::open(env, dir, id, store_id, known, &report).await?;
    found.segments = files.segments();
    let (marks, begin) = or_tell(index::check_marks(env, &index_dir, &report).await, &report)?;
    files.tell_missing(begin);
    let mut walk = files.walk();
    while let Some(frame) = walk.next().await {
        found.frames += 1;
        for (position, bytes) in walk.records(&frame).await {
            count(&mut found, id, position, &bytes, &report, &files);
        }
        env.yield_now().await;
    }
    found.log = (files.min(), walk.position());
    found.runs = index::check_runs(env, &index_dir, &report).await.map_err(OpenError::at(&index_dir))?;
    let offsets = meta::check(env, dir, OFFSETS, &report, &mut |_, _| {}).await;
    found.entries = marks + or_tell(offsets, &report)?;
    found.damage = report.list();
    Ok(found)
}

/// Checks the metadata log of a node's topics and groups, in `dir`. How many entries it has, and what is damaged: a start
/// refuses those. Changes nothing; the store must not be in use.
pub async fn inspect_metadata<E: Env>(env: &E, dir: &Path) -> Result<(u64, Vec<Damage>), OpenError> {
    let report = DamageReport::default();
    let entries = or_tell(meta::check(env, dir, "meta", &report, &mut |_, _| {}).await, &report)?;
    Ok((entries, report.list()))
}

/// Tells of a table that stops a start, and goes on without it.
fn or_tell<T: Default>(checked: Result<T, OpenError>, report: &DamageReport) -> Result<T, OpenError> {
    match checked {
        Err(OpenError::Damaged { path, what }) => {
            report.tell(Damage { path, offset: 0, len: 1, what });
            Ok(T::default())
        }
        checked => checked,
    }
}

fn count<E: Env>(
    found: &mut Inspection,
    id: ShardId,
    position: LogPosition,
    bytes: &[u8],
    report: &DamageReport,
    files: &LogFiles<E>,
) {
    let expected = Some(PhysicalOffset::new(id, position));
    let view = match RecordView::decode(bytes) {
        Ok(view) if PhysicalOffset::from_wire(view.physical_offset) == expected => view,
        _ => {
            let ((path, offset), len) = (files.place(position), bytes.len() as u64);
            return report.tell(Damage { path, offset, len, what: "what the log holds is no record".into() });
        }
    };
    found.records += 1;
    let queue = found.queues.entry((view.topic.to_owned(), view.queue_id as u32)).or_insert(QueueFacts {
        first: view.queue_offset,
        last: view.queue_offset,
        ..QueueFacts::default()
    });
    queue.first = queue.first.min(view.queue_offset);
    queue.last = queue.last.max(view.queue_offset);
    queue.messages += 1;
    queue.bytes += bytes.len() as u64;
}

/// The stored record at a physical offset of the shard; `None` when none starts there. Changes nothing.
pub async fn find_record<E: Env>(
    env: &E,
    dir: &Path,
    offset: PhysicalOffset,
    store_id: u64,
) -> Result<Option<IoSlice>, OpenError> {
    let report = DamageReport::default();
    let known = LogPosition(0);
    let files = LogFiles::open(env, dir, offset.shard(), store_id, known, &report).await?;
    let mut walk = files.walk();
    while let Some(frame) = walk.next().await {
        if frame.header.base + frame.len() > offset.position().0 {
            let records = walk.records(&frame).await;
            let found = records.into_iter().find(|(position, _)| *position == offset.position());
            return Ok(found.map(|(_, bytes)| IoSlice::copy_of(&bytes)));
        }
        env.yield_now().await;
    }
    Ok(None)
}
