//! Half messages of one shard: their ends (37), and the checks of those that nobody ends (39).
//!
//! A half message lies in the log of the shard that owns the real queue. Its outcome is one record that settles it: the
//! real message, a mark of its rollback, the message under TRANS_CHECK_MAX_TIME_TOPIC, or the half message itself put
//! off until the next check. So each has one outcome, whatever crashes when.

use std::time::Duration;

use bytes::BytesMut;
use hashbrown::HashMap;
use ringmq_engine::{
    AppendError, LogPosition, NewMessage, PendingKind, PendingRecord, QueueId, ReadError, SettleError,
};
use ringmq_env::mutant;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::CheckTransactionStateHeader;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::names::topics;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::{RecordFields, RecordView, sys_flag};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::send::Then;
use super::*;
use crate::edge::push_property;
use crate::metrics::Figures;
use crate::transaction::{EndTransaction, Half, NotEnded, Verdict};

/// Half messages that are looked at between two yields.
const BATCH: usize = 64;
/// Half messages that are put off and not committed, at most.
const MAX_IN_FLIGHT: usize = 256;
/// Half messages that were put off and may still be ended by what their producers know of an earlier place. Of more, the
/// next check decides.
const MAX_PUT_OFF: usize = 65_536;
/// The longest sleep while something waits.
const MAX_SLEEP_MS: i64 = 100;
/// Sleep when the disk is full or cannot be read, or there is no room, in ms.
const ERROR_SLEEP_MS: i64 = 500;
/// Bits of sysFlag that the hosts' addresses decide.
const HOST_FLAGS: i32 = sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
/// Tag of the mark of a half message that is removed (Java's TransactionalMessageUtil.REMOVE_TAG).
const REMOVE_TAG: &str = "d";

/// The last place of each half message that was put off, by its first.
#[derive(Default)]
pub(super) struct PutOff(HashMap<u64, PendingRecord, FxBuildHasher>);

impl PutOff {
    fn moved(&mut self, now: PendingRecord) {
        if self.0.len() < MAX_PUT_OFF || self.0.contains_key(&now.order) {
            self.0.insert(now.order, now);
        }
    }

    /// Where the half message is now that was once at `record`.
    fn current(&self, record: PendingRecord) -> PendingRecord {
        self.0.get(&record.order).copied().unwrap_or(record)
    }

    fn forget(&mut self, record: &PendingRecord) {
        self.0.remove(&record.order);
    }
}

/// What became of half messages since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcomes {
    committed: u64,
    rolled_back: u64,
    given_up: u64,
    /// How often producers were asked.
    checks: u64,
}

/// A half message was put off, and its producer is to be asked for it.
pub(super) struct CheckRequest {
    /// Where it is now.
    position: LogPosition,
    producer_group: String,
    request: Command,
}

/// A half message as it was read.
struct Stored {
    record: PendingRecord,
    bytes: ringmq_env::IoSlice,
}

impl<E: Env> ShardService<E> {
    /// Half messages, and what became of them.
    pub(crate) fn transaction_figures(&self, figures: &mut Figures) {
        let open = self.shard.pending_stats(PendingKind::Half).count;
        figures.gauge("ringmq_half_messages", "Half messages that are not ended.", &[], open as f64);
        let Outcomes { committed, rolled_back, given_up, checks } = self.outcomes.get();
        for (how, count) in [("committed", committed), ("rolled_back", rolled_back), ("given_up", given_up)] {
            let help = "Half messages that were ended, by how.";
            figures.counter("ringmq_transactions_total", help, &[("outcome", how)], count);
        }
        let help = "Times that producers were asked for half messages.";
        figures.counter("ringmq_transaction_checks_total", help, &[], checks);
    }

    fn count_outcome(&self, change: impl FnOnce(&mut Outcomes)) {
        let mut outcomes = self.outcomes.get();
        change(&mut outcomes);
        self.outcomes.set(outcomes);
    }

    // --- ends ---

