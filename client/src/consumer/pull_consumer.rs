//! The pull consumer: every pull is the application's own (Java's deprecated `DefaultMQPullConsumer`).

use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{PullHeader, PullResponseHeader, pull_sys_flag};
use ringmq_protocol::names::{NameError, validate_group};

use super::subscription::{Filter, wants};
use crate::client::route::MASTER_ID;
use crate::client::{Client, Instance, RouteError, unknown_broker};
use crate::error::CallError;
use crate::message::MessageExt;
use crate::remoting::{Request, bad_answer, refused};

/// How much longer than the broker may hold it a pull may take.
const MARGIN: Duration = Duration::from_secs(10);

/// What a pull brought.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pulled {
    /// Whether the offset was one of the queue's.
    pub status: PullStatus,
    /// The messages that are wanted, in the queue's order.
    pub messages: Vec<MessageExt>,
    /// Where to pull next.
    pub next_offset: i64,
    /// The offset of the queue's first message.
    pub min_offset: i64,
    /// The offset behind its last.
    pub max_offset: i64,
}

/// Whether a pull found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStatus {
    /// There are messages.
    Found,
    /// There is nothing at the offset yet.
    NoNewMessage,
    /// There are messages, and none that is wanted.
    NoMatchedMessage,
    /// The offset is outside the queue; `next_offset` is not.
    OffsetIllegal,
}

/// Pulls from queues and offsets that the application chooses, and keeps nothing in between. Most programs want a
/// [`super::LitePullConsumer`].
#[derive(Clone, Debug)]
pub struct PullConsumer {
    client: Client,
    group: String,
}

impl PullConsumer {
    pub(crate) fn new(client: Client, group: String) -> Result<PullConsumer, NameError> {
        validate_group(&group)?;
        Ok(PullConsumer { client, group })
    }

    fn instance(&self) -> &Arc<Instance> {
        &self.client.instance
    }

    /// The queues of a topic that can be read.
    ///
    /// Cancel-safe: it only asks.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, RouteError> {
        Ok(self.instance().route(topic).await?.subscribe.clone())
    }

    /// Messages from `offset` on, at most `max`. With a `wait` the broker holds the answer that long when there is
    /// nothing new yet.
    ///
    /// Cancel-safe: it changes nothing.
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        filter: &Filter,
        offset: i64,
        max: u16,
        wait: Option<Duration>,
    ) -> Result<Pulled, CallError> {
        let instance = self.instance();
        // The first pull of a topic learns where it is.
        let _ = instance.route(&queue.topic).await;
        let replica = instance.routes.replica(&queue.broker_name, MASTER_ID);
        let (_, addr) = replica.ok_or_else(|| unknown_broker(&queue.broker_name))?;
        let subscription = filter.subscription(&queue.topic, 0);
        let suspend = if wait.is_some() { pull_sys_flag::SUSPEND } else { 0 };
        let header = PullHeader {
            consumer_group: &self.group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            queue_offset: offset,
            max_msg_nums: i32::from(max.max(1)),
            sys_flag: pull_sys_flag::SUBSCRIPTION | suspend,
            commit_offset: 0,
            suspend_timeout_millis: wait.unwrap_or_default().as_millis() as i64,
            subscription: Some(&subscription.sub_string),
            sub_version: 0,
            expression_type: Some(&subscription.expression_type),
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
        };
        let timeout = wait.unwrap_or_default() + MARGIN;
        let request = Request::new(request::PULL_MESSAGE, &header);
        let answer = instance.remoting.call(&addr, &request, timeout).await?;
        let mut pulled = read(&addr, queue, answer)?;
        pulled.messages.retain(|message| wants(&subscription, message));
        if pulled.status == PullStatus::Found && pulled.messages.is_empty() {
            pulled.status = PullStatus::NoMatchedMessage;
        }
        Ok(pulled)
    }

    /// The group's stored offset in a queue; `None` when there is none.
    ///
    /// Cancel-safe: it only asks.
    pub async fn committed(&self, queue: &MessageQueue) -> Result<Option<i64>, CallError> {
        self.instance().consumer_offset(&self.group, queue).await
    }

    /// Stores the group's offset in a queue. The broker has it when this returns.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the offset may or may not be stored.
    pub async fn commit(&self, queue: &MessageQueue, offset: i64) -> Result<(), CallError> {
        self.instance().commit_offset(&self.group, queue, offset, true).await
    }
}

fn read(addr: &str, queue: &MessageQueue, answer: Command) -> Result<Pulled, CallError> {
    let status = match answer.code {
        response::SUCCESS => PullStatus::Found,
        response::PULL_NOT_FOUND => PullStatus::NoNewMessage,
        response::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
        response::PULL_OFFSET_MOVED => PullStatus::OffsetIllegal,
        _ => return Err(refused(addr, answer)),
    };
    let header: PullResponseHeader = answer.header().map_err(|error| bad_answer(addr, error))?;
    let body = if status == PullStatus::Found { answer.body } else { Default::default() };
    let messages = MessageExt::decode_pulled(body, queue, (header.min_offset, header.max_offset));
    Ok(Pulled {
        status,
        messages: messages.map_err(|error| bad_answer(addr, error))?,
        next_offset: header.next_begin_offset,
        min_offset: header.min_offset,
        max_offset: header.max_offset,
    })
}
