//! How the Java broker is started: the configuration that docs/performance.md names.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::Flush;

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

/// The commands of the name server and of the broker, with their configuration files written to `dir`.
pub fn commands(
    lib: &Path,
    dir: &Path,
    flush: Flush,
    port: u16,
    namesrv_port: u16,
) -> anyhow::Result<[Command; 2]> {
    let classpath = format!("{}/*", lib.canonicalize().context("the directory of jars")?.display());
    std::fs::write(dir.join("namesrv.conf"), format!("listenPort={namesrv_port}\n"))?;
    std::fs::write(dir.join("broker.conf"), broker_config(dir, port, namesrv_port, flush))?;
    let java = |flags: &[&str], class: &str, config: &str| {
        let mut command = Command::new("java");
        command.env("ROCKETMQ_HOME", dir).args(flags).arg(format!("-Duser.home={}", dir.display()));
        command.args(["-cp", &classpath, class, "-c"]).arg(dir.join(config));
        command
    };
    Ok([
        java(&["-Xmx512m"], "org.apache.rocketmq.namesrv.NamesrvStartup", "namesrv.conf"),
        java(JAVA_FLAGS, "org.apache.rocketmq.broker.BrokerStartup", "broker.conf"),
    ])
}

/// The broker's configuration: the defaults, apart from where it is and when it flushes.
pub fn broker_config(dir: &Path, port: u16, namesrv_port: u16, flush: Flush) -> String {
    let store = dir.join("store");
    format!(
        "brokerClusterName=DefaultCluster\nbrokerName=broker-a\nbrokerId=0\nbrokerIP1=127.0.0.1\nlistenPort={port}\n\
         namesrvAddr=127.0.0.1:{namesrv_port}\nbrokerRole=ASYNC_MASTER\nflushDiskType={}\n\
         storePathRootDir={}\nstorePathCommitLog={}\nautoCreateTopicEnable=true\n",
        flush.java_name(),
        store.display(),
        store.join("commitlog").display()
    )
}
