//! What a broker is told at its start: plain values, filled from the option table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::broadcasts::BroadcastExpiry;
use crate::delay::{DelayConfig, parse_levels};
use crate::mailbox::LaneCapacity;
use crate::quotas::BrokerQuotas;
use crate::transaction::TransactionConfig;
use ringmq_engine::RetentionPolicy;
use ringmq_options::{MIN_MEMORY, Settings, Source, show_size};

/// What the machine offers, for the defaults that depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Cores that the process may run on.
    pub cores: usize,
    /// Physical memory in bytes.
    pub memory: u64,
    /// The cgroup's memory limit in bytes, if there is one.
    pub cgroup_memory: Option<u64>,
    /// The first address that is not loopback.
    pub address: Option<IpAddr>,
}

/// Where the memory limit came from; it stands in the ready block and in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOrigin {
    /// `--memory`.
    Given,
    /// The cgroup's limit.
    Cgroup,
    /// Half of the machine's memory.
    HalfOfMachine,
}

impl std::fmt::Display for MemoryOrigin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            MemoryOrigin::Given => "as given",
            MemoryOrigin::Cgroup => "the cgroup's limit",
            MemoryOrigin::HalfOfMachine => "half of the machine's memory",
        })
    }
}

/// Why these settings make no broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The machine has less memory than the least limit.
    #[error(
        "memory: {origin} is {}, the least that a broker runs in is {}: give the process more memory",
        show_size(*.found),
        show_size(MIN_MEMORY)
    )]
    TooLittleMemory {
        /// Bytes found.
        found: u64,
        /// What was found.
        origin: MemoryOrigin,
    },
    /// The shards' tails do not fit the memory limit.
    #[error(
        "memory: {shards} shards with a tail of {} each do not fit the limit of {}: raise --memory, or lower \
         --tail-memory",
        show_size(*.tail_memory),
        show_size(*.memory)
    )]
    TailTooLarge {
        /// Shards of the store.
        shards: usize,
        /// Bytes of each tail.
        tail_memory: u64,
        /// The limit in bytes.
        memory: u64,
    },
    /// A frame must hold a whole message.
    #[error(
        "max-frame-size of {} is too small for max-message-size of {}: it must be 256KiB larger",
        show_size(*.frame),
        show_size(*.message)
    )]
    FrameTooSmall {
        /// Bytes of the largest frame.
        frame: u64,
        /// Bytes of the largest message.
        message: u64,
    },
    /// The VIP port would not be a port.
    #[error("port {0}: the VIP port is two below, so the least is 3 (or 0 for any free port)")]
    Port(u16),
    /// No hours of a day.
    #[error("delete-when = \"{0}\": expected hours from 0 to 23, separated by semicolons")]
    Hours(String),
    /// No text of delay levels.
    #[error(
        "delay-levels = \"{value}\": expected 1 to 1024 numbers with a unit each (ms, s, m, h or d), as in \"1s 5s 10m\""
    )]
    DelayLevels {
        /// The value given.
        value: String,
    },
    /// A name that cannot be one.
    #[error("{option} = \"{value}\": expected 1 to 127 of the characters a-z A-Z 0-9 _ - . % @")]
    Name {
        /// The option.
        option: &'static str,
        /// The value given.
        value: String,
    },
}

