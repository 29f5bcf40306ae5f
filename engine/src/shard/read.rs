//! Reads: by queue offset, by physical offset, by key.

use std::io;

use ringmq_env::{Env, IoSlice};
use ringmq_protocol::record::{RecordView, sys_flag, sys_flag_of};

use super::message::{Indexed, offsets_of};
use super::{Inner, Shard};
use crate::damage::Damage;
use crate::index::{IndexEntry, KeySearch};
use crate::log::{Log, Stretch, record_len};
use crate::types::*;

/// Index entries that one filtered read looks at most, so that a filter that hardly matches cannot hold the core
/// (RocketMQ's maxFilterMessageSize of 16000 bytes of 20-byte entries).
const MAX_SCANNED: usize = 800;

/// Bytes of a record that hold its length.
const LENGTH_BYTES: usize = 4;

impl<E: Env> Shard<E> {
    /// The queue's readable range; `None` when the queue has never had a message here.
    pub fn queue_range(&self, topic: &str, queue_id: QueueId) -> Option<QueueRange> {
        self.0.index.range(topic, queue_id)
    }

    /// Reads if everything needed is in memory; `None` sends the caller to [`Shard::read`].
    pub fn read_hot(&self, request: &ReadRequest<'_>) -> Option<ReadResult> {
        let shard = &*self.0;
        let range = match shard.check_range(request) {
            Ok(range) => range,
            Err(result) => return Some(result),
        };
        let mut entries = Vec::with_capacity(request.max_messages.min(MAX_SCANNED));
        let max = scan_limit(request);
        let first =
            shard.index.entries_hot(request.topic, request.queue_id, request.offset, max, &mut entries)?;
        let mut reading = Reading::new(request, range, first, entries.len());
        for (at, entry) in entries.iter().enumerate() {
            match reading.step(first.0 + at as i64, entry) {
                Step::Skip => continue,
                Step::Stop => break,
                Step::Take => {}
            }
            match reading.near.find(&shard.log, entry) {
                Some(record) => {
                    // The socket's copy would wait for each of them.
                    record.prefetch();
                    reading.take(record, &entries[at..]);
                }
                None if reading.result.messages > 0 => break,
                None => return None,
            }
        }
        Some(shard.finish(reading))
    }

    /// Reads, from disk where needed. Every record from disk is checked before it is returned. A damaged one is
    /// reported in the log and in [`ShardStats::messages_damaged`] and passed over: what is around it stays readable.
    pub async fn read(&self, request: &ReadRequest<'_>) -> Result<ReadResult, ReadError> {
        let shard = &*self.0;
        let range = match shard.check_range(request) {
            Ok(range) => range,
            Err(result) => return Ok(result),
        };
        let max = scan_limit(request);
        let found = shard.index.entries(request.topic, request.queue_id, request.offset, max).await?;
        if let Err(result) = shard.check_range(request) {
            // Deleted while it was looked for.
            return Ok(result);
        }
        let is_being_deleted = shard.index.log_min() > shard.log.min();
        if found.first > request.offset && is_being_deleted {
            // The index leaves them out already, and raises one queue's minimum after the other.
            let status = ReadStatus::OffsetTooSmall;
            return Ok(ReadResult { status, ..empty(range, found.first) });
        }
        let mut reading = Reading::new(request, range, found.first, found.entries.len());
        for (at, entry) in found.entries.iter().enumerate() {
            match reading.step(found.first.0 + at as i64, entry) {
                Step::Skip => continue,
                Step::Stop => break,
                Step::Take => {}
            }
            let entries = &found.entries[at..];
            match shard.record(entries, &mut reading.near).await {
                Ok(record) => reading.take(record, entries),
                // Deleted while it was looked for.
                Err(_) if entry.position < shard.log.min() && reading.result.messages == 0 => {
                    return Ok(match shard.check_range(request) {
                        Ok(range) => empty(range, range.min.max(request.offset)),
                        Err(result) => result,
                    });
                }
                // What is there already is worth an answer; the next read meets the failure again.
                Err(_) if reading.result.messages > 0 => break,
                Err(ReadError::Damaged { .. }) => reading.skip(),
                Err(error) => return Err(error),
            }
        }
        Ok(shard.finish(reading))
    }

