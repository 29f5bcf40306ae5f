//! Heartbeats: brokers learn who is there, and forget who is silent for two minutes.

use std::sync::Arc;
use std::time::Duration;

use ringmq_protocol::body::HeartbeatData;
use ringmq_protocol::codes::request;
use ringmq_protocol::headers::UnregisterClientHeader;
use ringmq_protocol::json::{self, Dialect};
use tokio::task::JoinSet;

use super::Instance;
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

impl Instance {
    /// A broker does not know this client, because it was restarted or forgot it: it hears from it soon.
    pub(crate) fn heartbeat_soon(&self) {
        self.beat_soon.notify_one();
    }

    /// Tells every broker in use about the producers and consumers of this client: the masters when it has only
    /// producers. Brokers are told at the same time, each within the time limit of a call; failures are logged, for
    /// the next heartbeat comes soon.
    pub(crate) async fn heartbeat(self: &Arc<Self>) {
        let data = self.heartbeat_data();
        if data.consumer_data_set.is_empty() && data.producer_data_set.is_empty() {
            return;
        }
        let masters_only = data.consumer_data_set.is_empty();
        let request = Request::bodied(request::HEART_BEAT, json::to_vec(&data, Dialect::Java));
        let mut beats = JoinSet::new();
        for addr in self.routes.addrs(masters_only) {
            lock(&self.introduced).insert(addr.clone());
            let (instance, request) = (self.clone(), request.clone());
            beats.spawn(async move {
                let timeout = instance.config.call_timeout;
                if let Err(error) = instance.remoting.call_ok(&addr, &request, timeout).await {
                    tracing::warn!(target: "ringmq_client::heartbeat", %error, "a heartbeat failed");
                }
            });
        }
        while beats.join_next().await.is_some() {}
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

    fn heartbeat_data(&self) -> HeartbeatData {
        HeartbeatData {
            client_id: self.client_id.clone(),
            consumer_data_set: self.members.consumers().iter().map(|m| m.consumer_data()).collect(),
            producer_data_set: self.members.producer_data(),
            ..HeartbeatData::default()
        }
    }

    /// Tells every broker in use that this client left a group. A broker that cannot be told finds out by itself.
    pub(crate) async fn unregister(self: &Arc<Self>, producer: Option<&str>, consumer: Option<&str>) {
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
