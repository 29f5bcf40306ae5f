//! The same loads against each broker in turn, in one run, with ratios: absolute figures of a shared machine say
//! little, ratios between neighbours in time say more.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::load::{self, LoadArgs, Report};
use crate::peers::Peer;

/// What to compare.
#[derive(clap::Args)]
pub struct CompareArgs {
    /// RingMQ's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// More arguments for `ringmq server`; may be given several times.
    #[arg(long = "ringmq-arg", allow_hyphen_values = true)]
    ringmq_args: Vec<String>,
    /// Directory with the Java broker's jars (org.apache.rocketmq:rocketmq-broker, -namesrv and what they depend
    /// on); without it the Java broker is left out.
    #[arg(long)]
    java_lib: Option<PathBuf>,
    /// Loads as CONNECTIONSxINFLIGHT.
    #[arg(long, value_delimiter = ',', default_value = "1x1,64x1,8x32,4x256")]
    loads: Vec<Shape>,
    /// How often each load is run against each broker; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Flush mode: sync or async.
    #[arg(long, default_value = "sync")]
    flush: String,
    /// Seconds that the Java broker is warmed up before the first round.
    #[arg(long, default_value_t = 15.0)]
    java_warm_up: f64,
    /// Message body in bytes.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Seconds of each counted run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Directory for the stores and logs of the run; made, and removed at the end.
    #[arg(long, default_value = "benches/results/run.tmp")]
    dir: PathBuf,
    /// Where the table (.md) and the data (.json) go, without extension; printed only when left out.
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Connections and requests in flight on each.
#[derive(Clone, Copy, Debug)]
struct Shape {
    connections: usize,
    in_flight: usize,
}

impl std::str::FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Shape> {
        let (connections, in_flight) = text.split_once('x').context("a load is CONNECTIONSxINFLIGHT")?;
        Ok(Shape { connections: connections.parse()?, in_flight: in_flight.parse()? })
    }
}

struct Candidate {
    name: &'static str,
    peer: Peer,
    /// One list of reports for each load.
    reports: Vec<Vec<Report>>,
}

/// Runs the comparison and prints its table.
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&args.dir);
    let mut candidates = start(args)?;
    for candidate in candidates.iter().filter(|c| c.name == "java") {
        let warm_up = load_args(args, Shape { connections: 8, in_flight: 32 }, args.java_warm_up);
        eprintln!("warm-up  {}", load::run(candidate.peer.addr, None, &warm_up)?.line());
    }
    for round in 0..args.rounds {
        for (index, shape) in args.loads.iter().enumerate() {
            for candidate in &mut candidates {
                let load = load_args(args, *shape, args.seconds);
                let report = load::run(candidate.peer.addr, Some(candidate.peer.pid()), &load)?;
                eprintln!("{round} {:<7} {}", candidate.name, report.line());
                candidate.reports[index].push(report);
            }
        }
    }
    let table = table(args, &candidates);
    println!("{table}");
    if let Some(output) = &args.output {
        save(output, &table, &candidates)?;
    }
    drop(candidates);
    std::fs::remove_dir_all(&args.dir).context("removing the run's directory")
}

fn start(args: &CompareArgs) -> anyhow::Result<Vec<Candidate>> {
    let dir = |name: &str| -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(args.dir.join(name))?;
        Ok(args.dir.join(name).canonicalize()?)
    };
    let mut peers =
        vec![("ringmq", Peer::ringmq(&args.ringmq, &dir("ringmq")?, &args.flush, &args.ringmq_args)?)];
    if let Some(lib) = &args.java_lib {
        peers.push(("java", Peer::java(lib, &dir("java")?, &args.flush)?));
    }
    peers.push(("null", Peer::null(&dir("null")?)?));
    let reports = || vec![Vec::new(); args.loads.len()];
    Ok(peers.into_iter().map(|(name, peer)| Candidate { name, peer, reports: reports() }).collect())
}

fn load_args(args: &CompareArgs, shape: Shape, seconds: f64) -> LoadArgs {
    LoadArgs {
        connections: shape.connections,
        in_flight: shape.in_flight,
        size: args.size,
        topic: "BenchTopic".to_owned(),
        queues: 8,
        warm_up: 1.0,
        seconds,
    }
}

fn table(args: &CompareArgs, candidates: &[Candidate]) -> String {
    let mut out = format!(
        "{} B, {} flush, 8 queues, median of {} runs of {} s each\n\n| load | broker | msg/s | ÷ java | ÷ null | p50 µs | p99 µs \
         | p99.9 µs | CPU µs/msg | ÷ java | MiB | ready ms |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        args.size, args.flush, args.rounds, args.seconds
    );
    for (index, shape) in args.loads.iter().enumerate() {
        let of = |name: &str| candidates.iter().find(|c| c.name == name).map(|c| median(&c.reports[index]));
        let (java, null) = (of("java"), of("null"));
        for candidate in candidates {
            let report = median(&candidate.reports[index]);
            let ratio = |other: &Option<Report>, value: fn(&Report) -> f64| {
                other.as_ref().map_or("–".to_owned(), |o| format!("{:.2}", value(&report) / value(o)))
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "| {} × {} | {} | {:.0} | {} | {} | {} | {} | {} | {:.2} | {} | {:.0} | {} |",
                shape.connections,
                shape.in_flight,
                candidate.name,
                report.rate,
                ratio(&java, |r| r.rate),
                ratio(&null, |r| r.rate),
                report.latency_us[0],
                report.latency_us[1],
                report.latency_us[2],
                report.cpu_us,
                ratio(&java, |r| r.cpu_us),
                report.resident_mib,
                candidate.peer.ready_after.as_millis(),
            );
        }
    }
    out
}

/// The run in the middle by rate.
fn median(reports: &[Report]) -> Report {
    let mut sorted = reports.to_vec();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted.swap_remove(sorted.len() / 2)
}

fn save(output: &Path, table: &str, candidates: &[Candidate]) -> anyhow::Result<()> {
    std::fs::write(output.with_extension("md"), table)?;
    let data: serde_json::Map<String, serde_json::Value> = candidates
        .iter()
        .map(|c| Ok((c.name.to_owned(), serde_json::to_value(&c.reports)?)))
        .collect::<anyhow::Result<_>>()?;
    Ok(std::fs::write(output.with_extension("json"), serde_json::to_string_pretty(&data)?)?)
}
