//! One shard: log, index and what ties them together.

mod append;
mod commit;
mod lmq;
mod message;
mod pending;
mod read;
mod recover;
mod retain;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use ringmq_env::Env;

use crate::damage::{Damage, DamageReport};
use crate::gate::Gate;
use crate::index::{Index, check_marks};
use crate::log::inspect::LogFiles;
use crate::log::{Log, LogOptions};
use crate::meta::{self, MetaLog};
use crate::pending::Pending;
use crate::signal::Signal;
use crate::slices::{Job, SliceStats, Slices};
use crate::types::*;
pub use append::Known;
use commit::{Disk, Staged};
pub use message::Indexed;
pub use retain::{DeleteReason, Retained, RetentionPolicy, TopicRetention};

/// Directory of the index in the shard's directory.
pub(crate) const INDEX_DIR: &str = "index";
/// Name of the metadata log of consumer offsets, in the shard's directory ([`Shard::open_table`]).
pub const OFFSETS: &str = "offsets";
/// Directory of the tables of waiting records in the shard's directory.
const PENDING_DIR: &str = "pending";

/// What reads from disk may keep of the log, as a part of the hot tail's memory, and its bounds in bytes.
const COLD_SHARE: usize = 4;
const MIN_COLD: usize = 2 << 20;
const MAX_COLD: usize = 64 << 20;

/// [`ShardOptions::waiting_in_memory`] of a broker: about 16 MiB of each kind.
pub const WAITING_IN_MEMORY: usize = 1 << 18;

/// [`ShardOptions::shadow`] of a broker: four times what is acknowledged from it at once.
pub const SHADOW_LEN: u64 = 512 << 10;

/// How a shard is opened.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which shard of the node.
    pub id: ShardId,
    /// The store's number ([`crate::StoreMeta::store_id`]); segments of another store are refused.
    pub store_id: u64,
    /// Its own directory ([`crate::StoreMeta::shard_dir`]); created if missing.
    pub dir: PathBuf,
    /// SYNC_FLUSH (true): acknowledged once on the device. ASYNC_FLUSH: once it outlives the process, flushed within the
    /// interval.
    pub sync_flush: bool,
    /// ASYNC_FLUSH: bytes of the page cache from which small groups are acknowledged, see [`SHADOW_LEN`]; with 0 none are.
    pub shadow: u64,
    /// ASYNC_FLUSH's interval, in ms.
    pub flush_interval_ms: u64,
    /// Bytes of a new segment file; a multiple of 4096, at least 64 KiB.
    pub segment_size: u64,
    /// Largest record, in bytes; a record must also fit a segment, and is never larger than 8 MiB.
    pub max_record_size: usize,
    /// Bytes that the hot tail may hold.
    pub tail_memory: usize,
    /// Bytes that may be staged and not yet written before appends are refused as busy.
    pub staged_limit: usize,
    /// Disk use in percent above which appends are refused.
    pub disk_watermark_percent: u8,
    /// Damage that could be worked around is an error.
    pub strict: bool,
    /// Waiting records of each kind that are held in memory when there are more, see [`WAITING_IN_MEMORY`].
    pub waiting_in_memory: usize,
    /// Most LMQs that messages may be dispatched to; `None`: none are.
    pub lmq_limit: Option<usize>,
}

/// One shard's storage on its core. Cheap to clone: clones are the same shard.
pub struct Shard<E: Env>(Rc<Inner<E>>);

impl<E: Env> Clone for Shard<E> {
    fn clone(&self) -> Self {
        Shard(Rc::clone(&self.0))
    }
}

struct Inner<E: Env> {
    env: E,
    options: ShardOptions,
    log: Log<E>,
    index: Index<E>,
    /// Delayed messages, and half messages.
    delayed: Pending<E>,
    half: Pending<E>,
    /// Staged in the log, not yet in the index.
    staged: RefCell<Staged>,
    /// What [`Shard::next_commit`] has not taken yet.
    pending: RefCell<Option<Commit>>,
    disk: Cell<Disk>,
    /// The counters that the shard keeps itself; the others are asked for.
    counters: Cell<ShardStats>,
    earliest_store_ms: Cell<i64>,
    /// Whether [`Commit::arrivals`] is wanted.
    tells_arrivals: Cell<bool>,
    report: DamageReport,
    slices: Slices,
    closing: Cell<bool>,
    commits_ended: Cell<bool>,
    /// Held by whoever saves the tables of waiting records.
    saving: Gate,
    /// What waits at or behind this position, or did when the log was last on the device.
    needed_on_device: Cell<LogPosition>,
    /// Background tasks that are using the disk.
    busy: Cell<u32>,
    /// Told when there is something for [`Shard::next_commit`].
    committed: Signal,
    /// Told when [`Shard::next_commit`] has taken it.
    taken: Signal,
    /// Told when a background task has work, or is done with it.
    work: Signal,
}

