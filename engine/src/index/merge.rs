//! Merging runs: a few that follow one another become one that holds what they hold, so that a long log has few of
//! them, and a search or a start looks at few.
//!
//! It goes on beside everything else. Only when the merged run is on the device does it take the place of the others,
//! and only when it has its name, durably, are they removed: until then a start finds them, from then on it finds
//! them within the range of a longer one, and removes them.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::{Env, Fatal, IoSlice, fatal, mutant, prefetch};
use smallvec::SmallVec;

use super::build::{Finished, QueueName, RunBuilder};
use super::flush::run_path;
use super::format::*;
use super::run::{self, Run, RunError};
use super::{Index, State, sorted};
use crate::meta::is_full;

/// Runs of one size that are merged into one of the next.
pub(super) const FAN_IN: usize = 8;
/// Bytes of the log that a run of the second size covers at least; each further size is [`FAN_IN`] times the one before.
const SECOND_SIZE: u64 = 512 << 20;
/// A run that covers so much of the log is merged no more: expired messages keep their part of it until all of them have
/// expired.
const FULL_GROWN: u64 = 4 << 30;
/// Bytes that a topic takes in the names section, if its name is a short one.
const NAME_BYTES: usize = 12;
/// Blocks of a section that are read at a time.
const BLOCKS: u32 = 16;
/// After so many bytes that were written the disk is left to others for a moment.
const BURST: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(2);

const _: () = assert!(FAN_IN as u64 * FULL_GROWN <= MAX_SPAN);

/// Why nothing came of a merge.
enum MergeError {
    Read(Rc<Run>, RunError),
    Write(io::Error),
    GivenUp,
}

impl From<io::Error> for MergeError {
    fn from(error: io::Error) -> Self {
        MergeError::Write(error)
    }
}

/// How often a run of this span is the outcome of a merge of runs of the first size.
fn size_class(span: u64) -> u32 {
    (span / SECOND_SIZE).checked_ilog(FAN_IN as u64).map_or(0, |class| class + 1)
}

impl State {
    /// The runs to merge next: the oldest [`FAN_IN`] that follow one another, of the smallest size of which there are so
    /// many.
    fn mergeable(&self) -> Option<&[Rc<Run>]> {
        let span = |run: &Run| run.header.to - run.header.from;
        (0..size_class(FULL_GROWN)).find_map(|class| {
            let fits = |run: &Rc<Run>| {
                size_class(span(run)) == class && !run.damaged.get() && run.header.from >= self.log_min
            };
            self.runs.windows(FAN_IN).find(|window| window.iter().all(fits) && is_countable(window))
        })
    }
}

/// Whether one run can hold what these do: its header counts in 32 bits.
fn is_countable(runs: &[Rc<Run>]) -> bool {
    let counts = |header: &Header| [header.entries, header.extents, header.names, header.keys].map(u64::from);
    (0..4).all(|of| runs.iter().map(|run| counts(&run.header)[of]).sum::<u64>() <= u64::from(u32::MAX))
}

/// Extents, each with the number of the run that it is of.
type Extents = SmallVec<[(usize, Extent); FAN_IN]>;

/// One of the runs that are merged, read from its beginning to its end.
struct Input<E: Env> {
    run: Rc<Run>,
    names: Vec<u8>,
    extents: VecDeque<Extent>,
    directory: Blocks<E>,
    entries: Blocks<E>,
    /// Keys as the merged run has them, of which the first few are taken.
    keys: Vec<PackedKey>,
    taken: usize,
    key_shift: KeyShift,
    key_blocks: Blocks<E>,
}

/// The blocks of a section, read in order, past the cache.
struct Blocks<E: Env> {
    file: E::File,
    next: u32,
    end: u32,
    read: VecDeque<(u32, IoSlice)>,
}

impl<E: Env> Blocks<E> {
    fn new(file: &E::File, range: std::ops::Range<u32>) -> Blocks<E> {
        Blocks { file: file.clone(), next: range.start, end: range.end, read: VecDeque::new() }
    }

    /// Whether there is no block any more.
    fn is_done(&self) -> bool {
        self.read.is_empty() && self.next == self.end
    }

    /// The first block that was not dropped yet; `None` behind the last.
    async fn first(&mut self, header: &Header) -> Result<Option<&(u32, IoSlice)>, RunError> {
        if self.read.is_empty() && self.next < self.end {
            let end = self.end.min(self.next + BLOCKS);
            self.read.extend(run::section(&self.file, header, self.next..end).await?);
            self.next = end;
        }
        Ok(self.read.front())
    }

