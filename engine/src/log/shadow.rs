//! The shadow: the log's newest bytes once more, in a file of the page cache.
//!
//! With ASYNC_FLUSH a message is acknowledged once it outlives the process, which the page cache does. It takes what is
//! little in microseconds, where the device takes a hundred, and the log gets it in larger writes soon after. The file
//! `shadow` is a ring of the log's bytes: the one at position p is at p modulo the file's length. It says nothing of
//! itself, since frames know their position and epoch, and chain.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use ringmq_env::{Env, File, IoSlice, OpenOptions, mutant};

use super::frame::{FRAME_HEADER_LEN, FrameHeader, FrameKind};
use super::replay::{ScanEnd, follows};
use super::scan::{ScannedFrame, Scanner};
use super::segment::Segments;
use super::tail_journal::TailRecord;
use crate::damage::{Damage, DamageReport};
use crate::reread::read_again;

/// Name of the file in the shard's directory.
const FILE: &str = "shadow";

/// Longest file that is believed to be one, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// The file, open for writing.
pub(super) struct Shadow<E: Env> {
    file: E::File,
    path: PathBuf,
    len: u64,
    /// The page cache refused a write: what the ring has is whole still, but it takes no more.
    has_failed: Cell<bool>,
}

impl<E: Env> Shadow<E> {
    /// Opens or makes `dir/shadow` as a ring of `len` bytes. What it has of the log must be in the log already.
    pub(super) async fn open(env: &E, dir: &Path, len: u64) -> io::Result<Shadow<E>> {
        let path = dir.join(FILE);
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = env.open(&path, options).await?;
        if file.size().await? != len {
            file.set_len(0).await?;
            file.allocate(0, len).await?;
            // Written once, so that no later write has to find a place on the device.
            file.write_at(IoSlice::zeroes(len as usize), 0).await?;
            file.sync().await?;
        }
        env.sync_dir(dir).await?;
        Ok(Shadow { file, path, len, has_failed: Cell::new(false) })
    }

    /// Removes `dir/shadow` if it is there. What it has of the log must be in the log already.
    pub(super) async fn remove(env: &E, dir: &Path) -> io::Result<()> {
        match env.remove_file(&dir.join(FILE)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => env.sync_dir(dir).await,
        }
    }

    /// Length of the ring in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Takes the log's bytes at `position`, at most as many as the ring has; false if it could not.
    pub(super) fn store(&self, position: u64, bytes: &[u8]) -> bool {
        if self.has_failed.get() {
            return false;
        }
        if mutant!("shadow-forgets") {
            return true;
        }
        let mut parts =
            halves(position, bytes.len(), self.len).into_iter().filter(|(_, part)| !part.is_empty());
        let stored = parts.try_for_each(|(at, part)| self.file.write_now(&bytes[part], at));
        if let Err(error) = stored {
            tracing::warn!(path = %self.path.display(), %error, "from now on the device acknowledges all messages");
            self.has_failed.set(true);
        }
        !self.has_failed.get()
    }
}

/// Where `len` bytes from `position` on are in a ring: places in the file, and ranges of the bytes.
fn halves(position: u64, len: usize, ring: u64) -> [(u64, std::ops::Range<usize>); 2] {
    let at = position % ring;
    let first = len.min((ring - at) as usize);
    [(at, 0..first), (0, first..len)]
}

/// What the file had when the log was opened.
pub(super) struct ShadowImage(IoSlice);

impl ShadowImage {
    /// Reads `dir/shadow` without changing anything; `None` when there is none.
    pub(super) async fn read<E: Env>(env: &E, dir: &Path, report: &DamageReport) -> Option<ShadowImage> {
        let path = dir.join(FILE);
        let read = async {
            let file = env.open(&path, OpenOptions::default()).await?;
            let len = file.size().await?.min(MAX_LEN) as usize;
            Ok((len, read_again(&file, 0, len).await?))
        };
        match read.await {
            Ok((len, bytes)) => (len > 0 && bytes.len() == len).then_some(ShadowImage(bytes)),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => None,
            Err(error) => {
                let what = format!("it cannot be read, the newest messages may be lost: {error}");
                report.tell(Damage { path, offset: 0, len: 1, what });
                None
            }
        }
    }

    /// What only the shadow has of a log that was found to end at `at`, as if it were the newest entry of the tail journal,
    /// which is `newest` so far. Without a journal nobody knows which epoch is the newest.
    pub(super) async fn tail_behind<E: Env>(
        &self,
        at: &ScanEnd,
        segments: &Segments<E>,
        newest: Option<&TailRecord>,
        scanner: &mut Scanner<'_, E>,
    ) -> Option<TailRecord> {
        at.chain?;
        let (newest, segment) = (newest?, segments.locate(at.position)?.range);
        let (mut end, mut bytes) = (*at, Vec::new());
        while let Some((frame, data)) = self.frame(end.position, segment.end())
            && follows(&frame, &end, Some(newest))
        {
            bytes.extend(data);
            end = ScanEnd { position: frame.end(), chain: Some(frame.header.crc), epoch: frame.header.epoch };
        }
        if bytes.is_empty() {
            return None;
        }
        // Entries begin with a sector.
        let begun = (at.position % scanner.alignment()) as usize;
        let mut unwritten = scanner.bytes(at.position - begun as u64, begun).await?.to_vec();
        unwritten.extend(bytes);
        Some(TailRecord {
            position: end.position,
            chain: end.chain.unwrap_or(0),
            unwritten,
            ..newest.clone()
        })
    }

    /// The whole frame at `position` that ends before `until`, and its bytes.
    fn frame(&self, position: u64, until: u64) -> Option<(ScannedFrame, Vec<u8>)> {
        let header = FrameHeader::decode(&self.bytes(position, FRAME_HEADER_LEN)?)?;
        let len = FRAME_HEADER_LEN + header.payload as usize;
        if header.base != position || header.kind == FrameKind::End || position + len as u64 > until {
            return None;
        }
        let bytes = self.bytes(position, len)?;
        Some((ScannedFrame::of(header, &bytes[FRAME_HEADER_LEN..])?, bytes))
    }

    fn bytes(&self, position: u64, len: usize) -> Option<Vec<u8>> {
        let ring = self.0.len();
        let parts = (len <= ring).then(|| halves(position, len, ring as u64))?;
        let part = |(at, range): (u64, std::ops::Range<usize>)| &self.0[at as usize..][..range.len()];
        Some(parts.map(part).concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_goes_on_at_its_start() {
        assert_eq!(halves(1000, 24, 4096), [(1000, 0..24), (0, 24..24)]);
        assert_eq!(halves(3 * 4096 - 10, 24, 4096), [(4086, 0..10), (0, 10..24)]);
        let image = ShadowImage(IoSlice::copy_of(b"56781234"));
        assert_eq!(image.bytes(12, 8).as_deref(), Some(&b"12345678"[..]));
        assert_eq!(image.bytes(12, 9), None);
        assert_eq!(image.bytes(8, 2).as_deref(), Some(&b"56"[..]));
    }
}
