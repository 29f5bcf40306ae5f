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
//! # Guide
//!
//! One [`Client`] a process is enough: its producers and consumers share connections, routes and heartbeats. Each topic
//! here has a whole program in the directory `examples`.
//!
//! | to | take | example |
//! |---|---|---|
//! | send, and get everything of a topic | [`Producer::send`], [`Client::push_consumer`] | `quickstart` |
//! | keep the messages of a key in order | [`Producer::send_with`] and [`producer::ByHash`], [`consumer::PushConsumerBuilder::start_orderly`] | `orderly` |
//! | give every member every message | [`MessageModel::Broadcasting`] | `broadcast` |
//! | tie a message to a database transaction | [`ProducerBuilder::start_transactional`] | `transaction` |
//! | deliver later, and take that back | [`Delivery`], [`Producer::recall`] | `delay` |
//! | get only some messages | tags, or [`consumer::Filter::sql`] | `filter` |
//! | ask, and wait for the answer | [`Producer::request`], [`Message::reply`] | `request_reply` |
//! | take messages at one's own pace | [`LitePullConsumer::poll`], [`LitePullConsumer::stream`], [`consumer::PullConsumer`] | `lite_pull_stream` |
//! | see what became of a message | [`trace`] | `trace` |
//! | encrypt, and sign | [`ClientConfig::tls`], [`acl::Credentials`] | `tls` |
//! | send very many small messages | [`ProducerBuilder::auto_batch`] | `auto_batch` |
//! | make topics, look messages up, move groups | [`Client::admin`] | `admin` |
//!
//! Feature flags: `acl` (signed requests), `lz4` and `trace` are on; `tls` (rustls), `zstd` (builds a C library),
//! [`mod@metrics`] (a facade's) and `logging` (a log file as Java's client has it) are off. The least supported Rust is the `rust-version` of the
//! manifest, which CI builds with.
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
//!   happened; each async function tells more. No call holds a lock or loses another caller's answer by being dropped.
//! - **Errors** are one enum for each operation; they tell the peer's address, its code and its own words, and
//!   whether it is worth trying again ([`SendError::is_retryable`], [`CallError::is_retryable`] and so on).
//! - **Time and network** can be replaced: timers are tokio's own, which a paused runtime drives, and [`mod@env`] has
//!   the traits for the rest.
//!
//! Logs go through `tracing`, one target for each part: `ringmq_client::remoting`, `::route`, `::heartbeat`,
//! `::producer`, `::consumer`, `::rebalance`, `::offsets`, `::trace`; with the feature `logging` the module `logging`
//! has an initialiser. Rates, latencies, retries and what is held go to the facade of the crate `metrics` with the
//! feature `metrics`; [`mod@metrics`] has their names.
//!
//! # Java's classes and ours
//!
//! | Java | here | not there |
//! |---|---|---|
//! | `MQClientInstance`, `MQClientManager` | [`Client`], shared by what is made from it | |
//! | `TopAddressing` | [`ClientConfig::name_server_lookup`] | |
//! | `MQClientAPIImpl`, `NettyRemotingClient` | inside [`Client`]; [`ClientConfig::tls`], [`ClientConfig::vip_channel`] | SOCKS proxies |
//! | `RPCHook`, `AclClientRPCHook`, `NamespaceRpcHook` | [`RpcHook`], [`acl::Credentials`], [`Namespace`] | |
//! | `ClientConfig` | [`ClientConfig`] | namespaces of the first kind (`ns%topic`), stream requests |
//! | `DefaultMQProducer` | [`Producer`] | |
//! | `ProduceAccumulator` | [`ProducerBuilder::auto_batch`] | |
//! | `MQFaultStrategy`, `LatencyFaultToleranceImpl` | [`ProducerBuilder::avoid_slow_brokers`], [`ProducerBuilder::detect_brokers`] | |
//! | `TransactionMQProducer`, `TransactionListener` | [`producer::TransactionProducer`], [`producer::TransactionChecker`] | |
//! | `RequestResponseFuture`, `MessageUtil` | [`Producer::request`], [`Message::reply`] | |
//! | `RecallMessageHandle` | [`Producer::recall`] | |
//! | `Message`, `MessageAccessor` | [`Message`] and its builder | |
//! | `MessageExt`, `MessageDecoder` | [`MessageExt`] | inner batches |
//! | `Compressor` | [`Compression`]: zlib, LZ4, Zstandard | |
//! | `SelectMessageQueueByHash`, `…ByRandom`, `…ByMachineRoom` | [`producer::ByHash`], [`producer::AtRandom`], [`producer::InMachineRooms`], closures | |
//! | `SendResult`, `SendStatus` | [`SendReceipt`], [`SendStatus`] | |
//! | `MQClientException`, `MQBrokerException`, `Remoting…Exception` | [`SendError`], [`producer::RequestError`], [`producer::RecallError`], [`consumer::ConsumerError`], [`admin::AdminError`], [`RouteError`], [`CallError`] | |
//! | `AsyncTraceDispatcher` and its hooks | [`trace`] | OpenTracing |
//! | `DefaultMQPushConsumer` | [`PushConsumer`]: subscriptions that change, suspend and resume | |
//! | `MessageSelector` | [`consumer::Filter`] | |
//! | `MessageListenerConcurrently` | [`consumer::ConcurrentListener`], async closures | |
//! | `MessageListenerOrderly` | [`consumer::OrderlyListener`], async closures; `autoCommit=false` is [`ConsumedOrderly::Pending`] | |
//! | `ConsumeFromWhere` | [`ConsumeFrom`], all six | |
//! | `PullMessageService`, `PullAPIWrapper`, `ProcessQueue` | inside [`PushConsumer`] | |
//! | `ConsumeMessage…Service` | inside [`PushConsumer`], by pull and by POP | POP in order |
//! | `RebalanceService`, `RebalanceImpl` | inside [`PushConsumer`]; by a broker with [`consumer::PushConsumerBuilder::client_rebalance`] | |
//! | `AllocateMessageQueueStrategy` and its six classes | [`allocate`] | |
//! | `OffsetStore` (`Remote…`, `LocalFile…`) | inside [`PushConsumer`] | |
//! | `DefaultLitePullConsumer` | [`LitePullConsumer`], [`consumer::MessageStream`] | `TopicMessageQueueChangeListener` |
//! | `DefaultMQPullConsumer` (deprecated) | [`consumer::PullConsumer`] | |
//! | `DefaultMQAdminExt` | [`admin::Admin`]: what applications need | what operators need: mqadmin does it |
//! | `ClientRemotingProcessor` | 39, 40, 220, 221, 307 (without stacks: tasks have none), 309, 326; anything else gets code 3 | |
//! | `ClientLogger` | `tracing`; the module `logging` | |

// Links of the documentation go to items behind features that are off.
#![cfg_attr(not(feature = "tls"), allow(rustdoc::broken_intra_doc_links))]
#![deny(missing_docs)]

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
#[cfg(feature = "logging")]
pub mod logging;
pub mod message;
pub mod metrics;
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
