//! Sections about consumers that are served from memory.

use crate::compare::{Context, Row, Section};
use crate::load::{self, LoadArgs};
use crate::peers::{Flush, Peer};

const PUSH_RATE: f64 = 1000.0;
/// Messages that are there to pull: they fit the memory of every broker.
const PULL_SECONDS: f64 = 1.0;

pub fn pull(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let peers = context.all_peers(Flush::Async)?;
    for peer in peers.iter().filter(|peer| peer.name != "null") {
        fill(peer)?;
    }
    let load = |readers| LoadArgs { connections: 0, readers, ..context.load() };
    let loads = [load(1), load(4)];
    section.rows = context.measure(&peers, &loads)?;
    let label = loads[1].label();
    section.at_least("pull of everything, hot, messages/s", &label, "java", 3.0, Row::rate);
    let what = "pull of everything, hot, broker CPU a message, kernel workers included";
    section.at_most(what, &label, "java", 0.25, Row::cpu);
    Ok(())
}

/// Sends messages to pull: as many as go into a second, at most what fits the hot tail of the smallest default.
fn fill(peer: &Peer) -> anyhow::Result<()> {
    let fill = LoadArgs {
        rate: Some(40_000.0),
        connections: 8,
        warm_up: 0.0,
        seconds: PULL_SECONDS,
        ..LoadArgs::default()
    };
    eprintln!("fill {} {}", peer.name, load::run(peer.addr, None, &fill)?.line());
    Ok(())
}

pub fn push(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let peers = context.ringmq_and_java(Flush::Sync)?;
    let load = LoadArgs {
        rate: Some(PUSH_RATE),
        connections: 8,
        tail: 1,
        seconds: 2.0 * context.args.seconds,
        ..context.load()
    };
    let label = load.label();
    section.rows = context.measure(&peers, &[load])?;
    section.at_most("push end to end, 1,000/s SYNC_FLUSH, p50", &label, "java", 0.5, Row::delivered_p50);
    section.at_most("push end to end, 1,000/s SYNC_FLUSH, p99.9", &label, "java", 0.2, Row::delivered_p999);
    Ok(())
}