/// Why a shard could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device failed.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The device's error.
        source: std::io::Error,
    },
    /// Made by a newer RingMQ.
    #[error("{path} has format {found}, this program reads up to {known}: use a newer ringmq")]
    NewerFormat {
        /// File.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A file that cannot be what it should be, and cannot be rebuilt.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Damage that could be worked around was found, and the start was to be refused for it.
    #[error("{count} damaged places, the first is {first}: without --strict what is whole is served")]
    Strict {
        /// The first that was found.
        first: Box<Damage>,
        /// How many there are.
        count: usize,
    },
}

impl OpenError {
    /// An error if `strict` and there is damage.
    pub(crate) fn refuse_damage(strict: bool, report: &DamageReport) -> Result<(), OpenError> {
        match report.losses().filter(|_| strict) {
            Some((first, count)) => Err(OpenError::Strict { first: Box::new(first), count }),
            None => Ok(()),
        }
    }

    /// Names the file of a device error, for `map_err`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> OpenError {
        let path = path.into();
        move |source| OpenError::Io { path, source }
    }
}

/// Looks for what a start would write anew or take note of, before it does: the store is as it was for the next one.
async fn refuse_at_sight<E: Env>(
    env: &E,
    options: &ShardOptions,
    known: LogPosition,
    report: &DamageReport,
) -> Result<(), OpenError> {
    let files = LogFiles::open(env, &options.dir, options.id, options.store_id, known, report).await?;
    files.tell_missing(check_marks(env, &options.dir.join(INDEX_DIR), report).await?.1);
    meta::check(env, &options.dir, OFFSETS, report, &mut |_, _| {}).await?;
    OpenError::refuse_damage(true, report)
}

impl<E: Env> Shard<E> {
    /// Opens the shard and recovers it; when this returns, appends and reads are served. What is damaged is told in
    /// the log and by [`Shard::damage`], and worked around; with [`ShardOptions::strict`] it is an error.
    pub async fn open(env: E, options: ShardOptions) -> Result<Shard<E>, OpenError> {
        let report = DamageReport::default();
        let dir = options.dir.join(INDEX_DIR);
        let known = Index::claimed_end(&env, &dir).await;
        if options.strict {
            refuse_at_sight(&env, &options, known, &report).await?;
        }
        let log = Log::open(env.clone(), log_options(&options), known, options.strict, &report).await?;
        let (log_min, log_end) = (log.min(), log.committed());
        let opening = Index::open(env.clone(), &dir, log_min, log_end, &report).await?;
        log.tell_missing(opening.log_should_begin(), &report);
        OpenError::refuse_damage(options.strict, &report)?;
        // Nothing before the mark waits, and what is left of the log there need not have what settled the rest.
        let log_min = opening.index().log_min();
        let open_pending = |kind, name| {
            let (env, dir) = (env.clone(), options.dir.join(PENDING_DIR).join(name));
            async move { Pending::open(env, kind, &dir, options.waiting_in_memory, log_min, log_end).await }
        };
        let delayed = open_pending(PendingKind::Delayed, "delayed").await?;
        let half = open_pending(PendingKind::Half, "half").await?;
        let recovery =
            recover::Recovery { env: &env, options: &options, report: &report, log: &log, delayed, half };
        let recover::Recovered { index, delayed, half } = recovery.run(opening).await?;
        OpenError::refuse_damage(options.strict, &report)?;
        tracing::info!(shard = options.id.0, log_end = log.committed().0, "shard open");
        let shard = Shard(Rc::new(Inner {
            env,
            options,
            log,
            index,
            delayed,
            half,
            staged: RefCell::default(),
            pending: RefCell::default(),
            disk: Cell::default(),
            counters: Cell::default(),
            earliest_store_ms: Cell::new(-1),
            tells_arrivals: Cell::new(true),
            report,
            slices: Slices::default(),
            closing: Cell::new(false),
            commits_ended: Cell::new(false),
            saving: Gate::default(),
            needed_on_device: Cell::new(LogPosition(0)),
            busy: Cell::new(0),
            committed: Signal::default(),
            taken: Signal::default(),
            work: Signal::default(),
        }));
        shard.0.look_at_disk().await;
        shard.0.earliest_store_ms.set(shard.0.find_earliest().await);
        shard.start_tasks();
        Ok(shard)
    }

