//! The mesh between the cores: a bounded ring for each ordered pair, which carries messages in batches.
//!
//! Whoever asks another core for something takes a credit first, and gives it back when the answer is there. A lane
//! without credits gives the message back, so that the edge can answer SYSTEM_BUSY: nothing waits in the dark. The
//! answers themselves need no credit, because the credits of those who asked bound them; what finds its ring full
//! stays in the outbox, in order, until there is room. So no answer is ever lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use flume::{Receiver, Sender, TrySendError};
use ringmq_env::mutant;
use smallvec::SmallVec;

/// One of the node's executors, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// How much there may be between two cores, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCapacity {
    /// Batches that the ring holds.
    pub batches: usize,
    /// Requests in flight.
    pub requests: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Default for LaneCapacity {
    fn default() -> LaneCapacity {
        LaneCapacity { batches: 1024, requests: 8192, bytes: 64 << 20 }
    }
}

/// One core's ends of the mesh; made outside of the cores and sent to them.
pub struct Ports<M> {
    core: CoreId,
    capacity: LaneCapacity,
    outgoing: Vec<Option<Sender<Vec<M>>>>,
    incoming: Vec<Option<Receiver<Vec<M>>>>,
}

/// The receiving ends of one core's rings, each with the core that sends.
pub type Incoming<M> = Vec<(CoreId, Receiver<Vec<M>>)>;

impl<M> Ports<M> {
    /// The sending ends as a mailbox, and the receiving ends with the core that sends to each.
    pub fn split(self) -> (Mailbox<M>, Incoming<M>) {
        let lane = |ring| Lane::new(ring, self.capacity);
        let lanes = self.outgoing.into_iter().map(|ring| ring.map(lane)).collect();
        let incoming = (0u16..).map(CoreId).zip(self.incoming);
        let incoming = incoming.filter_map(|(core, ring)| ring.map(|ring| (core, ring))).collect();
        (Mailbox { core: self.core, lanes }, incoming)
    }
}

/// The ports of `cores` cores, each connected with each other one.
pub fn mesh<M>(cores: u16, capacity: LaneCapacity) -> Vec<Ports<M>> {
    let count = usize::from(cores);
    let mut ports: Vec<Ports<M>> = (0..cores)
        .map(|core| Ports {
            core: CoreId(core),
            capacity,
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (sender, receiver) = flume::bounded(capacity.batches);
            ports[from].outgoing[to] = Some(sender);
            ports[to].incoming[from] = Some(receiver);
        }
    }
    ports
}

/// A request that found its lane full; nothing of it was sent.
#[derive(Debug)]
pub struct Full<M> {
    /// The request, given back.
    pub message: M,
    /// What ran out: "requests" or "bytes".
    pub what: &'static str,
    /// How much there was with this request.
    pub value: usize,
    /// How much there may be.
    pub limit: usize,
}

/// What one lane holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneGauge {
    /// Requests in flight.
    pub requests: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Messages that wait for the next flush or for room in the ring.
    pub outbox: usize,
    /// Batches in the ring.
    pub ring: usize,
    /// Requests refused since start.
    pub refused: u64,
}

/// The sending side of the mesh on one core.
pub struct Mailbox<M> {
    core: CoreId,
    lanes: Vec<Option<Lane<M>>>,
}

struct Lane<M> {
    capacity: LaneCapacity,
    ring: Sender<Vec<M>>,
    outbox: RefCell<Vec<M>>,
    /// A drain is waiting for room: messages queue up behind it, so that none overtakes.
    blocked: Cell<bool>,
    requests: Cell<usize>,
    bytes: Cell<usize>,
    refused: Cell<u64>,
}

impl<M> Lane<M> {
    fn new(ring: Sender<Vec<M>>, capacity: LaneCapacity) -> Lane<M> {
        Lane {
            capacity,
            ring,
            outbox: RefCell::default(),
            blocked: Cell::new(false),
            requests: Cell::new(0),
            bytes: Cell::new(0),
            refused: Cell::new(0),
        }
    }

    /// Whether the request fits: what runs out otherwise, its value and its limit.
    fn check(&self, bytes: usize) -> Result<(), (&'static str, usize, usize)> {
        let (requests, total) = (self.requests.get() + 1, self.bytes.get() + bytes);
        let limit = self.capacity;
        if requests > limit.requests {
            return Err(("requests", requests, limit.requests));
        }
        if total > limit.bytes {
            return Err(("bytes", total, limit.bytes));
        }
        Ok(())
    }

    /// Moves the outbox into the ring; true when it found the ring full and must be drained.
    fn flush(&self) -> bool {
        if self.blocked.get() || self.outbox.borrow().is_empty() {
            return false;
        }
        let batch = self.outbox.take();
        match self.ring.try_send(batch) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(_)) if mutant!("mailbox-drops-when-full") => false,
            Err(TrySendError::Full(batch)) => {
                *self.outbox.borrow_mut() = batch;
                self.blocked.set(true);
                true
            }
        }
    }
}

impl<M> Mailbox<M> {
    /// The core that this mailbox sends from.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Cores of the mesh, this one included.
    pub fn cores(&self) -> impl Iterator<Item = CoreId> + use<M> {
        (0..self.lanes.len() as u16).map(CoreId)
    }

    fn lane(&self, to: CoreId) -> &Lane<M> {
        let lane = self.lanes.get(usize::from(to.0)).and_then(Option::as_ref);
        lane.expect("a core sends to other cores of the mesh, never to itself")
    }

