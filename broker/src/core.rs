//! One core of the node: what its tasks share, and how a message finds its way to a shard, to a connection, or to
//! another core.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use ringmq_engine::{QueueId, ShardId};
use ringmq_env::{Env, Listener, Stream, StreamWriter, mutant};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Forms, Limits};
use ringmq_protocol::message_id::UniqueKeys;
use rustc_hash::FxBuildHasher;

use crate::answers::Identity;
use crate::backlog::{self, Backlog};
use crate::calls::{CallTable, Caller};
use crate::complaints::Complaints;
use crate::connection::{Connection, ConnectionTable, End, read_requests, write_answers};
use crate::control::{Change, MetadataCopy, TopicPlace, Update};
use crate::control_plane::ControlPlane;
use crate::event::LocalEvent;
use crate::mailbox::{CoreId, Full, LaneGauge, Mailbox};
use crate::message::*;
use crate::message_filter::FilterCache;
use crate::outgoing::Gathered;
use crate::quotas::Quotas;
use crate::remarks;
use crate::shard_service::ShardService;

/// Write buffers that a core keeps for its connections to share.
const SPARE_BUFFERS: usize = 32;
/// A buffer that has grown beyond this is given back to the allocator.
const SPARE_BUFFER_MAX: usize = 256 << 10;
/// The part of the memory limit that the read and write buffers of all connections may take.
const NETWORK_MEMORY_SHARE: u64 = 4;

/// The core that owns the metadata.
pub const CONTROL_CORE: CoreId = CoreId(0);

/// What all tasks of one core share. Nothing here is borrowed across an await.
pub struct Core<E: Env> {
    /// The machine.
    pub env: E,
    /// Which core this is.
    pub id: CoreId,
    /// What the node is.
    pub identity: Identity,
    /// This core's copy of topics, groups and subscriptions.
    pub metadata: RefCell<MetadataCopy>,
    /// Message ids for messages without one.
    pub unique_keys: RefCell<UniqueKeys>,
    /// The expressions that pulls bring along, compiled.
    pub filters: RefCell<FilterCache>,
    /// What may be sent and pulled.
    pub quotas: RefCell<Quotas>,
    /// The forms of the headers that were read here.
    pub forms: RefCell<Forms>,
    /// What was refused or closed, counted and told now and then.
    pub complaints: Complaints,
    mailbox: Rc<Mailbox<CoreMessage>>,
    connections: RefCell<ConnectionTable>,
    shards: OnceCell<HashMap<ShardId, Rc<ShardService<E>>, FxBuildHasher>>,
    control: OnceCell<Rc<ControlPlane<E>>>,
    calls: CallTable,
    backlog: Backlog,
    limits: Limits,
    buffers: RefCell<Vec<Gathered>>,
    network_memory: Cell<usize>,
    network_memory_limit: usize,
    node_messages: RefCell<VecDeque<NodeMessage>>,
    node_message: LocalEvent,
    stopping: Cell<bool>,
}

impl<E: Env> Core<E> {
    /// A core without shards yet.
    pub fn new(env: E, identity: Identity, mailbox: Mailbox<CoreMessage>) -> Rc<Core<E>> {
        let config = &identity.config;
        let limits = Limits {
            max_frame: config.max_frame_size,
            max_header: config.max_header_size,
            ..Limits::default()
        };
        let share = config.memory / NETWORK_MEMORY_SHARE / u64::from(identity.routing.cores);
        let random = env.random();
        let unique_keys = UniqueKeys::new(identity.store_host.ip(), random as u32, (random >> 32) as u32);
        Rc::new(Core {
            id: mailbox.core(),
            metadata: RefCell::new(MetadataCopy::new(identity.config.lmq)),
            unique_keys: RefCell::new(unique_keys),
            filters: RefCell::default(),
            quotas: RefCell::new(Quotas::new(mailbox.core(), identity.routing, config.quotas)),
            forms: RefCell::default(),
            complaints: Complaints::default(),
            mailbox: Rc::new(mailbox),
            connections: RefCell::default(),
            shards: OnceCell::new(),
            control: OnceCell::new(),
            calls: CallTable::default(),
            backlog: Backlog::default(),
            limits,
            buffers: RefCell::default(),
            network_memory: Cell::new(0),
            network_memory_limit: usize::try_from(share).unwrap_or(usize::MAX),
            node_messages: RefCell::default(),
            node_message: LocalEvent::default(),
            stopping: Cell::new(false),
            env,
            identity,
        })
    }

