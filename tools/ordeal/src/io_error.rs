//! The file system goes away under a broker: an ext4 on a loop device is shut down, so that every later write and flush
//! fails with EIO. The broker must end with the exit status that says which of the two failed, and acknowledge nothing
//! more; once the file system is back, everything that was acknowledged is there, and nothing that was not has a place
//! in between.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::broker::{Broker, BrokerCommand};
use crate::disk::SmallDisk;
use crate::wire::Client;

const TOPIC: &str = "IoError";
const MESSAGES: i64 = 300;
/// Size of the file system, in MiB.
const SIZE: usize = 256;
/// The broker's exit statuses: a flush failed, a write failed.
const SYNC_FAILED: i32 = 81;
const WRITE_FAILED: i32 = 82;
/// Longest until the log has what is acknowledged, flushed or not: 5 ms, and what it takes to write that.
const WRITTEN_WITHIN: Duration = Duration::from_millis(200);
/// Longest until the broker has noticed.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The broker.
#[derive(clap::Args)]
pub struct IoErrorArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// Directory of the image, the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-io-error")]
    dir: PathBuf,
}

/// Which call is to fail first.
#[derive(Clone, Copy)]
struct Case {
    flush: &'static str,
    flush_interval: &'static str,
    /// Messages are sent on until one finds its write failing; otherwise the next thing is the flush, as a rule.
    sends_on: bool,
    statuses: &'static [i32],
}

const CASES: [Case; 2] = [
    Case { flush: "sync", flush_interval: "500ms", sends_on: true, statuses: &[WRITE_FAILED] },
    Case { flush: "async", flush_interval: "2s", sends_on: false, statuses: &[SYNC_FAILED, WRITE_FAILED] },
];

/// Runs it; an error says what was lost, or how the broker ended otherwise.
pub fn run(args: &IoErrorArgs) -> anyhow::Result<()> {
    for case in CASES {
        let _ = std::fs::remove_dir_all(&args.dir);
        std::fs::create_dir_all(args.dir.join("data"))?;
        run_case(args, &args.dir.canonicalize()?, case).with_context(|| format!("with {}", case.flush))?;
    }
    std::fs::remove_dir_all(&args.dir).context("removing the directory")
}

fn start(args: &IoErrorArgs, dir: &Path, disk: &SmallDisk, case: Case) -> anyhow::Result<(Broker, Client)> {
    let extra =
        ["--cores", "1", "--shards", "1", "--memory", "128MiB", "--flush-interval", case.flush_interval];
    let extra: Vec<String> = extra.iter().map(|part| (*part).to_owned()).collect();
    // nsenter changes the working directory.
    let binary = args.ringmq.canonicalize().with_context(|| format!("finding {}", args.ringmq.display()))?;
    let command = BrokerCommand::new(binary, dir.to_owned(), case.flush, &extra)?.through(disk.prefix());
    let (broker, _) = command.start()?;
    Ok((broker, Client::connect(command.addr)?))
}

fn run_case(args: &IoErrorArgs, dir: &Path, case: Case) -> anyhow::Result<()> {
    let image = dir.join("image");
    SmallDisk::make_ext4(&image, SIZE)?;
    let data = dir.join("data");
    let disk = SmallDisk::ext4(&data, &image)?;
    let (mut broker, mut client) = start(args, dir, &disk, case)?;
    for n in 0..MESSAGES {
        client.send(TOPIC, 0, &body(n))?;
    }
    // With the file system goes what the page cache alone has, as in a power failure: ASYNC_FLUSH's newest messages.
    std::thread::sleep(WRITTEN_WITHIN);
    disk.break_ext4()?;
    let noticed = if case.sends_on { None } else { broker.wait(END_LIMIT).ok() };
    let status = match noticed {
        Some(status) => status,
        // All may have been flushed just before.
        None => {
            let answer = client.try_send(TOPIC, 0, &body(MESSAGES));
            ensure!(!matches!(answer, Ok(Ok(_))), "a message was acknowledged that could not be written");
            broker.wait(END_LIMIT)?
        }
    };
    let Some(status) = status.code().filter(|status| case.statuses.contains(status)) else {
        bail!("the broker ended with {status}, not {:?}", case.statuses);
    };
    drop(broker);
    disk.unmount()?;

    let disk = SmallDisk::ext4(&data, &image)?;
    let (broker, mut client) = start(args, dir, &disk, case)?;
    let mut next = 0;
    loop {
        let pulled = client.pull(TOPIC, 0, next)?;
        if pulled.messages.is_empty() {
            break;
        }
        for (offset, found) in pulled.messages {
            ensure!(offset == next && found == body(offset), "another message at offset {offset}");
            next += 1;
        }
    }
    ensure!(next >= MESSAGES, "{next} messages of {MESSAGES} that were acknowledged");
    ensure!(client.send(TOPIC, 0, &body(next))?.offset == next);
    drop(broker);
    println!("{}: ended with {status}, {next} messages there of {MESSAGES} acknowledged", case.flush);
    Ok(())
}

/// The body of the message at an offset.
fn body(offset: i64) -> Vec<u8> {
    offset.to_be_bytes().repeat(100)
}
