//! Offers a broker twice what it can take, and looks at what it still does: the goodput of an overload, beside the peak
//! that the same broker reached in a closed loop moments before, and its memory, which must not grow with what is
//! offered. The load has a limit for what is in flight, as clients have one: 65,536 requests in all. What came later than
//! a client waits is no goodput.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use ringmq_bench::{LoadArgs, run_load};

use crate::broker::{Broker, BrokerCommand};

/// How long clients wait for an answer (Java's `sendMsgTimeout`), in µs.
const PATIENCE_US: f64 = 3_000_000.0;
/// What clients have in flight (Java's `clientAsyncSemaphoreValue`), over all connections.
const IN_FLIGHT: usize = 65_536;

/// The broker, and how long.
#[derive(clap::Args)]
pub struct OverloadArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// Seconds of overload.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Seconds of each search for the peak.
    #[arg(long, default_value_t = 5.0)]
    peak_seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How many times the peak is offered.
    #[arg(long, default_value_t = 2.0)]
    times: f64,
    /// Least goodput, as a share of the peak; less is a failure.
    #[arg(long, default_value_t = 0.9)]
    least: f64,
    /// Directory of the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-overload")]
    dir: PathBuf,
    /// More arguments for the broker.
    #[arg(last = true)]
    broker: Vec<String>,
}

/// Runs it; an error says what the overload did to the broker.
pub fn run(args: &OverloadArgs) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(&args.dir)?;
    // What is sent in an hour does not fit every disk.
    let kept = ["--set", "retention-size=2GiB", "--set", "retention-interval=1s"].map(str::to_owned);
    let extra = [&kept[..], &args.broker].concat();
    let command = BrokerCommand::new(args.ringmq.clone(), args.dir.canonicalize()?, "sync", &extra)?;
    let (broker, _) = command.start()?;
    let shape = LoadArgs {
        connections: args.connections,
        most_in_flight: (IN_FLIGHT / args.connections.max(1)).max(1),
        size: args.size,
        ..LoadArgs::default()
    };
    let mut peak = 0.0_f64;
    for in_flight in [1, 4, 16, 64] {
        let shape = LoadArgs { in_flight, seconds: args.peak_seconds, ..shape.clone() };
        let report = run_load(command.addr, None, &shape)?;
        println!("closed loop, {}", report.line());
        peak = peak.max(report.rate());
    }
    let offered = peak * args.times;
    let load = LoadArgs { rate: Some(offered), seconds: args.seconds, warm_up: 5.0, ..shape };
    let (report, memory) = with_memory(&broker, || run_load(command.addr, None, &load))?;
    println!("overload, {}", report.line());
    let ratio = report.rate() / peak;
    let (early, late) = halves(&memory);
    println!(
        "overload: {offered:.0}/s offered, {:.0}/s taken: {ratio:.2} of the peak of {peak:.0}/s; memory {early} MiB, \
         then {late} MiB",
        report.rate()
    );
    broker.kill()?;
    let slowest = report.sent.and_then(|sent| sent.latency).map_or(0.0, |latency| latency.p999);
    ensure!(slowest <= PATIENCE_US, "p99.9 is {slowest:.0} us: later than clients wait");
    ensure!(ratio >= args.least, "the goodput is {ratio:.2} of the peak, the least is {}", args.least);
    // The log's tail and the buffers of connections have limits: what they take is taken by the middle.
    ensure!(late <= early + early / 5 + 16, "the memory grew from {early} MiB to {late} MiB");
    std::fs::remove_dir_all(&args.dir).context("removing the directory")
}

/// Runs the work, and looks at the broker's memory each second; in MiB.
fn with_memory<T>(
    broker: &Broker,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<u64>)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) {
                seen.extend(broker.resident().map(|bytes| bytes >> 20));
                std::thread::sleep(Duration::from_secs(1));
            }
            seen
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        Ok((result?, seen))
    })
}

/// The most of the first half and of the second.
fn halves(memory: &[u64]) -> (u64, u64) {
    let (early, late) = memory.split_at(memory.len() / 2);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    (most(early), most(late))
}
