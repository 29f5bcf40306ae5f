//! Messages that failed: back to the broker, or else to the retry topic as new messages.

use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::codes::request;
use ringmq_protocol::headers::SendMsgBackHeader;
use ringmq_protocol::names::is_retry_topic;
use ringmq_protocol::properties::names;

use super::group::Group;
use super::listener::RetryDelay;
use crate::client::unknown_broker;
use crate::error::CallError;
use crate::message::{Compression, Message, MessageExt};
use crate::metrics::Returned;
use crate::producer::send::deliver;
use crate::producer::wire::{Packing, Parcel};
use crate::producer::{SendError, SendReceipt};
use crate::remoting::Request;

/// Time limit of a send-back.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The group of clients' own messages, as Java names it.
const INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";
/// Delay level of a message's first retry.
const FIRST_RETRY_LEVEL: i32 = 3;

impl Group {
    /// Sees that a message comes again, or goes to the dead-letter topic. False when that failed too.
    pub(super) async fn give_back(&self, message: &Arc<MessageExt>, retry: RetryDelay) -> bool {
        if !self.is_clustering() {
            tracing::warn!(target: "ringmq_client::consumer", group = self.name, msg_id = message.msg_id(),
                "a message failed; in broadcasting it does not come again");
            return true;
        }
        let to = match self.send_back(message, retry).await {
            Ok(()) => Returned::ToBroker,
            Err(error) => {
                tracing::warn!(target: "ringmq_client::consumer", group = self.name, %error, "a send-back failed");
                match self.send_to_retry_topic(message, self.settings.max_retries()).await {
                    true => Returned::ToRetryTopic,
                    false => Returned::Here,
                }
            }
        };
        self.stats.returned(&message.topic, to, 1);
        !matches!(to, Returned::Here)
    }

    /// Puts a message to the dead letters now. False when that failed.
    pub(super) async fn bury(&self, message: &MessageExt) -> bool {
        match self.send_back(message, RetryDelay::DeadLetter).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(target: "ringmq_client::consumer", group = self.name, %error, "no dead letter");
                false
            }
        }
    }

    async fn send_back(&self, message: &MessageExt, retry: RetryDelay) -> Result<(), CallError> {
        let broker = &message.queue.broker_name;
        let addr = self.instance.routes.master(broker).ok_or_else(|| unknown_broker(broker))?;
        let msg_id = message.msg_id();
        let header = SendMsgBackHeader {
            offset: message.commit_log_offset,
            group: &self.name,
            delay_level: match retry {
                RetryDelay::Growing => 0,
                RetryDelay::Level(level) => i32::from(level),
                RetryDelay::DeadLetter => -1,
            },
            origin_msg_id: Some(&msg_id),
            origin_topic: Some(&message.topic),
            unit_mode: Some(false),
            max_reconsume_times: Some(self.settings.max_retries()),
        };
        let request = Request::new(request::CONSUMER_SEND_MSG_BACK, &header);
        self.instance.remoting.call_ok(&addr, &request, TIMEOUT).await?;
        Ok(())
    }

    /// Sends a copy to the group's retry topic; behind `limit` failures the broker puts it to the dead letters.
    pub(super) async fn send_to_retry_topic(&self, message: &MessageExt, limit: i32) -> bool {
        match self.send_copy(message, limit).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(target: "ringmq_client::consumer", group = self.name, %error,
                    "a message could not be sent to the retry topic");
                false
            }
        }
    }

    async fn send_copy(&self, message: &MessageExt, limit: i32) -> Result<SendReceipt, SendError> {
        let instance = &self.instance;
        let route = instance.routes.get(&self.retry_topic, instance.asking()).await?;
        let queue = fastrand::choice(&route.publish);
        let queue = queue.ok_or_else(|| SendError::NoQueue(self.retry_topic.clone()))?;
        let packing = Packing { compression: Compression::Zlib, over: 4096, limit: usize::MAX };
        let copy = self.copy(message, limit);
        let parcel = Parcel::single(copy, || instance.unique_key(), packing, instance.now_ms())?;
        Ok(deliver(instance, INNER_PRODUCER, &parcel, queue, TIMEOUT).await?)
    }

    fn copy(&self, message: &MessageExt, limit: i32) -> Message {
        let mut properties = message.properties().clone();
        properties.remove(names::TRANSACTION_PREPARED);
        let mut set = |name: &str, value: String| properties.insert(name.to_owned(), value);
        if !is_retry_topic(&message.topic) {
            set(names::RETRY_TOPIC, message.topic.clone());
        }
        let origin =
            message.property(names::ORIGIN_MESSAGE_ID).map_or_else(|| message.msg_id(), str::to_owned);
        set(names::ORIGIN_MESSAGE_ID, origin);
        set(names::RECONSUME_TIME, (message.reconsume_times + 1).to_string());
        set(names::MAX_RECONSUME_TIMES, limit.to_string());
        set(names::DELAY_TIME_LEVEL, (FIRST_RETRY_LEVEL + message.reconsume_times).to_string());
        Message::again(self.retry_topic.clone(), message.body.clone(), message.flag, properties)
    }
}
