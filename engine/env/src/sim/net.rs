//! The simulated network: streams between nodes, with latency, split segments, resets and partitions.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::Node;
use super::faults::Fault;
use super::world::{NodeId, World};
use crate::{Listener, Stream, StreamCloser, StreamReader, StreamWriter};

/// Bytes of one direction of a stream that may be under way or unread.
const PIPE_CAPACITY: usize = 256 * 1024;
/// Bytes of one segment.
const MAX_SEGMENT: usize = 64 * 1024;
/// Connections waiting to be accepted; more are refused.
const BACKLOG: usize = 1024;
/// How long a segment takes, in nanoseconds.
const LATENCY: (u64, u64) = (20_000, 300_000);
/// How often a segment is sent again across a partition.
const RETRANSMIT: Duration = Duration::from_millis(50);
const MS: u64 = 1_000_000;
/// How long a slow segment takes, in nanoseconds.
const SLOW: (u64, u64) = (10 * MS, 5_000 * MS);
/// How long two nodes cannot reach each other, in nanoseconds.
const APART: (u64, u64) = (MS, 30_000 * MS);
/// How long a ghost connection stays.
const GHOST_LIFE: Duration = Duration::from_secs(60);
/// Bytes of a small segment, at most.
const SMALL_SEGMENT: u64 = 16;
const FIRST_EPHEMERAL_PORT: u16 = 32768;

/// All streams and listeners of a world.
pub(super) struct Net {
    world: Rc<World>,
    listeners: RefCell<BTreeMap<SocketAddr, Vec<Rc<Acceptor>>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    /// Pairs of nodes that cannot reach each other, and until when.
    cut: RefCell<BTreeMap<(NodeId, NodeId), u64>>,
    next_port: Cell<u16>,
}

/// Where incoming connections wait.
struct Acceptor {
    node: Rc<Node>,
    pending: RefCell<VecDeque<SimStream>>,
    closed: Cell<bool>,
    waiter: Cell<Option<Waker>>,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// Segments under way; `None` is the end of the stream.
    transit: VecDeque<Option<Vec<u8>>>,
    last_delivery: u64,
    arrived: BytesMut,
    /// Bytes under way or unread.
    filled: usize,
    ended: bool,
    reset: bool,
    /// What is written is never heard of again.
    silent: bool,
    /// The reader is gone: what is written goes nowhere.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

struct Connection {
    nodes: [Rc<Node>; 2],
    /// The pipe that each side writes to.
    pipes: [RefCell<Pipe>; 2],
}

impl Connection {
    fn ids(&self) -> [NodeId; 2] {
        [self.nodes[0].id, self.nodes[1].id]
    }

    fn reset(&self) {
        for pipe in &self.pipes {
            let mut pipe = pipe.borrow_mut();
            pipe.reset = true;
            pipe.wake();
        }
    }
}

/// The address that the whole world knows a node by.
pub(super) fn node_ip(node: NodeId) -> IpAddr {
    let [.., high, low] = (node as u32 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// A node's own loopback and wildcard addresses, as the world sees them.
fn global(node: NodeId, addr: SocketAddr) -> SocketAddr {
    let own = addr.ip().is_loopback() || addr.ip().is_unspecified();
    if own { SocketAddr::new(node_ip(node), addr.port()) } else { addr }
}

impl Net {
    pub(super) fn new(world: &Rc<World>) -> Rc<Net> {
        Rc::new(Net {
            world: Rc::clone(world),
            listeners: RefCell::default(),
            connections: RefCell::default(),
            cut: RefCell::default(),
            next_port: Cell::new(FIRST_EPHEMERAL_PORT),
        })
    }

    fn latency(&self) -> Duration {
        self.world.between(LATENCY.0, LATENCY.1)
    }

    pub(super) fn partition(&self, a: NodeId, b: NodeId, apart: bool) {
        let pair = (a.min(b), a.max(b));
        let mut cut = self.cut.borrow_mut();
        if apart {
            cut.insert(pair, u64::MAX)
        } else {
            cut.remove(&pair)
        };
    }

    /// Ends every partition.
    pub(super) fn heal_all(&self) {
        self.cut.borrow_mut().clear();
    }

    fn is_cut(&self, [a, b]: [NodeId; 2]) -> bool {
        self.cut.borrow().get(&(a.min(b), a.max(b))).is_some_and(|until| self.world.now() < *until)
    }

    fn fresh_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT));
        port
    }

