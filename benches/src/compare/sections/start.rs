//! How long a broker takes to its first acknowledgement.

use std::time::Duration;

use super::large::fill;
use crate::compare::{Context, Section};
use crate::peers::{Flush, Peer};

/// What RocketMQ's own figure was taken with.
const SMALL_GIB: f64 = 1.6e9 / (1_u64 << 30) as f64;
const EMPTY_STARTS: usize = 5;

pub fn start(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let mut table = Vec::new();
    let empty = empty_start(context)?;
    table.push(vec!["ringmq".into(), "empty store".into(), ms(empty)]);
    section.figure("start on an empty store", "≤ 100 ms", ms(empty), Some(empty.as_millis() <= 100));
    for gib in [SMALL_GIB, context.args.gib] {
        let took = after_kill(context, gib)?;
        let what = format!("{gib:.1} GiB of messages, after kill -9");
        let figure = format!("start {what}");
        section.figure(&figure, "≤ 1 s", ms(took), Some(took.as_secs_f64() <= 1.0));
        table.push(vec!["ringmq".into(), what, ms(took)]);
        context.clean()?;
    }
    told(section, table);
    Ok(())
}

pub fn java(context: &Context, section: &mut Section) -> anyhow::Result<()> {
    let Some(java) = context.java_in(None, Flush::Async)? else { return Ok(()) };
    let mut table = vec![vec!["java".into(), "empty store".into(), ms(java.ready_after)]];
    fill(&java, "LargeTopic", SMALL_GIB)?;
    let dir = java.dir().to_owned();
    drop(java);
    if let Some(java) = context.java_in(Some(&dir), Flush::Async)? {
        let what = format!("{SMALL_GIB:.1} GiB of messages, after kill -9");
        table.push(vec!["java".into(), what, ms(java.ready_after)]);
    }
    told(section, table);
    Ok(())
}

fn told(section: &mut Section, table: Vec<Vec<String>>) {
    "from the start of the process to the first acknowledged send".clone_into(&mut section.how);
    section.table("Time to the first acknowledged send", &["broker", "store", "time"], table);
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// The median of several starts.
fn empty_start(context: &Context) -> anyhow::Result<Duration> {
    let starts = (0..EMPTY_STARTS).map(|_| Ok(context.ringmq(Flush::Sync, &[])?.ready_after));
    let mut starts = starts.collect::<anyhow::Result<Vec<_>>>()?;
    starts.sort_unstable();
    Ok(starts[EMPTY_STARTS / 2])
}

/// Fills a store, kills the broker in the middle of more, and starts it again.
fn after_kill(context: &Context, gib: f64) -> anyhow::Result<Duration> {
    let dir = context.dir("ringmq")?;
    let peer = context.ringmq_in(&dir, Flush::Sync, &[])?;
    fill(&peer, "LargeTopic", gib)?;
    kill_while_loaded(peer);
    Ok(context.ringmq_in(&dir, Flush::Sync, &[])?.ready_after)
}

/// Dropping a peer kills it; a load runs into that.
fn kill_while_loaded(peer: Peer) {
    let addr = peer.addr;
    let load = crate::load::LoadArgs { topic: "LargeTopic".to_owned(), seconds: 3.0, ..Default::default() };
    let loader = std::thread::spawn(move || crate::load::run(addr, None, &load).is_err());
    std::thread::sleep(Duration::from_millis(500));
    drop(peer);
    let cut_off = loader.join();
    eprintln!("killed under load: {}", cut_off.unwrap_or(false));
}
