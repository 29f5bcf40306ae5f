//! The broker's process: started, waited for, killed.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::wire::Client;

/// Longest that a start may take, recovery included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The lowest port tried. The kernel picks those of outgoing connections from higher ones: with a port from among
/// them, whoever connects to it while nobody listens may be connected to itself, and so keep the broker from it.
const FIRST_PORT: u16 = 20_000;

/// A port from `first` on that nobody has, nor the one two below it, which the broker takes as well.
fn free_port(first: u16) -> anyhow::Result<u16> {
    let is_free =
        |port: &u16| [*port, port - 2].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    (first..32_000).find(is_free).context("no port is free")
}

/// How the broker is run, the same in every round.
pub struct BrokerCommand {
    binary: PathBuf,
    dir: PathBuf,
    arguments: Vec<String>,
    /// A program that runs it, and that one's arguments.
    prefix: Vec<String>,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl BrokerCommand {
    /// `ringmq server` on free ports, with its store and its log under `dir`.
    pub fn new(
        binary: PathBuf,
        dir: PathBuf,
        flush: &str,
        extra: &[String],
    ) -> anyhow::Result<BrokerCommand> {
        // Several ordeals may run at a time.
        let broker_port = free_port(FIRST_PORT + std::process::id() as u16 % 1000 * 8)?;
        let namesrv_port = free_port(broker_port + 1)?;
        let mut arguments =
            vec!["server".to_owned(), "--data".to_owned(), dir.join("data").display().to_string()];
        arguments.extend([
            "--flush".to_owned(),
            flush.to_owned(),
            "--port".to_owned(),
            broker_port.to_string(),
        ]);
        arguments.extend(["--namesrv-port".to_owned(), namesrv_port.to_string()]);
        arguments.extend_from_slice(extra);
        let addr = SocketAddr::from(([127, 0, 0, 1], broker_port));
        Ok(BrokerCommand { binary, dir, arguments, prefix: Vec::new(), addr })
    }

    /// Runs the process through another program: `prefix` is that and its arguments.
    pub fn through(mut self, prefix: Vec<String>) -> BrokerCommand {
        self.prefix = prefix;
        self
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&self) -> anyhow::Result<Broker> {
        let log = OpenOptions::new().create(true).append(true).open(self.dir.join("broker.out"))?;
        let mut command = match self.prefix.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        command.args(&self.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Broker { child: command.spawn().with_context(|| format!("starting {}", self.binary.display()))? })
    }

    /// Starts the process and waits until it answers requests; returns how long that took. That it accepts
    /// connections is not enough: the kernel may still do so for its predecessor, for some milliseconds.
    pub fn start(&self) -> anyhow::Result<(Broker, Duration)> {
        let started = Instant::now();
        let mut broker = self.spawn()?;
        while !Client::connect(self.addr).is_ok_and(|mut client| client.is_answered()) {
            if let Some(status) = broker.child.try_wait()? {
                bail!("the broker ended by itself: {status}; see {}", self.dir.join("broker.out").display());
            }
            if started.elapsed() > START_LIMIT {
                bail!("the broker is not ready after {START_LIMIT:?}; its threads: {}", broker.threads());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((broker, started.elapsed()))
    }
}

/// A running broker; killed when dropped.
pub struct Broker {
    child: Child,
}

impl Broker {
    /// Resident memory in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS: the broker ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Each thread's name, state and where in the kernel it waits, io_uring's own threads included.
    fn threads(&self) -> String {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let describe = |task: std::fs::DirEntry| {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let (stat, wchan) = (read("stat"), read("wchan"));
            let (name, state) =
                stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")).unwrap_or_default();
            format!("{name} {} {wchan}", state.chars().next().unwrap_or('?'))
        };
        tasks.into_iter().flatten().flatten().map(describe).collect::<Vec<_>>().join(", ")
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(begun.elapsed() < limit, "the broker runs on after {limit:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// kill -9. Says so when the broker had already ended by itself.
    pub fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker ended by itself: {status}");
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
