//! Which brokers are slow or gone at the moment (Java's `LatencyFaultTolerance`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use ringmq_protocol::body::MessageQueue;
use ringmq_protocol::codes::request;
use ringmq_protocol::headers::QueueHeader;
use tokio::time::Instant;

use super::Inner;
use crate::client::Instance;
use crate::error::CallError;
use crate::remoting::Request;
use crate::sync::lock;

/// Behind an answer that took this long, a broker is left alone for that long (ms).
const PAUSES: [(u64, u64); 7] =
    [(50, 0), (100, 0), (550, 2000), (1800, 5000), (3000, 6000), (5000, 10_000), (15_000, 30_000)];
/// What a failure counts as.
const FAILURE: Duration = Duration::from_secs(10);
/// How often brokers that were out of reach are tried.
const DETECT_INTERVAL: Duration = Duration::from_secs(3);
/// Time limit of such a try.
const DETECT_TIMEOUT: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
struct Fault {
    available_from: Instant,
    reachable: bool,
    /// What a try asks about.
    queue: MessageQueue,
}

/// What the last attempts at each broker were like.
#[derive(Debug, Default)]
pub(super) struct Faults {
    brokers: Mutex<HashMap<String, Fault>>,
}

impl Faults {
    /// Whether a broker answers fast enough, as far as is known.
    pub(super) fn is_available(&self, broker: &str) -> bool {
        lock(&self.brokers).get(broker).is_none_or(|fault| Instant::now() >= fault.available_from)
    }

    /// Whether a broker answers at all, as far as is known.
    pub(super) fn is_reachable(&self, broker: &str) -> bool {
        lock(&self.brokers).get(broker).is_none_or(|fault| fault.reachable)
    }

    /// An attempt ended, well or with this error.
    pub(super) fn ended(&self, queue: &MessageQueue, took: Duration, error: Option<&CallError>) {
        let reachable = match error {
            None => true,
            // The broker is alive, and says that it cannot.
            Some(CallError::Refused { .. } | CallError::BadAnswer { .. }) => true,
            Some(_) => false,
        };
        let available_from = Instant::now() + pause(if error.is_some() { FAILURE } else { took });
        let fault = Fault { available_from, reachable, queue: queue.clone() };
        lock(&self.brokers).insert(queue.broker_name.clone(), fault);
    }

    fn out_of_reach(&self) -> Vec<MessageQueue> {
        let brokers = lock(&self.brokers);
        brokers.values().filter(|fault| !fault.reachable).map(|fault| fault.queue.clone()).collect()
    }

    fn found(&self, broker: &str) {
        if let Some(fault) = lock(&self.brokers).get_mut(broker) {
            fault.reachable = true;
        }
    }
}

fn pause(took: Duration) -> Duration {
    let step = PAUSES.iter().rev().find(|(latency, _)| took.as_millis() as u64 >= *latency);
    Duration::from_millis(step.map_or(0, |(_, pause)| *pause))
}

/// Tries brokers that were out of reach until the producer goes.
pub(super) fn start_detector(instance: &Arc<Instance>, inner: Weak<Inner>) {
    let stop = instance.stop().clone();
    let detecting = async move {
        loop {
            tokio::time::sleep(DETECT_INTERVAL).await;
            let Some(inner) = inner.upgrade() else { return };
            let Some(faults) = &inner.faults else { return };
            for queue in faults.out_of_reach() {
                if answers(&inner.client.instance, &queue).await {
                    faults.found(&queue.broker_name);
                }
            }
        }
    };
    instance.tasks().spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = detecting => {}
        }
    });
}

/// Any answer will do.
async fn answers(instance: &Instance, queue: &MessageQueue) -> bool {
    let Some(addr) = instance.routes.master(&queue.broker_name) else { return false };
    let header = QueueHeader { topic: &queue.topic, queue_id: queue.queue_id };
    let request = Request::new(request::GET_MAX_OFFSET, &header);
    instance.remoting.call(&addr, &request, DETECT_TIMEOUT).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(broker: &str) -> MessageQueue {
        MessageQueue { broker_name: broker.to_owned(), ..MessageQueue::default() }
    }

    #[test]
    fn pauses_are_javas() {
        let pauses = [0, 60, 550, 1799, 1800, 3000, 5001, 60_000].map(|ms| pause(Duration::from_millis(ms)));
        assert_eq!(pauses.map(|pause| pause.as_secs()), [0, 0, 2, 2, 5, 6, 10, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_brokers_come_back() {
        let faults = Faults::default();
        assert!(faults.is_available("a") && faults.is_reachable("a"));
        faults.ended(&queue("a"), Duration::from_millis(600), None);
        assert!(!faults.is_available("a") && faults.is_reachable("a"));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(faults.is_available("a"));
        faults.ended(&queue("a"), Duration::ZERO, Some(&CallError::Shutdown));
        assert!(!faults.is_available("a") && !faults.is_reachable("a"));
        assert_eq!(faults.out_of_reach(), [queue("a")]);
        faults.found("a");
        assert!(faults.is_reachable("a") && !faults.is_available("a"));
    }
}
