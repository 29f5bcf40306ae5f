//! Why a send failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::client::RouteError;
use crate::error::CallError;
use crate::message::MessageError;

/// A message was not sent, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It is not known where to send it. Check the topic's name; create the topic if brokers do not on their own.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The topic has no queue that can be written to.
    #[error("the topic {0} has no queue to write to")]
    NoQueue(String),
    /// The message, or the batch, is longer than the producer's limit. Brokers have one too.
    #[error("the message body size {size} is over the limit of {limit}")]
    TooLarge {
        /// Bytes of the body.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The body cannot be packed.
    #[error("the body cannot be compressed: {0}")]
    Compression(#[from] io::Error),
    /// The messages do not make a batch.
    #[error(transparent)]
    Batch(#[from] BatchRule),
    /// A message that is part of a transaction is not delayed.
    #[error("a message that is part of a transaction cannot be delayed")]
    DelayedTransaction,
    /// The selector picked a queue that is not there.
    #[error("the selector picked queue {picked} of {queues}")]
    Selector {
        /// What it picked.
        picked: usize,
        /// How many there are.
        queues: usize,
    },
    /// The one attempt failed: a refusal that no other broker would judge differently, or a send that may not go to
    /// another queue.
    #[error("not sent: {0}")]
    Call(#[from] CallError),
    /// Every attempt failed.
    #[error("sent {attempts} times to {brokers:?} in {elapsed:?}, still failed: {last}")]
    Exhausted {
        /// How often.
        attempts: usize,
        /// To which brokers, in order.
        brokers: Vec<String>,
        /// How long it took.
        elapsed: Duration,
        /// What happened last.
        last: CallError,
    },
    /// The batch failed that the message travelled in.
    #[error(transparent)]
    InBatch(Arc<SendError>),
    /// A message of the client's own making broke a rule.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl SendError {
    /// What happened with the last broker that was spoken to.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            SendError::Call(error)
            | SendError::Exhausted { last: error, .. }
            | SendError::Route(RouteError::Call(error)) => Some(error),
            SendError::InBatch(error) => error.call(),
            _ => None,
        }
    }

    /// The broker's response code, if one answered.
    pub fn code(&self) -> Option<i32> {
        self.call().and_then(CallError::code)
    }

    /// The broker's own words, if one answered.
    pub fn remark(&self) -> Option<&str> {
        self.call().and_then(CallError::remark)
    }

    /// The broker's address, if one was spoken to.
    pub fn addr(&self) -> Option<&str> {
        self.call().and_then(CallError::addr)
    }

    /// Whether the same send may succeed later. A send that timed out may have succeeded already: a retry can make
    /// a second copy.
    pub fn is_retryable(&self) -> bool {
        match self {
            SendError::Route(error) => error.is_retryable(),
            SendError::InBatch(error) => error.is_retryable(),
            SendError::Call(error) | SendError::Exhausted { last: error, .. } => error.is_retryable(),
            _ => false,
        }
    }
}

/// A rule of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchRule {
    /// There is no message.
    #[error("a batch has at least one message")]
    Empty,
    /// All have the same topic.
    #[error("the messages of a batch have one topic")]
    OneTopic,
    /// All wait for the store, or none.
    #[error("the messages of a batch wait for the store alike")]
    OneWait,
    /// None is delayed.
    #[error("the messages of a batch are not delayed")]
    NotDelayed,
    /// Retry topics take no batch.
    #[error("retry topics take no batch")]
    NotRetry,
}
