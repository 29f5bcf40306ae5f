//! Taking a timer message back before it is delivered.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::codes::request;
use ringmq_protocol::headers::{RecallMessageHeader, RecallMessageResponseHeader};

use super::Producer;
use crate::client::RouteError;
use crate::error::CallError;
use crate::remoting::{Request, bad_answer};

/// A message was not recalled, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecallError {
    /// The handle is not one that a send gave.
    #[error("the recall handle is invalid")]
    Handle,
    /// It is not known where the topic is.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The broker refused, such as for a message that was delivered already, or could not be reached.
    #[error("not recalled: {0}")]
    Call(#[from] CallError),
}

impl RecallError {
    /// What happened with the broker or name server that was asked last.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            RecallError::Call(error) | RecallError::Route(RouteError::Call(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the same recall may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            RecallError::Handle => false,
            RecallError::Route(error) => error.is_retryable(),
            RecallError::Call(error) => error.is_retryable(),
        }
    }
}

impl Producer {
    /// Takes a timer message back: it is not delivered. `handle` is [`super::SendReceipt::recall_handle`]. Returns
    /// the message's id. Brokers must have recalls enabled.
    ///
    /// Cancel-safe: dropping the future forgets the answer; the message may or may not be taken back.
    pub async fn recall(&self, topic: &str, handle: &str) -> Result<String, RecallError> {
        let broker_name = broker_of(handle).ok_or(RecallError::Handle)?;
        let instance = &self.inner.client.instance;
        instance.route(topic).await?;
        let queue = MessageQueue { broker_name: broker_name.clone(), queue_id: 0, topic: topic.to_owned() };
        let addr = instance.master_of(&queue).await?;
        let header = RecallMessageHeader {
            producer_group: Some(self.group()),
            topic,
            recall_handle: Some(handle),
            broker_name: Some(&broker_name),
        };
        let request = Request::new(request::RECALL_MESSAGE, &header);
        let answer = instance.remoting.call_ok(&addr, &request, self.inner.settings.send_timeout).await?;
        let header: RecallMessageResponseHeader<'_> =
            answer.header().map_err(|error| bad_answer(&addr, error))?;
        Ok(header.msg_id.to_owned())
    }
}

/// The broker in a handle: `v1 topic broker timestamp id` in URL-safe base64.
fn broker_of(handle: &str) -> Option<String> {
    let bytes = URL_SAFE.decode(handle).or_else(|_| URL_SAFE_NO_PAD.decode(handle)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let parts: Vec<&str> = text.split(' ').collect();
    match parts[..] {
        ["v1", _, broker, _, _] => Some(broker.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_name_their_broker() {
        let handle = URL_SAFE.encode("v1 t broker-a 1700000000001 ID");
        assert_eq!(broker_of(&handle).as_deref(), Some("broker-a"));
        assert_eq!(broker_of(handle.trim_end_matches('=')).as_deref(), Some("broker-a"));
        assert_eq!(broker_of("nonsense!"), None);
        assert_eq!(broker_of(&URL_SAFE.encode("v2 t broker-a 1 ID")), None);
    }
}
