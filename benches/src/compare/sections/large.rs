//! A large log: catch-up reads against the device, and what they do to the tail.

use std::time::Duration;

use crate::compare::section::show;
use crate::compare::{Context, Row, Section, record_len};
use crate::limits::Probe;
use crate::load::{self, LoadArgs};
use crate::peers::{Flush, Peer};

const GIB: f64 = (1 << 30) as f64;
const MIB: f64 = (1 << 20) as f64;
/// Longest step of filling a log.
const LONGEST_STEP: f64 = 4.0;
/// Longest that reading a large log may take; the rate counts, if the end is not reached in that time.
const LONGEST_READ: f64 = 30.0;
const TAIL_RATE: f64 = 1000.0;
const READ_BLOCK: usize = 1 << 20;

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
    // A restart empties the hot tail: all of it is cold then.
    drop(peer);
    let peer = context.ringmq_in(&dir, Flush::Sync, &[])?;
    let tail = LoadArgs { rate: Some(TAIL_RATE), connections: 8, tail: 1, seconds: 8.0, ..context.load() };
    let read = LoadArgs {
        connections: 0,
        readers: 1,
        once: true,
        topic: "LargeTopic".to_owned(),
        warm_up: 0.0,
        seconds: LONGEST_READ,
        ..context.load()
    };
    let run = |load: &LoadArgs| -> anyhow::Result<Row> {
        let report = load::run(peer.addr, Some(&peer.meter()), load)?;
        eprintln!("  {}", report.line());
        row_of(&peer, report)
    };
    let quiet = run(&tail)?;
    let alone = run(&read)?;
    let (beside, while_read) = beside(&peer, &tail, &read)?;
    drop(peer);
    let probe = Probe::new(&context.dir("probe")?)?;
    let device = probe.reads(READ_BLOCK, Duration::from_secs(5))?;
    let rate = alone.report.read.as_ref().map_or(0.0, |read| read.bytes_rate());
    let ratio = rate / device.bytes_per_second;
    let measured =
        format!("{} ({:.0} against {:.0} MiB/s)", show(ratio), rate / MIB, device.bytes_per_second / MIB);
    let what = format!("catch-up read of {} GiB, cold ÷ {}", context.args.gib, device.what);
    section.figure(&what, "≥ 0.8", measured, Some(ratio >= 0.8));
    let p999 = (beside.delivered_p999(), quiet.delivered_p999());
    if let (Some(beside), Some(quiet)) = p999 {
        let ratio = beside / quiet;
        let measured = format!("{} ({beside:.0} against {quiet:.0} µs)", show(ratio));
        section.figure(
            "the tail's end-to-end p99.9 while that runs ÷ without",
            "≤ 1.5",
            measured,
            Some(ratio <= 1.5),
        );
    }
    section.rows = vec![quiet, alone, beside, while_read];
    "one run; the first row is the tail alone, the third the tail beside a catch-up read (the fourth)"
        .clone_into(&mut section.how);
    Ok(())
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
