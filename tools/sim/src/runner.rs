//! Running seeds: many of them, one with its trace, some twice.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use ringmq_env::sim::Fault;

use crate::outcome::{self, Outcome};
use crate::plan::{Cuts, Level, Plan};
use crate::threads::{cores, in_threads};

/// How often a long run says where it is.
const REPORT: Duration = Duration::from_secs(30);

/// Arguments of `sim`.
#[derive(Args)]
pub struct SimArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Stop after so much simulated time, in hours.
    #[arg(long)]
    hours: Option<f64>,
    /// Stop after so much real time, in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// What is simulated.
    #[arg(long, value_enum, default_value = "shard")]
    level: Level,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; a world is in one of them.
    #[arg(long, default_value_t = cores())]
    jobs: usize,
    /// Go on after a failure, and list all of them.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    cuts: Cuts,
}

/// Sums over runs.
#[derive(Default)]
struct Total {
    seeds: u64,
    cycles: u64,
    acknowledged: u64,
    harmed: u64,
    time: u64,
    faults: Vec<u64>,
    failures: u64,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.cycles += outcome.cycles;
        self.acknowledged += outcome.acknowledged;
        self.harmed += outcome.harmed;
        self.time += outcome.time;
        self.faults.resize(Fault::ALL.len(), 0);
        self.faults.iter_mut().zip(&outcome.faults).for_each(|(sum, count)| *sum += count);
        self.failures += u64::from(outcome.failure.is_some());
    }

    fn hours(&self) -> f64 {
        self.time as f64 / 3.6e12
    }

    fn report(&self, began: Instant) {
        println!(
            "{} seeds, {} lives, {} messages acknowledged, {} of them harmed, {:.1} h simulated in {:.1} s, {} failures",
            self.seeds,
            self.cycles,
            self.acknowledged,
            self.harmed,
            self.hours(),
            began.elapsed().as_secs_f64(),
            self.failures
        );
    }
}

/// Runs many seeds.
pub fn sim(args: &SimArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut reported = began;
    let mut total = Total::default();
    let run = |seed| {
        let plan = Plan::new(args.level, seed, &args.cuts);
        (outcome::run(&plan, |_| {}), plan)
    };
    let seeds = args.from..args.from.saturating_add(args.seeds);
    in_threads(args.jobs, seeds, run, |(outcome, plan)| {
        total.add(&outcome);
        if let Some(failure) = &outcome.failure {
            println!(
                "seed {} fails: {failure}
  {}",
                plan.seed,
                plan.replay_command()
            );
        }
        if reported.elapsed() > REPORT {
            total.report(began);
            reported = Instant::now();
        }
        let is_over = args.hours.is_some_and(|hours| total.hours() >= hours)
            || args.seconds.is_some_and(|seconds| began.elapsed().as_secs() >= seconds)
            || !args.keep_going && total.failures > 0;
        !is_over
    });
    total.report(began);
    for (fault, count) in Fault::ALL.iter().zip(&total.faults).filter(|(_, count)| **count > 0) {
        println!("  {:18} {count:>10}  {}", fault.name(), fault.what());
    }
    ensure!(total.failures == 0, "{} seeds fail", total.failures);
    Ok(())
}

/// Arguments of `replay`.
#[derive(Args)]
pub struct ReplayArgs {
    /// The seed.
    pub seed: u64,
    /// What is simulated.
    #[arg(long, value_enum, default_value = "shard")]
    pub level: Level,
    /// Only what it comes to, without the trace.
    #[arg(long)]
    quiet: bool,
    /// What is left out.
    #[command(flatten)]
    pub cuts: Cuts,
}

/// Runs one seed and tells what happens.
pub fn replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let plan = Plan::new(args.level, args.seed, &args.cuts);
    if !args.quiet {
        let subscriber =
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(std::io::stdout);
        subscriber.with_max_level(tracing_subscriber::filter::LevelFilter::INFO).init();
    }
    println!("{plan:#?}");
    let outcome = outcome::run(&plan, |sim| {
        if !args.quiet {
            sim.on_trace(|now, what| println!("{:>14.6} ms  {what}", now.0 as f64 / 1e6));
        }
    });
    println!("{outcome:?}");
    match &outcome.failure {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

/// Arguments of `determinism`.
#[derive(Args)]
pub struct DeterminismArgs {
    /// How many seeds of each level.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this level.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// How often each is run.
    #[arg(long, default_value_t = 2)]
    runs: u32,
    /// Threads; a world is in one of them.
    #[arg(long, default_value_t = cores())]
    jobs: usize,
}

/// Runs seeds again and again, and prints their traces' hashes.
pub fn determinism(args: &DeterminismArgs) -> anyhow::Result<()> {
    for level in
        [Level::Shard, Level::Node].into_iter().filter(|level| args.level.is_none_or(|only| only == *level))
    {
        let run = |seed| {
            let plan = Plan::new(level, seed, &Cuts::default());
            let traces: Vec<u64> = (0..args.runs).map(|_| outcome::run(&plan, |_| {}).trace).collect();
            (seed, traces)
        };
        let mut ran = Vec::new();
        in_threads(args.jobs, args.from..args.from + args.seeds, run, |traces| {
            ran.push(traces);
            true
        });
        ran.sort_unstable();
        for (seed, traces) in ran {
            let is_same = traces.iter().all(|trace| *trace == traces[0]);
            ensure!(is_same, "{level:?} seed {seed} is not the same again: {traces:016x?}");
            println!("{level:?} {seed} {:016x}", traces[0]);
        }
    }
    Ok(())
}
