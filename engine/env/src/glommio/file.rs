//! Files on the executor's own ring.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::pool;
use super::ring::{Held, Payload, Ring, Target};
use crate::{AppendBuf, File, HUGE_BLOCK, IoSlice, OpenOptions};

/// Most bytes in one request: a multiple of every alignment, and within what one system call transfers.
const MAX_TRANSFER: usize = 1 << 30;
/// Alignment where the file system does not tell its own: satisfies every block device.
const SAFE_ALIGNMENT: usize = 4096;
/// The least alignment that [`File::alignment`] promises.
const MIN_ALIGNMENT: usize = 512;
/// Permissions of the files that are created: the owner's, and the group may read.
const CREATE_MODE: libc::mode_t = 0o640;

/// An open descriptor; closes through the ring with its last holder.
pub(crate) struct Descriptor {
    ring: Rc<Ring>,
    fd: Option<OwnedFd>,
}

impl Descriptor {
    fn raw(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.ring.close(fd);
        }
    }
}

/// A file of one executor. A file system that refuses O_DIRECT (an old tmpfs) is opened without it, whatever the
/// options say: alignment is then asked for still, but the page cache is not bypassed.
#[derive(Clone)]
pub struct GlommioFile {
    descriptor: Rc<Descriptor>,
    alignment: usize,
}

impl GlommioFile {
    pub(super) async fn open(ring: &Rc<Ring>, path: &Path, options: OpenOptions) -> io::Result<GlommioFile> {
        let mut opened = open_descriptor(ring, path, flags(options)).await;
        if options.direct && opened.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)) {
            tracing::warn!(path = %path.display(), "no direct I/O on this file system: using the page cache");
            opened = open_descriptor(ring, path, flags(OpenOptions { direct: false, ..options })).await;
        }
        let fd = opened?;
        let alignment = direct_alignment(&fd)?;
        Ok(GlommioFile { descriptor: Rc::new(Descriptor { ring: Rc::clone(ring), fd: Some(fd) }), alignment })
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.descriptor.raw())
    }

    /// Runs an operation, again for as long as it was merely interrupted.
    async fn run(&self, entry: squeue::Entry, payload: Payload) -> (io::Result<usize>, Payload) {
        let mut payload = payload;
        loop {
            let held = Held { on: Target::File(Rc::clone(&self.descriptor)), payload };
            let (result, back) = self.descriptor.ring.run_soon(entry.clone(), held).await;
            match result {
                Err(error) if is_transient(&error) => payload = back,
                result => return (result.map(|n| n as usize), back),
            }
        }
    }

    /// Bytes of a short transfer that stand, given that the next one has to be aligned.
    fn aligned(&self, transferred: usize) -> usize {
        transferred - transferred % self.alignment
    }
}

impl File for GlommioFile {
    fn alignment(&self) -> usize {
        self.alignment
    }

    async fn write_at(&self, data: IoSlice, offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let part = data.slice(done, (data.len() - done).min(MAX_TRANSFER));
            let entry = opcode::Write::new(self.fd(), part.as_ptr(), part.len() as u32);
            let entry = entry.offset(offset + done as u64).build();
            let length = part.len();
            let written = self.run(entry, Payload::Write(part)).await.0?;
            // A short write is continued from a block's start, which may write a few bytes again.
            let kept = if written < length { self.aligned(written) } else { written };
            if kept == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += kept;
        }
        Ok(())
    }

    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let fd = self.descriptor.fd.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<IoSlice> {
        let mut buffer = match len {
            // A cold read ahead, of which there are many.
            HUGE_BLOCK => huge_memory(len).await,
            _ => AppendBuf::with_capacity(len),
        };
        // SAFETY: the kernel fills the first `done` bytes; the others are taken back below, and on an error the buffer
        // is dropped.
        let start = unsafe { buffer.append_unfilled(len) };
        let mut done = 0;
        while done < len {
            let wanted = (len - done).min(MAX_TRANSFER);
            // SAFETY: within the buffer's `len` bytes; the buffer goes along as the payload and comes back.
            let target = unsafe { start.add(done) };
            let entry = opcode::Read::new(self.fd(), target, wanted as u32);
            let entry = entry.offset(offset + done as u64).build();
            let (read, back) = self.run(entry, Payload::Read(buffer)).await;
            let Payload::Read(back) = back else { unreachable!("a read gives its buffer back") };
            buffer = back;
            let read = read?;
            let kept = if read < wanted { self.aligned(read) } else { read };
            done += kept;
            if read == 0 || kept < read {
                // The end of the file, at which a direct read may be unaligned.
                done += read - kept;
                break;
            }
        }
        buffer.truncate(done);
        buffer.publish();
        Ok(buffer.slice(0, done))
    }

    async fn sync(&self) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC).build();
        self.run(entry, Payload::None).await.0.map(drop)
    }

    async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(self.fd(), len).offset(offset).build();
        self.run(entry, Payload::None).await.0.map(drop)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        // io_uring truncates from Linux 6.9 on only. The clone keeps the file open for the thread.
        let fd = self.descriptor.fd.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()?;
        pool::FILES.run(move || Ok(rustix::fs::ftruncate(&fd, len)?)).await
    }

    async fn size(&self) -> io::Result<u64> {
        let fd = self.descriptor.fd.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // From the inode in memory: it does not block.
        Ok(u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0))
    }
}

