//! What a run came to, and how a broken promise is caught.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringmq_env::sim::{Fault, Sim};

use crate::plan::{Level, Plan};

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Starts and ends of a process.
    pub cycles: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Of these, lost to faults that take confirmed bytes.
    pub harmed: u64,
    /// Hash of all that happened.
    pub trace: u64,
    /// Virtual time, in ns.
    pub time: u64,
    /// How often each fault happened, in the order of [`Fault::ALL`].
    pub faults: Vec<u64>,
    /// The promise that was broken.
    pub failure: Option<String>,
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what panics say, instead of printing it.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload();
        let text = said.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("?");
        let place = info.location().map_or(String::new(), |at| format!("{}:{}", at.file(), at.line()));
        LAST_PANIC.set(Some(format!("{text} ({place})")));
    }));
}

/// Runs a plan to its end, or to the first broken promise.
pub fn run(plan: &Plan, prepare: impl FnOnce(&Sim)) -> Outcome {
    let sim = Sim::new(plan.seed);
    prepare(&sim);
    LAST_PANIC.set(None);
    let ran = catch_unwind(AssertUnwindSafe(|| match plan.level {
        Level::Shard => crate::shard::run(plan, &sim),
        Level::Node => crate::node::run(plan, &sim),
    }));
    let mut outcome = ran.unwrap_or_else(|_| Outcome {
        failure: Some(LAST_PANIC.take().unwrap_or_else(|| "a panic without words".into())),
        ..Outcome::default()
    });
    outcome.trace = sim.trace_hash();
    outcome.time = sim.now().0;
    outcome.faults = Fault::ALL.iter().map(|fault| sim.fault_count(*fault)).collect();
    outcome
}
