//! Reads from segment files, with read-ahead.

use std::io;
use std::ops::Range;

use ringmq_env::{AppendBuf, Env, IoSlice};

use super::cold_cache::Look;
use super::{Inner, Log, Stretch};
use crate::types::LogPosition;

/// Longest record that is put together from two blocks; a longer one is read by itself.
const MAX_JOINED: usize = 256 << 10;

impl<E: Env> Log<E> {
    /// The `len` committed bytes at `position` as the disk has them, unchecked.
    pub(crate) async fn read_cold(&self, position: LogPosition, len: usize) -> io::Result<IoSlice> {
        let log = &*self.0;
        let LogPosition(position) = position;
        let end = position + len as u64;
        // Both parts as of now: the log has whole sectors, memory has what it has not got yet.
        let (written, unwritten) = {
            let committed = log.committed.borrow();
            (committed.written(), committed.unwritten.clone())
        };
        match end > written {
            true => log.read_across(position, end, written, &unwritten).await,
            false => log.read_range(position, len).await,
        }
    }

    /// The same with what comes along: sequential readers share large blocks, which are read ahead of them.
    pub(crate) async fn read_stretch(&self, position: LogPosition, len: usize) -> io::Result<Stretch> {
        let LogPosition(start) = position;
        let is_on_disk = start + len as u64 <= self.0.committed.borrow().written();
        let shared = if is_on_disk { self.read_shared(start, len).await } else { None };
        match shared {
            Some(stretch) => Ok(stretch),
            // Or a sector beside the record is what cannot be read.
            None => Ok(Stretch { start, bytes: self.read_cold(position, len).await? }),
        }
    }

    /// The same from the device, whatever readers share: for bytes that turned out not to be what was written.
    pub(crate) async fn read_once_more(&self, position: LogPosition, len: usize) -> io::Result<IoSlice> {
        self.0.cold.forget(position.0..position.0 + len as u64);
        self.read_cold(position, len).await
    }

    /// The block of those that readers share which has the bytes, or just these, put together from several; `None` when
    /// they cannot be had.
    async fn read_shared(&self, position: u64, len: usize) -> Option<Stretch> {
        let block = self.block_at(position).await?;
        if position + len as u64 <= block.end() {
            return Some(block);
        }
        if len > MAX_JOINED {
            return None;
        }
        let mut joined = AppendBuf::with_capacity(len);
        joined.extend(&block.bytes[(position - block.start) as usize..]);
        while joined.len() < len {
            let next = position + joined.len() as u64;
            let block = self.block_at(next).await?;
            let part = &block.bytes[(next - block.start) as usize..];
            joined.extend(&part[..part.len().min(len - joined.len())]);
        }
        joined.publish();
        Some(Stretch { start: position, bytes: joined.slice(0, len) })
    }

    /// The block that holds `position`.
    async fn block_at(&self, position: u64) -> Option<Stretch> {
        let cold = &self.0.cold;
        let mut has_waited = false;
        loop {
            match cold.look(position) {
                (Look::Ready(block), is_first) => {
                    if is_first {
                        self.read_ahead(position);
                    }
                    return Some(block);
                }
                (Look::Loading, _) => {}
                // It could not be read, or had to go at once.
                (Look::Missing, _) if has_waited => return None,
                (Look::Missing, _) => self.load(cold.begin(position, self.limits(position)?)?),
            }
            cold.loaded(position).await;
            has_waited = true;
        }
    }

    fn read_ahead(&self, position: u64) {
        let end = |at| self.limits(at).map(|limits| limits.end).filter(|end| at < *end);
        for stretch in self.0.cold.begin_ahead(position, end) {
            self.load(stretch);
        }
    }

    /// What may be read at once around `position`: whole sectors on disk, in one file.
    fn limits(&self, position: u64) -> Option<Range<u64>> {
        let segment = self.0.segments.locate(position)?.range;
        Some(segment.start..segment.end().min(self.0.committed.borrow().written()))
    }

    /// Reads into the cache, in a task of its own: whoever waits for it may be many.
    fn load(&self, stretch: Range<u64>) {
        self.0.cold.give_way_to(self.0.counters.get().commits);
        let log = self.clone();
        self.0.env.spawn(async move {
            let len = (stretch.end - stretch.start) as usize;
            let read = log.0.segments.read(stretch.start, len).await;
            log.0.cold.finish(stretch.start, read.ok());
        });
    }
}

impl<E: Env> Inner<E> {
    /// Reads whole sectors and shows the part that is wanted.
    async fn read_range(&self, position: u64, len: usize) -> io::Result<IoSlice> {
        let alignment = self.journal.alignment() as u64;
        let start = position - position % alignment;
        let end = (position + len as u64).next_multiple_of(alignment);
        let data = self.segments.read(start, (end - start) as usize).await?;
        let at = (position - start) as usize;
        if data.len() < at + len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(data.slice(at, len))
    }

    /// Reads a stretch whose end is not in the log yet.
    async fn read_across(
        &self,
        position: u64,
        end: u64,
        written: u64,
        unwritten: &IoSlice,
    ) -> io::Result<IoSlice> {
        if end > written + unwritten.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buf = AppendBuf::with_capacity((end - position) as usize);
        if position < written {
            buf.extend(&self.read_range(position, (written - position) as usize).await?);
        }
        let from = position.max(written);
        buf.extend(&unwritten[(from - written) as usize..(end - written) as usize]);
        buf.publish();
        Ok(buf.slice(0, (end - position) as usize))
    }
}