    /// The shards that this core hosts; set once, before the first request.
    pub fn set_shards(&self, shards: Vec<Rc<ShardService<E>>>) {
        let shards = shards.into_iter().map(|service| (service.id(), service)).collect();
        assert!(self.shards.set(shards).is_ok(), "a core gets its shards once");
    }

    /// The shards that this core hosts.
    pub fn shards(&self) -> impl Iterator<Item = &Rc<ShardService<E>>> {
        self.shards.get().into_iter().flat_map(HashMap::values)
    }

    /// The control plane, on core 0; set once, before the first request.
    pub fn set_control(&self, control: Rc<ControlPlane<E>>) {
        assert!(
            self.id == CONTROL_CORE && self.control.set(control).is_ok(),
            "core 0 gets its control plane once"
        );
    }

    /// The control plane, on core 0.
    pub fn control(&self) -> Option<&Rc<ControlPlane<E>>> {
        self.control.get()
    }

    fn shard(&self, shard: ShardId) -> &Rc<ShardService<E>> {
        let service = self.shards.get().and_then(|shards| shards.get(&shard));
        service.expect("requests are routed to the core that hosts their shard")
    }

    /// The handles by which a shard knows the topic; those of no topic if the shard is on another core. `place` keeps them
    /// for the next time.
    pub fn topic_in(&self, shard: ShardId, topic: &Arc<str>, place: &Cell<TopicPlace>) -> TopicPlace {
        if self.identity.routing.core(shard) != self.id {
            return TopicPlace::default();
        }
        let known = Some(place.get()).filter(|known| known.shard == shard).unwrap_or_default();
        let service = self.shard(shard);
        let handle = service.engine().topic(topic, known.handle);
        let found = TopicPlace { shard, handle, counted: service.counted(topic, known.counted) };
        place.set(found);
        found
    }

    /// Has what sends to these queues, which have such places, need of a shard of this core fetched into its cache.
    pub fn prefetch_queues(&self, shard: ShardId, queues: &[(TopicPlace, QueueId)]) {
        if self.identity.routing.core(shard) == self.id {
            let service = self.shard(shard);
            queues.iter().for_each(|(place, _)| service.prefetch_counts(place.counted));
            service.engine().prefetch(queues.iter().map(|(place, queue)| (place.handle, *queue)));
        }
    }

    /// The control plane on the core that has it.
    fn control_here(&self) -> &Rc<ControlPlane<E>> {
        self.control.get().expect("control requests are routed to core 0")
    }

    // --- requests ---

    /// Sends a request that began on a connection of this core to the shard that owns it.
    pub fn submit(self: &Rc<Self>, shard: ShardId, reply: ReplyTo, bytes: usize, request: ShardRequest) {
        let owner = self.identity.routing.core(shard);
        if owner == self.id {
            let envelope = Envelope { shard, reply, credit: None, request };
            return self.shard(shard).handle(self, envelope);
        }
        let envelope = Envelope { shard, reply, credit: Some(bytes as u32), request };
        if let Err(full) = self.mailbox.request(owner, CoreMessage::Request(envelope), bytes) {
            self.refuse_full(owner, full);
        }
        if self.mailbox.is_over(owner, backlog::BEGINS) {
            self.begin_backlog();
        }
    }

    /// The same for a send. Most shards are on the core of the connection, and a send for one is not copied into an
    /// envelope and out of it.
    pub fn submit_send(self: &Rc<Self>, shard: ShardId, reply: ReplyTo, bytes: usize, send: SendRequest) {
        if self.identity.routing.core(shard) == self.id {
            return self.shard(shard).send_from(self, reply, send);
        }
        self.submit(shard, reply, bytes, ShardRequest::Send(send));
    }

