//! Core 0's part: requests and calls that read or change the control state, and what follows from each change, in
//! order: durable first, then known to every core, then answered.

mod consume_queue;
mod offset_questions;
mod questions;
mod registration;
mod relay;

use std::cell::{OnceCell, Ref, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use ringmq_engine::{MetaLog, OpenError, SliceStats};
use ringmq_env::{Env, mutant};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::ConsumerGroupHeader;

use crate::calls::Caller;
use crate::control::requests::{Handled, Request};
use crate::control::sessions::Clock;
use crate::control::topics::AutoCreate;
use crate::control::{ControlSettings, ControlState, Effects, Forget, Refusal};
use crate::core::Core;
use crate::event::LocalEvent;
use crate::invocations::Invocations;
use crate::message::*;
use crate::registration_driver::Registrar;
use questions::Samples;

/// How long an answer waits for the name servers to know of the topics that it is about.
const REGISTER_WAIT: Duration = Duration::from_secs(1);
/// How often counters are gathered and silent clients looked for.
const TEND_INTERVAL: Duration = Duration::from_secs(10);

/// The control state, and the way from a change of it to the answer. Lives on core 0.
pub struct ControlPlane<E: Env> {
    state: RefCell<ControlState>,
    meta: MetaLog<E>,
    outcomes: RefCell<VecDeque<Outcome>>,
    outcome_there: LocalEvent,
    registrar: OnceCell<Registrar<E>>,
    invocations: Invocations,
    samples: RefCell<Samples>,
}

/// A change on its way out.
struct Outcome {
    effects: Effects,
    then: Then,
}

/// What is said once the change is durable and known.
enum Then {
    Answer(Answer),
    Call(Caller, CallAnswer),
    Nothing,
}

impl<E: Env> ControlPlane<E> {
    /// For how long the compaction of topics and groups held the core.
    pub(crate) fn meta_compaction(&self) -> SliceStats {
        self.meta.compaction_slices()
    }

    /// Opens the metadata log in `dir`, and takes back what it kept.
    pub async fn open(
        env: E,
        dir: &Path,
        settings: &ControlSettings,
    ) -> Result<Rc<ControlPlane<E>>, OpenError> {
        let now_ms = env.wall_ms();
        let mut state = ControlState::new(settings, now_ms);
        let meta = MetaLog::open(env, dir, "meta", &mut |key, value| {
            if let Err(error) = state.restore(key, value) {
                tracing::warn!(%error, "left out of the metadata");
            }
        })
        .await?;
        Ok(Rc::new(ControlPlane {
            state: RefCell::new(state),
            meta,
            outcomes: RefCell::default(),
            outcome_there: LocalEvent::default(),
            registrar: OnceCell::new(),
            invocations: Invocations::default(),
            samples: RefCell::new(Samples::new(now_ms)),
        }))
    }

    /// Tells every core what there is, before the first request.
    pub fn announce(&self, core: &Rc<Core<E>>) {
        let snapshot = self.state.borrow_mut().snapshot();
        snapshot.into_iter().for_each(|update| core.broadcast(update));
    }

    /// The control state as it is.
    pub fn state(&self) -> Ref<'_, ControlState> {
        self.state.borrow()
    }

    /// Serves a call.
    pub fn call(self: &Rc<Self>, core: &Rc<Core<E>>, caller: Caller, call: Call) {
        let now_ms = core.env.wall_ms();
        let (answer, effects) = match call {
            Call::CreateTopic { topic, default_topic, queue_nums, unit_mode } => {
                let ask = AutoCreate { topic: &topic, default_topic: &default_topic, queue_nums, unit_mode };
                match self.state.borrow_mut().auto_create_topic(&ask, now_ms) {
                    Ok((_, effects)) => (CallAnswer::Done, effects),
                    Err(refusal) => (CallAnswer::Refused(refusal), Effects::default()),
                }
            }
            Call::CreateGroup(group) => {
                let created = self.state.borrow_mut().auto_create_group(&group, now_ms);
                (CallAnswer::Done, created.map(|(_, effects)| effects).unwrap_or_default())
            }
            Call::PushReply(client_id, request) => {
                return self.push_reply(core, caller, client_id, *request);
            }
            Call::CheckTransaction(group, request) => {
                return self.check_transaction(core, caller, &group, request);
            }
            Call::RetryFate { group, sent } => {
                let (is_dead, effects) = self.state.borrow_mut().retry_fate(&group, sent, clock(core));
                (CallAnswer::Fate { is_dead }, effects)
            }
            Call::Shard(..) | Call::CoreFigures(_) => unreachable!("calls go to their shard or core"),
        };
        self.settle(effects, Then::Call(caller, answer));
    }

    /// Serves a request of a client.
    pub fn handle(self: &Rc<Self>, core: &Rc<Core<E>>, request: ControlRequest, credit: Option<u32>) {
        let ControlRequest { reply, address, command } = request;
        let asked = Request { command: &command, connection: reply.peer.into(), address };
        let handled = self.state.borrow_mut().handle(asked, clock(core));
        match handled {
            Handled::Answer(command, effects) => {
                let answer = Answer { to: reply, credit, body: AnswerBody::Command(Box::new(command)) };
                self.settle(effects, Then::Answer(answer));
            }
            Handled::Ask(question) => {
                let (control, asking) = (self.clone(), core.clone());
                core.env.spawn(async move {
                    let command = control.ask(&asking, question).await;
                    asking.deliver(Answer {
                        to: reply,
                        credit,
                        body: AnswerBody::Command(Box::new(command)),
                    });
                    asking.flush();
                });
            }
        }
    }

    /// A connection has ended.
    pub fn peer_gone(&self, _core: &Core<E>, peer: Peer) {
        self.invocations.peer_gone(peer);
        let effects = self.state.borrow_mut().connection_closed(peer.into());
        self.settle(effects, Then::Nothing);
    }

    /// Gathers counters and forgets silent clients, every ten seconds, for ever.
    pub async fn tend(self: Rc<Self>, core: Rc<Core<E>>) {
        loop {
            core.env.sleep(TEND_INTERVAL).await;
            self.expire_sessions(&core);
            self.sample(&core).await;
        }
    }

    fn settle(&self, effects: Effects, then: Then) {
        self.outcomes.borrow_mut().push_back(Outcome { effects, then });
        self.outcome_there.signal();
    }

    /// Forgets clients that have been silent for too long.
    fn expire_sessions(&self, core: &Core<E>) {
        let effects = self.state.borrow_mut().expire_sessions(clock(core));
        self.settle(effects, Then::Nothing);
    }

    /// Brings the outcomes out in their order, for ever.
    pub async fn follow_outcomes(self: Rc<Self>, core: Rc<Core<E>>) {
        loop {
            self.outcome_there.wait().await;
            let outcomes = std::mem::take(&mut *self.outcomes.borrow_mut());
            let failed = self.make_durable(&outcomes).await.err();
            for outcome in outcomes {
                let forgotten = forget(&core, &outcome.effects.forget).await;
                self.bring_out(&core, outcome, failed.as_ref(), forgotten);
            }
            core.flush();
        }
    }

    async fn make_durable(&self, outcomes: &VecDeque<Outcome>) -> std::io::Result<()> {
        for record in outcomes.iter().flat_map(|outcome| &outcome.effects.records) {
            match &record.value {
                Some(value) => self.meta.put(&record.key, value),
                None => self.meta.delete(&record.key),
            }
        }
        if mutant!("topics-in-memory-only") {
            return Ok(());
        }
        self.meta.flush().await
    }

    fn bring_out(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        outcome: Outcome,
        failed: Option<&std::io::Error>,
        forgotten: Result<(), Refusal>,
    ) {
        let Outcome { effects, then } = outcome;
        let failed = failed.filter(|_| !effects.records.is_empty()).map(not_durable).or(forgotten.err());
        if effects.register
            && let Some(registrar) = self.registrar.get()
        {
            registrar.topics_changed(effects.updates.iter().filter_map(|update| update.change.topic()));
        }
        effects.updates.into_iter().for_each(|update| core.broadcast(update));
        let then = match failed {
            Some(refusal) => then.refused(refusal),
            None => then,
        };
        if effects.register {
            self.answer_registered(core, then);
        } else {
            then.answer(core);
        }
        for notify in effects.notify {
            core.push(notify.connection.into(), group_changed(&notify.group));
        }
        effects.close.into_iter().for_each(|connection| core.close_peer(connection.into()));
    }

    /// Answers once the name servers in reach know the topics: whoever made one may look for its route at once.
    fn answer_registered(self: &Rc<Self>, core: &Rc<Core<E>>, then: Then) {
        let (control, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            if let Some(registrar) = control.registrar.get() {
                registrar.settled(REGISTER_WAIT).await;
            }
            then.answer(&core);
            core.flush();
        });
    }

    /// Takes the broker off the name servers.
    pub async fn stop_registration(&self, timeout: Duration) {
        if let Some(registrar) = self.registrar.get() {
            registrar.stop(timeout).await;
        }
    }
}

