//! Ahead of the writer: the next segment is made, zero-filled whole, before the log gets there.
//!
//! None of it is needed for correctness: the writer makes what it misses.

use std::io;

use ringmq_env::Env;

use super::Log;

impl<E: Env> Log<E> {
    /// Makes the segment behind the present one. One task calls it. An error is no harm: the writer makes what it
    /// needs itself, and meets the same error then.
    pub(crate) async fn prepare_ahead(&self) -> io::Result<()> {
        if !self.is_ahead_due() {
            return Ok(());
        }
        let log = &*self.0;
        let (present, epoch) = {
            let staging = log.staging.borrow();
            (staging.segment(), staging.epoch())
        };
        let next = present.next(log.options.segment_size);
        match log.segments.ensure(next, epoch, || log.closing.get()).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            made => made,
        }
    }

    /// Whether the next segment is missing. Never for a log that nobody has written to since it was opened, nor
    /// before its present segment exists: what is waited for comes first.
    pub(crate) fn is_ahead_due(&self) -> bool {
        let log = &*self.0;
        let staging = log.staging.borrow();
        let present = staging.segment();
        staging.end() != log.opened_end
            && log.segments.exists(present.start)
            && !log.segments.exists(present.end())
    }
}
