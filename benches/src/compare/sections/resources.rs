//! Sections about what a broker takes: topics, memory, idle CPU, disk, cores.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::compare::section::show;
use crate::compare::{Context, Row, Section};
use crate::load::{self, Connection, LoadArgs};
use crate::peers::{Flush, Peer};
use crate::wire::{SUCCESS, json_number, runtime_info_request};

const MIB: f64 = (1 << 20) as f64;
const TOPICS: [usize; 4] = [1, 10, 10_000, 100_000];
/// Sends that are to reach every queue: their bodies, and how often they are tried, each time longer.
const TOUCH_BYTES: usize = 128;
const TOUCH_TRIES: i32 = 4;
/// What a broker needs to put away after a load.
const SETTLE_TIME: Duration = Duration::from_secs(2);
const IDLE_TIME: Duration = Duration::from_secs(30);
const SLOW_RATE: f64 = 10.0;
const SLOW_SECONDS: f64 = 20.0;

pub fn topics(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let peer = Rc::new(context.ringmq(Flush::Sync, &[])?);
    let load = |topics: usize| LoadArgs {
        connections: 8,
        in_flight: 32,
        topics,
        topic: format!("Of{topics}x"),
        ..context.load()
    };
    // Caches and pools take their memory with the first loads, not with the last topics.
    let mut resident = 0.0;
    for topics in TOPICS {
        if topics == TOPICS[3] {
            resident = peer.meter().resident() as f64;
        }
        section.rows.extend(context.measure(std::slice::from_ref(&peer), &[load(topics)])?);
    }
    let most = load(TOPICS[3]);
    let rate = section.row("ringmq", &most.label()).and_then(Row::rate).unwrap_or_default();
    idle_queue(section, &peer, &most, rate, resident)?;
    let at_ten = section.row("ringmq", &load(10).label()).and_then(Row::rate);
    for topics in TOPICS {
        let rate = section.row("ringmq", &load(topics).label()).and_then(Row::rate);
        if let Some((rate, at_ten)) = rate.zip(at_ten).filter(|_| topics != 10) {
            let ratio = rate / at_ten;
            let what = format!("8 × 32 to {topics} topics, messages/s ÷ at 10 topics");
            let measured = format!("{} ({rate:.0} against {at_ten:.0})", show(ratio));
            section.figure(&what, "≥ 0.9", measured, Some(ratio >= 0.9));
        }
    }
    Ok(())
}

/// What each queue of `load`'s topics takes, once there is a message in every one: growth from `resident` bytes on.
fn idle_queue(
    section: &mut Section,
    peer: &Peer,
    load: &LoadArgs,
    rate: f64,
    resident: f64,
) -> anyhow::Result<()> {
    let queues = load.topics as u64 * u64::from(load.queues);
    let (what, goal) = ("memory of an idle queue", "≤ 256 B");
    if !touch_every_queue(peer, load, rate)? {
        section.figure(what, goal, format!("not measured: not all of {queues} queues got a message"), None);
        return Ok(());
    }
    std::thread::sleep(SETTLE_TIME);
    let each = (peer.meter().resident() as f64 - resident) / queues as f64;
    let measured = format!("{each:.0} B (growth of resident memory over {queues} queues, a message in each)");
    section.figure(what, goal, measured, Some(each <= 256.0));
    Ok(())
}

