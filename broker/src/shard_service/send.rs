//! Appends, and their acknowledgements once the group commit that holds them is durable.

use std::collections::VecDeque;

use ringmq_engine::{AppendError, Arrival, Commit, Indexed, Known, NewMessage, QueueId};
use ringmq_env::mutant;
use ringmq_protocol::batch::{Batch, BatchMessage};
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, MAX_LEN, names as property};
use ringmq_protocol::text;
use smallvec::SmallVec;

use super::once::OnceId;
use super::transaction::CheckRequest;
use super::*;
use crate::backlog;
use crate::calls::Caller;

/// Messages that one batch may hold.
pub const MAX_BATCH: usize = 16_384;

/// Sends that are staged and wait for their group commit, in the order of the log.
#[derive(Default)]
pub(super) struct PendingAcks(VecDeque<PendingAck>);

struct PendingAck {
    end: LogPosition,
    /// When it was staged, in ms.
    staged_ms: i64,
    then: Then,
}

/// What follows when something staged is durable.
pub(super) enum Then {
    /// A send is answered.
    Sent {
        /// Who sent.
        to: Destination,
        /// The queue that the sender is told.
        queue_id: QueueId,
        /// What was stored.
        appended: Appended,
        /// For the answer's transactionId.
        uniq_key: UniqKey,
        /// For the answer's recallHandle.
        recall_handle: Option<Box<str>>,
        /// It is a batch stored as one.
        is_inner_batch: bool,
        /// It is the message that repeats of its key wait for.
        once: Option<OnceId>,
    },
    /// A request is answered with SUCCESS.
    Done(Destination),
    /// A producer is asked for a half message.
    Check(Box<CheckRequest>),
    /// A task's call is answered.
    Call(Caller, CallAnswer),
}

impl<E: Env> ShardService<E> {
    /// Serves a send of a connection of this core.
    pub fn send_from(self: &Rc<Self>, core: &Rc<Core<E>>, reply: ReplyTo, send: SendRequest) {
        self.send(core, Destination { reply, credit: None }, send);
    }

    /// Stages a message, or the messages of a batch; the answer follows with the commit.
    pub(super) fn send(self: &Rc<Self>, core: &Rc<Core<E>>, to: Destination, send: SendRequest) {
        // What a consumer sends back is none of the producers' messages.
        if !send.plain_answer {
            let sender = send.sender.as_deref();
            let over = core.quotas.borrow_mut().may_send(&send.topic, sender, || core.env.now());
            if let Err(over) = over {
                return to.answer(core, AnswerBody::Refused(remarks::over_quota(&over)));
            }
        }
        match send.once {
            Some(_) => self.send_once(core, to, send),
            None => self.stage(core, to, send, None),
        }
    }

    pub(super) fn stage(&self, core: &Rc<Core<E>>, to: Destination, send: SendRequest, once: Option<OnceId>) {
        let appended = match send.batch {
            false => self.append_one(core, &send),
            true => self.append_batch(core, &send),
        };
        match appended {
            Ok(appended) => {
                let messages = u64::from(send.inner).max(appended.physical_offsets.len() as u64);
                let bytes = send.body.len() as u64;
                if !send.plain_answer {
                    core.quotas.borrow_mut().sent(&send.topic, send.sender.as_deref(), messages, bytes);
                }
                match send.waits_in.map(|waits_in| waits_in.topic) {
                    Some(topics::TRANS_HALF_TOPIC) => {}
                    Some(topic) => self.meters.borrow_mut().delayed(topic, bytes),
                    None => self.meters.borrow_mut().staged(&send.topic, send.counted, messages, bytes),
                }
                let (end, staged_ms) = (appended.end, appended.store_timestamp);
                let SendRequest { queue_id, uniq_key, recall_handle, inner, .. } = send;
                let is_inner_batch = inner > 0;
                if send.plain_answer && mutant!("retry-dropped") {
                    return to.answer(core, AnswerBody::Success);
                }
                let then = match send.plain_answer {
                    true => Then::Done(to),
                    false => {
                        Then::Sent { to, queue_id, appended, uniq_key, recall_handle, is_inner_batch, once }
                    }
                };
                self.when_durable(end, staged_ms, then);
                if self.shard.is_over(backlog::BEGINS) {
                    core.begin_backlog();
                }
            }
            Err(refusal) => {
                self.meters.borrow_mut().failed();
                if let Some(id) = once {
                    self.once_refused(core, &id, refusal.clone());
                }
                to.answer(core, AnswerBody::Refused(refusal));
            }
        }
    }