    /// Ends a transaction. Answered once the outcome is durable.
    pub(super) fn end_transaction(self: &Rc<Self>, core: &Rc<Core<E>>, to: Destination, end: EndTransaction) {
        let (service, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            if let Err(refusal) = service.try_end(&core, to, &end).await {
                to.answer(&core, AnswerBody::Refused(refusal));
            }
            core.flush();
        });
    }

    async fn try_end(
        &self,
        core: &Rc<Core<E>>,
        to: Destination,
        end: &EndTransaction,
    ) -> Result<(), Refusal> {
        let not_found = || remarks::not_ended(NotEnded::NotFound);
        let position = end.half.position();
        let read = self.shard.record_at(position).await;
        let bytes = read.map_err(|error| remarks::read_failed(&error))?.ok_or_else(not_found)?;
        let record = PendingRecord::read(position, &bytes).ok_or_else(not_found)?;
        let view = RecordView::decode(&bytes).ok().filter(|view| view.topic == topics::TRANS_HALF_TOPIC);
        let view = view.ok_or_else(not_found)?;
        let half = Half::read(&view).ok_or_else(not_found)?;
        let transactions = &core.identity.config.transactions;
        end.check(transactions, &half, view.queue_offset, core.env.wall_ms()).map_err(remarks::not_ended)?;
        let record = self.where_it_waits(record).await.map_err(|error| remarks::read_failed(&error))?;
        let settled = match end.verdict {
            Verdict::Commit => self.commit_half(&record, &view, &half),
            Verdict::Rollback => self.remove_half(core, &record, &view),
        };
        let appended = settled.map_err(|error| match error {
            SettleError::NotPending { .. } => not_found(),
            SettleError::Refused(error) => {
                remarks::append_refused(&error, core.identity.config.max_message_size)
            }
        })?;
        self.put_off.borrow_mut().forget(&record);
        self.count_outcome(|outcomes| match end.verdict {
            Verdict::Commit => outcomes.committed += 1,
            Verdict::Rollback => outcomes.rolled_back += 1,
        });
        self.when_durable(appended.end, appended.store_timestamp, Then::Done(to));
        Ok(())
    }

    /// Where the half message is now that was once at `record`; it waits there if it waits at all.
    async fn where_it_waits(&self, record: PendingRecord) -> Result<PendingRecord, ReadError> {
        loop {
            let current = self.put_off.borrow().current(record);
            // It may be put off while that is read.
            if self.shard.still_waits(&current).await? || self.put_off.borrow().current(record) == current {
                return Ok(current);
            }
        }
    }

    /// Stages the real message. As Java's, it keeps TRAN_MSG, REAL_TOPIC and REAL_QID.
    fn commit_half(
        &self,
        record: &PendingRecord,
        view: &RecordView<'_>,
        half: &Half<'_>,
    ) -> Result<Appended, SettleError> {
        let kept = properties::without(view.properties, &[property::DUE]);
        let parts: SmallVec<[&[u8]; 4]> = kept.iter().map(|part| part.as_bytes()).collect();
        let sys_flag = view.sys_flag & !HOST_FLAGS & !sys_flag::TRANSACTION_TYPE;
        let message = NewMessage {
            sys_flag: sys_flag | sys_flag::TRANSACTION_COMMIT,
            ..stored_again(view, half.topic, half.queue_id, &parts)
        };
        let appended = match mutant!("commit-settles-nothing") {
            true => self.shard.append(&[message]).map_err(SettleError::Refused)?,
            false => self.shard.append_settling(&message, record)?,
        };
        let mut meters = self.meters.borrow_mut();
        meters.staged(&half.topic.into(), PutsHandle::default(), 1, view.body.len() as u64);
        Ok(appended)
    }

    /// Stages the mark that the half message is removed, which looks as Java's does.
    fn remove_half(
        &self,
        core: &Core<E>,
        record: &PendingRecord,
        view: &RecordView<'_>,
    ) -> Result<Appended, SettleError> {
        let mut tag = Vec::new();
        push_property(&mut tag, property::TAGS, REMOVE_TAG);
        let body = format!("{},", view.queue_offset);
        let queue_id = core.identity.routing.queue_on(topics::TRANS_OP_HALF_TOPIC, self.id);
        let message = NewMessage {
            topic: topics::TRANS_OP_HALF_TOPIC,
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: core.env.wall_ms(),
            born_host: core.identity.store_host,
            store_host: core.identity.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: &[&tag],
        };
        self.shard.append_settling(&message, record)
    }

    // --- checks ---

    /// Checks half messages that nobody ends, until the shard closes.
    pub(super) async fn check_transactions(self: Rc<Self>, core: Rc<Core<E>>) {
        while self.shard.until_pending(PendingKind::Half).await {
            let sleep_ms = self.check_some(&core).await;
            match u64::try_from(sleep_ms) {
                Ok(ms @ 1..) => core.env.sleep(Duration::from_millis(ms)).await,
                _ => core.env.yield_now().await,
            }
        }
    }

    /// Checks a batch of what is due; returns for how long to sleep then, in ms.
    async fn check_some(&self, core: &Rc<Core<E>>) -> i64 {
        let stats = self.shard.pending_stats(PendingKind::Half);
        let room = MAX_IN_FLIGHT.saturating_sub(stats.in_flight).min(BATCH);
        if room == 0 {
            return 1;
        }
        let due = match self.shard.due(PendingKind::Half, core.env.wall_ms(), room).await {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "half messages could not be read");
                return ERROR_SLEEP_MS;
            }
        };
        for record in &due {
            if !self.check(core, *record).await {
                return ERROR_SLEEP_MS;
            }
        }
        if due.len() == room {
            return 0;
        }
        let next_ms = self.shard.pending_stats(PendingKind::Half).next_due_ms.unwrap_or(i64::MAX);
        next_ms.saturating_sub(core.env.wall_ms()).clamp(1, MAX_SLEEP_MS)
    }

    /// Puts a half message off and asks its producer, or gives it up after the last time. False: try again later.
    async fn check(&self, core: &Rc<Core<E>>, record: PendingRecord) -> bool {
        let bytes = match self.shard.read_pending(&record, false).await {
            Ok(Some(bytes)) => bytes,
            // It was ended meanwhile.
            Ok(None) => return true,
            Err(ReadError::Damaged { .. }) => {
                self.shard.abandon_pending(&record);
                return true;
            }
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "a half message cannot be read");
                return false;
            }
        };
        let stored = Stored { record, bytes };
        match self.try_check(core, &stored) {
            // It was ended meanwhile.
            Ok(()) | Err(SettleError::NotPending { .. }) => true,
            Err(SettleError::Refused(
                AppendError::Busy { .. }
                | AppendError::DiskFull { .. }
                | AppendError::LogFull { .. }
                | AppendError::Closed,
            )) => false,
            Err(SettleError::Refused(error)) => {
                tracing::error!(shard = self.id.0, ?record, %error, "a half message cannot be put off");
                self.shard.abandon_pending(&record);
                true
            }
        }
    }

    fn try_check(&self, core: &Rc<Core<E>>, stored: &Stored) -> Result<(), SettleError> {
        let view = RecordView::decode(&stored.bytes).ok();
        let Some((view, half)) = view.and_then(|view| Some((view, Half::read(&view)?))) else {
            tracing::error!(shard = self.id.0, record = ?stored.record, "a half message does not say where it goes");
            self.shard.abandon_pending(&stored.record);
            return Ok(());
        };
        match half.checks >= core.identity.config.transactions.check_max {
            true => self.discard(core, &stored.record, &view, &half),
            false => self.put_half_off(core, &stored.record, &view, &half),
        }
    }

    /// Moves a half message that was asked for too often out of the way.
    fn discard(
        &self,
        core: &Core<E>,
        record: &PendingRecord,
        view: &RecordView<'_>,
        half: &Half<'_>,
    ) -> Result<(), SettleError> {
        let topic = topics::TRANS_CHECK_MAX_TIME_TOPIC;
        let kept = properties::without(view.properties, &[property::DUE]);
        let parts: SmallVec<[&[u8]; 4]> = kept.iter().map(|part| part.as_bytes()).collect();
        let queue_id = core.identity.routing.queue_on(topic, self.id);
        self.shard.append_settling(&stored_again(view, topic, queue_id, &parts), record)?;
        self.put_off.borrow_mut().forget(record);
        self.count_outcome(|outcomes| outcomes.given_up += 1);
        tracing::warn!(
            topic = half.topic,
            group = half.producer_group,
            checks = half.checks,
            "a half message that nobody ends was given up"
        );
        Ok(())
    }

    /// Stores the half message anew, due for the next check, and asks its producer once that is durable.
    fn put_half_off(
        &self,
        core: &Rc<Core<E>>,
        record: &PendingRecord,
        view: &RecordView<'_>,
        half: &Half<'_>,
    ) -> Result<(), SettleError> {
        let interval = core.identity.config.transactions.check_interval.as_millis() as i64;
        let due_ms = core.env.wall_ms().saturating_add(interval);
        let mut added = Vec::new();
        push_property(&mut added, property::TRANSACTION_CHECK_TIMES, &(half.checks + 1).to_string());
        push_property(&mut added, property::DUE, &format!("{due_ms},{}", record.order));
        let dropped = [property::DUE, property::TRANSACTION_CHECK_TIMES];
        let kept = properties::without(view.properties, &dropped);
        let mut parts: SmallVec<[&[u8]; 4]> = kept.iter().map(|part| part.as_bytes()).collect();
        parts.push(&added);
        let (topic, queue_id) = match mutant!("half-message-leaked") {
            true => (half.topic, half.queue_id),
            false => (view.topic, QueueId(view.queue_id as u32)),
        };
        let message = stored_again(view, topic, queue_id, &parts);
        let appended = self.shard.append_settling(&message, record)?;
        self.count_outcome(|outcomes| outcomes.checks += 1);
        self.ask_when_durable(core, view, half, &parts.concat(), &appended);
        Ok(())
    }

    fn ask_when_durable(
        &self,
        core: &Rc<Core<E>>,
        view: &RecordView<'_>,
        half: &Half<'_>,
        text: &[u8],
        appended: &Appended,
    ) {
        let (end, staged_ms) = (appended.end, appended.store_timestamp);
        let check = CheckRequest {
            position: appended.physical_offsets[0].position(),
            producer_group: half.producer_group.to_owned(),
            request: check_request(core, view, half, text, appended),
        };
        self.when_durable(end, staged_ms, Then::Check(Box::new(check)));
    }

    /// Asks a producer for a half message that was put off, in a task of its own. Requests to end it that know an older
    /// place find the new one from now on. Whether anybody of the group is online shows in the answer that never comes.
    pub(super) fn ask_producer(self: &Rc<Self>, core: &Rc<Core<E>>, check: Box<CheckRequest>) {
        let (service, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            let CheckRequest { position, producer_group, request } = *check;
            if let Ok(Some(bytes)) = service.shard.record_at(position).await
                && let Some(now) = PendingRecord::read(position, &bytes)
            {
                service.put_off.borrow_mut().moved(now);
            }
            let mut frame = BytesMut::new();
            request.encode_json(&mut frame);
            let asked = core.call(Call::CheckTransaction(producer_group, frame.freeze())).await;
            if let CallAnswer::Refused(refusal) = asked {
                tracing::debug!(%refusal, "a half message could not be asked for");
            }
        });
    }
}