impl Then {
    /// The same, but a refusal.
    fn refused(self, refusal: Refusal) -> Then {
        match self {
            Then::Answer(answer) => Then::Answer(Answer { body: AnswerBody::Refused(refusal), ..answer }),
            Then::Call(caller, _) => Then::Call(caller, CallAnswer::Refused(refusal)),
            Then::Nothing => Then::Nothing,
        }
    }

    fn answer<E: Env>(self, core: &Core<E>) {
        match self {
            Then::Answer(answer) => core.deliver(answer),
            Then::Call(caller, answer) => core.answer_call(caller, answer),
            Then::Nothing => {}
        }
    }
}

fn clock<E: Env>(core: &Core<E>) -> Clock {
    Clock { now: core.env.now(), wall_ms: core.env.wall_ms() }
}

/// A change that stands in memory only, for want of disk space.
fn not_durable(error: &std::io::Error) -> Refusal {
    let code = ringmq_protocol::codes::response::SERVICE_NOT_AVAILABLE;
    Refusal::new(code, format!("the change could not be made durable: {error}"))
}

/// Lets every shard forget what belongs to something that is deleted.
async fn forget<E: Env>(core: &Rc<Core<E>>, what: &[Forget]) -> Result<(), Refusal> {
    for forget in what {
        let question = match forget {
            Forget::Topic(topic) => ShardCall::ForgetTopic(topic.clone()),
            Forget::Offsets(group) => ShardCall::ForgetGroup(group.clone()),
        };
        for answer in core.call_shards(|_| question.clone()).await {
            if let CallAnswer::Refused(refusal) = answer {
                return Err(refusal);
            }
        }
    }
    Ok(())
}

fn group_changed(group: &str) -> bytes::Bytes {
    let mut frame = BytesMut::new();
    Command::oneway(request::NOTIFY_CONSUMER_IDS_CHANGED, 0)
        .with_header(&ConsumerGroupHeader { consumer_group: group })
        .encode_json(&mut frame);
    frame.freeze()
}
