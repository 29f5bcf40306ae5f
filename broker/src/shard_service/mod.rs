//! One shard as the broker sees it, on the core that hosts it: appends and their acknowledgements, pulls and those
//! that wait, committed offsets, and questions about the shard's queues.

mod broadcasts;
mod calls;
mod delayed;
mod group_reads;
mod offset_calls;
mod offsets;
mod once;
mod pull;
mod recall;
mod resume_half;
mod retention;
mod send;
mod transaction;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ringmq_engine::{
    Appended, Boundary, LogPosition, MetaLog, OFFSETS, OpenError, PhysicalOffset, QueueOffset, ReadRequest,
    Shard, ShardId, SliceStats,
};
use ringmq_env::{Env, mutant};
use ringmq_protocol::codes::response;

use crate::broadcasts::BroadcastTable;
use crate::control::Refusal;
use crate::control::stats::PutsHandle;
use crate::core::Core;
use crate::event::LocalEvent;
use crate::long_poll::{LongPolls, MAX_PARKED};
use crate::message::*;
use crate::message_filter::Verdicts;
use crate::meters::Meters;
use crate::metrics::Figures;
use crate::offsets::OffsetTable;
use crate::remarks;
use crate::resets::PendingResets;
use group_reads::GroupReads;
use once::OnceTable;
pub use send::MAX_BATCH;
use send::PendingAcks;
use transaction::{Outcomes, PutOff};

/// Reads from disk that one shard has in flight before more are refused as busy.
const MAX_COLD_READS: usize = 256;
/// Of these, what the pulls of one consumer group may have: one that is far behind leaves the rest to the others.
const MAX_GROUP_COLD_READS: usize = MAX_COLD_READS / 2;

/// A shard, and what the broker keeps beside it. Lives on the core that hosts the shard.
pub struct ShardService<E: Env> {
    id: ShardId,
    shard: Shard<E>,
    /// Stored with every message, behind its own properties.
    common_properties: Vec<u8>,
    acks: RefCell<PendingAcks>,
    long_polls: RefCell<LongPolls>,
    /// The table of waiting pulls has an earlier deadline than before, or the shard stops.
    deadlines_changed: LocalEvent,
    offsets: RefCell<OffsetTable>,
    offset_log: MetaLog<E>,
    resets: RefCell<PendingResets>,
    broadcasts: RefCell<BroadcastTable>,
    /// Half messages that were put off, by the position where each was stored first.
    put_off: RefCell<PutOff>,
    /// What became of half messages.
    outcomes: Cell<Outcomes>,
    cold_reads: Cell<usize>,
    /// The same for pulls, by group.
    group_reads: GroupReads,
    /// Where the delayed message that was delivered last had waited.
    last_delivered: Cell<LogPosition>,
    meters: RefCell<Meters>,
    verdicts: Verdicts,
    once: RefCell<OnceTable>,
    stopping: Cell<bool>,
    /// The commit task has seen the last commit.
    drained: LocalEvent,
}

