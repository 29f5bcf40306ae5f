//! What the registration with the name servers asks of the control plane.

use std::cell::Ref;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringmq_env::Env;
use ringmq_protocol::command::Command;

use super::{ControlPlane, Then};
use crate::config::BrokerConfig;
use crate::control::ControlState;
use crate::control::registration::{BrokerIdentity, LargeRegistration, WholeTable, are_few};
use crate::core::Core;
use crate::registration_driver::{BoxedLocal, Registrar, RegistrationSource};

/// Times that a large table is made in slices, if topics are deleted meanwhile.
const MAX_TRIES: usize = 3;

/// The control plane as the registrar sees it.
struct Source<E: Env> {
    control: Rc<ControlPlane<E>>,
    core: Rc<Core<E>>,
    identity: BrokerIdentity,
}

impl<E: Env> RegistrationSource for Source<E> {
    fn register(&self) -> BoxedLocal<'_, WholeTable> {
        Box::pin(self.register_all())
    }

    fn state_version(&self) -> Option<Command> {
        self.identity.state_version(self.control.state.borrow().topics())
    }

    fn are_few(&self, changed: &BTreeSet<Arc<str>>) -> bool {
        are_few(self.control.state.borrow().topics(), changed)
    }

    fn register_topic(&self, topic: &str) -> Option<Command> {
        let state = self.control.state.borrow();
        self.identity.register_topic(state.topics(), topic, self.core.identity.config.permission as i32)
    }

    fn unregister(&self) -> Command {
        self.identity.unregister()
    }

    fn ordered_topics(&self, topics: Vec<String>) {
        let now_ms = self.core.env.wall_ms();
        let effects = self.control.state.borrow_mut().mark_ordered(topics.iter().map(String::as_str), now_ms);
        self.control.settle(effects, Then::Nothing);
    }
}

impl<E: Env> Source<E> {
    async fn register_all(&self) -> WholeTable {
        for _ in 0..MAX_TRIES {
            if let Some(table) = self.make_table(|| self.core.env.yield_now()).await {
                return table;
            }
        }
        // Topics are being deleted one after the other: at a stretch, then.
        self.make_table(|| std::future::ready(())).await.expect("nothing is deleted meanwhile")
    }

    /// `None`: a topic was deleted meanwhile.
    async fn make_table<F: Future<Output = ()>>(&self, mut rest: impl FnMut() -> F) -> Option<WholeTable> {
        let topics = || Ref::map(self.control.state.borrow(), ControlState::topics);
        let permission = self.core.identity.config.permission as i32;
        let Some(mut large) = LargeRegistration::new(&self.identity, &topics(), permission) else {
            let registration = self.identity.register(&topics(), permission);
            return Some(WholeTable { registration, behind: Vec::new() });
        };
        while large.take_in(&topics()) {
            rest().await;
        }
        large.finish(rest, || topics().deletions()).await
    }
}

/// How the broker names itself. Java's port for replicas is the one above the main port.
fn broker_identity(config: &BrokerConfig, address: SocketAddr) -> BrokerIdentity {
    let ha_port = address.port().checked_add(1).unwrap_or(address.port());
    BrokerIdentity {
        cluster: config.cluster.clone(),
        broker_name: config.broker_name.clone(),
        broker_id: config.broker_id,
        addr: address.to_string(),
        ha_addr: SocketAddr::new(address.ip(), ha_port).to_string(),
    }
}

impl<E: Env> ControlPlane<E> {
    /// Begins to register with the name servers.
    pub fn start_registration(self: &Rc<Self>, core: &Rc<Core<E>>) {
        let config = &core.identity.config;
        let identity = broker_identity(config, core.identity.store_host);
        let source = Rc::new(Source { control: self.clone(), core: core.clone(), identity });
        let registrar = Registrar::start(&core.env, &config.namesrv, config.register_period, source);
        assert!(self.registrar.set(registrar).is_ok(), "registration begins once");
    }
}
