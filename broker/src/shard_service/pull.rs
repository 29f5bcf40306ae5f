//! Pulls: answered at once from memory, in a task of their own from disk, or held until a message arrives.

use std::time::Duration;

use ringmq_engine::{QueueId, ReadResult, ReadStatus, RecordFilter};
use ringmq_env::mutant;

use super::*;
use crate::control::sessions::GroupView;
use crate::long_poll::Parked;
use crate::quotas::Over;

impl<E: Env> ShardService<E> {
    pub(super) fn pull(self: &Rc<Self>, core: &Rc<Core<E>>, to: Destination, pull: PullRequest) {
        let reset = self.resets.borrow_mut().take(&pull.group, &pull.topic, pull.queue_id);
        if let Some(offset) = reset.filter(|offset| *offset != pull.offset) {
            return to.answer(core, self.answer_reset(&pull, offset));
        }
        if let Some(offset) = self.broadcast_start(core, &pull) {
            return to.answer(core, self.answer_reset(&pull, offset));
        }
        if let Some(offset) = pull.commit {
            self.offsets.borrow_mut().commit(&pull.group, &pull.topic, pull.queue_id, offset);
        }
        let deadline = core.env.now().after(Duration::from_millis(pull.suspend_ms));
        let held = (pull.suspend_ms > 0 && !self.stopping.get()).then_some(deadline);
        self.read(core, to, pull, held);
    }

    /// Reads, and answers; or holds the pull until `held` when nothing is there.
    fn read(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        to: Destination,
        pull: PullRequest,
        held: Option<ringmq_env::Instant>,
    ) {
        let Some(result) = self.read_hot(&pull) else {
            return match over_quota(core, &pull) {
                Some(over) => self.put_off(core, to, pull, held, over),
                None => self.read_from_disk(core, to, pull),
            };
        };
        let (code, _) = remarks::pull_status(result.status, pull.offset.0);
        match held {
            Some(deadline) if code == response::PULL_NOT_FOUND => self.park(core, to, pull, deadline),
            _ if result.status == ReadStatus::Found
                && let Some(over) = over_quota(core, &pull) =>
            {
                self.put_off(core, to, pull, held, over);
            }
            _ => to.answer(core, self.answer_pull(core, &pull, result)),
        }
    }

