//! A broker, a name server and clients, in one thread: crashes, a bad disk, a bad network, wrong clocks.

mod client;
mod model;
mod wire;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmq_broker::{BrokerConfig, BrokerEvent, BrokerHandle, Machine};
use ringmq_env::sim::{Crash, Fault, Faults, Sim};
use ringmq_env::{Env, Fatal};
use ringmq_namesrv::{Namesrv, NamesrvConfig};
use ringmq_options::{Role, Settings};

use crate::outcome::Outcome;
use crate::plan::Plan;
use client::Client;
use model::Model;

const BROKER: &str = "broker";
const NAMESRV: &str = "namesrv";
const BROKER_PORT: u16 = 10911;
const NAMESRV_PORT: u16 = 9876;
/// Virtual time that a whole run may take.
const TIME_LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest that a start may take: slow disks and stuck I/O included.
const LONGEST_START: Duration = Duration::from_secs(6 * 3600);
/// Within how many polls a doomed life ends, at most.
const LONGEST_LIFE: u64 = 1 << 15;
/// Room that a limited disk has left, in bytes, at most.
const MAX_ROOM: u64 = 24 << 20;

/// Runs a plan in a world; panics where a promise is broken.
pub fn run(plan: &Plan, sim: &Sim) -> Outcome {
    sim.set_time_limit(TIME_LIMIT);
    let model = Rc::new(RefCell::new(Model::new()));
    let room = Room { plan, sim, model, handle: RefCell::default() };
    sim.run(room.run());
    let acknowledged = room.model.borrow().acknowledged;
    Outcome { cycles: sim.lives(BROKER), acknowledged, ..Outcome::default() }
}

/// The machine room.
struct Room<'a> {
    plan: &'a Plan,
    sim: &'a Sim,
    model: Rc<RefCell<Model>>,
    /// Held for as long as the broker is to run.
    handle: RefCell<Option<BrokerHandle>>,
}

