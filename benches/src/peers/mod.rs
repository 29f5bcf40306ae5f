//! Starts and stops the brokers that are compared: RingMQ, the Java broker, rocketmq-rust's, and the null server.

mod java;

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::load::Connection;
use crate::process::Meter;
use crate::wire::{SUCCESS, SendShape, SendTemplate};

/// Ports that are looked at for a broker.
const PORT_TRIES: usize = 100;
/// Longest wait for a broker's first acknowledgement.
const START_LIMIT: Duration = Duration::from_secs(110);

/// When a send is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flush {
    /// SYNC_FLUSH: once it is on the device.
    Sync,
    /// ASYNC_FLUSH: once it is written.
    Async,
}

impl Flush {
    /// RocketMQ's name for it.
    pub fn java_name(self) -> &'static str {
        match self {
            Flush::Sync => "SYNC_FLUSH",
            Flush::Async => "ASYNC_FLUSH",
        }
    }

    fn ringmq_name(self) -> &'static str {
        match self {
            Flush::Sync => "sync",
            Flush::Async => "async",
        }
    }
}

/// A running broker with the processes that it needs; killed (SIGKILL) when dropped.
pub struct Peer {
    /// What tables call it.
    pub name: &'static str,
    /// Where it listens.
    pub addr: SocketAddr,
    /// From the start of its process until it acknowledged a first send.
    pub ready_after: Duration,
    dir: PathBuf,
    /// Where its metrics are, if it has any that this program understands.
    metrics: Option<SocketAddr>,
    processes: Vec<Child>,
}

impl Peer {
    /// The broker's process.
    pub fn pid(&self) -> u32 {
        self.processes.last().map_or(0, Child::id)
    }

    /// Reads what the broker costs.
    pub fn meter(&self) -> Meter {
        Meter::new(self.pid(), Some(&self.dir)).with_metrics(self.metrics)
    }

    /// Where its store and its logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// RingMQ's own binary as `ringmq server`.
    pub fn ringmq(binary: &Path, dir: &Path, flush: Flush, extra: &[String]) -> anyhow::Result<Peer> {
        let (port, namesrv_port, metrics_port) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(binary);
        command.arg("server").arg("--data").arg(dir.join("data")).args(["--flush", flush.ringmq_name()]);
        command.args(["--port", &port.to_string(), "--namesrv-port", &namesrv_port.to_string()]);
        command.args(["--metrics-port", &metrics_port.to_string()]).args(extra);
        let mut peer = Peer::start("ringmq", dir, vec![logged(command, dir, "ringmq")?], port)?;
        peer.metrics = Some(SocketAddr::from(([127, 0, 0, 1], metrics_port)));
        Ok(peer)
    }

    /// The Java broker and its name server from a directory of jars.
    pub fn java(lib: &Path, dir: &Path, flush: Flush) -> anyhow::Result<Peer> {
        let (port, namesrv_port) = (free_port()?, free_port()?);
        let [namesrv, broker] = java::commands(lib, dir, flush, port, namesrv_port)?;
        Peer::start("java", dir, vec![logged(namesrv, dir, "namesrv")?, logged(broker, dir, "broker")?], port)
    }

    /// rocketmq-rust's broker, with the Java broker's configuration; it does not run without a name server, which is
    /// `ringmq`'s.
    pub fn rocketmq_rust(ringmq: &Path, broker: &Path, dir: &Path, flush: Flush) -> anyhow::Result<Peer> {
        let (port, namesrv_port) = (free_port()?, free_port()?);
        let config = dir.join("broker.conf");
        std::fs::write(&config, java::broker_config(dir, port, namesrv_port, flush))?;
        let mut namesrv = Command::new(ringmq);
        namesrv.arg("namesrv").arg("--data").arg(dir.join("namesrv"));
        namesrv.args(["--namesrv-port", &namesrv_port.to_string()]);
        let mut namesrv = logged(namesrv, dir, "namesrv")?.spawn().context("starting a name server")?;
        let listening = wait_for(|| TcpStream::connect(("127.0.0.1", namesrv_port)).is_ok());
        let mut command = Command::new(broker);
        command.env("ROCKETMQ_HOME", dir).env("HOME", dir).arg("-c").arg(config);
        let commands = logged(command, dir, "broker").map(|command| vec![command]);
        let started = listening.and(commands).and_then(|c| Peer::start("rocketmq-rust", dir, c, port));
        match started {
            Ok(mut peer) => {
                peer.processes.insert(0, namesrv);
                Ok(peer)
            }
            Err(error) => {
                namesrv.kill()?;
                namesrv.wait()?;
                Err(error)
            }
        }
    }

    /// This program's own null server. `prefix`: arguments before its subcommands.
    pub fn null(prefix: &[OsString], dir: &Path) -> anyhow::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(prefix).args(["null", "--listen", &format!("127.0.0.1:{port}")]);
        Peer::start("null", dir, vec![logged(command, dir, "null")?], port)
    }

    fn start(name: &'static str, dir: &Path, commands: Vec<Command>, port: u16) -> anyhow::Result<Peer> {
        let started = Instant::now();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let dir = dir.to_owned();
        let mut peer =
            Peer { name, addr, ready_after: Duration::ZERO, dir, metrics: None, processes: Vec::new() };
        for mut command in commands {
            peer.processes.push(command.spawn().with_context(|| format!("starting {command:?}"))?);
        }
        while !acknowledges(addr) {
            if started.elapsed() > START_LIMIT {
                bail!("{name} acknowledged nothing on {addr} for {START_LIMIT:?}");
            }
            if let Some(status) = peer.processes.last_mut().and_then(|child| child.try_wait().transpose()) {
                bail!("{name} ended at once, {}: see {}", status?, peer.dir.display());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.ready_after = started.elapsed();
        Ok(peer)
    }

    /// Stops its processes' time while another broker is measured.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the broker to stop, and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        if let Some(mut broker) = self.processes.pop() {
            broker.wait()?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        for child in &self.processes {
            // A process that is gone needs no signal.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().rev() {
            // Already gone is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(done: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !done() {
        anyhow::ensure!(started.elapsed() < START_LIMIT, "it did not come up for {START_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether a send to the broker is acknowledged now.
fn acknowledges(addr: SocketAddr) -> bool {
    if TcpStream::connect(addr).is_err() {
        return false;
    }
    let mut request = Vec::new();
    let shape = SendShape { topic: "ReadyTopic", topics: 1, body_len: 16, batch: 1 };
    SendTemplate::new(&shape).write(0, 0, 0, 0, 0, &mut request);
    Connection::ask(addr, &request, |answer| Ok(answer.code == SUCCESS)).unwrap_or(false)
}

fn logged(mut command: Command, dir: &Path, name: &str) -> anyhow::Result<Command> {
    let path: PathBuf = dir.join(format!("{name}.out"));
    let log = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// A port that is free, as are the two that Java's broker opens beside it: two below it for VIPs, and the next for slaves.
fn free_port() -> anyhow::Result<u16> {
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port));
    for _ in 0..PORT_TRIES {
        let port = bind(0)?.local_addr()?.port();
        if port > 2 && port < u16::MAX && bind(port - 2).is_ok() && bind(port + 1).is_ok() {
            return Ok(port);
        }
    }
    bail!("found no free port with free ones beside it")
}
