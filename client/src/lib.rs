//! A RocketMQ client library for tokio programs, for RingMQ and the Java broker alike.
//!
//! ```no_run
//! use ringmq_client::{Batch, Client, ClientConfig, Consumed, Message};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientConfig::new("127.0.0.1:9876")).await?;
//!
//! let producer = client.producer("my_producers").start()?;
//! let receipt = producer.send(Message::builder("Orders").tag("new").body("…").build()?).await?;
//! println!("{} is at offset {}", receipt.msg_id, receipt.queue_offset);
//!
//! let consumer = client
//!     .push_consumer("my_consumers")
//!     .subscribe("Orders", "new || changed")
//!     .start(|batch: Batch| async move {
//!         batch.iter().for_each(|message| println!("{:?}", message.body));
//!         Consumed::All
//!     })
//!     .await?;
//!
//! consumer.shutdown().await;
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The directory `examples` has whole programs: `quickstart`, `orderly`, `broadcast`.
//!
//! # What to rely on
//!
//! - **At least once.** A message is committed after its listener is done with it, or after the broker has taken it
//!   back for a retry; a crash in between delivers it again. In orderly consumption one listener at a time has a
//!   queue, in the whole group, as long as no member stalls for longer than the broker keeps its lock (60 s).
//! - **Nothing grows without bound.** Connections, inboxes, process queues and listeners all have limits; behind
//!   them callers wait, within their deadlines.
//! - **Nothing runs on.** [`PushConsumer::shutdown`] and [`Client::shutdown`] return when no task of theirs runs;
//!   dropping the last handle stops everything too, only without waiting and without storing progress.
//! - **Cancellation.** Dropping the future of a call forgets its answer, and what it asked for may or may not have
//!   happened. No call holds a lock or loses another caller's answer by being dropped.
//! - **Errors** are one enum for each operation; they tell the peer's address, its code and its own words, and
//!   whether it is worth trying again ([`SendError::is_retryable`], [`CallError::is_retryable`]).
//! - **Time and network** can be replaced: timers are tokio's own, which a paused runtime drives, and [`env`] has
//!   the traits for the rest.
//!
//! Logs go through `tracing`, one target for each part: `ringmq_client::remoting`, `::route`, `::heartbeat`,
//! `::producer`, `::consumer`, `::rebalance`, `::offsets`.
//!
//! # Java's classes and ours
//!
//! | Java | here | not there yet |
//! |---|---|---|
//! | `MQClientInstance`, `MQClientManager` | [`Client`], shared by what is made from it | heartbeats v2; name server addresses by HTTP or DNS |
//! | `MQClientAPIImpl`, `NettyRemotingClient` | inside [`Client`] | TLS, VIP channel, RPC hooks (ACL), SOCKS proxies |
//! | `ClientConfig` | [`ClientConfig`] | namespaces, stream requests |
//! | `DefaultMQProducer` | [`Producer`]: send, to a queue, with selector, oneway, batch | auto-batching, latency fault tolerance, request-reply, recall, trace |
//! | `TransactionMQProducer` | | all of it |
//! | `Message`, `MessageAccessor` | [`Message`] and its builder | |
//! | `MessageExt`, `MessageDecoder` | [`MessageExt`] | inner batches |
//! | `Compressor` | [`Compression`]: zlib, LZ4, Zstandard (feature `zstd`) | |
//! | `SelectMessageQueueByHash`, `…ByRandom` | [`producer::ByHash`], [`producer::AtRandom`], closures | |
//! | `SendResult`, `SendStatus` | [`SendReceipt`], [`SendStatus`] | |
//! | `MQClientException`, `MQBrokerException`, `Remoting…Exception` | [`SendError`], [`consumer::ConsumerError`], [`RouteError`], [`CallError`] | |
//! | `DefaultMQPushConsumer` | [`PushConsumer`]: by tag, subscriptions that change, suspend and resume | SQL92, POP, server-side assignment, trace |
//! | `MessageListenerConcurrently` | [`consumer::ConcurrentListener`], async closures | |
//! | `MessageListenerOrderly` | [`consumer::OrderlyListener`], async closures | manual commit and rollback |
//! | `ConsumeFromWhere` | [`ConsumeFrom`] | the three deprecated ones |
//! | `PullMessageService`, `PullAPIWrapper`, `ProcessQueue` | inside [`PushConsumer`] | |
//! | `ConsumeMessage…Service` | inside [`PushConsumer`] | the POP ones |
//! | `RebalanceService`, `RebalanceImpl` | inside [`PushConsumer`] | |
//! | `AllocateMessageQueueStrategy` and its six classes | [`allocate`] | |
//! | `OffsetStore` (`Remote…`, `LocalFile…`) | inside [`PushConsumer`] | |
//! | `DefaultLitePullConsumer` | [`LitePullConsumer`]: subscribe and assign, poll, seek, pause, commit | as a `Stream`, SQL92 |
//! | `DefaultMQPullConsumer` (deprecated) | | all of it |
//! | `DefaultMQAdminExt` | | all of it |
//! | `ClientRemotingProcessor` | members changed (40), offset reset (220), status (221), running info (307, without rates and stacks); anything else gets code 3 | 39, 309, 326 |
//! | `ClientLogger` | `tracing` | the initialiser, metrics |

#[cfg(feature = "acl")]
pub mod acl;
pub mod admin;
pub mod allocate;
mod caught;
mod client;
mod config;
pub mod consumer;
pub mod env;
mod error;
pub mod message;
pub mod producer;
mod remoting;
mod sync;
#[cfg(test)]
mod testing;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "trace")]
pub mod trace;

pub use client::{Client, ConnectError, LookupError, RouteError};
pub use config::ClientConfig;
pub use consumer::{
    Batch, ConsumeFrom, Consumed, ConsumedOrderly, LitePullConsumer, MessageModel, PushConsumer,
};
pub use error::CallError;
pub use message::{Compression, Delivery, Message, MessageError, MessageExt};
pub use producer::{Producer, ProducerBuilder, SendError, SendReceipt, SendStatus};
pub use remoting::{Namespace, OutgoingRequest, RpcHook};
pub use ringmq_protocol::body::MessageQueue;