    /// Block `number`, and none before it from now on; if it was dropped, reading begins anew there.
    async fn seek(&mut self, header: &Header, number: u32) -> Result<&IoSlice, RunError> {
        if self.read.front().is_some_and(|(first, _)| number < *first) {
            self.read.clear();
        }
        while self.read.front().is_some_and(|(first, _)| *first < number) {
            self.read.pop_front();
        }
        if self.read.is_empty() {
            self.next = number;
        }
        let (found, block) = self.first(header).await?.ok_or(RunError::Damaged(number))?;
        assert!(*found == number, "blocks are read in order");
        Ok(block)
    }
}

impl<E: Env> Input<E> {
    async fn open(index: &Index<E>, run: &Rc<Run>, merged: &Header) -> Result<Input<E>, RunError> {
        let file = index.0.reader.open(&run.path).await?;
        let layout = run.header.layout();
        Ok(Input {
            run: Rc::clone(run),
            names: run::read_names(&file, &run.header).await?,
            extents: VecDeque::new(),
            directory: Blocks::new(&file, layout.directory..layout.names),
            entries: Blocks::new(&file, layout.entries..layout.directory),
            keys: Vec::with_capacity(KEYS_PER_BLOCK),
            taken: 0,
            key_shift: KeyShift::new(
                if mutant!("merge-misplaces-keys") { merged } else { &run.header },
                merged,
            ),
            key_blocks: Blocks::new(&file, layout.keys..layout.fences),
        })
    }

    fn failed(&self, error: RunError) -> MergeError {
        MergeError::Read(Rc::clone(&self.run), error)
    }

    /// The next extent; `None` behind the last.
    async fn extent(&mut self) -> Result<Option<&Extent>, RunError> {
        if self.extents.is_empty()
            && let Some((number, block)) = self.directory.first(&self.run.header).await?
        {
            for extent in run::extents_in(&self.run.header, *number, block) {
                let extent = extent?;
                // The queues are in the order of their hashes, and their names are anywhere.
                self.names.get(extent.name as usize).inspect(|name| prefetch(*name));
                self.extents.push_back(extent);
            }
            self.directory.read.pop_front();
        }
        Ok(self.extents.front())
    }

    fn topic(&self, extent: &Extent) -> Result<&str, RunError> {
        let block = self.run.header.layout().names;
        name_at(&self.names, extent.name).ok_or(RunError::Damaged(block))
    }

    /// Entries of the extent from its `skip`th on, as many as lie in one block.
    async fn entries(&mut self, extent: &Extent, skip: u32) -> Result<&[[u8; ENTRY]], RunError> {
        let (at, end) = ((extent.entry + skip) as usize, (extent.entry + extent.count) as usize);
        let (block, within) = (at / ENTRIES_PER_BLOCK, at % ENTRIES_PER_BLOCK);
        let count = (end - at).min(ENTRIES_PER_BLOCK - within);
        let header = &self.run.header;
        let bytes = self.entries.seek(header, header.layout().entries + block as u32).await?;
        let (entries, _) = bytes.as_chunks();
        Ok(&entries[within..within + count])
    }

    /// Reads on if all keys that were read are taken.
    async fn read_keys(&mut self) -> Result<(), RunError> {
        if self.taken == self.keys.len()
            && let Some((number, block)) = self.key_blocks.first(&self.run.header).await?
        {
            self.keys.clear();
            self.keys.extend(self.run.keys_in(block, *number).map(|key| key.moved(&self.key_shift)));
            self.taken = 0;
            self.key_blocks.read.pop_front();
        }
        Ok(())
    }

    /// The last key that was read, if more can be: those are not smaller.
    fn last_key(&self) -> Option<PackedKey> {
        self.keys.last().filter(|_| !self.key_blocks.is_done()).copied()
    }

    /// Takes the keys that were read up to `bound`.
    fn take_keys(&mut self, bound: Option<PackedKey>) -> &[PackedKey] {
        let left = &self.keys[self.taken..];
        let wanted = bound.map_or(left.len(), |bound| left.partition_point(|key| *key <= bound));
        self.taken += wanted;
        &left[..wanted]
    }
}

impl<E: Env> Index<E> {
    /// Whether there are runs that should be one.
    pub(crate) fn merge_due(&self) -> bool {
        self.0.state.borrow().mergeable().is_some()
    }

