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
    /// Prints everything that was measured as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: load::LoadArgs,
}

/// Carries a command out. `prefix`: the arguments that come before the command's name when this program calls
/// itself (`bench` in `ringmq bench null`).
pub fn run(command: Command, prefix: &[OsString]) -> anyhow::Result<()> {
    match command {
        Command::Load(command) => {
            let meter = command.pid.map(|pid| process::Meter::new(pid, command.data.as_deref()));
            let report = load::run(command.broker, meter.as_ref(), &command.load)?;
            println!("{}", if command.json { serde_json::to_string_pretty(&report)? } else { report.line() });
            Ok(())
        }
        Command::Null { listen } => null_server::serve(listen),
        Command::Compare(args) => compare::run(&args, prefix),
    }
}
