//! Starts and stops the brokers that are compared: RingMQ, the Java broker, and the null server.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Flags of the Java distribution's own start script, with a heap for a small machine.
const JAVA_FLAGS: &[&str] = &[
    "-server",
    "-Xms4g",
    "-Xmx4g",
    "-XX:+UseG1GC",
    "-XX:G1HeapRegionSize=16m",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:SoftRefLRUPolicyMSPerMB=0",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:+AlwaysPreTouch",
    "-XX:MaxDirectMemorySize=15g",
];

/// A running broker; killed when dropped.
pub struct Peer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// From the start of its process until it accepted a connection.
    pub ready_after: Duration,
    processes: Vec<Child>,
}

impl Peer {
    /// The broker's process.
    pub fn pid(&self) -> u32 {
        self.processes.last().map_or(0, Child::id)
    }

    /// RingMQ's own binary as `ringmq server`.
    pub fn ringmq(binary: &Path, dir: &Path, flush: &str, extra: &[String]) -> anyhow::Result<Peer> {
        let (port, namesrv_port) = (free_port()?, free_port()?);
        let mut command = Command::new(binary);
        command.arg("server").arg("--data").arg(dir.join("data")).args(["--flush", flush]);
        command.args(["--port", &port.to_string(), "--namesrv-port", &namesrv_port.to_string()]).args(extra);
        Peer::start(vec![logged(command, dir, "ringmq")?], port)
    }

    /// The Java broker and its name server from a directory of jars.
    pub fn java(lib: &Path, dir: &Path, flush: &str) -> anyhow::Result<Peer> {
        let (port, namesrv_port) = (free_port()?, free_port()?);
        let classpath = format!("{}/*", lib.canonicalize().context("the directory of jars")?.display());
        std::fs::write(dir.join("namesrv.conf"), format!("listenPort={namesrv_port}\n"))?;
        std::fs::write(dir.join("broker.conf"), java_config(dir, port, namesrv_port, flush))?;
        let java = |flags: &[&str], class: &str, config: &str| {
            let mut command = Command::new("java");
            command.env("ROCKETMQ_HOME", dir).args(flags).arg(format!("-Duser.home={}", dir.display()));
            command.args(["-cp", &classpath, class, "-c"]).arg(dir.join(config));
            command
        };
        let namesrv = java(&["-Xmx512m"], "org.apache.rocketmq.namesrv.NamesrvStartup", "namesrv.conf");
        let broker = java(JAVA_FLAGS, "org.apache.rocketmq.broker.BrokerStartup", "broker.conf");
        Peer::start(vec![logged(namesrv, dir, "namesrv")?, logged(broker, dir, "broker")?], port)
    }

    /// This program's own null server.
    pub fn null(dir: &Path) -> anyhow::Result<Peer> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["null", "--listen", &format!("127.0.0.1:{port}")]);
        Peer::start(vec![logged(command, dir, "null")?], port)
    }

    fn start(commands: Vec<Command>, port: u16) -> anyhow::Result<Peer> {
        let started = Instant::now();
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut peer = Peer { addr, ready_after: Duration::ZERO, processes: Vec::new() };
        for mut command in commands {
            peer.processes.push(command.spawn().with_context(|| format!("starting {command:?}"))?);
        }
        while TcpStream::connect(addr).is_err() {
            if started.elapsed() > Duration::from_secs(90) {
                bail!("nothing listens on {addr} after 90 s");
            }
            if let Some(status) = peer.processes.last_mut().and_then(|child| child.try_wait().transpose()) {
                bail!("the broker ended at once: {}", status?);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.ready_after = started.elapsed();
        Ok(peer)
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

fn java_config(dir: &Path, port: u16, namesrv_port: u16, flush: &str) -> String {
    let store = dir.join("store");
    let flush = if flush == "sync" { "SYNC_FLUSH" } else { "ASYNC_FLUSH" };
    format!(
        "brokerClusterName=DefaultCluster\nbrokerName=broker-a\nbrokerId=0\nbrokerIP1=127.0.0.1\nlistenPort={port}\n\
         namesrvAddr=127.0.0.1:{namesrv_port}\nbrokerRole=ASYNC_MASTER\nflushDiskType={flush}\n\
         storePathRootDir={}\nstorePathCommitLog={}\nautoCreateTopicEnable=true\n",
        store.display(),
        store.join("commitlog").display()
    )
}

fn logged(mut command: Command, dir: &Path, name: &str) -> anyhow::Result<Command> {
    let path: PathBuf = dir.join(format!("{name}.out"));
    let log = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn free_port() -> anyhow::Result<u16> {
    // Two below it stays free as well: the VIP port.
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
