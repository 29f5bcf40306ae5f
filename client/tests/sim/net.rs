//! A network in memory with delays, partitions and servers that die. Time is tokio's, paused.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq_client::env::{BoxFuture, ByteStream, Clock, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a pump looks whether a partition is over.
const LOOK: Duration = Duration::from_millis(20);

struct Listener {
    streams: mpsc::UnboundedSender<DuplexStream>,
    /// Cancelled when the server dies; its connections go with it.
    life: CancellationToken,
}

#[derive(Default)]
struct Wires {
    listeners: HashMap<String, Listener>,
    /// Hosts and servers between which nothing gets through.
    cut: HashSet<(String, String)>,
}

/// All wires.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Wires>>);

impl Hub {
    /// Starts to listen; streams of clients come until `life` ends.
    pub fn listen(&self, addr: &str, life: CancellationToken) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (streams, accepted) = mpsc::unbounded_channel();
        self.0.lock().unwrap().listeners.insert(addr.to_owned(), Listener { streams, life });
        accepted
    }

    /// Ends a server: its connections break, and new ones are refused.
    pub fn kill(&self, addr: &str) {
        if let Some(listener) = self.0.lock().unwrap().listeners.remove(addr) {
            listener.life.cancel();
        }
    }

    /// Lets nothing through between a host and a server.
    pub fn cut(&self, host: &str, addr: &str) {
        self.0.lock().unwrap().cut.insert((host.to_owned(), addr.to_owned()));
    }

    /// Lets everything through again.
    pub fn mend(&self, host: &str, addr: &str) {
        self.0.lock().unwrap().cut.remove(&(host.to_owned(), addr.to_owned()));
    }

    /// Ends all partitions.
    pub fn mend_all(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    async fn while_cut(&self, host: &str, addr: &str) {
        let pair = (host.to_owned(), addr.to_owned());
        while self.0.lock().unwrap().cut.contains(&pair) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The network as one host sees it.
pub struct Host {
    pub hub: Hub,
    pub name: String,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Network for Host {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            self.hub.while_cut(&self.name, addr).await;
            let (ours, near) = tokio::io::duplex(64 << 10);
            let (far, theirs) = tokio::io::duplex(64 << 10);
            let life = {
                let wires = self.hub.0.lock().unwrap();
                let listener = wires.listeners.get(addr).ok_or(io::ErrorKind::ConnectionRefused)?;
                listener.streams.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
                listener.life.clone()
            };
            let ((near_read, near_write), (far_read, far_write)) =
                (tokio::io::split(near), tokio::io::split(far));
            for (from, to) in [(near_read, far_write), (far_read, near_write)] {
                let (hub, host, addr, life) =
                    (self.hub.clone(), self.name.clone(), addr.to_owned(), life.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = life.cancelled() => {}
                        () = pump(&hub, &host, &addr, from, to) => {}
                    }
                });
            }
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }

    fn local_ip<'a>(&'a self, _addr: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        Box::pin(async { Ok(IpAddr::from([127, 0, 0, 1])) })
    }
}

async fn pump(
    hub: &Hub,
    host: &str,
    addr: &str,
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
) {
    let mut buf = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buf).await.unwrap_or(0);
        hub.while_cut(host, addr).await;
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(100..3000))).await;
        if to.write_all(&buf[..read]).await.is_err() {
            return;
        }
    }
}

/// The time of day, which goes as tokio's does.
#[derive(Debug)]
pub struct SimClock(pub Instant);

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.elapsed().as_millis() as i64
    }
}
