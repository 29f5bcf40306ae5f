//! Keeps the broker registered with every name server: one task and one connection for each, independent of one
//! another. Lives on core 0.

#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use ringmq_env::{Env, Instant, mutant};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use crate::control::registration::{
    AnswerError, Changed, Schedule, Turn, WholeTable, check, has_version, ordered_topics,
};
use watch::Watch;
use wire::{Wire, WireError};

/// How long a name server may take for a registration.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(6);
/// How long it may take for the last one, while the broker stops.
const UNREGISTER_TIMEOUT: Duration = Duration::from_millis(300);

/// Topics that are told by themselves and have [`REGISTER_TIMEOUT`] together: each waits for the answer to the one before.
const TOPICS_AT_ONCE: usize = 64;
/// Longest that topics are told by themselves: it is no sign of life, and a name server waits for one for two minutes.
const TOPICS_LIMIT: Duration = Duration::from_secs(30);

/// A future of this core.
pub type BoxedLocal<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What the driver asks of the broker, on core 0.
pub trait RegistrationSource {
    /// What tells the topics of this moment, and those that come meanwhile or not. Nothing is waited for but the core's other
    /// tasks.
    fn register(&self) -> BoxedLocal<'_, WholeTable>;

    /// QUERY_DATA_VERSION, where it may do instead.
    fn state_version(&self) -> Option<Command>;

    /// Whether it may do to tell these topics by themselves.
    fn are_few(&self, changed: &BTreeSet<Arc<str>>) -> bool;

    /// REGISTER_TOPIC_IN_NAMESRV; `None` of a topic that is gone.
    fn register_topic(&self, topic: &str) -> Option<Command>;

    /// UNREGISTER_BROKER.
    fn unregister(&self) -> Command;

    /// A name server has an order configuration for these topics.
    fn ordered_topics(&self, topics: Vec<String>);
}

/// The broker's registrations.
pub struct Registrar<E: Env> {
    env: E,
    links: Vec<Rc<Link<E>>>,
}

/// One name server.
struct Link<E: Env> {
    env: E,
    server: String,
    source: Rc<dyn RegistrationSource>,
    schedule: RefCell<Schedule>,
    /// What the name server has not been told yet.
    changed: RefCell<Changed>,
    stopping: Cell<bool>,
    ended: Cell<bool>,
    /// The topics changed, the broker stops, or the connection ended.
    noticed: Rc<Watch>,
    /// A registration came to its end, or the task did.
    progressed: Watch,
}

/// Why a registration failed.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl<E: Env> Registrar<E> {
    /// Begins to register with each of `servers` (`host:port`), now and every `period`.
    pub fn start(
        env: &E,
        servers: &[String],
        period: Duration,
        source: Rc<dyn RegistrationSource>,
    ) -> Registrar<E> {
        let links = servers.iter().map(|server| Link::start(env, server, period, source.clone())).collect();
        Registrar { env: env.clone(), links }
    }

    /// Topics changed: every name server that is in reach is told at once.
    pub fn topics_changed<'a>(&self, topics: impl Iterator<Item = &'a Arc<str>> + Clone) {
        for link in &self.links {
            link.schedule.borrow_mut().topics_changed();
            topics.clone().for_each(|topic| link.changed.borrow_mut().add(topic));
            link.noticed.notify();
        }
    }

    /// Returns once every name server in reach has the topics of this moment, or after `timeout`.
    pub async fn settled(&self, timeout: Duration) {
        let changes: Vec<u64> = self.links.iter().map(|link| link.schedule.borrow().last_change()).collect();
        let deadline = self.env.now().after(timeout);
        for (link, change) in self.links.iter().zip(changes) {
            link.wait_until(deadline, || link.schedule.borrow().is_settled(change)).await;
        }
    }

    /// Unregisters everywhere and ends the tasks; returns when that is done, or after `timeout`.
    pub async fn stop(&self, timeout: Duration) {
        for link in &self.links {
            link.stopping.set(true);
            link.noticed.notify();
        }
        let deadline = self.env.now().after(timeout);
        for link in &self.links {
            link.wait_until(deadline, || link.ended.get()).await;
        }
    }
}

impl<E: Env> Link<E> {
    fn start(env: &E, server: &str, period: Duration, source: Rc<dyn RegistrationSource>) -> Rc<Link<E>> {
        let link = Rc::new(Link {
            env: env.clone(),
            server: server.to_owned(),
            source,
            schedule: RefCell::new(Schedule::new(period, env.now())),
            changed: RefCell::new(Changed::All),
            stopping: Cell::default(),
            ended: Cell::default(),
            noticed: Rc::default(),
            progressed: Watch::default(),
        });
        env.spawn(link.clone().run());
        link
    }

    /// The task: registers whenever it is due, until the broker stops.
    async fn run(self: Rc<Self>) {
        let mut wire = None;
        loop {
            self.wait_until_due(&mut wire).await;
            if self.stopping.get() {
                break;
            }
            if !self.state_changes(&mut wire).await
                && !self.state_version(&mut wire).await
                && let Some(result) = self.register(&mut wire).await
            {
                self.conclude(result);
            }
        }
        if let Some(mut wire) = wire {
            // The name server notices the closed connection in any case.
            let _ = wire.call([self.source.unregister()], UNREGISTER_TIMEOUT).await;
            wire.close();
        }
        self.ended.set(true);
        self.progressed.notify();
    }

