//! Sends that are stored once within their topic's window: those with the property DEDUPE_KEY.
//!
//! What was stored is remembered by the log itself, through its key index: a crash forgets none of it, and it takes
//! no memory. What the index does not know yet, because it is being searched for or not committed, is in the table
//! here. The queue of such a message follows from its key, so one shard decides about it alone.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use ringmq_engine::{KeyQuery, QueueId};
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::RecordView;
use rustc_hash::FxBuildHasher;

use super::*;

/// Searches that one shard has under way before more sends with a key are refused as busy.
const MAX_SEARCHES: usize = 4096;
/// Repeats that wait for their original before more are refused as busy.
const MAX_REPEATS: usize = 16_384;

/// A topic and a key within it.
pub(super) type OnceId = Rc<(Arc<str>, Box<str>)>;

/// Where the message with a key is.
#[derive(Clone, Debug)]
struct Stored {
    physical_offset: PhysicalOffset,
    queue_id: QueueId,
    queue_offset: QueueOffset,
    uniq_key: UniqKey,
}

impl Stored {
    fn answer(self) -> AnswerBody {
        AnswerBody::Sent {
            physical_offsets: smallvec::smallvec![self.physical_offset],
            queue_id: self.queue_id,
            queue_offset: self.queue_offset,
            uniq_key: self.uniq_key,
            recall_handle: None,
            is_inner_batch: false,
        }
    }
}

/// What a search said; `None` within: nothing is stored.
type Found = Result<Option<Stored>, Refusal>;

/// A send that waits for its search. It is staged in its turn, so that sends of one connection keep their order.
struct Search {
    id: OnceId,
    to: Destination,
    send: SendRequest,
    found: Option<Found>,
}

/// What is searched for or staged in one shard.
#[derive(Default)]
pub(super) struct OnceTable {
    searches: VecDeque<Search>,
    /// Number of the first of `searches`.
    first: u64,
    /// Each key that is searched for or staged, with the repeats that wait for it.
    open: HashMap<OnceId, Vec<Destination>, FxBuildHasher>,
    waiting: usize,
    repeats: u64,
}

impl OnceTable {
    /// Sends that were answered as repeats.
    pub(super) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Keys that are searched for or staged.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Takes a send in: the number of its search, or `None` when it waits for another with its key.
    fn begin(&mut self, to: Destination, send: SendRequest) -> Result<Option<(u64, OnceId)>, &'static str> {
        let key = send.once.as_ref().map(|once| once.key.clone()).unwrap_or_default();
        let id: OnceId = Rc::new((send.topic.clone(), key));
        if let Some(repeats) = self.open.get_mut(&id) {
            if self.waiting >= MAX_REPEATS {
                return Err("repeats wait for their originals");
            }
            self.waiting += 1;
            repeats.push(to);
            return Ok(None);
        }
        if self.searches.len() >= MAX_SEARCHES {
            return Err("sends with a DEDUPE_KEY are searched for");
        }
        let number = self.first + self.searches.len() as u64;
        self.open.insert(id.clone(), Vec::new());
        self.searches.push_back(Search { id: id.clone(), to, send, found: None });
        Ok(Some((number, id)))
    }

    fn found(&mut self, number: u64, found: Found) {
        let at = (number - self.first) as usize;
        self.searches[at].found = Some(found);
    }

    /// The next send whose turn it is.
    fn next(&mut self) -> Option<(Search, Found)> {
        let mut search = self.searches.pop_front_if(|search| search.found.is_some())?;
        self.first += 1;
        let found = search.found.take()?;
        Some((search, found))
    }

    /// The key is decided: who waited for it.
    fn end(&mut self, id: &OnceId) -> Vec<Destination> {
        let repeats = self.open.remove(id).unwrap_or_default();
        self.waiting -= repeats.len();
        repeats
    }
}

