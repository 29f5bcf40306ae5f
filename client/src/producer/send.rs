//! Attempts: which queue, how long, and whether to go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use tokio::time::{Instant, timeout_at};

use super::error::SendError;
use super::selector::QueueSelector;
use super::wire::Parcel;
use super::{Inner, SendReceipt, SendStatus};
use crate::client::Instance;
use crate::client::route::TopicRoute;
use crate::error::CallError;
use crate::message::Message;
use crate::metrics;
use crate::remoting::Request;

impl Inner {
    pub(super) async fn route(&self, topic: &str) -> Result<Arc<TopicRoute>, SendError> {
        let instance = &self.client.instance;
        let route = instance.routes.to_publish(topic, instance.asking()).await?;
        if route.publish.is_empty() {
            return Err(SendError::NoQueue(topic.to_owned()));
        }
        Ok(route)
    }

    /// Sends to one queue after the other until one takes it, the time is over, or nobody would take it.
    pub(super) async fn send_somewhere(&self, parcel: &Parcel) -> Result<SendReceipt, SendError> {
        let began = Instant::now();
        let result = self.try_queues(parcel, began).await;
        metrics::sent(&parcel.topic, began.elapsed(), result.is_ok());
        result
    }

    async fn try_queues(&self, parcel: &Parcel, began: Instant) -> Result<SendReceipt, SendError> {
        let deadline = began + self.settings.send_timeout;
        let mut brokers: Vec<String> = Vec::new();
        let (mut stored, mut last) = (None, None);
        while brokers.len() <= self.settings.retries && (brokers.is_empty() || Instant::now() < deadline) {
            if !brokers.is_empty() {
                metrics::send_retried(&parcel.topic);
            }
            let route = self.route(&parcel.topic).await?;
            let queue = self.next_queue(&route.publish, brokers.last());
            brokers.push(queue.broker_name.clone());
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = self.settings.attempt_timeout.map_or(left, |limit| limit.min(left));
            match self.attempt(parcel, queue, timeout).await {
                Ok(receipt) if self.is_good_enough(&receipt, brokers.len()) => return Ok(receipt),
                Ok(receipt) => {
                    tracing::debug!(target: "ringmq_client::producer", status = ?receipt.status, "sending again");
                    stored = Some(receipt);
                }
                Err(error) if !error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(target: "ringmq_client::producer", %error, "an attempt failed");
                    self.refresh_route(&parcel.topic, deadline).await;
                    last = Some(error);
                }
            }
        }
        match (stored, last) {
            (Some(receipt), _) => Ok(receipt),
            (None, last) => {
                let last = last.unwrap_or(CallError::Shutdown);
                Err(SendError::Exhausted { attempts: brokers.len(), brokers, elapsed: began.elapsed(), last })
            }
        }
    }

    /// Brokers may have moved. Without an answer in time the old route goes on.
    async fn refresh_route(&self, topic: &str, deadline: Instant) {
        let instance = &self.client.instance;
        let _ = timeout_at(deadline, instance.routes.refresh_old(topic, instance.asking())).await;
    }

    fn is_good_enough(&self, receipt: &SendReceipt, attempts: usize) -> bool {
        receipt.status == SendStatus::Ok
            || !self.settings.retry_when_not_stored_ok
            || attempts > self.settings.retries
    }

    /// The queue whose turn it is, of another broker than `avoid` if there is one, and of one that is fast, or at
    /// least there, if that is known.
    fn next_queue<'a>(&self, queues: &'a [MessageQueue], avoid: Option<&String>) -> &'a MessageQueue {
        let first = self.next_queue.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..queues.len()).map(|i| &queues[first.wrapping_add(i) % queues.len()]);
        let other = |queue: &&MessageQueue| Some(&queue.broker_name) != avoid;
        let found = match &self.faults {
            None => in_turn.find(other),
            Some(faults) => {
                let fast = |queue: &&MessageQueue| other(queue) && faults.is_available(&queue.broker_name);
                let there = |queue: &&MessageQueue| other(queue) && faults.is_reachable(&queue.broker_name);
                in_turn.clone().find(fast).or_else(|| in_turn.find(there))
            }
        };
        found.unwrap_or(&queues[first % queues.len()])
    }

    pub(super) async fn send_there(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
    ) -> Result<SendReceipt, SendError> {
        let began = Instant::now();
        let result = self.attempt(parcel, queue, self.settings.send_timeout).await;
        metrics::sent(&parcel.topic, began.elapsed(), result.is_ok());
        Ok(result?)
    }

    pub(super) async fn send_oneway(&self, parcel: &Parcel) -> Result<(), SendError> {
        let route = self.route(&parcel.topic).await?;
        self.send_oneway_there(parcel, self.next_queue(&route.publish, None)).await
    }

    pub(super) async fn send_oneway_there(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
    ) -> Result<(), SendError> {
        let instance = &self.client.instance;
        let addr = instance.send_addr(queue).await?;
        let header = parcel.header(&self.group, queue);
        let request = Request::new(parcel.code(), &header).with_body(parcel.body.clone());
        Ok(instance.remoting.oneway(&addr, &request, self.settings.send_timeout).await?)
    }

    pub(super) async fn select(
        &self,
        message: &Message,
        selector: impl QueueSelector,
    ) -> Result<MessageQueue, SendError> {
        let route = self.route(message.topic()).await?;
        let picked = selector.select(&route.publish, message);
        let queues = route.publish.len();
        route.publish.get(picked).cloned().ok_or(SendError::Selector { picked, queues })
    }

    async fn attempt(
        &self,
        parcel: &Parcel,
        queue: &MessageQueue,
        timeout: Duration,
    ) -> Result<SendReceipt, CallError> {
        let began = Instant::now();
        let result = deliver(&self.client.instance, &self.group, parcel, queue, timeout).await;
        if let Some(faults) = &self.faults {
            faults.ended(queue, began.elapsed(), result.as_ref().err());
        }
        #[cfg(feature = "trace")]
        self.trace_attempt(parcel, queue, began.elapsed(), &result);
        result
    }
}

/// One attempt to send to a queue.
pub(crate) async fn deliver(
    instance: &Instance,
    group: &str,
    parcel: &Parcel,
    queue: &MessageQueue,
    timeout: Duration,
) -> Result<SendReceipt, CallError> {
    let addr = instance.send_addr(queue).await?;
    let header = parcel.header(group, queue);
    let request = Request::new(parcel.code(), &header).with_body(parcel.body.clone());
    let answer = instance.remoting.call(&addr, &request, timeout).await?;
    parcel.receipt(&addr, queue, answer)
}
