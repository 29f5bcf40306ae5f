//! A network in memory with brokers that are functions, for unit tests.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{self, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::env::{BoxFuture, ByteStream, Network};
use crate::sync::lock;

/// Answers a request; `None` for no answer.
pub(crate) type Answers = Arc<dyn Fn(&Command) -> Option<Command> + Send + Sync>;

/// What a peer says of its own accord that its connections have not written yet.
const PUSHES: usize = 16;

/// Brokers by address.
#[derive(Clone, Default)]
pub(crate) struct MemoryNetwork {
    peers: Arc<Mutex<HashMap<String, Answers>>>,
    /// The ends of connections that peers write to, by address.
    connections: Arc<Mutex<HashMap<String, Vec<mpsc::Sender<Command>>>>>,
    /// Every request and every answer to what was pushed, with the address that it went to.
    pub seen: Arc<Mutex<Vec<(String, Command)>>>,
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl MemoryNetwork {
    /// Puts a peer at an address.
    pub(crate) fn peer(
        &self,
        addr: &str,
        answers: impl Fn(&Command) -> Option<Command> + Send + Sync + 'static,
    ) {
        lock(&self.peers).insert(addr.to_owned(), Arc::new(answers));
    }

    /// What the peer at an address answers.
    pub(crate) fn answers(&self, addr: &str) -> Option<Answers> {
        lock(&self.peers).get(addr).cloned()
    }

    /// Takes a peer away; its connections stay.
    pub(crate) fn remove(&self, addr: &str) {
        lock(&self.peers).remove(addr);
    }

    /// Takes a peer away, and its connections break.
    pub(crate) fn kill(&self, addr: &str) {
        self.remove(addr);
        lock(&self.connections).remove(addr);
    }

    /// Has a peer say something of its own accord, to everybody who is connected to it.
    pub(crate) async fn push(&self, addr: &str, command: Command) {
        let connections = lock(&self.connections).get(addr).cloned().unwrap_or_default();
        for connection in connections {
            // A connection that has ended needs to hear nothing.
            let _ = connection.send(command.clone()).await;
        }
    }

    /// Requests seen with this code, with the addresses that they went to.
    pub(crate) fn seen(&self, code: i32) -> Vec<(String, Command)> {
        lock(&self.seen).iter().filter(|(_, c)| c.code == code).cloned().collect()
    }
}

impl Network for MemoryNetwork {
    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            let answers = lock(&self.peers).get(addr).cloned();
            let answers = answers.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let (pushes, pushed) = mpsc::channel(PUSHES);
            lock(&self.connections).entry(addr.to_owned()).or_default().push(pushes);
            tokio::spawn(serve(theirs, addr.to_owned(), answers, self.seen.clone(), pushed));
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }

    /// Every host has a name but "unknown".
    fn local_ip<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<IpAddr>> {
        Box::pin(async move {
            match addr.split_once(':') {
                Some(("unknown", _)) => Err(io::ErrorKind::NotFound.into()),
                _ => Ok(IpAddr::from([127, 0, 0, 1])),
            }
        })
    }
}

async fn serve(
    mut stream: DuplexStream,
    addr: String,
    answers: Answers,
    seen: Arc<Mutex<Vec<(String, Command)>>>,
    mut pushed: mpsc::Receiver<Command>,
) -> Option<()> {
    let mut buf = BytesMut::new();
    let limits = Limits::default();
    loop {
        while let Some(size) = frame::peek(&buf, &limits).ok()?.filter(|size| buf.len() >= *size) {
            let request = Command::decode(&mut buf[..size], &limits).ok()?;
            buf.advance(size);
            lock(&seen).push((addr.clone(), request.clone()));
            if request.is_response() {
                continue;
            }
            if let Some(mut answer) = answers(&request).filter(|_| !request.is_oneway()) {
                answer.opaque = request.opaque;
                write(&mut stream, &answer).await?;
            }
        }
        tokio::select! {
            read = stream.read_buf(&mut buf) => {
                if read.ok()? == 0 {
                    return None;
                }
            }
            // The sender goes when the connection is to break.
            command = pushed.recv() => write(&mut stream, &command?).await?,
        }
    }
}

async fn write(stream: &mut DuplexStream, command: &Command) -> Option<()> {
    let mut out = BytesMut::new();
    command.encode_json(&mut out);
    stream.write_all(&out).await.ok()
}
