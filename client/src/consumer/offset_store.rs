//! How far the group has come in each queue: at the brokers in clustering, in a local file in broadcasting.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ringmq_protocol::body::MessageQueue;

use super::offset_file::OffsetFile;
use crate::client::Instance;
use crate::error::CallError;
use crate::sync::lock;

/// The offset of a queue that this consumer has.
#[derive(Clone, Copy, Debug)]
struct Progress {
    offset: i64,
    /// What was last told to the broker.
    told: Option<i64>,
}

/// Where offsets are kept.
enum Place {
    Brokers,
    File(Arc<OffsetFile>),
}

/// The offsets of a consumer.
pub(crate) struct OffsetStore {
    instance: Arc<Instance>,
    group: String,
    table: Mutex<HashMap<MessageQueue, Progress>>,
    place: Place,
}

impl OffsetStore {
    pub(crate) fn remote(instance: Arc<Instance>, group: &str) -> OffsetStore {
        OffsetStore::new(instance, group, Place::Brokers)
    }

    pub(crate) fn local(instance: Arc<Instance>, group: &str, path: PathBuf) -> OffsetStore {
        OffsetStore::new(instance, group, Place::File(Arc::new(OffsetFile::new(path))))
    }

    fn new(instance: Arc<Instance>, group: &str, place: Place) -> OffsetStore {
        OffsetStore { instance, group: group.to_owned(), table: Mutex::default(), place }
    }

    /// Messages before `offset` are done. Never goes back.
    pub(crate) fn advance(&self, queue: &MessageQueue, offset: i64) {
        let mut table = lock(&self.table);
        match table.get_mut(queue) {
            Some(progress) => progress.offset = progress.offset.max(offset),
            None => {
                table.insert(queue.clone(), Progress { offset, told: None });
            }
        }
    }

    /// The broker moved the queue's end: the one case in which the offset may go back.
    pub(crate) fn reset(&self, queue: &MessageQueue, offset: i64) {
        lock(&self.table).insert(queue.clone(), Progress { offset, told: None });
    }

    /// The offset that this consumer has come to; `None` as long as nothing is done.
    pub(crate) fn get(&self, queue: &MessageQueue) -> Option<i64> {
        lock(&self.table).get(queue).map(|progress| progress.offset)
    }

    /// The stored offset; `None` when there is none.
    pub(crate) async fn read(&self, queue: &MessageQueue) -> Result<Option<i64>, CallError> {
        match &self.place {
            Place::Brokers => self.instance.consumer_offset(&self.group, queue).await,
            Place::File(file) => {
                let (file, queue) = (file.clone(), queue.clone());
                let read = tokio::task::spawn_blocking(move || file.read().get(&queue).copied());
                Ok(read.await.unwrap_or_default())
            }
        }
    }

    /// Stores what has changed. With `wait` brokers have it when this returns, as far as they can be reached.
    /// Queues that are not `owned` are another member's by now, and are forgotten; those that are not `held` any more
    /// are told when they leave.
    pub(crate) async fn persist_all(&self, held: &[MessageQueue], owned: &[MessageQueue], wait: bool) {
        let ours: HashSet<&MessageQueue> = owned.iter().collect();
        lock(&self.table).retain(|queue, _| ours.contains(queue));
        match &self.place {
            Place::Brokers => {
                for queue in held {
                    self.tell(queue, wait).await;
                }
            }
            Place::File(file) => {
                self.write(file.clone()).await;
            }
        }
    }

    async fn write(&self, file: Arc<OffsetFile>) {
        let table = self.offsets();
        let written = tokio::task::spawn_blocking(move || file.write(table)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(target: "ringmq_client::offsets", %error, "offsets were not written");
        }
    }

    /// Stores the offset of one queue; brokers have it when this returns, if they can be reached.
    pub(crate) async fn persist(&self, queue: &MessageQueue) {
        match &self.place {
            Place::Brokers => self.tell(queue, true).await,
            Place::File(file) => self.write(file.clone()).await,
        }
    }

    /// Forgets the offset of a queue.
    pub(crate) fn forget(&self, queue: &MessageQueue) {
        lock(&self.table).remove(queue);
    }

    fn offsets(&self) -> BTreeMap<MessageQueue, i64> {
        lock(&self.table).iter().map(|(queue, progress)| (queue.clone(), progress.offset)).collect()
    }

    async fn tell(&self, queue: &MessageQueue, wait: bool) {
        let Some(progress) = lock(&self.table).get(queue).copied() else { return };
        // What was told without waiting may have been lost, so it is told again when it matters.
        if !wait && progress.told == Some(progress.offset) {
            return;
        }
        match self.instance.commit_offset(&self.group, queue, progress.offset, wait).await {
            Ok(()) => {
                if let Some(now) = lock(&self.table).get_mut(queue) {
                    now.told = Some(progress.offset);
                }
            }
            Err(error) => {
                tracing::warn!(target: "ringmq_client::offsets", ?queue, %error, "an offset was not stored");
            }
        }
    }
}