    pub(super) fn listen(self: &Rc<Net>, node: &Rc<Node>, mut addr: SocketAddr) -> io::Result<SimListener> {
        if addr.port() == 0 {
            addr.set_port(self.fresh_port());
        }
        let key = global(node.id, addr);
        if key.ip() != node_ip(node.id) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let acceptor = Rc::new(Acceptor {
            node: Rc::clone(node),
            pending: RefCell::default(),
            closed: Cell::new(false),
            waiter: Cell::new(None),
        });
        self.listeners.borrow_mut().entry(key).or_default().push(Rc::clone(&acceptor));
        Ok(SimListener { net: Rc::clone(self), acceptor, key, addr })
    }

    pub(super) async fn connect(
        self: &Rc<Net>,
        node: &Rc<Node>,
        addr: SocketAddr,
        timeout: Duration,
    ) -> io::Result<SimStream> {
        let key = global(node.id, addr);
        let deadline = crate::Instant(self.world.now()).after(timeout);
        let ip = if addr.ip().is_loopback() { addr.ip() } else { node_ip(node.id) };
        let local = SocketAddr::new(ip, self.fresh_port());
        loop {
            self.world.sleep(self.latency()).await;
            if crate::Instant(self.world.now()) >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let acceptor = self.acceptor(key);
            let listening = acceptor.as_ref().map_or(node.id, |acceptor| acceptor.node.id);
            if self.is_cut([node.id, listening]) {
                self.world.sleep(RETRANSMIT).await;
                continue;
            }
            let Some(acceptor) = acceptor else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let stream = self.establish(&acceptor, node, local, addr);
            if self.world.roll(&node.faults.get(), Fault::GhostConnection) {
                let ghost = SocketAddr::new(local.ip(), self.fresh_port());
                let ghost = self.establish(&acceptor, node, ghost, addr);
                self.world.run_after(GHOST_LIFE, move || drop(ghost));
            }
            self.world.sleep(self.latency()).await;
            return Ok(stream);
        }
    }

    /// One of those that listen on an address, as the seed decides.
    fn acceptor(&self, key: SocketAddr) -> Option<Rc<Acceptor>> {
        let listeners = self.listeners.borrow();
        let open = listeners.get(&key)?.iter().filter(|acceptor| acceptor.pending.borrow().len() < BACKLOG);
        let open: Vec<_> = open.collect();
        if open.is_empty() {
            return None;
        }
        Some(Rc::clone(open[self.world.below(open.len() as u64) as usize]))
    }

    fn establish(
        self: &Rc<Net>,
        to: &Acceptor,
        node: &Rc<Node>,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> SimStream {
        let nodes = [Rc::clone(node), Rc::clone(&to.node)];
        let connection = Rc::new(Connection { nodes, pipes: Default::default() });
        {
            let mut connections = self.connections.borrow_mut();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Rc::downgrade(&connection));
        }
        self.world.note("connect", &[node.id as u64, to.node.id as u64, u64::from(peer.port())]);
        self.world.tell(|| format!("{} connects to {} port {}", node.name, to.node.name, peer.port()));
        let end = |side| {
            let connection = Rc::clone(&connection);
            Rc::new(End { net: Rc::clone(self), connection, side, shut: Cell::new(false) })
        };
        to.pending.borrow_mut().push_back(SimStream { end: end(1), local: peer, peer: local });
        if let Some(waker) = to.waiter.take() {
            waker.wake();
        }
        SimStream { end: end(0), local, peer }
    }

