//! The name servers of the world.

use std::net::SocketAddr;
use std::time::Duration;

use ringmq_env::Env;
use ringmq_env::sim::{Crash, Faults, Sim};
use ringmq_namesrv::{Namesrv, NamesrvConfig};
use ringmq_options::Role;

use super::{set_faults, settings};

const PORT: u16 = 9876;

/// The name servers.
pub struct NameServers<'a> {
    sim: &'a Sim,
    names: Vec<String>,
}

impl<'a> NameServers<'a> {
    /// Of that number, on nodes that do not run yet.
    pub fn new(sim: &'a Sim, count: u32) -> NameServers<'a> {
        let names: Vec<String> = (0..count).map(|number| format!("namesrv-{number}")).collect();
        names.iter().for_each(|name| set_faults(sim, name, Faults::none()));
        NameServers { sim, names }
    }

    /// Where they are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.names.iter().map(|name| SocketAddr::new(self.sim.ip(name), PORT)).collect()
    }

    /// Starts all of them.
    pub fn start_all(&self) {
        self.names.iter().for_each(|name| self.start(name));
    }

    fn start(&self, name: &str) {
        let env = self.sim.node(name);
        let sets = [format!("bind={}", self.sim.ip(name)), format!("namesrv-port={PORT}")];
        let settings = settings(Role::Namesrv, &sets);
        let config = NamesrvConfig::from_settings(&settings);
        env.clone().spawn(async move {
            loop {
                if Namesrv::start(env.clone(), config.clone(), settings.clone()).await.is_ok() {
                    // It runs in tasks of its own.
                    return;
                }
                env.sleep(Duration::from_secs(1)).await;
            }
        });
    }

    /// Lets what may go wrong go wrong with all of them, and one crash now and then.
    pub fn disturb(&self, faults: Faults, crash: Crash) {
        self.names.iter().for_each(|name| set_faults(self.sim, name, faults));
        if self.sim.random().is_multiple_of(4) {
            let name = &self.names[self.sim.random() as usize % self.names.len()];
            self.sim.crash(name, crash);
            self.start(name);
        }
    }

    /// Lets all of them lose what they know, which is in memory alone.
    pub fn restart_all(&self) {
        for name in &self.names {
            self.sim.crash(name, Crash::Process);
            self.start(name);
        }
    }

    /// Nothing goes wrong with them any more.
    pub fn calm(&self) {
        self.names.iter().for_each(|name| set_faults(self.sim, name, Faults::none()));
        // One that ended itself is started again, as whoever runs it would.
        for name in &self.names {
            if self.sim.ended_by(name).is_some() {
                self.start(name);
            }
        }
    }
}
