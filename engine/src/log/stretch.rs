//! A stretch of the log in memory.

use std::io;

use ringmq_env::IoSlice;

use crate::types::LogPosition;

/// Bytes of the log, and where they lie in it. Whoever reads one record after the other finds most of them in the stretch
/// that the one before was in.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    /// Log position of the first byte.
    pub start: u64,
    /// The bytes.
    pub bytes: IoSlice,
}

impl Stretch {
    /// One past the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The `len` bytes at `position`, if they are all here.
    pub(crate) fn get(&self, position: LogPosition, len: usize) -> Option<IoSlice> {
        let at = usize::try_from(position.0.checked_sub(self.start)?).ok()?;
        (at.checked_add(len)? <= self.bytes.len()).then(|| self.bytes.slice(at, len))
    }

    /// The same of a stretch that was read for them.
    pub(crate) fn part(&self, position: LogPosition, len: usize) -> io::Result<IoSlice> {
        self.get(position, len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
