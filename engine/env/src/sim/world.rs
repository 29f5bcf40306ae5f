//! The simulated world's engine: tasks, virtual time, randomness and the trace, all in one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::faults::{Dice, Fault, Faults};
use crate::fatal::{NodeStopped, in_simulation};
use crate::{Fatal, Instant};

/// Virtual time that one poll of a task takes, in nanoseconds: a task that only yields sees time pass.
const POLL_TAKES: u64 = 500;

/// Which node of the world: an index.
pub(super) type NodeId = usize;

type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks to poll, in the order of their wake-ups. Wakers have to be `Send`, hence the lock.
type ReadyQueue = Arc<Mutex<Vec<u64>>>;

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: ReadyQueue,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

struct Task {
    node: NodeId,
    waker: Arc<TaskWaker>,
    /// Taken out while it is polled.
    future: Option<TaskFuture>,
}

/// Something that happens at a point in virtual time.
enum Event {
    Wake(Waker),
    Run(Box<dyn FnOnce()>),
}

/// Is told what happens, and when.
pub(super) type TraceListener = Box<dyn FnMut(Instant, &str)>;

/// Key of an event: its time, and its number among those of the same time.
type EventKey = (u64, u64);

/// Tasks, time, randomness, trace.
pub(super) struct World {
    random: RefCell<fastrand::Rng>,
    now: Cell<u64>,
    next_id: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: ReadyQueue,
    events: RefCell<BTreeMap<EventKey, Event>>,
    trace: Cell<u64>,
    /// Who wants to read what happens.
    listener: RefCell<Option<TraceListener>>,
    dice: RefCell<Dice>,
    /// Until when a node's process stands still.
    paused: RefCell<BTreeMap<NodeId, u64>>,
    /// Nodes that ended themselves through `fatal`, to be stopped by the simulator.
    stopped: RefCell<Vec<(NodeId, Fatal)>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Rc<World> {
        Rc::new(World {
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            now: Cell::new(1_000_000_000),
            next_id: Cell::new(1),
            tasks: RefCell::default(),
            ready: ReadyQueue::default(),
            events: RefCell::default(),
            trace: Cell::new(0xcbf2_9ce4_8422_2325),
            listener: RefCell::default(),
            dice: RefCell::new(Dice::new(seed)),
            paused: RefCell::default(),
            stopped: RefCell::default(),
        })
    }

    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// A random number below `end`, which is above 0.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().u64(..end)
    }

    /// A random duration of `from` to `to` nanoseconds.
    pub(super) fn between(&self, from: u64, to: u64) -> Duration {
        Duration::from_nanos(self.random.borrow_mut().u64(from..=to))
    }

    /// Adds to the trace: FNV-1a over what happened.
    pub(super) fn note(&self, what: &str, numbers: &[u64]) {
        let mut hash = self.trace.get();
        let numbers = numbers.iter().flat_map(|n| n.to_le_bytes());
        for byte in what.bytes().chain(numbers) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.trace.set(hash);
    }

    /// Adds to the trace what people may want to read, too.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(listener) = self.listener.borrow_mut().as_mut() {
            listener(Instant(self.now()), &what());
        }
    }

    pub(super) fn listen(&self, listener: Option<TraceListener>) {
        *self.listener.borrow_mut() = listener;
    }

    /// Whether a fault happens on this occasion.
    pub(super) fn roll(&self, faults: &Faults, fault: Fault) -> bool {
        let hit = self.dice.borrow_mut().roll(faults, fault);
        if hit {
            self.note("fault", &[fault as u64]);
            self.tell(|| format!("! {}", fault.name()));
        }
        hit
    }

    /// A number below `end`, which is above 0, of the fault's own randomness.
    pub(super) fn fault_below(&self, fault: Fault, end: u64) -> u64 {
        self.dice.borrow_mut().below(fault, end)
    }

    /// A duration of `from` to `to` nanoseconds of the fault's own randomness, small ones as likely as large ones.
    pub(super) fn fault_time(&self, fault: Fault, from: u64, to: u64) -> Duration {
        let steps = u64::from((to / from).max(1).ilog2());
        let scale = from << self.fault_below(fault, steps + 1);
        Duration::from_nanos((scale + self.fault_below(fault, scale)).min(to))
    }

    pub(super) fn fault_count(&self, fault: Fault) -> u64 {
        self.dice.borrow().count(fault)
    }

    /// Lets a node's process stand still for this long.
    pub(super) fn pause(&self, node: NodeId, time: Duration) {
        self.paused.borrow_mut().insert(node, Instant(self.now()).after(time).0);
    }

    /// Until when the node's process stands still, if it does.
    fn paused_until(&self, node: NodeId) -> Option<u64> {
        let mut paused = self.paused.borrow_mut();
        let until = *paused.get(&node)?;
        if until <= self.now() {
            paused.remove(&node);
            return None;
        }
        Some(until)
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.trace.get()
    }

    fn fresh_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    fn waker(&self, id: u64) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) })
    }

    pub(super) fn spawn(&self, node: NodeId, future: impl Future<Output = ()> + 'static) {
        let waker = self.waker(self.fresh_id());
        waker.wake_by_ref();
        let task = Task { node, future: Some(Box::pin(future)), waker: Arc::clone(&waker) };
        self.tasks.borrow_mut().insert(waker.id, task);
    }

    /// Drops the tasks of a node, as a crash does; of all nodes with `None`.
    pub(super) fn drop_tasks(&self, node: Option<NodeId>) {
        let gone: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let hit = |task: &Task| node.is_none_or(|node| node == task.node);
            let ids: Vec<u64> = tasks.iter().filter(|(_, t)| hit(t)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| tasks.remove(id)).collect()
        };
        // Outside the borrow: what they hold reaches back into the world.
        drop(gone);
    }

    /// Ends the world: nothing is left that refers to it.
    pub(super) fn clear(&self) {
        self.drop_tasks(None);
        let events = std::mem::take(&mut *self.events.borrow_mut());
        drop(events);
    }

    /// Schedules `event`.
    fn at(&self, time: u64, event: Event) -> EventKey {
        let key = (time, self.fresh_id());
        self.events.borrow_mut().insert(key, event);
        key
    }

    /// Runs `action` after `delay`, whatever becomes of the caller.
    pub(super) fn run_after(&self, delay: Duration, action: impl FnOnce() + 'static) {
        let time = Instant(self.now()).after(delay).0;
        self.at(time, Event::Run(Box::new(action)));
    }

    /// Computes a value after `delay`; the computation happens even if the returned future is dropped.
    pub(super) fn later<T: 'static, A: FnOnce() -> T + 'static>(
        &self,
        delay: Duration,
        action: A,
    ) -> impl Future<Output = T> + 'static + use<T, A> {
        let shared = Rc::new((Cell::new(None), Cell::new(None::<Waker>)));
        let completed = Rc::clone(&shared);
        self.run_after(delay, move || {
            completed.0.set(Some(action()));
            if let Some(waker) = completed.1.take() {
                waker.wake();
            }
        });
        std::future::poll_fn(move |cx| match shared.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                shared.1.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
    }

    pub(super) fn sleep(self: &Rc<World>, delay: Duration) -> Sleep {
        Sleep { deadline: Instant(self.now()).after(delay).0, key: None, world: Rc::clone(self) }
    }

    /// Nodes that stopped themselves since the last call.
    pub(super) fn take_stopped(&self) -> Vec<(NodeId, Fatal)> {
        std::mem::take(&mut *self.stopped.borrow_mut())
    }

    /// The future that the simulation is run for.
    pub(super) fn main_task(&self) -> MainTask {
        let waker = self.waker(self.fresh_id());
        waker.wake_by_ref();
        MainTask(waker)
    }

    /// The next task to poll, as the randomness decides among those that can run; jumps to the next event when
    /// none can. `None`: nothing will ever happen again.
    pub(super) fn pick(&self) -> Option<u64> {
        loop {
            self.fire_due();
            let picked = {
                let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                match ready.len() {
                    0 => None,
                    n => Some(ready.swap_remove(self.below(n as u64) as usize)),
                }
            };
            if picked.is_some() {
                self.now.set(self.now() + POLL_TAKES);
                return picked;
            }
            let (next, _) = *self.events.borrow().first_key_value()?.0;
            self.now.set(self.now().max(next));
        }
    }

    fn fire_due(&self) {
        loop {
            let due = {
                let mut events = self.events.borrow_mut();
                match events.first_entry() {
                    Some(first) if first.key().0 <= self.now() => first.remove(),
                    _ => return,
                }
            };
            match due {
                Event::Wake(waker) => waker.wake(),
                Event::Run(action) => action(),
            }
        }
    }

    /// Polls a task, if it is still there; the node that it belongs to.
    pub(super) fn poll_task(&self, id: u64) -> Option<NodeId> {
        let (node, waker, mut future) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(&id)?;
            task.waker.queued.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&task.waker));
            if let Some(until) = self.paused_until(task.node) {
                self.at(until, Event::Wake(waker));
                return None;
            }
            (task.node, waker, task.future.take()?)
        };
        self.note("poll", &[id, self.now()]);
        let mut cx = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| in_simulation(|| future.as_mut().poll(&mut cx)))) {
            Ok(Poll::Pending) => {
                // Gone if its node crashed meanwhile; then the future is dropped here.
                if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
                    task.future = Some(future);
                }
            }
            Ok(Poll::Ready(())) => {
                self.tasks.borrow_mut().remove(&id);
            }
            Err(payload) => match payload.downcast::<NodeStopped>() {
                Ok(stopped) => self.stopped.borrow_mut().push((node, stopped.0)),
                Err(payload) => resume_unwind(payload),
            },
        }
        Some(node)
    }
}

/// The task of the future that the simulation is run for: it belongs to no node and is in no table.
pub(super) struct MainTask(Arc<TaskWaker>);

impl MainTask {
    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    /// The waker to poll it with, now.
    pub(super) fn begin_poll(&self) -> Waker {
        self.0.queued.store(false, Ordering::Release);
        Waker::from(Arc::clone(&self.0))
    }
}

/// Resolves at a point in virtual time.
pub(super) struct Sleep {
    world: Rc<World>,
    deadline: u64,
    key: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key.take() {
            self.world.events.borrow_mut().remove(&key);
        }
        if self.world.now() >= self.deadline {
            return Poll::Ready(());
        }
        self.key = Some(self.world.at(self.deadline, Event::Wake(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.world.events.borrow_mut().remove(&key);
        }
    }
}