/// A broker's configuration. Sizes in bytes; fixed from start to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the broker.
    pub broker_name: String,
    /// 0: master.
    pub broker_id: i64,
    /// Address to listen on.
    pub bind: IpAddr,
    /// Address that clients are told (Java's brokerIP1).
    pub advertise: IpAddr,
    /// Main port; 0: any free one, without a VIP port.
    pub port: u16,
    /// Port of the metrics, when they are served.
    pub metrics_port: Option<u16>,
    /// Name servers, `host:port`; the ones to register with.
    pub namesrv: Vec<String>,
    /// Directory of the store.
    pub data: PathBuf,
    /// Cores to run on.
    pub cores: usize,
    /// Shards of a store that is created now; an existing store keeps its own number.
    pub shards: usize,
    /// Whether `--shards` was given: then it must match an existing store's.
    pub shards_given: bool,
    /// Limit of all memory.
    pub memory: u64,
    /// Where that limit came from.
    pub memory_origin: MemoryOrigin,
    /// Cores that wait for the device do not sleep.
    pub busy_wait: bool,
    /// SYNC_FLUSH: acknowledged once on the device.
    pub sync_flush: bool,
    /// ASYNC_FLUSH's interval.
    pub flush_interval: Duration,
    /// Bytes of one file of a shard's log.
    pub segment_size: u64,
    /// Bytes of one shard's hot tail.
    pub tail_memory: usize,
    /// Used share of the disk, in percent, from which on sends are refused.
    pub disk_watermark_percent: u8,
    /// A start is refused when a part of the log is lost.
    pub strict: bool,
    /// What each shard keeps.
    pub retention: RetentionPolicy,
    /// How often is looked for messages to delete.
    pub retention_interval: Duration,
    /// How often committed consumer offsets are made durable.
    pub offset_flush_interval: Duration,
    /// Bits 4 (read) and 2 (write).
    pub permission: u32,
    /// Region named in the answers to sends.
    pub region_id: String,
    /// TRACE_ON in the answers to sends.
    pub trace_on: bool,
    /// The topic for message traces exists from the start.
    pub trace_topic: bool,
    /// Replies (324, 325) are stored, too.
    pub store_reply: bool,
    /// A reset (222) moves the group here, instead of telling its consumers to move.
    pub server_side_reset: bool,
    /// How long the clients of broadcasting groups are followed; `None`: they are not.
    pub broadcasts: Option<BroadcastExpiry>,
    /// Half messages, and when their producers are asked for them.
    pub transactions: TransactionConfig,
    /// A send to an unknown topic creates it.
    pub auto_create_topic: bool,
    /// A consumer of an unknown group creates it.
    pub auto_create_group: bool,
    /// Most queues of an automatically created topic.
    pub default_topic_queues: u32,
    /// Consumers may filter by SQL92.
    pub property_filter: bool,
    /// Topics named `%LMQ%…` are LMQs.
    pub lmq: bool,
    /// Most LMQs that messages may be dispatched to; `None`: messages are not dispatched.
    pub lmq_limit: Option<usize>,
    /// Whether topics may take messages of every type.
    pub mixed_message_type: bool,
    /// Messages are held to their topic's attribute message.type.
    pub message_type_check: bool,
    /// Retry messages are held to the filter of their original topic.
    pub filter_retry: bool,
    /// What may be sent and pulled a second.
    pub quotas: BrokerQuotas,
    /// Largest message body.
    pub max_message_size: usize,
    /// Largest request frame.
    pub max_frame_size: usize,
    /// Largest request header.
    pub max_header_size: usize,
    /// Most connections of one core.
    pub max_connections: usize,
    /// A connection without traffic is closed after this long.
    pub idle_timeout: Duration,
    /// A client without heartbeats for this long has left.
    pub channel_expiry: Duration,
    /// Delay levels and timer messages.
    pub delay: DelayConfig,
    /// How long a queue lock holds.
    pub lock_expiry: Duration,
    /// Longest that a pull waits.
    pub max_long_poll: Duration,
    /// How often the broker registers with the name servers.
    pub register_period: Duration,
    /// What there may be between two cores. No option: the simulator makes it small.
    pub lanes: LaneCapacity,
}

const MIB: u64 = 1 << 20;
/// As many as the option takes.
const MAX_SHARDS: usize = 255;
/// What a send carries besides its body: headers and properties.
const FRAME_OVERHEAD: u64 = 256 << 10;
const MAX_TAIL: u64 = 256 * MIB;
const MIN_TAIL: u64 = 4 * MIB;

