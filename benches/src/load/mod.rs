//! The load generator: producers, tail consumers and readers at once, each kind in a thread of its own with one
//! poll loop, all on one clock.
//!
//! An open loop (`--rate`) records each request that was due within the counted time and not withheld: until its answer,
//! or, if it has none when that time ends, until then, as a lower bound. A stall that outlasts the run is seen so.

mod connection;
mod consumer;
mod latency;
mod pace;
mod producer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use connection::{Connection, wait};
pub use consumer::{Mode, max_offset};
pub use latency::{Latency, Recorder};

use crate::process::{Costs, Meter};
use crate::wire::MIN_BODY;

/// No answer at all for so long means that the broker is stuck.
const STALLED: Duration = Duration::from_secs(20);

/// The shape of a load.
#[derive(clap::Args, Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct LoadArgs {
    /// Producers: connections. 0 sends nothing.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests in flight on each connection, in a closed loop.
    #[arg(long, default_value_t = 1)]
    pub in_flight: usize,
    /// Messages a second in all: an open loop, in which latency counts from when each was due. What is due and
    /// unanswered (sent or not) when the counted time ends is recorded with its wait until then, a lower bound.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Requests in flight on each connection, in an open loop, as clients have such a limit: what is due beyond it is
    /// withheld, and counted.
    #[arg(long, default_value_t = 1024)]
    pub most_in_flight: usize,
    /// Body bytes of each message.
    #[arg(long, default_value_t = 1024)]
    pub size: usize,
    /// Messages of each request; more than 1 sends batches (code 320).
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Topic, or what the names of several begin with; created by the broker on the first send.
    #[arg(long, default_value = "BenchTopic")]
    pub topic: String,
    /// Topics that the messages go round; all get a message before the load begins, so that all are there.
    #[arg(long, default_value_t = 1)]
    pub topics: usize,
    /// Queues of each topic that the messages go round.
    #[arg(long, default_value_t = 8)]
    pub queues: u32,
    /// Consumers that wait for new messages and take their end-to-end latency.
    #[arg(long, default_value_t = 0)]
    pub tail: usize,
    /// Consumers that read everything from the first message on, over and over.
    #[arg(long, default_value_t = 0)]
    pub readers: usize,
    /// Readers end once they have read what was there at the start.
    #[arg(long)]
    pub once: bool,
    /// Seconds that are not counted, first.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Seconds that count.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

impl Default for LoadArgs {
    fn default() -> LoadArgs {
        LoadArgs {
            connections: 64,
            in_flight: 1,
            rate: None,
            most_in_flight: 1024,
            size: 1024,
            batch: 1,
            topic: "BenchTopic".to_owned(),
            topics: 1,
            queues: 8,
            tail: 0,
            readers: 0,
            once: false,
            warm_up: 1.0,
            seconds: 5.0,
        }
    }
}

impl LoadArgs {
    /// What a terminal shows of the shape.
    pub fn label(&self) -> String {
        let mut label = match self.rate {
            Some(rate) => format!("{} connections, {rate:.0}/s", self.connections),
            None if self.connections > 0 => format!("{} × {}", self.connections, self.in_flight),
            None => String::new(),
        };
        let mut add = |part: String| {
            label += if label.is_empty() { "" } else { ", " };
            label += &part;
        };
        if self.size != 1024 {
            add(show_bytes(self.size));
        }
        if self.batch > 1 {
            add(format!("batches of {}", self.batch));
        }
        if self.topics > 1 {
            add(format!("{} topics", self.topics));
        }
        if self.tail > 0 {
            add(format!("{} tail", self.tail));
        }
        if self.readers > 0 {
            add(format!("{} readers", self.readers));
        }
        label
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.size >= MIN_BODY, "--size: a body holds at least {MIN_BODY} bytes");
        anyhow::ensure!((1..=100).contains(&self.queues), "--queues: 1 to 100");
        anyhow::ensure!((1..=1_000_000).contains(&self.topics), "--topics: 1 to 1,000,000");
        anyhow::ensure!(self.batch >= 1 && self.in_flight >= 1, "--batch and --in-flight: at least 1");
        anyhow::ensure!(self.most_in_flight >= 1, "--most-in-flight: at least 1");
        let consumers = self.tail + self.readers;
        anyhow::ensure!(self.connections + consumers > 0, "no producers and no consumers");
        anyhow::ensure!(consumers == 0 || self.topics == 1, "consumers read one topic");
        Ok(())
    }
}

