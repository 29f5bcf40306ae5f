//! What clients do with a shard.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmq_engine::*;
use ringmq_env::Env;
use ringmq_env::sim::Fault;

use super::life::Life;
use super::model::{Message, PLAIN_TOPICS, Queue, Relation, TOPICS};

const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911);

impl Life {
    /// A client's operations.
    pub(super) async fn work(&self) {
        for _ in 0..self.world.plan.ops {
            match self.env.random() % 100 {
                0..50 => self.append(),
                50..58 => self.append_waiting(),
                58..64 => self.settle_some().await,
                64..66 => self.settle_again().await,
                66..80 => self.read_anywhere().await,
                80..84 => self.look_up().await,
                84..86 => {
                    self.shard.checkpoint().await;
                }
                86 => self.delete().await,
                87..91 => self.change_table().await,
                91..93 => self.retain().await,
                _ => self.env.sleep(Duration::from_micros(self.env.random() % 3000)).await,
            }
            if self.env.random().is_multiple_of(3) {
                self.env.sleep(Duration::from_micros(self.env.random() % 400)).await;
            }
        }
    }

    fn append(&self) {
        let random = self.env.random();
        let queue = Queue::plain(random);
        if self.world.model.borrow().half_deleted() == Some(queue.topic) {
            return;
        }
        let count = if (random >> 8).is_multiple_of(4) { 1 + (random >> 16) % 4 } else { 1 };
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft(Relation::default())).collect();
        let properties: Vec<[&[u8]; 1]> = drafts.iter().map(|draft| [draft.properties.as_bytes()]).collect();
        let messages =
            drafts.iter().zip(&properties).map(|(draft, properties)| message(queue, &draft.body, properties));
        let messages: Vec<_> = messages.collect();
        // Mostly by the handle that the topic had last, which may not hold any more.
        let mut handle = self.handles.borrow()[queue.topic];
        if random.is_multiple_of(4) {
            handle = self.shard.topic(queue.topic(), handle);
            self.handles.borrow_mut()[queue.topic] = handle;
        }
        match self.shard.append_known(Known { topic: handle, indexed: None }, &messages) {
            Ok(appended) => self.staged(queue, &drafts, &appended),
            Err(error) => self.refused_append(&error),
        }
    }

    /// A new message.
    pub(super) fn draft(&self, relation: Relation) -> Draft {
        let random = self.env.random();
        let most = if random.is_multiple_of(12) { 9_000 } else { 300 };
        let len = 8 + (random >> 8) as usize % most;
        let id = self.world.model.borrow_mut().fresh_id();
        Draft { id, body: Message::body(id, len), properties: Message::properties(id, relation), relation }
    }

    pub(super) fn staged(&self, queue: Queue, drafts: &[Draft], appended: &Appended) {
        let messages = drafts.iter().zip(&appended.physical_offsets).map(|(draft, physical)| Message {
            id: draft.id,
            len: draft.body.len(),
            physical: physical.get(),
            store_ms: appended.store_timestamp,
            end: appended.end.0,
            relation: draft.relation,
        });
        self.world.model.borrow_mut().staged(queue, appended.first_queue_offset.0, messages);
    }

    pub(super) fn refused_append(&self, error: &AppendError) {
        let expected = match error {
            AppendError::Busy { .. } => true,
            AppendError::DiskFull { .. } => self.may_lack_space(),
            _ => false,
        };
        assert!(expected, "an append was refused: {error}");
    }

    pub(super) fn may_lack_space(&self) -> bool {
        self.world.plan.quota || self.world.may(&[Fault::NoSpace, Fault::NoSpaceAnywhere])
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
        let topic = (self.env.random() % PLAIN_TOPICS as u64) as usize;
        if self.world.model.borrow().half_deleted().is_some() {
            return;
        }
        self.world.model.borrow_mut().begin_delete(topic);
        self.until(|| self.world.model.borrow().is_settled()).await;
        match self.shard.delete_topic(TOPICS[topic]).await {
            Ok(()) => self.world.model.borrow_mut().end_delete(),
            Err(error) => {
                let full = error.kind() == std::io::ErrorKind::StorageFull;
                assert!(full && self.may_lack_space(), "a topic cannot be deleted: {error}");
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

/// A message to be sent.
pub(super) struct Draft {
    pub(super) id: u64,
    pub(super) body: Vec<u8>,
    pub(super) properties: String,
    pub(super) relation: Relation,
}

pub(super) fn message<'a>(queue: Queue, body: &'a [u8], properties: &'a [&'a [u8]]) -> NewMessage<'a> {
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
