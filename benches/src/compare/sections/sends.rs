//! Sections about sends: closed and open loops, sizes, batches.

use std::rc::Rc;
use std::time::Duration;

use crate::compare::section::show;
use crate::compare::{Context, RINGMQ_AT_LIMIT, Row, Section};
use crate::limits::{DeviceRate, Probe};
use crate::load::LoadArgs;
use crate::peers::Flush;

const OPEN_RATE: f64 = 10_000.0;
const MIB: f64 = (1 << 20) as f64;
const PROBE_TIME: Duration = Duration::from_secs(3);
/// How often the device is probed for each load.
const PROBES: usize = 2;

pub fn sync(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let mut peers = context.all_peers(Flush::Sync)?;
    peers.push(Rc::new(context.ringmq_at_limit(Flush::Sync)?));
    section.rows = context.measure(&peers, &context.shapes(&[(1, 1), (64, 1), (8, 32), (4, 256)]))?;
    for (label, goal) in [("1 × 1", 3.0), ("64 × 1", 4.0), ("8 × 32", 10.0), ("4 × 256", 10.0)] {
        section.at_least(&format!("SYNC_FLUSH, {label}, messages/s"), label, "java", goal, Row::rate);
        if label == "64 × 1" {
            section.at_least("SYNC_FLUSH, 64 × 1, messages/s", label, "null", 0.9, Row::rate);
        }
        if goal >= 10.0 {
            let what = format!("SYNC_FLUSH, {label}, messages/s, log at its limit");
            section.at_least_for(RINGMQ_AT_LIMIT, &what, label, "java", goal, Row::rate);
        }
    }
    for (label, goal) in [("64 × 1", 6.0), ("8 × 32", 15.0), ("4 × 256", 15.0)] {
        let what = format!("broker CPU a message, kernel workers included, {label}");
        section.at_most(&what, label, "java", 1.0 / goal, Row::cpu);
    }
    Ok(())
}

/// In a section of its own, with few in flight: it refuses most sends of heavier loads.
pub fn rocketmq_rust(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let Some(peer) = context.rocketmq_rust(Flush::Sync)? else { return Ok(()) };
    let peers = [Rc::new(context.ringmq(Flush::Sync, &[])?), peer];
    section.rows = context.measure(&peers, &context.shapes(&[(1, 1), (16, 1)]))?;
    for label in ["1 × 1", "16 × 1"] {
        let of = |peer: &str| section.row(peer, label).and_then(Row::rate);
        if let (Some(ours), Some(theirs)) = (of("ringmq"), of("rocketmq-rust")) {
            let measured = format!("{} × ({ours:.0} against {theirs:.0})", show(ours / theirs));
            section.figure(&format!("SYNC_FLUSH, {label}, against rocketmq-rust"), "stated", measured, None);
        }
    }
    Ok(())
}

pub fn asynchronous(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let peers = context.all_peers(Flush::Async)?;
    section.rows = context.measure(&peers, &context.shapes(&[(1, 1), (64, 1), (4, 256)]))?;
    for (label, goal) in [("1 × 1", 1.2), ("64 × 1", 3.0), ("4 × 256", 10.0)] {
        section.at_least(&format!("ASYNC_FLUSH, {label}, messages/s"), label, "java", goal, Row::rate);
    }
    Ok(())
}

pub fn open(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let peers = context.all_peers(Flush::Sync)?;
    let load = LoadArgs { rate: Some(OPEN_RATE), ..context.load() };
    let label = load.label();
    section.rows = context.measure(&peers, &[load])?;
    section.at_most("open loop 10,000/s SYNC_FLUSH, p50", &label, "java", 0.25, Row::sent_p50);
    section.at_most("open loop 10,000/s SYNC_FLUSH, p99.9", &label, "null", 1.3, Row::sent_p999);
    drop(peers);
    let Some((row, p999)) = section.row("ringmq", &label).and_then(|row| Some((row, row.sent_p999()?)))
    else {
        return Ok(());
    };
    let (message, time) =
        (row.record_len.unwrap_or(row.report.load.size), Duration::from_secs_f64(context.args.seconds));
    let device = Probe::new(&context.dir("probe")?)?.scheduled_writes(OPEN_RATE, message, time)?;
    let measured = format!(
        "{} × ({p999:.0} against {:.0} µs; p50 {:.0}, p99 {:.0}, max {:.0})",
        show(p999 / device.p999),
        device.p999,
        device.p50,
        device.p99,
        device.max
    );
    section.figure("the same ÷ group commits of a bare loop, on the same schedule", "stated", measured, None);
    Ok(())
}