    /// Sends a request that began on a connection of this core to core 0.
    pub fn submit_control(self: &Rc<Self>, request: ControlRequest) {
        if self.id == CONTROL_CORE {
            return self.control_here().handle(self, request, None);
        }
        let bytes = request.command.body.len();
        let message = CoreMessage::Control(Box::new(request), bytes as u32);
        if let Err(full) = self.mailbox.request(CONTROL_CORE, message, bytes) {
            self.refuse_full(CONTROL_CORE, full);
        }
    }

    /// The lane gave a request back: the client is told why, at once.
    fn refuse_full(&self, to: CoreId, full: Full<CoreMessage>) {
        self.complaints.lane_full(self.env.now(), to, &full);
        if mutant!("busy-unanswered") {
            return;
        }
        let refusal = remarks::lane_full(to, &full);
        let reply = match full.message {
            CoreMessage::Request(envelope) => envelope.reply,
            CoreMessage::Control(request, _) => request.reply,
            _ => unreachable!("only requests take credits"),
        };
        self.deliver(Answer { to: reply, credit: None, body: AnswerBody::Refused(refusal) });
    }

    /// Answers a request, on whichever core it began.
    pub fn deliver(&self, answer: Answer) {
        if answer.to.peer.core == self.id {
            self.complete(answer.to, answer.body);
        } else {
            self.mailbox.post(answer.to.peer.core, CoreMessage::Answer(answer));
        }
    }

    /// Queues an answer on its connection, if that still exists.
    fn complete(&self, to: ReplyTo, body: AnswerBody) {
        let connections = self.connections.borrow();
        let Some(connection) = connections.get(to.peer.connection) else { return };
        let grown = connection.finish(&self.identity, to.kind, to.opaque, body);
        self.meter(0, grown);
    }

    /// A shard of this core holds a pull: its connection is told, and gets the credit back early.
    pub fn hold_pull(&self, peer: Peer, credit: Option<u32>) {
        match credit {
            Some(bytes) => self.mailbox.post(peer.core, CoreMessage::Held(peer.connection, bytes)),
            None => self.hold_pull_here(peer.connection),
        }
    }

    fn hold_pull_here(&self, id: ConnectionId) {
        if let Some(connection) = self.connections.borrow().get(id) {
            connection.hold_pull();
        }
    }

    // --- calls ---

    /// Asks core 0, or a shard, and waits for the answer.
    pub async fn call(self: &Rc<Self>, call: Call) -> CallAnswer {
        let to = match &call {
            Call::CreateTopic { .. }
            | Call::CreateGroup(_)
            | Call::PushReply(..)
            | Call::CheckTransaction(..)
            | Call::RetryFate { .. } => CONTROL_CORE,
            Call::CoreFigures(core) => *core,
            Call::Shard(shard, _) => self.identity.routing.core(*shard),
        };
        let (number, pending) = self.calls.begin();
        if to == self.id {
            self.serve_call(Caller { core: self.id, number }, call);
        } else {
            self.mailbox.post(to, CoreMessage::Call(number, Box::new(call)));
        }
        self.flush();
        pending.answer().await
    }

    /// Asks every shard at once; the answers come in the order of the shards.
    pub async fn call_shards(self: &Rc<Self>, question: impl Fn(ShardId) -> ShardCall) -> Vec<CallAnswer> {
        let shards = self.identity.routing.all_shards();
        let asked: Vec<_> = shards.map(|shard| self.begin_shard_call(shard, question(shard))).collect();
        self.flush();
        let mut answers = Vec::with_capacity(asked.len());
        for pending in asked {
            answers.push(pending.answer().await);
        }
        answers
    }

    fn begin_shard_call(self: &Rc<Self>, shard: ShardId, question: ShardCall) -> crate::calls::PendingCall {
        let (number, pending) = self.calls.begin();
        let to = self.identity.routing.core(shard);
        let call = Call::Shard(shard, question);
        if to == self.id {
            self.serve_call(Caller { core: self.id, number }, call);
        } else {
            self.mailbox.post(to, CoreMessage::Call(number, Box::new(call)));
        }
        pending
    }