impl<E: Env> ShardService<E> {
    /// Searches for the message's key before it is staged.
    pub(super) fn send_once(self: &Rc<Self>, core: &Rc<Core<E>>, to: Destination, send: SendRequest) {
        let window_ms = send.once.as_ref().map_or(0, |once| once.window_ms);
        let begun = self.once.borrow_mut().begin(to, send);
        let (number, id) = match begun {
            Ok(Some(begun)) => begun,
            Ok(None) => return,
            Err(what) => {
                let limit = if what.starts_with("repeats") { MAX_REPEATS } else { MAX_SEARCHES };
                let what = format_args!("{limit} {what} in shard {}, the limit", self.id.0);
                return to.answer(core, AnswerBody::Refused(remarks::busy(what)));
            }
        };
        let (service, core) = (self.clone(), core.clone());
        core.env.clone().spawn(async move {
            let found = service.find_stored(&id, core.env.wall_ms() - window_ms).await;
            service.once.borrow_mut().found(number, found);
            service.stage_found(&core);
            core.flush();
        });
    }

    /// The message that was stored with the key since `begin_ms`.
    async fn find_stored(&self, id: &OnceId, begin_ms: i64) -> Found {
        let (topic, key) = (&*id.0, &*id.1);
        let query = KeyQuery { topic, key, max_messages: 1, begin_ms, end_ms: i64::MAX };
        let records = self.shard.query_keys(&query).await.map_err(|error| remarks::read_failed(&error))?;
        Ok(records.first().and_then(|record| RecordView::decode(record).ok()).and_then(|view| {
            Some(Stored {
                physical_offset: PhysicalOffset::from_wire(view.physical_offset)?,
                queue_id: QueueId(u32::try_from(view.queue_id).ok()?),
                queue_offset: QueueOffset(view.queue_offset),
                uniq_key: UniqKey::from_slice(
                    properties::find(view.properties, property::UNIQ_KEY).unwrap_or_default().as_bytes(),
                ),
            })
        }))
    }

    /// Stages what was not found, and answers what was, in the order in which it came.
    fn stage_found(&self, core: &Rc<Core<E>>) {
        loop {
            let next = self.once.borrow_mut().next();
            let Some((search, found)) = next else { return };
            match found {
                Ok(None) => self.stage(core, search.to, search.send, Some(search.id)),
                Ok(Some(stored)) => {
                    self.once.borrow_mut().repeats += 1;
                    search.to.answer(core, stored.clone().answer());
                    self.end_once(core, &search.id, Ok(stored));
                }
                Err(refusal) => {
                    search.to.answer(core, AnswerBody::Refused(refusal.clone()));
                    self.end_once(core, &search.id, Err(refusal));
                }
            }
        }
    }

    /// The message with the key is committed.
    pub(super) fn once_stored(
        &self,
        core: &Core<E>,
        id: &OnceId,
        physical_offset: PhysicalOffset,
        queue_id: QueueId,
        queue_offset: QueueOffset,
        uniq_key: &UniqKey,
    ) {
        let stored = Stored { physical_offset, queue_id, queue_offset, uniq_key: uniq_key.clone() };
        self.end_once(core, id, Ok(stored));
    }

    /// The message with the key was not stored.
    pub(super) fn once_refused(&self, core: &Core<E>, id: &OnceId, refusal: Refusal) {
        self.end_once(core, id, Err(refusal));
    }

    fn end_once(&self, core: &Core<E>, id: &OnceId, outcome: Result<Stored, Refusal>) {
        let repeats = {
            let mut once = self.once.borrow_mut();
            let repeats = once.end(id);
            once.repeats += if outcome.is_ok() { repeats.len() as u64 } else { 0 };
            repeats
        };
        for to in repeats {
            let body = match &outcome {
                Ok(stored) => stored.clone().answer(),
                Err(refusal) => AnswerBody::Refused(refusal.clone()),
            };
            to.answer(core, body);
        }
    }
}