fn show_bytes(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// What a load did.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The load's shape.
    pub load: LoadArgs,
    /// Messages acknowledged.
    pub sent: Option<Stream>,
    /// Messages delivered to the tail consumers, with end-to-end latency.
    pub delivered: Option<Stream>,
    /// Messages that the readers got.
    pub read: Option<Stream>,
    /// What it cost the server, for each message that was sent (or else read).
    pub costs: Option<Costs>,
}

/// What one kind of client did.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Stream {
    /// Messages counted.
    pub messages: u64,
    /// Bytes of their bodies (of readers: of whole records).
    pub bytes: u64,
    /// Seconds over which they were counted.
    pub seconds: f64,
    /// Latency, where it was taken.
    pub latency: Option<Latency>,
    /// Answers with a code other than 0.
    pub errors: BTreeMap<i32, u64>,
    /// What the broker said with the last of these.
    pub remark: String,
    /// Latency of these answers.
    pub refused_in: Option<Latency>,
    /// Requests of an open loop that were due and did not leave, because too many had no answer yet.
    pub withheld: u64,
    /// Requests of an open loop that were due and had no answer when the counted time ended, without the withheld ones:
    /// their latency is the wait until then, a lower bound.
    #[serde(default)]
    pub unanswered: u64,
}

impl Stream {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds.max(1e-9)
    }

    /// Bytes a second.
    pub fn bytes_rate(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }

    fn line(&self, name: &str) -> String {
        let mut line = format!("  {name} {:.0}/s", self.rate());
        if let Some(l) = &self.latency {
            line += &format!(
                " p50 {:.0} p99 {:.0} p99.9 {:.0} p99.99 {:.0} max {:.0} us",
                l.p50, l.p99, l.p999, l.p9999, l.max
            );
        }
        if self.withheld > 0 {
            line += &format!("  withheld {}", self.withheld);
        }
        if self.unanswered > 0 {
            line += &format!("  unanswered {}", self.unanswered);
        }
        if !self.errors.is_empty() {
            line += &format!("  ERRORS {:?} {}", self.errors, self.remark);
            if let Some(l) = &self.refused_in {
                line += &format!(" (p50 {:.0} p99 {:.0} max {:.0} us)", l.p50, l.p99, l.max);
            }
        }
        line
    }
}

impl Report {
    /// Messages a second: acknowledged ones, else those that were read.
    pub fn rate(&self) -> f64 {
        self.main().map_or(0.0, Stream::rate)
    }

    /// The stream that the costs are counted by.
    pub fn main(&self) -> Option<&Stream> {
        self.sent.as_ref().or(self.read.as_ref()).or(self.delivered.as_ref())
    }

    /// One line for a terminal.
    pub fn line(&self) -> String {
        let mut line = format!("{:<20}", self.load.label());
        for (name, stream) in [("sent", &self.sent), ("delivered", &self.delivered), ("read", &self.read)] {
            if let Some(stream) = stream {
                line += &stream.line(name);
            }
        }
        if let Some(costs) = &self.costs {
            line += &format!("  {}", costs.line());
        }
        line
    }
}

/// What every thread of a run knows.
pub struct Plan<'a> {
    load: &'a LoadArgs,
    broker: SocketAddr,
    start: Instant,
    counted_from: u64,
    end: u64,
}

impl Plan<'_> {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn running(&self) -> bool {
        self.now_ns() < self.end
    }

    fn left(&self) -> Duration {
        Duration::from_nanos(self.end.saturating_sub(self.now_ns()))
    }
}

/// Counts what happens between the plan's warm-up and its end.
struct StreamCounter {
    counted_from: u64,
    end: u64,
    messages_each: u64,
    bytes_each: u64,
    stream: Stream,
    latency: Recorder,
    refusals: Recorder,
    newest: u64,
}

impl StreamCounter {
    fn new(plan: &Plan<'_>, messages_each: u64, bytes_each: u64) -> StreamCounter {
        StreamCounter {
            counted_from: plan.counted_from,
            end: plan.end,
            messages_each,
            bytes_each,
            stream: Stream::default(),
            latency: Recorder::new(),
            refusals: Recorder::new(),
            newest: plan.counted_from,
        }
    }

    fn is_within(&self, time_ns: u64) -> bool {
        (self.counted_from..=self.end).contains(&time_ns)
    }

    fn counts(&mut self, now: u64) -> bool {
        let counts = self.is_within(now);
        if counts {
            self.newest = now;
        }
        counts
    }

