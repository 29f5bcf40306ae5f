//! One shard's storage on a disk that does its worst, and crash upon crash.

mod life;
mod model;
mod outcomes;
mod reads;
mod retention;
mod table;
mod waiting;
mod work;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_env::sim::{Crash, Fault, Faults, Sim};
use ringmq_env::{Env, Fatal};

use crate::outcome::Outcome;
use crate::plan::Plan;
use life::{End, NODE, World, live};
use model::Model;
use retention::Retention;

/// Virtual time that a whole run may take.
const TIME_LIMIT: Duration = Duration::from_secs(48 * 3600);
/// Polls within which a doomed life ends, at most.
const LONGEST_LIFE: u64 = 1 << 12;
/// Room that a limited disk has left, in bytes, at most.
const MAX_ROOM: u64 = 700 << 10;

/// Runs a plan in a world; panics where a promise is broken.
pub fn run(plan: &Plan, sim: &Sim) -> Outcome {
    sim.set_time_limit(TIME_LIMIT);
    let world = Rc::new(World {
        plan: plan.clone(),
        model: RefCell::new(Model::new()),
        table: RefCell::default(),
        faults: RefCell::new(plan.faults),
        retention: Retention::of(plan),
        is_last: Cell::new(false),
    });
    sim.run(async {
        for _ in 0..plan.lives {
            one_life(sim, &world, plan.faults).await;
            if world.model.borrow().is_beyond_knowledge() {
                break;
            }
        }
        // Nothing goes wrong any more: it opens, it works, and it closes.
        let calm = Faults::none();
        for is_last in [false, true] {
            world.is_last.set(is_last);
            if !world.model.borrow().is_beyond_knowledge() {
                one_life(sim, &world, calm).await;
            }
        }
    });
    let model = world.model.borrow();
    Outcome {
        cycles: sim.lives(NODE),
        acknowledged: model.acknowledged,
        harmed: model.harmed,
        ..Outcome::default()
    }
}

/// Starts the process, and ends it.
async fn one_life(sim: &Sim, world: &Rc<World>, faults: Faults) {
    let env = sim.node(NODE);
    if world.plan.spares_log {
        sim.harm_only(NODE, is_derived);
    }
    let is_calm = faults == Faults::none();
    *world.faults.borrow_mut() = faults;
    sim.set_faults(NODE, faults);
    sim.end_episodes(NODE);
    limit_disk(sim, world, is_calm).await;
    let crash =
        [Crash::Process, Crash::Power, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 4];
    if !is_calm {
        // Short lives, which end in recovery, are as likely as long ones.
        let most = 8 << (sim.random() % u64::from(LONGEST_LIFE.ilog2() - 2));
        sim.crash_after_polls(NODE, sim.random() % most, crash);
    }
    let (lives, failed_syncs) = (sim.lives(NODE), sim.fault_count(Fault::SyncError));
    let (tell, told) = flume::bounded(1);
    let shared = Rc::clone(world);
    env.clone().spawn(async move {
        let end = live(env, shared).await;
        // The receiver waits for this.
        let _ = tell.try_send(end);
    });
    // An error means that the process has ended.
    let end = told.recv_async().await.ok();
    sim.note(|| format!("life {lives} ends: {end:?}"), &[lives, end.map_or(9, |end| end as u64)]);
    check_end(world, end, is_calm);
    let died = sim.lives(NODE) > lives;
    if !died {
        sim.crash(NODE, crash);
    }
    let ended_itself = has_ended_itself(sim, world, died);
    // A process that ended itself leaves the machine running; but a failed sync may take what was not flushed, also one
    // upon which the store did not open.
    let sync_failed = sim.fault_count(Fault::SyncError) > failed_syncs;
    let unflushed_is_lost = sync_failed || !ended_itself && crash != Crash::Process;
    let harm = sim.take_harm(NODE);
    world.model.borrow_mut().ended(unflushed_is_lost, harm);
}

/// Whether it is made anew from the log if it is damaged.
fn is_derived(path: &Path) -> bool {
    let mut parts = path.iter();
    parts.any(|part| part == "pending") || path.extension().is_some_and(|end| end == "run")
}

fn check_end(world: &World, end: Option<End>, is_calm: bool) {
    let refused = end == Some(End::NotOpened);
    if is_calm {
        let excused = world.model.borrow().may_refuse_to_start();
        assert!(excused || !refused && end.is_some(), "nothing goes wrong, and the life ends with {end:?}");
    }
    if end == Some(End::Closed) {
        assert!(world.model.borrow().is_settled(), "closed with something unanswered");
    }
}

/// Whether the process ended itself, which it may only do for a reason.
fn has_ended_itself(sim: &Sim, world: &World, died: bool) -> bool {
    let Some(reason) = sim.ended_by(NODE).filter(|_| died) else { return false };
    let may = |faults: &[Fault]| faults.iter().any(|fault| world.faults.borrow().rate(*fault) > 0);
    let has_reason = match &reason {
        Fatal::Sync { .. } => may(&[Fault::SyncError]),
        Fatal::Write { .. } => {
            may(&[Fault::WriteError, Fault::SyncError, Fault::ReadError, Fault::NoSpaceAnywhere])
        }
        _ => world.model.borrow().is_harmed() || world.plan.harms(),
    };
    assert!(has_reason || world.plan.harms(), "the process ended itself: {reason}");
    true
}

/// Gives the disk a limit in some lives of some runs.
async fn limit_disk(sim: &Sim, world: &World, is_calm: bool) {
    sim.set_quota(NODE, None);
    if !world.plan.quota || is_calm || sim.random().is_multiple_of(2) {
        return;
    }
    let faults = *world.faults.borrow();
    sim.set_faults(NODE, Faults::none());
    if let Ok(space) = sim.node(NODE).disk_space(Path::new("/")).await {
        let room = sim.random() % MAX_ROOM;
        sim.set_quota(NODE, Some(space.total - space.available + room));
    }
    sim.set_faults(NODE, faults);
}
