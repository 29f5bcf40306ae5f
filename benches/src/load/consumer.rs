//! Consumers: tail consumers wait for what is new and take its end-to-end latency from the stamp in each body;
//! readers go through all that is there, from the first message on.

use std::net::SocketAddr;

use anyhow::ensure;
use mio::{Events, Poll};

use super::connection::{Connection, wait};
use super::{Plan, STALLED, Stream, StreamCounter};
use crate::wire::{
    Answer, PULL_NOT_FOUND, PULL_OFFSET_MOVED, PULL_RETRY, PullTemplate, SUCCESS, max_offset_request,
    number_after, stamps,
};

/// Messages of one pull: what RocketMQ's consumers ask for.
const PULL_BATCH: u32 = 32;
/// How long a tail consumer's pull waits at the broker.
const LONG_POLL_MS: u32 = 10_000;

/// How a consumer goes through its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From the end on, waiting for more.
    Tail,
    /// From the first message on, and again from there at the end.
    Around,
    /// From the first message to the last that was there at the start, then it ends.
    Once,
}

struct Consumer {
    connection: Connection,
    template: PullTemplate,
    queues: Vec<Position>,
}

#[derive(Clone, Copy)]
struct Position {
    next: u64,
    end: u64,
    done: bool,
}

/// Consumes with `consumers` connections, each through all queues of the topic, one pull for each queue at a time.
pub fn run(plan: &Plan<'_>, mode: Mode, consumers: usize) -> anyhow::Result<Stream> {
    let mut poll = Poll::new()?;
    let positions = positions(plan, mode)?;
    let mut all = Vec::new();
    for number in 0..consumers {
        let wait_ms = if mode == Mode::Tail { LONG_POLL_MS } else { 0 };
        let template =
            PullTemplate::new(&plan.load.topic, &format!("bench_group_{number}"), PULL_BATCH, wait_ms);
        let connection = Connection::open(&poll, plan.broker, number)?;
        let mut consumer = Consumer { connection, template, queues: positions.clone() };
        for queue in 0..positions.len() {
            consumer.pull(queue);
        }
        consumer.connection.flush()?;
        all.push(consumer);
    }
    let mut counter = StreamCounter::new(plan, 1, plan.load.size as u64);
    let mut events = Events::with_capacity(1024);
    while plan.running() && all.iter().any(|consumer| !consumer.done()) {
        wait(&mut poll, &mut events, Some(plan.left().min(STALLED)))?;
        ensure!(!events.is_empty() || mode == Mode::Tail || !plan.running(), "no answer for {STALLED:?}");
        for event in &events {
            all[event.token().0].receive(plan, mode, &mut counter)?;
        }
    }
    Ok(counter.finish())
}

fn positions(plan: &Plan<'_>, mode: Mode) -> anyhow::Result<Vec<Position>> {
    (0..plan.load.queues)
        .map(|queue| {
            let end = max_offset(plan.broker, &plan.load.topic, queue)?;
            let next = if mode == Mode::Tail { end } else { 0 };
            Ok(Position { next, end, done: mode != Mode::Tail && end == 0 })
        })
        .collect()
}

/// The offset behind the queue's last message.
pub fn max_offset(broker: SocketAddr, topic: &str, queue: u32) -> anyhow::Result<u64> {
    Connection::ask(broker, &max_offset_request(topic, queue), |answer| {
        ensure!(answer.code == SUCCESS, "no max offset of {topic}: {}", answer.remark());
        Ok(number_after(answer.header, b"\"offset\":\"")? as u64)
    })
}

impl Consumer {
    fn pull(&mut self, queue: usize) {
        let position = &self.queues[queue];
        if !position.done {
            self.template.write(queue as u32, queue as u32, position.next, &mut self.connection.output);
        }
    }

    fn done(&self) -> bool {
        self.queues.iter().all(|position| position.done)
    }

    fn receive(&mut self, plan: &Plan<'_>, mode: Mode, counter: &mut StreamCounter) -> anyhow::Result<()> {
        while self.connection.fill()? {
            let now = plan.now_ns();
            while let Some(answer) = Answer::parse(self.connection.received())? {
                let (queue, len) = (answer.slot as usize, answer.frame_len);
                ensure!(queue < self.queues.len(), "an answer to a pull not made: {queue}");
                match answer.code {
                    SUCCESS => count(&answer, mode, now, counter)?,
                    PULL_NOT_FOUND | PULL_RETRY | PULL_OFFSET_MOVED => {}
                    code => counter.failure(now, None, code, || answer.remark()),
                }
                if let Ok(next) = answer.next_offset() {
                    self.queues[queue].advance(next, mode);
                }
                self.connection.consume(len);
                self.pull(queue);
            }
        }
        self.connection.flush()
    }
}

impl Position {
    fn advance(&mut self, next: u64, mode: Mode) {
        let at_end = mode != Mode::Tail && next >= self.end;
        self.next = if at_end { 0 } else { next };
        self.done = at_end && mode == Mode::Once;
    }
}

fn count(answer: &Answer<'_>, mode: Mode, now: u64, counter: &mut StreamCounter) -> anyhow::Result<()> {
    if mode == Mode::Tail {
        stamps(answer.body, |_, stamp| counter.success(now, now.saturating_sub(stamp)))
    } else {
        let mut messages = 0;
        stamps(answer.body, |_, _| messages += 1)?;
        counter.read(now, messages, answer.body.len() as u64);
        Ok(())
    }
}