impl BrokerConfig {
    /// Fills a configuration from `settings` (of `ringmq broker` or `ringmq server`) on this machine.
    pub fn from_settings(settings: &Settings, machine: &Machine) -> Result<BrokerConfig, ConfigError> {
        let cores =
            settings.maybe_integer("cores").map_or(default_cores(machine), |cores| cores as usize).max(1);
        let lmq = settings.switch("lmq");
        let shards = match settings.maybe_integer("shards") {
            Some(shards) => shards as usize,
            None if lmq => 1,
            None => cores.min(MAX_SHARDS),
        };
        let (memory, memory_origin) = memory_limit(settings, machine)?;
        let sync_flush = settings.choice("flush") == "sync";
        let bind = settings.maybe_ip("bind").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        // With SYNC_FLUSH a kill may cost a second of commits at most: the interval and the time that a flush takes.
        let default_offset_flush = Duration::from_millis(if sync_flush { 500 } else { 5000 });
        Ok(BrokerConfig {
            cluster: name(settings, "cluster")?,
            broker_name: name(settings, "name")?,
            broker_id: settings.integer("broker-id"),
            bind,
            advertise: settings.maybe_ip("advertise").unwrap_or(advertised(bind, machine)),
            port: port(settings)?,
            metrics_port: settings.maybe_integer("metrics-port").map(|port| port as u16),
            namesrv: settings.addresses("namesrv").to_vec(),
            data: PathBuf::from(settings.text("data")),
            cores,
            shards,
            shards_given: settings.source("shards") > Source::Default,
            memory,
            memory_origin,
            busy_wait: settings.switch("busy-wait"),
            sync_flush,
            flush_interval: settings.duration("flush-interval"),
            segment_size: settings.size("segment-size"),
            tail_memory: tail_memory(settings, memory, shards)? as usize,
            disk_watermark_percent: settings.integer("disk-watermark"),
            strict: settings.switch("strict"),
            retention: retention(settings, shards)?,
            retention_interval: settings.duration("retention-interval"),
            offset_flush_interval: settings
                .maybe_duration("offset-flush-interval")
                .unwrap_or(default_offset_flush),
            permission: settings.integer("permission"),
            region_id: name(settings, "region-id")?,
            trace_on: settings.switch("trace-on"),
            trace_topic: settings.switch("trace-topic"),
            store_reply: settings.switch("store-reply"),
            server_side_reset: settings.switch("server-side-reset"),
            broadcasts: settings.switch("broadcast-offsets").then(|| BroadcastExpiry {
                offline: settings.duration("broadcast-offset-expiry"),
                idle: settings.duration("broadcast-offset-idle-expiry"),
            }),
            transactions: TransactionConfig {
                timeout: settings.duration("transaction-timeout"),
                check_interval: settings.duration("transaction-check-interval"),
                check_max: settings.integer("transaction-check-max"),
                reject: settings.switch("reject-transactions"),
            },
            auto_create_topic: settings.switch("auto-create-topic"),
            auto_create_group: settings.switch("auto-create-group"),
            default_topic_queues: settings.integer("default-topic-queues"),
            property_filter: settings.switch("property-filter"),
            lmq,
            lmq_limit: (lmq && settings.switch("multi-dispatch")).then(|| settings.integer("max-lmqs")),
            mixed_message_type: settings.switch("mixed-message-type"),
            message_type_check: settings.switch("message-type-check"),
            filter_retry: settings.switch("filter-retry"),
            quotas: BrokerQuotas {
                send: settings.integer("send-quota"),
                send_bytes: settings.size("send-quota-bytes"),
                pull: settings.integer("pull-quota"),
                pull_bytes: settings.size("pull-quota-bytes"),
            },
            max_message_size: settings.size("max-message-size") as usize,
            max_frame_size: frame_size(settings)? as usize,
            max_header_size: settings.size("max-header-size") as usize,
            max_connections: settings.integer("max-connections"),
            idle_timeout: settings.duration("idle-timeout"),
            channel_expiry: settings.duration("channel-expiry"),
            delay: delay(settings)?,
            lock_expiry: settings.duration("lock-expiry"),
            max_long_poll: settings.duration("max-long-poll"),
            register_period: settings.duration("register-period"),
            lanes: LaneCapacity::default(),
        })
    }