/// Sends to the topics of `load`, about `rate` messages a second, until every queue has got a message. A load goes round
/// topics first and begins anew with each run, so that one run has to be long enough.
fn touch_every_queue(peer: &Peer, load: &LoadArgs, rate: f64) -> anyhow::Result<bool> {
    let queues = load.topics as u64 * u64::from(load.queues);
    // Acknowledgements may overtake each other: as many more as are in flight, and none of the first is missing.
    let wanted = queues + (load.connections * load.in_flight) as u64;
    for attempt in 0..TOUCH_TRIES {
        let seconds = 1.5 * wanted as f64 / rate.max(1000.0) * 2_f64.powi(attempt);
        let touch = LoadArgs { size: TOUCH_BYTES, warm_up: 0.0, seconds, ..load.clone() };
        let report = load::run(peer.addr, None, &touch)?;
        eprintln!("touch {}", report.line());
        if report.sent.is_some_and(|sent| sent.messages >= wanted && sent.errors.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub fn idle(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let mut peers = vec![context.ringmq(Flush::Sync, &[])?];
    peers.extend(context.java_in(None, Flush::Sync)?);
    let mut table = Vec::new();
    std::thread::sleep(SETTLE_TIME);
    for peer in &peers {
        peers.iter().filter(|other| other.name != peer.name).for_each(Peer::pause);
        peer.resume();
        let (percent, resident) = idle_cost(peer);
        table.push(vec![peer.name.into(), format!("{percent:.3} %"), format!("{resident:.1}")]);
        if peer.name == "ringmq" {
            let measured = format!("{percent:.3} % of a core");
            section.figure("idle CPU", "≤ 0.2 % of a core", measured, Some(percent <= 0.2));
            section.figure(
                "resident memory, idle",
                "≤ 32 MiB",
                format!("{resident:.1} MiB"),
                Some(resident <= 32.0),
            );
        }
    }
    drop(peers);
    let title = format!("Idle for {} s, on an empty store", IDLE_TIME.as_secs());
    section.table(&title, &["broker", "CPU of a core", "resident MiB"], table);
    let peer = Rc::new(context.ringmq(Flush::Sync, &["--memory", "256MiB"])?);
    let load = |connections: usize, readers: usize| LoadArgs {
        connections,
        in_flight: 256,
        readers,
        tail: 1,
        ..context.load()
    };
    section.rows = context.measure(std::slice::from_ref(&peer), &[load(4, 0), load(4, 2)])?;
    // What it takes between two readings counts as well.
    let most = peer.meter().most_resident() as f64 / MIB;
    let measured = format!("{most:.0} MiB");
    section.figure(
        "resident memory at full load, its peak, limit 256 MiB",
        "within the limit",
        measured,
        Some(most <= 256.0),
    );
    Ok(())
}

/// CPU in percent of a core, and resident MiB, of a broker that nobody talks to.
fn idle_cost(peer: &Peer) -> (f64, f64) {
    let meter = peer.meter();
    let (started, before) = (Instant::now(), meter.thread_times());
    std::thread::sleep(IDLE_TIME);
    let (cpu, time) = (meter.thread_times().since(&before), started.elapsed());
    (100.0 * cpu.as_secs_f64() / time.as_secs_f64(), meter.resident() as f64 / MIB)
}

/// What a broker says of its log: its end, and the bytes of records in it.
struct LogState {
    end: f64,
    records: f64,
}

fn log_state(peer: &Peer) -> anyhow::Result<LogState> {
    Connection::ask(peer.addr, &runtime_info_request(), |answer| {
        anyhow::ensure!(answer.code == SUCCESS, "no runtime information: {}", answer.remark());
        let number = |key: &str| json_number(answer.body, key);
        Ok(LogState { end: number("commitLogMaxOffset")?, records: number("putMessageSizeTotal")? })
    })
}

pub fn disk(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let mut table = Vec::new();
    let slow = LoadArgs {
        connections: 1,
        rate: Some(SLOW_RATE),
        warm_up: 0.0,
        seconds: SLOW_SECONDS,
        ..LoadArgs::default()
    };
    let full = LoadArgs { connections: 4, in_flight: 256, seconds: 8.0, ..LoadArgs::default() };
    for (what, load) in [("10 messages/s", slow), ("full rate, 4 × 256", full)] {
        let peer = context.ringmq(Flush::Sync, &[])?;
        let before = log_state(&peer)?;
        let report = load::run(peer.addr, Some(&peer.meter()), &load)?;
        // The broker tells its totals about once a second.
        std::thread::sleep(Duration::from_millis(1500));
        let after = log_state(&peer)?;
        let records = after.records - before.records;
        let ratio = (after.end - before.end) / records;
        let written = report.costs.as_ref().map_or(0.0, |costs| costs.written * costs.messages as f64);
        let dir = peer.dir().join("data");
        peer.stop()?;
        let (log, index) = (files(&dir, "/log/"), files(&dir, "/index/"));
        table.push(vec![
            what.to_owned(),
            format!("{:.2}", records / MIB),
            format!("{ratio:.3}"),
            format!("{:.1}", log / MIB),
            format!("{:.4}", index / after.records),
            format!("{:.2}", written / records),
        ]);
        let figure = format!("bytes of log ÷ bytes acknowledged, {what}");
        section.figure(&figure, "≤ 1.05", format!("{ratio:.3}"), Some(ratio <= 1.05));
        section.rows.push(Row::of(report));
    }
    let head = [
        "load",
        "MiB of records",
        "log used ÷ records",
        "MiB of log files (made ahead)",
        "index files ÷ records",
        "bytes written to the device ÷ records",
    ];
    section.table(
        "RingMQ, SYNC_FLUSH; the last column includes the zeroes of segments made ahead",
        &head,
        table,
    );
    "one run each on a store of its own".clone_into(&mut section.how);
    Ok(())
}

/// Bytes that files below `dir` take, of those whose path has `part`.
fn files(dir: &Path, part: &str) -> f64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0.0 };
    let size = |path: &Path| -> f64 {
        if path.is_dir() {
            return files(path, part);
        }
        let blocks = std::fs::metadata(path).map_or(0, |meta| std::os::unix::fs::MetadataExt::blocks(&meta));
        if path.to_string_lossy().contains(part) { blocks as f64 * 512.0 } else { 0.0 }
    };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}

pub fn cores(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let loads = context.shapes(&[(64, 1), (8, 32), (4, 256)]);
    let mut one = context.ringmq(Flush::Sync, &["--cores", "1"])?;
    one.name = "1 core";
    let mut two = context.ringmq(Flush::Sync, &["--cores", "2"])?;
    two.name = "2 cores";
    section.rows = context.measure(&[Rc::new(one), Rc::new(two)], &loads)?;
    for load in &loads {
        let of = |name: &str| section.row(name, &load.label()).and_then(Row::rate);
        if let (Some(one), Some(two)) = (of("1 core"), of("2 cores")) {
            let what = format!("{}: 2 shards ÷ 1, messages/s", load.label());
            let measured = format!("{} ({two:.0} against {one:.0})", show(two / one));
            section.figure(&what, "stated", measured, None);
        }
    }
    Ok(())
}
