//! The RocketMQ name server: route table and broker liveness.
