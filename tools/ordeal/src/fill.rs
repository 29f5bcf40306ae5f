//! Fills a small file system up, a tmpfs in a mount namespace of its own: sends are refused with Java's code and a
//! remark that gives the path, the use and the limit; pulls and commits of consumer offsets go on, even when not a byte
//! is left; once there is space again sends are taken without a restart; and after a kill everything is there. Then a
//! broker that deletes what is oldest goes on for ever on a disk that is smaller than what is sent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::broker::{Broker, BrokerCommand};
use crate::disk::{MIB, SmallDisk};
use crate::wire::{Client, Refused};

const TOPIC: &str = "FillLoop";
/// Java's SERVICE_NOT_AVAILABLE.
const SERVICE_NOT_AVAILABLE: i64 = 14;
/// Bytes of a message's body.
const BODY: usize = 100_000;
/// How long healing may take.
const HEAL_LIMIT: Duration = Duration::from_secs(10);

/// The disk, and the broker.
#[derive(clap::Args)]
pub struct FillArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// Size of the file system, in MiB.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Flush mode: sync or async.
    #[arg(long, default_value = "sync")]
    flush: String,
    /// Directory of the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-fill")]
    dir: PathBuf,
}

/// Runs it; an error says what did not go on, or did not come back.
pub fn run(args: &FillArgs) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(args.dir.join("data"))?;
    let dir = args.dir.canonicalize()?;
    let disk = SmallDisk::tmpfs(&dir.join("data"), args.size)?;
    fill_and_heal(args, &dir, &disk)?;
    drop(disk);
    let disk = SmallDisk::tmpfs(&dir.join("data"), args.size)?;
    outlive_the_disk(args, &dir, &disk)?;
    drop(disk);
    std::fs::remove_dir_all(&args.dir).context("removing the directory")
}

fn command(args: &FillArgs, dir: &Path, disk: &SmallDisk, extra: &[&str]) -> anyhow::Result<BrokerCommand> {
    let common = ["--cores", "1", "--shards", "1", "--segment-size", "16MiB", "--memory", "128MiB"];
    let extra: Vec<String> = common.iter().chain(extra).map(|part| (*part).to_owned()).collect();
    // nsenter changes the working directory.
    let binary = args.ringmq.canonicalize().with_context(|| format!("finding {}", args.ringmq.display()))?;
    let command = BrokerCommand::new(binary, dir.to_owned(), &args.flush, &extra)?;
    Ok(command.through(disk.prefix()))
}

/// The body of the message at an offset: what a reader must find there.
fn body(offset: i64) -> Vec<u8> {
    offset.to_be_bytes().repeat(BODY / 8)
}

/// Sends to queue 0 until a send is refused; returns how many were taken, all of them together, and why.
fn send_until_refused(client: &mut Client, sent: &mut i64) -> anyhow::Result<Refused> {
    for _ in 0..100_000 {
        match client.try_send(TOPIC, 0, &body(*sent))? {
            Ok(stored) => {
                ensure!(stored.offset == *sent, "offset {} after {sent} messages", stored.offset);
                *sent += 1;
            }
            Err(refused) => return Ok(refused),
        }
    }
    bail!("the disk never filled up");
}

fn check_refusal(refused: &Refused, dir: &Path) -> anyhow::Result<()> {
    let Refused { code, remark } = refused;
    ensure!(*code == SERVICE_NOT_AVAILABLE, "refused with {code} {remark}");
    let path = dir.display().to_string();
    for part in [path.as_str(), " bytes used", "the limit is 90 %"] {
        ensure!(remark.contains(part), "the remark does not say \"{part}\": {remark}");
    }
    Ok(())
}

/// Reads queue 0 from `from` on and compares it with what was sent.
fn read_all(client: &mut Client, from: i64, sent: i64) -> anyhow::Result<()> {
    let mut next = from;
    while next < sent {
        let pulled = client.pull(TOPIC, 0, next)?;
        ensure!(!pulled.messages.is_empty(), "nothing at offset {next} of {sent}");
        for (offset, found) in pulled.messages {
            ensure!(offset == next && found == body(offset), "another message at offset {offset}");
            next += 1;
        }
    }
    Ok(())
}

