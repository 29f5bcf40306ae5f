//! The broker as a whole: its cores start together and stop together (RocketMQ's BrokerController).
//!
//! Core 0 leads. It binds, reads the store's own facts and tells the others; each core opens its shards; when all
//! have, core 0 hands out the metadata, and everybody serves. At the end core 0 tells all to take nothing new, waits
//! until nothing is in flight, and only then lets them close their shards: until then a shard answers.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flume::{Receiver, Sender};
use ringmq_engine::{Shard, ShardId, ShardOptions, StoreMeta};
use ringmq_env::{Env, Listener};
use ringmq_protocol::properties::names as property;

use crate::answers::Identity;
use crate::config::BrokerConfig;
use crate::control::ControlSettings;
use crate::control_plane::ControlPlane;
use crate::core::{CONTROL_CORE, Core};
use crate::edge::push_property;
use crate::mailbox::{Incoming, Mailbox, Ports, mesh};
use crate::message::{CoreMessage, NodeMessage, NodeStart};
use crate::metrics;
use crate::routing::{LMQ_SHARD, Routing};
use crate::shard_service::ShardService;

/// What a record takes besides its body: fixed fields, topic, properties.
const RECORD_OVERHEAD: usize = 64 << 10;
/// Most bytes that a shard stages before it refuses appends as busy, but for a few records of the largest size.
const STAGED_LIMIT: usize = 32 << 20;
/// How long the end waits for the name servers.
const UNREGISTER_LIMIT: Duration = Duration::from_millis(300);
/// How long the end waits for what is in flight.
const DRAIN_LIMIT: Duration = Duration::from_millis(300);
/// How often it looks.
const DRAIN_STEP: Duration = Duration::from_millis(2);
/// How often idle connections are looked for.
const CONNECTION_SWEEP: Duration = Duration::from_secs(5);

/// What each core starts with. Cheap to clone; every core of the node gets a clone.
#[derive(Clone)]
pub struct BrokerPlan {
    config: Arc<BrokerConfig>,
    config_text: Arc<str>,
    /// The seat of each core, taken once.
    seats: Arc<[Receiver<Ports<CoreMessage>>]>,
    stop: Receiver<()>,
    events: Sender<BrokerEvent>,
}

/// What the broker tells those who started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// It serves.
    Ready(BrokerReady),
    /// It could not start; everything is closed again.
    Failed(String),
    /// It has stopped, and everything that was acknowledged is on the device.
    Stopped,
}

/// A broker that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerReady {
    /// Where it listens: the main port first, then the VIP port if there is one.
    pub listening: Vec<SocketAddr>,
    /// Where the metrics are, when they are served.
    pub metrics: Option<SocketAddr>,
    /// The address that clients are told.
    pub advertised: SocketAddr,
    /// Shards of the store.
    pub shards: u16,
}

/// Whoever started the broker holds this, on any thread.
pub struct BrokerHandle {
    stop: Sender<()>,
    events: Receiver<BrokerEvent>,
}

impl BrokerHandle {
    /// Tells the broker to stop; [`BrokerEvent::Stopped`] follows. Telling it twice is once.
    pub fn stop(&self) {
        // A full channel means that it was told already, a closed one that it has ended.
        let _ = self.stop.try_send(());
    }

    /// What the broker has to say, in order; closed once it has ended.
    pub fn events(&self) -> &Receiver<BrokerEvent> {
        &self.events
    }
}

/// Prepares a broker: the plan goes to [`run_core`] on each of `config.cores` cores. `config_text` is what admin
/// tools are shown of the options (26).
pub fn plan(config: BrokerConfig, config_text: &str) -> (BrokerPlan, BrokerHandle) {
    let cores = u16::try_from(config.cores).expect("the options bound the number of cores");
    let (stop, stopped) = flume::bounded(1);
    let (events_out, events) = flume::bounded(4);
    let seat = |ports| {
        let (give, take) = flume::bounded(1);
        give.send(ports).expect("the receiver is here");
        take
    };
    let seats = mesh(cores, config.lanes).into_iter().map(seat).collect();
    let plan = BrokerPlan {
        config: Arc::new(config),
        config_text: config_text.into(),
        seats,
        stop: stopped,
        events: events_out,
    };
    (plan, BrokerHandle { stop, events })
}

/// Runs one core of the broker until it is stopped. Returns when all of the core is closed.
pub async fn run_core<E: Env>(plan: BrokerPlan, core: usize, env: E) {
    let ports = plan.seats.get(core).and_then(|seat| seat.try_recv().ok());
    let ports = ports.expect("each core of the plan is run once");
    let events = plan.events.clone();
    let (mailbox, incoming) = ports.split();
    if mailbox.core() != CONTROL_CORE {
        return Follower { plan, env, mailbox, incoming }.run().await;
    }
    let end = match Leader::begin(plan, env, mailbox, incoming).await {
        Ok(leader) => leader.run().await,
        Err(reason) => BrokerEvent::Failed(reason),
    };
    // Nobody listens any more if whoever started the broker has gone.
    let _ = events.try_send(end);
}

