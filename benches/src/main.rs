//! RingMQ's load harness: a lean producer that speaks RocketMQ's remoting protocol, a server that stores nothing
//! (the limit of the harness itself), and a comparison of brokers side by side in one run.

mod compare;
mod load;
mod null_server;
mod peers;
mod process;
mod wire;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ringmq-bench", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends messages to a broker in a closed loop and prints rate, latency and the broker's own cost.
    Send(SendArgs),
    /// Serves as a broker that answers every send at once and stores nothing.
    Null {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:20911")]
        listen: SocketAddr,
    },
    /// Runs the same loads against RingMQ, the Java broker and the null server, in turn, and prints ratios.
    Compare(compare::CompareArgs),
}

#[derive(clap::Args)]
struct SendArgs {
    /// Broker address.
    #[arg(long, default_value = "127.0.0.1:10911")]
    broker: SocketAddr,
    /// Process whose CPU time and memory are reported.
    #[arg(long)]
    pid: Option<u32>,
    #[command(flatten)]
    load: load::LoadArgs,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Send(args) => {
            let report = load::run(args.broker, args.pid, &args.load)?;
            println!("{}", report.line());
            Ok(())
        }
        Command::Null { listen } => null_server::serve(listen),
        Command::Compare(args) => compare::run(&args),
    }
}
