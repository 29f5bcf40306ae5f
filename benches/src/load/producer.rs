//! Producers: N connections in a closed loop (an answer makes room for the next request) or an open one (requests
//! leave on a schedule, and their latency counts from when they were due, so that stalls are seen).
//!
//! A stall at the end is seen in an open loop, too: what was due within the counted time, sent or not, and has no answer
//! when that ends is recorded with its wait until then, which is the least that its latency can be. In a closed loop
//! nothing is due, and requests in flight at the end are not counted.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::ensure;
use mio::{Events, Poll};

use super::connection::{Connection, wait};
use super::pace::Pace;
use super::{Plan, STALLED, Stream, StreamCounter};
use crate::wire::{Answer, SUCCESS, SendShape, SendTemplate};

/// Token of the timer of an open loop.
const TICK: usize = usize::MAX;
/// Between two tries to make topics.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

struct Producer<'a> {
    connection: Connection,
    /// When the request in each slot was made, or due; in ns of the plan's clock.
    begun: Vec<u64>,
    /// Slots without a request, in an open loop.
    free: Vec<u32>,
    template: &'a SendTemplate,
}

/// Where the next request goes, and its first message's number.
struct Cursor {
    requests: u64,
    batch: u64,
    topics: u64,
    queues: u64,
}

impl Cursor {
    /// Topic, queue and number of the next request: topics first, so that each gets its share at once.
    fn next(&mut self) -> (usize, u32, u64) {
        let request = self.requests;
        self.requests += 1;
        let queue = request / self.topics % self.queues;
        ((request % self.topics) as usize, queue as u32, request * self.batch)
    }
}

/// Produces until the plan's end.
pub fn run(plan: &Plan<'_>) -> anyhow::Result<Stream> {
    let load = plan.load;
    let shape = SendShape { topic: &load.topic, topics: load.topics, body_len: load.size, batch: load.batch };
    let template = SendTemplate::new(&shape);
    let mut poll = Poll::new()?;
    let producers: anyhow::Result<Vec<Producer<'_>>> =
        (0..load.connections).map(|n| Producer::open(&poll, plan, n, &template)).collect();
    let mut producers = producers?;
    let mut cursor = Cursor {
        requests: 0,
        batch: load.batch as u64,
        topics: load.topics as u64,
        queues: u64::from(load.queues),
    };
    let mut counter = StreamCounter::new(plan, load.batch as u64, (load.batch * load.size) as u64);
    let mut pace = load.rate.map(|rate| Pace::new(&poll, TICK, rate / load.batch as f64)).transpose()?;
    if pace.is_none() {
        for producer in &mut producers {
            producer.fill_slots(load.in_flight, &mut cursor, plan.now_ns())?;
        }
    }
    let mut events = Events::with_capacity(1024);
    let mut turn = 0;
    while plan.running() {
        wait(&mut poll, &mut events, Some(STALLED))?;
        ensure!(!events.is_empty(), "no answer for {STALLED:?}");
        for event in &events {
            if event.token().0 == TICK {
                let pace = pace.as_mut().expect("only an open loop has ticks");
                while let Some(due) = pace.next_due(plan.now_ns()) {
                    let producer = &mut producers[turn % load.connections];
                    match producer.in_flight() < load.most_in_flight {
                        true => producer.request_due(due, &mut cursor),
                        false => counter.withheld(due),
                    }
                    turn += 1;
                }
                // A write for each message would be more than a core can do long before the broker has enough.
                producers.iter_mut().try_for_each(|producer| producer.connection.flush())?;
                pace.rest(plan.now_ns())?;
            } else {
                producers[event.token().0].receive(
                    plan,
                    &mut counter,
                    pace.is_none().then_some(&mut cursor),
                )?;
            }
        }
    }
    if let Some(pace) = &mut pace {
        count_unanswered(plan, &producers, pace, &mut counter);
    }
    Ok(counter.finish())
}

