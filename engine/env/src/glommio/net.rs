//! Sockets: sends in the ring, other non-blocking system calls on the descriptor, and the ring's word for when to
//! try again.
//!
//! Small writes are sent by the ring's driver, those of all connections in one system call, where one for each
//! would be the dearest part of a request. Nothing is in flight beyond that call: they do not wait for room either.
//!
//! A socket is registered with the ring once, when somebody first has to wait for it, and stays so until it
//! closes: a request costs no entry in the ring, and a connection that waits costs its task and nothing else.
//! glommio's own sockets are not used: a dropped accept loses clients there, descriptors leak, EMFILE spins.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::readiness::Readiness;
use super::ring::{Held, Payload, Ring, Target};
use crate::{Listener, Stream, StreamCloser, StreamReader, StreamWriter};

/// Connections that the kernel completes ahead of [`Listener::accept`].
const BACKLOG: i32 = 1024;
/// Parts in one system call, the kernel's limit.
const MAX_PARTS: usize = 1024;
/// Writes of up to this many bytes are copied and leave through the ring, together with those of other connections;
/// larger ones have a system call each.
const SMALL_WRITE: usize = 8 << 10;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(75);

/// A descriptor that the ring reports on.
pub(crate) struct Watched {
    fd: OwnedFd,
    readiness: Rc<Readiness>,
    ring: Rc<Ring>,
}

impl Watched {
    fn new(fd: OwnedFd, ring: &Rc<Ring>) -> Rc<Watched> {
        Rc::new(Watched { fd, readiness: Readiness::new(), ring: Rc::clone(ring) })
    }

    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    async fn readable(&self) {
        self.readiness.readable(&self.ring, self.raw()).await;
    }

    async fn writable(&self) {
        self.readiness.writable(&self.ring, self.raw()).await;
    }

    /// Ends both directions now; the descriptor closes with its last holder.
    fn shut(&self) {
        // SAFETY: a plain system call on our own open descriptor; an error means that it is shut already.
        let _ = unsafe { libc::shutdown(self.raw(), libc::SHUT_RDWR) };
        self.readiness.end();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.ring.forget_socket(&self.readiness);
    }
}

/// A listening socket of one executor; SO_REUSEPORT is set, so every executor may have its own.
pub struct GlommioListener {
    socket: Rc<Watched>,
    local: SocketAddr,
    closed: std::cell::Cell<bool>,
}

impl GlommioListener {
    pub(super) fn bind(ring: &Rc<Ring>, addr: SocketAddr) -> io::Result<GlommioListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(addr))?;
        socket.listen(BACKLOG)?;
        let local = address(&socket.local_addr()?)?;
        let socket = Watched::new(socket.into(), ring);
        Ok(GlommioListener { socket, local, closed: std::cell::Cell::new(false) })
    }
}

impl Listener for GlommioListener {
    type Stream = GlommioStream;

    async fn accept(&self) -> io::Result<GlommioStream> {
        while !self.closed.get() {
            match accept(self.socket.raw()) {
                Ok((fd, peer)) => match GlommioStream::new(fd, peer, &self.socket.ring) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => tracing::debug!(%peer, %error, "a connection was gone when accepted"),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readiness.clear_readable();
                    self.socket.readable().await;
                }
                Err(error) => back_off(&self.socket.ring, &error).await,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the listener is closed"))
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn close(&self) {
        self.closed.set(true);
        self.socket.shut();
    }
}

/// Waits out a lack of descriptors or memory; other errors are of the one connection that was lost.
async fn back_off(ring: &Rc<Ring>, error: &io::Error) {
    let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| lacking.contains(&code)) {
        tracing::warn!(%error, "cannot accept connections for now");
        ring.sleep(ACCEPT_BACK_OFF).await;
    } else {
        tracing::debug!(%error, "a connection failed before it was accepted");
        futures_lite::future::yield_now().await;
    }
}

fn accept(listener: RawFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut fd = -1;
    // SAFETY: accept4 fills the storage and its length in; the descriptor is new and ours.
    let ((), peer) = unsafe {
        SockAddr::try_init(|storage, len| {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            fd = libc::accept4(listener, storage.cast(), len, flags);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        })?
    };
    // SAFETY: as above.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((fd, address(&peer)?))
}

fn address(addr: &SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
}

/// Connects within `timeout`.
pub(super) async fn connect(
    ring: &Rc<Ring>,
    addr: SocketAddr,
    timeout: Duration,
) -> io::Result<GlommioStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&SockAddr::from(addr)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let watched = Watched::new(socket.into(), ring);
    watched.readiness.clear_writable();
    let connected = async {
        watched.writable().await;
        true
    };
    let late = async {
        ring.sleep(timeout).await;
        false
    };
    if !futures_lite::future::or(connected, late).await {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection to {addr} in {timeout:?}"),
        ));
    }
    if let Some(error) = socket2::SockRef::from(&watched.fd).take_error()? {
        return Err(error);
    }
    GlommioStream::of(watched, addr)
}

