//! What a name server is told at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ringmq_options::Settings;

/// A name server's configuration. What may change while it runs is in its [`Settings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesrvConfig {
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// Directory of the KV configuration.
    pub data: PathBuf,
    /// Largest request frame in bytes.
    pub max_frame_size: usize,
    /// Largest request header in bytes.
    pub max_header_size: usize,
    /// Most connections; further ones are closed at once.
    pub max_connections: usize,
    /// A connection without traffic is closed after this long.
    pub idle_timeout: Duration,
}

impl NamesrvConfig {
    /// Fills a configuration from `settings` (of `ringmq namesrv` or `ringmq server`).
    pub fn from_settings(settings: &Settings) -> NamesrvConfig {
        let bind = settings.maybe_ip("bind").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        NamesrvConfig {
            listen: SocketAddr::new(bind, settings.integer("namesrv-port")),
            data: PathBuf::from(settings.text("data")).join("namesrv"),
            max_frame_size: settings.size("max-frame-size") as usize,
            max_header_size: settings.size("max-header-size") as usize,
            max_connections: settings.integer("max-connections"),
            idle_timeout: settings.duration("idle-timeout"),
        }
    }
}
