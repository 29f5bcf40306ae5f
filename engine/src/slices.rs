//! How long background work holds its core at a stretch: it is cut into slices, and each is measured.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::{Env, Instant};

/// Work of a shard that goes on beside requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// What the index has in memory is written as a run.
    IndexFlush,
    /// Runs of the index are merged.
    IndexMerge,
    /// The tables of waiting records are saved and merged.
    PendingSave,
    /// The oldest segment goes.
    Retention,
    /// A metadata log is written anew without what is outdated.
    MetadataCompaction,
}

impl Job {
    /// Every job.
    pub const ALL: [Job; 5] =
        [Job::IndexFlush, Job::IndexMerge, Job::PendingSave, Job::Retention, Job::MetadataCompaction];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Job::IndexFlush => "index-flush",
            Job::IndexMerge => "index-merge",
            Job::PendingSave => "pending-save",
            Job::Retention => "retention",
            Job::MetadataCompaction => "metadata-compaction",
        }
    }
}

/// Upper bounds of the classes in which slices are counted, in ms.
pub const SLICE_BOUNDS_MS: [u64; 6] = [1, 2, 5, 10, 20, 50];

/// The slices of a job since it was started first: what of it ran without giving the core back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceStats {
    /// Slices of each class of [`SLICE_BOUNDS_MS`].
    pub classes: [u64; SLICE_BOUNDS_MS.len()],
    /// Longer ones.
    pub beyond: u64,
    /// Time of all together, in ns.
    pub sum_ns: u64,
    /// The longest, in ns.
    pub max_ns: u64,
}

impl SliceStats {
    fn add(&mut self, slice: Duration) {
        let ns = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        let class = SLICE_BOUNDS_MS.iter().position(|bound| ns <= bound * 1_000_000);
        *class.map_or(&mut self.beyond, |class| &mut self.classes[class]) += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }
}

/// The slices of the jobs of one owner. Cheap to clone: clones are the same counts.
#[derive(Clone, Default)]
pub(crate) struct Slices(Rc<RefCell<[SliceStats; Job::ALL.len()]>>);

impl Slices {
    /// Does the work and measures how long each of its slices takes.
    pub(crate) async fn measured<E: Env, T>(&self, env: &E, job: Job, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            let begun = env.now();
            let polled = work.as_mut().poll(context);
            self.0.borrow_mut()[job as usize].add(env.now().since(begun));
            polled
        })
        .await
    }

    /// What was measured of a job.
    pub(crate) fn of(&self, job: Job) -> SliceStats {
        self.0.borrow()[job as usize]
    }
}

/// What a slice should take at most, well below the millisecond that nothing may take.
const SLICE: Duration = Duration::from_micros(250);
/// Items between two looks at the clock: a few microseconds. Also what a piece of work counts as that takes as long as
/// so many.
pub(crate) const LOOK: usize = 64;
/// Items that count as one, where each is but copied.
const QUICK: usize = 8;

/// Cuts work into slices.
pub(crate) struct Pacer<E: Env> {
    env: E,
    begun: Instant,
    /// Since then.
    items: usize,
    /// When the clock is looked at next.
    look_at: usize,
}

impl<E: Env> Pacer<E> {
    /// The first slice begins now.
    pub(crate) fn new(env: &E) -> Pacer<E> {
        Pacer { env: env.clone(), begun: env.now(), items: 0, look_at: LOOK.min(E::SLICE_ITEMS) }
    }

    /// To be called each time that `items` more are done, for each single one if need be: gives the core back once the
    /// slice is long enough.
    #[inline]
    pub(crate) async fn done(&mut self, items: usize) {
        self.items += items;
        if self.items >= self.look_at {
            self.look().await;
        }
    }

    /// The same for items that are but copied. Where the clock stands still they count as any others.
    #[inline]
    pub(crate) async fn done_quickly(&mut self, items: usize) {
        let cost = if E::SLICE_ITEMS == usize::MAX { QUICK } else { 1 };
        self.done(items.div_ceil(cost)).await;
    }

    async fn look(&mut self) {
        self.look_at = self.items.saturating_add(LOOK).min(E::SLICE_ITEMS);
        if self.items >= E::SLICE_ITEMS || self.env.now().since(self.begun) >= SLICE {
            self.env.yield_now().await;
            *self = Pacer::new(&self.env);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ringmq_env::sim::{Sim, SimEnv};

    use super::*;

    #[test]
    fn work_is_cut_into_slices_and_each_is_measured() {
        let sim = Sim::new(1);
        sim.run(async {
            let (env, slices, others) = (sim.node("a"), Slices::default(), Rc::new(Cell::new(0)));
            let seen = Rc::clone(&others);
            let other = env.clone();
            env.spawn(async move {
                loop {
                    seen.set(seen.get() + 1);
                    other.yield_now().await;
                }
            });
            let work = async {
                let mut pacer = Pacer::new(&env);
                for _ in 0..10 * SimEnv::SLICE_ITEMS {
                    pacer.done(1).await;
                }
            };
            slices.measured(&env, Job::IndexMerge, work).await;
            let found = slices.of(Job::IndexMerge);
            assert_eq!((found.classes[0], found.beyond), (11, 0));
            assert!(others.get() > 0, "others had their turn");
            assert_eq!(slices.of(Job::Retention), SliceStats::default());
        });
    }

    #[test]
    fn a_slice_is_counted_where_it_belongs() {
        let mut stats = SliceStats::default();
        for us in [900, 1000, 1001, 49_000, 51_000] {
            stats.add(Duration::from_micros(us));
        }
        assert_eq!((stats.classes, stats.beyond), ([2, 1, 0, 0, 0, 1], 1));
        assert_eq!((stats.max_ns, stats.sum_ns), (51_000_000, 102_901_000));
    }
}