impl Room<'_> {
    async fn run(&self) {
        // Nothing goes wrong until all know each other.
        [NAMESRV, BROKER].into_iter().for_each(|node| self.set_faults(node, Faults::none()));
        self.start_namesrv();
        assert!(self.start_broker().await, "nothing goes wrong yet, and the broker does not start");
        self.client(0).prepare().await;
        for life in 0..self.plan.lives {
            self.one_life(life).await;
        }
        self.end_well().await;
    }

    fn set_faults(&self, node: &str, faults: Faults) {
        self.sim.node(node);
        self.sim.set_faults(node, faults);
        self.sim.end_episodes(node);
    }

    fn client(&self, number: u32) -> Client {
        let env = self.sim.node(&format!("client-{number}"));
        let server = SocketAddr::new(self.sim.ip(BROKER), BROKER_PORT);
        Client::new(env, server, Rc::clone(&self.model), number)
    }

    fn may(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.plan.faults.rate(*fault) > 0)
    }

    /// Lets the clients work while the broker crashes and comes back.
    async fn one_life(&self, life: u32) {
        let (sim, plan) = (self.sim, self.plan);
        [NAMESRV, BROKER].into_iter().for_each(|node| self.set_faults(node, plan.faults));
        for number in 0..plan.clients {
            self.set_faults(&format!("client-{number}"), network_only(&plan.faults));
            let client = self.client(number);
            let env = sim.node(&format!("client-{number}"));
            env.spawn(client.work(plan.ops));
        }
        self.limit_disk().await;
        let crash = [Crash::Process, Crash::Power, Crash::PowerLosingAll][sim.random() as usize % 3];
        let most = 64 << (sim.random() % u64::from(LONGEST_LIFE.ilog2() - 5));
        sim.crash_after_polls(BROKER, sim.random() % most, crash);
        let lives = sim.lives(BROKER);
        for _ in 0..100 {
            if sim.lives(BROKER) > lives {
                break;
            }
            sim.sleep(Duration::from_millis(sim.random() % 1000)).await;
        }
        let died = sim.lives(BROKER) > lives;
        if !died {
            sim.crash(BROKER, crash);
        }
        sim.note(|| format!("life {life} of the broker is over"), &[u64::from(life)]);
        self.account(crash, died);
        if sim.random().is_multiple_of(4) {
            sim.crash(NAMESRV, crash);
            self.start_namesrv();
        }
        self.start_again().await;
    }

    /// What the crash may have taken.
    fn account(&self, crash: Crash, died: bool) {
        let power_failed = match self.reason_to_end(died) {
            Some(reason) => matches!(reason, Fatal::Sync { .. }),
            None => crash != Crash::Process,
        };
        if power_failed && !self.plan.sync_flush {
            self.model.borrow_mut().forget_unflushed();
        }
        let slow = [
            Fault::SlowDisk,
            Fault::StuckIo,
            Fault::Pause,
            Fault::PiecewiseIo,
            Fault::NoSpace,
            Fault::NoSpaceAnywhere,
        ];
        let is_quick = !self.may(&slow) && !self.plan.quota;
        self.model.borrow_mut().ended(self.sim.now(), is_quick, false);
    }

    /// Why the process ended itself, if it did, which it may only do for a reason.
    fn reason_to_end(&self, died: bool) -> Option<Fatal> {
        let reason = self.sim.ended_by(BROKER).filter(|_| died)?;
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
            if self.start_broker().await {
                return;
            }
            self.sim.crash(BROKER, Crash::Process);
            self.reason_to_end(true);
        }
        self.sim.set_quota(BROKER, None);
        self.set_faults(BROKER, Faults::none());
        assert!(self.start_broker().await, "nothing goes wrong, and the broker does not start");
    }

    /// Starts the broker's cores; whether it comes to serve.
    async fn start_broker(&self) -> bool {
        let config = self.broker_config();
        let cores = config.cores;
        let (plan, handle) = ringmq_broker::plan(config, "");
        for core in 0..cores {
            let env = self.sim.node(BROKER);
            env.clone().spawn(ringmq_broker::run_core(plan.clone(), core, env));
        }
        drop(plan);
        let late = async {
            self.sim.sleep(LONGEST_START).await;
            panic!("the broker neither starts nor fails to");
        };
        match futures_lite::future::or(handle.events().recv_async(), late).await {
            Ok(BrokerEvent::Ready(_)) => {
                *self.handle.borrow_mut() = Some(handle);
                true
            }
            Ok(BrokerEvent::Failed(reason)) => {
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
            Ok(BrokerEvent::Stopped) | Err(_) => false,
        }
    }

    fn broker_config(&self) -> BrokerConfig {
        let random = self.plan.seed;
        let sets = [
            format!("bind={}", self.sim.ip(BROKER)),
            format!("namesrv={}:{NAMESRV_PORT}", self.sim.ip(NAMESRV)),
            format!("cores={}", 1 + random % 2),
            format!("shards={}", 1 + random / 2 % 3),
            format!("flush={}", if self.plan.sync_flush { "sync" } else { "async" }),
            format!("memory={}MiB", if self.plan.small { 64 } else { 512 }),
            "tail-memory=4MiB".to_owned(),
            "segment-size=16MiB".to_owned(),
            "disk-watermark=99".to_owned(),
        ];
        let settings = settings(Role::Broker, &sets);
        let machine = Machine { cores: 2, memory: 4 << 30, cgroup_memory: None, address: None };
        BrokerConfig::from_settings(&settings, &machine).expect("a configuration of the simulator's own")
    }

    fn start_namesrv(&self) {
        let env = self.sim.node(NAMESRV);
        let sets = [format!("bind={}", self.sim.ip(NAMESRV)), format!("namesrv-port={NAMESRV_PORT}")];
        let settings = settings(Role::Namesrv, &sets);
        let config = NamesrvConfig::from_settings(&settings);
        env.clone().spawn(async move {
            loop {
                if Namesrv::start(env.clone(), config.clone(), settings.clone()).await.is_ok() {
                    // It runs in tasks of its own.
                    return;
                }
                env.sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Gives the disk a limit in some lives of some runs.
    async fn limit_disk(&self) {
        self.sim.set_quota(BROKER, None);
        if self.plan.quota && self.sim.random().is_multiple_of(2) {
            let env = self.sim.node(BROKER);
            if let Ok(space) = env.disk_space("/".as_ref()).await {
                let room = self.sim.random() % MAX_ROOM;
                self.sim.set_quota(BROKER, Some(space.total - space.available + room));
            }
        }
    }

    /// Nothing goes wrong any more: within a bound everything works, and everything promised is there.
    async fn end_well(&self) {
        let clients = (0..self.plan.clients.max(1)).map(|number| format!("client-{number}"));
        for node in [NAMESRV.to_owned(), BROKER.to_owned()].into_iter().chain(clients) {
            self.set_faults(&node, Faults::none());
        }
        self.sim.set_quota(BROKER, None);
        self.sim.heal_all();
        for crash in [Crash::Process, Crash::Power] {
            // What is stuck may stay so for a while.
            self.sim.sleep(Duration::from_secs(150)).await;
            self.client(0).check_all().await;
            self.sim.crash(BROKER, crash);
            let _ = self.sim.ended_by(BROKER);
            self.model.borrow_mut().ended(self.sim.now(), true, false);
            if crash == Crash::Power && !self.plan.sync_flush {
                self.model.borrow_mut().forget_unflushed();
            }
            self.start_again().await;
        }
        self.client(0).check_all().await;
        self.client(0).check_route(SocketAddr::new(self.sim.ip(NAMESRV), NAMESRV_PORT)).await;
    }
}

fn settings(role: Role, sets: &[String]) -> Settings {
    let mut settings = Settings::new(role);
    for set in sets {
        settings.apply_set(set).unwrap_or_else(|error| panic!("{set}: {error}"));
    }
    settings
}

/// The faults that a client's machine has.
fn network_only(faults: &Faults) -> Faults {
    use Fault::*;
    let network = [Reset, HalfOpen, Partition, SlowSegment, SplitSegment, GhostConnection];
    network.iter().fold(Faults::none(), |all, fault| all.with(*fault, faults.rate(*fault)))
}
