//! What a RingMQ broker must survive: `kill` kills it at random moments under load and looks for everything that it
//! acknowledged; `hostile` sends it everything that a client must not send, and watches a well-behaved one.

mod broker;
mod hostile;
mod kill;
mod random;
mod wire;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ringmq-ordeal", about, version)]
struct Cli {
    #[command(subcommand)]
    ordeal: Ordeal,
}

#[derive(Subcommand)]
enum Ordeal {
    /// kill -9 at random moments under load; nothing acknowledged may be lost.
    Kill(kill::KillArgs),
    /// Garbage, truncated and oversized frames, slow senders, idle and vanishing connections; nobody else may notice.
    Hostile(hostile::HostileArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().ordeal {
        Ordeal::Kill(args) => kill::run(&args),
        Ordeal::Hostile(args) => hostile::run(&args),
    }
}
