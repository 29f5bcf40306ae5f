//! A large log: catch-up reads against the device, and what they do to the tail.

use std::path::{Path, PathBuf};

use crate::compare::section::show;
use crate::compare::{Context, Row, Section, record_len};
use crate::limits::{FilesRead, read_once};
use crate::load::{self, LoadArgs};
use crate::peers::{Flush, Peer};

const GIB: f64 = (1 << 30) as f64;
const MIB: f64 = (1 << 20) as f64;
/// Longest step of filling a log.
const LONGEST_STEP: f64 = 4.0;
/// Longest that reading a large log may take; the rate counts, if the end is not reached in that time.
const LONGEST_READ: f64 = 30.0;
const TAIL_RATE: f64 = 1000.0;
/// A broker that has just started makes segments ahead; that belongs to neither tail.
const TAIL_WARM_UP: f64 = 3.0;

/// Sends messages of 1 KiB until the topic's log has about `gib` GiB; returns the bytes of their bodies.
pub fn fill(peer: &Peer, topic: &str, gib: f64) -> anyhow::Result<f64> {
    let mut sent = 0.0;
    let mut rate = 0.0;
    for step in 0.. {
        // The first step finds out how fast the broker is; short ones follow, as that changes.
        let seconds = if step == 0 { 1.0 } else { ((gib * GIB - sent) / rate).clamp(0.1, LONGEST_STEP) };
        let fill = LoadArgs {
            connections: 4,
            in_flight: 256,
            topic: topic.to_owned(),
            warm_up: 0.0,
            seconds,
            ..LoadArgs::default()
        };
        let report = load::run(peer.addr, None, &fill)?;
        let Some(stream) = report.sent else { anyhow::bail!("nothing was sent") };
        sent += stream.bytes as f64;
        rate = stream.bytes_rate();
        anyhow::ensure!(rate > 0.0, "{} takes no messages: {:?} {}", peer.name, stream.errors, stream.remark);
        if sent >= 0.98 * gib * GIB {
            break;
        }
    }
    eprintln!("filled {} with {:.2} GiB", peer.name, sent / GIB);
    Ok(sent)
}

pub fn catch_up(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let dir = context.dir("ringmq")?;
    let peer = context.ringmq_in(&dir, Flush::Sync, &[])?;
    fill(&peer, "LargeTopic", context.args.gib)?;
    drop(peer);
    // A restart empties the hot tail: all of it is cold then.
    let start = || context.ringmq_in(&dir, Flush::Sync, &[]);
    let tail = LoadArgs {
        rate: Some(TAIL_RATE),
        connections: 8,
        tail: 1,
        warm_up: TAIL_WARM_UP,
        seconds: 8.0,
        ..context.load()
    };
    let read = LoadArgs {
        connections: 0,
        readers: 1,
        once: true,
        topic: "LargeTopic".to_owned(),
        warm_up: 0.0,
        seconds: LONGEST_READ,
        ..context.load()
    };
    let peer = start()?;
    let alone = run(&peer, &read)?.named("read alone");
    peer.stop()?;
    // Right behind it, so that the host of a virtual machine has as much of the files in its memory as before.
    let device = read_once(&segments(&dir.join("data"))?)?;
    against_device(section, context.args.gib, &alone, &device);
    let peer = start()?;
    let quiet = run(&peer, &tail)?.named("tail alone");
    let (beside, while_read) = beside(&peer, &tail, &read)?;
    tail_figure(section, &beside, &quiet);
    let (beside, while_read) = (beside.named("tail beside it"), while_read.named("read beside it"));
    section.rows = vec![alone, quiet, beside, while_read];
    "one run; the broker was started anew before the first row and before the second"
        .clone_into(&mut section.how);
    Ok(())
}

fn run(peer: &Peer, load: &LoadArgs) -> anyhow::Result<Row> {
    let report = load::run(peer.addr, Some(&peer.meter()), load)?;
    eprintln!("  {}", report.line());
    row_of(peer, report)
}

/// The files of the logs of all shards of the store in `data`.
fn segments(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(data.join("shards"))? {
        for entry in std::fs::read_dir(shard?.path().join("log"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    // A shard after the other, and each from its beginning: names are positions.
    found.sort_unstable();
    Ok(found)
}

fn against_device(section: &mut Section, gib: f64, alone: &Row, device: &FilesRead) {
    let (rate, bytes) = alone.report.read.as_ref().map_or((0.0, 0), |read| (read.bytes_rate(), read.bytes));
    let ratio = rate / device.bytes_per_second;
    let measured = format!(
        "{} ({:.0} against {:.0} MiB/s, {:.2} against {:.2} GiB)",
        show(ratio),
        rate / MIB,
        device.bytes_per_second / MIB,
        bytes as f64 / GIB,
        device.bytes as f64 / GIB
    );
    let what = format!("catch-up read of {gib} GiB, cold ÷ {}", device.what);
    section.figure(&what, "≥ 0.8", measured, Some(ratio >= 0.8));
}

fn tail_figure(section: &mut Section, beside: &Row, quiet: &Row) {
    let Some((beside, quiet)) = beside.delivered_p999().zip(quiet.delivered_p999()) else { return };
    let ratio = beside / quiet;
    let measured = format!("{} ({beside:.0} against {quiet:.0} µs)", show(ratio));
    let what = "the tail's end-to-end p99.9 while that runs ÷ without";
    section.figure(what, "≤ 1.5", measured, Some(ratio <= 1.5));
}

/// The tail's load while readers go through the large topic, again and again.
fn beside(peer: &Peer, tail: &LoadArgs, read: &LoadArgs) -> anyhow::Result<(Row, Row)> {
    let read = LoadArgs { once: false, warm_up: tail.warm_up, seconds: tail.seconds, ..read.clone() };
    let (tail, read) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| load::run(peer.addr, None, &read));
        let tail = load::run(peer.addr, Some(&peer.meter()), tail);
        let panicked = |_| Err(anyhow::anyhow!("the reader panicked"));
        (tail, reader.join().unwrap_or_else(panicked))
    });
    let (tail, read) = (tail?, read?);
    eprintln!("  {}\n  {}", tail.line(), read.line());
    Ok((row_of(peer, tail)?, row_of(peer, read)?))
}

fn row_of(peer: &Peer, report: load::Report) -> anyhow::Result<Row> {
    Ok(Row::median_of(peer, record_len(peer, &report)?, vec![report]))
}