    /// The address clients are told, when the broker really listens on `port`.
    pub fn advertised(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.advertise, port)
    }

    /// The VIP port (Java's fast port), unless the main port is any free one.
    pub fn vip_port(&self) -> Option<u16> {
        (self.port != 0).then(|| self.port - 2)
    }
}

fn delay(settings: &Settings) -> Result<DelayConfig, ConfigError> {
    let value = settings.text("delay-levels");
    Ok(DelayConfig {
        levels: parse_levels(value).ok_or_else(|| ConfigError::DelayLevels { value: value.to_owned() })?,
        timers: settings.switch("timer-messages"),
        timer_max_delay_ms: settings.duration("timer-max-delay").as_millis() as i64,
        recall: settings.switch("recall"),
    })
}

/// Names stand in routes, tables and file names, so they keep to Java's set for names, and `@`, behind which Java's
/// machine room strategy looks for the broker's own name in `room@name`.
fn name(settings: &Settings, option: &'static str) -> Result<String, ConfigError> {
    let value = settings.text(option).to_owned();
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.%@".contains(c);
    match !value.is_empty() && value.len() <= 127 && value.chars().all(fits) {
        true => Ok(value),
        false => Err(ConfigError::Name { option, value }),
    }
}

fn port(settings: &Settings) -> Result<u16, ConfigError> {
    match settings.integer("port") {
        port @ (1 | 2) => Err(ConfigError::Port(port)),
        port => Ok(port),
    }
}

/// Clients are told the bound address, or the machine's own when bound to every address.
fn advertised(bind: IpAddr, machine: &Machine) -> IpAddr {
    match bind.is_unspecified() {
        true => machine.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        false => bind,
    }
}

fn memory_limit(settings: &Settings, machine: &Machine) -> Result<(u64, MemoryOrigin), ConfigError> {
    if let Some(memory) = settings.maybe_size("memory") {
        return Ok((memory, MemoryOrigin::Given));
    }
    let half = (machine.memory / 2, MemoryOrigin::HalfOfMachine);
    let (found, origin) = match machine.cgroup_memory {
        Some(limit) if limit < half.0 => (limit, MemoryOrigin::Cgroup),
        _ => half,
    };
    match found < MIN_MEMORY {
        true => Err(ConfigError::TooLittleMemory { found, origin }),
        // In whole MiB, because people read it.
        false => Ok((found / MIB * MIB, origin)),
    }
}

fn retention(settings: &Settings, shards: usize) -> Result<RetentionPolicy, ConfigError> {
    let when = settings.text("delete-when");
    let hour = |text: &str| text.trim().parse::<u8>().ok().filter(|hour| *hour < 24);
    let hours = when.split(';').filter(|part| !part.trim().is_empty()).map(hour);
    let delete_hours: Option<Vec<u8>> = hours.collect();
    let bytes = settings.maybe_size("retention-size").map_or(0, |bytes| (bytes / shards as u64).max(1));
    let force_percent = match settings.switch("clean-forcibly") {
        true => settings.integer("disk-clean-forcibly"),
        false => 100,
    };
    Ok(RetentionPolicy {
        reserved_ms: settings.duration("retention").as_millis() as i64,
        delete_hours: delete_hours.ok_or_else(|| ConfigError::Hours(when.to_owned()))?,
        max_bytes: bytes,
        max_used_percent: settings.integer("disk-max-used"),
        force_percent,
    })
}

