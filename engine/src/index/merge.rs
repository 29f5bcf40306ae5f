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

use ringmq_env::{Env, Fatal, IoSlice, fatal, mutant};
use smallvec::SmallVec;

use super::build::{Expected, Finished, QueueName, RunBuilder};
use super::flush::run_path;
use super::format::*;
use super::run::{self, Run, RunError};
use super::topics::{Places, Topics};
use super::{Index, State, sorted};
use crate::meta::is_full;
use crate::slices::Pacer;

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
/// Extents of a run that are put in order with those of the others at a time, if it has so many more.
const EXTENTS: usize = 2 * EXTENTS_PER_BLOCK;
/// Extents of which the topics' names are fetched into the cache together, before they are copied.
const AHEAD: usize = 64;
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

/// An extent of a run that is merged, in its place among all: the hash of its queue, the number of its run, and which it is
/// of those that were read. One number, so that the order is found without a branch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u128);

impl Place {
    fn new(hash: u64, run: usize, index: usize) -> Place {
        Place(u128::from(hash) << 64 | (run as u128) << 32 | index as u128)
    }

    fn hash(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn run(self) -> usize {
        (self.0 as u64 >> 32) as usize
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }
}

/// One of the runs that are merged, read from its beginning to its end.
struct Input<E: Env> {
    run: Rc<Run>,
    /// Its number among those that are merged.
    number: usize,
    topics: Places,
    /// Some extents, of which the first few are taken, with the numbers of their topics for places of their names.
    extents: Vec<Extent>,
    order: Vec<Place>,
    extents_taken: usize,
    /// Of all extents that were read: the last one's hash, and how many entries they have.
    read_hash: u64,
    read_entries: u64,
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

    /// Block `number`, if it is the first that was not dropped.
    fn at(&self, number: u32) -> Option<&IoSlice> {
        self.read.front().filter(|(first, _)| *first == number).map(|(_, block)| block)
    }

