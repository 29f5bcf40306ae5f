//! One broker over its lives, with its clients.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use ringmq_broker::mailbox::LaneCapacity;
use ringmq_broker::{BrokerConfig, BrokerEvent, BrokerHandle, Machine};
use ringmq_env::sim::{Crash, Fault, Faults, Sim};
use ringmq_env::{Env, Fatal};
use ringmq_options::Role;

use super::client::{Client, Home, answer_checks};
use super::model::{End, LOCK_EXPIRY, Model};
use super::name_servers::NameServers;
use super::retention::Retention;
use super::{network_only, set_faults, settings};
use crate::plan::Plan;

const PORT: u16 = 10911;
const METRICS_PORT: u16 = 5557;
/// Longest that a start may take: slow disks and stuck I/O included.
const LONGEST_START: Duration = Duration::from_secs(6 * 3600);
/// Longest that a stop may take.
const LONGEST_STOP: Duration = Duration::from_secs(3600);
/// Within how many polls a doomed life ends, at most.
const LONGEST_LIFE: u64 = 1 << 15;
/// Room that a limited disk has left, in bytes, at most.
const MAX_ROOM: u64 = 8 << 20;
/// How long it takes until all that was begun while things went wrong has come to its end: what waits for stuck I/O,
/// timers, checks of half messages.
const SETTLING: Duration = Duration::from_secs(150);
/// Further than all that clocks that jump may have put off, in ms.
const FAR_MS: i64 = 400 * 24 * 3_600_000;

/// Faults that make a disk or a process slow, or refuse to write for a time.
const SLOWING: [Fault; 6] = [
    Fault::SlowDisk,
    Fault::StuckIo,
    Fault::Pause,
    Fault::PiecewiseIo,
    Fault::NoSpace,
    Fault::NoSpaceAnywhere,
];

/// A broker, its clients, and what they know.
pub struct Site<'a> {
    plan: &'a Plan,
    sim: &'a Sim,
    name_servers: &'a NameServers<'a>,
    name: String,
    number: u32,
    model: Rc<RefCell<Model>>,
    /// Held for as long as the broker is to run.
    handle: RefCell<Option<BrokerHandle>>,
    /// How often it had ended when it was started last.
    started: Cell<u64>,
}

