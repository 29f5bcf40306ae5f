//! Why a request is refused.

use ringmq_protocol::codes::response;

/// What RocketMQ's documents tell users to read; ends many remarks, as Java's `FAQUrl.suggestTodo` does.
pub const FAQ: &str = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// A refused request: what the answer says. Clients and tools match on both, so both are RocketMQ's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{remark} (code {code})")]
pub struct Refusal {
    /// RocketMQ's response code.
    pub code: i32,
    /// RocketMQ's text.
    pub remark: String,
}

impl Refusal {
    /// A refusal with the code and the remark.
    pub fn new(code: i32, remark: impl Into<String>) -> Refusal {
        Refusal { code, remark: remark.into() }
    }

    /// INVALID_PARAMETER (29).
    pub fn invalid(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::INVALID_PARAMETER, remark)
    }

    /// SYSTEM_ERROR (1): what Java answers when an exception reaches the processor.
    pub fn system_error(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, remark)
    }
}
