//! Cutting a failing run down: faults, clients, operations and lives go for as long as it still fails.

use ringmq_env::sim::Fault;

use crate::outcome;
use crate::plan::{Cuts, Level, Plan};

/// A number of the plan that can be lowered: what it is now, and where its cut is kept.
type Knob = (fn(&Plan) -> u32, fn(&mut Cuts) -> &mut Option<u32>);

const KNOBS: [Knob; 4] = [
    (|plan| plan.brokers, |cuts| &mut cuts.brokers),
    (|plan| plan.lives, |cuts| &mut cuts.lives),
    (|plan| plan.clients, |cuts| &mut cuts.clients),
    (|plan| plan.ops, |cuts| &mut cuts.ops),
];

/// The smallest failing run that was found from a failing one, and what is broken in it.
pub fn shrink(failing: &Plan) -> (Plan, String) {
    let mut best = failing.clone();
    let mut failure = fails(&best).unwrap_or_default();
    loop {
        let before = best.cuts.clone();
        for fault in best.faults.active().collect::<Vec<Fault>>() {
            let mut cuts = best.cuts.clone();
            cuts.without.push(fault);
            adopt(&mut best, &mut failure, cuts);
        }
        for (value, cut) in KNOBS {
            lower(&mut best, &mut failure, value, cut);
        }
        if best.cuts == before {
            return (best, failure);
        }
    }
}

/// Lowers one number as far as it goes, in ever smaller steps.
fn lower(
    best: &mut Plan,
    failure: &mut String,
    value: fn(&Plan) -> u32,
    cut: fn(&mut Cuts) -> &mut Option<u32>,
) {
    let mut step = value(best) / 2;
    while step > 0 {
        let mut cuts = best.cuts.clone();
        *cut(&mut cuts) = Some(value(best).saturating_sub(step).max(1));
        if value(best) <= step || !adopt(best, failure, cuts) {
            step /= 2;
        }
    }
}

/// Takes the cuts if the run fails with them, too.
fn adopt(best: &mut Plan, failure: &mut String, cuts: Cuts) -> bool {
    let plan = Plan::new(best.level, best.seed, &cuts);
    match fails(&plan) {
        Some(reason) if place(&reason) == place(failure) => {
            (*best, *failure) = (plan, reason);
            true
        }
        _ => false,
    }
}

/// Where in the code a failure was found: another one would be another story.
fn place(failure: &str) -> &str {
    failure.rsplit_once(" (").map_or("", |(_, place)| place)
}

fn fails(plan: &Plan) -> Option<String> {
    outcome::run(plan, |_| {}).failure
}

/// Shrinks the run that a seed stands for.
pub fn run(level: Level, seed: u64, cuts: &Cuts) -> anyhow::Result<()> {
    let plan = Plan::new(level, seed, cuts);
    anyhow::ensure!(fails(&plan).is_some(), "seed {seed} does not fail");
    let (plan, failure) = shrink(&plan);
    let faults: Vec<_> = plan.faults.active().map(Fault::name).collect();
    println!("{failure}\n  faults left: {}\n  {}", faults.join(", "), plan.replay_command());
    Ok(())
}