    /// A quota is used up: a pull that may wait until there is something of it again does, another one is refused.
    fn put_off(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        to: Destination,
        pull: PullRequest,
        held: Option<ringmq_env::Instant>,
        over: Over,
    ) {
        let until = core.env.now().after(over.wait);
        let Some(deadline) = held.filter(|deadline| until <= *deadline && !self.stopping.get()) else {
            return to.answer(core, AnswerBody::Refused(remarks::over_quota(&over)));
        };
        let to = hold(core, to);
        let (service, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            // In steps, so that the end does not wait for long.
            core.env.sleep(over.wait.min(LONGEST_NAP)).await;
            service.read(&core, to, pull, Some(deadline).filter(|_| !service.stopping.get()));
            core.flush();
        });
    }

    fn read_from_disk(self: &Rc<Self>, core: &Rc<Core<E>>, to: Destination, pull: PullRequest) {
        let Some(reading) = self.group_reads.begin(&pull.group, MAX_GROUP_COLD_READS) else {
            let (group, shard) = (&pull.group, self.id.0);
            let what = format_args!(
                "group {group} is behind and has {MAX_GROUP_COLD_READS} reads from disk in flight in shard {shard}, \
                 the limit"
            );
            return to.answer(core, AnswerBody::Refused(remarks::busy(what)));
        };
        let own = core.clone();
        self.spawn_read(core, to, |service| async move {
            let body = service.read_cold(&own, pull).await;
            drop(reading);
            body
        });
    }

    fn read_hot(&self, pull: &PullRequest) -> Option<ReadResult> {
        let by_code = |code| pull.filter.matches_code(code);
        let by_record = |record: &[u8]| pull.filter.matches_record(record, &self.verdicts);
        self.shard.read_hot(&read_request(pull, &by_code, &by_record))
    }

    async fn read_cold(self: Rc<Self>, core: &Core<E>, pull: PullRequest) -> AnswerBody {
        let by_code = |code| pull.filter.matches_code(code);
        let by_record = |record: &[u8]| pull.filter.matches_record(record, &self.verdicts);
        match self.shard.read(&read_request(&pull, &by_code, &by_record)).await {
            Ok(result) => self.answer_pull(core, &pull, result),
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "a read failed");
                AnswerBody::Refused(remarks::read_failed(&error))
            }
        }
    }

    /// The consumer is to go on there: a tool has moved the group, or the client comes another way than before.
    fn answer_reset(&self, pull: &PullRequest, offset: QueueOffset) -> AnswerBody {
        let (code, remark) = remarks::OFFSET_RESET;
        AnswerBody::Pulled(Pulled {
            code,
            remark,
            next_offset: offset,
            range: self.shard.queue_range(&pull.topic, pull.queue_id).unwrap_or_default(),
            parts: Vec::new(),
            bytes: 0,
            topic_sys_flag: pull.topic_sys_flag,
            group_sys_flag: pull.group_sys_flag,
        })
    }

    /// Tells the group's pulls of this queue that wait that they are to go elsewhere.
    pub(super) fn release_for_reset(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        group: &str,
        topic: &str,
        queue_id: QueueId,
    ) {
        let mut released = Vec::new();
        self.long_polls.borrow_mut().of_group(group, topic, queue_id, &mut released);
        for parked in released {
            self.pull(core, Destination { reply: parked.reply, credit: None }, parked.pull);
        }
    }

    /// The group has another subscription: its pulls that are held to the one before are answered, so that the consumers
    /// pull again by the new one.
    pub(crate) fn resubscribed(self: &Rc<Self>, core: &Rc<Core<E>>, group: &str, view: &GroupView) {
        let mut outdated = Vec::new();
        for (topic, data) in &view.subscriptions {
            let queues = core.metadata.borrow().topic(topic).map_or(0, |(_, config)| config.read_queue_nums);
            let mut polls = self.long_polls.borrow_mut();
            for queue in (0..u32::try_from(queues).unwrap_or(0)).map(QueueId) {
                polls.outdated(group, topic, queue, data.sub_version, &mut outdated);
            }
        }
        self.answer_now(core, outdated);
    }

    fn answer_pull(&self, core: &Core<E>, pull: &PullRequest, result: ReadResult) -> AnswerBody {
        self.broadcast_pulled(core, pull, &result);
        let (messages, bytes) = (result.messages as u64, result.bytes as u64);
        core.quotas.borrow_mut().pulled(&pull.topic, &pull.group, messages, bytes);
        self.meters.borrow_mut().pulled(&pull.topic, &pull.group, messages, bytes);
        pulled(pull, result)
    }

    fn park(&self, core: &Core<E>, to: Destination, pull: PullRequest, deadline: ringmq_env::Instant) {
        self.broadcast_held(core, &pull);
        let earlier = self.long_polls.borrow().next_deadline().is_none_or(|next| deadline < next);
        let reply = ReplyTo { kind: ReplyKind::HeldPull, ..to.reply };
        let parked = self.long_polls.borrow_mut().park(Parked { reply, pull, deadline });
        if !parked {
            let what = format_args!("{MAX_PARKED} pulls are held in shard {}, the limit", self.id.0);
            return to.answer(core, AnswerBody::Refused(remarks::busy(what)));
        }
        self.shard.tell_arrivals(true);
        hold(core, to);
        if earlier {
            self.deadlines_changed.signal();
        }
    }

    /// A held pull may find something now; if it does not after all, it goes on waiting. What its filter refused it
    /// does not look at again.
    pub(super) fn resume(self: &Rc<Self>, core: &Rc<Core<E>>, mut parked: Parked) {
        let to = Destination { reply: parked.reply, credit: None };
        if !parked.pull.filter.is_by_tag()
            && let Some(result) = self.read_hot(&parked.pull)
            && result.status == ReadStatus::NoMatchedMessage
        {
            parked.pull.offset = result.next_offset;
        }
        self.read(core, to, parked.pull, Some(parked.deadline));
    }

    /// Answers held pulls when their time is up.
    pub(super) async fn sweep_deadlines(self: Rc<Self>, core: Rc<Core<E>>) {
        while !self.stopping.get() {
            let next = self.long_polls.borrow().next_deadline();
            let now = core.env.now();
            match next {
                None => self.deadlines_changed.wait().await,
                // Deadlines mostly come in the order in which pulls do: sleeping to the next one suffices, but for
                // an earlier one of a later pull, hence the short steps.
                Some(deadline) if deadline > now => core.env.sleep(deadline.since(now).min(SWEEP_STEP)).await,
                Some(_) => self.expire(&core),
            }
        }
    }

    fn expire(self: &Rc<Self>, core: &Rc<Core<E>>) {
        let mut expired = Vec::new();
        self.long_polls.borrow_mut().expire(core.env.now(), &mut expired);
        if mutant!("held-pull-forgotten") {
            return;
        }
        self.answer_now(core, expired);
    }

    /// Answers every held pull with what there is.
    pub(super) fn release_parked(self: &Rc<Self>, core: &Rc<Core<E>>) {
        let mut released = Vec::new();
        self.long_polls.borrow_mut().expire(ringmq_env::Instant(u64::MAX), &mut released);
        self.answer_now(core, released);
    }

    fn answer_now(self: &Rc<Self>, core: &Rc<Core<E>>, pulls: Vec<Parked>) {
        for parked in pulls {
            self.read(core, Destination { reply: parked.reply, credit: None }, parked.pull, None);
        }
        core.flush();
    }
}