fn tail_memory(settings: &Settings, memory: u64, shards: usize) -> Result<u64, ConfigError> {
    let shared = (memory / 4 / shards as u64).min(MAX_TAIL);
    let tail_memory = settings.maybe_size("tail-memory").unwrap_or(shared.max(MIN_TAIL));
    match tail_memory.saturating_mul(shards as u64) > memory / 2 {
        true => Err(ConfigError::TailTooLarge { shards, tail_memory, memory }),
        false => Ok(tail_memory),
    }
}

fn frame_size(settings: &Settings) -> Result<u64, ConfigError> {
    let (frame, message) = (settings.size("max-frame-size"), settings.size("max-message-size"));
    match frame < message + FRAME_OVERHEAD {
        true => Err(ConfigError::FrameTooSmall { frame, message }),
        false => Ok(frame),
    }
}

/// Half of the cores: the other half is the clients' or the kernel's. On two cores that are shared with the clients,
/// a second executor costs twice the CPU a message (a hop between cores for every other request, and smaller group
/// commits) and never won; a machine of the broker's own may give it more.
fn default_cores(machine: &Machine) -> usize {
    machine.cores / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmq_options::Role;

    fn machine() -> Machine {
        let address = Some("10.1.2.3".parse().unwrap());
        Machine { cores: 4, memory: 16 << 30, cgroup_memory: None, address }
    }

    fn config(sets: &[&str]) -> Result<BrokerConfig, ConfigError> {
        let mut settings = Settings::new(Role::Broker);
        for set in sets {
            settings.apply_set(set).unwrap();
        }
        BrokerConfig::from_settings(&settings, &machine())
    }

    #[test]
    fn the_defaults_fit_the_machine() {
        let config = config(&[]).unwrap();
        assert_eq!((config.cores, config.shards, config.shards_given), (2, 2, false));
        assert_eq!((config.memory, config.memory_origin), (8 << 30, MemoryOrigin::HalfOfMachine));
        assert_eq!(config.tail_memory, 256 << 20);
        assert_eq!((config.port, config.vip_port()), (10911, Some(10909)));
        assert!(config.sync_flush && config.advertise.is_loopback());
        assert_eq!(config.offset_flush_interval, Duration::from_millis(500));
        assert_eq!(self::config(&["flush=async"]).unwrap().offset_flush_interval, Duration::from_secs(5));
    }

    #[test]
    fn the_smaller_of_cgroup_and_machine_limits_memory() {
        let settings = Settings::new(Role::Server);
        let small = Machine { cgroup_memory: Some(512 << 20), ..machine() };
        let config = BrokerConfig::from_settings(&settings, &small).unwrap();
        assert_eq!((config.memory, config.memory_origin), (512 << 20, MemoryOrigin::Cgroup));
        let tiny = Machine { cgroup_memory: Some(32 << 20), ..machine() };
        let error = BrokerConfig::from_settings(&settings, &tiny).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memory: the cgroup's limit is 32MiB, the least that a broker runs in is 64MiB: give the process \
             more memory"
        );
    }

    #[test]
    fn clients_are_told_an_address_that_they_can_reach() {
        assert_eq!(config(&["bind=0.0.0.0"]).unwrap().advertise.to_string(), "10.1.2.3");
        assert_eq!(config(&["bind=10.9.9.9"]).unwrap().advertise.to_string(), "10.9.9.9");
        assert_eq!(config(&["bind=0.0.0.0", "brokerIP1=1.2.3.4"]).unwrap().advertise.to_string(), "1.2.3.4");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(matches!(config(&["port=2"]), Err(ConfigError::Port(2))));
        assert_eq!(config(&["port=0"]).unwrap().vip_port(), None);
        assert_eq!(config(&["name=room1@broker-a"]).unwrap().broker_name, "room1@broker-a");
        assert!(matches!(config(&["name=a b"]), Err(ConfigError::Name { option: "name", .. })));
        assert!(matches!(config(&["max-frame-size=4MiB"]), Err(ConfigError::FrameTooSmall { .. })));
        assert!(matches!(config(&["shards=64", "memory=128MiB"]), Err(ConfigError::TailTooLarge { .. })));
    }
}