/// What an open loop was due to send and has no answer to at the plan's end: in flight, or not even made, as the loop was
/// late.
fn count_unanswered(
    plan: &Plan<'_>,
    producers: &[Producer<'_>],
    pace: &mut Pace,
    counter: &mut StreamCounter,
) {
    producers.iter().flat_map(Producer::unanswered).for_each(|due| counter.unanswered(due));
    while let Some(due) = pace.next_due(plan.end) {
        counter.unanswered(due);
    }
}

impl<'a> Producer<'a> {
    fn open(
        poll: &Poll,
        plan: &Plan<'_>,
        number: usize,
        template: &'a SendTemplate,
    ) -> anyhow::Result<Producer<'a>> {
        let connection = Connection::open(poll, plan.broker, number)?;
        Ok(Producer { connection, begun: Vec::new(), free: Vec::new(), template })
    }

    fn fill_slots(&mut self, slots: usize, cursor: &mut Cursor, now_ns: u64) -> anyhow::Result<()> {
        self.begun = vec![0; slots];
        for slot in 0..slots {
            self.write(slot as u32, now_ns, cursor);
        }
        self.connection.flush()
    }

    fn write(&mut self, slot: u32, stamp_ns: u64, cursor: &mut Cursor) {
        let (topic, queue, number) = cursor.next();
        self.begun[slot as usize] = stamp_ns;
        self.template.write(slot, topic, queue, number, stamp_ns, &mut self.connection.output);
    }

    /// Appends a request; a flush of the connection sends it.
    fn request_due(&mut self, due: u64, cursor: &mut Cursor) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.begun.push(0);
            self.begun.len() as u32 - 1
        });
        self.write(slot, due, cursor);
    }

    /// Reads every whole answer that is there. In a closed loop (`again`) each makes room for another request; in an
    /// open one, what comes after the end is left: at the end, it was no answer.
    fn receive(
        &mut self,
        plan: &Plan<'_>,
        counter: &mut StreamCounter,
        mut again: Option<&mut Cursor>,
    ) -> anyhow::Result<()> {
        while self.connection.fill()? {
            let now = plan.now_ns();
            if again.is_none() && now > plan.end {
                return Ok(());
            }
            while let Some(answer) = Answer::parse(self.connection.received())? {
                let (slot, code, len) = (answer.slot, answer.code, answer.frame_len);
                let begun = self.begun.get(slot as usize).copied();
                let begun =
                    begun.ok_or_else(|| anyhow::anyhow!("an answer to a request not made: {slot}"))?;
                if code == SUCCESS {
                    counter.success(now, now.saturating_sub(begun));
                } else {
                    counter.failure(now, Some(now.saturating_sub(begun)), code, || answer.remark());
                }
                self.connection.consume(len);
                match &mut again {
                    Some(cursor) => self.write(slot, now, cursor),
                    None => self.free.push(slot),
                }
            }
        }
        self.connection.flush()
    }
}

/// Sends one message to each of the topics, so that all exist; returns how long it took. A broker may still be busy with
/// what the load before left behind (Java's refuses new messages then): it is asked again for a while.
pub fn create_topics(plan: &Plan<'_>) -> anyhow::Result<Duration> {
    let started = plan.now_ns();
    loop {
        let counter = send_to_each(plan)?;
        let taken = Duration::from_nanos(plan.now_ns() - started);
        if !counter.failed() {
            return Ok(taken);
        }
        ensure!(taken < STALLED, "creating topics: {}", counter.failures());
        std::thread::sleep(BUSY_PAUSE);
    }
}

fn send_to_each(plan: &Plan<'_>) -> anyhow::Result<StreamCounter> {
    let load = plan.load;
    let shape = SendShape { topic: &load.topic, topics: load.topics, body_len: load.size, batch: 1 };
    let template = SendTemplate::new(&shape);
    let mut poll = Poll::new()?;
    let mut producer = Producer::open(&poll, plan, 0, &template)?;
    let mut cursor = Cursor { requests: 0, batch: 1, topics: load.topics as u64, queues: 1 };
    let mut counter = StreamCounter::new(plan, 1, load.size as u64);
    let mut done = 0;
    let mut events = Events::with_capacity(16);
    while done < load.topics {
        while producer.in_flight() < 64 && (cursor.requests as usize) < load.topics {
            producer.request_due(plan.now_ns(), &mut cursor);
        }
        producer.connection.flush()?;
        wait(&mut poll, &mut events, Some(STALLED))?;
        ensure!(!events.is_empty(), "no answer for {STALLED:?}");
        producer.receive(plan, &mut counter, None)?;
        done = cursor.requests as usize - producer.in_flight();
    }
    Ok(counter)
}

impl Producer<'_> {
    fn in_flight(&self) -> usize {
        self.begun.len() - self.free.len()
    }

    /// When each request in flight was due, in an open loop.
    fn unanswered(&self) -> impl Iterator<Item = u64> {
        let free: HashSet<u32> = self.free.iter().copied().collect();
        let in_flight = (0..).zip(&self.begun).filter(move |(slot, _)| !free.contains(slot));
        in_flight.map(|(_, due)| *due)
    }
}