/// What is read once more, under another topic or with other properties.
pub(super) fn stored_again<'a>(
    view: &RecordView<'a>,
    topic: &'a str,
    queue_id: QueueId,
    properties: &'a [&'a [u8]],
) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: view.flag,
        sys_flag: view.sys_flag & !HOST_FLAGS,
        born_timestamp: view.born_timestamp,
        born_host: view.born_host,
        store_host: view.store_host,
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: 0,
        body: view.body,
        properties,
    }
}

/// CHECK_TRANSACTION_STATE (39): the half message as the message that it would become.
fn check_request<E: Env>(
    core: &Core<E>,
    view: &RecordView<'_>,
    half: &Half<'_>,
    text: &[u8],
    appended: &Appended,
) -> Command {
    let physical = appended.physical_offsets[0].get();
    let fields = RecordFields {
        queue_id: half.queue_id.0 as i32,
        flag: view.flag,
        queue_offset: appended.first_queue_offset.0,
        physical_offset: physical,
        sys_flag: view.sys_flag & !HOST_FLAGS,
        born_timestamp: view.born_timestamp,
        born_host: view.born_host,
        store_timestamp: appended.store_timestamp,
        store_host: view.store_host,
        reconsume_times: view.reconsume_times,
        prepared_transaction_offset: 0,
        body: view.body,
        topic: half.topic,
        properties: &[text],
    };
    let mut record = vec![0; fields.encoded_len().unwrap_or(0)];
    if !record.is_empty() {
        fields.encode_into(&mut record);
    }
    let offset_id =
        OffsetMessageId { store_host: core.identity.store_host, physical_offset: physical }.encode();
    let header = CheckTransactionStateHeader {
        topic: Some(view.topic),
        tran_state_table_offset: appended.first_queue_offset.0,
        commit_log_offset: physical,
        msg_id: half.uniq_key,
        transaction_id: half.uniq_key,
        offset_msg_id: Some(offset_id.as_str()),
        broker_name: Some(&core.identity.config.broker_name),
    };
    Command::oneway(request::CHECK_TRANSACTION_STATE, 0).with_header(&header).with_body(record)
}
