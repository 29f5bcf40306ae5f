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
    Mutant("drop-tail-journal", Shard, &[], "the partial last sector is written nowhere"),
    Mutant("overwrite-tail-slot", Shard, &[], "the tail journal overwrites its newest slot"),
    Mutant("skip-dir-sync", Shard, &[], "a new segment's name is not made durable"),
    Mutant("index-ahead-of-log", Shard, &[], "the index is checkpointed before the log is flushed"),
    Mutant("truncate-off-by-one", Shard, &[], "recovery takes the journal's sector without its last byte"),
    Mutant(
        "skip-epoch",
        Shard,
        &[Fault::NoSpaceAnywhere],
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
        "offsets-in-memory-only",
        Node,
        &[],
        "committed consumer offsets are durable only after a clean end",
    ),
    Mutant("topics-in-memory-only", Node, &[], "a topic's creation is confirmed before it is durable"),
];

/// Arguments of `mutants`.
#[derive(Args)]
pub struct MutantsArgs {
    /// Within how many seeds each must be found.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Only those whose name has this in it.
    #[arg(long)]
    only: Option<String>,
}

/// Looks for every planted bug.
pub fn run(args: &MutantsArgs) -> anyhow::Result<()> {
    let mut missed = Vec::new();
    let wanted = |mutant: &&Mutant| args.only.as_ref().is_none_or(|only| mutant.0.contains(only.as_str()));
    for Mutant(name, level, faults, what) in MUTANTS.iter().filter(wanted) {
        let began = Instant::now();
        switch_on(Some(name))?;
        let found = (0..args.seeds).find_map(|seed| {
            let plan = Plan::new(*level, seed, &Cuts::default()).stressed(faults);
            let failure = outcome::run(&plan, |_| {}).failure?;
            Some((seed, failure))
        });
        switch_on(None)?;
        let took = began.elapsed().as_secs_f64();
        match found {
            Some((seed, failure)) => {
                let failure: String = failure.chars().take(120).collect();
                println!("{name:26} found after {:3} seeds, {took:5.1} s ({what}): {failure}", seed + 1);
            }
            None => {
                println!("{name:26} NOT FOUND in {} seeds, {took:5.1} s ({what})", args.seeds);
                missed.push(*name);
            }
        }
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
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