/// A connection of one executor.
pub struct GlommioStream {
    socket: Rc<Watched>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl GlommioStream {
    fn new(fd: OwnedFd, peer: SocketAddr, ring: &Rc<Ring>) -> io::Result<GlommioStream> {
        GlommioStream::of(Watched::new(fd, ring), peer)
    }

    fn of(socket: Rc<Watched>, peer: SocketAddr) -> io::Result<GlommioStream> {
        let options = socket2::SockRef::from(&socket.fd);
        options.set_tcp_nodelay(true)?;
        let local = address(&options.local_addr()?)?;
        Ok(GlommioStream { socket, peer, local })
    }
}

impl Stream for GlommioStream {
    type Reader = GlommioReader;
    type Writer = GlommioWriter;

    fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn into_split(self) -> (GlommioReader, GlommioWriter) {
        (GlommioReader(Rc::clone(&self.socket)), GlommioWriter(self.socket))
    }
}

/// The reading half: reads into the caller's buffer and has none of its own.
pub struct GlommioReader(Rc<Watched>);

impl StreamReader for GlommioReader {
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let spare = buffer.spare_capacity_mut();
        let (start, room) = (spare.as_mut_ptr(), spare.len());
        assert!(room > 0, "a read needs spare capacity");
        loop {
            // Known to be drained: asking the kernel again would only cost a system call.
            self.0.readable().await;
            // SAFETY: `start` points to `room` bytes of spare capacity of `buffer`, borrowed for this whole call.
            let read = unsafe { libc::recv(self.0.raw(), start.cast(), room, libc::MSG_DONTWAIT) };
            if read >= 0 {
                let read = read as usize;
                if read < room {
                    // Drained: what comes later is reported anew.
                    self.0.readiness.clear_readable();
                }
                // SAFETY: the kernel has filled in that many bytes.
                unsafe { buffer.advance_mut(read) };
                return Ok(read);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => self.0.readiness.clear_readable(),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }
}

/// The writing half.
pub struct GlommioWriter(Rc<Watched>);

impl GlommioWriter {
    /// Sends what fits now, which may be nothing.
    fn try_send(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: all zero is a valid message header: no name, no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len().min(MAX_PARTS) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            // SAFETY: `IoSlice` has the layout of `iovec`, and the parts live for the call, which only reads them.
            let sent = unsafe { libc::sendmsg(self.0.raw(), &message, flags) };
            if sent >= 0 {
                return Ok(sent as usize);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    self.0.readiness.clear_writable();
                    return Ok(0);
                }
                _ => return Err(error),
            }
        }
    }
}

impl GlommioWriter {
    /// Sends what fits now, which may be nothing, in the ring and from a copy.
    async fn send_copy(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let (socket, ring) = (&self.0, &self.0.ring);
        let mut copy = ring.take_buffer();
        parts.iter().for_each(|part| copy.extend_from_slice(part));
        let entry = opcode::Send::new(types::Fd(socket.raw()), copy.as_ptr(), copy.len() as u32);
        let entry = entry.flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).build();
        let held = Held { on: Target::Socket(Rc::clone(socket)), payload: Payload::Send(copy) };
        let (sent, payload) = ring.run(entry, held).await;
        if let Payload::Send(copy) = payload {
            ring.give_buffer(copy);
        }
        match sent {
            Ok(sent) => Ok(sent as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readiness.clear_writable();
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }
}

impl StreamWriter for GlommioWriter {
    async fn write_all(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let sent = match total {
            0 => return Ok(()),
            1..=SMALL_WRITE => self.send_copy(parts).await?,
            _ => self.try_send(parts)?,
        };
        if sent == total {
            return Ok(());
        }
        let mut rest = parts.to_vec();
        let mut rest = &mut rest[..];
        io::IoSlice::advance_slices(&mut rest, sent);
        while !rest.is_empty() {
            self.0.writable().await;
            let sent = self.try_send(rest)?;
            io::IoSlice::advance_slices(&mut rest, sent);
        }
        Ok(())
    }

    fn closer(&self) -> StreamCloser {
        let socket: Weak<Watched> = Rc::downgrade(&self.0);
        StreamCloser::new(move || {
            if let Some(socket) = socket.upgrade() {
                socket.shut();
            }
        })
    }
}
