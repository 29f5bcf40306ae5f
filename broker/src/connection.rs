//! One client connection: a task that reads requests and hands them on in order, and a task that writes whatever
//! answers are ready.
//!
//! Everything that a peer can make grow has a bound: requests in flight and queued answers (the reader then pauses,
//! so that TCP holds the peer back; a backlog of the core makes all of its readers pause), the read buffer (it grows
//! with what has really arrived, never with what a length field announces), and the time that a peer may take to read
//! its answers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_env::{Env, Instant, StreamCloser, StreamReader, StreamWriter};
use ringmq_protocol::frame::{self, FrameError};
use slab::Slab;
use smallvec::SmallVec;

use crate::answers::Identity;
use crate::core::Core;
use crate::edge::{self, Step};
use crate::event::LocalEvent;
use crate::message::{AnswerBody, ConnectionId, ReplyKind};
use crate::outgoing::Outgoing;

/// Requests that a connection may have in flight before its reader pauses; held pulls are not among them.
pub const MAX_IN_FLIGHT: usize = 2048;
/// Pulls that a connection may have in flight, held ones included, before more are refused as busy.
pub const MAX_PULLS: usize = 65_536;
/// Pulls that a connection may have in flight, held ones left out, before its reader pauses: each may be answered
/// with many bytes.
const MAX_UNSETTLED_PULLS: usize = 64;
/// Bytes of answers that may wait for a connection before its reader pauses.
pub const MAX_QUEUED: usize = 4 << 20;
/// The same while the core's connections together use more memory than they should.
const MAX_QUEUED_UNDER_PRESSURE: usize = 64 << 10;
/// Requests of this side's own that may wait for the peer's answer; of more, the answer to the oldest is not heard.
pub const MAX_INVOCATIONS: usize = 1024;
/// How long one write of answers may take before the peer counts as dead.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Requests that a connection hands on in a row. Then others have their turn: a group commit that the first of
/// them have begun is on its way to the device while the rest are still being read.
pub const MAX_IN_A_ROW: usize = 16;
/// And bytes of them.
const MAX_BYTES_IN_A_ROW: usize = 256 << 10;
/// Read buffer of a connection that says little.
const MIN_READ: usize = 1 << 10;
/// Most bytes that one read takes of a connection whose frames are small: what was read is still in the core's cache when it
/// is handled.
const USUAL_READ: usize = 64 << 10;
/// Most bytes that one read takes of a large frame.
const MAX_READ: usize = 256 << 10;
/// Read buffer that a connection may always have, whatever the others use.
const FREE_READ: usize = 64 << 10;

/// What the tasks of a connection, and those who answer it, share on its core.
pub struct Connection {
    /// Its place in the core's table.
    pub id: ConnectionId,
    /// The other end.
    pub address: SocketAddr,
    /// Core 0 has to know when it ends.
    pub known_to_control: Cell<bool>,
    /// Cores that may hold pulls of it, as a bit for each of the first 64; with more cores, bit 63 is for the rest.
    pub pulled_from: Cell<u64>,
    outgoing: RefCell<Outgoing>,
    /// Something is to be written, or the end has come.
    ready: LocalEvent,
    /// The reader may go on, or the end has come.
    room: LocalEvent,
    in_flight: Cell<usize>,
    /// Pulls that may be answered at any moment, and those that are held.
    pulls: Cell<usize>,
    held_pulls: Cell<usize>,
    /// Numbers of this side's own requests that the peer has not answered.
    invocations: RefCell<SmallVec<[i32; 2]>>,
    closing: Cell<bool>,
    closer: StreamCloser,
    last_activity: Cell<Instant>,
    write_began: Cell<Option<Instant>>,
    /// The core's backlog will signal `room`.
    held_back: Cell<bool>,
}

impl Connection {
    /// A connection that begins `now`.
    pub fn new(id: ConnectionId, address: SocketAddr, closer: StreamCloser, now: Instant) -> Connection {
        Connection {
            id,
            address,
            known_to_control: Cell::new(false),
            pulled_from: Cell::new(0),
            outgoing: RefCell::default(),
            ready: LocalEvent::default(),
            room: LocalEvent::default(),
            in_flight: Cell::new(0),
            pulls: Cell::new(0),
            held_pulls: Cell::new(0),
            invocations: RefCell::default(),
            closing: Cell::new(false),
            closer,
            last_activity: Cell::new(now),
            write_began: Cell::new(None),
            held_back: Cell::new(false),
        }
    }