/// Core 0.
struct Leader<E: Env> {
    plan: BrokerPlan,
    core: Rc<Core<E>>,
    start: NodeStart,
    listeners: Vec<Rc<E::Listener>>,
    metrics: Option<Rc<E::Listener>>,
}

impl<E: Env> Leader<E> {
    /// Binds, and tells the other cores what the node is.
    async fn begin(
        plan: BrokerPlan,
        env: E,
        mailbox: Mailbox<CoreMessage>,
        incoming: Incoming<CoreMessage>,
    ) -> Result<Leader<E>, String> {
        let config = &plan.config;
        let prepared = prepare(&env, config).await;
        let Prepared { start, listeners, metrics } = match prepared {
            Ok(prepared) => prepared,
            Err(reason) => {
                mailbox.cores().filter(|core| *core != CONTROL_CORE).for_each(|core| {
                    mailbox.post(core, CoreMessage::Node(NodeMessage::Close));
                });
                // A ring that was never used has room.
                let full = mailbox.flush();
                debug_assert!(full.is_empty());
                return Err(reason);
            }
        };
        let core = make_core(env, config, &start, mailbox, incoming);
        for other in core.others() {
            core.post_node(other, NodeMessage::Begin(Box::new(start.clone())));
        }
        core.flush();
        Ok(Leader { plan, core, start, listeners, metrics })
    }

    async fn run(self) -> BrokerEvent {
        let core = &self.core;
        let opened = self.open().await;
        let failures = self.collect_opened(opened).await;
        if let Some(reason) = failures {
            self.close().await;
            return BrokerEvent::Failed(reason);
        }
        if let Some(control) = core.control() {
            control.announce(core);
            core.env.spawn(control.clone().follow_outcomes(core.clone()));
            core.env.spawn(control.clone().tend(core.clone()));
            core.env.spawn(control.clone().expire_invocations(core.clone()));
        }
        core.others().for_each(|other| core.post_node(other, NodeMessage::Serve));
        core.flush();
        serve(core, &self.listeners);
        if let Some(listener) = &self.metrics {
            core.env.spawn(metrics::serve(core.clone(), listener.clone()));
        }
        if let Some(control) = core.control() {
            control.start_registration(core);
        }
        let ready = BrokerReady {
            listening: self.start.addresses.clone(),
            metrics: self.metrics.as_ref().map(|listener| listener.local_addr()),
            advertised: self.start.store_host,
            shards: self.start.shards,
        };
        // Full only if nobody reads, closed only if nobody cares.
        let _ = self.plan.events.try_send(BrokerEvent::Ready(ready));
        // An error means that whoever could stop the broker has gone: it stops.
        let _ = self.plan.stop.recv_async().await;
        self.stop().await;
        BrokerEvent::Stopped
    }