    /// Queues a request of `bytes` bytes and takes a credit for it until [`Mailbox::release`].
    pub fn request(&self, to: CoreId, message: M, bytes: usize) -> Result<(), Full<M>> {
        let lane = self.lane(to);
        if let Err((what, value, limit)) = lane.check(bytes) {
            lane.refused.set(lane.refused.get() + 1);
            return Err(Full { message, what, value, limit });
        }
        lane.requests.set(lane.requests.get() + 1);
        lane.bytes.set(lane.bytes.get() + bytes);
        lane.outbox.borrow_mut().push(message);
        Ok(())
    }

    /// Whether more than one in `parts` of the credits for `to` are taken.
    pub fn is_over(&self, to: CoreId, parts: usize) -> bool {
        let Lane { capacity, requests, bytes, .. } = self.lane(to);
        requests.get() * parts > capacity.requests || bytes.get() * parts > capacity.bytes
    }

    /// Queues what needs no credit: an answer, or news.
    pub fn post(&self, to: CoreId, message: M) {
        self.lane(to).outbox.borrow_mut().push(message);
    }

    /// Gives back the credits of `requests` requests of `bytes` bytes in all.
    pub fn release(&self, to: CoreId, requests: usize, bytes: usize) {
        let lane = self.lane(to);
        assert!(requests <= lane.requests.get() && bytes <= lane.bytes.get(), "credits given back twice");
        lane.requests.set(lane.requests.get() - requests);
        lane.bytes.set(lane.bytes.get() - bytes);
    }

    /// Sends what is queued, one batch for each core, and returns the cores whose ring was found full: the caller
    /// starts a [`Mailbox::drain`] for each.
    #[must_use = "a full lane stays blocked until it is drained"]
    pub fn flush(&self) -> SmallVec<[CoreId; 2]> {
        let lanes = (0u16..).map(CoreId).zip(&self.lanes);
        lanes.filter_map(|(core, lane)| lane.as_ref()?.flush().then_some(core)).collect()
    }

    /// Waits for room in a full ring until all that is queued for `to` has left.
    pub async fn drain(self: Rc<Self>, to: CoreId) {
        let lane = self.lane(to);
        loop {
            let batch = lane.outbox.take();
            if batch.is_empty() || lane.ring.send_async(batch).await.is_err() {
                break;
            }
        }
        lane.blocked.set(false);
    }

    /// What the lane to `to` holds; all zero for the core itself.
    pub fn gauge(&self, to: CoreId) -> LaneGauge {
        let Some(lane) = self.lanes.get(usize::from(to.0)).and_then(Option::as_ref) else {
            return LaneGauge::default();
        };
        LaneGauge {
            requests: lane.requests.get(),
            bytes: lane.bytes.get(),
            outbox: lane.outbox.borrow().len(),
            ring: lane.ring.len(),
            refused: lane.refused.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, zip};

    use super::*;

    fn pair() -> (Rc<Mailbox<u32>>, Incoming<u32>) {
        let mut ports = mesh::<u32>(2, LaneCapacity::default());
        let second = ports.remove(1).split().1;
        (Rc::new(ports.remove(0).split().0), second)
    }

    #[test]
    fn a_flush_sends_one_batch() {
        let (mailbox, incoming) = pair();
        mailbox.post(CoreId(1), 1);
        mailbox.request(CoreId(1), 2, 10).unwrap();
        assert!(mailbox.flush().is_empty());
        assert_eq!(incoming[0].0, CoreId(0));
        assert_eq!(incoming[0].1.try_recv().unwrap(), vec![1, 2]);
        assert!(mailbox.flush().is_empty());
        assert!(incoming[0].1.try_recv().is_err(), "an empty outbox sends nothing");
    }

    #[test]
    fn without_credits_the_request_comes_back() {
        let (mailbox, _incoming) = pair();
        let LaneCapacity { requests, bytes, .. } = LaneCapacity::default();
        mailbox.request(CoreId(1), 1, bytes).unwrap();
        let full = mailbox.request(CoreId(1), 2, 1).unwrap_err();
        assert_eq!((full.message, full.what, full.value, full.limit), (2, "bytes", bytes + 1, bytes));
        mailbox.release(CoreId(1), 1, bytes);
        for n in 0..requests {
            mailbox.request(CoreId(1), n as u32, 1).unwrap();
        }
        let full = mailbox.request(CoreId(1), 7, 0).unwrap_err();
        assert_eq!((full.message, full.what, full.limit), (7, "requests", requests));
        let gauge = mailbox.gauge(CoreId(1));
        assert_eq!((gauge.requests, gauge.bytes, gauge.refused), (requests, requests, 2));
    }

    #[test]
    fn what_finds_the_ring_full_arrives_later_and_in_order() {
        let (mailbox, incoming) = pair();
        let total = LaneCapacity::default().batches as u32 + 50;
        let mut drains = 0;
        for n in 0..total {
            mailbox.post(CoreId(1), n);
            drains += mailbox.flush().len();
        }
        assert_eq!(drains, 1, "a blocked lane is reported once");
        assert_eq!(mailbox.gauge(CoreId(1)).outbox, 50);
        let receive = async {
            let mut seen = Vec::new();
            while seen.len() < total as usize {
                seen.extend(incoming[0].1.recv_async().await.unwrap());
            }
            seen
        };
        let (_, seen) = block_on(zip(mailbox.clone().drain(CoreId(1)), receive));
        assert_eq!(seen, (0..total).collect::<Vec<_>>());
        mailbox.post(CoreId(1), 5);
        assert!(mailbox.flush().is_empty(), "the lane is open again");
        assert_eq!(incoming[0].1.try_recv().unwrap(), vec![5]);
    }

    #[test]
    fn a_core_that_has_ended_takes_nothing_and_breaks_nothing() {
        let (mailbox, incoming) = pair();
        drop(incoming);
        mailbox.post(CoreId(1), 1);
        assert!(mailbox.flush().is_empty());
    }
}