/// The pull's connection is told that it is held, and gets its credit back.
fn hold<E: Env>(core: &Core<E>, to: Destination) -> Destination {
    if to.reply.kind == ReplyKind::Pull {
        core.hold_pull(to.reply.peer, to.credit);
    }
    Destination { reply: ReplyTo { kind: ReplyKind::HeldPull, ..to.reply }, credit: None }
}

fn over_quota<E: Env>(core: &Core<E>, pull: &PullRequest) -> Option<Over> {
    core.quotas.borrow_mut().may_pull(&pull.topic, &pull.group, core.env.now()).err()
}

/// Longest sleep of a pull that waits for a quota.
const LONGEST_NAP: Duration = Duration::from_millis(500);

/// Longest sleep of the deadline sweep.
const SWEEP_STEP: Duration = Duration::from_millis(100);

fn read_request<'a>(
    pull: &'a PullRequest,
    by_code: &'a dyn Fn(i64) -> bool,
    by_record: &'a dyn Fn(&[u8]) -> bool,
) -> ReadRequest<'a> {
    let filter = &pull.filter;
    let record_filter = RecordFilter { matches: by_record, max_scanned: filter.max_scanned() };
    ReadRequest {
        topic: &pull.topic,
        queue_id: pull.queue_id,
        offset: pull.offset,
        max_messages: pull.max_messages,
        max_bytes: pull.max_bytes,
        tag_filter: (filter.is_by_tag() && !filter.is_all()).then_some(by_code),
        record_filter: (!filter.is_by_tag()).then_some(record_filter),
    }
}

fn pulled(pull: &PullRequest, result: ReadResult) -> AnswerBody {
    debug_assert!(result.status == ReadStatus::Found || result.parts.is_empty());
    let (code, remark) = remarks::pull_status(result.status, pull.offset.0);
    AnswerBody::Pulled(Pulled {
        code,
        remark,
        next_offset: result.next_offset,
        range: result.range,
        parts: result.parts,
        bytes: result.bytes,
        topic_sys_flag: pull.topic_sys_flag,
        group_sys_flag: pull.group_sys_flag,
    })
}
