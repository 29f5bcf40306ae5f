//! What a RingMQ broker must survive: `kill` kills it at random moments under load and looks for everything that it
//! acknowledged; `fill` fills its disk up; `io-error` lets its file system fail; `hostile` sends it everything that a client
//! must not send, and watches a well-behaved one; `overload` offers it twice what it can take; `timers` makes a million messages
//! wait for their time.

mod broker;
mod disk;
mod fill;
mod hostile;
mod io_error;
mod kill;
mod overload;
mod random;
mod timers;
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
    /// A small file system fills up; sends are refused, everything else goes on, and it heals by itself.
    Fill(fill::FillArgs),
    /// The file system fails; the broker ends with the status that says so, and what it acknowledged is there afterwards.
    IoError(io_error::IoErrorArgs),
    /// Garbage, truncated and oversized frames, slow senders, idle and vanishing connections; nobody else may notice.
    Hostile(hostile::HostileArgs),
    /// Twice what the broker can take; it must go on taking nearly as much as it can, in no more memory.
    Overload(overload::OverloadArgs),
    /// A million timer messages wait; each must come at its time and once, while others send, in little memory.
    Timers(timers::TimersArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().ordeal {
        Ordeal::Kill(args) => kill::run(&args),
        Ordeal::Fill(args) => fill::run(&args),
        Ordeal::IoError(args) => io_error::run(&args),
        Ordeal::Hostile(args) => hostile::run(&args),
        Ordeal::Overload(args) => overload::run(&args),
        Ordeal::Timers(args) => timers::run(&args),
    }
}
