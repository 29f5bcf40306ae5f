//! The RocketMQ broker: connections, processors, sessions, subscriptions, offsets, long polling.
