//! Heartbeats: brokers learn who is there, and forget who is silent for two minutes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringmq_protocol::body::HeartbeatData;
use ringmq_protocol::codes::request;
use ringmq_protocol::headers::{UnregisterClientHeader, heartbeat};
use ringmq_protocol::json::{self, Dialect};
use ringmq_protocol::properties::java_hash;
use tokio::task::JoinSet;

use super::Instance;
use crate::error::CallError;
use crate::remoting::Request;
use crate::sync::lock;

/// Shortest time between two heartbeats that failures ask for.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// Sends heartbeats until the client stops.
pub(super) fn start(instance: &Arc<Instance>, interval: Duration) {
    let (stop, weak) = (instance.stop().clone(), Arc::downgrade(instance));
    let beating = async move {
        loop {
            tokio::time::sleep(MIN_PAUSE).await;
            let Some(instance) = weak.upgrade() else { return };
            // Early or in time, it is the same heartbeat.
            let _ = tokio::time::timeout(interval, instance.beat_soon.notified()).await;
            instance.heartbeat().await;
        }
    };
    instance.tasks().spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = beating => {}
        }
    });
}

/// A heartbeat, encoded once for all brokers.
struct Pulse {
    whole: Request<'static>,
    /// Without the subscriptions (V2).
    short: Option<Request<'static>>,
    fingerprint: i32,
}

impl Pulse {
    fn new(mut data: HeartbeatData, v2: bool) -> Pulse {
        let request =
            |data: &HeartbeatData| Request::bodied(request::HEART_BEAT, json::to_vec(data, Dialect::Java));
        if !v2 {
            return Pulse { whole: request(&data), short: None, fingerprint: 0 };
        }
        data.heartbeat_fingerprint = fingerprint(&data);
        let whole = request(&data);
        data.without_sub = true;
        data.consumer_data_set.iter_mut().for_each(|consumer| consumer.subscription_data_set.clear());
        Pulse { whole, short: Some(request(&data)), fingerprint: data.heartbeat_fingerprint }
    }
}

/// A number for everything but the versions of the subscriptions, as Java's; never 0, which stands for none.
fn fingerprint(data: &HeartbeatData) -> i32 {
    let mut timeless = data.clone();
    let subscriptions = timeless.consumer_data_set.iter_mut().flat_map(|c| &mut c.subscription_data_set);
    subscriptions.for_each(|subscription| subscription.sub_version = 0);
    let text = json::to_vec(&timeless, Dialect::Java);
    java_hash(&String::from_utf8_lossy(&text)) | 1
}

impl Instance {
    /// A broker does not know this client, because it was restarted or forgot it: it hears from it soon.
    pub(crate) fn heartbeat_soon(&self) {
        self.beat_soon.notify_one();
    }

    /// The next heartbeats tell everything again: a broker does not have the subscriptions as they are. One that is under
    /// way may still tell of older ones.
    pub(crate) fn forget_told(&self) {
        self.untold.store(true, Ordering::Release);
    }

    /// Tells every broker in use about the producers and consumers of this client: the masters when it has only
    /// producers. Brokers are told at the same time, each within the time limit of a call; failures are logged, for
    /// the next heartbeat comes soon.
    pub(crate) async fn heartbeat(self: &Arc<Self>) {
        let _telling = self.telling.lock().await;
        if self.untold.swap(false, Ordering::AcqRel) {
            lock(&self.fingerprints).clear();
        }
        let data = self.heartbeat_data();
        if data.consumer_data_set.is_empty() && data.producer_data_set.is_empty() {
            return;
        }
        let masters_only = data.consumer_data_set.is_empty();
        let pulse = Arc::new(Pulse::new(data, self.config.heartbeat_v2));
        let mut beats = JoinSet::new();
        for addr in self.routes.addrs(masters_only) {
            lock(&self.introduced).insert(addr.clone());
            let (instance, pulse) = (self.clone(), pulse.clone());
            beats.spawn(async move {
                if let Err(error) = instance.beat(&addr, &pulse).await {
                    lock(&instance.fingerprints).remove(&addr);
                    tracing::warn!(target: "ringmq_client::heartbeat", %error, "a heartbeat failed");
                }
            });
        }
        while beats.join_next().await.is_some() {}
    }

    /// One heartbeat to one broker; subscriptions are left out if it has these already and still says so.
    async fn beat(&self, addr: &Arc<str>, pulse: &Pulse) -> Result<(), CallError> {
        let timeout = self.config.call_timeout;
        let known = lock(&self.fingerprints).get(addr).copied();
        if let Some(short) = pulse.short.as_ref().filter(|_| known == Some(pulse.fingerprint)) {
            let answer = self.remoting.call_ok(addr, short, timeout).await?;
            if answer.get(heartbeat::IS_SUB_CHANGE) == Some("false") {
                return Ok(());
            }
        }
        let answer = self.remoting.call_ok(addr, &pulse.whole, timeout).await?;
        if answer.get(heartbeat::IS_SUPPORT_HEART_BEAT_V2) == Some("true") {
            lock(&self.fingerprints).insert(addr.clone(), pulse.fingerprint);
        }
        Ok(())
    }

    /// Sees that every broker in use has heard of everybody who is here.
    pub(crate) async fn introduce(self: &Arc<Self>) {
        let strangers = {
            let introduced = lock(&self.introduced);
            self.routes.addrs(true).iter().any(|addr| !introduced.contains(addr))
        };
        if strangers {
            self.heartbeat().await;
        }
    }

    pub(crate) fn heartbeat_data(&self) -> HeartbeatData {
        HeartbeatData {
            client_id: self.client_id.clone(),
            consumer_data_set: self.members.consumers().iter().map(|m| m.consumer_data()).collect(),
            producer_data_set: self.members.producer_data(),
            ..HeartbeatData::default()
        }
    }

    /// Tells every broker in use that this client left a group. A broker that cannot be told finds out by itself.
    pub(crate) async fn unregister(self: &Arc<Self>, producer: Option<&str>, consumer: Option<&str>) {
        let _telling = self.telling.lock().await;
        let mut calls = JoinSet::new();
        for addr in self.routes.addrs(false) {
            let (instance, producer, consumer) =
                (self.clone(), producer.map(str::to_owned), consumer.map(str::to_owned));
            calls.spawn(async move {
                let header = UnregisterClientHeader {
                    client_id: &instance.client_id,
                    producer_group: producer.as_deref(),
                    consumer_group: consumer.as_deref(),
                };
                let request = Request::new(request::UNREGISTER_CLIENT, &header);
                let timeout = instance.config.call_timeout;
                if let Err(error) = instance.remoting.call_ok(&addr, &request, timeout).await {
                    tracing::debug!(target: "ringmq_client::heartbeat", %error, "unregistering failed");
                }
            });
        }
        while calls.join_next().await.is_some() {}
    }
}
