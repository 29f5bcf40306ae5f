//! Opening a log: where it ends, and from where it goes on. What it holds is read by [`Replay`](super::replay).
//!
//! The tail journal says what was on the device; everything before that is not looked at here, however long the log.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::{Env, IoSlice, mutant};

use super::allocate::Pace;
use super::cold_cache::ColdCache;
use super::frame::FrameHeader;
use super::hot_tail::HotTail;
use super::replay::{ScanEnd, follows, may_follow};
use super::scan::Scanner;
use super::segment::{SEGMENT_HEADER_LEN, SegmentConfig, SegmentRange, Segments};
use super::shadow::{Shadow, ShadowImage};
use super::staging::{LogEnd, Staging};
use super::tail_journal::{MAX_UNWRITTEN, SLOT_LEN, SLOTS, Slot, TailJournal, TailRecord};
use super::write_behind::WriteBehind;
use super::{Inner, Log, LogCounters, LogOptions, SEGMENT_DIR};
use crate::damage::{Damage, DamageReport};
use crate::shard::OpenError;
use crate::signal::Signal;
use crate::types::LogPosition;

/// Bits of an epoch below the wall clock's milliseconds: random ones.
const EPOCH_RANDOM_BITS: u32 = 16;

/// The epoch that follows `known`, the newest one that is known. Frames of one that is not known any more, because the
/// journal lost its slots, may still lie behind the end of the log: an epoch is therefore the time at which it began,
/// and no two are the same even if the clock was set back.
pub(super) fn next_epoch<E: Env>(env: &E, known: u64) -> u64 {
    let now = u64::try_from(env.wall_ms()).unwrap_or(0) << EPOCH_RANDOM_BITS;
    (now | env.random() >> (u64::BITS - EPOCH_RANDOM_BITS)).max(known + 1)
}

impl<E: Env> Log<E> {
    /// Opens the log, which goes on behind its last whole frame, or behind what was there once and is damaged.
    /// Everything before `known` was on the device once, whatever the tail journal says. With `strict`, damage that
    /// is found until then is an error, and nothing is changed.
    pub(crate) async fn open(
        env: E,
        options: LogOptions,
        known: LogPosition,
        strict: bool,
        report: &DamageReport,
    ) -> Result<Log<E>, OpenError> {
        assert!(options.segment_size.is_multiple_of(SEGMENT_HEADER_LEN));
        assert!(options.segment_size >= super::segment::MIN_SEGMENT_LEN);
        env.create_dir_all(&options.dir).await.map_err(OpenError::at(&options.dir))?;
        let segments = Segments::open(env.clone(), segment_config(&options, false), report).await?;
        // Of a log without a segment nothing else tells where it was.
        let furthest = segments.ranges().last().map_or(known.0, |range| range.end() + SEGMENT_HEADER_LEN);
        let (journal, slots) = TailJournal::open(&env, &options.dir, options.sync_flush).await?;
        let shadow = ShadowImage::read(&env, &options.dir, report).await;
        let mut recovery = Recovery::new(&segments, &journal, slots, known.0.min(furthest), &options, report);
        let mut scanned = recovery.find_end().await;
        if let Some(shadow) = shadow
            && !(options.sync_flush && mutant!("another-modes-shadow"))
            && recovery.take_in(&shadow, &scanned).await
        {
            scanned = recovery.follow(scanned).await;
        }
        OpenError::refuse_damage(strict, report)?;
        segments.mend().await?;
        let opened = recovery.finish(scanned).await.map_err(OpenError::at(segments.dir()))?;
        let epoch = next_epoch(&env, opened.epoch);
        let mut inner = assemble(env, options, segments, journal, &opened, epoch, report);
        inner.begin_epoch(&opened.end, epoch).await;
        inner.cast_shadow().await;
        Ok(Log(Rc::new(inner)))
    }
}

impl<E: Env> Inner<E> {
    /// Opens the shadow, if there is to be one. It is a convenience: without it the device acknowledges all messages.
    async fn cast_shadow(&mut self) {
        let (dir, len) = (&self.options.dir, self.options.shadow);
        let opened = match len {
            0 => Shadow::remove(&self.env, dir).await.map(|()| None),
            _ => Shadow::open(&self.env, dir, len).await.map(Some),
        };
        match opened {
            Ok(None) => {}
            Ok(Some(shadow)) => {
                self.behind = Some(WriteBehind::new(shadow));
                self.staging.get_mut().split_at_segments();
            }
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "there is no shadow of the log"),
        }
    }
}

/// How a log's segments are opened.
pub(super) fn segment_config(options: &LogOptions, read_only: bool) -> SegmentConfig {
    SegmentConfig {
        dir: options.dir.join(SEGMENT_DIR),
        shard: options.shard,
        store_id: options.store_id,
        segment_size: options.segment_size,
        dsync: options.sync_flush,
        read_only,
    }
}

/// What recovery found out.
struct Opened {
    end: LogEnd,
    /// The newest epoch that is known.
    epoch: u64,
    store_ms: i64,
}

