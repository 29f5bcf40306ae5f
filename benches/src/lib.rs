//! RingMQ's load harness: lean clients that speak RocketMQ's remoting protocol, a server that stores nothing (the
//! limit of the harness itself), and a comparison of brokers side by side in one run.
//!
//! It is a library so that `ringmq bench` offers users what `ringmq-bench` offers its developers.

mod compare;
mod limits;
mod load;
mod null_server;
mod peers;
mod process;
mod report;
mod wire;

pub use load::{LoadArgs, Report, run as run_load};

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use process::Meter;

/// What the harness does.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Loads a broker with producers and consumers, and prints rates, latencies and the broker's own cost.
    Load(LoadCommand),
    /// Serves as a broker that answers every send and pull at once and stores nothing.
    Null {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:20911")]
        listen: SocketAddr,
    },
    /// Runs the same loads against RingMQ, the Java broker, rocketmq-rust's and the null server, in turn, and writes
    /// a report with ratios.
    Compare(compare::CompareArgs),
}

/// Arguments of `load`.
#[derive(clap::Args, Debug)]
pub struct LoadCommand {
    /// Broker address.
    #[arg(long, default_value = "127.0.0.1:10911")]
    broker: SocketAddr,
    /// Process of the broker, whose CPU time, memory and writes are reported.
    #[arg(long)]
    pid: Option<u32>,
    /// The broker's data directory, whose device's flushes are reported (with --pid).
    #[arg(long)]
    data: Option<PathBuf>,
    /// The broker's port of metrics for Prometheus, on the host of --broker (with --pid): messages of a group commit and
    /// the commits' sizes are taken from them. For RingMQ only.
    #[arg(long, value_name = "PORT", requires = "pid")]
    metrics: Option<u16>,
    /// Prints everything that was measured as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: load::LoadArgs,
}

impl LoadCommand {
    fn run(&self) -> anyhow::Result<()> {
        let report = load::run(self.broker, self.meter()?.as_ref(), &self.load)?;
        println!("{}", if self.json { serde_json::to_string_pretty(&report)? } else { report.line() });
        Ok(())
    }

    /// `None` without a process. A port that tells of no commits is an error before the load, which may take long.
    fn meter(&self) -> anyhow::Result<Option<Meter>> {
        let Some(pid) = self.pid else { return Ok(None) };
        let metrics = self.metrics.map(|port| SocketAddr::new(self.broker.ip(), port));
        let meter = Meter::new(pid, self.data.as_deref()).with_metrics(metrics);
        if let Some(metrics) = metrics {
            let now = meter.read();
            let told = now.since(&now, 0).commits.is_some();
            anyhow::ensure!(told, "--metrics: nothing about RingMQ's commits at http://{metrics}/metrics");
        }
        Ok(Some(meter))
    }
}

/// Carries a command out. `prefix`: the arguments that come before the command's name when this program calls
/// itself (`bench` in `ringmq bench null`).
pub fn run(command: Command, prefix: &[OsString]) -> anyhow::Result<()> {
    match command {
        Command::Load(command) => command.run(),
        Command::Null { listen } => null_server::serve(listen),
        Command::Compare(args) => compare::run(&args, prefix),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        load: LoadCommand,
    }

    /// The port of a server that answers each request with these metrics; they have grown by one each time.
    fn serve(metrics: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (number, mut client) in listener.incoming().flatten().enumerate() {
                assert!(client.read(&mut [0; 1024]).unwrap() > 0);
                write!(client, "HTTP/1.1 200 OK\r\n\r\n{metrics} {number}\n").unwrap();
            }
        });
        port
    }

    fn load(arguments: &[&str]) -> Result<LoadCommand, clap::Error> {
        Cli::try_parse_from([&["load"], arguments].concat()).map(|cli| cli.load)
    }

    fn meter(port: u16) -> anyhow::Result<Option<Meter>> {
        let pid = std::process::id().to_string();
        load(&["--pid", &pid, "--metrics", &port.to_string()])?.meter()
    }

    #[test]
    fn metrics_tell_of_the_commits_of_a_broker_that_runs() {
        let meter = meter(serve("ringmq_store_commit_bytes_bucket{shard=\"0\",le=\"+Inf\"}"));
        let meter = meter.unwrap().unwrap();
        let before = meter.read();
        let commits = meter.read().since(&before, 70).commits;
        assert_eq!(commits.map(|commits| commits.count()), Some(1));
    }

    #[test]
    fn a_port_without_metrics_of_commits_is_an_error() {
        let error = meter(serve("ringmq_topics")).unwrap_err().to_string();
        assert!(error.contains("--metrics"), "{error}");
        assert!(load(&["--metrics", "5557"]).unwrap_err().to_string().contains("--pid"));
        assert!(load(&[]).unwrap().meter().unwrap().is_none());
    }
}
