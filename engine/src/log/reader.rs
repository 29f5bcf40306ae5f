//! Reads from segment files, with read-ahead.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;

use ringmq_env::{AppendBuf, Env, IoSlice};

use super::{Inner, Log};
use crate::types::LogPosition;

/// Bytes that a sequential read brings in at once: a consumer that reads on finds the next messages there.
const CHUNK: u64 = 128 << 10;

/// Chunks that are kept: the read-ahead of so many consumers at once.
const CHUNKS: usize = 64;

/// Chunks read from disk lately, the most recently used last.
#[derive(Default)]
pub(crate) struct ColdCache(RefCell<VecDeque<(u64, IoSlice)>>);

impl ColdCache {
    fn get(&self, start: u64, at: usize, len: usize) -> Option<IoSlice> {
        let mut chunks = self.0.borrow_mut();
        let found = chunks.iter().position(|(chunk, data)| *chunk == start && at + len <= data.len())?;
        let chunk = chunks.remove(found)?;
        let slice = chunk.1.slice(at, len);
        chunks.push_back(chunk);
        Some(slice)
    }

    fn put(&self, start: u64, data: IoSlice) {
        let mut chunks = self.0.borrow_mut();
        chunks.retain(|(chunk, _)| *chunk != start);
        if chunks.len() == CHUNKS {
            chunks.pop_front();
        }
        chunks.push_back((start, data));
    }
}

impl<E: Env> Log<E> {
    /// The `len` committed bytes at `position` as the disk has them, unchecked; with read-ahead if `sequential`.
    pub(crate) async fn read_cold(
        &self,
        position: LogPosition,
        len: usize,
        sequential: bool,
    ) -> io::Result<IoSlice> {
        let log = &*self.0;
        let LogPosition(position) = position;
        let end = position + len as u64;
        // Both parts as of now: the disk has whole sectors, memory has the last, partial one.
        let (written, sector) = {
            let committed = log.committed.borrow();
            (committed.sector_start(), committed.sector.clone())
        };
        if end > written {
            return log.read_across(position, end, written, &sector).await;
        }
        let segment = log.segments.locate(position).ok_or(io::ErrorKind::NotFound)?.range;
        let chunk = position - (position - segment.start) % CHUNK;
        if !sequential || end > chunk + CHUNK {
            return log.read_range(position, len).await;
        }
        let at = (position - chunk) as usize;
        if let Some(slice) = log.cold.get(chunk, at, len) {
            return Ok(slice);
        }
        let until = (chunk + CHUNK).min(written).min(segment.end());
        let Ok(data) = log.read_range(chunk, (until - chunk) as usize).await else {
            // A sector beside the record may be what cannot be read.
            return log.read_range(position, len).await;
        };
        log.cold.put(chunk, data.clone());
        Ok(data.slice(at, len))
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

    /// Reads a stretch whose end is in the partial sector.
    async fn read_across(
        &self,
        position: u64,
        end: u64,
        written: u64,
        sector: &IoSlice,
    ) -> io::Result<IoSlice> {
        if end > written + sector.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buf = AppendBuf::with_capacity((end - position) as usize);
        if position < written {
            buf.extend(&self.read_range(position, (written - position) as usize).await?);
        }
        let from = position.max(written);
        buf.extend(&sector[(from - written) as usize..(end - written) as usize]);
        buf.publish();
        Ok(buf.slice(0, (end - position) as usize))
    }
}