pub fn sizes(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let load = |size: usize, connections, in_flight| LoadArgs {
        size,
        connections,
        in_flight,
        topic: format!("Size{size}"),
        ..context.load()
    };
    let loads = [load(128, 4, 256), load(16 << 10, 4, 64), load(64 << 10, 4, 32), load(1 << 20, 4, 4)];
    let mut peers = context.all_peers(Flush::Sync)?;
    peers.push(Rc::new(context.ringmq_at_limit(Flush::Sync)?));
    section.rows = context.measure(&peers, &loads)?;
    drop(peers);
    let of_load = |load: &LoadArgs| ["ringmq", RINGMQ_AT_LIMIT].map(|peer| section.row(peer, &load.label()));
    let rows: Vec<Row> = loads[1..].iter().flat_map(of_load).flatten().cloned().collect();
    against_device(section, &Probe::new(&context.dir("probe")?)?, &rows)
}

/// Adds a table of `rows` beside what the device writes at their commit sizes, and their figures.
fn against_device(section: &mut Section, probe: &Probe, rows: &[Row]) -> anyhow::Result<()> {
    let mut limits = vec![Vec::new(); rows.len()];
    // All of them once, then all again: the device's own rate drifts, and two probes in a row would drift alike.
    for _ in 0..PROBES {
        for (row, limits) in rows.iter().zip(&mut limits) {
            limits.push(probe.sync_writes(commit_block(row), PROBE_TIME)?);
        }
    }
    let beside = |(row, limits): (&Row, &Vec<DeviceRate>)| beside_device(section, row, limits);
    let table = rows.iter().zip(&limits).map(beside).collect();
    let head = [
        "server",
        "load",
        "RingMQ MiB/s",
        "bytes a commit",
        "device MiB/s at that size (each probe)",
        "ratio",
        "measured by",
    ];
    section.table("RingMQ against the device", &head, table);
    Ok(())
}

/// Bytes of an average group commit.
fn commit_len(row: &Row) -> f64 {
    row.commit_bytes().unwrap_or(256.0 * 1024.0)
}

/// The block that the device is probed with for `row`.
fn commit_block(row: &Row) -> usize {
    (commit_len(row) as usize).next_multiple_of(4096).clamp(4096, 8 << 20)
}

/// A row of the table; adds the figure of `row`, with a goal where there is one for messages of that size.
fn beside_device(section: &mut Section, row: &Row, limits: &[DeviceRate]) -> Vec<String> {
    let rates = || limits.iter().map(|limit| limit.bytes_per_second / MIB);
    let device = rates().sum::<f64>() / limits.len() as f64;
    let ours = row.report.sent.as_ref().map_or(0.0, |sent| sent.bytes_rate()) / MIB;
    let (ratio, load) = (ours / device, &row.report.load);
    let (peer, label) = (&row.peer, load.label());
    let what = format!("SYNC_FLUSH at saturation, {peer}, {label}: bytes/s ÷ device at that commit size");
    let measured = format!("{} ({ours:.0} against {device:.0} MiB/s)", show(ratio));
    let (goal, reached) =
        if load.size < 1 << 20 { ("≥ 0.8", Some(ratio >= 0.8)) } else { ("stated", None) };
    section.figure(&what, goal, measured, reached);
    let each: Vec<String> = rates().map(|rate| format!("{rate:.0}")).collect();
    vec![
        peer.clone(),
        label,
        format!("{ours:.0}"),
        format!("{:.0} KiB", commit_len(row) / 1024.0),
        format!("{device:.0} ({})", each.join(", ")),
        format!("{ratio:.2}"),
        limits.first().map_or(String::new(), |limit| limit.what.clone()),
    ]
}

pub fn batches(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let load = |size: usize, batch| LoadArgs {
        size,
        batch,
        connections: 8,
        in_flight: 4,
        topic: format!("Batch{size}x{batch}"),
        ..context.load()
    };
    let peers = context.all_peers(Flush::Sync)?;
    section.rows = context.measure(&peers, &[load(128, 32), load(1024, 32), load(1024, 256)])?;
    Ok(())
}
