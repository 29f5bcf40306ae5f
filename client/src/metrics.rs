//! What the client counts and measures, for a program that watches it (feature `metrics`).
//!
//! Measurements go to the facade of the crate [`metrics`](https://docs.rs/metrics): the program installs a recorder
//! (an exporter for Prometheus, OpenTelemetry, StatsD) before it starts producers and consumers, and its own metrics
//! and the client's are in one place. A facade, because a library must not choose the exporter for a program, and this
//! one because its calls cost next to nothing without a recorder and it brings no runtime with it, as OpenTelemetry's
//! does. Names and labels are those of RocketMQ's own clients where these have the same metric.
//!
//! | metric | kind | labels | what |
//! |---|---|---|---|
//! | `rocketmq_send_cost_time` | histogram, ms | `topic`, `invocation_status` (`success`, `failure`) | a send, with all its attempts; its count is the rate of sends |
//! | `rocketmq_client_send_retries_total` | counter | `topic` | attempts of sends behind the first |
//! | `rocketmq_client_request_time` | histogram, ms | `code` (RocketMQ's number), `invocation_status` | a request, from the call to the answer; refusals are answers |
//! | `rocketmq_client_requests_in_flight` | gauge | | requests that wait for their answers or for room in a connection |
//! | `rocketmq_delivery_latency` | histogram, ms | `topic`, `consumer_group` | from the store at the broker until the message is here |
//! | `rocketmq_process_time` | histogram, ms | `topic`, `consumer_group`, `invocation_status` | a listener with a batch |
//! | `rocketmq_client_consumed_messages_total` | counter | `topic`, `consumer_group`, `invocation_status` | messages that a listener was through with |
//! | `rocketmq_client_pull_time` | histogram, ms | `topic`, `consumer_group` | a pull that brought messages |
//! | `rocketmq_client_pulled_messages_total` | counter | `topic`, `consumer_group` | messages that pulls brought |
//! | `rocketmq_client_returned_messages_total` | counter | `topic`, `consumer_group`, `to` (`broker`, `retry_topic`, `here`) | messages that failed, by where they were put to be tried again |
//! | `rocketmq_consumer_cached_messages` | gauge | `topic`, `consumer_group` | messages that are held and not done, set with each `persist_interval` |
//! | `rocketmq_consumer_cached_bytes` | gauge | `topic`, `consumer_group` | the bytes of their bodies |
//! | `rocketmq_client_queues` | gauge | `topic`, `consumer_group` | queues that are this member's |
//! | `rocketmq_client_rebalances_total` | counter | `consumer_group` | rounds of dividing the queues |
//! | `rocketmq_client_queue_changes_total` | counter | `topic`, `consumer_group` | rounds that gave this member a queue or took one |

use std::time::Duration;

#[cfg(feature = "metrics")]
pub(crate) use facade::*;
#[cfg(not(feature = "metrics"))]
pub(crate) use nothing::*;

/// A request's way: in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(());

/// Where a message goes that failed.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
pub(crate) enum Returned {
    ToBroker,
    ToRetryTopic,
    Here,
}

#[cfg(feature = "metrics")]
mod facade {
    use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

    use super::{Duration, InFlight, Returned};

    fn ms(time: Duration) -> f64 {
        time.as_secs_f64() * 1e3
    }