/// See [`crate::Env::huge_memory`].
pub(super) async fn huge_memory(capacity: usize) -> AppendBuf {
    if let Some(again) = AppendBuf::huge_again(capacity) {
        return again;
    }
    let touched = pool::MEMORY.run(move || Ok(AppendBuf::huge_and_there(capacity))).await;
    touched.unwrap_or_else(|_| AppendBuf::huge(capacity))
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN))
}

fn flags(options: OpenOptions) -> libc::c_int {
    let mut flags = libc::O_CLOEXEC | if options.write { libc::O_RDWR } else { libc::O_RDONLY };
    for (wanted, flag) in [
        (options.create || options.create_new, libc::O_CREAT),
        (options.create_new, libc::O_EXCL),
        (options.dsync, libc::O_DSYNC),
        (options.direct, libc::O_DIRECT),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    flags
}

async fn open_descriptor(ring: &Rc<Ring>, path: &Path, flags: libc::c_int) -> io::Result<OwnedFd> {
    loop {
        let path = c_path(path)?;
        let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr());
        let entry = entry.flags(flags).mode(CREATE_MODE).build();
        match ring.run(entry, Held { on: Target::None, payload: Payload::Open(path) }).await.0 {
            // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Asks the file system what direct I/O on this file needs.
fn direct_alignment(fd: &OwnedFd) -> io::Result<usize> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let empty = c"";
    // SAFETY: an empty path with AT_EMPTY_PATH means the descriptor; `stat` has room for the answer.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first, and filled in by the call.
    let stat = unsafe { stat.assume_init() };
    if stat.stx_mask & libc::STATX_DIOALIGN == 0 || stat.stx_dio_offset_align == 0 {
        return Ok(SAFE_ALIGNMENT);
    }
    let needed = stat.stx_dio_mem_align.max(stat.stx_dio_offset_align) as usize;
    Ok(needed.next_power_of_two().max(MIN_ALIGNMENT))
}

/// Renames through the ring.
pub(super) async fn rename(ring: &Rc<Ring>, from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let cwd = types::Fd(libc::AT_FDCWD);
    let entry = opcode::RenameAt::new(cwd, from.as_ptr(), cwd, to.as_ptr()).build();
    ring.run(entry, Held { on: Target::None, payload: Payload::Paths(from, Some(to)) }).await.0.map(drop)
}

/// Removes a file through the ring.
pub(super) async fn remove_file(ring: &Rc<Ring>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let entry = opcode::UnlinkAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    ring.run(entry, Held { on: Target::None, payload: Payload::Paths(path, None) }).await.0.map(drop)
}

/// Makes a directory's entries durable.
pub(super) async fn sync_dir(ring: &Rc<Ring>, path: &Path) -> io::Result<()> {
    let fd = open_descriptor(ring, path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC).await?;
    let descriptor = Rc::new(Descriptor { ring: Rc::clone(ring), fd: Some(fd) });
    let entry = opcode::Fsync::new(types::Fd(descriptor.raw())).build();
    ring.run(entry, Held { on: Target::File(descriptor), payload: Payload::None }).await.0.map(drop)
}