impl<'a> Site<'a> {
    /// On nodes that do not run yet.
    pub fn new(plan: &'a Plan, sim: &'a Sim, name_servers: &'a NameServers<'a>, number: u32) -> Site<'a> {
        let name = format!("broker-{number}");
        set_faults(sim, &name, Faults::none());
        let rate = |fault| plan.faults.rate(fault);
        let is_honest = rate(Fault::ClockJump) == 0 && rate(Fault::ClockDrift) == 0;
        let model = Rc::new(RefCell::new(Model::new(is_honest, Retention::of(plan))));
        Site {
            plan,
            sim,
            name_servers,
            name,
            number,
            model,
            handle: RefCell::default(),
            started: Cell::new(0),
        }
    }

    /// How often the broker has ended.
    pub fn lives(&self) -> u64 {
        self.sim.lives(&self.name)
    }

    /// Messages that it has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.model.borrow().acknowledged
    }

    /// Starts the broker for the first time, while nothing goes wrong, until all know each other.
    pub async fn prepare(&self) {
        assert!(self.start_broker().await, "nothing goes wrong yet, and the broker does not start");
        self.client(0).prepare().await;
        let node = format!("{}-producer", self.name);
        set_faults(self.sim, &node, network_only(&self.plan.faults));
        let env = self.sim.node(&node);
        env.clone().spawn(answer_checks(env, self.home()));
    }

    /// Lives one life after the other.
    pub async fn live(&self) {
        for life in 0..self.plan.lives {
            self.one_life(life).await;
        }
    }

    fn home(&self) -> Home {
        Home {
            broker: self.name.clone(),
            address: SocketAddr::new(self.sim.ip(&self.name), PORT),
            metrics: SocketAddr::new(self.sim.ip(&self.name), METRICS_PORT),
            name_servers: self.name_servers.addresses(),
            is_prompt: !self.may(&SLOWING) && network_only(&self.plan.faults) == Faults::none(),
            model: Rc::clone(&self.model),
        }
    }

    fn client_node(&self, number: u32) -> String {
        format!("{}-client-{number}", self.name)
    }

    fn client(&self, number: u32) -> Client {
        Client::new(self.sim.node(&self.client_node(number)), self.home())
    }

    fn may(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.plan.faults.rate(*fault) > 0)
    }

    /// Lets the clients work while the broker crashes, or is stopped, and comes back.
    async fn one_life(&self, life: u32) {
        let (sim, plan) = (self.sim, self.plan);
        set_faults(sim, &self.name, plan.faults);
        for number in 0..plan.clients {
            let node = self.client_node(number);
            set_faults(sim, &node, network_only(&plan.faults));
            sim.node(&node).spawn(self.client(number).work(plan.ops));
        }
        self.limit_disk().await;
        let crash = [Crash::Process, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 3];
        let most = 64 << (sim.random() % u64::from(LONGEST_LIFE.ilog2() - 5));
        let lives = self.lives();
        let is_stopped = sim.random().is_multiple_of(4);
        if !is_stopped {
            sim.crash_after_polls(&self.name, sim.random() % most, crash);
        }
        for _ in 0..sim.random() % 100 {
            if self.lives() > lives {
                break;
            }
            sim.sleep(Duration::from_millis(sim.random() % 1000)).await;
        }
        if is_stopped && self.lives() == lives && self.stop_broker().await {
            sim.crash(&self.name, crash);
            self.ended(End::Stopped);
        } else {
            let died = self.lives() > lives;
            if !died {
                sim.crash(&self.name, crash);
            }
            self.account(crash, died);
        }
        sim.note(|| format!("life {life} of {} is over", self.name), &[u64::from(life)]);
        self.name_servers.disturb(plan.faults, crash);
        self.start_again().await;
    }

    fn ended(&self, end: End) {
        let is_quick = !self.may(&SLOWING) && !self.plan.quota;
        self.model.borrow_mut().ended(end, self.sim.ended_at(&self.name), is_quick);
    }

    /// What the crash may have taken.
    fn account(&self, crash: Crash, died: bool) {
        let power_failed = match self.reason_to_end(died) {
            Some(reason) => matches!(reason, Fatal::Sync { .. }),
            None => crash != Crash::Process,
        };
        self.ended(if power_failed && !self.plan.sync_flush { End::Unflushed } else { End::Killed });
    }

    /// Why the process ended itself, if it did, which it may only do for a reason.
    fn reason_to_end(&self, died: bool) -> Option<Fatal> {
        let reason = self.sim.ended_by(&self.name).filter(|_| died)?;
        let has_reason = match &reason {
            Fatal::Sync { .. } => self.may(&[Fault::SyncError]),
            Fatal::Write { .. } => {
                self.may(&[Fault::WriteError, Fault::SyncError, Fault::ReadError, Fault::NoSpaceAnywhere])
            }
            _ => false,
        };
        assert!(has_reason, "the broker ended itself: {reason}");
        Some(reason)
    }

    /// Starts the broker until it serves; what goes wrong with the disk ends at last.
    async fn start_again(&self) {
        for _ in 0..3 {
            let lives = self.lives();
            if self.start_broker().await {
                return;
            }
            self.sim.crash(&self.name, Crash::Process);
            self.account(Crash::Process, self.lives() > lives + 1);
        }
        self.sim.set_quota(&self.name, None);
        set_faults(self.sim, &self.name, Faults::none());
        assert!(self.start_broker().await, "nothing goes wrong, and the broker does not start");
    }

    /// Starts the broker's cores; whether it comes to serve.
    async fn start_broker(&self) -> bool {
        let config = self.config();
        let cores = config.cores;
        let (plan, handle) = ringmq_broker::plan(config, "");
        for core in 0..cores {
            let env = self.sim.node(&self.name);
            env.clone().spawn(ringmq_broker::run_core(plan.clone(), core, env));
        }
        drop(plan);
        match self.event(&handle, LONGEST_START).await {
            Some(BrokerEvent::Ready(_)) => {
                self.started.set(self.lives());
                *self.handle.borrow_mut() = Some(handle);
                true
            }
            Some(BrokerEvent::Failed(reason)) => {
                let device = [
                    Fault::ReadError,
                    Fault::WriteError,
                    Fault::SyncError,
                    Fault::NoSpace,
                    Fault::NoSpaceAnywhere,
                ];
                assert!(self.may(&device) || self.plan.quota, "the broker does not start: {reason}");
                false
            }
            // It crashed while it started.
            Some(BrokerEvent::Stopped) | None => false,
        }
    }

    /// Stops the broker; whether it came to its end, and did not crash.
    async fn stop_broker(&self) -> bool {
        let Some(handle) = self.handle.take() else { return false };
        handle.stop();
        self.event(&handle, LONGEST_STOP).await == Some(BrokerEvent::Stopped)
    }

    /// The next thing that the broker says; `None` when it is gone.
    async fn event(&self, handle: &BrokerHandle, limit: Duration) -> Option<BrokerEvent> {
        let late = async {
            self.sim.sleep(limit).await;
            panic!("the broker neither starts or stops nor fails to");
        };
        future::or(async { handle.events().recv_async().await.ok() }, late).await
    }

    fn config(&self) -> BrokerConfig {
        let random = self.plan.seed;
        let name_servers: Vec<String> =
            self.name_servers.addresses().iter().map(SocketAddr::to_string).collect();
        let sets = [
            format!("name={}", self.name),
            format!("bind={}", self.sim.ip(&self.name)),
            format!("namesrv={}", name_servers.join(";")),
            format!("cores={}", 1 + (random + u64::from(self.number)) % 2),
            format!("shards={}", 1 + random / 2 % 3),
            format!("flush={}", if self.plan.sync_flush { "sync" } else { "async" }),
            format!("memory={}MiB", if self.plan.small { 64 } else { 512 }),
            "tail-memory=4MiB".to_owned(),
            "max-message-size=64KiB".to_owned(),
            format!("metrics-port={METRICS_PORT}"),
            "offset-flush-interval=500ms".to_owned(),
            "disk-watermark=99".to_owned(),
            "clean-forcibly=false".to_owned(),
            "delay-levels=1s 5s 10s".to_owned(),
            "recall=true".to_owned(),
            "transaction-timeout=3s".to_owned(),
            "transaction-check-interval=10s".to_owned(),
            "transaction-check-max=1000000".to_owned(),
            format!("lock-expiry={}ms", LOCK_EXPIRY.as_millis()),
        ];
        let settings = settings(Role::Broker, &sets);
        let machine = Machine { cores: 2, memory: 4 << 30, cgroup_memory: None, address: None };
        let config = BrokerConfig::from_settings(&settings, &machine);
        let mut config = config.expect("a configuration of the simulator's own");
        // Smaller than the options allow: what happens seldom happens often.
        config.segment_size = (256 << 10) << (random % 3);
        Retention::of(self.plan).configure(&mut config);
        if self.plan.small {
            config.lanes = LaneCapacity { batches: 2, requests: 50, bytes: 1 << 20 };
        }
        config
    }

    /// Gives the disk a limit in some lives of some runs.
    async fn limit_disk(&self) {
        self.sim.set_quota(&self.name, None);
        if self.plan.quota && self.sim.random().is_multiple_of(2) {
            let env = self.sim.node(&self.name);
            if let Ok(space) = env.disk_space("/".as_ref()).await {
                let room = self.sim.random() % MAX_ROOM;
                self.sim.set_quota(&self.name, Some(space.total - space.available + room));
            }
        }
    }

    /// Nothing goes wrong with the site any more.
    pub fn calm(&self) {
        let clients = (0..self.plan.clients.max(1)).map(|number| self.client_node(number));
        let others = [self.name.clone(), format!("{}-producer", self.name)];
        clients.chain(others).for_each(|node| set_faults(self.sim, &node, Faults::none()));
        self.sim.set_quota(&self.name, None);
    }

    /// Nothing goes wrong any more: within a bound everything works, and everything promised is there.
    pub async fn end_well(&self) {
        if self.lives() > self.started.get() {
            // It crashed while others lived on.
            self.account(Crash::Process, true);
            self.start_again().await;
        }
        let is_honest = self.model.borrow().is_honest;
        if !is_honest {
            self.sim.jump_wall_clock(&self.name, FAR_MS);
        }
        for crash in [Crash::Process, Crash::Power] {
            self.sim.sleep(SETTLING).await;
            self.model.borrow_mut().halves_are_decided(self.sim.now());
            self.client(0).check_all().await;
            let lives = self.lives();
            self.sim.crash(&self.name, crash);
            self.account(crash, self.lives() > lives + 1);
            self.start_again().await;
        }
        self.client(0).check_all().await;
        self.client(0).check_routes().await;
    }

    /// Every name server knows the broker.
    pub async fn check_routes(&self) {
        self.client(0).check_routes().await;
    }
}
