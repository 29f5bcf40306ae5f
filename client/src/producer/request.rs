//! Requests that are messages: the sender waits for somebody's reply (Java's `request`).

use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::properties::names;
use tokio::time::{Instant, timeout_at};

use super::{Producer, QueueSelector, SendError};
use crate::client::Awaited;
use crate::error::CallError;
use crate::message::{Message, MessageExt};

/// A request got no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// It was sent, and no reply came in time. Somebody may have consumed it.
    #[error("no reply to the request {correlation_id} within {after:?}")]
    NoReply {
        /// The request's id.
        correlation_id: String,
        /// The time limit.
        after: Duration,
    },
    /// Too many requests wait for their replies.
    #[error("more than {limit} requests wait for their replies")]
    TooMany {
        /// The limit of a client.
        limit: usize,
    },
}

impl RequestError {
    /// What happened with the last broker that was spoken to, if the request was not sent.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            RequestError::Send(error) => error.call(),
            _ => None,
        }
    }

    /// Whether the same request may succeed later. One without a reply may have been consumed: it can have an
    /// effect twice.
    pub fn is_retryable(&self) -> bool {
        match self {
            RequestError::Send(error) => error.is_retryable(),
            _ => true,
        }
    }
}

impl Producer {
    /// Sends a message and waits until a consumer has replied ([`Message::reply`]).
    ///
    /// Cancel-safe, but for what the consumer may have done by then.
    pub async fn request(&self, message: Message, timeout: Duration) -> Result<MessageExt, RequestError> {
        let (message, awaited) = self.prepare(message, timeout).await?;
        self.exchange(async { self.send_now(message).await.map(drop) }, awaited, timeout).await
    }

    /// As [`Producer::request`], with the request in this queue.
    ///
    /// Cancel-safe, but for what the consumer may have done by then.
    pub async fn request_to(
        &self,
        message: Message,
        queue: &MessageQueue,
        timeout: Duration,
    ) -> Result<MessageExt, RequestError> {
        let (message, awaited) = self.prepare(message, timeout).await?;
        self.exchange(async { self.send_to(message, queue).await.map(drop) }, awaited, timeout).await
    }

    /// As [`Producer::request`], with the request in the queue that `selector` picks.
    ///
    /// Cancel-safe, but for what the consumer may have done by then.
    pub async fn request_with(
        &self,
        message: Message,
        selector: impl QueueSelector,
        timeout: Duration,
    ) -> Result<MessageExt, RequestError> {
        let (message, awaited) = self.prepare(message, timeout).await?;
        self.exchange(async { self.send_with(message, selector).await.map(drop) }, awaited, timeout).await
    }

    /// Gives the message what makes it a request, and sees that the brokers know whom to give the reply to.
    async fn prepare(
        &self,
        mut message: Message,
        timeout: Duration,
    ) -> Result<(Message, Awaited), RequestError> {
        let instance = &self.inner.client.instance;
        let correlation_id = instance.unique_key();
        message.set(names::CORRELATION_ID, &correlation_id);
        message.set(names::REPLY_TO_CLIENT, &instance.client_id);
        message.set(names::MESSAGE_TTL, timeout.as_millis().to_string());
        self.inner.route(message.topic()).await?;
        instance.introduce().await;
        let awaited = instance.await_reply(correlation_id);
        let awaited = awaited.map_err(|limit| RequestError::TooMany { limit })?;
        Ok((message, awaited))
    }

    async fn exchange(
        &self,
        send: impl Future<Output = Result<(), SendError>>,
        mut awaited: Awaited,
        timeout: Duration,
    ) -> Result<MessageExt, RequestError> {
        let deadline = Instant::now() + timeout;
        let correlation_id = awaited.correlation_id().to_owned();
        let too_late = || RequestError::NoReply { correlation_id, after: timeout };
        let exchanging = async {
            send.await?;
            Ok(awaited.reply().await)
        };
        match timeout_at(deadline, exchanging).await {
            Ok(Ok(Some(reply))) => Ok(reply),
            Ok(Err(error)) => Err(RequestError::Send(error)),
            Ok(Ok(None)) | Err(_) => Err(too_late()),
        }
    }
}