    /// Forgets the topic's queues on this shard: a queue made anew starts at offset 0. Durable when it returns.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), std::io::Error> {
        let shard = &*self.0;
        if shard.log.is_out_of_space() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        let _pass = shard.index.hold_runs().await;
        let expired = shard.index.forget_topic(topic, shard.log.staged());
        // A mark ahead of what a crash leaves of the log would delete what is stored there next. Where the log finds no
        // space the runs are not held until there is some: the next start takes such a mark back.
        shard.log.until_committed(|| shard.index.deleted_at(topic)).await;
        shard.log.flush().await;
        shard.index.mark_deleted(topic, &expired).await
    }

    /// Takes what is committed to the device and writes the index and the tables of waiting records, so that an
    /// opening has nothing of it to scan. False when there is no space for them; that costs time at the next opening,
    /// nothing else.
    pub async fn checkpoint(&self) -> bool {
        let indexed = self.0.flush_index().await;
        self.0.save_pending(true).await && indexed
    }

    /// Opens a metadata log in the shard's directory, see [`MetaLog::open_what_is_whole`]. What is told of [`OFFSETS`] a
    /// strict start has refused before.
    pub async fn open_table(
        &self,
        name: &str,
        replay: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<MetaLog<E>, OpenError> {
        let Inner { env, options, report, .. } = &*self.0;
        MetaLog::open_what_is_whole(env.clone(), &options.dir, name, report, replay).await
    }

    /// What was found damaged since it was opened, the first few hundred places.
    pub fn damage(&self) -> Vec<Damage> {
        self.0.report.list()
    }

    /// Where further findings about the shard's files are told.
    pub fn damage_report(&self) -> &DamageReport {
        &self.0.report
    }

    /// Whether more than one in `parts` of [`ShardOptions::staged_limit`] is staged.
    pub fn is_over(&self, parts: usize) -> bool {
        self.0.staged_bytes() * parts > self.0.options.staged_limit
    }

    /// For how long its background work held the core at a stretch.
    pub fn background_slices(&self) -> impl Iterator<Item = (Job, SliceStats)> {
        let shard = Rc::clone(&self.0);
        Job::ALL.into_iter().map(move |job| match job {
            Job::MetadataCompaction => (job, shard.index.marks_compaction()),
            _ => (job, shard.slices.of(job)),
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ShardStats {
        let shard = &*self.0;
        let log = shard.log.counters();
        ShardStats {
            log_min: shard.log.min().0,
            log_expired: shard.index.log_min().0,
            log_committed: shard.log.committed().0,
            log_staged: shard.log.staged().0,
            log_flushed: shard.log.flushed().0,
            queues: shard.index.queues() as u64,
            lmqs: shard.index.lmqs() as u64,
            commits: log.commits,
            commit_sizes: log.commit_sizes,
            flushes: log.flushes,
            log_bytes_written: log.bytes_written,
            log_bytes_shadowed: log.bytes_shadowed,
            segments_made: shard.log.segments_made(),
            segments_reused: shard.log.segments_reused(),
            index_bytes_written: shard.index.bytes_written(),
            tail_memory: shard.log.tail_memory() as u64,
            cold_memory: shard.log.cold_memory(),
            index_memory: shard.index.memory() as u64,
            earliest_store_ms: shard.earliest_store_ms.get(),
            ..shard.counters.get()
        }
    }

    /// Refuses further appends, commits and flushes what is staged, writes the index. Everything is on the device
    /// when it returns, and the next opening has nothing to recover. [`Shard::next_commit`] ends.
    pub async fn close(&self) {
        let shard = &*self.0;
        shard.closing.set(true);
        shard.log.close();
        shard.taken.notify();
        shard.work.notify();
        shard.delayed.notify();
        shard.half.notify();
        shard.committed.until(|| shard.commits_ended.get()).await;
        shard.work.until(|| shard.busy.get() == 0).await;
        shard.log.abandon_ahead().await;
        shard.flush_index().await;
        shard.save_pending(true).await;
    }
}

impl<E: Env> Inner<E> {
    fn count(&self, change: impl FnOnce(&mut ShardStats)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

fn log_options(options: &ShardOptions) -> LogOptions {
    LogOptions {
        dir: options.dir.clone(),
        shard: options.id,
        store_id: options.store_id,
        sync_flush: options.sync_flush,
        shadow: if options.sync_flush { 0 } else { options.shadow },
        segment_size: options.segment_size,
        tail_memory: options.tail_memory,
        cold_memory: (options.tail_memory / COLD_SHARE).clamp(MIN_COLD, MAX_COLD),
    }
}
