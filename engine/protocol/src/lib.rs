//! RocketMQ's remoting protocol, sans-I/O: frames, headers, bodies and the stored record.