fn assemble<E: Env>(
    env: E,
    options: LogOptions,
    segments: Segments<E>,
    journal: TailJournal<E>,
    opened: &Opened,
    epoch: u64,
    report: &DamageReport,
) -> Inner<E> {
    let (hot, cold_memory) = (HotTail::new(options.tail_memory), options.cold_memory);
    let staging = Staging::new(journal.alignment(), options.segment_size, epoch, &opened.end, hot);
    let pace = Pace::new(opened.end.position, env.now());
    Inner {
        env,
        options,
        staging: RefCell::new(staging),
        segments,
        journal,
        flushed: Cell::new(opened.end.position),
        epoch_start: Cell::new(opened.end.position),
        journaled: Cell::new(opened.end.position),
        committed: RefCell::new(opened.end.clone()),
        acknowledged: Cell::new(opened.end.position),
        behind: None,
        last_store_ms: Cell::new(opened.store_ms),
        commit_time: Cell::new(Duration::ZERO),
        pace: Cell::new(pace),
        opened_end: opened.end.position,
        cold: ColdCache::new(cold_memory),
        counters: Cell::new(LogCounters::default()),
        flushing: Cell::new(false),
        getting_memory: Cell::new(false),
        closing: Cell::new(false),
        rolling_back: Cell::new(false),
        changed: Signal::default(),
        report: report.clone(),
    }
}

struct Recovery<'a, E: Env> {
    segments: &'a Segments<E>,
    journal: &'a TailJournal<E>,
    /// The newest epoch's slots, oldest first.
    slots: Vec<Slot>,
    tails: Vec<TailRecord>,
    /// Everything before this was on the device: a frame that is missing there is damage, not the log's end.
    sure_end: u64,
    /// Newest store timestamp that is known to have been given out, in ms.
    store_ms: i64,
    segment_size: u64,
    report: &'a DamageReport,
}

impl<'a, E: Env> Recovery<'a, E> {
    fn new(
        segments: &'a Segments<E>,
        journal: &'a TailJournal<E>,
        slots: Vec<(Slot, TailRecord)>,
        known: u64,
        options: &LogOptions,
        report: &'a DamageReport,
    ) -> Self {
        let newest = slots.last().map_or(0, |(_, tail)| tail.epoch);
        let (slots, tails): (Vec<_>, Vec<_>) =
            slots.into_iter().filter(|(_, tail)| tail.epoch == newest).unzip();
        let sure_end = tails.iter().map(|tail| tail.flushed).max().unwrap_or(0).max(known);
        let store_ms = tails.last().map_or(0, |tail| tail.store_ms);
        let segment_size = options.segment_size;
        Recovery { segments, journal, slots, tails, sure_end, store_ms, segment_size, report }
    }