    /// Reads block `number`, and has none before it from now on; if it was dropped, reading begins anew there.
    async fn seek(&mut self, header: &Header, number: u32) -> Result<(), RunError> {
        if self.read.front().is_some_and(|(first, _)| number < *first) {
            self.read.clear();
        }
        while self.read.front().is_some_and(|(first, _)| *first < number) {
            self.read.pop_front();
        }
        if self.read.is_empty() {
            self.next = number;
        }
        let (found, _) = self.first(header).await?.ok_or(RunError::Damaged(number))?;
        assert!(*found == number, "blocks are read in order");
        Ok(())
    }
}

impl<E: Env> Input<E> {
    /// Opens the `number`th of the runs, and takes its topics in.
    async fn open(
        index: &Index<E>,
        (number, run): (usize, &Rc<Run>),
        merged: &Header,
        topics: &mut Topics,
        pacer: &mut Pacer<E>,
    ) -> Result<Input<E>, RunError> {
        let file = index.0.reader.open(&run.path).await?;
        let layout = run.header.layout();
        let names = run::read_names(&file, &run.header).await?;
        Ok(Input {
            run: Rc::clone(run),
            number,
            topics: topics.add(&names, pacer).await,
            extents: Vec::new(),
            order: Vec::new(),
            extents_taken: 0,
            read_hash: 0,
            read_entries: 0,
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

    /// The queues are done: only the keys are wanted from now on.
    fn forget_topics(&mut self) {
        self.topics = Places::new(0);
    }

    fn failed(&self, error: RunError) -> MergeError {
        MergeError::Read(Rc::clone(&self.run), error)
    }

    /// Whether more extents should be read before some are taken: few are left, or all that are there are of one hash, and
    /// more may be.
    fn wants_extents(&self) -> bool {
        let left = &self.order[self.extents_taken..];
        let is_of_one = || left.first().map(|place| place.hash()) == left.last().map(|place| place.hash());
        !self.directory.is_done() && (left.len() < EXTENTS || is_of_one())
    }

    /// Reads on in the directory if need be.
    async fn read_extents(&mut self) -> Result<(), RunError> {
        if self.wants_extents() {
            self.read_some_extents().await?;
        }
        let is_short = self.read_entries < u64::from(self.run.header.entries);
        match self.directory.is_done() && is_short {
            true => Err(RunError::Damaged(self.run.header.layout().directory)),
            false => Ok(()),
        }
    }

    async fn read_some_extents(&mut self) -> Result<(), RunError> {
        self.extents.drain(..self.extents_taken);
        self.extents_taken = 0;
        self.order.clear();
        let places = |(index, extent): (usize, &Extent)| Place::new(extent.hash, self.number, index);
        self.order.extend(self.extents.iter().enumerate().map(places));
        while self.wants_extents() {
            let Some((number, block)) = self.directory.first(&self.run.header).await? else { break };
            let from = self.extents.len();
            for extent in run::extents_in(&self.run.header, *number, block) {
                let extent = extent?;
                self.read_entries += u64::from(extent.count);
                // What the merged run has, and where, follows from these two.
                let fits =
                    extent.hash >= self.read_hash && self.read_entries <= u64::from(self.run.header.entries);
                if !fits {
                    return Err(RunError::Damaged(*number));
                }
                self.read_hash = extent.hash;
                self.order.push(Place::new(extent.hash, self.number, self.extents.len()));
                self.extents.push(extent);
            }
            self.directory.read.pop_front();
            if !self.topics.resolve(&mut self.extents[from..]) {
                return Err(RunError::Damaged(self.run.header.layout().names));
            }
        }
        Ok(())
    }

    /// Hash of the last extent that was read, if more can be: of that hash there may be more.
    fn last_hash(&self) -> Option<u64> {
        self.order.last().filter(|_| !self.directory.is_done()).map(|place| place.hash())
    }

    /// Takes the extents that were read below `bound`.
    fn take_extents(&mut self, bound: Option<u64>) -> &[Place] {
        let left = &self.order[self.extents_taken..];
        let wanted = bound.map_or(left.len(), |bound| left.partition_point(|place| place.hash() < bound));
        self.extents_taken += wanted;
        &left[..wanted]
    }

    /// Entries of the extent from its `skip`th on, as many as lie in one block, if that is read already; else its number.
    fn entries(&self, extent: &Extent, skip: u32) -> Result<&[[u8; ENTRY]], u32> {
        let (at, end) = ((extent.entry + skip) as usize, (extent.entry + extent.count) as usize);
        let (block, within) = (at / ENTRIES_PER_BLOCK, at % ENTRIES_PER_BLOCK);
        let count = (end - at).min(ENTRIES_PER_BLOCK - within);
        // The entries come first.
        let number = FIRST_BLOCK + block as u32;
        let (entries, _) = self.entries.at(number).ok_or(number)?.as_chunks();
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
        let env = &self.0.env;
        let mut pacer = Pacer::new(env);
        let most = runs.iter().map(|run| run.header.names as usize / NAME_BYTES).max().unwrap_or(0);
        let mut topics = Topics::with_capacity(most);
        let mut inputs = Vec::with_capacity(runs.len());
        for run in runs.iter().enumerate() {
            let input = Input::open(self, run, &header, &mut topics, &mut pacer).await;
            inputs.push(input.map_err(|error| MergeError::Read(Rc::clone(run.1), error))?);
        }
        let cut = if mutant!("merge-drops-an-entry") { runs[0].header.extents } else { 0 };
        let expected = Expected {
            entries: runs.iter().map(|run| run.header.entries).sum::<u32>() - cut,
            extents: runs.iter().map(|run| run.header.extents as usize).sum(),
        };
        let place = temporary.to_path_buf();
        let mut builder = RunBuilder::create(env.clone(), place, header, Some(expected)).await?;
        let mut burst = Burst { env, written: 0, give_up };
        let mut buffers = Default::default();
        loop {
            let places = next_extents(&mut inputs, &mut buffers).await?;
            if places.is_empty() {
                break;
            }
            for some in places.chunks(AHEAD) {
                self.copy_extents(&mut inputs, some, &mut topics, &mut builder, &mut burst).await?;
                builder.write_directory().await?;
                builder.done(some.len()).await;
                burst.pause(builder.written()).await?;
            }
        }
        drop(topics);
        builder.end_queues().await?;
        inputs.iter_mut().for_each(Input::forget_topics);
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

    /// Copies extents with their entries. Those of one queue come in the order of the log.
    async fn copy_extents(
        &self,
        inputs: &mut [Input<E>],
        places: &[Place],
        topics: &mut Topics,
        builder: &mut RunBuilder<E>,
        burst: &mut Burst<'_, E, impl Fn() -> bool>,
    ) -> Result<(), MergeError> {
        let extent_at = |inputs: &[Input<E>], place: &Place| inputs[place.run()].extents[place.index()];
        places.iter().for_each(|place| topics.prefetch(extent_at(inputs, place).name));
        for place in places {
            let extent = extent_at(inputs, place);
            let input = &mut inputs[place.run()];
            let topic = topics.place(extent.name, |name| builder.add_name(name));
            // What was deleted is not continued by what came later, whatever its offsets.
            let since = if self.has_deletions() { self.deleted_at(topics.name(extent.name)).0 } else { 0 };
            let name = QueueName { hash: extent.hash, topic, queue: extent.queue };
            let is_cut = place.run() == 0 && mutant!("merge-drops-an-entry");
            let count = extent.count - u32::from(is_cut);
            let mut done = 0;
            while done < count {
                let entries = match input.entries(&extent, done) {
                    Ok(entries) => entries,
                    Err(block) => {
                        let read = input.entries.seek(&input.run.header, block).await;
                        read.map_err(|error| input.failed(error))?;
                        continue;
                    }
                };
                let entries = &entries[..entries.len().min((count - done) as usize)];
                let decode = |entry: &[u8; ENTRY]| extent.decode_entry(entry);
                let added = builder.add(&name, since, extent.first + i64::from(done), entries, decode);
                if added == 0 {
                    builder.end_block().await?;
                }
                done += added as u32;
                if added > 1 {
                    builder.done_quickly(added).await;
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
        if written.saturating_sub(self.written) < BURST {
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

/// The next extents in their order: by hash, and those of one hash by their runs, oldest first. All of a hash come at once;
/// none when there are no more.
async fn next_extents<'a, E: Env>(
    inputs: &mut [Input<E>],
    buffers: &'a mut [Vec<Place>; 2],
) -> Result<&'a [Place], MergeError> {
    for input in inputs.iter_mut() {
        let read = input.read_extents().await;
        read.map_err(|error| input.failed(error))?;
    }
    // Of this hash there may be more to be read. Each run has some below its own last one.
    let bound = inputs.iter().filter_map(|input| input.last_hash()).min();
    let stretches: SmallVec<[&[Place]; FAN_IN]> =
        inputs.iter_mut().map(|input| input.take_extents(bound)).collect();
    Ok(sorted::merge(&stretches, buffers))
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