    fn serve_call(self: &Rc<Self>, caller: Caller, call: Call) {
        match call {
            Call::Shard(shard, question) => self.shard(shard).call(self, caller, question),
            Call::CoreFigures(_) => {
                self.answer_call(caller, CallAnswer::Figures(Box::new(self.figures())));
            }
            control => self.control_here().call(self, caller, control),
        }
    }

    /// Answers a call.
    pub fn answer_call(&self, caller: Caller, answer: CallAnswer) {
        if caller.core == self.id {
            self.calls.finish(caller.number, answer);
        } else {
            self.mailbox.post(caller.core, CoreMessage::CallAnswer(caller.number, Box::new(answer)));
        }
    }

    // --- the backlog ---

    /// A shard, or the lane to one, has more to do than readers should add to.
    pub fn begin_backlog(self: &Rc<Self>) {
        if self.backlog.begin(self.env.now()) {
            let core = self.clone();
            self.env.spawn(async move {
                core.env.sleep(backlog::PATIENCE).await;
                core.backlog.let_go();
            });
        }
    }

    /// Some of it may be done.
    pub fn end_backlog(&self) {
        let crowded = || {
            self.shards().any(|shard| shard.engine().is_over(backlog::ENDS))
                || self.others().any(|core| self.mailbox.is_over(core, backlog::ENDS))
        };
        if self.backlog.is_there() && !crowded() {
            self.backlog.end();
        }
    }

    /// Whether no connection should be read for the moment.
    pub fn holds_back(&self) -> bool {
        self.backlog.holds_back(|| self.env.now())
    }

    /// If so, this one's reader is told when to look again.
    pub fn hold_back(&self, connection: &Rc<Connection>) {
        if self.holds_back() {
            self.backlog.hold_back(connection);
        }
    }

    /// How often there was too much to do.
    pub fn backlogs(&self) -> u64 {
        self.backlog.count()
    }

    // --- the mesh ---

    /// Sends what is queued for the other cores.
    pub fn flush(&self) {
        for lane in self.mailbox.flush() {
            self.env.spawn(self.mailbox.clone().drain(lane));
        }
    }

    /// Takes in the batches of one other core until the mesh ends.
    pub async fn receive(self: Rc<Self>, from: CoreId, ring: flume::Receiver<Vec<CoreMessage>>) {
        while let Ok(batch) = ring.recv_async().await {
            for message in batch {
                self.receive_one(from, message);
            }
            self.end_backlog();
            self.flush();
        }
    }

    fn receive_one(self: &Rc<Self>, from: CoreId, message: CoreMessage) {
        match message {
            CoreMessage::Request(envelope) => self.shard(envelope.shard).handle(self, envelope),
            CoreMessage::Answer(Answer { to, credit, body }) => {
                self.release(from, credit);
                self.complete(to, body);
            }
            CoreMessage::Held(connection, bytes) => {
                self.release(from, Some(bytes));
                self.hold_pull_here(connection);
            }
            CoreMessage::Control(request, bytes) => self.control_here().handle(self, *request, Some(bytes)),
            CoreMessage::Update(update) => self.take_in(update),
            CoreMessage::Push(connection, frame) => self.push_here(connection, &frame),
            CoreMessage::Invoke(connection, number, frame) => self.invoke_here(connection, number, &frame),
            CoreMessage::Invoked(number, answer) => self.control_here().invoked(number, *answer),
            CoreMessage::Close(connection) => self.close_here(connection),
            CoreMessage::Gone(peer) => self.peer_gone(peer),
            CoreMessage::Call(number, call) => self.serve_call(Caller { core: from, number }, *call),
            CoreMessage::CallAnswer(number, answer) => self.calls.finish(number, *answer),
            CoreMessage::Node(message) => {
                self.node_messages.borrow_mut().push_back(message);
                self.node_message.signal();
            }
        }
    }

