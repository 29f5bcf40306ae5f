//! The requests that core 0 answers: from a decoded command to its answer and what is to be done before it is sent.

mod admin;
mod clients;
mod consume_queue;
mod offsets;
mod relays;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use ringmq_engine::{PhysicalOffset, QueueId};
use ringmq_protocol::body::{QueryConsumeQueueBody, TopicConfig};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::ExtError;
use ringmq_protocol::json::JsonError;

use super::refusal::Refusal;
use super::sessions::{Clock, ConnectionId};
use super::state::{ControlState, Effects};
use crate::compat;

/// A request that has come to core 0.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it says.
    pub command: &'a Command,
    /// Who asks.
    pub connection: ConnectionId,
    /// The other end of that connection.
    pub address: SocketAddr,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Handled {
    /// The answer, to be sent once the effects are done. Its opaque is the caller's to put in.
    Answer(Command, Effects),
    /// The answer needs what the shards know: ask them, and make it with the functions of
    /// [`answers`](super::answers).
    Ask(Question),
}

/// What the shards are to be asked, and for which answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// 28: counters and gauges of every shard, for `runtime_info`.
    RuntimeInfo,
    /// 43: every committed offset, for `all_offsets`.
    AllOffsets,
    /// 202: the topic's queues, for `topic_stats`.
    TopicStats(Arc<TopicConfig>),
    /// 208: the queues of a group's topics with its offsets in them, for `consume_stats`. Without topics: of those
    /// in which the group committed offsets. [`ControlState::consumed_topics`] says which of them count.
    ConsumeStats {
        /// The group.
        group: String,
        /// The topics that were named.
        topics: Vec<String>,
        /// The request itself lists them: they count whatever the group subscribes to.
        listed: bool,
    },
    /// 300: the groups that committed offsets in a topic, for `topic_groups`.
    TopicGroups(String),
    /// 343: the topics in which a group committed offsets, for `group_topics`.
    GroupTopics(String),
    /// 321: entries of a queue.
    ConsumeQueue {
        /// The topic.
        config: Arc<TopicConfig>,
        /// The queue.
        queue: QueueId,
        /// First entry wanted.
        index: i64,
        /// How many.
        count: usize,
        /// All of the answer that the shard does not know.
        answer: QueryConsumeQueueBody,
    },
    /// 323: a half message that was given up is taken up again.
    ResumeHalf(PhysicalOffset),
    /// 222, 303, 308, 314, 317: groups' offsets.
    Offsets(OffsetQuestion),
    /// 307, 309: a consumer is to be asked itself.
    Relay(Relay),
    /// 223: consumers are to be asked for the offsets that they hold of a topic (221).
    ConsumerStatus {
        /// The request to each.
        request: Command,
        /// Whom to ask, with the client ids.
        consumers: Vec<(ConnectionId, Arc<str>)>,
    },
}

/// What is asked about groups' offsets, or to be done about them.
#[derive(Clone, Debug, PartialEq)]
pub enum OffsetQuestion {
    /// 222 in the broker: move the group to an offset of one queue, or to a time in one queue or all.
    Reset {
        /// The topic.
        config: Arc<TopicConfig>,
        /// The group.
        group: String,
        /// One queue, or all.
        queue: Option<QueueId>,
        /// Where to, if an offset was given.
        offset: Option<i64>,
        /// The time in ms; below 0 for the queues' ends.
        time_ms: i64,
    },
    /// 222 by telling the group's consumers (220).
    ResetClients {
        /// The topic.
        config: Arc<TopicConfig>,
        /// The group.
        group: String,
        /// The time in ms; -1 for the queues' ends.
        time_ms: i64,
        /// Whether offsets may grow by it.
        force: bool,
        /// A list for the body, which C++ clients read.
        as_list: bool,
    },
    /// 314.
    Clone {
        /// Whose offsets.
        from: String,
        /// Who gets them.
        to: String,
        /// The topic; `None` for all in which the group has committed offsets.
        topic: Option<String>,
        /// Whether it does not matter what the source subscribes to now.
        offline: bool,
    },
    /// 308.
    Correction {
        /// The topic.
        topic: String,
        /// Group to compare with.
        compare: String,
        /// Groups that do not count.
        left_out: Vec<String>,
    },
    /// 303.
    TimeSpan {
        /// The topic.
        config: Arc<TopicConfig>,
        /// The group.
        group: String,
    },
    /// 317.
    BrokerStats {
        /// Whether ordered topics alone are wanted.
        only_ordered: bool,
    },
}

/// A request that a consumer is to answer itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Relay {
    /// The consumer's connection.
    pub connection: ConnectionId,
    /// Its group.
    pub group: String,
    /// Its client id.
    pub client_id: String,
    /// What it is asked, but for the opaque.
    pub request: Command,
    /// The message that goes along as the body, by its physical offset.
    pub message: Option<PhysicalOffset>,
}

type Outcome = Result<Handled, Refusal>;

impl From<ExtError> for Refusal {
    fn from(error: ExtError) -> Refusal {
        Refusal::system_error(error.to_string())
    }
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Refusal {
        Refusal::system_error(format!("the body cannot be read: {error}"))
    }
}

impl From<&Refusal> for Command {
    fn from(refusal: &Refusal) -> Command {
        Command::response(refusal.code, 0).with_remark(refusal.remark.as_str())
    }
}

impl ControlState {
    /// Handles one request; a code that core 0 does not serve is refused.
    pub fn handle(&mut self, request: Request<'_>, clock: Clock) -> Handled {
        self.dispatch(request, clock)
            .unwrap_or_else(|refusal| Handled::Answer(Command::from(&refusal), Effects::default()))
    }

    fn dispatch(&mut self, request: Request<'_>, clock: Clock) -> Outcome {
        let command = request.command;
        match command.code {
            request::HEART_BEAT => self.serve_heartbeat(request, clock),
            request::UNREGISTER_CLIENT => self.serve_unregister(request),
            request::CHECK_CLIENT_CONFIG => self.check_client_config(command),
            request::GET_CONSUMER_LIST_BY_GROUP => self.consumer_list(command),
            request::LOCK_BATCH_MQ => self.lock_queues(command, clock),
            request::UNLOCK_BATCH_MQ => self.unlock_queues(command),
            request::GET_CONSUMER_CONNECTION_LIST => self.consumer_connections(command),
            request::GET_PRODUCER_CONNECTION_LIST => self.producer_connections(command),
            request::GET_ALL_PRODUCER_INFO => {
                Ok(answer(super::answers::success(&self.producers().describe_all())))
            }
            request::GET_CONSUMER_RUNNING_INFO => self.relay_running_info(command),
            request::CONSUME_MESSAGE_DIRECTLY => self.relay_consume_directly(command),
            request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => self.consumer_status(command),
            request::QUERY_SUBSCRIPTION_BY_CONSUMER => self.query_subscription(command),
            _ => self.dispatch_admin(command, clock),
        }
    }
}

/// An answer without effects.
fn answer(command: Command) -> Handled {
    Handled::Answer(command, Effects::default())
}

/// SUCCESS, once the effects are done.
fn done(effects: Effects) -> Handled {
    Handled::Answer(Command::response(response::SUCCESS, 0), effects)
}

/// What no processor knows.
fn unknown(code: i32) -> Refusal {
    compat::not_supported(code)
}