    fn status(success: bool) -> &'static str {
        if success { "success" } else { "failure" }
    }

    /// A send ended.
    pub(crate) fn sent(topic: &str, took: Duration, success: bool) {
        let labels = [("topic", topic.to_owned()), ("invocation_status", status(success).to_owned())];
        histogram!("rocketmq_send_cost_time", &labels).record(ms(took));
    }

    /// A send was tried again.
    pub(crate) fn send_retried(topic: &str) {
        counter!("rocketmq_client_send_retries_total", "topic" => topic.to_owned()).increment(1);
    }

    /// A request was answered, or was not.
    pub(crate) fn called(code: i32, took: Duration, answered: bool) {
        let labels = [("code", code.to_string()), ("invocation_status", status(answered).to_owned())];
        histogram!("rocketmq_client_request_time", &labels).record(ms(took));
    }

    /// A request is on its way.
    pub(crate) fn in_flight() -> InFlight {
        gauge!("rocketmq_client_requests_in_flight").increment(1.0);
        InFlight(())
    }

    impl Drop for InFlight {
        fn drop(&mut self) {
            gauge!("rocketmq_client_requests_in_flight").decrement(1.0);
        }
    }

    /// The queues of a group were divided.
    pub(crate) fn rebalanced(group: &str) {
        counter!("rocketmq_client_rebalances_total", "consumer_group" => group.to_owned()).increment(1);
    }

    /// What is measured of one topic of a consumer; labels are put together once.
    pub(crate) struct TopicMeters {
        delivery: Histogram,
        /// With success, and without.
        process: [Histogram; 2],
        consumed: [Counter; 2],
        pull: Histogram,
        pulled: Counter,
        returned: [Counter; 3],
        changes: Counter,
        cached: [Gauge; 2],
        queues: Gauge,
    }

    impl std::fmt::Debug for TopicMeters {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("TopicMeters")
        }
    }

    impl TopicMeters {
        pub(crate) fn new(group: &str, topic: &str) -> TopicMeters {
            let labels = || vec![("topic", topic.to_owned()), ("consumer_group", group.to_owned())];
            let with = |name, value: &str| [labels(), vec![(name, value.to_owned())]].concat();
            let both = [true, false].map(|success| with("invocation_status", status(success)));
            TopicMeters {
                delivery: histogram!("rocketmq_delivery_latency", &labels()),
                process: both.each_ref().map(|labels| histogram!("rocketmq_process_time", labels)),
                consumed: both
                    .each_ref()
                    .map(|labels| counter!("rocketmq_client_consumed_messages_total", labels)),
                pull: histogram!("rocketmq_client_pull_time", &labels()),
                pulled: counter!("rocketmq_client_pulled_messages_total", &labels()),
                returned: ["broker", "retry_topic", "here"]
                    .map(|to| counter!("rocketmq_client_returned_messages_total", &with("to", to))),
                changes: counter!("rocketmq_client_queue_changes_total", &labels()),
                cached: [
                    gauge!("rocketmq_consumer_cached_messages", &labels()),
                    gauge!("rocketmq_consumer_cached_bytes", &labels()),
                ],
                queues: gauge!("rocketmq_client_queues", &labels()),
            }
        }

        pub(crate) fn pulled(&self, messages: usize, took: Duration) {
            self.pull.record(ms(took));
            self.pulled.increment(messages as u64);
        }

        /// A message came that was stored at `since_ms`.
        pub(crate) fn delivered(&self, now_ms: i64, since_ms: i64) {
            self.delivery.record((now_ms - since_ms).max(0) as f64);
        }

        pub(crate) fn consumed(&self, messages: usize, took: Duration, success: bool) {
            self.process[usize::from(!success)].record(ms(took));
            self.consumed[usize::from(!success)].increment(messages as u64);
        }

        pub(crate) fn returned(&self, to: Returned, messages: usize) {
            self.returned[to as usize].increment(messages as u64);
        }

        pub(crate) fn changed(&self) {
            self.changes.increment(1);
        }

        pub(crate) fn holds(&self, queues: usize, messages: usize, bytes: usize) {
            self.queues.set(queues as f64);
            self.cached[0].set(messages as f64);
            self.cached[1].set(bytes as f64);
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod nothing {
    use super::{Duration, InFlight, Returned};

    pub(crate) fn sent(_topic: &str, _took: Duration, _success: bool) {}
    pub(crate) fn send_retried(_topic: &str) {}
    pub(crate) fn called(_code: i32, _took: Duration, _answered: bool) {}
    pub(crate) fn in_flight() -> InFlight {
        InFlight(())
    }
    pub(crate) fn rebalanced(_group: &str) {}

    /// Measures nothing.
    #[derive(Debug)]
    pub(crate) struct TopicMeters;

    impl TopicMeters {
        pub(crate) fn new(_group: &str, _topic: &str) -> TopicMeters {
            TopicMeters
        }
        pub(crate) fn pulled(&self, _messages: usize, _took: Duration) {}
        pub(crate) fn delivered(&self, _now_ms: i64, _since_ms: i64) {}
        pub(crate) fn consumed(&self, _messages: usize, _took: Duration, _success: bool) {}
        pub(crate) fn returned(&self, _to: Returned, _messages: usize) {}
        pub(crate) fn changed(&self) {}
        pub(crate) fn holds(&self, _queues: usize, _messages: usize, _bytes: usize) {}
    }
}

#[cfg(all(test, feature = "metrics"))]
pub(crate) mod tests_support {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString,
        Unit,
    };

    use crate::sync::lock;

    type Values = Arc<Mutex<BTreeMap<String, f64>>>;

    /// Values by name and labels; of a histogram, how many there were.
    #[derive(Debug, Default)]
    pub(crate) struct Recorder(Values);

    struct One(Values, String);

    impl One {
        fn change(&self, change: impl FnOnce(f64) -> f64) {
            let mut values = lock(&self.0);
            let value = values.entry(self.1.clone()).or_default();
            *value = change(*value);
        }
    }

    impl CounterFn for One {
        fn increment(&self, value: u64) {
            self.change(|now| now + value as f64);
        }
        fn absolute(&self, value: u64) {
            self.change(|_| value as f64);
        }
    }

    impl GaugeFn for One {
        fn increment(&self, value: f64) {
            self.change(|now| now + value);
        }
        fn decrement(&self, value: f64) {
            self.change(|now| now - value);
        }
        fn set(&self, value: f64) {
            self.change(|_| value);
        }
    }

    impl HistogramFn for One {
        fn record(&self, _value: f64) {
            self.change(|now| now + 1.0);
        }
    }

    impl Recorder {
        pub(crate) fn value(&self, name: &str) -> Option<f64> {
            lock(&self.0).get(name).copied()
        }

        fn one(&self, key: &Key) -> Arc<One> {
            let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
            Arc::new(One(self.0.clone(), key.name().to_owned() + &labels.collect::<String>()))
        }
    }

    impl metrics::Recorder for Recorder {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.one(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.one(key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.one(key))
        }
    }
}
