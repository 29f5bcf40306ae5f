//! Runs a name server, a broker, or both, from start to end.

use std::io::Write;
use std::process::exit;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ArgMatches;
use ringmq_env::Env;
use ringmq_env::glommio::{CoreOptions, run_cores};
use ringmq_env::process::{TerminationSignals, preflight};
use ringmq_namesrv::{Namesrv, NamesrvConfig};
use ringmq_options::{Role, Settings};

use crate::preflight::{claim_directory, claim_port};
use crate::{logging, ready, settings};

/// Exit status when a second signal cut the end short.
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
    let config = NamesrvConfig::from_settings(&settings);
    preflight(1)?;
    let _lock = claim_directory(&config.data)?;
    claim_port(config.listen, "--namesrv-port")?;
    let signals = TerminationSignals::install().context("cannot install signal handlers")?;
    let data = config.data.clone();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let cores = run_cores(1, &CoreOptions::unpinned(), move |_, env| async move {
        match Namesrv::start(env.clone(), config, settings).await {
            Ok(namesrv) => {
                // The main thread waits for this.
                let _ = tell.send(Ok(namesrv.local_addr()));
                until_signal(&env, signals).await;
                namesrv.stop().await;
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    })?;
    let outcome = told.recv().context("the name server ended before it was ready")?;
    match outcome {
        Ok(addr) => print_ready(&ready::block(Some(addr), None, &data, started.elapsed().as_millis())),
        Err(error) => {
            cores.join();
            return Err(error.into());
        }
    }
    cores.join();
    tracing::info!("stopped");
    Ok(())
}

/// Waits until the process is asked to end. From then on a second request, or too long an end, ends it at once.
async fn until_signal<E: Env>(env: &E, signals: TerminationSignals) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    env.spawn(async move {
        let signal = signals.next().await;
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

/// Stdout may be closed or full, which is no reason not to serve; it is told in the log.
fn print_ready(block: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(block.as_bytes()).and_then(|()| out.flush()) {
        tracing::warn!(%error, "the ready block could not be printed");
    }
}
