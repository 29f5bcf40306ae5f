//! Runs a name server, a broker, or both, from start to end.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::exit;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::ArgMatches;
use ringmq_broker::{BrokerConfig, BrokerEvent, BrokerHandle, BrokerPlan, BrokerReady};
use ringmq_env::Env;
use ringmq_env::glommio::{CoreOptions, GlommioEnv, run_cores};
use ringmq_env::process::{LockFile, TerminationSignals, keep_freed_memory, preflight};
use ringmq_namesrv::{Namesrv, NamesrvConfig};
use ringmq_options::{Role, Settings};

use crate::preflight::{claim_directory, claim_port};
use crate::ready::{self, ReadyBroker};
use crate::{logging, machine, settings};

/// Exit status when the end was cut short.
const CUT_SHORT: i32 = 130;
/// A server that has not ended by then ends without having finished.
const LONGEST_END: Duration = Duration::from_secs(10);

/// Reads the settings, starts the log, and tells what is worth telling about them.
fn begin(role: Role, matches: &ArgMatches) -> anyhow::Result<Settings> {
    let settings = settings::read(role, matches)?;
    logging::start(settings.text("log-level"))?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    if let Some(bind) = settings.maybe_ip("bind").filter(|bind| !bind.is_loopback()) {
        tracing::warn!(%bind, "reachable from other machines: nobody is asked for a password until ACLs are on");
    }
    Ok(settings)
}

/// `ringmq namesrv`.
pub fn namesrv(matches: &ArgMatches, started: Instant) -> anyhow::Result<()> {
    let settings = begin(Role::Namesrv, matches)?;
    preflight(1)?;
    let signals = TerminationSignals::install().context("cannot install signal handlers")?;
    let namesrv = NamesrvPart::claim(settings)?;
    let data = namesrv.config.data.clone();
    let (tell, told) = sync_channel(1);
    let (lock, start) = namesrv.split();
    let options = CoreOptions::unpinned().keeping_open(vec![lock.descriptor()]);
    let cores = run_cores(1, &options, move |_, env| async move {
        let namesrv = Namesrv::start(env.clone(), start.config, start.settings).await;
        // The main thread waits for this.
        let _ = tell.send(namesrv.as_ref().map(Namesrv::local_addr).map_err(ToString::to_string));
        if let Ok(namesrv) = namesrv {
            until_signal(&env, &signals).await;
            namesrv.stop().await;
        }
    })?;
    let addr =
        told.recv().context("the name server ended before it was ready")?.map_err(anyhow::Error::msg)?;
    print_ready(&ready::block(Some(addr), None, &data, started.elapsed().as_millis()));
    cores.join();
    tracing::info!("stopped");
    Ok(())
}

/// `ringmq broker`.
pub fn broker(matches: &ArgMatches, started: Instant) -> anyhow::Result<()> {
    let settings = begin(Role::Broker, matches)?;
    run_broker(&settings, None, started)
}

/// `ringmq server`: a name server on core 0, and a broker that registers with it.
pub fn server(matches: &ArgMatches, started: Instant) -> anyhow::Result<()> {
    let settings = begin(Role::Server, matches)?;
    run_broker(&settings, Some(settings.clone()), started)
}

/// Runs a broker, with a name server beside it if there are settings for one.
fn run_broker(settings: &Settings, namesrv: Option<Settings>, started: Instant) -> anyhow::Result<()> {
    let cores = settings.maybe_integer("cores").map(|cores| cores as usize);
    let facts = preflight(cores.unwrap_or(1))?;
    let mut config = BrokerConfig::from_settings(settings, &machine::look(facts.cpus))?;
    preflight(config.cores)?;
    keep_freed_memory();
    let signals = TerminationSignals::install().context("cannot install signal handlers")?;
    let lock = claim_directory(&config.data)?;
    let ports: Vec<u16> = [Some(config.port), config.vip_port()].into_iter().flatten().collect();
    for port in &ports {
        claim_port(SocketAddr::new(config.bind, *port), "--port")?;
    }
    if let Some(port) = config.metrics_port {
        ensure!(
            port == 0 || !ports.contains(&port),
            "port {port} of --metrics-port is one of the broker's own: choose another"
        );
        claim_port(SocketAddr::new(config.bind, port), "--metrics-port")?;
    }
    let namesrv = namesrv.map(NamesrvPart::claim).transpose()?;
    if let Some(part) = &namesrv {
        let port = part.config.listen.port();
        // They would share it, each with a part of the other's clients.
        ensure!(
            !ports.contains(&port),
            "the broker listens on its port and on the one two below it, and port {port} is the name server's: \
             choose another port with --port or --namesrv-port"
        );
        config.namesrv.insert(0, local(part.config.listen).to_string());
    }
    let (namesrv_lock, start) = namesrv.map(NamesrvPart::split).unzip();
    let keep_open = namesrv_lock.iter().chain([&lock]).map(LockFile::descriptor).collect();
    let shown = config.clone();
    let (plan, handle) = ringmq_broker::plan(config, &settings.java_properties());
    let handle = Arc::new(handle);
    let (tell, told) = sync_channel(1);
    let leader = Leader { namesrv: start, tell, handle: Arc::clone(&handle), signals };
    let mut options = CoreOptions::default().keeping_open(keep_open);
    options.busy_wait = shown.busy_wait;
    let cores = run_cores(shown.cores, &options, move |core, env| async move {
        match core {
            0 => leader.run(plan, env).await,
            _ => ringmq_broker::run_core(plan, core, env).await,
        }
    })?;
    let namesrv =
        told.recv().context("core 0 ended before anything was ready")?.map_err(anyhow::Error::msg)?;
    follow(&handle, |broker| print_ready(&ready_block(&shown, namesrv, broker, started)))?;
    cores.join();
    tracing::info!("stopped");
    Ok(())
}