    /// Waits until a registration is due, noting when the connection ends meanwhile.
    async fn wait_until_due(&self, wire: &mut Option<Wire<E>>) {
        loop {
            let version = self.noticed.version();
            if wire.as_ref().is_some_and(Wire::is_closed) {
                *wire = None;
                self.conclude(Err(WireError::Closed.into()));
            }
            let wait = self.schedule.borrow().wait(self.env.now());
            if self.stopping.get() || wait.is_zero() {
                return;
            }
            future::or(self.noticed.changed_since(version), self.env.sleep(wait)).await;
        }
    }

    /// Tells the name server of the topics that changed, without the others, where that is enough. False: it has to be told
    /// everything.
    async fn state_changes(&self, wire: &mut Option<Wire<E>>) -> bool {
        let Some(connected) = wire.as_mut().filter(|wire| !wire.is_closed()) else { return false };
        let changed = match &*self.changed.borrow() {
            Changed::Topics(topics) if !topics.is_empty() && self.source.are_few(topics) => {
                topics.iter().cloned().collect()
            }
            Changed::Topics(_) | Changed::All => Vec::new(),
        };
        if changed.is_empty() || self.schedule.borrow().is_period_over(self.env.now()) {
            return false;
        }
        self.schedule.borrow_mut().begun();
        self.changed.replace(Changed::nothing());
        if self.tell_topics(connected, &changed).await.is_ok_and(|all| all) {
            self.schedule.borrow_mut().changes_taken();
            self.progressed.notify();
            return true;
        }
        self.changed.replace(Changed::All);
        false
    }

    /// Asks the name server whether it has the table's version, where that is enough. False: it has to be told everything.
    async fn state_version(&self, wire: &mut Option<Wire<E>>) -> bool {
        let Some(connected) = wire.as_mut().filter(|wire| !wire.is_closed()) else { return false };
        let is_unchanged = *self.changed.borrow() == Changed::nothing();
        let request = (is_unchanged && self.schedule.borrow().may_state_version())
            .then(|| self.source.state_version())
            .flatten();
        let Some(request) = request else { return false };
        let answer = connected.call([request], REGISTER_TIMEOUT).await;
        let has_version = answer.is_ok_and(|answer| has_version(&answer));
        if has_version {
            self.schedule.borrow_mut().version_taken(self.env.now());
        }
        has_version
    }

    /// Tells everything; `None`: the broker stops meanwhile.
    async fn register(&self, wire: &mut Option<Wire<E>>) -> Option<Result<Vec<String>, RegisterError>> {
        let connected = match wire.take().filter(|wire| !wire.is_closed()) {
            Some(connected) => Ok(connected),
            None => Wire::connect(&self.env, &self.server, self.noticed.clone()).await,
        };
        let mut connected = match connected {
            Ok(connected) => connected,
            Err(error) => return Some(Err(error.into())),
        };
        self.schedule.borrow_mut().begun();
        self.changed.replace(Changed::nothing());
        let Some(table) = future::or(self.make_table(), self.until_stopping()).await else {
            *wire = Some(connected);
            return None;
        };
        let registered = self.register_over(&mut connected, table).await;
        match &registered {
            Err(RegisterError::Wire(_)) => connected.close(),
            _ => *wire = Some(connected),
        }
        Some(registered)
    }

    async fn make_table(&self) -> Option<WholeTable> {
        Some(self.source.register().await)
    }

    async fn until_stopping(&self) -> Option<WholeTable> {
        self.noticed.until(|| self.stopping.get()).await;
        None
    }

    async fn register_over(
        &self,
        wire: &mut Wire<E>,
        table: WholeTable,
    ) -> Result<Vec<String>, RegisterError> {
        let answer = wire.call([table.registration], REGISTER_TIMEOUT).await?;
        let ordered = ordered_topics(&answer)?;
        match self.tell_topics(wire, &table.behind).await {
            // A name server before 5.0, which has the table all the same.
            Err(RegisterError::Answer(AnswerError::Refused {
                code: response::REQUEST_CODE_NOT_SUPPORTED,
                ..
            })) => {}
            told => drop(told?),
        }
        Ok(ordered)
    }

    /// Tells topics by themselves, each as it is by then, unless it is gone; false: not all of them, since the broker stops or
    /// it takes too long.
    async fn tell_topics(&self, wire: &mut Wire<E>, topics: &[Arc<str>]) -> Result<bool, RegisterError> {
        let until = self.env.now().after(TOPICS_LIMIT);
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            if self.stopping.get() || until <= self.env.now() {
                return Ok(false);
            }
            let requests: Vec<Command> =
                topics.iter().filter_map(|topic| self.source.register_topic(topic)).collect();
            if !requests.is_empty() {
                check(&wire.call(requests, REGISTER_TIMEOUT).await?)?;
            }
        }
        Ok(true)
    }

    fn conclude(&self, result: Result<Vec<String>, RegisterError>) {
        let now = self.env.now();
        match result {
            Ok(ordered) => {
                if self.schedule.borrow_mut().succeeded(now) == Some(Turn::Up) {
                    tracing::info!(server = self.server, "registered with the name server");
                }
                if !ordered.is_empty() {
                    self.source.ordered_topics(ordered);
                }
            }
            Err(error) => {
                self.changed.replace(Changed::All);
                if mutant!("registration-given-up") {
                    self.stopping.set(true);
                }
                if self.schedule.borrow_mut().failed(now) == Some(Turn::Down) {
                    tracing::warn!(server = self.server, %error, "not registered with the name server, trying again");
                }
            }
        }
        self.progressed.notify();
    }

    /// Waits for a state that progress may bring, or for the deadline.
    async fn wait_until(&self, deadline: Instant, reached: impl Fn() -> bool) {
        let left = deadline.since(self.env.now());
        if !left.is_zero() {
            future::or(self.progressed.until(reached), self.env.sleep(left)).await;
        }
    }
}
