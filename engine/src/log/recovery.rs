//! Opening a log: where it ends, what of it the index does not know yet, and what is damaged.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ringmq_env::{Env, IoSlice};

use super::frame::FRAME_HEADER_LEN;
use super::hot_tail::HotTail;
use super::reader::ColdCache;
use super::scan::{ScannedFrame, Scanner};
use super::segment::{SEGMENT_HEADER_LEN, SegmentConfig, SegmentRange, Segments};
use super::staging::{LogEnd, Staging};
use super::tail_journal::{Slot, TailJournal, TailRecord};
use super::{Inner, Log, LogCounters, LogOptions};
use crate::shard::OpenError;
use crate::signal::Signal;
use crate::types::LogPosition;

/// A record that recovery found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScannedRecord<'a> {
    /// Where it is.
    pub position: LogPosition,
    /// CRC32 of all of it.
    pub crc: u32,
    /// The record.
    pub bytes: &'a [u8],
}

/// What recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Bytes of the log that were read through.
    pub scanned: u64,
    /// Stretches (from, to) that were on the device once and cannot be read back. What is around them is kept.
    pub damaged: Vec<(u64, u64)>,
}

/// Where a scan got to.
struct ScanEnd {
    position: u64,
    chain: Option<u32>,
    epoch: u64,
}

impl<E: Env> Log<E> {
    /// Opens the log and hands every record from `scan_from` on to `on_record`, in log order. Everything before
    /// `indexed_upto` was on the device. When it returns, the log goes on behind the last whole frame.
    pub(crate) async fn open(
        env: E,
        options: LogOptions,
        scan_from: LogPosition,
        indexed_upto: LogPosition,
        on_record: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> Result<(Log<E>, Recovered), OpenError> {
        assert!(options.segment_size.is_multiple_of(SEGMENT_HEADER_LEN));
        assert!(options.segment_size >= super::segment::MIN_SEGMENT_LEN);
        env.create_dir_all(&options.dir).await.map_err(OpenError::at(&options.dir))?;
        let (journal, slots) = TailJournal::open(&env, &options.dir, options.sync_flush).await?;
        let segments = Segments::open(env.clone(), segment_config(&options)).await?;
        let recovery = Recovery::new(&segments, &journal, slots, (scan_from.0, indexed_upto.0), &options);
        let opened = recovery.run(on_record).await.map_err(OpenError::at(segments.dir()))?;
        let log = assemble(env, options, segments, journal, &opened);
        log.0.begin_epoch(&opened.end, opened.epoch).await;
        Ok((log, opened.report))
    }
}

fn segment_config(options: &LogOptions) -> SegmentConfig {
    SegmentConfig {
        dir: options.dir.join(super::SEGMENT_DIR),
        shard: options.shard,
        store_id: options.store_id,
        dsync: options.sync_flush,
    }
}

/// What recovery found out.
struct Opened {
    end: LogEnd,
    epoch: u64,
    store_ms: i64,
    report: Recovered,
}

fn assemble<E: Env>(
    env: E,
    options: LogOptions,
    segments: Segments<E>,
    journal: TailJournal<E>,
    opened: &Opened,
) -> Log<E> {
    let hot = HotTail::new(options.tail_memory);
    let staging = Staging::new(journal.alignment(), options.segment_size, opened.epoch, &opened.end, hot);
    Log(Rc::new(Inner {
        env,
        options,
        staging: RefCell::new(staging),
        segments,
        journal,
        flushed: Cell::new(opened.end.position),
        epoch_start: Cell::new(opened.end.position),
        committed: RefCell::new(opened.end.clone()),
        last_store_ms: Cell::new(opened.store_ms),
        opened_end: opened.end.position,
        cold: ColdCache::default(),
        counters: Cell::new(LogCounters::default()),
        flushing: Cell::new(false),
        closing: Cell::new(false),
        changed: Signal::default(),
    }))
}

struct Recovery<'a, E: Env> {
    segments: &'a Segments<E>,
    journal: &'a TailJournal<E>,
    /// The newest epoch's slots, oldest first.
    slots: Vec<Slot>,
    tails: Vec<TailRecord>,
    /// Records from here on are wanted.
    scan_from: u64,
    indexed_upto: u64,
    /// Everything before this was on the device: a frame that is missing there is damage, not the log's end.
    sure_end: u64,
    segment_size: u64,
    report: Recovered,
}

impl<'a, E: Env> Recovery<'a, E> {
    fn new(
        segments: &'a Segments<E>,
        journal: &'a TailJournal<E>,
        slots: Vec<(Slot, TailRecord)>,
        (scan_from, indexed_upto): (u64, u64),
        options: &LogOptions,
    ) -> Self {
        assert!(scan_from <= indexed_upto);
        let newest = slots.last().map_or(0, |(_, tail)| tail.epoch);
        let (slots, tails): (Vec<_>, Vec<_>) =
            slots.into_iter().filter(|(_, tail)| tail.epoch == newest).unzip();
        let sure_end = tails.iter().map(|tail| tail.flushed).max().unwrap_or(0).max(indexed_upto);
        let (segment_size, report) = (options.segment_size, Recovered::default());
        Recovery { segments, journal, slots, tails, scan_from, indexed_upto, sure_end, segment_size, report }
    }

