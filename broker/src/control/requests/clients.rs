//! What clients ask of core 0: heartbeats, who else is there, locks.

use ringmq_filter::Filter;
use ringmq_protocol::body::{
    CheckClientRequestBody, ConsumerIdList, HeartbeatData, LockBatchRequestBody, LockBatchResponseBody,
    QuerySubscriptionResponseBody, SubscriptionData,
};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{ConsumerGroupHeader, ProducerGroupHeader, heartbeat};
use ringmq_protocol::json;

use super::super::answers::success;
use super::super::refusal::Refusal;
use super::super::sessions::{Client, Clock};
use super::super::state::{ControlState, Effects};
use super::{Handled, Outcome, Request, answer, done};
use crate::message_filter::{SQL92, is_tag_type};
use crate::remarks;

impl ControlState {
    /// 34.
    pub(super) fn serve_heartbeat(&mut self, request: Request<'_>, clock: Clock) -> Outcome {
        let data: HeartbeatData = json::from_slice(&request.command.body)?;
        let client = Client {
            connection: request.connection,
            client_id: data.client_id.as_str().into(),
            addr: request.address,
            language: request.command.language,
            version: request.command.version,
        };
        let (subscriptions_wanted, effects) = self.heartbeat(&client, data, clock);
        let answer = Command::response(response::SUCCESS, 0)
            .with_ext(heartbeat::IS_SUPPORT_HEART_BEAT_V2, true)
            .with_ext(heartbeat::IS_SUB_CHANGE, subscriptions_wanted);
        Ok(Handled::Answer(answer, effects))
    }

    /// 35.
    pub(super) fn serve_unregister(&mut self, request: Request<'_>) -> Outcome {
        // The client id, which Java requires and does without, says nothing that the connection does not.
        let (producer, consumer) =
            (request.command.get("producerGroup"), request.command.get("consumerGroup"));
        Ok(done(self.unregister(request.connection, producer, consumer)))
    }

    /// 46.
    pub(super) fn check_client_config(&self, command: &Command) -> Outcome {
        let body: CheckClientRequestBody = json::from_slice(&command.body)?;
        let data = body.subscription_data;
        if is_tag_type(&data.expression_type) {
            return Ok(done(Effects::default()));
        }
        if !self.property_filter() || data.expression_type != SQL92 {
            return Err(remarks::no_filter_by(&data.expression_type));
        }
        match Filter::compile(&data.sub_string) {
            Ok(_) => Ok(done(Effects::default())),
            Err(error) => Err(Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, error.to_string())),
        }
    }

    /// 38.
    pub(super) fn consumer_list(&self, command: &Command) -> Outcome {
        let group = command.header::<ConsumerGroupHeader<'_>>()?.consumer_group;
        let ids = self.consumers().client_ids(group);
        if ids.is_empty() {
            return Err(Refusal::system_error(format!("no consumer for this group, {group}")));
        }
        let consumer_id_list = ids.iter().map(|id| id.to_string()).collect();
        Ok(answer(success(&ConsumerIdList { consumer_id_list })))
    }

    /// 41.
    pub(super) fn lock_queues(&mut self, command: &Command, clock: Clock) -> Outcome {
        let body: LockBatchRequestBody = json::from_slice(&command.body)?;
        let held = self.locks_mut().lock(&body.consumer_group, &body.client_id, body.mq_set, clock.now);
        Ok(answer(success(&LockBatchResponseBody { lock_ok_mq_set: held })))
    }

    /// 42.
    pub(super) fn unlock_queues(&mut self, command: &Command) -> Outcome {
        let body: LockBatchRequestBody = json::from_slice(&command.body)?;
        self.locks_mut().unlock(&body.consumer_group, &body.client_id, &body.mq_set);
        Ok(done(Effects::default()))
    }

    /// 203.
    pub(super) fn consumer_connections(&self, command: &Command) -> Outcome {
        let group = command.header::<ConsumerGroupHeader<'_>>()?.consumer_group;
        let described = self.consumers().describe(group).ok_or_else(|| {
            Refusal::new(response::CONSUMER_NOT_ONLINE, format!("the consumer group[{group}] not online"))
        })?;
        Ok(answer(success(&described)))
    }

    /// 204.
    pub(super) fn producer_connections(&self, command: &Command) -> Outcome {
        let group = command.header::<ProducerGroupHeader<'_>>()?.producer_group;
        let described = self
            .producers()
            .describe(group)
            .ok_or_else(|| Refusal::system_error(format!("the producer group[{group}] not exist")))?;
        Ok(answer(success(&described)))
    }

    /// 345.
    pub(super) fn query_subscription(&self, command: &Command) -> Outcome {
        let (group, topic) =
            (command.get("group").unwrap_or_default(), command.get("topic").unwrap_or_default());
        let data = self.consumers().view(group).and_then(|view| view.subscriptions.get(topic));
        Ok(answer(success(&QuerySubscriptionResponseBody {
            group: group.to_owned(),
            subscription_data: data.map(|data| SubscriptionData::clone(data)),
            topic: topic.to_owned(),
        })))
    }
}
