//! Seeds that found something once.

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::outcome;
use crate::plan::{Cuts, Level, Plan};

/// A line for each: level, seed, and what it found.
const CORPUS: &str = include_str!("../corpus.txt");

/// Runs all of them; each must keep every promise.
pub fn run() -> anyhow::Result<()> {
    let mut seeds = 0;
    for line in CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (level, seed, story) = parse(line).with_context(|| format!("corpus.txt: {line}"))?;
        let plan = Plan::new(level, seed, &Cuts::default());
        let failure = outcome::run(&plan, |_| {}).failure;
        let failure = failure.as_deref();
        ensure!(failure.is_none(), "{}\n  {}\n  ({story})", failure.unwrap_or(""), plan.replay_command());
        seeds += 1;
    }
    println!("{seeds} seeds of the corpus keep every promise");
    Ok(())
}

fn parse(line: &str) -> anyhow::Result<(Level, u64, &str)> {
    let mut words = line.splitn(3, ' ');
    let mut next = || words.next().context("it needs a level, a seed and a story");
    let level = Level::from_str(next()?, false).map_err(anyhow::Error::msg)?;
    Ok((level, next()?.parse()?, next()?))
}
