//! Transactions: a message that nobody sees until what goes with it is decided (Java's `TransactionMQProducer`).

use std::fmt;
use std::sync::Arc;

use ringmq_protocol::codes::request;
use ringmq_protocol::headers::EndTransactionHeader;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::properties::names;
use ringmq_protocol::record::sys_flag;

use super::{Producer, SendError, SendReceipt, SendStatus};
use crate::caught::Caught;
use crate::client::TransactionCheck;
use crate::env::BoxFuture;
use crate::error::CallError;
use crate::message::{Message, MessageExt};
use crate::remoting::Request;

/// What is to become of the message of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// Consumers get it.
    Commit,
    /// Nobody gets it.
    Rollback,
    /// Not decided yet: the broker asks later.
    Unknown,
}

impl TransactionState {
    /// The bits of sysFlag that stand for it.
    pub(crate) fn on_the_wire(self) -> i32 {
        match self {
            TransactionState::Commit => sys_flag::TRANSACTION_COMMIT,
            TransactionState::Rollback => sys_flag::TRANSACTION_ROLLBACK,
            TransactionState::Unknown => 0,
        }
    }

    /// Java's name.
    #[cfg(feature = "trace")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            TransactionState::Commit => "COMMIT_MESSAGE",
            TransactionState::Rollback => "ROLLBACK_MESSAGE",
            TransactionState::Unknown => "UNKNOW",
        }
    }
}

/// Answers a broker that has not heard how a transaction ended, because the producer was killed or the network was:
/// after some seconds, and then again every minute or so, up to fifteen times. Async closures are checkers.
///
/// Any producer of the group may be asked, so the answer must come from where all of them see it, such as the
/// database in which the local transaction ran.
pub trait TransactionChecker: Send + Sync + 'static {
    /// How did the transaction of this message end? A panic counts as [`TransactionState::Unknown`].
    fn check(&self, message: MessageExt) -> impl Future<Output = TransactionState> + Send;
}

impl<F, Fut> TransactionChecker for F
where
    F: Fn(MessageExt) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = TransactionState> + Send,
{
    fn check(&self, message: MessageExt) -> impl Future<Output = TransactionState> + Send {
        self(message)
    }
}

/// A checker whose type was forgotten.
pub(super) struct ErasedChecker<C>(pub Arc<C>);

impl<C: TransactionChecker> TransactionCheck for ErasedChecker<C> {
    fn check(&self, message: MessageExt) -> BoxFuture<'static, TransactionState> {
        let checker = self.0.clone();
        Box::pin(async move { checker.check(message).await })
    }
}

/// How a transaction went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionReceipt {
    /// Where the half message is stored.
    pub half: SendReceipt,
    /// What the broker was told.
    pub state: TransactionState,
}

/// Sends messages that are part of a transaction. Cheap to clone.
#[derive(Clone)]
pub struct TransactionProducer {
    pub(super) producer: Producer,
}

impl fmt::Debug for TransactionProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionProducer").field("group", &self.producer.group()).finish_non_exhaustive()
    }
}

impl TransactionProducer {
    /// The same producer for messages without a transaction.
    pub fn plain(&self) -> &Producer {
        &self.producer
    }

    /// Stores a message that nobody sees yet, runs `local`, and tells the broker what it decided. `local` does not
    /// run when the message could not be stored, or not as well as the broker is configured: that rolls back.
    ///
    /// The message's id ([`SendReceipt::msg_id`], in `local` its property `UNIQ_KEY`) is the id of the transaction.
    ///
    /// Dropping the future leaves the decision to the checker. So does a `local` that panics.
    pub async fn send<F, Fut>(&self, message: Message, local: F) -> Result<TransactionReceipt, SendError>
    where
        F: FnOnce(Message) -> Fut + Send,
        Fut: Future<Output = TransactionState> + Send + 'static,
    {
        let inner = &self.producer.inner;
        if message.is_delayed() {
            return Err(SendError::DelayedTransaction);
        }
        let mut message = message;
        message.set(names::TRANSACTION_PREPARED, "true");
        message.set(names::PRODUCER_GROUP, self.producer.group());
        if message.property(names::UNIQ_KEY).is_none() {
            message.set(names::UNIQ_KEY, inner.client.instance.unique_key());
        }
        let half = self.producer.send_now(message.clone()).await?;
        let state = match half.status {
            SendStatus::Ok => {
                Caught(Box::pin(local(message.clone()))).await.unwrap_or(TransactionState::Unknown)
            }
            _ => TransactionState::Rollback,
        };
        #[cfg(feature = "trace")]
        inner.trace_end(&message, &half, state);
        if let Err(error) = self.end(&half, state).await {
            tracing::warn!(target: "ringmq_client::producer", %error, "the broker will ask how a transaction ended");
        }
        Ok(TransactionReceipt { half, state })
    }

    async fn end(&self, half: &SendReceipt, state: TransactionState) -> Result<(), CallError> {
        let instance = &self.producer.inner.client.instance;
        let addr = instance.master_of(&half.queue).await?;
        let id = OffsetMessageId::decode(&half.offset_msg_id)
            .map_err(|error| crate::remoting::bad_answer(&addr, error))?;
        let transaction_id = half.transaction_id.as_deref().unwrap_or(&half.msg_id);
        let header = EndTransactionHeader {
            topic: Some(&half.queue.topic),
            producer_group: self.producer.group(),
            tran_state_table_offset: half.queue_offset,
            commit_log_offset: id.physical_offset,
            commit_or_rollback: state.on_the_wire(),
            from_transaction_check: false,
            msg_id: &half.msg_id,
            transaction_id: Some(transaction_id),
            broker_name: Some(&half.queue.broker_name),
        };
        let request = Request::new(request::END_TRANSACTION, &header);
        instance.remoting.oneway(&addr, &request, instance.config.call_timeout).await
    }

    /// Tells the brokers that this producer leaves, as [`Producer::shutdown`] does: nobody is asked how a
    /// transaction ended any more, unless the group has other members.
    ///
    /// Cancel-safe: a shutdown that is dropped leaves as a dropped producer does.
    pub async fn shutdown(self) {
        self.producer.shutdown().await;
    }
}
