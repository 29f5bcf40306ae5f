//! Offers a broker twice what it can take, and looks at what it still does: the goodput of an overload, beside the peak
//! that the same broker reached moments before, and its memory and its log, which must not grow with what is offered. Messages
//! are sent on a schedule all along, each by itself: a closed loop, whose requests leave in batches as their answers came,
//! costs the broker less for each, and only tells which rates to try. The load has a limit for what is in flight, as
//! clients have one: 65,536 requests in all. What came later than a client waits is no goodput.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use ringmq_bench::{LoadArgs, run_load};

use crate::broker::{Broker, BrokerCommand};

/// How long clients wait for an answer (Java's `sendMsgTimeout`), in µs.
const PATIENCE_US: f64 = 3_000_000.0;
/// Bytes of log that the broker is told to keep. What is sent in an hour does not fit every disk.
const RETENTION_SIZE: u64 = 2 << 30;
/// Rates that are tried for the peak, as shares of a closed loop's.
const SHARES: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Requests in flight on each connection of that closed loop.
const CLOSED_IN_FLIGHT: usize = 16;
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
    /// Seconds of each try for the peak.
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
    let size = format!("retention-size={RETENTION_SIZE}");
    let kept = ["--set", &size, "--set", "retention-interval=1s"].map(str::to_owned);
    let extra = [&kept[..], &args.broker].concat();
    let command = BrokerCommand::new(args.ringmq.clone(), args.dir.canonicalize()?, "sync", &extra)?;
    let (broker, _) = command.start()?;
    let shape = LoadArgs {
        connections: args.connections,
        most_in_flight: (IN_FLIGHT / args.connections.max(1)).max(1),
        size: args.size,
        ..LoadArgs::default()
    };
    let peak = peak(command.addr, &LoadArgs { seconds: args.peak_seconds, ..shape.clone() })?;
    let offered = peak * args.times;
    let load = LoadArgs { rate: Some(offered), seconds: args.seconds, warm_up: 5.0, ..shape };
    let (report, memory) = with_memory(&broker, || run_load(command.addr, None, &load))?;
    println!("overload, {}", report.line());
    let ratio = report.rate() / peak;
    let (early, late) = halves(&memory);
    let log = bytes_in(&args.dir.join("data/shards/000/log"))?;
    println!(
        "overload: {offered:.0}/s offered, {:.0}/s taken: {ratio:.2} of the peak of {peak:.0}/s; memory {early} MiB, \
         then {late} MiB; log {} MiB",
        report.rate(),
        log >> 20
    );
    broker.kill()?;
    let slowest = report.sent.and_then(|sent| sent.latency).map_or(0.0, |latency| latency.p999);
    ensure!(slowest <= PATIENCE_US, "p99.9 is {slowest:.0} us: later than clients wait");
    ensure!(ratio >= args.least, "the goodput is {ratio:.2} of the peak, the least is {}", args.least);
    // The log's tail and the buffers of connections have limits: what they take is taken by the middle.
    ensure!(late <= early + early / 5 + 16, "the memory grew from {early} MiB to {late} MiB");
    // Segments go as a whole, each second, and new ones are made ahead.
    ensure!(log <= RETENTION_SIZE * 3 / 2, "the log has {log} bytes, {RETENTION_SIZE} are to be kept");
    std::fs::remove_dir_all(&args.dir).context("removing the directory")
}

/// The most that the broker takes of any rate, in messages a second.
fn peak(addr: SocketAddr, shape: &LoadArgs) -> anyhow::Result<f64> {
    let closed = run_load(addr, None, &LoadArgs { in_flight: CLOSED_IN_FLIGHT, ..shape.clone() })?;
    println!("closed loop, {}", closed.line());
    let mut peak = 0.0_f64;
    for share in SHARES {
        let report = run_load(addr, None, &LoadArgs { rate: Some(share * closed.rate()), ..shape.clone() })?;
        println!("{}", report.line());
        peak = peak.max(report.rate());
    }
    Ok(peak)
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

/// Bytes of all files in a directory.
fn bytes_in(dir: &Path) -> anyhow::Result<u64> {
    let files = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    // A file may go between the two looks.
    Ok(files.flatten().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum())
}

/// The most of the first half and of the second.
fn halves(memory: &[u64]) -> (u64, u64) {
    let (early, late) = memory.split_at(memory.len() / 2);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
    (most(early), most(late))
}