impl<E: Env> ShardService<E> {
    /// Wraps an open shard, in whose directory the committed offsets are kept, too.
    pub async fn open(
        id: ShardId,
        shard: Shard<E>,
        cluster: &str,
        common_properties: Vec<u8>,
    ) -> Result<Rc<ShardService<E>>, OpenError> {
        let mut offsets = OffsetTable::default();
        let mut unreadable = 0u64;
        let mut restore = |key: &[u8], value: &[u8]| {
            unreadable += u64::from(offsets.restore(key, value).is_err());
        };
        let offset_log = shard.open_table(OFFSETS, &mut restore).await?;
        if unreadable > 0 {
            tracing::warn!(shard = id.0, unreadable, "entries of the offset table could not be read");
        }
        Ok(Rc::new(ShardService {
            id,
            shard,
            common_properties,
            acks: RefCell::default(),
            long_polls: RefCell::new(LongPolls::new(MAX_PARKED)),
            deadlines_changed: LocalEvent::default(),
            offsets: RefCell::new(offsets),
            offset_log,
            resets: RefCell::default(),
            broadcasts: RefCell::default(),
            put_off: RefCell::default(),
            outcomes: Cell::default(),
            cold_reads: Cell::new(0),
            group_reads: GroupReads::default(),
            last_delivered: Cell::default(),
            meters: RefCell::new(Meters::new(cluster)),
            verdicts: Verdicts::default(),
            once: RefCell::default(),
            stopping: Cell::new(false),
            drained: LocalEvent::default(),
        }))
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The engine's part.
    pub(crate) fn engine(&self) -> &Shard<E> {
        &self.shard
    }

    /// For how long the compaction of the offsets held the core.
    pub(crate) fn offsets_compaction(&self) -> SliceStats {
        self.offset_log.compaction_slices()
    }

    /// Every committed offset.
    pub(crate) fn committed_offsets(&self) -> Vec<CommittedOffset> {
        self.offsets.borrow().list(None)
    }

    /// What went through the shard since the start, and who waits.
    pub(crate) fn traffic(&self, figures: &mut Figures) {
        let mut meters = self.meters.borrow_mut();
        meters.filtered(&self.verdicts);
        meters.figures(figures);
        let waiting = self.long_polls.borrow().len() as f64;
        figures.gauge("ringmq_long_polls", "Pulls that wait for a message.", &[], waiting);
        let once = self.once.borrow();
        let help = "Sends that were repeats of a message with their DEDUPE_KEY.";
        figures.counter("ringmq_dedupe_repeats_total", help, &[], once.repeats());
        let help = "DEDUPE_KEYs that are searched for or about to be stored.";
        figures.gauge("ringmq_dedupe_open", help, &[], once.open() as f64);
        let broadcasters = self.broadcasts.borrow().len() as f64;
        let help = "Offsets of broadcasting clients that are followed.";
        figures.gauge("ringmq_broadcast_offsets", help, &[], broadcasters);
        let reads = self.cold_reads.get() as f64;
        figures.gauge("ringmq_cold_reads", "Pulls that wait for the disk.", &[], reads);
    }

    /// Starts the shard's tasks on its core.
    pub fn start(self: &Rc<Self>, core: &Rc<Core<E>>) {
        core.env.spawn(self.clone().follow_commits(core.clone()));
        core.env.spawn(self.clone().sweep_deadlines(core.clone()));
        core.env.spawn(self.clone().deliver_delayed(core.clone()));
        core.env.spawn(self.clone().flush_offsets_often(core.clone()));
        core.env.spawn(self.clone().retain_often(core.clone()));
        if let Some(expiry) = core.identity.config.broadcasts {
            core.env.spawn(self.clone().follow_broadcasts(core.clone(), expiry));
        }
    }

    /// Starts what asks other cores. Once all of them are ready.
    pub fn serve(self: &Rc<Self>, core: &Rc<Core<E>>) {
        core.env.spawn(self.clone().check_transactions(core.clone()));
    }

    /// Serves one request.
    pub fn handle(self: &Rc<Self>, core: &Rc<Core<E>>, envelope: Envelope) {
        let Envelope { reply, credit, request, .. } = envelope;
        let to = Destination { reply, credit };
        match request {
            ShardRequest::Send(send) => self.send(core, to, send),
            ShardRequest::Pull(pull) => self.pull(core, to, pull),
            ShardRequest::CommitOffset(group, queue, offset) => {
                let body = self.commit_offset(&group, &queue, offset);
                to.answer(core, body);
            }
            ShardRequest::CommittedOffset(group, queue, set_zero) => {
                let body = self.committed_offset(&group, &queue, set_zero);
                to.answer(core, body);
            }
            ShardRequest::MaxOffset(queue) => {
                let range = self.shard.queue_range(&queue.topic, queue.queue_id).unwrap_or_default();
                to.answer(core, AnswerBody::Number("offset", range.max.0));
            }
            ShardRequest::MinOffset(queue) => {
                let range = self.shard.queue_range(&queue.topic, queue.queue_id).unwrap_or_default();
                to.answer(core, AnswerBody::Number("offset", range.min.0));
            }
            ShardRequest::EarliestStoreTime(queue) => {
                self.spawn_read(core, to, |shard| shard.earliest(queue))
            }
            ShardRequest::OffsetByTime(queue, time_ms, boundary) => {
                self.spawn_read(core, to, move |shard| shard.offset_by_time(queue, time_ms, boundary));
            }
            ShardRequest::EndTransaction(end) => self.end_transaction(core, to, *end),
            ShardRequest::MessageAt(offset) => {
                self.spawn_read(core, to, move |shard| shard.message_at(offset))
            }
        }
    }

    /// Where messages of the topic are counted: `known` if that still holds.
    pub fn counted(&self, topic: &Arc<str>, known: PutsHandle) -> PutsHandle {
        self.meters.borrow_mut().counted(topic, known)
    }

    /// Has what is counted there fetched into the core's cache.
    pub fn prefetch_counts(&self, counted: PutsHandle) {
        self.meters.borrow().prefetch(counted);
    }

    /// Starts a task that may read from disk, and answers with what it says; refused when too many are there.
    fn spawn_read<F: Future<Output = AnswerBody> + 'static>(
        self: &Rc<Self>,
        core: &Rc<Core<E>>,
        to: Destination,
        read: impl FnOnce(Rc<Self>) -> F,
    ) {
        let in_flight = self.cold_reads.get();
        if in_flight >= MAX_COLD_READS {
            let what = format_args!("{in_flight} reads are in flight in shard {}, the limit", self.id.0);
            return to.answer(core, AnswerBody::Refused(remarks::busy(what)));
        }
        self.cold_reads.set(in_flight + 1);
        let (service, core, read) = (self.clone(), core.clone(), read(self.clone()));
        core.env.clone().spawn(async move {
            let body = read.await;
            service.cold_reads.set(service.cold_reads.get() - 1);
            to.answer(&core, body);
            core.flush();
        });
    }

