//! One life of a shard's process: open, check what is there, and work until the end.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_engine::*;
use ringmq_env::Env;
use ringmq_env::sim::{Fault, Faults, SimEnv};

use super::model::{Model, Queue, TOPICS};
use super::retention::{self, Retention};
use super::table::Table;
use crate::plan::Plan;

/// The node's name.
pub const NODE: &str = "shard";
const DIR: &str = "/store";
const TABLE_DIR: &str = "/store/meta";
/// The shard's number.
pub(super) const SHARD: ShardId = ShardId(3);
/// Largest record that is sent.
const MAX_RECORD: usize = 20_000;
/// Memory of the tail beside what it may hold: blocks that are filled, written, or ready to be filled again.
const MAX_STAGED_MEMORY: u64 = 8 << 20;
/// Bytes of the shadow in one life or another.
const SHADOWS: [u64; 4] = [0, 8 << 10, 8 << 10, 64 << 10];
/// Longest time between two looks at whether something is done.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What all lives of a run share.
pub struct World {
    /// The run.
    pub plan: Plan,
    /// What is owed of the messages.
    pub model: RefCell<Model>,
    /// What is owed of the metadata.
    pub table: RefCell<Table>,
    /// What goes wrong in this life.
    pub faults: RefCell<Faults>,
    /// What may be deleted.
    pub retention: Option<Retention>,
    /// Nothing goes wrong in this life, as in the one before, which found all damage there is.
    pub is_last: Cell<bool>,
}

impl World {
    /// Whether nothing goes wrong in this life.
    pub(super) fn is_calm(&self) -> bool {
        *self.faults.borrow() == Faults::none()
    }

    pub(super) fn may(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.faults.borrow().rate(*fault) > 0)
    }

    /// Tells the model what has been harmed so far.
    pub(super) fn look_at_harm(&self, env: &SimEnv) {
        self.model.borrow_mut().harmed_by(env.take_harm());
    }

    /// Whether opening may fail with a device's error.
    fn may_fail_to_open(&self) -> bool {
        let device =
            [Fault::ReadError, Fault::WriteError, Fault::SyncError, Fault::NoSpace, Fault::NoSpaceAnywhere];
        self.may(&device) || self.plan.quota
    }
}

/// How a life went that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The store did not open, and had a reason.
    NotOpened,
    /// All is done, and the shard is open still.
    Done,
    /// All is done, and the shard closed.
    Closed,
}

/// Waiting records that the shard holds in memory when there are more.
pub(super) fn waiting_in_memory(plan: &Plan) -> usize {
    [16, 256, WAITING_IN_MEMORY][(plan.seed / 9 % 3) as usize]
}

fn options(plan: &Plan, sync_flush: bool, shadow: u64) -> ShardOptions {
    let segment = match Retention::of(plan) {
        Some(_) => retention::SEGMENT,
        None => [64 << 10, 128 << 10, 256 << 10][(plan.seed % 3) as usize],
    };
    ShardOptions {
        id: SHARD,
        store_id: 42,
        dir: Path::new(DIR).join("shards/003"),
        sync_flush,
        flush_interval_ms: [1, 5, 50][(plan.seed / 3 % 3) as usize],
        segment_size: segment,
        max_record_size: MAX_RECORD,
        tail_memory: tail_memory(plan),
        staged_limit: if plan.small { 4 << 10 } else { 1 << 20 },
        disk_watermark_percent: 100,
        // Where nothing is taken, nothing is to be refused.
        strict: !plan.harms() && plan.seed % 2 == 1,
        waiting_in_memory: waiting_in_memory(plan),
        shadow,
        lmq_limit: None,
    }
}

fn tail_memory(plan: &Plan) -> usize {
    if plan.small { 0 } else { 2 << 20 }
}

/// Opens the store, checks it and works on it.
pub async fn live(env: SimEnv, world: Rc<World>) -> End {
    let shadow = SHADOWS[env.random() as usize % SHADOWS.len()];
    let sync_flush = if world.plan.changes_flush { env.random() & 1 == 0 } else { world.plan.sync_flush };
    world.model.borrow_mut().begun(sync_flush);
    let opened = Shard::open(env.clone(), options(&world.plan, sync_flush, shadow)).await;
    world.look_at_harm(&env);
    let shard = match opened {
        Ok(_) if world.model.borrow().is_beyond_knowledge() => return End::NotOpened,
        Ok(shard) => shard,
        Err(error) => return refused(&world, &error),
    };
    if !world.plan.harms() && !world.model.borrow().is_harmed() {
        let told: Vec<_> = shard.damage().into_iter().filter(|damage| damage.len > 0).collect();
        assert_eq!(told, [], "a loss is told, and nothing was taken");
    }
    let mut replay = |key: &[u8], value: &[u8]| world.table.borrow_mut().replayed(key, value);
    let opened = MetaLog::open(env.clone(), Path::new(TABLE_DIR), "table", &mut replay).await;
    world.look_at_harm(&env);
    let table = match opened {
        Ok(table) => table,
        Err(error) => return refused(&world, &error),
    };
    let is_harmed = world.model.borrow().is_harmed_in(Path::new(TABLE_DIR));
    world.table.borrow_mut().opened(is_harmed);
    Life {
        env: env.clone(),
        world: Rc::clone(&world),
        shard,
        table,
        retaining: Rc::default(),
        handles: Rc::default(),
    }
    .run()
    .await
}