    fn scanner(&self) -> Scanner<'a, E> {
        Scanner::new(self.segments, self.tails.clone(), self.journal.alignment(), self.report.clone())
    }

    /// Finds the last frame.
    async fn find_end(&mut self) -> ScanEnd {
        let flushed = self.tails.iter().map(|tail| tail.flushed).max();
        let known = self.tails.iter().filter(|tail| flushed.is_some_and(|end| tail.position <= end));
        // What was known of the log may have expired since.
        let is_there = |tail: &&TailRecord| tail.position >= self.segments.min().unwrap_or(0);
        let Some(tail) = known.max_by_key(|tail| tail.position).filter(is_there) else {
            return self.find_end_without_journal().await;
        };
        let start = ScanEnd { position: tail.position, chain: Some(tail.chain), epoch: 0 };
        self.follow(start).await
    }

    /// No slot says where to begin: from the start of the last segment that holds a frame. If slots say how much was on
    /// the device, from a segment that begins before that: whatever lies behind may have reached the device without
    /// what comes before it.
    async fn find_end_without_journal(&mut self) -> ScanEnd {
        let mut ranges = self.segments.ranges();
        if !self.tails.is_empty() {
            let sure = ranges.partition_point(|range| range.first_frame() < self.sure_end);
            ranges.truncate(sure.max(1));
        }
        let mut end = ScanEnd { position: SEGMENT_HEADER_LEN, chain: None, epoch: 0 };
        for range in ranges.iter().rev() {
            end = self.follow(ScanEnd { position: range.first_frame(), chain: None, epoch: 0 }).await;
            if end.chain.is_some() {
                break;
            }
        }
        if self.tails.is_empty() && end.chain.is_some() {
            // What the journal alone had is lost: its positions are not used again.
            let len = (SLOTS * SLOT_LEN) as u64;
            let what = "no slot is whole: the newest messages may be lost".into();
            self.report.tell(Damage { path: self.journal.path().to_owned(), offset: 0, len, what });
            self.sure_end = self.sure_end.max(end.position + MAX_UNWRITTEN as u64);
        }
        end
    }

    /// Takes in what was acknowledged before the log had it: true if there is anything.
    async fn take_in(&mut self, shadow: &ShadowImage, at: &ScanEnd) -> bool {
        if at.position < self.sure_end {
            // What is between is lost, and the shadow goes on behind that, if at all.
            return false;
        }
        let tail = shadow.tail_behind(at, self.segments, self.tails.last(), &mut self.scanner()).await;
        let is_any = tail.is_some();
        self.tails.extend(tail);
        is_any
    }

    /// Follows the frames for as long as they chain, and over damage before `sure_end`.
    async fn follow(&mut self, start: ScanEnd) -> ScanEnd {
        let mut scanner = self.scanner();
        let mut at = start;
        loop {
            let mut next =
                scanner.frame(at.position).await.filter(|frame| follows(frame, &at, self.tails.last()));
            let newest = self.tails.last().map_or(0, |tail| tail.position);
            if next.is_none() && at.position < newest.min(scanner.unreadable()) {
                // Whether the last group commit was whole cannot be known: nobody is told that it was not.
                self.sure_end = self.sure_end.max(newest);
            }
            let wanted = |header: &FrameHeader| may_follow(header, &at, self.tails.last());
            if next.is_none() && at.position >= self.sure_end {
                self.sure_end = scanner.vouched(at.position, wanted).await.unwrap_or(self.sure_end);
            }
            if next.is_none() && at.position < self.sure_end {
                next = scanner.find(at.position + 1, self.sure_end + 1, wanted).await;
                let found = next.as_ref().map_or(self.sure_end, |frame| frame.header.base);
                self.lose(at.position, found);
            }
            let Some(frame) = next else { return at };
            self.store_ms = frame.mark.map_or(self.store_ms, |mark| mark.store_ms.max(self.store_ms));
            // What no slot was written for, or none that is left, says itself when it was stored.
            let stored = scanner.store_time(&frame).await;
            self.store_ms = stored.map_or(self.store_ms, |store_ms| store_ms.max(self.store_ms));
            let position = scanner.next_position(&frame);
            at = ScanEnd { position, chain: Some(frame.header.crc), epoch: frame.header.epoch };
        }
    }

    fn lose(&self, from: u64, to: u64) {
        let (path, offset) = self.segments.place(from);
        let what = format!("no whole frame of the log, which had reached position {to}");
        self.report.tell(Damage { path, offset, len: to - from, what });
    }

    /// Makes the disk what the log goes on from.
    async fn finish(self, scanned: ScanEnd) -> io::Result<Opened> {
        let end = self.end(&scanned).await;
        self.segments.mend_len(&end.segment).await?;
        self.repair(&end).await?;
        self.segments.remove_behind(end.position).await?;
        // The journal's old slots count for nothing once there is a newer epoch's.
        self.segments.flush_all().await?;
        self.keep_slot(&end);
        let epoch = self.tails.last().map_or(0, |tail| tail.epoch).max(scanned.epoch);
        Ok(Opened { end, epoch, store_ms: self.store_ms })
    }

    /// The end of the log, with its partial sector.
    async fn end(&self, scanned: &ScanEnd) -> LogEnd {
        let position = scanned.position.max(self.sure_end);
        if position == scanned.position
            && let Some(segment) = self.segments.locate(position)
        {
            let mut scanner = self.scanner();
            let sector_start = position - position % self.journal.alignment() as u64;
            let sector = scanner.bytes(sector_start, (position - sector_start) as usize).await;
            let unwritten = IoSlice::copy_of(sector.unwrap_or_default());
            return LogEnd { position, chain: scanned.chain.unwrap_or(0), unwritten, segment: segment.range };
        }
        // Behind the last segment: an end frame was the last, the log is new, or its end is lost.
        let last = self.segments.ranges().last().map_or(0, SegmentRange::end);
        let range = SegmentRange::first(last.max(SegmentRange::start_behind(position)), self.segment_size);
        LogEnd::at_start_of(range, scanned.chain.unwrap_or(0))
    }

    /// Whole sectors that the log has not got, or that were torn while it got them, get what the journal has of them.
    async fn repair(&self, end: &LogEnd) -> io::Result<()> {
        let alignment = self.journal.alignment() as u64;
        for tail in &self.tails {
            let start = tail.written() - tail.written() % alignment;
            let until = tail.position.next_multiple_of(alignment).min(end.written());
            if tail.unwritten.is_empty() || start >= until {
                continue;
            }
            let len = (until - start) as usize;
            let mut scanner = self.scanner();
            let Some(wanted) = scanner.bytes(start, len).await else { continue };
            let wanted = IoSlice::copy_of(wanted);
            if !self.segments.read(start, len).await.is_ok_and(|there| there[..] == wanted[..]) {
                self.segments.write(start, wanted).await?;
            }
        }
        Ok(())
    }

    /// The newest slot that has bytes of the partial last sector stays as it is until another has them.
    fn keep_slot(&self, end: &LogEnd) {
        let slots = self.slots.iter().zip(&self.tails);
        let mut with_sector = slots.filter(|(_, tail)| {
            tail.written() <= end.written() && (end.written()..=end.position).contains(&tail.position)
        });
        if let Some((slot, _)) = with_sector.next_back() {
            self.journal.keep(*slot);
        }
    }
}