    /// Ends the connection: both tasks come to their end.
    pub fn close(&self) {
        self.closing.set(true);
        self.closer.close();
        self.ready.signal();
        self.room.signal();
    }

    /// Whether it has been told to end.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// A request begins.
    pub fn begin(&self, kind: ReplyKind) {
        match kind {
            ReplyKind::Counted => self.in_flight.set(self.in_flight.get() + 1),
            ReplyKind::Pull => self.pulls.set(self.pulls.get() + 1),
            ReplyKind::HeldPull | ReplyKind::Oneway => {}
        }
    }

    /// Pulls in flight, held ones included.
    pub fn pulls(&self) -> usize {
        self.pulls.get() + self.held_pulls.get()
    }

    /// A pull is held by its shard: it will not be answered soon.
    pub fn hold_pull(&self) {
        self.held_pulls.set(self.held_pulls.get() + 1);
        self.pull_settled();
    }

    fn pull_settled(&self) {
        let pulls = self.pulls.get() - 1;
        self.pulls.set(pulls);
        if pulls == MAX_UNSETTLED_PULLS / 2 {
            self.room.signal();
        }
    }

    /// Queues the answer to a request that began, and returns by how many bytes the queue grew.
    pub fn finish(&self, identity: &Identity, kind: ReplyKind, opaque: i32, body: AnswerBody) -> usize {
        self.unanswered(kind);
        match kind {
            ReplyKind::Oneway => 0,
            _ => self.queue(|outgoing| identity.write_answer(outgoing, opaque, body)),
        }
    }

    /// A request that began ends, without an answer.
    pub fn unanswered(&self, kind: ReplyKind) {
        match kind {
            ReplyKind::Counted => {
                let in_flight = self.in_flight.get() - 1;
                self.in_flight.set(in_flight);
                if in_flight == MAX_IN_FLIGHT / 2 {
                    self.room.signal();
                }
            }
            ReplyKind::Pull => self.pull_settled(),
            ReplyKind::HeldPull => self.held_pulls.set(self.held_pulls.get() - 1),
            ReplyKind::Oneway => {}
        }
    }

    /// Queues a frame that answers nothing; returns its bytes.
    pub fn push(&self, frame: &[u8]) -> usize {
        self.queue(|outgoing| outgoing.tail().extend_from_slice(frame))
    }

    /// Queues a request of this side's own, whose answer will carry `number`; returns its bytes.
    pub fn invoke(&self, number: i32, frame: &[u8]) -> usize {
        let mut invocations = self.invocations.borrow_mut();
        if invocations.len() == MAX_INVOCATIONS {
            invocations.remove(0);
        }
        invocations.push(number);
        self.push(frame)
    }

    /// The peer answers the request with this number; `false` when it was asked nothing of the kind.
    pub fn invocation_answered(&self, number: i32) -> bool {
        let mut invocations = self.invocations.borrow_mut();
        let place = invocations.iter().position(|asked| *asked == number);
        place.map(|place| invocations.swap_remove(place)).is_some()
    }

    /// Queues something, but for a connection that ends: nobody would write it, or count it out again.
    fn queue(&self, write: impl FnOnce(&mut Outgoing)) -> usize {
        if self.is_closing() {
            return 0;
        }
        let mut outgoing = self.outgoing.borrow_mut();
        let before = outgoing.len();
        write(&mut outgoing);
        self.ready.signal();
        outgoing.len() - before
    }

    /// Whether all that was asked is answered and written.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.get() == 0 && self.outgoing.borrow().is_empty() && self.write_began.get().is_none()
    }

    /// Whether the reader may go on.
    fn has_room<E: Env>(&self, core: &Core<E>) -> bool {
        let max_queued = if core.under_pressure() { MAX_QUEUED_UNDER_PRESSURE } else { MAX_QUEUED };
        !core.is_stopping()
            && !core.holds_back()
            && self.in_flight.get() < MAX_IN_FLIGHT
            && self.pulls.get() < MAX_UNSETTLED_PULLS
            && self.outgoing.borrow().len() < max_queued
    }

    /// Its reader waits for the end of a backlog; false when it did already.
    pub fn begin_held_back(&self) -> bool {
        !self.held_back.replace(true)
    }

    /// The backlog let it go.
    pub fn end_held_back(&self) {
        self.held_back.set(false);
        self.room.signal();
    }

    /// Why the connection should be closed now, if it should.
    pub fn overdue(&self, now: Instant, idle_timeout: Duration) -> Option<&'static str> {
        match self.write_began.get() {
            Some(began) if now.since(began) > WRITE_DEADLINE => Some("it does not read its answers"),
            Some(_) => None,
            None if now.since(self.last_activity.get()) > idle_timeout => Some("it was idle"),
            None => None,
        }
    }
}

