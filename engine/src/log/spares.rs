//! Spare segments: files of what has expired, which become the log's next segments.
//!
//! A new segment is filled with zeroes before the log gets to it, so that every byte of the log is written twice. A file
//! that the log went through once needs no filling: a log that is as long as it may be writes each byte once. What lies
//! in such a file is never taken for the log's, because each frame says where it is. `log/<old start position>.spare`.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::{DirEntry, Env, File, Instant, mutant};

use super::open_segments::give_back_len;
use super::segment::{HeaderProblem, SEGMENT_HEADER_LEN, Segment, SegmentRange, Segments};
use crate::gate::Gate;
use crate::reread::read_again;

/// Files that are kept at most: one is used for each that expires, but deleting comes in bursts.
const MOST: usize = 4;

/// How long the space of a removed file may take to show: its descriptor is closed by the ring.
pub(crate) const RELEASE_TIME: Duration = Duration::from_millis(100);

/// What names of spares end with.
const SUFFIX: &str = ".spare";

/// The spares of one log, all as long as a full-grown segment.
pub(super) struct Spares<E: Env> {
    list: RefCell<Vec<Rc<Segment<E>>>>,
    /// How many became segments since the log was opened.
    used: Cell<u64>,
    /// Held by whoever gives them back.
    releasing: Gate,
    /// When that was done last.
    released: Cell<Option<Instant>>,
}

impl<E: Env> Default for Spares<E> {
    fn default() -> Self {
        Spares {
            list: RefCell::default(),
            used: Cell::new(0),
            releasing: Gate::default(),
            released: Cell::new(None),
        }
    }
}

impl<E: Env> Spares<E> {
    /// A spare of that length, if there is one that nobody reads any more.
    pub(super) fn take(&self, len: u64) -> Option<Rc<Segment<E>>> {
        let mut list = self.list.borrow_mut();
        let is_unread = |spare: &Rc<Segment<E>>| Rc::strong_count(spare) == 1;
        let at = list.iter().position(|spare| spare.range.len == len && is_unread(spare))?;
        Some(list.remove(at))
    }
}

impl<E: Env> Segments<E> {
    /// Removes every segment that ends at or before `position`: what it held has expired. With `spare`, some are kept as
    /// spares. After an error the rest is there still.
    pub(crate) async fn remove_before(&self, position: u64, spare: bool) -> io::Result<()> {
        let mut spares = Vec::new();
        let removed = self.remove_each(position, spare, &mut spares).await;
        match removed {
            // Not before the names are durable: a crash may give a file its old one back, which its header must not
            // contradict.
            Ok(()) => self.spares.list.borrow_mut().extend(spares),
            Err(_) => self.remove_spares(&spares).await,
        }
        removed
    }

    async fn remove_each(
        &self,
        position: u64,
        spare: bool,
        spares: &mut Vec<Rc<Segment<E>>>,
    ) -> io::Result<()> {
        let expired: Vec<_> = self.ranges().into_iter().take_while(|range| range.end() <= position).collect();
        // The first first, each durably before the next, so that a crash in between leaves no gap.
        for range in &expired {
            let Some(segment) = self.list.borrow_mut().remove(&range.start) else { continue };
            let path = self.path(range);
            if spare
                && self.wants_spare(range, spares.len())
                && self.env.rename(&path, &self.spare_path(range)).await.is_ok()
            {
                spares.push(segment);
            } else if let Err(error) = self.env.remove_file(&path).await
                && error.kind() != io::ErrorKind::NotFound
            {
                self.list.borrow_mut().insert(range.start, segment);
                return Err(error);
            }
            if !mutant!("spare-keeps-its-name") {
                self.env.sync_dir(&self.config.dir).await?;
            }
        }
        Ok(())
    }

    fn wants_spare(&self, range: &SegmentRange, more: usize) -> bool {
        range.len == self.config.segment_size && self.spares.list.borrow().len() + more < MOST
    }

    fn spare_path(&self, range: &SegmentRange) -> PathBuf {
        self.config.dir.join(range.name_with(SUFFIX))
    }

    /// Takes in the file of an earlier life, if it is a spare: as one, or it is removed.
    pub(super) async fn adopt_spare(&self, entry: &DirEntry) -> io::Result<()> {
        let Some(range) = SegmentRange::of_name(entry, SUFFIX) else { return Ok(()) };
        match self.wants_spare(&range, 0) && !self.is_segment_too(&range).await {
            true => self.spares.list.borrow_mut().push(Rc::new(Segment::new(range, None))),
            false => self.env.remove_file(&self.spare_path(&range)).await?,
        }
        Ok(())
    }

    /// Whether a spare that was found is a segment of the list under another name: a crash may leave both names of a file
    /// that was being renamed. One that cannot be read is as good as that.
    async fn is_segment_too(&self, spare: &SegmentRange) -> bool {
        let header = async {
            let file = self.env.open(&self.spare_path(spare), self.options()).await?;
            read_again(&file, 0, SEGMENT_HEADER_LEN as usize).await
        };
        let Ok(header) = header.await else { return true };
        match self.config.check(spare.start, &header) {
            Ok(_) => self.exists(spare.start),
            Err(HeaderProblem::Misplaced(start)) => self.exists(start),
            Err(_) => false,
        }
    }

    /// Makes a spare the segment of `range`. Durable when it returns; on an error the spare is gone.
    pub(super) async fn reuse(
        &self,
        spare: &Segment<E>,
        range: SegmentRange,
        epoch: u64,
    ) -> io::Result<E::File> {
        let old = self.spare_path(&spare.range);
        let reused = async {
            let file = self.env.open(&old, self.options()).await?;
            // It may have been cut off while it was a segment.
            give_back_len(&file, range.len).await?;
            file.write_at(self.config.header_block(range, epoch), 0).await?;
            file.sync().await?;
            self.name(&old, &range).await?;
            Ok(file)
        };
        let reused = reused.await;
        match &reused {
            Ok(_) => self.spares.used.set(self.spares.used.get() + 1),
            // Gone already if it has its new name: whatever is made there next takes its place.
            Err(_) => drop(self.env.remove_file(&old).await),
        }
        reused
    }

    async fn remove_spares(&self, spares: &[Rc<Segment<E>>]) {
        for spare in spares {
            let path = self.spare_path(&spare.range);
            if let Err(error) = self.env.remove_file(&path).await {
                tracing::warn!(path = %path.display(), %error, "a spare segment stays until the next start");
            }
        }
    }

    /// Spares that became segments since the log was opened.
    pub(crate) fn reused(&self) -> u64 {
        self.spares.used.get()
    }

    /// Gives the disk the space of all spares back; true if there were any, or somebody has done so within
    /// [`RELEASE_TIME`].
    pub(crate) async fn release_spares(&self) -> bool {
        let _pass = self.spares.releasing.enter().await;
        let spares = self.spares.list.take();
        if !spares.is_empty() {
            self.remove_spares(&spares).await;
            if let Err(error) = self.env.sync_dir(&self.config.dir).await {
                tracing::warn!(dir = %self.config.dir.display(), %error, "spare segments may take space for longer");
            }
            self.spares.released.set(Some(self.env.now()));
        }
        self.spares.released.get().is_some_and(|at| self.env.now().since(at) < RELEASE_TIME)
    }
}