    async fn run(mut self, on_record: &mut dyn FnMut(ScannedRecord<'_>)) -> io::Result<Opened> {
        let (start, fallback) = self.starts();
        let mut scanned = self.scan(start, on_record).await?;
        if scanned.chain.is_none() && fallback < start {
            // Nothing to chain to: begin early enough to know the last frame.
            self.report = Recovered::default();
            scanned = self.scan(fallback, on_record).await?;
        }
        let end = self.end(&scanned).await?;
        self.repair(&end).await?;
        self.segments.remove_behind(end.position).await?;
        // The journal's old slots count for nothing once there is a newer epoch's.
        self.segments.flush_all().await?;
        self.keep_slot(&end);
        let newest = self.tails.last();
        let epoch = newest.map_or(0, |tail| tail.epoch).max(scanned.epoch) + 1;
        let store_ms = newest.map_or(0, |tail| tail.store_ms);
        Ok(Opened { end, epoch, store_ms, report: self.report })
    }

    /// Where the scan begins, and where it begins when that turns out to be no frame.
    fn starts(&self) -> (u64, u64) {
        let ranges = self.segments.ranges();
        let first = ranges.first().map_or(SEGMENT_HEADER_LEN, SegmentRange::first_frame);
        let start = self.scan_from.max(first);
        let before = ranges.iter().rev().find(|range| range.first_frame() < start);
        (start, before.map_or(start, |range| range.first_frame()))
    }

    /// Follows the frames from `start` for as long as they chain, and over damage.
    async fn scan(
        &mut self,
        start: u64,
        on_record: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> io::Result<ScanEnd> {
        let tails = std::mem::take(&mut self.tails);
        let mut scanner = Scanner::new(self.segments, &tails, self.journal.alignment());
        let chain = tails.iter().find(|tail| tail.position == start).map(|tail| tail.chain);
        let mut at = ScanEnd { position: start, chain, epoch: 0 };
        loop {
            let mut next =
                scanner.frame(at.position).await?.filter(|frame| follows(frame, &at, tails.last()));
            if next.is_none() && at.position < self.sure_end {
                next = scanner.find(at.position + 1, self.sure_end).await?;
                let found = next.as_ref().map_or(self.sure_end, |frame| frame.header.base);
                self.report.damaged.push((at.position, found));
            }
            let Some(frame) = next else { break };
            self.emit(&mut scanner, &frame, on_record).await?;
            let position = scanner.next_position(&frame);
            self.report.scanned += position - at.position;
            at = ScanEnd { position, chain: Some(frame.header.crc), epoch: frame.header.epoch };
        }
        self.tails = tails;
        Ok(at)
    }

    async fn emit(
        &self,
        scanner: &mut Scanner<'_, E>,
        frame: &ScannedFrame,
        on_record: &mut dyn FnMut(ScannedRecord<'_>),
    ) -> io::Result<()> {
        let base = frame.header.base + FRAME_HEADER_LEN as u64;
        let Some(payload) = scanner.bytes(base, frame.header.payload as usize).await? else { return Ok(()) };
        for record in &frame.records {
            let position = base + record.at as u64;
            if position >= self.scan_from {
                let bytes = &payload[record.at..record.at + record.len];
                on_record(ScannedRecord { position: LogPosition(position), crc: record.crc, bytes });
            }
        }
        Ok(())
    }

    /// The end of the log, with its partial sector.
    async fn end(&self, scanned: &ScanEnd) -> io::Result<LogEnd> {
        let position = scanned.position.max(self.indexed_upto);
        let chain = scanned.chain.unwrap_or(0);
        let ranges = self.segments.ranges();
        let Some(segment) = self.segments.locate(position).filter(|_| position == scanned.position) else {
            // Behind the last segment: an end frame was the last, the log is new, or its end is lost.
            let last = ranges.last().map_or(0, SegmentRange::end);
            let lost = position.saturating_sub(SEGMENT_HEADER_LEN).next_multiple_of(SEGMENT_HEADER_LEN);
            let range = SegmentRange::first(last.max(lost), self.segment_size);
            return Ok(LogEnd::at_start_of(range, chain));
        };
        let mut scanner = Scanner::new(self.segments, &self.tails, self.journal.alignment());
        let sector_start = position - position % self.journal.alignment() as u64;
        let sector = scanner.bytes(sector_start, (position - sector_start) as usize).await?;
        let sector = IoSlice::copy_of(sector.unwrap_or_default());
        Ok(LogEnd { position, chain, sector, segment: segment.range })
    }

    /// Sectors that were torn while a later one was written get what the journal has of them.
    async fn repair(&self, end: &LogEnd) -> io::Result<()> {
        let alignment = self.journal.alignment();
        for tail in &self.tails {
            let start = tail.sector_start();
            if tail.sector.is_empty() || start + alignment as u64 > end.sector_start() {
                continue;
            }
            let sector = start - start % alignment as u64;
            let mut scanner = Scanner::new(self.segments, &self.tails, alignment);
            let Some(wanted) = scanner.bytes(sector, alignment).await? else { continue };
            if self.segments.read(sector, alignment).await?[..] != *wanted {
                self.segments.write(sector, IoSlice::copy_of(wanted)).await?;
            }
        }
        Ok(())
    }

    fn keep_slot(&self, end: &LogEnd) {
        let slots = self.slots.iter().zip(&self.tails);
        let mut same_sector = slots
            .filter(|(_, tail)| tail.sector_start() == end.sector_start() && tail.position <= end.position);
        if let Some((slot, _)) = same_sector.next_back() {
            self.journal.keep(*slot);
        }
    }
}

/// Whether `frame` continues a log that got to `at`. What an earlier epoch left behind the place where the newest
/// one began does not.
fn follows(frame: &ScannedFrame, at: &ScanEnd, newest: Option<&TailRecord>) -> bool {
    let header = &frame.header;
    let chained = at.chain.is_none_or(|chain| chain == header.previous) && header.epoch >= at.epoch;
    chained
        && newest.is_none_or(|tail| match header.base >= tail.epoch_start {
            true => header.epoch == tail.epoch,
            false => header.epoch <= tail.epoch,
        })
}
