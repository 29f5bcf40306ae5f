//! The harness as a program of its own; `ringmq bench` is the same.

use clap::Parser;

#[derive(Parser)]
#[command(name = "ringmq-bench", about = "RingMQ's load harness", version)]
struct Cli {
    #[command(subcommand)]
    command: ringmq_bench::Command,
}

fn main() -> anyhow::Result<()> {
    ringmq_bench::run(Cli::parse().command, &[])
}