/// The connections of one core.
#[derive(Default)]
pub struct ConnectionTable {
    slots: Slab<Rc<Connection>>,
    opened: u32,
}

impl ConnectionTable {
    /// Adds the connection that `make` makes for its id.
    pub fn insert(&mut self, make: impl FnOnce(ConnectionId) -> Connection) -> Rc<Connection> {
        self.opened = self.opened.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let id = ConnectionId { slot: entry.key() as u32, generation: self.opened };
        entry.insert(Rc::new(make(id))).clone()
    }

    /// The connection, if it still exists.
    pub fn get(&self, id: ConnectionId) -> Option<&Rc<Connection>> {
        self.slots.get(id.slot as usize).filter(|connection| connection.id == id)
    }

    /// Removes the connection.
    pub fn remove(&mut self, id: ConnectionId) {
        if self.get(id).is_some() {
            self.slots.remove(id.slot as usize);
        }
    }

    /// Every connection.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.slots.iter().map(|(_, connection)| connection)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// The peer closed it.
    Peer,
    /// This side closed it.
    Closed,
    /// The network did.
    Io(io::Error),
    /// What was sent is no frame.
    Frame(FrameError),
    /// It would take more memory than there is.
    Memory {
        /// Bytes of read buffer wanted.
        wanted: usize,
        /// Bytes that the core's connections use together.
        used: usize,
        /// Bytes that they may use.
        limit: usize,
    },
}

/// Reads requests and hands them on, in order, until the connection ends.
pub async fn read_requests<E: Env>(
    core: Rc<Core<E>>,
    connection: Rc<Connection>,
    mut reader: impl StreamReader,
) {
    let mut requests = Requests {
        core: &core,
        connection: &connection,
        buffer: BytesMut::new(),
        want: MIN_READ,
        largest: 0,
        row: Row::default(),
        metered: 0,
    };
    let end = requests.run(&mut reader).await;
    requests.meter(0);
    core.connection_ended(&connection, &end);
}

struct Requests<'a, E: Env> {
    core: &'a Rc<Core<E>>,
    connection: &'a Rc<Connection>,
    buffer: BytesMut,
    /// Bytes that the next read should have room for.
    want: usize,
    /// Bytes of the largest frame among those that were handed on last.
    largest: usize,
    row: Row,
    /// What the core's meter was told of this buffer.
    metered: usize,
}

/// What was handed on since others had their turn, however many reads that took.
#[derive(Default)]
struct Row {
    requests: usize,
    bytes: usize,
}

impl Row {
    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn is_full(&self) -> bool {
        self.requests >= MAX_IN_A_ROW || self.bytes >= MAX_BYTES_IN_A_ROW
    }
}

