//! How a segment is made: of a spare, or of a new file that is filled with zeroes first.
//!
//! A write into sectors that were never written before costs the filesystem a metadata commit at each flush; and so does
//! any write to a file of which another part is being filled. A segment is therefore filled whole before the log gets to
//! it, under another name: whatever has a segment's name is whole. On a device too slow for that, the log does not wait.
//!
//! Each flush of the log takes along the zeroes that were written since the one before: while a segment is filled in one
//! go, flushes take tens of times as long. It is filled a little at a time, as far as the caller asks
//! (`allocate.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ringmq_env::{Env, File, HUGE_BLOCK, IoSlice, OpenOptions};

use super::segment::{NEW_FILE, SEGMENT_HEADER_LEN, Segment, SegmentRange, Segments};
use crate::signal::Signal;

/// Most zeroes that are written at once: other writes get in between.
const SLICE: u64 = HUGE_BLOCK as u64;

/// The segment that is being made, and what was.
pub(super) struct Making<E: Env> {
    /// Not while [`Making::busy`].
    begun: RefCell<Option<Begun<E>>>,
    /// Somebody works on it.
    busy: Cell<bool>,
    /// The group commit waits for it.
    needed: Cell<bool>,
    /// Told when nobody works on it any more.
    changed: Signal,
    /// Segments that were made since the log was opened.
    made: Cell<u64>,
}

/// A file that becomes a segment: allocated, and zero up to `filled`, without its header.
struct Begun<E: Env> {
    range: SegmentRange,
    file: E::File,
    filled: u64,
}

/// What is to be done for a segment.
pub(crate) struct Order<G> {
    /// The segment.
    pub range: SegmentRange,
    /// For its header.
    pub epoch: u64,
    /// Bytes of it that should be zero, from its start; it is made once that is its length.
    pub fill_to: u64,
    /// It is made however far it is zero.
    pub at_once: bool,
    /// Whether to leave off with an error.
    pub give_up: G,
}

impl<E: Env> Default for Making<E> {
    fn default() -> Self {
        Making {
            begun: RefCell::default(),
            busy: Cell::default(),
            needed: Cell::default(),
            changed: Signal::default(),
            made: Cell::default(),
        }
    }
}

impl<E: Env> Segments<E> {
    /// Segments that were made since the log was opened.
    pub(crate) fn made(&self) -> u64 {
        self.making.made.get()
    }

    /// Bytes that are zero, from its start, of a segment that is not made yet; 0 while somebody works on it.
    pub(crate) fn filled(&self, range: &SegmentRange) -> u64 {
        let begun = self.making.begun.borrow();
        begun.as_ref().filter(|begun| begun.range == *range).map_or(0, |begun| begun.filled)
    }

    /// Makes the segment at once if it does not exist, for the group commit, which is one task: what is being made is not
    /// filled up first. The log's first segment, which is small, is. Durable when it returns; nothing is left behind on an
    /// error.
    pub(crate) async fn need(&self, range: SegmentRange, epoch: u64) -> io::Result<()> {
        if self.exists(range.start) {
            return Ok(());
        }
        let making = &self.making;
        making.needed.set(true);
        making.changed.until(|| !making.busy.get()).await;
        // That was for whoever was at work on it; what is made from here on is as asked for.
        making.needed.set(false);
        let fill_to = if self.list.borrow().is_empty() { range.len } else { 0 };
        self.go_on(Order { range, epoch, fill_to, at_once: true, give_up: || false }).await
    }

    /// Goes on with making a segment, if it does not exist. Nothing is left behind on an error, of which
    /// [`io::ErrorKind::Interrupted`] says that it was given up.
    pub(crate) async fn go_on<G: Fn() -> bool>(&self, order: Order<G>) -> io::Result<()> {
        let (making, range) = (&self.making, order.range);
        making.changed.until(|| !making.busy.get()).await;
        if self.exists(range.start) {
            return Ok(());
        }
        making.busy.set(true);
        let made = self.make(&order).await;
        making.busy.set(false);
        if let Ok(Some(file)) = &made {
            let segment = Segment::new(range, Some(file.clone()));
            self.list.borrow_mut().insert(range.start, Rc::new(segment));
            making.made.set(making.made.get() + 1);
        }
        making.changed.notify();
        made.map(drop)
    }

