//! The table of options: every one is declared here and nowhere else.

use crate::option::{Choice, Kind, OptionDef, Roles, TimeUnit};

const PORT: Kind = Kind::Integer { min: 0, max: 65_535 };
const COUNT: Kind = Kind::Integer { min: 1, max: i64::MAX };
const FLUSH: Kind = Kind::Choice(&[
    Choice { name: "sync", java: "SYNC_FLUSH" },
    Choice { name: "async", java: "ASYNC_FLUSH" },
]);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn ms(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { bare: TimeUnit::Ms, min_ms, max_ms }
}

/// Least memory limit of a broker, in bytes: below it caches and requests in flight do not fit.
pub const MIN_MEMORY: u64 = 64 * MIB;

/// Every option, in the order of the documentation.
pub static OPTIONS: &[OptionDef] = &[
    // --- where it lives and listens ---
    OptionDef::new(
        "data",
        Roles::ALL,
        Kind::Path,
        "./data",
        "Directory of everything that is stored. One process at a time uses it.",
    )
    .java(&["storePathRootDir"]),
    OptionDef::new(
        "bind",
        Roles::ALL,
        Kind::Ip,
        "127.0.0.1",
        "Address to listen on. Loopback unless told otherwise: until ACLs are on nobody is asked for a password.",
    )
    .java(&["bindAddress"]),
    OptionDef::new(
        "advertise",
        Roles::BROKER,
        Kind::Ip,
        "",
        "Address that clients are told to connect to.",
    )
    .java(&["brokerIP1"])
    .unset("the address of --bind; the first non-loopback address when that is 0.0.0.0"),
    OptionDef::new(
        "port",
        Roles::BROKER,
        PORT,
        "10911",
        "The broker's port; the VIP port is two below. 0 takes any free port, without a VIP port.",
    )
    .java(&["listenPort"]),
    OptionDef::new(
        "metrics-port",
        Roles::BROKER,
        PORT,
        "",
        "Port of the metrics for Prometheus: `GET /metrics`, on the address of --bind. 0 takes any free port.",
    )
    .java(&["metricsPromExporterPort"])
    .unset("no metrics are served"),
    OptionDef::new(
        "namesrv-port",
        Roles::NAMESRV,
        PORT,
        "9876",
        "The name server's port. Java's name listenPort means this one in `ringmq namesrv`.",
    )
    .java(&["listenPort"]),
    OptionDef::new(
        "namesrv",
        Roles::BROKER,
        Kind::Addresses,
        "",
        "Name servers that the broker registers with, separated by semicolons.",
    )
    .java(&["namesrvAddr"])
    .unset("NAMESRV_ADDR; `ringmq server` uses its own"),
    // --- identity ---
    OptionDef::new(
        "name",
        Roles::BROKER,
        Kind::Text,
        "broker-a",
        "Name of the broker: one for each broker of a cluster.",
    )
    .java(&["brokerName"]),
    OptionDef::new("cluster", Roles::BROKER, Kind::Text, "DefaultCluster", "Name of the cluster.")
        .java(&["brokerClusterName"]),
    OptionDef::new(
        "broker-id",
        Roles::BROKER,
        Kind::Integer { min: 0, max: 0 },
        "0",
        "0: master. Replicas are not there yet, so nothing else is taken.",
    )
    .java(&["brokerId"]),
    OptionDef::new(
        "region-id",
        Roles::BROKER,
        Kind::Text,
        "DefaultRegion",
        "Region that the answers to sends name (MSG_REGION).",
    )
    .java(&["regionId"]),
    // --- size ---
    OptionDef::new(
        "cores",
        Roles::BROKER,
        Kind::Integer { min: 1, max: 256 },
        "",
        "Cores to run on: one thread pinned to each.",
    )
    .unset("half of the cores that the process may use, at least 1"),
    OptionDef::new(
        "busy-wait",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Whether a core that waits for the device looks for its answer for up to a millisecond instead of sleeping: \
         lower latency, for more CPU. An idle broker sleeps in any case.",
    ),
    OptionDef::new(
        "shards",
        Roles::BROKER,
        Kind::Integer { min: 1, max: 255 },
        "",
        "Shards of the store, each with a log of its own. Fixed when the store is created.",
    )
    .unset("as many as cores, when the store is created"),
    OptionDef::new(
        "memory",
        Roles::BROKER,
        Kind::Size { min: MIN_MEMORY, max: 1 << 50 },
        "",
        "Memory limit: all caches and requests in flight come out of it.",
    )
    .unset("the smaller of the cgroup's limit and half of the machine's memory"),
    // --- storage ---
    OptionDef::new(
        "flush",
        Roles::BROKER,
        FLUSH,
        "sync",
        "When a send is acknowledged. sync: it is on the device. async: it outlives the process (a kill \
         loses nothing), and on the device within the flush interval, or once 8 MiB wait for it.",
    )
    .java(&["flushDiskType"]),
    OptionDef::new(
        "flush-interval",
        Roles::BROKER,
        ms(1, 60_000),
        "500ms",
        "How long written messages may wait for the device with `flush = \"async\"`.",
    )
    .java(&["flushIntervalCommitLog"]),
    OptionDef::new(
        "segment-size",
        Roles::BROKER,
        Kind::Size { min: 16 * MIB, max: 16 * GIB },
        "128MiB",
        "Size of one file of a shard's log. The first files of a log are smaller; the next file is made, of one that has expired or of new space filled with zeroes, while the present one is written.",
    )
    .java(&["mappedFileSizeCommitLog"]),
    OptionDef::new(
        "tail-memory",
        Roles::BROKER,
        Kind::Size { min: 4 * MIB, max: 64 * GIB },
        "",
        "Memory of one shard that keeps the newest messages for reading; a quarter of it more serves reads from disk.",
    )
    .unset("a quarter of the memory limit shared out among the shards, at most 256MiB each"),
    OptionDef::new(
        "disk-watermark",
        Roles::BROKER,
        Kind::Integer { min: 50, max: 99 },
        "90",
        "Used share of the disk, in percent, from which on sends are refused.",
    )
    .java(&["diskSpaceWarningLevelRatio"]),
    OptionDef::new(
        "retention",
        Roles::BROKER,
        Kind::Duration { bare: TimeUnit::Hours, min_ms: 1000, max_ms: 3_650 * 86_400_000 },
        "72h",
        "How long messages are kept. Whole segments are deleted. A topic's attribute `reserve.time` (in hours) gives \
         it a time of its own; a longer one keeps the segments of its shards for all topics.",
    )
    .java(&["fileReservedTime"]),
    OptionDef::new(
        "delete-when",
        Roles::BROKER,
        Kind::Text,
        "04",
        "Hours of the day (UTC, 0 to 23, separated by semicolons) in which expired messages are deleted.",
    )
    .java(&["deleteWhen"]),
    OptionDef::new(
        "retention-size",
        Roles::BROKER,
        Kind::Size { min: 64 * MIB, max: 1 << 60 },
        "",
        "Bytes of messages that the broker keeps at most, shared out among the shards. The oldest files go; up to four files of each shard stay as spares for the next ones.",
    )
    .unset("no limit but the disk"),
    OptionDef::new(
        "disk-max-used",
        Roles::BROKER,
        Kind::Integer { min: 10, max: 99 },
        "75",
        "Used share of the disk, in percent, above which expired messages are deleted at any hour.",
    )
    .java(&["diskMaxUsedSpaceRatio"]),
    OptionDef::new(
        "disk-clean-forcibly",
        Roles::BROKER,
        Kind::Integer { min: 30, max: 99 },
        "85",
        "Used share of the disk, in percent, above which the oldest messages are deleted whatever their age.",
    )
    .java(&["diskSpaceCleanForciblyRatio"]),
    OptionDef::new(
        "clean-forcibly",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "Whether `disk-clean-forcibly` counts. Without it nothing goes before its time, and a full disk refuses sends.",
    )
    .java(&["cleanFileForciblyEnable"]),
    OptionDef::new(
        "retention-interval",
        Roles::BROKER,
        ms(10, 3_600_000),
        "10s",
        "How often is looked for messages to delete.",
    )
    .java(&["cleanResourceInterval"]),
    OptionDef::new(
        "strict",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Refuses to start when a part of the log, or of the consumer offsets, is lost. Otherwise what is lost is reported, and the rest is served.",
    ),
    OptionDef::new(
        "offset-flush-interval",
        Roles::BROKER,
        ms(10, 60_000),
        "",
        "How often the offsets that consumers commit are made durable.",
    )
    .java(&["flushConsumerOffsetInterval"])
    .unset("500ms with `flush = \"sync\"`, else 5s"),
    // --- topics, groups, limits ---
    OptionDef::new(
        "permission",
        Roles::BROKER,
        Kind::Integer { min: 0, max: 7 },
        "6",
        "What the broker allows: 4 reading, 2 writing, 6 both.",
    )
    .java(&["brokerPermission"]),
    OptionDef::new(
        "auto-create-topic",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "A send to an unknown topic creates it.",
    )
    .java(&["autoCreateTopicEnable"]),
    OptionDef::new(
        "auto-create-group",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "A consumer of an unknown group creates it.",
    )
    .java(&["autoCreateSubscriptionGroup"]),
    OptionDef::new(
        "default-topic-queues",
        Roles::BROKER,
        Kind::Integer { min: 1, max: 1024 },
        "8",
        "Most queues that an automatically created topic gets.",
    )
    .java(&["defaultTopicQueueNums"]),
    OptionDef::new(
        "property-filter",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "Consumers may filter by SQL92 expressions over the properties of messages.",
    )
    .java(&["enablePropertyFilter"]),
    OptionDef::new(
        "message-type-check",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Refuses messages of another type than their topic's attribute message.type says. Clients of the remoting \
         protocol do not know of types, so an orderly one must set the property __SHARDINGKEY.",
    )
    .java(&["enableTopicMessageTypeCheck"]),
    OptionDef::new(
        "mixed-message-type",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Topics may be made with the message.type MIXED, which takes messages of every type.",
    )
    .java(&["enableMixedMessageType"]),
    OptionDef::new(
        "filter-retry",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Messages of a group's retry topic are held to the group's SQL92 filter of their original topic.",
    )
    .java(&["filterSupportRetry"]),
    OptionDef::new(
        "max-message-size",
        Roles::BROKER,
        Kind::Size { min: 1024, max: 256 * MIB },
        "4MiB",
        "Largest message body that is taken.",
    )
    .java(&["maxMessageSize"]),
    OptionDef::new(
        "send-quota",
        Roles::BROKER,
        Kind::Integer { min: 0, max: 1 << 40 },
        "0",
        "Messages that may be sent to the broker a second; 0: any number. Topics have their own, by the attribute \
         quota.send.",
    ),
    OptionDef::new(
        "send-quota-bytes",
        Roles::BROKER,
        Kind::Size { min: 0, max: 1 << 40 },
        "0",
        "Bytes of bodies that may be sent to the broker a second; 0: any number. Topics: quota.send.bytes.",
    ),
    OptionDef::new(
        "pull-quota",
        Roles::BROKER,
        Kind::Integer { min: 0, max: 1 << 40 },
        "0",
        "Messages that may be pulled from the broker a second; 0: any number. Topics and groups: quota.pull.",
    ),
    OptionDef::new(
        "pull-quota-bytes",
        Roles::BROKER,
        Kind::Size { min: 0, max: 1 << 40 },
        "0",
        "Bytes of records that may be pulled from the broker a second; 0: any number. Topics and groups: \
         quota.pull.bytes.",
    ),
    OptionDef::new("trace-on", Roles::BROKER, Kind::Bool, "true", "Tells clients that traces are wanted (TRACE_ON).")
        .java(&["traceOn"]),
    OptionDef::new(
        "trace-topic",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Makes the topic for message traces (RMQ_SYS_TRACE_TOPIC) at the start; without it, the first trace does, \
         as far as sends may make topics.",
    )
    .java(&["traceTopicEnable"]),
    OptionDef::new(
        "store-reply",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "Stores replies to requests in the cluster's reply topic, besides handing them to who waits for them.",
    )
    .java(&["storeReplyMessageEnable"]),
    OptionDef::new(
        "transaction-timeout",
        Roles::BROKER,
        ms(1, 24 * 3_600_000),
        "6s",
        "A half message that its producer has not ended after this long is asked for.",
    )
    .java(&["transactionTimeOut"]),
    OptionDef::new(
        "transaction-check-interval",
        Roles::BROKER,
        ms(10, 24 * 3_600_000),
        "30s",
        "How long the producer has to answer before it is asked for a half message again.",
    )
    .java(&["transactionCheckInterval"]),
    OptionDef::new(
        "transaction-check-max",
        Roles::BROKER,
        Kind::Integer { min: 0, max: 1_000_000 },
        "15",
        "How often a half message is asked for before it goes to TRANS_CHECK_MAX_TIME_TOPIC.",
    )
    .java(&["transactionCheckMax"]),
    OptionDef::new(
        "reject-transactions",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Refuses half messages.",
    )
    .java(&["rejectTransactionMessage"]),
    OptionDef::new(
        "server-side-reset",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "A reset of a group's offsets moves the group in the broker; without it, the group's consumers are told to move.",
    )
    .java(&["useServerSideResetOffset"]),
    OptionDef::new(
        "broadcast-offsets",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "Follows how far the clients of broadcasting groups have pulled: one that moves between a proxy and the broker \
         itself goes on where it was.",
    )
    .java(&["enableBroadcastOffsetStore"]),
    OptionDef::new(
        "broadcast-offset-expiry",
        Roles::BROKER,
        Kind::Duration { bare: TimeUnit::Seconds, min_ms: 1000, max_ms: 365 * 86_400_000 },
        "2m",
        "How long after its last pull a broadcasting client is followed that is offline.",
    )
    .java(&["broadcastOffsetExpireSecond"]),
    OptionDef::new(
        "broadcast-offset-idle-expiry",
        Roles::BROKER,
        Kind::Duration { bare: TimeUnit::Seconds, min_ms: 1000, max_ms: 365 * 86_400_000 },
        "5m",
        "The same of one that is online and does not pull.",
    )
    .java(&["broadcastOffsetExpireMaxSecond"]),
    OptionDef::new(
        "delay-levels",
        Roles::BROKER,
        Kind::Text,
        "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
        "How long each delay level is, from level 1 on: numbers with a unit (ms, s, m, h, d), spaces between them.",
    )
    .java(&["messageDelayLevel"]),
    OptionDef::new(
        "timer-messages",
        Roles::BROKER,
        Kind::Bool,
        "true",
        "Messages may be sent for any time (TIMER_DELIVER_MS, TIMER_DELAY_MS, TIMER_DELAY_SEC).",
    )
    .java(&["timerWheelEnable"]),
    OptionDef::new(
        "timer-max-delay",
        Roles::BROKER,
        Kind::Duration { bare: TimeUnit::Seconds, min_ms: 1000, max_ms: 100 * 365 * 86_400_000 },
        "72h",
        "Longest time that a timer message may wait.",
    )
    .java(&["timerMaxDelaySec"]),
    OptionDef::new(
        "recall",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Producers get a handle for each timer message, by which they may take it back before it is delivered.",
    )
    .java(&["recallMessageEnable"]),
    // --- light message queues ---
    OptionDef::new(
        "lmq",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "Topics whose names begin with %LMQ% are light message queues: they need no configuration. All of them are in the \
         store's first shard, and a new store has one only, unless --shards says otherwise.",
    )
    .java(&["enableLmq"]),
    OptionDef::new(
        "multi-dispatch",
        Roles::BROKER,
        Kind::Bool,
        "false",
        "With --lmq: messages are readable from the LMQs that their property INNER_MULTI_DISPATCH names, too.",
    )
    .java(&["enableMultiDispatch"]),
    OptionDef::new(
        "max-lmqs",
        Roles::BROKER,
        Kind::Integer { min: 1, max: 10_000_000 },
        "20000",
        "Most LMQs; a message for a new one beyond is refused.",
    )
    .java(&["maxLmqConsumeQueueNum"]),
    // --- connections and time-outs ---
    OptionDef::new(
        "max-frame-size",
        Roles::ALL,
        Kind::Size { min: 64 << 10, max: GIB },
        "16MiB",
        "Largest request that is read; a larger one closes the connection.",
    )
    .java(&["com.rocketmq.remoting.frameMaxLength"]),
    OptionDef::new(
        "max-header-size",
        Roles::ALL,
        Kind::Size { min: 1024, max: 16 * MIB },
        "64KiB",
        "Largest header of a request.",
    ),
    OptionDef::new(
        "max-connections",
        Roles::ALL,
        COUNT,
        "100000",
        "Most connections of one core; further ones are closed at once.",
    ),
    OptionDef::new(
        "idle-timeout",
        Roles::ALL,
        Kind::Duration { bare: TimeUnit::Seconds, min_ms: 1000, max_ms: 86_400_000 },
        "120s",
        "A connection without traffic is closed after this long.",
    )
    .java(&["serverChannelMaxIdleTimeSeconds"]),
    OptionDef::new(
        "channel-expiry",
        Roles::BROKER,
        ms(1000, 86_400_000),
        "120s",
        "A client that sends no heartbeat for this long has left its groups.",
    )
    .java(&["channelExpiredTimeout"]),
    OptionDef::new(
        "lock-expiry",
        Roles::BROKER,
        ms(1000, 3_600_000),
        "60s",
        "How long a queue lock of an orderly consumer holds without being renewed.",
    )
    .java(&["rocketmq.broker.rebalance.lockMaxLiveTime"]),
    OptionDef::new(
        "max-long-poll",
        Roles::BROKER,
        ms(0, 600_000),
        "30s",
        "Longest that a pull waits for messages, whatever it asks for.",
    ),
    OptionDef::new(
        "register-period",
        Roles::BROKER,
        ms(1000, 60_000),
        "30s",
        "How often the broker registers with the name servers, changes apart.",
    )
    .java(&["registerNameServerPeriod"]),
    // --- name server ---
    OptionDef::new(
        "broker-scan-interval",
        Roles::NAMESRV,
        ms(100, 60_000),
        "5s",
        "How often the name server looks for brokers that have fallen silent.",
    )
    .java(&["scanNotActiveBrokerInterval"])
    .dynamic(),
    OptionDef::new(
        "return-order-topic-config",
        Roles::NAMESRV,
        Kind::Bool,
        "true",
        "Registering brokers get the ORDER_TOPIC_CONFIG name space back.",
    )
    .java(&["returnOrderTopicConfigToBroker"])
    .dynamic(),
    OptionDef::new(
        "order-message-enable",
        Roles::NAMESRV,
        Kind::Bool,
        "false",
        "Routes carry the order configuration of their topic.",
    )
    .java(&["orderMessageEnable"])
    .dynamic(),
    OptionDef::new("enable-topic-list", Roles::NAMESRV, Kind::Bool, "true", "Topics may be listed by cluster and unit.")
        .java(&["enableTopicList"])
        .dynamic(),
    OptionDef::new("enable-all-topic-list", Roles::NAMESRV, Kind::Bool, "true", "All topics may be listed.")
        .java(&["enableAllTopicList"])
        .dynamic(),
    OptionDef::new(
        "delete-topic-with-registration",
        Roles::NAMESRV,
        Kind::Bool,
        "false",
        "A registration removes the broker's topics that it does not name.",
    )
    .java(&["deleteTopicWithBrokerRegistration"])
    .dynamic(),
    OptionDef::new(
        "config-black-list",
        Roles::NAMESRV,
        Kind::Text,
        "configBlackList;configStorePath;kvConfigPath",
        "Names that cannot be changed over the network, separated by semicolons.",
    )
    .java(&["configBlackList"]),
    // --- log ---
    OptionDef::new(
        "log-level",
        Roles::ALL,
        Kind::Text,
        "info",
        "What is logged to stderr: error, warn, info, debug, trace, or a filter such as `info,ringmq_broker=debug`.",
    )
    .variable("RINGMQ_LOG"),
];