    fn release(&self, from: CoreId, credit: Option<u32>) {
        if let Some(bytes) = credit {
            self.mailbox.release(from, 1, bytes as usize);
        }
    }

    /// Core 0 only: hands a change to every core.
    pub fn broadcast(self: &Rc<Self>, update: Update) {
        for core in self.mailbox.cores().filter(|core| *core != self.id) {
            self.mailbox.post(core, CoreMessage::Update(update.clone()));
        }
        self.take_in(update);
    }

    fn take_in(self: &Rc<Self>, update: Update) {
        let change = update.change.clone();
        if !self.metadata.borrow_mut().apply(update) {
            return;
        }
        self.quotas.borrow_mut().apply(&change);
        if let Change::Subscriptions { group, view: Some(view) } = change {
            self.shards().for_each(|shard| shard.resubscribed(self, &group, &view));
        }
    }

    /// Sends a frame of this side's own to a connection of any core.
    pub fn push(&self, peer: Peer, frame: Bytes) {
        if peer.core == self.id {
            self.push_here(peer.connection, &frame);
        } else {
            self.mailbox.post(peer.core, CoreMessage::Push(peer.connection, frame));
        }
    }

    fn push_here(&self, id: ConnectionId, frame: &[u8]) {
        let grown = self.connections.borrow().get(id).map_or(0, |connection| connection.push(frame));
        self.meter(0, grown);
    }

    /// Core 0 only: sends a request of its own to a connection of any core; the answer comes back with `number`.
    pub fn invoke(&self, peer: Peer, number: i32, frame: Bytes) {
        if peer.core == self.id {
            self.invoke_here(peer.connection, number, &frame);
        } else {
            self.mailbox.post(peer.core, CoreMessage::Invoke(peer.connection, number, frame));
        }
    }

    fn invoke_here(&self, id: ConnectionId, number: i32, frame: &[u8]) {
        let grown =
            self.connections.borrow().get(id).map_or(0, |connection| connection.invoke(number, frame));
        self.meter(0, grown);
    }

    /// A client of this core answers the request of core 0 with this number.
    pub fn invoked(&self, number: i32, answer: Command) {
        if self.id == CONTROL_CORE {
            self.control_here().invoked(number, answer);
        } else {
            self.mailbox.post(CONTROL_CORE, CoreMessage::Invoked(number, Box::new(answer)));
        }
    }

    /// Closes a connection of any core.
    pub fn close_peer(&self, peer: Peer) {
        if peer.core == self.id {
            self.close_here(peer.connection);
        } else {
            self.mailbox.post(peer.core, CoreMessage::Close(peer.connection));
        }
    }

    fn close_here(&self, id: ConnectionId) {
        let connection = self.connections.borrow().get(id).cloned();
        if let Some(connection) = connection {
            connection.close();
        }
    }

