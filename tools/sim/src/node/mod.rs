//! Brokers, name servers and clients in one thread: crashes, bad disks, a bad network, wrong clocks.

mod client;
mod model;
mod name_servers;
mod requests;
mod retention;
mod site;
mod wire;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use ringmq_env::sim::{Fault, Faults, Sim};
use ringmq_options::{Role, Settings};

use crate::outcome::Outcome;
use crate::plan::Plan;
use name_servers::NameServers;
use site::Site;

/// Virtual time that a whole run may take.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs a plan in a world; panics where a promise is broken.
pub fn run(plan: &Plan, sim: &Sim) -> Outcome {
    sim.set_time_limit(TIME_LIMIT);
    let name_servers = NameServers::new(sim, plan.name_servers);
    let sites: Vec<Site<'_>> = (0..plan.brokers).map(|n| Site::new(plan, sim, &name_servers, n)).collect();
    sim.run(run_all(sim, &sites, &name_servers));
    Outcome {
        cycles: sites.iter().map(Site::lives).sum(),
        acknowledged: sites.iter().map(Site::acknowledged).sum(),
        ..Outcome::default()
    }
}

async fn run_all(sim: &Sim, sites: &[Site<'_>], name_servers: &NameServers<'_>) {
    name_servers.start_all();
    all(sites.iter().map(Site::prepare)).await;
    all(sites.iter().map(Site::live)).await;
    // Nothing goes wrong any more.
    name_servers.calm();
    sites.iter().for_each(Site::calm);
    sim.heal_all();
    all(sites.iter().map(Site::end_well)).await;
    name_servers.restart_all();
    all(sites.iter().map(Site::check_routes)).await;
}

/// Waits for all of them.
async fn all<'a, F: Future<Output = ()> + 'a>(futures: impl Iterator<Item = F>) {
    let mut open: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>> =
        futures.map(|future| Box::pin(future) as Pin<Box<dyn Future<Output = ()> + 'a>>).collect();
    poll_fn(|cx| {
        open.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if open.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Sets what goes wrong on a node from now on, which is made if need be.
fn set_faults(sim: &Sim, node: &str, faults: Faults) {
    sim.node(node);
    sim.set_faults(node, faults);
    sim.end_episodes(node);
}

fn settings(role: Role, sets: &[String]) -> Settings {
    let mut settings = Settings::new(role);
    for set in sets {
        settings.apply_set(set).unwrap_or_else(|error| panic!("{set}: {error}"));
    }
    settings
}

/// The faults that a client's machine has.
fn network_only(faults: &Faults) -> Faults {
    use Fault::*;
    let network = [Reset, HalfOpen, Partition, SlowSegment, SplitSegment, GhostConnection];
    network.iter().fold(Faults::none(), |all, fault| all.with(*fault, faults.rate(*fault)))
}
