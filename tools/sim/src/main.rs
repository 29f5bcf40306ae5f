//! The simulator's runner: the real store, broker and name server on simulated machines that do their worst, from
//! one seed. `docs/durability.md` says what is promised, and how this checks it.

mod corpus;
mod mutants;
mod node;
mod outcome;
mod plan;
mod runner;
mod shard;
mod shrink;
mod threads;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ringmq-sim", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds, and stops at the first broken promise.
    Sim(runner::SimArgs),
    /// Runs one seed and tells what happens.
    Replay(runner::ReplayArgs),
    /// Cuts a failing seed down to what it needs to fail.
    Shrink(runner::ReplayArgs),
    /// Runs the seeds that found something once.
    Corpus,
    /// Plants one bug after the other, and requires each to be found (needs the feature `mutants`).
    Mutants(mutants::MutantsArgs),
    /// Prints the trace hashes of some seeds, each run twice: two builds or processes must print the same.
    Determinism(runner::DeterminismArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    outcome::keep_panics();
    match cli.command {
        Command::Sim(args) => runner::sim(&args),
        Command::Replay(args) => runner::replay(&args),
        Command::Shrink(args) => shrink::run(args.level, args.seed, &args.cuts),
        Command::Corpus => corpus::run(),
        Command::Mutants(args) => mutants::run(&args),
        Command::Determinism(args) => runner::determinism(&args),
    }
}