/// Follows a broker to its end.
fn follow(handle: &BrokerHandle, ready: impl Fn(&BrokerReady)) -> anyhow::Result<()> {
    for event in handle.events().iter() {
        match event {
            BrokerEvent::Ready(broker) => ready(&broker),
            BrokerEvent::Failed(reason) => return Err(anyhow!(reason)),
            BrokerEvent::Stopped => return Ok(()),
        }
    }
    Err(anyhow!("the broker ended without a word"))
}

fn ready_block(
    config: &BrokerConfig,
    namesrv: Option<SocketAddr>,
    ready: &BrokerReady,
    started: Instant,
) -> String {
    let broker = ReadyBroker { config, ready };
    ready::block(namesrv, Some(&broker), &config.data, started.elapsed().as_millis())
}

/// What core 0 does besides its share of the broker.
#[derive(Clone)]
struct Leader {
    namesrv: Option<NamesrvStart>,
    tell: SyncSender<Result<Option<SocketAddr>, String>>,
    handle: Arc<BrokerHandle>,
    signals: TerminationSignals,
}

impl Leader {
    /// The name server is there before the broker, which registers with it, and goes after it.
    async fn run(self, plan: BrokerPlan, env: GlommioEnv) {
        let Leader { namesrv, tell, handle, signals } = self;
        let namesrv = match namesrv {
            Some(start) => Some(Namesrv::start(env.clone(), start.config, start.settings).await),
            None => None,
        };
        let namesrv = namesrv.transpose();
        // The main thread waits for this, and ends the process if it is an error.
        let addr = namesrv.as_ref().map(|namesrv| namesrv.as_ref().map(Namesrv::local_addr));
        let _ = tell.send(addr.map_err(ToString::to_string));
        let Ok(namesrv) = namesrv else { return };
        let clock = env.clone();
        env.spawn(async move {
            until_signal(&clock, &signals).await;
            handle.stop();
        });
        ringmq_broker::run_core(plan, 0, env).await;
        if let Some(namesrv) = namesrv {
            namesrv.stop().await;
        }
    }
}

/// A name server whose directory and port are claimed.
struct NamesrvPart {
    config: NamesrvConfig,
    settings: Settings,
    lock: LockFile,
}

/// What a name server starts with.
#[derive(Clone)]
struct NamesrvStart {
    config: NamesrvConfig,
    settings: Settings,
}

impl NamesrvPart {
    fn claim(settings: Settings) -> anyhow::Result<NamesrvPart> {
        let mut config = NamesrvConfig::from_settings(&settings);
        let lock = claim_directory(&config.data)?;
        config.listen = claim_port(config.listen, "--namesrv-port")?;
        Ok(NamesrvPart { config, settings, lock })
    }

    fn split(self) -> (LockFile, NamesrvStart) {
        (self.lock, NamesrvStart { config: self.config, settings: self.settings })
    }
}

/// How this machine reaches what listens on `addr`.
fn local(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Waits until the process is asked to end. From then on a second request, or too long an end, ends it at once.
async fn until_signal(env: &GlommioEnv, signals: &TerminationSignals) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    let again = signals.clone();
    env.spawn(async move {
        let signal = again.next().await;
        tracing::warn!(signal, "asked twice: ending at once");
        exit(CUT_SHORT);
    });
    let clock = env.clone();
    env.spawn(async move {
        clock.sleep(LONGEST_END).await;
        tracing::error!("could not end in {} s: ending without having finished", LONGEST_END.as_secs());
        exit(CUT_SHORT);
    });
}

/// Stdout may be closed or full, which is no reason not to serve: it is told in the log.
fn print_ready(block: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(block.as_bytes()).and_then(|()| out.flush()) {
        tracing::warn!(%error, "the ready block could not be printed");
    }
}