    /// Lets something follow once the log is durable up to `end`, its end now.
    pub(super) fn when_durable(&self, end: LogPosition, staged_ms: i64, then: Then) {
        self.acks.borrow_mut().0.push_back(PendingAck { end, staged_ms, then });
    }

    fn append_one(&self, core: &Core<E>, send: &SendRequest) -> Result<Appended, Refusal> {
        let mut properties = SmallVec::<[&[u8]; 4]>::new();
        for span in &send.properties {
            properties.push(&send.frame[span.range()]);
        }
        properties.push(&send.added);
        properties.push(&self.common_properties);
        let message = new_message(core, send, send.flag, &send.frame[send.body.range()], &properties);
        self.append(core, Known { topic: send.known, indexed: indexed(send) }, &[message])
    }

    fn append_batch(&self, core: &Core<E>, send: &SendRequest) -> Result<Appended, Refusal> {
        let illegal = || remarks::message_illegal(core.identity.config.max_message_size);
        let batch = Batch::new(&send.frame[send.body.range()], MAX_BATCH).map_err(|_| illegal())?;
        let messages: Vec<BatchMessage<'_>> = batch.collect::<Result<_, _>>().map_err(|_| illegal())?;
        // Java stores a batch's messages with their own properties alone: those of the request's header, the batch's own
        // UNIQ_KEY among them, and those that the broker adds to a single message are dropped.
        let parts: Vec<[&[u8]; 1]> = messages.iter().map(|message| [message.properties.as_bytes()]).collect();
        let messages: Vec<NewMessage<'_>> = messages
            .iter()
            .zip(&parts)
            .map(|(message, parts)| new_message(core, send, message.flag, message.body, parts))
            .collect();
        let dispatches = core.identity.config.lmq_limit.is_some();
        let forged = |part: &str| properties::find(part, property::INNER_MULTI_QUEUE_OFFSET).is_some();
        let is_forged = |message: &NewMessage<'_>| {
            let mut parts = message.properties.iter().filter_map(|part| text::utf8(part).ok());
            dispatches && parts.any(forged)
        };
        if messages.iter().any(|message| message.body.is_empty() || is_forged(message)) {
            return Err(illegal());
        }
        self.append(core, Known { topic: send.known, indexed: None }, &messages)
    }

    fn append(
        &self,
        core: &Core<E>,
        known: Known<'_>,
        messages: &[NewMessage<'_>],
    ) -> Result<Appended, Refusal> {
        let max_message_size = core.identity.config.max_message_size;
        let properties =
            |message: &NewMessage<'_>| message.properties.iter().map(|part| part.len()).sum::<usize>();
        // A delayed message gets some more when it is delivered.
        let limit = |message: &NewMessage<'_>| match message.topic {
            topics::SCHEDULE_TOPIC | topics::TIMER_TOPIC => MAX_LEN - delayed::ADDED,
            _ => MAX_LEN,
        };
        if messages.iter().any(|message| properties(message) > limit(message)) {
            return Err(remarks::message_illegal(max_message_size));
        }
        self.shard
            .append_known(known, messages)
            .map_err(|error| remarks::append_refused(&error, max_message_size))
    }

    /// Follows the shard's commits to the last: acknowledges, refuses what failed, and wakes the pulls that wait.
    pub(super) async fn follow_commits(self: Rc<Self>, core: Rc<Core<E>>) {
        while let Some(commit) = self.shard.next_commit().await {
            let Commit { committed, arrivals, failed } = commit;
            self.acknowledge(&core, committed);
            if let Some(error) = failed {
                self.refuse_staged(&core, &error);
            }
            self.wake(&core, &arrivals);
            core.end_backlog();
            core.flush();
        }
        self.drained.signal();
    }

    fn acknowledge(self: &Rc<Self>, core: &Rc<Core<E>>, committed: LogPosition) {
        let now_ms = core.env.wall_ms();
        loop {
            let mut acks = self.acks.borrow_mut();
            if acks.0.front().is_none_or(|ack| ack.end > committed) {
                return;
            }
            let ack = acks.0.pop_front();
            drop(acks);
            let Some(PendingAck { staged_ms, then, .. }) = ack else { return };
            let ms = now_ms.saturating_sub(staged_ms).max(0) as u64;
            self.meters.borrow_mut().stored(ms);
            match then {
                Then::Sent { to, queue_id, appended, uniq_key, recall_handle, is_inner_batch, once } => {
                    if let Some(id) = once {
                        let (physical, offset) = (appended.physical_offsets[0], appended.first_queue_offset);
                        self.once_stored(core, &id, physical, queue_id, offset, &uniq_key);
                    }
                    let body = AnswerBody::Sent {
                        physical_offsets: appended.physical_offsets,
                        queue_id,
                        queue_offset: appended.first_queue_offset,
                        uniq_key,
                        recall_handle,
                        is_inner_batch,
                    };
                    to.answer(core, body);
                }
                Then::Call(caller, answer) => core.answer_call(caller, answer),
                Then::Done(to) => to.answer(core, AnswerBody::Success),
                Then::Check(check) => self.ask_producer(core, check),
            }
        }
    }

    /// Everything staged was rolled back.
    fn refuse_staged(&self, core: &Core<E>, error: &AppendError) {
        let staged = std::mem::take(&mut self.acks.borrow_mut().0);
        for ack in staged {
            self.meters.borrow_mut().failed();
            let refusal = remarks::append_refused(error, core.identity.config.max_message_size);
            match ack.then {
                Then::Sent { to, once, .. } => {
                    if let Some(id) = once {
                        self.once_refused(core, &id, refusal.clone());
                    }
                    to.answer(core, AnswerBody::Refused(refusal));
                }
                Then::Done(to) => to.answer(core, AnswerBody::Refused(refusal)),
                Then::Call(caller, _) => core.answer_call(caller, CallAnswer::Refused(refusal)),
                // It goes on waiting, and is due again.
                Then::Check(_) => {}
            }
        }
    }

    fn wake(self: &Rc<Self>, core: &Rc<Core<E>>, arrivals: &[Arrival]) {
        let mut woken = Vec::new();
        {
            let mut long_polls = self.long_polls.borrow_mut();
            if long_polls.is_empty() {
                // A pull that comes later finds by itself what is readable then.
                self.shard.tell_arrivals(false);
                return;
            }
            for arrival in arrivals {
                let Arrival { topic, queue_id, queue_offset, tags_code, .. } = arrival;
                long_polls.arrived(topic, *queue_id, *queue_offset, *tags_code, &mut woken);
            }
        }
        woken.into_iter().for_each(|parked| self.resume(core, parked));
    }
}

/// What the edge has seen of the properties that are indexed.
fn indexed(send: &SendRequest) -> Option<Indexed<'_>> {
    let text = |span: Span| text::utf8(&send.frame[span.range()]).ok().filter(|text| !text.is_empty());
    let IndexedSpans { tags, keys, dedupe_key } = send.indexed?;
    let uniq_key = text::utf8(&send.uniq_key).ok().filter(|key| !key.is_empty());
    Some(Indexed { tags: text(tags), keys: text(keys), uniq_key, dedupe_key: text(dedupe_key) })
}

fn new_message<'a, E: Env>(
    core: &Core<E>,
    send: &'a SendRequest,
    flag: i32,
    body: &'a [u8],
    properties: &'a [&'a [u8]],
) -> NewMessage<'a> {
    NewMessage {
        topic: send.waits_in.map_or(&*send.topic, |waits_in| waits_in.topic),
        queue_id: send.waits_in.map_or(send.queue_id, |waits_in| waits_in.queue_id),
        flag,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        born_host: send.born_host,
        store_host: core.identity.store_host,
        reconsume_times: send.reconsume_times,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}