    async fn earliest(self: Rc<Self>, queue: QueueRef) -> AnswerBody {
        let Some(range) = self.shard.queue_range(&queue.topic, queue.queue_id) else {
            return AnswerBody::Number("timestamp", -1);
        };
        match self.shard.store_time(&queue.topic, queue.queue_id, range.min).await {
            Ok(time) => AnswerBody::Number("timestamp", time.unwrap_or(-1)),
            Err(error) => AnswerBody::Refused(remarks::read_failed(&error)),
        }
    }

    async fn offset_by_time(self: Rc<Self>, queue: QueueRef, time_ms: i64, boundary: Boundary) -> AnswerBody {
        match self.shard.offset_by_time(&queue.topic, queue.queue_id, time_ms, boundary).await {
            Ok(offset) => AnswerBody::Number("offset", offset.0),
            Err(error) => AnswerBody::Refused(remarks::read_failed(&error)),
        }
    }

    async fn message_at(self: Rc<Self>, offset: PhysicalOffset) -> AnswerBody {
        match self.shard.record_at(offset.position()).await {
            Ok(Some(record)) => AnswerBody::Records(vec![record]),
            Ok(None) => AnswerBody::Refused(remarks::no_message_at(offset.get())),
            Err(error) => AnswerBody::Refused(remarks::read_failed(&error)),
        }
    }

    /// A connection has ended: nobody waits for its pulls.
    pub fn peer_gone(&self, peer: Peer) {
        self.long_polls.borrow_mut().drop_peer(peer);
    }

    /// Answers the waiting pulls, and holds none any more.
    pub fn begin_stop(self: &Rc<Self>, core: &Rc<Core<E>>) {
        self.stopping.set(true);
        self.deadlines_changed.signal();
        self.release_parked(core);
    }

    /// Commits and flushes what is staged, makes the committed offsets durable, and closes the shard.
    pub async fn close(self: &Rc<Self>, core: &Rc<Core<E>>) {
        self.begin_stop(core);
        self.shard.close().await;
        self.drained.wait().await;
        if mutant!("offsets-lost-at-stop") {
            return;
        }
        if let Err(error) = self.flush_offsets().await {
            tracing::error!(shard = self.id.0, %error, "committed offsets could not be made durable");
        }
    }
}

/// Where the answer to a shard's request goes.
#[derive(Clone, Copy, Debug)]
struct Destination {
    reply: ReplyTo,
    credit: Option<u32>,
}

impl Destination {
    fn answer<E: Env>(self, core: &Core<E>, body: AnswerBody) {
        core.deliver(Answer { to: self.reply, credit: self.credit, body });
    }
}