fn refused(world: &World, error: &OpenError) -> End {
    world.table.borrow_mut().not_opened();
    let has_reason = match error {
        OpenError::Io { .. } => world.may_fail_to_open() || world.model.borrow().may_refuse_to_start(),
        OpenError::Damaged { .. } | OpenError::NewerFormat { .. } | OpenError::Strict { .. } => {
            world.model.borrow().may_refuse_to_start()
        }
    };
    assert!(has_reason, "the store does not open: {error}");
    End::NotOpened
}

#[derive(Clone)]
pub(super) struct Life {
    /// Somebody deletes what has expired: one at a time, as in a broker.
    pub(super) retaining: Rc<Cell<bool>>,
    pub(super) env: SimEnv,
    pub(super) world: Rc<World>,
    pub(super) shard: Shard<SimEnv>,
    pub(super) table: MetaLog<SimEnv>,
    /// The handle that each topic had when it was last asked for.
    pub(super) handles: Rc<RefCell<[TopicHandle; TOPICS.len()]>>,
}

impl Life {
    async fn run(self) -> End {
        self.check_recovered().await;
        let life = self.clone();
        self.env.spawn(async move { life.acknowledge().await });
        let working = Rc::new(());
        for _ in 0..self.world.plan.clients {
            let (life, working) = (self.clone(), Rc::clone(&working));
            self.env.spawn(async move {
                life.work().await;
                drop(working);
            });
        }
        self.until(|| Rc::strong_count(&working) == 1).await;
        if self.world.is_calm() {
            self.settle_all().await;
        }
        self.until(|| self.world.model.borrow().is_settled()).await;
        if self.world.is_calm() {
            self.retain().await;
        }
        // Nothing is on its way: what waits is what must.
        self.check_waiting().await;
        if !self.env.random().is_multiple_of(3) {
            return End::Done;
        }
        self.shard.close().await;
        self.note_flushed();
        End::Closed
    }

    /// Waits until something is so, looking at it again and again.
    pub(super) async fn until(&self, is_so: impl Fn() -> bool) {
        let mut look = Duration::from_micros(200);
        while !is_so() {
            self.env.sleep(look).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// Holds what recovery found against the model, and reads what is there.
    async fn check_recovered(&self) {
        self.check_deletion();
        let ranges = Queue::all().map(|queue| self.shard.queue_range(queue.topic(), QueueId(queue.id)));
        let found: Vec<usize> = ranges.map(|range| range.map_or(0, |range| range.max.0 as usize)).collect();
        self.world.model.borrow_mut().recovered(&found, self.shard.stats().log_committed);
        self.check_mins();
        for queue in Queue::all() {
            let all = self.world.model.borrow().messages(queue).len();
            // The newest always, all of them now and then.
            let recent = all.saturating_sub(8);
            let from = if self.env.random().is_multiple_of(8) { 0 } else { recent };
            self.read_from(queue, from as i64, all as i64).await;
        }
        self.check_waiting().await;
        self.look_up().await;
    }

    fn check_deletion(&self) {
        let Some(topic) = self.world.model.borrow().half_deleted() else { return };
        let ranges = Queue::all().filter(|queue| queue.topic == topic);
        let mut ranges = ranges.map(|queue| self.shard.queue_range(queue.topic(), QueueId(queue.id)));
        let mut model = self.world.model.borrow_mut();
        if ranges.all(|range| range.is_none()) {
            model.end_delete();
        } else {
            model.forget_delete();
        }
    }

    /// Takes commits, and tells the model.
    async fn acknowledge(&self) {
        while let Some(commit) = self.shard.next_commit().await {
            let mut model = self.world.model.borrow_mut();
            for arrival in &commit.arrivals {
                let topic = super::model::TOPICS.iter().position(|topic| **topic == *arrival.topic);
                let queue = Queue { topic: topic.expect("a known topic"), id: arrival.queue_id.0 };
                let known = model.messages(queue).get(arrival.queue_offset.0 as usize).copied();
                let fits = known
                    .is_some_and(|m| m.end <= commit.committed.0 && m.store_ms == arrival.store_timestamp);
                assert!(
                    fits || model.half_deleted() == Some(queue.topic),
                    "{queue:?}: {arrival:?}, {known:?}"
                );
            }
            model.committed(commit.committed.0);
            if commit.failed.is_some() {
                model.dropped(commit.committed.0);
            }
            drop(model);
            self.note_flushed();
        }
    }

    fn note_flushed(&self) {
        let stats = self.shard.stats();
        let ordered = stats.log_flushed <= stats.log_committed && stats.log_committed <= stats.log_staged;
        assert!(ordered, "{stats:?}");
        let limit = tail_memory(&self.world.plan) as u64 + MAX_STAGED_MEMORY;
        assert!(stats.tail_memory <= limit, "the hot tail holds {} bytes of {limit}", stats.tail_memory);
        self.world.model.borrow_mut().flushed(stats.log_flushed);
    }
}