    /// What a crash of a node does to the network: its listeners are gone, its connections reset after `delay`.
    pub(super) fn crash(self: &Rc<Net>, node: NodeId, delay: Duration) {
        let mut gone = Vec::new();
        for acceptors in self.listeners.borrow_mut().values_mut() {
            let (own, others) = std::mem::take(acceptors).into_iter().partition(|a| a.node.id == node);
            *acceptors = others;
            gone.extend::<Vec<_>>(own);
        }
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        for connection in connections.into_iter().filter(|connection| connection.ids().contains(&node)) {
            self.world.run_after(delay, move || connection.reset());
        }
        for acceptor in gone {
            acceptor.closed.set(true);
            let pending = acceptor.pending.take();
            drop(pending);
        }
    }

    fn send(self: &Rc<Net>, connection: &Rc<Connection>, side: usize, segment: Option<Vec<u8>>) {
        let delay = self.latency() + self.disturb(connection, side);
        let len = segment.as_ref().map_or(0, Vec::len);
        let mut pipe = connection.pipes[side].borrow_mut();
        pipe.filled += len;
        if pipe.silent {
            return;
        }
        let at = pipe.last_delivery.max(crate::Instant(self.world.now()).after(delay).0);
        pipe.last_delivery = at;
        pipe.transit.push_back(segment);
        drop(pipe);
        self.world.note("send", &[connection.nodes[side].id as u64, len as u64, at]);
        self.deliver_after(Duration::from_nanos(at - self.world.now()), Rc::clone(connection), side);
    }

    /// What the sender's faults do to a connection when a segment is sent; how much longer that takes.
    fn disturb(self: &Rc<Net>, connection: &Rc<Connection>, side: usize) -> Duration {
        let faults = connection.nodes[side].faults.get();
        if self.world.roll(&faults, Fault::Reset) {
            let reset = Rc::clone(connection);
            self.world.run_after(self.latency(), move || reset.reset());
        }
        if self.world.roll(&faults, Fault::HalfOpen) {
            connection.pipes[side].borrow_mut().silent = true;
        }
        if self.world.roll(&faults, Fault::Partition) {
            let time = self.world.fault_time(Fault::Partition, APART.0, APART.1);
            let [a, b] = connection.ids();
            let until = crate::Instant(self.world.now()).after(time).0;
            self.cut.borrow_mut().insert((a.min(b), a.max(b)), until);
        }
        match self.world.roll(&faults, Fault::SlowSegment) {
            true => self.world.fault_time(Fault::SlowSegment, SLOW.0, SLOW.1),
            false => Duration::ZERO,
        }
    }

    fn deliver_after(self: &Rc<Net>, delay: Duration, connection: Rc<Connection>, side: usize) {
        let net = Rc::clone(self);
        self.world.run_after(delay, move || {
            if net.is_cut(connection.ids()) {
                return net.deliver_after(RETRANSMIT, connection, side);
            }
            let mut pipe = connection.pipes[side].borrow_mut();
            match pipe.transit.pop_front() {
                Some(Some(bytes)) if pipe.unread => pipe.filled -= bytes.len(),
                Some(Some(bytes)) => pipe.arrived.extend_from_slice(&bytes),
                Some(None) => pipe.ended = true,
                None => {}
            }
            pipe.wake();
        });
    }
}