    /// Removes what was begun: the log closes.
    pub(crate) async fn abandon(&self) {
        self.making.changed.until(|| !self.making.busy.get()).await;
        if self.making.begun.take().is_some() {
            self.remove_new().await;
        }
    }

    /// The segment's file, once it is made.
    async fn make<G: Fn() -> bool>(&self, order: &Order<G>) -> io::Result<Option<E::File>> {
        let mut begun = self.making.begun.take();
        if begun.take_if(|begun| begun.range != order.range).is_some() {
            self.remove_new().await;
        }
        if begun.is_none()
            && let Some(file) = self.make_of_spare(order.range, order.epoch).await?
        {
            return Ok(Some(file));
        }
        let made = self.make_of_zeroes(begun, order).await;
        if made.is_err() {
            self.remove_new().await;
        }
        made
    }

    async fn make_of_spare(&self, range: SegmentRange, epoch: u64) -> io::Result<Option<E::File>> {
        while let Some(spare) = self.spares.take(range.len) {
            match self.reuse(&spare, range, epoch).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::warn!(start = spare.range.start, "somebody has removed a spare segment");
                }
                reused => return reused.map(Some),
            }
        }
        Ok(None)
    }

    async fn make_of_zeroes<G: Fn() -> bool>(
        &self,
        begun: Option<Begun<E>>,
        order: &Order<G>,
    ) -> io::Result<Option<E::File>> {
        let mut begun = match begun {
            Some(begun) => begun,
            None => self.begin(order.range).await?,
        };
        self.fill(&mut begun, order).await?;
        if begun.filled < begun.range.len && !order.at_once && !self.making.needed.get() {
            self.making.begun.replace(Some(begun));
            return Ok(None);
        }
        match self.finish(begun, order.epoch).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(start = order.range.start, %error, "has somebody removed the segment that was being made?");
                self.finish(self.begin(order.range).await?, order.epoch).await.map(Some)
            }
            finished => finished.map(Some),
        }
    }

    async fn begin(&self, range: SegmentRange) -> io::Result<Begun<E>> {
        let options = OpenOptions { create: true, dsync: false, ..self.options() };
        let file = self.env.open(&self.new_path(), options).await?;
        file.set_len(0).await?;
        file.allocate(0, range.len).await?;
        Ok(Begun { range, file, filled: SEGMENT_HEADER_LEN })
    }

    /// Writes the zeroes that are asked for, or until the group commit waits for the segment.
    async fn fill<G: Fn() -> bool>(&self, begun: &mut Begun<E>, order: &Order<G>) -> io::Result<()> {
        let left = order.fill_to.saturating_sub(begun.filled);
        if left == 0 {
            return Ok(());
        }
        let zeroes = self.zeroes(left.min(SLICE) as usize).await;
        while begun.filled < order.fill_to && !self.making.needed.get() {
            if (order.give_up)() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = zeroes.len().min((order.fill_to - begun.filled) as usize);
            begun.file.write_at(zeroes.slice(0, len), begun.filled).await?;
            begun.filled += len as u64;
        }
        Ok(())
    }

    /// `len` zeroes; of huge pages if that is all that is written at once.
    async fn zeroes(&self, len: usize) -> IoSlice {
        if len < SLICE as usize {
            return IoSlice::zeroes(len);
        }
        let mut zeroes = self.env.huge_memory(len).await;
        zeroes.append(len);
        zeroes.publish();
        zeroes.slice(0, len)
    }

    /// Writes the header, and gives the file its name, with one flush for all of it.
    async fn finish(&self, begun: Begun<E>, epoch: u64) -> io::Result<E::File> {
        begun.file.write_at(self.config.header_block(begun.range, epoch), 0).await?;
        begun.file.sync().await?;
        self.name(&self.new_path(), &begun.range).await?;
        self.env.open(&self.path(&begun.range), self.options()).await
    }

    /// Removes the file of what is not made any further.
    async fn remove_new(&self) {
        // Gone already if it has its segment's name; the next attempt overwrites it otherwise.
        let _ = self.env.remove_file(&self.new_path()).await;
    }

    fn new_path(&self) -> PathBuf {
        self.config.dir.join(NEW_FILE)
    }
}