    /// Merges a few runs, if it is time. Ends early, with nothing done, once `give_up` says so. Without disk space, or
    /// when a run cannot be read, it fails, and nothing is lost: call it again later. Any other failure of a write ends
    /// the process.
    pub(crate) async fn merge(&self, give_up: impl Fn() -> bool) -> io::Result<()> {
        let runs = self.0.state.borrow().mergeable().map(<[_]>::to_vec);
        let Some(runs) = runs else { return Ok(()) };
        let header = self.merged_header(&runs);
        let place = run_path(&self.0.dir, header.from, header.to);
        let temporary = place.with_extension("tmp");
        let merged = async {
            let finished = self.write_merged(&runs, header, &temporary, &give_up).await?;
            self.replace(&runs, finished, &place).await
        };
        let Err(error) = merged.await else { return Ok(()) };
        // What is left behind is removed at the next start.
        let _ = self.0.env.remove_file(&temporary).await;
        match error {
            MergeError::GivenUp => Ok(()),
            MergeError::Read(_, RunError::Io(error)) => Err(error),
            MergeError::Read(run, error) => {
                self.report_damage(&run, &error).await;
                Ok(())
            }
            MergeError::Write(error) if is_full(&error) => Err(error),
            MergeError::Write(error) => fatal(Fatal::Write { path: temporary, error }),
        }
    }

    fn merged_header(&self, runs: &[Rc<Run>]) -> Header {
        let with_keys = runs.iter().map(|run| &run.header).filter(|header| header.keys > 0);
        let from_ms = with_keys.clone().map(|header| whole_second(header.keys_from_ms)).min();
        let to_ms = with_keys.map(|header| header.keys_to_ms).max();
        Header {
            format: FORMAT,
            id: self.0.env.random(),
            from: runs[0].header.from,
            to: runs[runs.len() - 1].header.to,
            keys_from_ms: from_ms.unwrap_or_default(),
            keys_to_ms: to_ms.unwrap_or_default(),
            ..Header::default()
        }
    }

    async fn write_merged(
        &self,
        runs: &[Rc<Run>],
        header: Header,
        temporary: &Path,
        give_up: &impl Fn() -> bool,
    ) -> Result<Finished<E>, MergeError> {
        let mut inputs = Vec::with_capacity(runs.len());
        for run in runs {
            let input = Input::open(self, run, &header).await;
            inputs.push(input.map_err(|error| MergeError::Read(Rc::clone(run), error))?);
        }
        let env = &self.0.env;
        let topics = inputs.iter().map(|input| input.names.len() / NAME_BYTES).max().unwrap_or(0);
        let mut builder = RunBuilder::create(env.clone(), temporary.to_path_buf(), header, topics).await?;
        let mut burst = Burst { env, written: 0, give_up };
        while let Some(extents) = next_extents(&mut inputs).await? {
            self.copy_queues(&mut inputs, extents, &mut builder, &mut burst).await?;
        }
        builder.end_queues().await?;
        let mut buffers = Default::default();
        loop {
            let keys = next_keys(&mut inputs, &mut buffers).await?;
            if keys.is_empty() {
                break;
            }
            builder.add_keys(keys).await?;
            burst.pause(builder.written()).await?;
        }
        Ok(builder.finish().await?)
    }

    /// Copies what the runs have of the queues with one hash, queue after queue, in the order of the log.
    async fn copy_queues(
        &self,
        inputs: &mut [Input<E>],
        mut extents: Extents,
        builder: &mut RunBuilder<E>,
        burst: &mut Burst<'_, E, impl Fn() -> bool>,
    ) -> Result<(), MergeError> {
        let mut topic = String::new();
        while let Some((at, first)) = extents.first().copied() {
            topic.clear();
            topic.push_str(inputs[at].topic(&first).map_err(|error| inputs[at].failed(error))?);
            let is_its = |(at, extent): &(usize, Extent)| {
                extent.queue == first.queue && inputs[*at].topic(extent).is_ok_and(|other| other == topic)
            };
            let (of_queue, others): (Extents, Extents) = extents.into_iter().partition(is_its);
            extents = others;
            // What was deleted is not continued by what came later, whatever its offsets.
            let since = self.deleted_at(&topic).0;
            let name = QueueName { hash: first.hash, topic: builder.name_place(&topic), queue: first.queue };
            for (at, extent) in of_queue {
                let input = &mut inputs[at];
                let is_cut = at == 0 && mutant!("merge-drops-an-entry");
                let count = extent.count - u32::from(is_cut);
                let mut done = 0;
                while done < count {
                    let run = Rc::clone(&input.run);
                    let entries = input.entries(&extent, done).await;
                    let entries = entries.map_err(|error| MergeError::Read(run, error))?;
                    let entries = &entries[..entries.len().min((count - done) as usize)];
                    let decode = |entry: &[u8; ENTRY]| extent.decode_entry(entry);
                    builder.add(&name, since, extent.first + i64::from(done), entries, decode).await?;
                    done += entries.len() as u32;
                    burst.pause(builder.written()).await?;
                }
            }
        }
        Ok(())
    }

