//! Offsets of queues and of groups, as brokers keep them.

use std::sync::Arc;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    BoundaryType, OffsetResponseHeader, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    UpdateConsumerOffsetHeader,
};

use super::route::MASTER_ID;
use super::{Instance, unknown_broker};
use crate::error::CallError;
use crate::remoting::{Request, bad_answer, refused};

impl Instance {
    /// The address of the queue's master, or else of a replica.
    pub(crate) async fn queue_addr(&self, queue: &MessageQueue) -> Result<Arc<str>, CallError> {
        if let Some((_, addr)) = self.routes.replica(&queue.broker_name, MASTER_ID) {
            return Ok(addr);
        }
        // The topic may be new to this client.
        let _ = self.route(&queue.topic).await;
        let found = self.routes.replica(&queue.broker_name, MASTER_ID);
        found.map(|(_, addr)| addr).ok_or_else(|| unknown_broker(&queue.broker_name))
    }

    async fn ask_offset(&self, queue: &MessageQueue, request: Request<'_>) -> Result<i64, CallError> {
        let addr = self.queue_addr(queue).await?;
        let answer = self.remoting.call_ok(&addr, &request, self.config.call_timeout).await?;
        offset(&addr, &answer)
    }

    /// The offset behind the queue's last message.
    pub(crate) async fn max_offset(&self, queue: &MessageQueue) -> Result<i64, CallError> {
        let header = QueueHeader { topic: &queue.topic, queue_id: queue.queue_id };
        self.ask_offset(queue, Request::new(request::GET_MAX_OFFSET, &header)).await
    }

    /// The offset of the queue's first message.
    pub(crate) async fn min_offset(&self, queue: &MessageQueue) -> Result<i64, CallError> {
        let header = QueueHeader { topic: &queue.topic, queue_id: queue.queue_id };
        self.ask_offset(queue, Request::new(request::GET_MIN_OFFSET, &header)).await
    }

    /// The offset of the first message stored at or after a time.
    pub(crate) async fn search_offset(&self, queue: &MessageQueue, time_ms: i64) -> Result<i64, CallError> {
        let header = SearchOffsetHeader {
            topic: &queue.topic,
            queue_id: queue.queue_id,
            timestamp: time_ms,
            boundary_type: BoundaryType::Lower,
        };
        self.ask_offset(queue, Request::new(request::SEARCH_OFFSET_BY_TIMESTAMP, &header)).await
    }

    /// The group's offset; `None` when the broker has none.
    pub(crate) async fn consumer_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
    ) -> Result<Option<i64>, CallError> {
        let addr = self.queue_addr(queue).await?;
        let header = QueryConsumerOffsetHeader {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            set_zero_if_not_found: None,
        };
        let request = Request::new(request::QUERY_CONSUMER_OFFSET, &header);
        let answer = self.remoting.call(&addr, &request, self.config.call_timeout).await?;
        match answer.code {
            response::SUCCESS => Ok(Some(offset(&addr, &answer)?)),
            response::QUERY_NOT_FOUND => Ok(None),
            _ => Err(refused(&addr, answer)),
        }
    }

    /// Commits the group's offset. With `wait` the broker has it when this returns; without, it was handed to the
    /// connection.
    pub(crate) async fn commit_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
        wait: bool,
    ) -> Result<(), CallError> {
        let addr = self.queue_addr(queue).await?;
        let header = UpdateConsumerOffsetHeader {
            consumer_group: group,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            commit_offset: offset,
        };
        let request = Request::new(request::UPDATE_CONSUMER_OFFSET, &header);
        let timeout = self.config.call_timeout;
        match wait {
            true => drop(self.remoting.call_ok(&addr, &request, timeout).await?),
            false => self.remoting.oneway(&addr, &request, timeout).await?,
        }
        Ok(())
    }
}

fn offset(addr: &str, answer: &Command) -> Result<i64, CallError> {
    let header: OffsetResponseHeader = answer.header().map_err(|error| bad_answer(addr, error))?;
    Ok(header.offset)
}