/// A simulated listener.
pub struct SimListener {
    net: Rc<Net>,
    acceptor: Rc<Acceptor>,
    key: SocketAddr,
    addr: SocketAddr,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<SimStream> {
        poll_fn(|cx| {
            if self.acceptor.closed.get() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the listener is closed",
                )));
            }
            match self.acceptor.pending.borrow_mut().pop_front() {
                Some(stream) => Poll::Ready(Ok(stream)),
                None => {
                    self.acceptor.waiter.set(Some(cx.waker().clone()));
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn close(&self) {
        if let Some(acceptors) = self.net.listeners.borrow_mut().get_mut(&self.key) {
            acceptors.retain(|acceptor| !Rc::ptr_eq(acceptor, &self.acceptor));
        }
        self.acceptor.closed.set(true);
        if let Some(waker) = self.acceptor.waiter.take() {
            waker.wake();
        }
        let pending = self.acceptor.pending.take();
        drop(pending);
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// One side of a connection; ends it when dropped.
struct End {
    net: Rc<Net>,
    connection: Rc<Connection>,
    side: usize,
    shut: Cell<bool>,
}

impl End {
    fn outgoing(&self) -> &RefCell<Pipe> {
        &self.connection.pipes[self.side]
    }

    fn incoming(&self) -> &RefCell<Pipe> {
        &self.connection.pipes[1 - self.side]
    }

    /// Ends both directions: the other side reads what is under way, then the end.
    fn shut(&self) {
        if self.shut.replace(true) {
            return;
        }
        self.net.send(&self.connection, self.side, None);
        self.outgoing().borrow_mut().wake();
        self.incoming().borrow_mut().wake();
        let (connection, side) = (Rc::clone(&self.connection), 1 - self.side);
        self.net.world.run_after(self.net.latency(), move || {
            let mut pipe = connection.pipes[side].borrow_mut();
            pipe.unread = true;
            pipe.wake();
        });
    }

    /// Sends part of `bytes`, as much as has room, and returns how much.
    fn send_some(&self, bytes: &[u8], waker: &Waker) -> Poll<io::Result<usize>> {
        let room = {
            let mut pipe = self.outgoing().borrow_mut();
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.unread || self.shut.get() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if pipe.filled >= PIPE_CAPACITY {
                pipe.writer = Some(waker.clone());
                return Poll::Pending;
            }
            PIPE_CAPACITY - pipe.filled
        };
        let mut len = bytes.len().min(room).min(MAX_SEGMENT);
        let world = &self.net.world;
        if world.roll(&self.connection.nodes[self.side].faults.get(), Fault::SplitSegment) {
            len = len.min(1 + world.fault_below(Fault::SplitSegment, SMALL_SEGMENT) as usize);
        } else if world.below(4) == 0 {
            len = 1 + world.below(len as u64) as usize;
        }
        self.net.send(&self.connection, self.side, Some(bytes[..len].to_vec()));
        Poll::Ready(Ok(len))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shut();
    }
}

/// A simulated connection.
pub struct SimStream {
    end: Rc<End>,
    local: SocketAddr,
    peer: SocketAddr,
}

impl Stream for SimStream {
    type Reader = SimReader;
    type Writer = SimWriter;

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn into_split(self) -> (SimReader, SimWriter) {
        (SimReader(Rc::clone(&self.end)), SimWriter(self.end))
    }
}

/// The reading half of a simulated connection.
pub struct SimReader(Rc<End>);

impl StreamReader for SimReader {
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0, "a read needs spare capacity");
        poll_fn(|cx| {
            let mut pipe = self.0.incoming().borrow_mut();
            if pipe.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if !pipe.arrived.is_empty() {
                let n = pipe.arrived.len().min(room);
                buffer.put(pipe.arrived.split_to(n));
                pipe.filled -= n;
                pipe.writer.take().into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(n));
            }
            if pipe.ended || self.0.shut.get() {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The writing half of a simulated connection.
pub struct SimWriter(Rc<End>);

impl StreamWriter for SimWriter {
    async fn write_all(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        for part in parts {
            let mut rest: &[u8] = part;
            while !rest.is_empty() {
                let sent = poll_fn(|cx| self.0.send_some(rest, cx.waker())).await?;
                rest = &rest[sent..];
            }
        }
        Ok(())
    }

    fn closer(&self) -> StreamCloser {
        let end = Rc::downgrade(&self.0);
        StreamCloser::new(move || {
            if let Some(end) = end.upgrade() {
                end.shut();
            }
        })
    }
}
