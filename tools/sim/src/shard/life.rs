//! One life of a shard's process: open, check what is there, and work until the end.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringmq_engine::*;
use ringmq_env::sim::{Fault, Faults, SimEnv};
use ringmq_env::{Env, IoSlice};
use ringmq_protocol::record::{RecordView, records};

use super::model::{Message, Model, Queue};
use super::table::Table;
use crate::plan::Plan;

/// The node's name.
pub const NODE: &str = "shard";
const DIR: &str = "/store";
const TABLE_DIR: &str = "/store/meta";
const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911);
/// Largest record that is sent.
const MAX_RECORD: usize = 20_000;
/// Memory of the tail beside what it may hold: blocks that are filled, written, or ready to be filled again.
const MAX_STAGED_MEMORY: u64 = 8 << 20;
/// Longest time between two looks at whether something is done.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What all lives of a run share.
pub struct World {
    /// The run.
    pub plan: Plan,
    /// What is owed of the messages.
    pub model: RefCell<Model>,
    /// What is owed of the metadata.
    pub table: RefCell<Table>,
    /// What goes wrong in this life.
    pub faults: RefCell<Faults>,
}

impl World {
    fn may(&self, faults: &[Fault]) -> bool {
        faults.iter().any(|fault| self.faults.borrow().rate(*fault) > 0)
    }

    /// Whether opening may fail with a device's error.
    fn may_fail_to_open(&self) -> bool {
        let device =
            [Fault::ReadError, Fault::WriteError, Fault::SyncError, Fault::NoSpace, Fault::NoSpaceAnywhere];
        self.may(&device) || self.plan.quota
    }
}

/// How a life went that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The store did not open, and had a reason.
    NotOpened,
    /// All is done, and the shard is open still.
    Done,
    /// All is done, and the shard closed.
    Closed,
}

fn options(plan: &Plan) -> ShardOptions {
    let segment = [64 << 10, 128 << 10, 256 << 10][(plan.seed % 3) as usize];
    ShardOptions {
        id: ShardId(3),
        store_id: 42,
        dir: Path::new(DIR).join("shards/003"),
        sync_flush: plan.sync_flush,
        flush_interval_ms: [1, 5, 50][(plan.seed / 3 % 3) as usize],
        segment_size: segment,
        max_record_size: MAX_RECORD,
        tail_memory: if plan.small { 0 } else { 2 << 20 },
        staged_limit: if plan.small { 4 << 10 } else { 1 << 20 },
        disk_watermark_percent: 100,
        strict: false,
    }
}

/// Opens the store, checks it and works on it.
pub async fn live(env: SimEnv, world: Rc<World>) -> End {
    let opened = Shard::open(env.clone(), options(&world.plan)).await;
    let shard = match opened {
        Ok(shard) => shard,
        Err(error) => return refused(&world, &error),
    };
    let mut replay = |key: &[u8], value: &[u8]| world.table.borrow_mut().replayed(key, value);
    let table = match MetaLog::open(env.clone(), Path::new(TABLE_DIR), "table", &mut replay).await {
        Ok(table) => table,
        Err(error) => return refused(&world, &error),
    };
    let is_harmed = world.model.borrow().is_harmed_in(Path::new(TABLE_DIR));
    world.table.borrow_mut().opened(is_harmed);
    Life { env: env.clone(), world: Rc::clone(&world), shard, table }.run().await
}

fn refused(world: &World, error: &OpenError) -> End {
    world.table.borrow_mut().not_opened();
    let has_reason = match error {
        OpenError::Io { .. } => world.may_fail_to_open() || world.model.borrow().may_refuse_to_start(),
        OpenError::Damaged { .. } | OpenError::NewerFormat { .. } | OpenError::Strict { .. } => {
            world.model.borrow().may_refuse_to_start()
        }
    };
    assert!(has_reason, "the store does not open: {error}");
    End::NotOpened
}

#[derive(Clone)]
struct Life {
    env: SimEnv,
    world: Rc<World>,
    shard: Shard<SimEnv>,
    table: MetaLog<SimEnv>,
}

