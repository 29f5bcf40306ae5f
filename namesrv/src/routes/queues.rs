//! A topic's queues, by the names of the brokers that have it.

use std::rc::Rc;

use smallvec::SmallVec;

use super::QueueData;

/// Sorted by broker name. A name server has as many of these as there are topics, most of them on one broker: its entry
/// lies in the place, and brokers' names are shared.
#[derive(Debug, Default)]
pub(super) struct TopicQueues(SmallVec<[(Rc<str>, QueueData); 1]>);

impl TopicQueues {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &QueueData)> {
        self.0.iter().map(|(broker, queue)| (&**broker, queue))
    }

    pub fn contains(&self, broker: &str) -> bool {
        self.find(broker).is_ok()
    }

    pub fn get_mut(&mut self, broker: &str) -> Option<&mut QueueData> {
        let at = self.find(broker).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Puts the queues in, or in the place of those of that broker.
    pub fn insert(&mut self, broker: &Rc<str>, queue: QueueData) {
        match self.find(broker) {
            Ok(at) => self.0[at].1 = queue,
            Err(at) => self.0.insert(at, (broker.clone(), queue)),
        }
    }

    pub fn remove(&mut self, broker: &str) {
        if let Ok(at) = self.find(broker) {
            self.0.remove(at);
        }
    }

    pub fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.0.retain(|(broker, _)| keeps(broker));
    }

    fn find(&self, broker: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| (**own).cmp(broker))
    }
}