    fn success(&mut self, now: u64, latency_ns: u64) {
        if self.counts(now) {
            self.stream.messages += self.messages_each;
            self.stream.bytes += self.bytes_each;
            self.latency.record(latency_ns, self.messages_each);
        }
    }

    fn read(&mut self, now: u64, messages: u64, bytes: u64) {
        if self.counts(now) {
            self.stream.messages += messages;
            self.stream.bytes += bytes;
        }
    }

    /// Failures count in the warm-up, too: they say that something is wrong.
    fn failure(&mut self, now: u64, latency_ns: Option<u64>, code: i32, remark: impl FnOnce() -> String) {
        if let (true, Some(latency_ns)) = (self.counts(now), latency_ns) {
            self.refusals.record(latency_ns, 1);
        }
        *self.stream.errors.entry(code).or_default() += 1;
        self.stream.remark = remark();
    }

    /// A request of an open loop that does not leave: nothing will answer it.
    fn withheld(&mut self, due: u64) {
        if self.is_within(due) {
            self.stream.withheld += 1;
        }
    }

    /// A request of an open loop without an answer at the end. It has waited so long at least.
    fn unanswered(&mut self, due: u64) {
        if self.is_within(due) {
            self.stream.unanswered += 1;
            self.latency.record(self.end - due, self.messages_each);
        }
    }

    fn failed(&self) -> bool {
        !self.stream.errors.is_empty()
    }

    fn failures(&self) -> String {
        format!("{:?} {}", self.stream.errors, self.stream.remark)
    }

    fn finish(mut self) -> Stream {
        self.stream.seconds = (self.newest - self.counted_from) as f64 / 1e9;
        self.stream.latency = self.latency.summary();
        self.stream.refused_in = self.refusals.summary();
        self.stream
    }
}

/// Runs the load against `broker`; `meter` takes what it costs the server.
pub fn run(broker: SocketAddr, meter: Option<&Meter>, load: &LoadArgs) -> anyhow::Result<Report> {
    load.check()?;
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    let plan = |counted_from, end| Plan { load, broker, start: Instant::now(), counted_from, end };
    if load.connections > 0 {
        producer::create_topics(&plan(u64::MAX - 1, u64::MAX))?;
    }
    let plan = plan(ns(load.warm_up), ns(load.warm_up + load.seconds));
    let plan = &plan;
    let (sent, delivered, read, costs) = std::thread::scope(|scope| {
        let spawn = |wanted: bool, work: fn(&Plan<'_>) -> anyhow::Result<Stream>| {
            wanted.then(|| scope.spawn(move || work(plan)))
        };
        let tail = spawn(load.tail > 0, |plan| consumer::run(plan, Mode::Tail, plan.load.tail));
        let readers = spawn(load.readers > 0, |plan| {
            let mode = if plan.load.once { Mode::Once } else { Mode::Around };
            consumer::run(plan, mode, plan.load.readers)
        });
        let producers = spawn(load.connections > 0, producer::run);
        let threads = [producers, tail, readers];
        let before = meter.map(|meter| {
            wait_until(plan, plan.counted_from, &threads);
            meter.read()
        });
        wait_until(plan, plan.end, &threads);
        let costs = meter.zip(before).map(|(meter, before)| (before, meter.read()));
        let [sent, delivered, read] = threads.map(|thread| {
            thread
                .map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a load thread panicked"))))
                .transpose()
        });
        (sent, delivered, read, costs)
    });
    let mut report =
        Report { load: load.clone(), sent: sent?, delivered: delivered?, read: read?, costs: None };
    if let (Some((before, after)), Some(stream)) = (costs, report.main()) {
        report.costs = Some(after.since(&before, stream.messages));
    }
    Ok(report)
}

type LoadThread<'scope> = Option<std::thread::ScopedJoinHandle<'scope, anyhow::Result<Stream>>>;

/// Sleeps until `until` on the plan's clock, or until no thread is left.
fn wait_until(plan: &Plan<'_>, until: u64, threads: &[LoadThread<'_>]) {
    const NAP: Duration = Duration::from_millis(20);
    let all_done = || threads.iter().flatten().all(std::thread::ScopedJoinHandle::is_finished);
    while plan.now_ns() < until && !all_done() {
        std::thread::sleep(NAP.min(Duration::from_nanos(until.saturating_sub(plan.now_ns()))));
    }
}

#[cfg(test)]
mod tests;