fn fill_and_heal(args: &FillArgs, dir: &Path, disk: &SmallDisk) -> anyhow::Result<()> {
    let command = command(args, dir, disk, &["--clean-forcibly", "false"])?;
    disk.take(args.size * MIB / 3)?;
    let (broker, _) = command.start()?;
    let (mut client, mut sent) = (Client::connect(command.addr)?, 0);
    let refused = send_until_refused(&mut client, &mut sent)?;
    check_refusal(&refused, dir)?;
    disk.take(usize::MAX)?;
    read_all(&mut client, 0, sent).context("on a full disk")?;
    let mut commits = 0;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        commits += 1;
        client.commit_offset(TOPIC, 0, commits % sent)?;
        ensure!(client.committed_offset(TOPIC, 0)? == Some(commits % sent));
        let refused = client.try_send(TOPIC, 0, b"no")?.err().context("a full disk took a message")?;
        check_refusal(&refused, dir)?;
    }
    client.commit_offset(TOPIC, 0, sent)?;
    // Longer than the offset flush interval: 1 s with SYNC_FLUSH, 5 s otherwise.
    std::thread::sleep(Duration::from_millis(if args.flush == "sync" { 1_500 } else { 6_500 }));
    let (broker, mut client) = restart(broker, &command)?;
    ensure!(client.committed_offset(TOPIC, 0)? == Some(sent), "an offset committed on the full disk is lost");
    read_all(&mut client, 0, sent).context("on a full disk, after a kill")?;
    // A start gives a segment back that was made ahead.
    send_until_refused(&mut client, &mut sent)?;
    disk.take(usize::MAX)?;
    let before = sent;
    disk.free()?;
    let waited = heal(&mut client, &mut sent)?;
    let (broker, mut client) = restart(broker, &command)?;
    read_all(&mut client, 0, sent).context("after it healed and was killed")?;
    drop(broker);
    println!(
        "{before} messages until the disk of {} MiB was full, {commits} offset commits on it; healed after {waited:?}",
        args.size
    );
    Ok(())
}

fn restart(broker: Broker, command: &BrokerCommand) -> anyhow::Result<(Broker, Client)> {
    broker.kill()?;
    let (broker, _) = command.start()?;
    Ok((broker, Client::connect(command.addr)?))
}

/// Sends until it is taken again; returns how long that took.
fn heal(client: &mut Client, sent: &mut i64) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    loop {
        match client.try_send(TOPIC, 0, &body(*sent))? {
            Ok(stored) => {
                ensure!(stored.offset == *sent, "what was refused took offset {}", stored.offset);
                *sent += 1;
                return Ok(begun.elapsed());
            }
            Err(refused) => ensure!(begun.elapsed() < HEAL_LIMIT, "no healing: {}", refused.remark),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn outlive_the_disk(args: &FillArgs, dir: &Path, disk: &SmallDisk) -> anyhow::Result<()> {
    let command =
        command(args, dir, disk, &["--disk-clean-forcibly", "60", "--retention-interval", "100ms"])?;
    let (broker, _) = command.start()?;
    let (mut client, mut sent) = (Client::connect(command.addr)?, 0);
    while sent as usize * BODY < 3 * args.size * MIB {
        match client.try_send(TOPIC, 0, &body(sent))? {
            Ok(_) => sent += 1,
            Err(_) => drop(heal(&mut client, &mut sent)?),
        }
    }
    // Until the last deletion is over.
    std::thread::sleep(Duration::from_secs(1));
    let kept = client.pull(TOPIC, 0, 0)?.next;
    ensure!(kept > sent / 4, "a reader of offset 0 is sent to {kept} of {sent}");
    read_all(&mut client, kept, sent)?;
    drop(broker);
    println!("{sent} messages, three times the disk, {} kept", sent - kept);
    Ok(())
}
