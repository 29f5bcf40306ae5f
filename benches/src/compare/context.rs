//! What the sections share: the arguments, and how brokers are started and measured in turn.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, ensure};

use super::section::{Row, record_len};
use super::{CompareArgs, Run};
use crate::load::{self, LoadArgs, Report};
use crate::peers::{Flush, Peer};
use crate::report;

/// What tables call RingMQ with a log that is as long as it may be.
pub const RINGMQ_AT_LIMIT: &str = "ringmq at its limit";
/// That limit, ...
const AT_LIMIT: &str = "512MiB";
/// ... and bytes after which it has used files again: the limit, the first segments, which are shorter, and four more.
const FILL: u64 = 1300 << 20;

/// Connections and requests in flight on each.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub in_flight: usize,
}

impl std::str::FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Shape> {
        let (connections, in_flight) = text.split_once('x').context("a load is CONNECTIONSxINFLIGHT")?;
        Ok(Shape { connections: connections.parse()?, in_flight: in_flight.parse()? })
    }
}

/// A comparison that runs.
pub struct Context {
    /// What was asked for.
    pub args: CompareArgs,
    /// The number of this run among those whose sections are in the results' directory.
    pub run: u32,
    ringmq: PathBuf,
    prefix: Vec<OsString>,
    started: Cell<u32>,
    /// The Java broker, warmed up, that the sections of one flush mode share.
    java: RefCell<Option<(Flush, Rc<Peer>)>>,
}

impl Context {
    /// Finds RingMQ's binary, makes the directories, and describes the run beside its results.
    pub fn new(args: &CompareArgs, prefix: &[OsString]) -> anyhow::Result<Context> {
        let ringmq = match &args.ringmq {
            Some(path) => path.clone(),
            None if !prefix.is_empty() => std::env::current_exe()?,
            None => build_ringmq()?,
        };
        ensure!(ringmq.is_file(), "{} is no file: name RingMQ's binary with --ringmq", ringmq.display());
        std::fs::create_dir_all(&args.results)?;
        let (args, prefix) = (args.clone(), prefix.to_vec());
        let (started, java) = (Cell::new(0), RefCell::default());
        let mut context = Context { args, run: 0, ringmq, prefix, started, java };
        context.clean()?;
        let args = &context.args;
        context.run = report::save_run(&args.results, Run::of(&context.ringmq, &args.dir))?;
        Ok(context)
    }