    /// What the lanes to the other cores hold.
    pub fn lane_gauges(&self) -> impl Iterator<Item = LaneGauge> + '_ {
        self.others().map(|core| self.mailbox.gauge(core))
    }

    // --- connections ---

    /// Accepts connections until the listener is closed.
    pub async fn accept(self: Rc<Self>, listener: Rc<impl Listener>) {
        while let Ok(stream) = listener.accept().await {
            if self.stopping.get() {
                return;
            }
            if self.connections.borrow().len() >= self.identity.config.max_connections {
                self.complaints.too_many_connections(self.env.now(), self.identity.config.max_connections);
                continue;
            }
            self.begin_connection(stream);
        }
    }

    fn begin_connection(self: &Rc<Self>, stream: impl Stream) {
        let address = stream.peer_addr();
        let (reader, writer) = stream.into_split();
        let (closer, now) = (writer.closer(), self.env.now());
        let make = |id| Connection::new(id, address, closer, now);
        let connection = self.connections.borrow_mut().insert(make);
        self.env.spawn(write_answers(self.clone(), connection.clone(), writer));
        self.env.spawn(read_requests(self.clone(), connection, reader));
    }

    /// The reader of a connection has come to its end: forgets the connection, everywhere.
    pub fn connection_ended(self: &Rc<Self>, connection: &Connection, end: &End) {
        self.complaints.connection_ended(self.env.now(), connection.address, end);
        connection.close();
        self.connections.borrow_mut().remove(connection.id);
        let peer = Peer { core: self.id, connection: connection.id };
        let pulled_from = connection.pulled_from.get();
        let concerned = |core: CoreId| {
            pulled_from & core_bit(core) != 0 || (core == CONTROL_CORE && connection.known_to_control.get())
        };
        for core in self.mailbox.cores().filter(|core| concerned(*core)) {
            if core == self.id {
                self.peer_gone(peer);
            } else {
                self.mailbox.post(core, CoreMessage::Gone(peer));
            }
        }
        self.flush();
    }

    fn peer_gone(self: &Rc<Self>, peer: Peer) {
        self.shards().for_each(|shard| shard.peer_gone(peer));
        if let Some(control) = self.control() {
            control.peer_gone(self, peer);
        }
    }

    /// Closes connections that are idle, or that do not read their answers.
    pub fn sweep_connections(&self) {
        let (now, idle_timeout) = (self.env.now(), self.identity.config.idle_timeout);
        let connections = self.connections.borrow();
        let overdue = connections.iter().filter_map(|connection| {
            connection.overdue(now, idle_timeout).map(|reason| (connection.clone(), reason))
        });
        let overdue: Vec<_> = overdue.collect();
        drop(connections);
        for (connection, reason) in overdue {
            self.complaints.overdue(now, connection.address, reason);
            connection.close();
        }
    }

    /// Whether every connection has its answers, held pulls left out.
    pub fn is_quiet(&self) -> bool {
        self.connections.borrow().iter().all(|connection| connection.is_quiet())
    }

    /// Closes every connection.
    pub fn close_connections(&self) {
        let connections: Vec<_> = self.connections.borrow().iter().cloned().collect();
        connections.iter().for_each(|connection| connection.close());
    }

    /// From now on nothing new is accepted.
    pub fn begin_stop(&self) {
        self.stopping.set(true);
    }

    /// Whether the node is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.connections.borrow().len()
    }

    // --- memory ---

    /// What a frame may be.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A buffer of a connection has changed its size.
    pub fn meter(&self, before: usize, after: usize) {
        let used = self.network_memory.get() + after;
        assert!(used >= before, "a buffer that was not metered is given back");
        self.network_memory.set(used - before);
    }

    /// Bytes of all connections' buffers.
    pub fn network_memory(&self) -> usize {
        self.network_memory.get()
    }

    /// Bytes that all connections' buffers may take.
    pub fn network_memory_limit(&self) -> usize {
        self.network_memory_limit
    }

    /// Whether connections should queue less, because together they use more than half of what they may.
    pub fn under_pressure(&self) -> bool {
        self.network_memory.get() > self.network_memory_limit / 2
    }

    /// Empty memory for a write.
    pub fn take_buffer(&self) -> Gathered {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives empty memory back.
    pub fn give_buffer(&self, buffer: Gathered) {
        let mut buffers = self.buffers.borrow_mut();
        if buffers.len() < SPARE_BUFFERS && (1..=SPARE_BUFFER_MAX).contains(&buffer.capacity()) {
            buffers.push(buffer);
        }
    }

    // --- start and stop ---

    /// Tells another core of start and stop.
    pub fn post_node(&self, to: CoreId, message: NodeMessage) {
        self.mailbox.post(to, CoreMessage::Node(message));
    }

    /// The other cores.
    pub fn others(&self) -> impl Iterator<Item = CoreId> + use<E> {
        let id = self.id;
        self.mailbox.cores().filter(move |core| *core != id)
    }

    /// The next message about start and stop.
    pub async fn next_node_message(&self) -> NodeMessage {
        loop {
            let message = self.node_messages.borrow_mut().pop_front();
            if let Some(message) = message {
                return message;
            }
            self.node_message.wait().await;
        }
    }
}

/// The bit for a core in a connection's set of cores; the cores from 63 on share one.
pub fn core_bit(core: CoreId) -> u64 {
    1 << core.0.min(63)
}