    /// Opens core 0's shards and the control plane.
    async fn open(&self) -> Result<(), String> {
        open_shards(&self.core, &self.start).await?;
        let config = &self.plan.config;
        let meta = config.data.join("meta");
        let settings = ControlSettings::new(config, self.plan.config_text.to_string(), self.start.shards);
        let control = ControlPlane::open(self.core.env.clone(), &meta, &settings).await;
        self.core.set_control(control.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Waits for the others; the reasons of all that failed.
    async fn collect_opened(&self, own: Result<(), String>) -> Option<String> {
        let mut reasons: Vec<String> = own.err().into_iter().collect();
        let mut missing = self.core.others().count();
        while missing > 0 {
            if let NodeMessage::Opened(result) = self.core.next_node_message().await {
                missing -= 1;
                reasons.extend(result.err());
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    async fn stop(&self) {
        let core = &self.core;
        core.others().for_each(|other| core.post_node(other, NodeMessage::Stop));
        core.flush();
        if let Some(control) = core.control() {
            control.stop_registration(UNREGISTER_LIMIT).await;
        }
        self.metrics.iter().for_each(|listener| listener.close());
        drain(core, &self.listeners).await;
        self.wait_for_all(|message| matches!(message, NodeMessage::Drained)).await;
        self.close().await;
    }

    /// Closes the shards of all cores.
    async fn close(&self) {
        let core = &self.core;
        core.others().for_each(|other| core.post_node(other, NodeMessage::Close));
        core.flush();
        close(core, &self.listeners).await;
        self.wait_for_all(|message| matches!(message, NodeMessage::Closed)).await;
    }

    async fn wait_for_all(&self, wanted: impl Fn(&NodeMessage) -> bool) {
        let mut missing = self.core.others().count();
        while missing > 0 {
            missing -= usize::from(wanted(&self.core.next_node_message().await));
        }
    }
}

/// Any other core.
struct Follower<E: Env> {
    plan: BrokerPlan,
    env: E,
    mailbox: Mailbox<CoreMessage>,
    incoming: Incoming<CoreMessage>,
}

impl<E: Env> Follower<E> {
    async fn run(self) {
        let Follower { plan, env, mailbox, incoming } = self;
        let Some(start) = first_word(&incoming).await else { return };
        let core = make_core(env, &plan.config, &start, mailbox, incoming);
        let opened = open_follower(&core, &start).await;
        let listeners = opened.clone().unwrap_or_default();
        core.post_node(CONTROL_CORE, NodeMessage::Opened(opened.map(|_| ())));
        core.flush();
        loop {
            match core.next_node_message().await {
                NodeMessage::Serve => serve(&core, &listeners),
                NodeMessage::Stop => {
                    drain(&core, &listeners).await;
                    core.post_node(CONTROL_CORE, NodeMessage::Drained);
                    core.flush();
                }
                NodeMessage::Close => {
                    close(&core, &listeners).await;
                    core.post_node(CONTROL_CORE, NodeMessage::Closed);
                    core.flush();
                    return;
                }
                NodeMessage::Begin(_)
                | NodeMessage::Opened(_)
                | NodeMessage::Drained
                | NodeMessage::Closed => {}
            }
        }
    }
}

/// What core 0 says first: what the node is, or (`None`) that there will be none.
async fn first_word(incoming: &Incoming<CoreMessage>) -> Option<NodeStart> {
    let (_, ring) = incoming.iter().find(|(from, _)| *from == CONTROL_CORE)?;
    let batch = ring.recv_async().await.ok()?;
    batch.into_iter().find_map(|message| match message {
        CoreMessage::Node(NodeMessage::Begin(start)) => Some(*start),
        _ => None,
    })
}

/// What core 0 has before the others begin.
struct Prepared<E: Env> {
    start: NodeStart,
    listeners: Vec<Rc<E::Listener>>,
    metrics: Option<Rc<E::Listener>>,
}

/// Binds and reads the store's own facts.
async fn prepare<E: Env>(env: &E, config: &BrokerConfig) -> Result<Prepared<E>, String> {
    let asked = [Some(config.port), config.vip_port()].into_iter().flatten();
    let asked: Vec<SocketAddr> = asked.map(|port| SocketAddr::new(config.bind, port)).collect();
    let listeners = listen(env, &asked).await?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr()).collect();
    let shards =
        u16::try_from(config.shards).map_err(|_| format!("{} shards are too many", config.shards))?;
    let meta = StoreMeta::open(env, &config.data, shards).await.map_err(|error| error.to_string())?;
    if config.shards_given && meta.shards != shards {
        return Err(format!(
            "the store in {} has {} shards, and keeps them: start without --shards, or with --shards {}",
            config.data.display(),
            meta.shards,
            meta.shards
        ));
    }
    let store_host = config.advertised(addresses[0].port());
    let start = NodeStart { addresses, store_host, store_id: meta.store_id, shards: meta.shards };
    let metrics = config.metrics_port.map(|port| SocketAddr::new(config.bind, port));
    let metrics = listen(env, metrics.as_slice()).await?.pop();
    Ok(Prepared { start, listeners, metrics })
}

async fn listen<E: Env>(env: &E, addresses: &[SocketAddr]) -> Result<Vec<Rc<E::Listener>>, String> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener =
            env.listen(*address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        listeners.push(Rc::new(listener));
    }
    Ok(listeners)
}

fn make_core<E: Env>(
    env: E,
    config: &Arc<BrokerConfig>,
    start: &NodeStart,
    mailbox: Mailbox<CoreMessage>,
    incoming: Incoming<CoreMessage>,
) -> Rc<Core<E>> {
    let routing = Routing { shards: start.shards, cores: config.cores as u16, has_lmqs: config.lmq };
    let identity = Identity { config: config.clone(), store_host: start.store_host, routing };
    let core = Core::new(env, identity, mailbox);
    for (from, ring) in incoming {
        core.env.spawn(core.clone().receive(from, ring));
    }
    core
}

async fn open_follower<E: Env>(
    core: &Rc<Core<E>>,
    start: &NodeStart,
) -> Result<Vec<Rc<E::Listener>>, String> {
    let listeners = listen(&core.env, &start.addresses).await?;
    open_shards(core, start).await?;
    Ok(listeners)
}

/// Opens the shards that the core hosts, side by side.
async fn open_shards<E: Env>(core: &Rc<Core<E>>, start: &NodeStart) -> Result<(), String> {
    let hosted: Vec<ShardId> = core.identity.routing.hosted(core.id).collect();
    let (opened, results) = flume::bounded(hosted.len().max(1));
    for shard in &hosted {
        let (core, store_id, shard, opened) = (core.clone(), start.store_id, *shard, opened.clone());
        core.env.clone().spawn(async move {
            // As many results as there are shards: there is room, and the receiver waits for all.
            let _ = opened.try_send(open_shard(&core, store_id, shard).await);
        });
    }
    let mut services = Vec::with_capacity(hosted.len());
    let mut failed = None;
    for _ in &hosted {
        match results.recv_async().await {
            Ok(Ok(service)) => services.push(service),
            Ok(Err(reason)) => failed = Some(reason),
            Err(flume::RecvError::Disconnected) => unreachable!("a sender is kept here"),
        }
    }
    services.iter().for_each(|service: &Rc<ShardService<E>>| service.start(core));
    core.set_shards(services);
    failed.map_or(Ok(()), Err)
}

async fn open_shard<E: Env>(
    core: &Core<E>,
    store_id: u64,
    id: ShardId,
) -> Result<Rc<ShardService<E>>, String> {
    let config = &core.identity.config;
    let dir = StoreMeta::shard_dir(&config.data, id);
    let options = shard_options(config, store_id, id, &dir);
    let shard = Shard::open(core.env.clone(), options).await.map_err(|error| error.to_string())?;
    let service = ShardService::open(id, shard.clone(), &config.cluster, common_properties(config)).await;
    if service.is_err() {
        shard.close().await;
    }
    service.map_err(|error| error.to_string())
}

fn shard_options(config: &BrokerConfig, store_id: u64, id: ShardId, dir: &Path) -> ShardOptions {
    let max_record_size = config.max_message_size.saturating_add(RECORD_OVERHEAD);
    ShardOptions {
        id,
        store_id,
        dir: dir.to_owned(),
        sync_flush: config.sync_flush,
        flush_interval_ms: config.flush_interval.as_millis() as u64,
        segment_size: config.segment_size,
        max_record_size,
        tail_memory: config.tail_memory,
        staged_limit: STAGED_LIMIT.min(config.tail_memory).max(2 * max_record_size),
        disk_watermark_percent: config.disk_watermark_percent,
        strict: config.strict,
        waiting_in_memory: ringmq_engine::WAITING_IN_MEMORY,
        shadow: ringmq_engine::SHADOW_LEN,
        lmq_limit: config.lmq_limit.filter(|_| id == LMQ_SHARD),
    }
}

/// What the broker adds to the properties of every message.
fn common_properties(config: &BrokerConfig) -> Vec<u8> {
    let mut properties = Vec::new();
    push_property(&mut properties, property::MSG_REGION, &config.region_id);
    push_property(&mut properties, property::TRACE_SWITCH, if config.trace_on { "true" } else { "false" });
    push_property(&mut properties, property::CLUSTER, &config.cluster);
    properties
}

/// From now on connections are accepted.
fn serve<E: Env>(core: &Rc<Core<E>>, listeners: &[Rc<E::Listener>]) {
    listeners.iter().for_each(|listener| core.env.spawn(core.clone().accept(listener.clone())));
    core.env.spawn(sweep_connections(core.clone()));
    core.shards().for_each(|shard| shard.serve(core));
}

async fn sweep_connections<E: Env>(core: Rc<Core<E>>) {
    while !core.is_stopping() {
        core.env.sleep(CONNECTION_SWEEP).await;
        core.sweep_connections();
    }
}

/// Takes nothing new, and waits until what is in flight on this core's connections is answered and written.
async fn drain<E: Env>(core: &Rc<Core<E>>, listeners: &[Rc<E::Listener>]) {
    core.begin_stop();
    listeners.iter().for_each(|listener| listener.close());
    core.shards().for_each(|shard| shard.begin_stop(core));
    let limit = core.env.now().after(DRAIN_LIMIT);
    while !core.is_quiet() && core.env.now() < limit {
        core.env.sleep(DRAIN_STEP).await;
    }
}

/// Closes the shards and the connections of this core.
async fn close<E: Env>(core: &Rc<Core<E>>, listeners: &[Rc<E::Listener>]) {
    core.begin_stop();
    listeners.iter().for_each(|listener| listener.close());
    let (closed, all) = flume::unbounded();
    let mut left = 0;
    for service in core.shards() {
        left += 1;
        let (core, service, closed) = (core.clone(), service.clone(), closed.clone());
        core.env.clone().spawn(async move {
            service.close(&core).await;
            // The receiver waits for every shard.
            let _ = closed.send(());
        });
    }
    while left > 0 {
        let _ = all.recv_async().await;
        left -= 1;
    }
    core.close_connections();
    core.complaints.tell_totals(core.id);
    core.env.yield_now().await;
}