    /// A directory of its own for another broker, or for a probe.
    pub fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let number = self.started.replace(self.started.get() + 1);
        let dir = self.args.dir.join(format!("{number}-{name}"));
        std::fs::create_dir_all(&dir)?;
        Ok(dir.canonicalize()?)
    }

    /// Removes what the brokers of the last section stored, except one that sections share.
    pub fn clean(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.args.dir)?;
        let shared = self.java.borrow().as_ref().map(|(_, peer)| peer.dir().to_owned());
        for entry in std::fs::read_dir(self.args.dir.canonicalize()?)? {
            let path = entry?.path();
            if Some(&path) != shared.as_ref() {
                std::fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Ends the shared broker and removes the run's directory.
    pub fn remove(&self) -> anyhow::Result<()> {
        self.java.take();
        std::fs::remove_dir_all(&self.args.dir).context("removing the run's directory")
    }

    /// Stops the time of the shared broker while a section does without it.
    pub fn rest(&self) {
        if let Some((_, peer)) = &*self.java.borrow() {
            peer.pause();
        }
    }

    /// RingMQ on an empty store.
    pub fn ringmq(&self, flush: Flush, extra: &[&str]) -> anyhow::Result<Peer> {
        self.ringmq_in(&self.dir("ringmq")?, flush, extra)
    }

    /// RingMQ with a log that is as long as it may be, so that each new segment is the file of one that has expired.
    pub fn ringmq_at_limit(&self, flush: Flush) -> anyhow::Result<Peer> {
        let mut peer = self.ringmq(flush, &["--shards", "1", "--retention-size", AT_LIMIT])?;
        peer.name = RINGMQ_AT_LIMIT;
        let (size, topic) = (64 << 10, "Fill".to_owned());
        let load =
            LoadArgs { size, connections: 4, in_flight: 32, seconds: 1.0, topic, ..LoadArgs::default() };
        let mut sent = 0;
        while sent < FILL {
            sent += load::run(peer.addr, None, &load)?.sent.map_or(0, |sent| sent.bytes);
        }
        Ok(peer)
    }

    /// RingMQ on the store in `dir`.
    pub fn ringmq_in(&self, dir: &Path, flush: Flush, extra: &[&str]) -> anyhow::Result<Peer> {
        let mut arguments = self.args.ringmq_args.clone();
        arguments.extend(extra.iter().map(|argument| (*argument).to_owned()));
        Peer::ringmq(&self.ringmq, dir, flush, &arguments)
    }

    /// The Java broker, warmed up; `None` without its jars.
    pub fn java(&self, flush: Flush) -> anyhow::Result<Option<Rc<Peer>>> {
        let mut shared = self.java.borrow_mut();
        if let Some((_, peer)) = shared.as_ref().filter(|(of, _)| *of == flush) {
            peer.resume();
            return Ok(Some(peer.clone()));
        }
        *shared = None;
        let Some(peer) = self.java_in(None, flush)? else { return Ok(None) };
        let warm_up = LoadArgs {
            connections: 8,
            in_flight: 32,
            tail: 1,
            topic: "WarmUpTopic".to_owned(),
            seconds: self.args.java_warm_up,
            ..LoadArgs::default()
        };
        eprintln!("warm-up  {}", load::run(peer.addr, None, &warm_up)?.line());
        let peer = Rc::new(peer);
        *shared = Some((flush, peer.clone()));
        Ok(Some(peer))
    }

    /// The Java broker as it starts, on the store in `dir`, or an empty one.
    pub fn java_in(&self, dir: Option<&Path>, flush: Flush) -> anyhow::Result<Option<Peer>> {
        let Some(lib) = &self.args.java_lib else { return Ok(None) };
        let dir = dir.map_or_else(|| self.dir("java"), |dir| Ok(dir.to_owned()))?;
        Peer::java(lib, &dir, flush).map(Some)
    }

    /// rocketmq-rust's broker, if its binary was named.
    pub fn rocketmq_rust(&self, flush: Flush) -> anyhow::Result<Option<Rc<Peer>>> {
        let Some(broker) = &self.args.rust_broker else { return Ok(None) };
        let peer = Peer::rocketmq_rust(&self.ringmq, broker, &self.dir("rocketmq-rust")?, flush)?;
        Ok(Some(Rc::new(peer)))
    }

    /// The server that stores nothing.
    pub fn null(&self) -> anyhow::Result<Peer> {
        Peer::null(&self.prefix, &self.dir("null")?)
    }

    /// RingMQ, Java (where it is to be had) and the null server.
    pub fn all_peers(&self, flush: Flush) -> anyhow::Result<Vec<Rc<Peer>>> {
        let mut peers = self.ringmq_and_java(flush)?;
        peers.push(Rc::new(self.null()?));
        Ok(peers)
    }

    /// RingMQ, and Java where it is to be had.
    pub fn ringmq_and_java(&self, flush: Flush) -> anyhow::Result<Vec<Rc<Peer>>> {
        let mut peers = vec![Rc::new(self.ringmq(flush, &[])?)];
        peers.extend(self.java(flush)?);
        Ok(peers)
    }

    /// The shapes given with `--loads`, else these.
    pub fn shapes(&self, default: &[(usize, usize)]) -> Vec<LoadArgs> {
        let shapes = if self.args.loads.is_empty() {
            default.iter().map(|&(connections, in_flight)| Shape { connections, in_flight }).collect()
        } else {
            self.args.loads.clone()
        };
        let load = |shape: Shape| LoadArgs {
            connections: shape.connections,
            in_flight: shape.in_flight,
            ..self.load()
        };
        shapes.into_iter().map(load).collect()
    }

    /// A load of the run's length.
    pub fn load(&self) -> LoadArgs {
        LoadArgs { seconds: self.args.seconds, ..LoadArgs::default() }
    }

    /// Runs every load against every peer, in turn, as many rounds as asked for; the other peers rest meanwhile.
    pub fn measure(&self, peers: &[Rc<Peer>], loads: &[LoadArgs]) -> anyhow::Result<Vec<Row>> {
        let mut reports: Vec<Vec<(Option<usize>, Vec<Report>)>> =
            vec![vec![(None, Vec::new()); peers.len()]; loads.len()];
        for round in 0..self.args.rounds {
            for (load, reports) in loads.iter().zip(&mut reports) {
                for (at, peer) in peers.iter().enumerate() {
                    peers.iter().filter(|other| other.name != peer.name).for_each(|other| other.pause());
                    peer.resume();
                    let report = load::run(peer.addr, Some(&peer.meter()), load)
                        .with_context(|| format!("{} with {}", peer.name, load.label()))?;
                    eprintln!("{round} {:<7} {}", peer.name, report.line());
                    let (len, of_peer) = &mut reports[at];
                    *len = record_len(peer, &report)?;
                    of_peer.push(report);
                }
            }
        }
        peers.iter().for_each(|peer| peer.resume());
        let rows = reports.into_iter().flat_map(|of_load| {
            of_load.into_iter().zip(peers).map(|((len, reports), peer)| Row::median_of(peer, len, reports))
        });
        Ok(rows.collect())
    }
}

/// Builds the binary with the cargo that runs this program.
fn build_ringmq() -> anyhow::Result<PathBuf> {
    let target = std::env::current_exe()?.parent().context("a program has a directory")?.to_owned();
    if let Some(cargo) = std::env::var_os("CARGO") {
        let status = Command::new(cargo).args(["build", "--release", "-p", "ringmq"]).status()?;
        ensure!(status.success(), "cargo could not build ringmq");
    }
    Ok(target.join("ringmq"))
}