    /// The offset that a search by store time gives, as RocketMQ's `searchOffsetByTime`.
    pub async fn offset_by_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        self.0.index.offset_by_time(topic, queue_id, time_ms, boundary).await
    }

    /// Store time of the message at `offset`, in ms; `None` when it is not kept.
    pub async fn store_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<i64>, ReadError> {
        Ok(self.0.entry(topic, queue_id, offset).await?.map(|entry| entry.store_ms))
    }

    /// The stored record that starts at `position`; `None` when no committed record of a queue starts there.
    pub async fn record_at(&self, position: LogPosition) -> Result<Option<IoSlice>, ReadError> {
        let shard = &*self.0;
        let Some(record) = shard.record_in_place(position).await? else { return Ok(None) };
        let Ok(view) = RecordView::decode(&record) else { return Ok(None) };
        // A message's body may look like a record; only the index knows where records start.
        let (Ok(queue), offset) = (u32::try_from(view.queue_id), QueueOffset(view.queue_offset)) else {
            return Ok(None);
        };
        match shard.entry(view.topic, QueueId(queue), offset).await? {
            Some(entry) if entry.position == position => shard.checked(&entry, record).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Records with the key, newest first. Candidates are checked against the record's own topic and keys; damaged
    /// ones are passed over.
    pub async fn query_keys(&self, query: &KeyQuery<'_>) -> Result<Vec<IoSlice>, ReadError> {
        let shard = &*self.0;
        let mut records = Vec::new();
        let mut before = shard.log.committed();
        while records.len() < query.max_messages {
            let search = KeySearch {
                topic: query.topic,
                key: query.key,
                max: query.max_messages - records.len(),
                begin_ms: query.begin_ms,
                end_ms: query.end_ms,
                before,
            };
            let candidates = shard.index.query_keys(&search).await?;
            let Some(oldest) = candidates.last() else { break };
            before = *oldest;
            for position in candidates {
                match self.record_at(position).await {
                    Ok(Some(record)) if has_key(&record, query) => records.push(record),
                    Ok(_) | Err(ReadError::Damaged { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(records)
    }
}

fn has_key(record: &[u8], query: &KeyQuery<'_>) -> bool {
    RecordView::decode(record).is_ok_and(|view| {
        view.topic == query.topic
            && (query.begin_ms..=query.end_ms).contains(&view.store_timestamp)
            && Indexed::of(view.properties).each_key(view.sys_flag).any(|key| key == query.key)
    })
}

fn scan_limit(request: &ReadRequest<'_>) -> usize {
    match (request.record_filter, request.tag_filter) {
        (Some(filter), _) => filter.max_scanned.clamp(1, MAX_SCANNED),
        (None, Some(_)) => MAX_SCANNED,
        (None, None) => request.max_messages.clamp(1, MAX_SCANNED),
    }
}

impl<E: Env> Inner<E> {
    /// The queue's range if `request` lies within; otherwise the answer.
    fn check_range(&self, request: &ReadRequest<'_>) -> Result<QueueRange, ReadResult> {
        let range = self.index.range(request.topic, request.queue_id);
        let (status, next_offset) = match range {
            None => (ReadStatus::NoMatchedLogicQueue, QueueOffset(0)),
            Some(range) if range.max.0 == 0 => (ReadStatus::NoMessageInQueue, QueueOffset(0)),
            Some(range) if request.offset < range.min => (ReadStatus::OffsetTooSmall, range.min),
            Some(range) if request.offset == range.max => (ReadStatus::OffsetOverflowOne, request.offset),
            Some(range) if request.offset > range.max => (ReadStatus::OffsetOverflowBadly, range.max),
            Some(range) => return Ok(range),
        };
        Err(ReadResult { status, ..empty(range.unwrap_or_default(), next_offset) })
    }

    async fn entry(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<IndexEntry>, ReadError> {
        let is_kept = |range: QueueRange| range.min <= offset && offset < range.max;
        if !self.index.range(topic, queue_id).is_some_and(is_kept) {
            return Ok(None);
        }
        let found = self.index.entries(topic, queue_id, offset, 1).await?;
        Ok(found.entries.first().copied().filter(|_| found.first == offset))
    }

    /// The record of the first entry, from memory or from disk; what comes from disk is checked, while the next one is
    /// on its way to the core's cache.
    async fn record(&self, entries: &[IndexEntry], near: &mut Near) -> Result<IoSlice, ReadError> {
        let entry = &entries[0];
        let (position, len) = (entry.position, entry.size as usize);
        let record = match near.find(&self.log, entry) {
            Some(record) => record,
            None => {
                let read = self.log.read_stretch(position, len).await;
                let read = read.and_then(|stretch| Ok((stretch.part(position, len)?, stretch)));
                let (record, stretch) = read.map_err(|source| self.read_error(position, len, source))?;
                *near = Near { stretch: Some(stretch), from_disk: true };
                record
            }
        };
        if !near.from_disk {
            return Ok(record);
        }
        if let Some(next) = entries.get(1).and_then(|next| near.get(next)) {
            next.prefetch();
        }
        self.count(|stats| stats.messages_read_cold += 1);
        if is_whole(&record, len, entry.crc) {
            return Ok(record);
        }
        // What is around it was misread as well, perhaps.
        *near = Near::default();
        self.checked(entry, record).await
    }

    async fn read_cold(&self, position: LogPosition, len: usize) -> Result<IoSlice, ReadError> {
        let read = self.log.read_cold(position, len).await;
        read.map_err(|source| self.read_error(position, len, source))
    }

    fn read_error(&self, position: LogPosition, len: usize, source: io::Error) -> ReadError {
        match source.kind() {
            // The file is gone, or was cut off.
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                self.damaged(position, len, &source.to_string())
            }
            _ => ReadError::Io { position: position.0, len, source },
        }
    }

    /// `record`, if it is what was written.
    async fn checked(&self, entry: &IndexEntry, record: IoSlice) -> Result<IoSlice, ReadError> {
        let (position, len) = (entry.position, entry.size as usize);
        let whole = self.whole(position, len, entry.crc, record).await;
        whole.ok_or_else(|| self.damaged(position, len, "the record is not what was written"))
    }

    /// `record`, if it is what was written, or else what the device says when it is asked once more, as it may have
    /// misread; `None` when that is not what was written either.
    pub(super) async fn whole(
        &self,
        position: LogPosition,
        len: usize,
        crc: u32,
        record: IoSlice,
    ) -> Option<IoSlice> {
        if is_whole(&record, len, crc) {
            return Some(record);
        }
        let again = self.log.read_once_more(position, len).await.ok();
        let again = again.filter(|record| is_whole(record, len, crc))?;
        tracing::warn!(
            shard = self.options.id.0,
            position = position.0,
            len,
            "misread, and read well once more"
        );
        Some(again)
    }

    fn damaged(&self, position: LogPosition, len: usize, what: &str) -> ReadError {
        if position < self.log.min() {
            // It has expired meanwhile.
            return ReadError::Damaged { position: position.0, len };
        }
        let (path, offset) = self.log.place(position);
        self.report.tell(Damage { path, offset, len: len as u64, what: what.to_owned() });
        self.count(|stats| stats.messages_damaged += 1);
        ReadError::Damaged { position: position.0, len }
    }

    /// The record that says of itself that it is at `position`; its CRC is not checked. In a file that was used before, one of
    /// another place may lie there still.
    async fn record_in_place(&self, position: LogPosition) -> Result<Option<IoSlice>, ReadError> {
        let is_here = |view: RecordView<'_>| {
            PhysicalOffset::from_wire(view.physical_offset)
                .is_some_and(|stated| stated.shard() == self.options.id && stated.position() == position)
        };
        let record = self.bytes_of_record(position).await?;
        Ok(record.filter(|record| RecordView::decode(record).is_ok_and(is_here)))
    }

    /// What may be a record at `position`, unchecked: as many bytes as its length says.
    async fn bytes_of_record(&self, position: LogPosition) -> Result<Option<IoSlice>, ReadError> {
        let end = self.log.committed();
        let is_within = |len: usize| position.0.checked_add(len as u64).is_some_and(|to| to <= end.0);
        if position < self.log.min() || !is_within(LENGTH_BYTES) {
            return Ok(None);
        }
        let head = match self.log.get_hot(position, LENGTH_BYTES) {
            Some(head) => head,
            None if !self.log.is_in_one_segment(position, LENGTH_BYTES) => return Ok(None),
            None => self.read_cold(position, LENGTH_BYTES).await?,
        };
        let limit = self.options.max_record_size;
        let Some(len) = record_len(&head).filter(|len| *len <= limit && is_within(*len)) else {
            return Ok(None);
        };
        match self.log.get_hot(position, len) {
            Some(record) => Ok(Some(record)),
            None if !self.log.is_in_one_segment(position, len) => Ok(None),
            None => self.read_cold(position, len).await.map(Some),
        }
    }

    /// Store time of the log's first record, in ms; -1 when there is none.
    pub(super) async fn find_earliest(&self) -> i64 {
        let Some(position) = self.log.first_record() else { return -1 };
        let earliest = self.store_ms_at(position).await.unwrap_or_else(|error| {
            tracing::warn!(shard = self.options.id.0, %error, "the log's first record cannot be read");
            None
        });
        earliest.unwrap_or(-1)
    }

    /// Store time of the record at `position`, in ms, if one is there.
    pub(super) async fn store_ms_at(&self, position: LogPosition) -> Result<Option<i64>, ReadError> {
        let record = self.record_in_place(position).await?;
        Ok(record.and_then(|record| RecordView::decode(&record).map(|view| view.store_timestamp).ok()))
    }

    fn finish(&self, reading: Reading<'_>) -> ReadResult {
        let result = reading.result;
        self.count(|stats| stats.messages_read += result.messages as u64);
        result
    }
}

/// Whether a record that was read is what was written.
fn is_whole(record: &[u8], len: usize, crc: u32) -> bool {
    record.len() == len && (crc32fast::hash(record) == crc || ringmq_env::mutant!("skip-crc"))
}

fn empty(range: QueueRange, next_offset: QueueOffset) -> ReadResult {
    let status = ReadStatus::NoMatchedMessage;
    ReadResult { status, next_offset, range, parts: Vec::new(), messages: 0, bytes: 0 }
}

/// What to do with an entry.
enum Step {
    /// It does not match.
    Skip,
    /// It is wanted.
    Take,
    /// Enough.
    Stop,
}

/// Where the last record was found: the next one is mostly near.
#[derive(Default)]
struct Near {
    stretch: Option<Stretch>,
    from_disk: bool,
}

impl Near {
    /// The record of `entry`, if it is near.
    fn get(&self, entry: &IndexEntry) -> Option<IoSlice> {
        self.stretch.as_ref()?.get(entry.position, entry.size as usize)
    }

    /// The record of `entry`, if it is near or in the hot tail.
    fn find<E: Env>(&mut self, log: &Log<E>, entry: &IndexEntry) -> Option<IoSlice> {
        self.get(entry).or_else(|| {
            let stretch = log.hot_stretch(entry.position)?;
            let record = stretch.get(entry.position, entry.size as usize)?;
            *self = Near { stretch: Some(stretch), from_disk: false };
            Some(record)
        })
    }
}

/// A read under way.
struct Reading<'r> {
    request: &'r ReadRequest<'r>,
    result: ReadResult,
    near: Near,
}

impl<'r> Reading<'r> {
    /// Of `entries` entries, the one of `first` first.
    fn new(
        request: &'r ReadRequest<'r>,
        range: QueueRange,
        first: QueueOffset,
        entries: usize,
    ) -> Reading<'r> {
        let parts = Vec::with_capacity(entries.min(request.max_messages));
        Reading { request, result: ReadResult { parts, ..empty(range, first) }, near: Near::default() }
    }

    fn step(&mut self, offset: i64, entry: &IndexEntry) -> Step {
        let (request, result) = (self.request, &self.result);
        if offset < result.next_offset.0 {
            // Of an inner batch that is in the answer already.
            return Step::Skip;
        }
        if result.messages >= request.max_messages.max(1) {
            return Step::Stop;
        }
        if request.tag_filter.is_some_and(|matches| !matches(entry.tags_code)) {
            self.skip();
            return Step::Skip;
        }
        let is_full = result.messages > 0 && result.bytes + entry.size as usize > request.max_bytes;
        if is_full { Step::Stop } else { Step::Take }
    }

    fn skip(&mut self) {
        self.result.next_offset.0 += 1;
    }

    /// Adds the record of the first of the entries that are left, if it is wanted; one that lies right behind the last
    /// in memory prolongs its part.
    fn take(&mut self, record: IoSlice, entries: &[IndexEntry]) {
        let next_offset = self.behind(&record, entries);
        let result = &mut self.result;
        result.next_offset = next_offset;
        if self.request.record_filter.is_some_and(|filter| !(filter.matches)(&record)) {
            return;
        }
        result.status = ReadStatus::Found;
        result.messages += 1;
        result.bytes += record.len();
        if !result.parts.last_mut().is_some_and(|last| last.join(&record)) {
            result.parts.push(record);
        }
    }

    /// Where to go on behind a record: behind all messages of an inner batch, also when it is read from its middle. Their
    /// entries have one position, so that most records need not be looked at, which are in no cache of the core's yet.
    fn behind(&self, record: &[u8], entries: &[IndexEntry]) -> QueueOffset {
        let next = QueueOffset(self.result.next_offset.0 + 1);
        let is_last = entries.get(1).is_some_and(|following| following.position != entries[0].position);
        if is_last || sys_flag_of(record).is_none_or(|flag| flag & sys_flag::INNER_BATCH == 0) {
            return next;
        }
        let Ok(view) = RecordView::decode(record) else { return next };
        next.max(QueueOffset(view.queue_offset + i64::from(offsets_of(view.properties, view.sys_flag))))
    }
}
