//! Who of this process is in which group.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use ringmq_protocol::body::{
    ConsumeMessageDirectlyResult, ConsumerData, ConsumerRunningInfo, GetConsumerStatusBody, ProducerData,
    ResetOffsetBody,
};

use crate::env::BoxFuture;
use crate::message::MessageExt;
use crate::producer::TransactionState;
use crate::sync::lock;

/// A consumer as the client sees it.
pub(crate) trait Member: Send + Sync {
    /// What heartbeats tell about it.
    fn consumer_data(&self) -> ConsumerData;
    /// The group's members or subscriptions changed.
    fn rebalance_now(&self);
    /// What an operator asks for (307).
    fn running_info(&self) -> ConsumerRunningInfo;
    /// How far it has come in a topic (221).
    fn status(&self, topic: &str) -> GetConsumerStatusBody;
    /// An operator moves the group (220).
    fn reset(self: Arc<Self>, offsets: &ResetOffsetBody);
    /// An operator wants a message consumed, whatever its offset (309).
    fn consume_directly(
        self: Arc<Self>,
        message: MessageExt,
    ) -> BoxFuture<'static, ConsumeMessageDirectlyResult>;
}

/// A transaction producer as the client sees it.
pub(crate) trait TransactionCheck: Send + Sync {
    /// How did the transaction of this message end?
    fn check(&self, message: MessageExt) -> BoxFuture<'static, TransactionState>;
}

/// The producers of a group.
#[derive(Default)]
struct Producers {
    count: usize,
    /// That of the transaction producer that was started last.
    checker: Option<Arc<dyn TransactionCheck>>,
}

/// Every producer and consumer of a client, by group.
#[derive(Default)]
pub(super) struct Members {
    producers: Mutex<BTreeMap<String, Producers>>,
    consumers: Mutex<HashMap<String, Arc<dyn Member>>>,
}

impl Members {
    pub(super) fn add_producer(&self, group: &str, checker: Option<Arc<dyn TransactionCheck>>) {
        let mut producers = lock(&self.producers);
        let entry = producers.entry(group.to_owned()).or_default();
        entry.count += 1;
        entry.checker = checker.or(entry.checker.take());
    }

    pub(super) fn remove_producer(&self, group: &str) {
        let mut producers = lock(&self.producers);
        let Some(entry) = producers.get_mut(group) else { return };
        entry.count -= 1;
        if entry.count == 0 {
            producers.remove(group);
        }
    }

    pub(super) fn has_producer(&self, group: &str) -> bool {
        lock(&self.producers).contains_key(group)
    }

    pub(super) fn checker(&self, group: &str) -> Option<Arc<dyn TransactionCheck>> {
        lock(&self.producers).get(group)?.checker.clone()
    }

    pub(super) fn producer_data(&self) -> Vec<ProducerData> {
        lock(&self.producers).keys().map(|group| ProducerData { group_name: group.clone() }).collect()
    }

    /// Adds a consumer; false when the group has one already.
    pub(super) fn add_consumer(&self, group: &str, member: Arc<dyn Member>) -> bool {
        let mut consumers = lock(&self.consumers);
        let free = !consumers.contains_key(group);
        if free {
            consumers.insert(group.to_owned(), member);
        }
        free
    }

    /// Removes this consumer, and not another one that has taken its place.
    pub(super) fn remove_consumer<M: Member>(&self, group: &str, member: &M) {
        let mut consumers = lock(&self.consumers);
        if consumers.get(group).is_some_and(|found| std::ptr::addr_eq(Arc::as_ptr(found), member)) {
            consumers.remove(group);
        }
    }

    pub(super) fn consumer(&self, group: &str) -> Option<Arc<dyn Member>> {
        lock(&self.consumers).get(group).cloned()
    }

    pub(super) fn consumers(&self) -> Vec<Arc<dyn Member>> {
        lock(&self.consumers).values().cloned().collect()
    }
}
