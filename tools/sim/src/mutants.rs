//! Planted bugs, each of which must be found: what tells whether the simulator sees anything at all.

use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use ringmq_env::sim::Fault;

use crate::outcome;
use crate::plan::{
    Cuts,
    Level::{self, Node, Shard},
    Plan,
};
use crate::threads::{cores, in_threads};

/// A planted bug: its name, where it is looked for, the faults that have to be there, and what it does.
struct Mutant(&'static str, Level, &'static [Fault], &'static str);

/// All of them. Each name stands in a `mutant!` of the code.
const MUTANTS: &[Mutant] = &[
    Mutant(
        "ack-before-sync",
        Shard,
        &[],
        "SYNC_FLUSH opens the log without O_DSYNC: acknowledged before it is durable",
    ),
    Mutant(
        "skip-crc",
        Shard,
        &[Fault::RotCold, Fault::RotTail],
        "a record from disk is served without a look at its CRC",
    ),
    Mutant("retry-failed-sync", Shard, &[Fault::SyncError], "a failed flush is tried again, and believed"),
    Mutant(
        "ignore-no-space",
        Shard,
        &[Fault::NoSpaceAnywhere],
        "a group commit without disk space counts as written",
    ),
    Mutant("drop-tail-journal", Shard, &[], "what the log has not got yet is written nowhere"),
    Mutant("overwrite-tail-slot", Shard, &[], "the tail journal overwrites its newest slot"),
    Mutant(
        "block-forgets-unwritten",
        Shard,
        &[],
        "a new block of the tail goes on behind what the log has not got",
    ),
    Mutant("mark-vouches-for-itself", Shard, &[], "a mark counts its own group as written"),
    Mutant("journal-keeps-a-sector", Shard, &[], "the tail journal keeps the last sector alone"),
    Mutant("shadow-forgets", Shard, &[], "ASYNC_FLUSH acknowledges what it has not stored in the shadow"),
    Mutant("shadow-anywhere", Shard, &[], "and what is in a segment that recovery does not know"),
    Mutant(
        "another-modes-shadow",
        Shard,
        &[],
        "SYNC_FLUSH does not look into the shadow that ASYNC_FLUSH left",
    ),
    Mutant(
        "acknowledged-rolled-back",
        Shard,
        &[Fault::NoSpaceAnywhere],
        "a write without space drops what the shadow has acknowledged",
    ),
    Mutant("skip-dir-sync", Shard, &[], "a new segment's name is not made durable"),
    Mutant(
        "spare-keeps-its-name",
        Shard,
        &[Fault::LostEntry, Fault::ReorderedEntry],
        "an expired segment is used again before its new name is durable",
    ),
    Mutant("index-ahead-of-log", Shard, &[], "the index is checkpointed before the log is flushed"),
    Mutant("truncate-off-by-one", Shard, &[], "recovery takes the journal's sector without its last byte"),
    Mutant(
        "skip-epoch",
        Shard,
        &[Fault::NoSpaceAnywhere, Fault::PiecewiseIo],
        "recovery takes frames of any epoch: refused messages come back",
    ),
    Mutant(
        "roll-back-in-memory-only",
        Shard,
        &[Fault::NoSpaceAnywhere],
        "refused messages are dropped in memory, and not on disk",
    ),
    Mutant("read-uncommitted", Shard, &[], "the index publishes what is staged"),
    Mutant("time-goes-back", Shard, &[Fault::ClockJump], "the store time follows the wall clock back"),
    Mutant("metadata-not-written", Shard, &[], "the metadata log confirms what it has not written"),
    Mutant("deletion-not-durable", Shard, &[], "a deleted topic comes back with the next start"),
    Mutant(
        "merge-drops-an-entry",
        Shard,
        &[],
        "merging runs of the index loses the end of what the oldest has",
    ),
    Mutant("merge-misplaces-keys", Shard, &[], "merged runs have keys at places that count from the old run"),
    Mutant(
        "pending-ahead-of-log",
        Shard,
        &[],
        "the table of waiting records is saved before the log is flushed: a checkpoint ahead of the data",
    ),
    Mutant(
        "settling-not-recovered",
        Shard,
        &[],
        "recovery does not see what was settled: a timer fires twice",
    ),
    Mutant(
        "runs-not-searched",
        Shard,
        &[],
        "what may be in a run of waiting records counts as waiting, settled or not",
    ),
    Mutant(
        "damaged-table-saved",
        Shard,
        &[Fault::RotCold],
        "a table of waiting records is saved without what could not be read of it",
    ),
    Mutant("settled-twice", Shard, &[], "a half message goes on waiting while its outcome is staged"),
    Mutant(
        "roll-back-keeps-settled",
        Shard,
        &[Fault::NoSpaceAnywhere],
        "a half message whose outcome was refused waits no more: it leaks",
    ),
    Mutant(
        "retention-segment-too-many",
        Shard,
        &[],
        "retention deletes the segment behind the one that may go, too",
    ),
    Mutant("retention-ignores-topic", Shard, &[], "a topic that keeps its messages for longer is not asked"),
    Mutant(
        "retention-forgets-waiting",
        Shard,
        &[],
        "retention deletes what waits for its time or its outcome",
    ),
    Mutant(
        "expired-queue-forgotten",
        Shard,
        &[],
        "a queue whose messages have all expired starts anew at offset 0",
    ),
    Mutant(
        "offsets-in-memory-only",
        Node,
        &[],
        "committed consumer offsets are durable only after a clean end",
    ),
    Mutant("topics-in-memory-only", Node, &[], "a topic's creation is confirmed before it is durable"),
    Mutant(
        "offsets-lost-at-stop",
        Node,
        &[],
        "a broker that stops leaves the last committed offsets in memory",
    ),
    Mutant(
        "settling-not-recovered",
        Node,
        &[],
        "recovery does not see what was settled: a timer fires twice",
    ),
    Mutant("recall-without-effect", Node, &[], "a recall is confirmed, and the timer fires"),
    Mutant("half-message-leaked", Node, &[], "a half message that is put off lands in its real topic"),
    Mutant("commit-settles-nothing", Node, &[], "a half message goes on waiting when it is committed"),
    Mutant("retry-dropped", Node, &[], "a message that comes back is acknowledged before it is durable"),
    Mutant("lock-with-two-holders", Node, &[], "a lock that is renewed, or taken over, is not noted as such"),
    Mutant("dedupe-key-forgotten", Node, &[], "recovery does not index the keys of messages"),
    Mutant("mailbox-drops-when-full", Node, &[], "a batch for a full ring between two cores is dropped"),
    Mutant("busy-unanswered", Node, &[], "a request for which there is no room is dropped without an answer"),
    Mutant("held-pull-forgotten", Node, &[], "a held pull whose time is up is not answered"),
    Mutant(
        "retention-forgets-waiting",
        Node,
        &[],
        "retention deletes what waits for its time or its outcome",
    ),
    Mutant(
        "expired-queue-forgotten",
        Node,
        &[],
        "a queue whose messages have all expired starts anew at offset 0",
    ),
    Mutant("registration-given-up", Node, &[], "a broker that loses its name server does not register again"),
];

/// Arguments of `mutants`.
#[derive(Args)]
pub struct MutantsArgs {
    /// Within how many seeds each must be found.
    #[arg(long, default_value_t = 400)]
    seeds: u64,
    /// Only those whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// Only those of this level.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Threads.
    #[arg(long, default_value_t = cores())]
    jobs: usize,
}

/// How a planted bug was found.
struct Found {
    seeds: u64,
    failure: String,
}

impl Mutant {
    /// Looks for it. A seed counts only if it keeps every promise without the bug.
    fn look_for(&self, seeds: u64) -> anyhow::Result<Option<Found>> {
        let Mutant(name, level, faults, _) = self;
        for seed in 0..seeds {
            let cuts = Cuts { often: faults.to_vec(), ..Cuts::default() };
            let plan = Plan::new(*level, seed, &cuts);
            switch_on(Some(name))?;
            let with = outcome::run(&plan, |_| {}).failure;
            switch_on(None)?;
            let Some(failure) = with else { continue };
            let without = outcome::run(&plan, |_| {}).failure;
            ensure!(
                without.is_none(),
                "seed {seed} fails without {name}, too: {}\n  {}",
                without.unwrap_or_default(),
                plan.replay_command()
            );
            return Ok(Some(Found { seeds: seed + 1, failure }));
        }
        Ok(None)
    }

    /// Looks for it and tells; false if it was not found.
    fn report(&self, seeds: u64) -> anyhow::Result<bool> {
        let began = Instant::now();
        let found = self.look_for(seeds)?;
        let (Mutant(name, _, _, what), took) = (self, began.elapsed().as_secs_f64());
        match &found {
            Some(Found { seeds, failure }) => {
                let failure: String = failure.chars().take(140).collect();
                println!("{name:24} found after {seeds:3} seeds, {took:5.1} s ({what}): {failure}");
            }
            None => println!("{name:24} NOT FOUND in {seeds} seeds, {took:5.1} s ({what})"),
        }
        Ok(found.is_some())
    }
}

/// Looks for every planted bug.
pub fn run(args: &MutantsArgs) -> anyhow::Result<()> {
    let wanted = |mutant: &&Mutant| {
        args.only.as_ref().is_none_or(|only| mutant.0.contains(only.as_str()))
            && args.level.is_none_or(|level| mutant.1 == level)
    };
    let wanted: Vec<&Mutant> = MUTANTS.iter().filter(wanted).collect();
    let (mut missed, mut failed) = (Vec::new(), Ok(()));
    let look = |n: u64| (n, wanted[n as usize].report(args.seeds));
    in_threads(args.jobs, 0..wanted.len() as u64, look, |(n, found)| {
        match found {
            Ok(true) => {}
            Ok(false) => missed.push(wanted[n as usize].0),
            Err(error) => failed = Err(error),
        }
        failed.is_ok()
    });
    failed?;
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    println!("{} planted bugs, all of them found", wanted.len());
    Ok(())
}

#[cfg(feature = "mutants")]
fn switch_on(name: Option<&'static str>) -> anyhow::Result<()> {
    ringmq_env::mutants::switch_on(name);
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn switch_on(_: Option<&'static str>) -> anyhow::Result<()> {
    anyhow::bail!("this build has no planted bugs: build it with --features mutants")
}