impl Life {
    async fn run(self) -> End {
        self.check_recovered().await;
        let life = self.clone();
        self.env.spawn(async move { life.acknowledge().await });
        let working = Rc::new(());
        for _ in 0..self.world.plan.clients {
            let (life, working) = (self.clone(), Rc::clone(&working));
            self.env.spawn(async move {
                life.work().await;
                drop(working);
            });
        }
        self.until(|| Rc::strong_count(&working) == 1).await;
        self.until(|| self.world.model.borrow().is_settled()).await;
        if !self.env.random().is_multiple_of(3) {
            return End::Done;
        }
        self.shard.close().await;
        self.note_flushed();
        End::Closed
    }

    /// Waits until something is so, looking at it again and again.
    async fn until(&self, is_so: impl Fn() -> bool) {
        let mut look = Duration::from_micros(200);
        while !is_so() {
            self.env.sleep(look).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// Holds what recovery found against the model, and reads what is there.
    async fn check_recovered(&self) {
        self.check_deletion();
        let ranges = Queue::all().map(|queue| self.shard.queue_range(queue.topic(), QueueId(queue.id)));
        let found: Vec<usize> = ranges.map(|range| range.map_or(0, |range| range.max.0 as usize)).collect();
        self.world.model.borrow_mut().recovered(&found, self.shard.stats().log_committed);
        for queue in Queue::all() {
            let all = self.world.model.borrow().messages(queue).len();
            // The newest always, all of them now and then.
            let recent = all.saturating_sub(8);
            let from = if self.env.random().is_multiple_of(8) { 0 } else { recent };
            self.read_from(queue, from as i64, all as i64).await;
        }
        self.look_up().await;
    }

    fn check_deletion(&self) {
        let Some(topic) = self.world.model.borrow().half_deleted() else { return };
        let ranges = Queue::all().filter(|queue| queue.topic == topic);
        let mut ranges = ranges.map(|queue| self.shard.queue_range(queue.topic(), QueueId(queue.id)));
        let mut model = self.world.model.borrow_mut();
        if ranges.all(|range| range.is_none()) {
            model.end_delete();
        } else {
            model.forget_delete();
        }
    }

    /// Reads a queue from an offset up to at least `until`.
    async fn read_from(&self, queue: Queue, from: i64, until: i64) {
        let mut offset = from;
        while offset < until {
            let Some(read) = self.read(queue, offset).await else { return };
            let next = self.take(queue, offset, &read);
            assert!(next > offset, "{queue:?} at {offset} of {until}: {read:?}");
            offset = next;
        }
    }

    /// Reads at an offset; `None` if the device's error is to be expected.
    async fn read(&self, queue: Queue, offset: i64) -> Option<ReadResult> {
        let request = ReadRequest {
            topic: queue.topic(),
            queue_id: QueueId(queue.id),
            offset: QueueOffset(offset),
            max_messages: 16,
            max_bytes: 32 << 10,
            tag_filter: None,
            record_filter: None,
        };
        if let Some(read) = self.shard.read_hot(&request) {
            return Some(read);
        }
        match self.shard.read(&request).await {
            Ok(read) => Some(read),
            Err(error) => self.failed_read(&error),
        }
    }

    fn failed_read<T>(&self, error: &ReadError) -> Option<T> {
        let harmed = self.world.plan.harms();
        let expected = match error {
            ReadError::Io { .. } => harmed || self.world.may(&[Fault::ReadError]),
            ReadError::Damaged { .. } => harmed,
        };
        assert!(expected, "a read failed: {error}");
        None
    }

    /// Holds what was read at `offset` against the model; where the next read goes on.
    fn take(&self, queue: Queue, offset: i64, read: &ReadResult) -> i64 {
        let mut expected = offset;
        let mut model = self.world.model.borrow_mut();
        for record in read.parts.iter().flat_map(|part| records(part)) {
            let record = record.unwrap_or_else(|error| panic!("{queue:?} at {expected}: {error}"));
            let is_next = record.queue_offset == expected;
            let skips = self.world.plan.harms() && record.queue_offset > expected;
            assert!(is_next || skips, "{queue:?}: offset {} at {expected}", record.queue_offset);
            model.seen(queue, &record);
            expected = record.queue_offset + 1;
        }
        let all = expected == read.next_offset.0 || self.world.plan.harms();
        assert!(all, "{queue:?}: next is {} behind {expected}", read.next_offset.0);
        assert!(read.range.max.0 as usize <= model.messages(queue).len(), "{queue:?}: {:?}", read.range);
        read.next_offset.0
    }

    /// Looks for a message that must be there, by position and by key, and for one that must not.
    async fn look_up(&self) {
        let random = self.env.random();
        let sure = self.world.model.borrow().any_sure(random);
        if let Some((queue, offset, message)) = sure {
            let physical = PhysicalOffset::from_wire(message.physical).expect("never negative");
            match self.shard.record_at(physical.position()).await {
                Ok(Some(record)) => self.check_found(queue, offset, &message, &record),
                Ok(None) => {
                    assert!(self.is_excused(queue, offset, &message), "{message:?} is not at its place")
                }
                Err(error) => drop(self.failed_read::<()>(&error)),
            }
            if let Some(found) = self.by_key(queue.topic(), message.id).await {
                match &found[..] {
                    [record] => self.check_found(queue, offset, &message, record),
                    _ => assert!(
                        self.is_excused(queue, offset, &message),
                        "{message:?}: {} by key",
                        found.len()
                    ),
                }
            }
        }
        let gone = self.world.model.borrow().any_gone(random);
        if let Some((topic, id)) = gone
            && let Some(found) = self.by_key(topic, id).await
        {
            assert!(found.is_empty() || self.world.plan.harms(), "message {id} is back from the dead");
        }
    }

    /// Whether a message need not be found: harm, or it was deleted meanwhile.
    fn is_excused(&self, queue: Queue, offset: i64, message: &Message) -> bool {
        let model = self.world.model.borrow();
        self.world.plan.harms()
            || model.half_deleted() == Some(queue.topic)
            || model.messages(queue).get(offset as usize) != Some(message)
    }

    fn check_found(&self, queue: Queue, offset: i64, message: &Message, record: &IoSlice) {
        let view = RecordView::decode(record).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_eq!(view.queue_offset, offset, "{message:?}");
        self.world.model.borrow().check(queue, message, &view);
    }

    async fn by_key(&self, topic: &str, id: u64) -> Option<Vec<IoSlice>> {
        let key = Message::key(id);
        let query = KeyQuery { topic, key: &key, max_messages: 4, begin_ms: 0, end_ms: i64::MAX };
        match self.shard.query_keys(&query).await {
            Ok(found) => Some(found),
            Err(error) => self.failed_read(&error),
        }
    }

    /// Takes commits, and tells the model.
    async fn acknowledge(&self) {
        while let Some(commit) = self.shard.next_commit().await {
            let mut model = self.world.model.borrow_mut();
            for arrival in &commit.arrivals {
                let topic = super::model::TOPICS.iter().position(|topic| **topic == *arrival.topic);
                let queue = Queue { topic: topic.expect("a known topic"), id: arrival.queue_id.0 };
                let known = model.messages(queue).get(arrival.queue_offset.0 as usize).copied();
                let fits = known
                    .is_some_and(|m| m.end <= commit.committed.0 && m.store_ms == arrival.store_timestamp);
                assert!(
                    fits || model.half_deleted() == Some(queue.topic),
                    "{queue:?}: {arrival:?}, {known:?}"
                );
            }
            model.committed(commit.committed.0);
            if commit.failed.is_some() {
                model.dropped(commit.committed.0);
            }
            drop(model);
            self.note_flushed();
        }
    }

    fn note_flushed(&self) {
        let stats = self.shard.stats();
        let ordered = stats.log_flushed <= stats.log_committed && stats.log_committed <= stats.log_staged;
        assert!(ordered, "{stats:?}");
        let limit = options(&self.world.plan).tail_memory as u64 + MAX_STAGED_MEMORY;
        assert!(stats.tail_memory <= limit, "the hot tail holds {} bytes of {limit}", stats.tail_memory);
        self.world.model.borrow_mut().flushed(stats.log_flushed);
    }

    /// A client's operations.
    async fn work(&self) {
        for _ in 0..self.world.plan.ops {
            match self.env.random() % 100 {
                0..60 => self.append(),
                60..80 => self.read_anywhere().await,
                80..84 => self.look_up().await,
                84..86 => {
                    self.shard.checkpoint().await;
                }
                86 => self.delete().await,
                87..92 => self.change_table().await,
                _ => self.env.sleep(Duration::from_micros(self.env.random() % 3000)).await,
            }
            if self.env.random().is_multiple_of(3) {
                self.env.sleep(Duration::from_micros(self.env.random() % 400)).await;
            }
        }
    }

    fn append(&self) {
        let random = self.env.random();
        let queue =
            Queue::all().nth((random % Queue::all().count() as u64) as usize).expect("within the count");
        if self.world.model.borrow().half_deleted() == Some(queue.topic) {
            return;
        }
        let count = if (random >> 8).is_multiple_of(4) { 1 + (random >> 16) % 4 } else { 1 };
        let sizes = (0..count).map(|_| {
            let random = self.env.random();
            let most = if random.is_multiple_of(12) { 9_000 } else { 300 };
            8 + (random >> 8) as usize % most
        });
        let sizes: Vec<usize> = sizes.collect();
        let ids: Vec<u64> = sizes.iter().map(|_| self.world.model.borrow_mut().fresh_id()).collect();
        let bodies: Vec<_> = ids.iter().zip(&sizes).map(|(id, len)| Message::body(*id, *len)).collect();
        let properties: Vec<String> = ids.iter().map(|id| Message::properties(*id)).collect();
        let properties: Vec<[&[u8]; 1]> = properties.iter().map(|text| [text.as_bytes()]).collect();
        let messages =
            bodies.iter().zip(&properties).map(|(body, properties)| message(queue, body, properties));
        let messages: Vec<_> = messages.collect();
        match self.shard.append(&messages) {
            Ok(appended) => self.staged(queue, &ids, &sizes, &appended),
            Err(error) => self.refused_append(&error),
        }
    }

    fn staged(&self, queue: Queue, ids: &[u64], sizes: &[usize], appended: &Appended) {
        let messages = ids.iter().zip(sizes).zip(&appended.physical_offsets);
        let messages = messages.map(|((id, len), physical)| Message {
            id: *id,
            len: *len,
            physical: physical.get(),
            store_ms: appended.store_timestamp,
            end: appended.end.0,
        });
        self.world.model.borrow_mut().staged(queue, appended.first_queue_offset.0, messages);
    }

    fn refused_append(&self, error: &AppendError) {
        let expected = match error {
            AppendError::Busy { .. } => true,
            AppendError::DiskFull { .. } => {
                self.world.plan.quota || self.world.may(&[Fault::NoSpace, Fault::NoSpaceAnywhere])
            }
            _ => false,
        };
        assert!(expected, "an append was refused: {error}");
    }

    async fn read_anywhere(&self) {
        let random = self.env.random();
        let queue =
            Queue::all().nth((random % Queue::all().count() as u64) as usize).expect("within the count");
        let range = self.shard.queue_range(queue.topic(), QueueId(queue.id)).unwrap_or_default();
        let Some(offset) = (random >> 8).checked_rem(range.max.0 as u64) else { return };
        let gone = self.world.model.borrow().messages(queue).get(offset as usize).copied();
        if let Some(read) = self.read(queue, offset as i64).await
            && self.world.model.borrow().messages(queue).get(offset as usize).copied() == gone
            && self.world.model.borrow().half_deleted() != Some(queue.topic)
        {
            self.take(queue, offset as i64, &read);
        }
    }

    /// Deletes a topic, while nobody else uses it.
    async fn delete(&self) {
        let topic = (self.env.random() % 2) as usize;
        if self.world.model.borrow().half_deleted().is_some() {
            return;
        }
        self.world.model.borrow_mut().begin_delete(topic);
        self.until(|| self.world.model.borrow().is_settled()).await;
        match self.shard.delete_topic(super::model::TOPICS[topic]).await {
            Ok(()) => self.world.model.borrow_mut().end_delete(),
            Err(error) => {
                let full = error.kind() == std::io::ErrorKind::StorageFull;
                let expected = full
                    && (self.world.plan.quota || self.world.may(&[Fault::NoSpace, Fault::NoSpaceAnywhere]));
                assert!(expected, "a topic cannot be deleted: {error}");
                // The deletion is staged: it may become durable at any time.
                self.until(|| false).await;
            }
        }
    }

    async fn change_table(&self) {
        let (key, value) = self.world.table.borrow_mut().change(self.env.random());
        match value {
            Some(value) => self.table.put(&key, &value),
            None => self.table.delete(&key),
        }
        let target = self.world.table.borrow().changes();
        if self.env.random().is_multiple_of(2) && self.table.flush().await.is_ok() {
            self.world.table.borrow_mut().durable(target);
        }
    }
}

fn message<'a>(queue: Queue, body: &'a [u8], properties: &'a [&'a [u8]]) -> NewMessage<'a> {
    NewMessage {
        topic: queue.topic(),
        queue_id: QueueId(queue.id),
        flag: 7,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: HOST,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties,
    }
}
