//! Why a call to a broker or a name server failed: what all other errors of the client are made of.

use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::codes::response;

/// A call to one peer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection could be made.
    #[error("cannot connect to {addr}: {reason}")]
    Connect {
        /// The peer.
        addr: Arc<str>,
        /// What the network said.
        reason: String,
    },
    /// No answer came in time. Whether the peer has done what it was asked is not known.
    #[error("{addr} did not answer within {after:?}")]
    Timeout {
        /// The peer.
        addr: Arc<str>,
        /// The time limit.
        after: Duration,
    },
    /// The connection ended before an answer came. Whether the peer has done what it was asked is not known.
    #[error("the connection to {addr} ended: {reason}")]
    Closed {
        /// The peer.
        addr: Arc<str>,
        /// Why.
        reason: String,
    },
    /// The peer refused.
    #[error("{addr} answered {} ({code}): {remark}", response::name(*code).unwrap_or("an unknown code"))]
    Refused {
        /// The peer.
        addr: Arc<str>,
        /// RocketMQ's response code, see [`ringmq_protocol::codes::response`].
        code: i32,
        /// The peer's own words.
        remark: String,
    },
    /// The peer's answer makes no sense.
    #[error("the answer of {addr} cannot be read: {reason}")]
    BadAnswer {
        /// The peer.
        addr: Arc<str>,
        /// What is wrong with it.
        reason: String,
    },
    /// The client was shut down.
    #[error("the client is shut down")]
    Shutdown,
}

impl CallError {
    /// The peer that it happened with.
    pub fn addr(&self) -> Option<&str> {
        match self {
            CallError::Connect { addr, .. }
            | CallError::Timeout { addr, .. }
            | CallError::Closed { addr, .. }
            | CallError::Refused { addr, .. }
            | CallError::BadAnswer { addr, .. } => Some(addr),
            CallError::Shutdown => None,
        }
    }

    /// The response code, if the peer answered.
    pub fn code(&self) -> Option<i32> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The peer's own words, if it answered.
    pub fn remark(&self) -> Option<&str> {
        match self {
            CallError::Refused { remark, .. } => Some(remark),
            _ => None,
        }
    }

    /// Whether the same call may succeed later, or at another broker: Java's list of retryable response codes, a broker
    /// that asks to go slower, and everything that the network did.
    pub fn is_retryable(&self) -> bool {
        match self {
            CallError::Refused { code, .. } => *code == response::FLOW_CONTROL || RETRYABLE.contains(code),
            CallError::BadAnswer { .. } | CallError::Shutdown => false,
            _ => true,
        }
    }
}

/// The response codes for which Java's producer tries another broker.
const RETRYABLE: [i32; 8] = [
    response::TOPIC_NOT_EXIST,
    response::SERVICE_NOT_AVAILABLE,
    response::SYSTEM_ERROR,
    response::SYSTEM_BUSY,
    response::NO_PERMISSION,
    response::NO_BUYER_ID,
    response::NOT_IN_CURRENT_UNIT,
    response::GO_AWAY,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_tell_who_what_and_whether_to_try_again() {
        let refused = |code| CallError::Refused { addr: "b:1".into(), code, remark: "no".to_owned() };
        let busy = refused(response::SYSTEM_BUSY);
        assert_eq!(busy.to_string(), "b:1 answered SYSTEM_BUSY (2): no");
        assert_eq!((busy.addr(), busy.code(), busy.remark()), (Some("b:1"), Some(2), Some("no")));
        assert!(busy.is_retryable() && refused(response::FLOW_CONTROL).is_retryable());
        assert!(!refused(response::MESSAGE_ILLEGAL).is_retryable());
        assert!(CallError::Connect { addr: "b:1".into(), reason: String::new() }.is_retryable());
        assert!(!CallError::Shutdown.is_retryable());
    }
}