impl<E: Env> Requests<'_, E> {
    async fn run(&mut self, reader: &mut impl StreamReader) -> End {
        loop {
            if let Err(end) = self.wait_for_room().await.and_then(|()| self.make_room()) {
                return end;
            }
            let spare = self.buffer.capacity() - self.buffer.len();
            match reader.read(&mut self.buffer).await {
                Ok(0) => return End::Peer,
                Ok(read) => {
                    self.adapt(read, spare);
                    if read < spare {
                        // Nothing more is there: the next read waits, and others have their turn.
                        self.row = Row::default();
                    }
                }
                Err(error) => return End::Io(error),
            }
            self.connection.last_activity.set(self.core.env.now());
            if let Err(end) = self.wait_for_room().await {
                return end;
            }
            if let Err(end) = self.dispatch().await {
                return end;
            }
            self.core.flush();
        }
    }

    /// Hands on every whole frame that is in the buffer.
    async fn dispatch(&mut self) -> Result<(), End> {
        let limits = self.core.limits();
        let mut looked_ahead = 0;
        let mut largest = 0;
        while let Some(size) = frame::peek(&self.buffer, limits).map_err(End::Frame)?
            && self.buffer.len() >= size
        {
            if looked_ahead == 0 {
                edge::look_ahead(self.core, &self.buffer);
                looked_ahead = MAX_IN_A_ROW;
            }
            looked_ahead -= 1;
            largest = largest.max(size);
            self.largest = largest;
            let frame = self.buffer.split_to(size);
            match edge::dispatch(self.core, self.connection, frame).map_err(End::Frame)? {
                Step::Done => {}
                Step::Wait(waiting) => {
                    self.core.flush();
                    waiting.finish(self.core, self.connection).await;
                }
            }
            self.row.add(size);
            if !self.connection.has_room(self.core) {
                self.core.flush();
                self.wait_for_room().await?;
            } else if self.row.is_full() {
                self.row = Row::default();
                self.core.flush();
                self.core.env.yield_now().await;
            }
        }
        Ok(())
    }

    async fn wait_for_room(&self) -> Result<(), End> {
        while !self.connection.has_room(self.core) && !self.connection.is_closing() {
            self.core.hold_back(self.connection);
            self.connection.room.wait().await;
        }
        if self.connection.is_closing() { Err(End::Closed) } else { Ok(()) }
    }

    /// Makes room for the next read: for a frame whose beginning is there, as much again as has arrived.
    fn make_room(&mut self) -> Result<(), End> {
        let want = self.want.max(self.buffer.len().min(MAX_READ));
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * self.want {
            self.buffer = BytesMut::new();
        }
        if self.buffer.capacity() - self.buffer.len() < want {
            let (used, limit) = (self.core.network_memory(), self.core.network_memory_limit());
            let wanted = self.buffer.len() + want;
            if wanted > FREE_READ && used + wanted > limit {
                return Err(End::Memory { wanted, used, limit });
            }
            self.buffer.reserve(want);
        }
        self.meter(self.buffer.capacity());
        Ok(())
    }

    /// Tells the core's meter how large the buffer is now.
    fn meter(&mut self, capacity: usize) {
        self.core.meter(self.metered, capacity);
        self.metered = capacity;
    }

    /// Learns from what the last read took how much the next should have room for.
    fn adapt(&mut self, read: usize, spare: usize) {
        if read == spare {
            let most = self.largest.next_power_of_two().clamp(USUAL_READ, MAX_READ);
            self.want = (self.want * 2).min(most);
        } else if read < self.want / 4 {
            self.want = (self.want / 2).max(MIN_READ);
        }
    }
}

/// Writes answers until the connection ends.
pub async fn write_answers<E: Env>(
    core: Rc<Core<E>>,
    connection: Rc<Connection>,
    mut writer: impl StreamWriter,
) {
    while !connection.is_closing() {
        connection.ready.wait().await;
        while !connection.is_closing() && !connection.outgoing.borrow().is_empty() {
            if write_once(&core, &connection, &mut writer).await.is_err() {
                connection.close();
            }
        }
    }
    let left = connection.outgoing.borrow().len();
    core.meter(left, 0);
}

/// Writes all that is ready, in one write.
async fn write_once<E: Env>(
    core: &Core<E>,
    connection: &Connection,
    writer: &mut impl StreamWriter,
) -> io::Result<()> {
    let (gathered, len) = {
        let mut outgoing = connection.outgoing.borrow_mut();
        let len = outgoing.len();
        (outgoing.take(core.take_buffer()), len)
    };
    connection.write_began.set(Some(core.env.now()));
    let slices = gathered.slices();
    let written = writer.write_all(&slices).await;
    drop(slices);
    connection.write_began.set(None);
    connection.last_activity.set(core.env.now());
    core.meter(len, 0);
    core.give_buffer(gathered.into_spare());
    connection.room.signal();
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: ConnectionId) -> Connection {
        Connection::new(id, "127.0.0.1:1".parse().unwrap(), StreamCloser::new(|| {}), Instant(0))
    }

    #[test]
    fn a_slot_does_not_answer_for_its_former_tenant() {
        let mut table = ConnectionTable::default();
        let first = table.insert(connection).id;
        table.remove(first);
        let second = table.insert(connection).id;
        assert_eq!(first.slot, second.slot);
        assert!(table.get(first).is_none() && table.get(second).is_some());
        table.remove(first);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn idle_and_stalled_connections_are_overdue() {
        let connection = connection(ConnectionId { slot: 0, generation: 0 });
        let idle = Duration::from_secs(120);
        assert_eq!(connection.overdue(Instant(0).after(idle), idle), None);
        assert!(connection.overdue(Instant(1).after(idle), idle).is_some());
        connection.write_began.set(Some(Instant(0)));
        assert_eq!(connection.overdue(Instant(0).after(WRITE_DEADLINE), idle), None);
        assert!(connection.overdue(Instant(1).after(WRITE_DEADLINE), idle).is_some());
    }
}
