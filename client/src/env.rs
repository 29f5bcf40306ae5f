//! The two things of the outside world that a simulator must own: the network and the wall clock.
//!
//! Timers are tokio's, which a paused runtime drives; everything random comes from `fastrand`, which is seeded by
//! thread. So a test or a simulator that implements [`Network`] and [`Clock`] has the whole client in its hands.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};

/// A future in a box, for traits that are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection's bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Opens connections.
pub trait Network: fmt::Debug + Send + Sync {
    /// Connects to `host:port`. The caller sets the time limit by dropping the future.
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>>;

    /// The address of this machine as `addr` would see it; it becomes part of client ids and message ids.
    fn local_ip<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<IpAddr>>;
}

/// Tells the time of day.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

/// The machine's own TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }

    fn local_ip<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        Box::pin(async move {
            // To connect a UDP socket sends nothing; it only picks the way.
            for local in ["0.0.0.0:0", "[::]:0"] {
                let socket = UdpSocket::bind(local).await?;
                if socket.connect(addr).await.is_ok() {
                    return Ok(socket.local_addr()?.ip());
                }
            }
            Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "no way there"))
        })
    }
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
    }
}