    /// The merged run takes the place of the others, unless one of them has expired meanwhile.
    async fn replace(&self, runs: &[Rc<Run>], finished: Finished<E>, place: &Path) -> Result<(), MergeError> {
        let _pass = self.0.changing_runs.enter().await;
        let is_merged = |run: &Rc<Run>| runs.iter().any(|merged| Rc::ptr_eq(merged, run));
        if self.0.state.borrow().runs.iter().filter(|run| is_merged(run)).count() < runs.len() {
            return Err(MergeError::GivenUp);
        }
        let built = finished.put_in_place(place).await?;
        let bytes = built.bytes;
        let merged = Rc::new(Run::new(built.header, place.to_path_buf(), built.fences, built.filter));
        {
            let mut state = self.0.state.borrow_mut();
            let mut all = state.runs.to_vec();
            let first = all.iter().position(is_merged).expect("looked at above");
            all.splice(first..first + runs.len(), [merged]);
            state.runs = Rc::new(all);
            state.bytes_written += bytes;
        }
        for run in runs {
            self.0.reader.forget(run);
            if let Err(error) = self.0.env.remove_file(&run.path).await {
                // The next start removes it.
                tracing::warn!(path = %run.path.display(), %error, "a run that was merged is still there");
            }
        }
        Ok(self.0.env.sync_dir(&self.0.dir).await?)
    }
}

/// Lets others have the disk now and then.
struct Burst<'a, E: Env, G: Fn() -> bool> {
    env: &'a E,
    written: u64,
    give_up: &'a G,
}

impl<E: Env, G: Fn() -> bool> Burst<'_, E, G> {
    /// To be called often, with what is written so far.
    async fn pause(&mut self, written: u64) -> Result<(), MergeError> {
        if written - self.written < BURST {
            return Ok(());
        }
        self.written = written;
        if (self.give_up)() {
            return Err(MergeError::GivenUp);
        }
        self.env.sleep(PAUSE).await;
        Ok(())
    }
}

/// All extents with the smallest hash that is left, those of older runs first, and which run each is of.
async fn next_extents<E: Env>(inputs: &mut [Input<E>]) -> Result<Option<Extents>, MergeError> {
    let mut least: Option<u64> = None;
    for input in inputs.iter_mut() {
        let head = input.extent().await.map(|extent| extent.map(|extent| extent.hash));
        let head = head.map_err(|error| input.failed(error))?;
        least = head.into_iter().chain(least).min();
    }
    let Some(hash) = least else { return Ok(None) };
    let mut found = Extents::new();
    for (at, input) in inputs.iter_mut().enumerate() {
        loop {
            let head = input.extent().await.map(Option::<&Extent>::copied);
            let head = head.map_err(|error| input.failed(error))?;
            let Some(extent) = head.filter(|extent| extent.hash == hash) else { break };
            found.push((at, extent));
            input.extents.pop_front();
        }
    }
    Ok(Some(found))
}

/// The next keys in their order; none when there are no more.
async fn next_keys<'a, E: Env>(
    inputs: &mut [Input<E>],
    buffers: &'a mut [Vec<PackedKey>; 2],
) -> Result<&'a [PackedKey], MergeError> {
    for input in inputs.iter_mut() {
        let read = input.read_keys().await;
        read.map_err(|error| input.failed(error))?;
    }
    // Nothing that is to be read yet comes before it.
    let bound = inputs.iter().filter_map(|input| input.last_key()).min();
    let stretches: SmallVec<[&[PackedKey]; FAN_IN]> =
        inputs.iter_mut().map(|input| input.take_keys(bound)).collect();
    Ok(sorted::merge(&stretches, buffers))
}
