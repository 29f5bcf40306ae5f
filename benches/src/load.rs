//! A closed loop: N connections, each with M requests in flight; an answer makes room for the next request.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::process::Usage;
use crate::wire::{Answer, SendTemplate};

const READ_CHUNK: usize = 64 * 1024;
/// Latencies are recorded up to this many ns.
const LONGEST_NS: u64 = 60_000_000_000;
/// No answer at all for so long means that the broker is stuck.
const STALLED: Duration = Duration::from_secs(20);

/// The shape of a load.
#[derive(clap::Args, Clone, Debug, serde::Serialize)]
pub struct LoadArgs {
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 1)]
    pub in_flight: usize,
    /// Body bytes of each message.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// Topic; created by the broker on the first send.
    #[arg(long, default_value = "BenchTopic")]
    pub topic: String,
    /// Queues that the messages go round.
    #[arg(long, default_value_t = 8)]
    pub queues: u32,
    /// Seconds that are not counted, first.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// What a load did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The load's shape.
    pub load: LoadArgs,
    /// Messages acknowledged a second.
    pub rate: f64,
    /// Acknowledgement latency in µs: p50, p99, p99.9, max.
    pub latency_us: [u64; 4],
    /// CPU µs of the broker's process for each message.
    pub cpu_us: f64,
    /// Resident memory of the broker's process at the end, in MiB.
    pub resident_mib: f64,
    /// Bytes that the broker's process wrote to storage for each message.
    pub written_per_message: f64,
    /// Answers with a code other than 0.
    pub errors: BTreeMap<i32, u64>,
}

impl Report {
    /// One line for a terminal.
    pub fn line(&self) -> String {
        let [p50, p99, p999, max] = self.latency_us;
        let mut line = format!(
            "{:>4} x {:<4} {:>9.0}/s  p50 {p50} p99 {p99} p99.9 {p999} max {max} us  {:.2} us CPU  {:.0} MiB  {:.0} B written",
            self.load.connections,
            self.load.in_flight,
            self.rate,
            self.cpu_us,
            self.resident_mib,
            self.written_per_message
        );
        if !self.errors.is_empty() {
            line += &format!("  ERRORS {:?}", self.errors);
        }
        line
    }
}

struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// When the request in each slot was made.
    sent: Vec<Instant>,
}

struct Counters {
    latency: Histogram<u64>,
    acknowledged: u64,
    errors: BTreeMap<i32, u64>,
    counting: bool,
}

/// Runs the load against `broker`; `pid` is the process whose cost is reported.
pub fn run(broker: SocketAddr, pid: Option<u32>, load: &LoadArgs) -> anyhow::Result<Report> {
    let template = SendTemplate::new(&load.topic, load.size);
    let mut poll = Poll::new()?;
    let mut connections = connect(&poll, broker, load)?;
    let mut counters = Counters {
        latency: Histogram::new_with_bounds(1, LONGEST_NS, 3)?,
        acknowledged: 0,
        errors: BTreeMap::new(),
        counting: false,
    };
    let mut queue = 0;
    for connection in &mut connections {
        for slot in 0..load.in_flight {
            connection.request(&template, slot, next_queue(&mut queue, load.queues));
        }
        connection.flush()?;
    }
    let start = Instant::now();
    let (counted_from, end) =
        (Duration::from_secs_f64(load.warm_up), Duration::from_secs_f64(load.warm_up + load.seconds));
    let (mut before, mut from) = (Usage::default(), start);
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, Some(STALLED))?;
        ensure!(!events.is_empty(), "no answer for {STALLED:?}");
        for event in &events {
            let connection = &mut connections[event.token().0];
            connection.receive(&mut counters, |connection, slot| {
                connection.request(&template, slot, next_queue(&mut queue, load.queues));
            })?;
            connection.flush()?;
        }
        let elapsed = start.elapsed();
        if !counters.counting && elapsed >= counted_from {
            (counters.counting, from) = (true, Instant::now());
            before = pid.map(Usage::of).unwrap_or_default();
        } else if elapsed >= end {
            break;
        }
    }
    let seconds = from.elapsed().as_secs_f64();
    let after = pid.map(Usage::of).unwrap_or_default();
    Ok(report(load, &counters, seconds, before, after))
}

fn report(load: &LoadArgs, counters: &Counters, seconds: f64, before: Usage, after: Usage) -> Report {
    let messages = counters.acknowledged.max(1) as f64;
    let at = |quantile| counters.latency.value_at_quantile(quantile) / 1000;
    Report {
        load: load.clone(),
        rate: counters.acknowledged as f64 / seconds,
        latency_us: [at(0.5), at(0.99), at(0.999), counters.latency.max() / 1000],
        cpu_us: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / messages,
        resident_mib: after.resident as f64 / (1 << 20) as f64,
        written_per_message: after.written.saturating_sub(before.written) as f64 / messages,
        errors: counters.errors.clone(),
    }
}

fn next_queue(queue: &mut u32, queues: u32) -> u32 {
    *queue = (*queue + 1) % queues;
    *queue
}

fn connect(poll: &Poll, broker: SocketAddr, load: &LoadArgs) -> anyhow::Result<Vec<Connection>> {
    (0..load.connections)
        .map(|index| {
            let stream =
                std::net::TcpStream::connect(broker).with_context(|| format!("connecting to {broker}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            let sent = vec![Instant::now(); load.in_flight];
            Ok(Connection { stream, output: Vec::new(), input: Vec::new(), sent })
        })
        .collect()
}

impl Connection {
    fn request(&mut self, template: &SendTemplate, slot: usize, queue: u32) {
        self.sent[slot] = Instant::now();
        template.write(slot as u32, queue, &mut self.output);
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let mut written = 0;
        while written < self.output.len() {
            match self.stream.write(&self.output[written..]) {
                Ok(count) => written += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).context("writing to the broker"),
            }
        }
        self.output.drain(..written);
        Ok(())
    }

    /// Reads every whole answer that is there, and calls `again` with each freed slot.
    fn receive(
        &mut self,
        counters: &mut Counters,
        mut again: impl FnMut(&mut Connection, usize),
    ) -> anyhow::Result<()> {
        loop {
            let at = self.input.len();
            self.input.resize(at + READ_CHUNK, 0);
            let read = self.stream.read(&mut self.input[at..]);
            self.input.truncate(at + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => anyhow::bail!("the broker closed the connection"),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e).context("reading from the broker"),
            }
            let (now, mut done) = (Instant::now(), 0);
            while let Some(answer) = Answer::parse(&self.input[done..])? {
                done += answer.frame_len;
                let slot = answer.slot as usize;
                ensure!(slot < self.sent.len(), "an answer to a request that was not made: {slot}");
                counters.count(answer.code, now - self.sent[slot]);
                again(self, slot);
            }
            self.input.drain(..done);
        }
    }
}

impl Counters {
    fn count(&mut self, code: i32, latency: Duration) {
        if !self.counting {
            return;
        }
        if code == 0 {
            self.acknowledged += 1;
            self.latency.saturating_record(latency.as_nanos() as u64);
        } else {
            *self.errors.entry(code).or_default() += 1;
        }
    }
}
