//! Memory for direct I/O that is filled from the front and shared while it fills.
//!
//! A group commit builds its records in an [`AppendBuf`], publishes them, and hands [`IoSlice`]s of the very same
//! memory to the disk, to the hot tail and to sockets. What is published is never written again; that is what
//! makes the sharing safe, across cores too.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Arc;

use crate::memory::{HUGE_BLOCK, Memory};

/// Bytes that a processor fetches at a time.
#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Most bytes that are fetched ahead.
#[cfg(target_arch = "x86_64")]
const PREFETCHED: usize = 4 << 10;

/// Page-aligned memory with one writer, which appends. It is zeroed or filled as it is appended, not before, so that
/// memory which is never reached costs nothing.
pub struct AppendBuf {
    memory: Arc<Memory>,
    /// Bytes from the start that are published or written; the writer only touches what is behind.
    written: usize,
    /// Bytes from the start that slices may show; never above `written`.
    published: usize,
}

impl AppendBuf {
    /// An empty buffer for at least `capacity` bytes, rounded up to pages.
    pub fn with_capacity(capacity: usize) -> AppendBuf {
        AppendBuf::on(Memory::new(capacity))
    }

    /// As [`AppendBuf::with_capacity`], of huge pages if `capacity` is a [`HUGE_BLOCK`], or [`HUGE_PAGE`](crate::HUGE_PAGE)s.
    pub fn huge(capacity: usize) -> AppendBuf {
        AppendBuf::on(Memory::huge(capacity))
    }

    /// As [`AppendBuf::huge`], with all of the memory there already.
    pub(crate) fn huge_and_there(capacity: usize) -> AppendBuf {
        let mut memory = Memory::huge(capacity);
        memory.touch();
        AppendBuf::on(memory)
    }

    /// A buffer of `capacity` bytes of huge pages that this thread has free, if there is one.
    pub(crate) fn huge_again(capacity: usize) -> Option<AppendBuf> {
        (capacity == HUGE_BLOCK).then(Memory::free_block).flatten().map(AppendBuf::on)
    }

    fn on(memory: Memory) -> AppendBuf {
        AppendBuf { memory: Arc::new(memory), written: 0, published: 0 }
    }

    /// An empty buffer on the memory that `slice` shows a part of, if nobody else shows any of it: spares the page
    /// faults of new memory.
    pub fn recycle(slice: IoSlice) -> Option<AppendBuf> {
        let mut memory = slice.memory;
        Arc::get_mut(&mut memory)?;
        Some(AppendBuf { memory, written: 0, published: 0 })
    }

    /// Whether the memory was asked for of huge pages.
    pub fn is_huge(&self) -> bool {
        self.memory.is_huge()
    }

    /// Size of the memory in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.written
    }

    /// Whether nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Bytes that can still be appended.
    pub fn remaining(&self) -> usize {
        self.capacity() - self.written
    }

    /// Appends `len` zero bytes and returns them to be filled in. Panics if they do not fit.
    pub fn append(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.remaining(), "append of {len} bytes into {} remaining", self.remaining());
        let at = self.written;
        // SAFETY: the range lies in the allocation and behind `published`, so no slice shows it; after this, all of
        // the bytes before `written` are initialised.
        unsafe { self.memory.start().as_ptr().add(at).write_bytes(0, len) };
        self.written += len;
        self.unpublished_mut(at, len)
    }

    /// Appends `len` bytes without zeroing them, and returns where they are. Panics if they do not fit.
    ///
    /// # Safety
    /// What the caller does not write itself, or let the kernel write, it takes back with [`AppendBuf::truncate`] before
    /// anything else is done with the buffer.
    pub unsafe fn append_unfilled(&mut self, len: usize) -> *mut u8 {
        assert!(len <= self.remaining(), "append of {len} bytes into {} remaining", self.remaining());
        let at = self.written;
        self.written += len;
        // SAFETY: within the allocation, by the assertion.
        unsafe { self.memory.start().as_ptr().add(at) }
    }

    /// Appends `len` bytes that `fill` puts there one part after the other, without zeroing them before, and returns
    /// them. Panics if they do not fit, or if the parts are not `len` bytes together: nothing is appended then.
    pub fn append_parts(&mut self, len: usize, fill: impl FnOnce(&mut Filler<'_>)) -> &mut [u8] {
        assert!(len <= self.remaining(), "append of {len} bytes into {} remaining", self.remaining());
        let at = self.written;
        // SAFETY: the range lies in the allocation and behind `written`, so nobody else shows or writes it; what it holds
        // need not be initialised.
        let space = unsafe {
            let start = self.memory.start().as_ptr().add(at).cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start, len)
        };
        let start = space.as_ptr();
        let mut filler = Filler { space, filled: 0 };
        fill(&mut filler);
        // By the place, too, and not by the length alone: it is this very filler that has come to its end.
        let is_full = filler.filled == len && filler.space.as_ptr() == start;
        assert!(is_full, "{} bytes of an append of {len} were put", filler.filled);
        self.written += len;
        self.unpublished_mut(at, len)
    }

    /// Has the memory of the next `len` bytes fetched into the core's cache meanwhile, where the processor can: it is in no
    /// cache mostly, and the first of each page's lines it does not see coming.
    #[inline]
    pub fn prefetch_next(&self, len: usize) {
        #[cfg(target_arch = "x86_64")]
        for ahead in (0..len.min(self.remaining()).min(PREFETCHED)).step_by(CACHE_LINE) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: within the allocation; every x86-64 has the instruction, and it changes nothing.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(self.memory.start().as_ptr().add(self.written + ahead).cast())
            };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = len;
    }

    /// Appends a copy of `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.append_parts(bytes.len(), |filler| filler.put(bytes));
    }

    /// Bytes written but not yet published, to be changed still. Panics if the range is not within them.
    pub fn unpublished_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at >= self.published && at + len <= self.written, "only unpublished bytes may change");
        // SAFETY: the range lies in the allocation and behind `published`, so no slice shows it, and `&mut self` is
        // the only writer.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start().as_ptr().add(at), len) }
    }

    /// Takes back what was appended behind `len`. Panics if it is published.
    pub fn truncate(&mut self, len: usize) {
        assert!(len >= self.published && len <= self.written, "only unpublished bytes may be taken back");
        self.written = len;
    }

    /// Publishes all that is written: from now on it never changes.
    pub fn publish(&mut self) {
        self.published = self.written;
    }

    /// A shared view of published bytes. Panics if the range is not published.
    pub fn slice(&self, at: usize, len: usize) -> IoSlice {
        assert!(at + len <= self.published, "slice of {at}+{len} bytes, {} published", self.published);
        IoSlice { memory: Arc::clone(&self.memory), at, len }
    }
}

/// The memory of an append that is being filled, see [`AppendBuf::append_parts`].
pub struct Filler<'a> {
    space: &'a mut [MaybeUninit<u8>],
    /// Bytes from the start that were put.
    filled: usize,
}

impl Filler<'_> {
    /// Puts a copy of `part` behind the parts before. Panics if it does not fit.
    #[inline]
    pub fn put(&mut self, part: &[u8]) {
        self.space[self.filled..][..part.len()].write_copy_of_slice(part);
        self.filled += part.len();
    }

    /// What was put so far.
    pub fn filled(&self) -> &[u8] {
        // SAFETY: these bytes were put.
        unsafe { self.space[..self.filled].assume_init_ref() }
    }
}

impl fmt::Debug for AppendBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendBuf({} published, {} written, {})", self.published, self.written, self.capacity())
    }
}

/// A shared, immutable view of I/O memory; cheap to clone and to send to another core.
#[derive(Clone)]
pub struct IoSlice {
    memory: Arc<Memory>,
    at: usize,
    len: usize,
}

impl IoSlice {
    /// A copy of `bytes` in aligned memory.
    pub fn copy_of(bytes: &[u8]) -> IoSlice {
        let mut buf = AppendBuf::with_capacity(bytes.len());
        buf.extend(bytes);
        buf.publish();
        buf.slice(0, bytes.len())
    }

    /// `len` zeroes.
    pub fn zeroes(len: usize) -> IoSlice {
        let mut buf = AppendBuf::with_capacity(len);
        buf.append(len);
        buf.publish();
        buf.slice(0, len)
    }

    /// A part of this view. Panics if it is not within.
    pub fn slice(&self, at: usize, len: usize) -> IoSlice {
        assert!(at + len <= self.len, "slice of {at}+{len} bytes from {}", self.len);
        IoSlice { memory: Arc::clone(&self.memory), at: self.at + at, len }
    }

    /// Whether `next` lies right behind this view in the same memory; this view then shows it, too.
    pub fn join(&mut self, next: &IoSlice) -> bool {
        let joins = Arc::ptr_eq(&self.memory, &next.memory) && self.at + self.len == next.at;
        if joins {
            self.len += next.len;
        }
        joins
    }

    /// Has this view's first few KiB fetched into the core's cache meanwhile, where the processor can; it sees by itself
    /// that somebody goes on behind them.
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        self[..self.len.min(PREFETCHED)].chunks(CACHE_LINE).for_each(|line| prefetch(&line[0]));
    }

    /// Bytes that the memory behind this view takes, however short the view: what a budget counts.
    pub fn memory_len(&self) -> usize {
        self.memory.len()
    }

    /// Whether that memory was asked for of huge pages.
    pub fn is_huge(&self) -> bool {
        self.memory.is_huge()
    }
}

/// Has the cache line in which `item` begins fetched into the core's cache meanwhile, where the processor can.
pub fn prefetch<T>(item: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction, and it changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = item;
}

impl Deref for IoSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range was published when this view was made, so nobody writes it any more.
        unsafe { std::slice::from_raw_parts(self.memory.start().as_ptr().add(self.at), self.len) }
    }
}

impl AsRef<[u8]> for IoSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for IoSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoSlice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE;

    #[test]
    fn a_slice_shows_what_was_published_while_the_writer_goes_on() {
        let mut buf = AppendBuf::with_capacity(100);
        assert_eq!(buf.capacity(), PAGE);
        buf.extend(b"first");
        buf.publish();
        let first = buf.slice(0, 5);
        buf.extend(b"second");
        buf.truncate(8);
        buf.publish();
        assert_eq!((&*first, &*buf.slice(5, 3)), (&b"first"[..], &b"sec"[..]));
        assert_eq!(&*first.slice(1, 3), b"irs");
    }

    #[test]
    fn neighbours_join_and_others_do_not() {
        let buf = IoSlice::copy_of(b"abcdef");
        let mut slice = buf.slice(0, 2);
        assert!(slice.join(&buf.slice(2, 3)) && !slice.join(&buf.slice(2, 3)));
        assert!(!slice.join(&IoSlice::copy_of(b"f").slice(0, 1)));
        assert_eq!(&*slice, b"abcde");
    }

    #[test]
    fn memory_is_used_again_once_nobody_shows_it_and_appends_zeroes_again() {
        let mut buf = AppendBuf::with_capacity(10);
        buf.extend(b"old bytes");
        buf.publish();
        let (first, second) = (buf.slice(0, 3), buf.slice(3, 3));
        drop(buf);
        assert!(AppendBuf::recycle(first).is_none(), "the other slice still shows it");
        let mut buf = AppendBuf::recycle(second).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (0, PAGE));
        assert_eq!(buf.append(9), [0; 9]);
    }

    #[test]
    fn parts_are_put_one_after_the_other() {
        let mut buf = AppendBuf::with_capacity(16);
        buf.extend(b"0");
        assert_eq!(buf.append_parts(0, |_| {}), b"");
        let filled = buf.append_parts(5, |filler| {
            filler.put(b"ab");
            filler.put(b"");
            assert_eq!(filler.filled(), b"ab");
            filler.put(b"cde");
        });
        assert_eq!(filled, b"abcde");
        buf.publish();
        assert_eq!(&*buf.slice(0, 6), b"0abcde");
    }

    #[test]
    #[should_panic(expected = "4 bytes of an append of 5 were put")]
    fn an_append_is_filled_to_its_end() {
        AppendBuf::with_capacity(8).append_parts(5, |filler| filler.put(b"four"));
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn an_append_is_filled_no_further() {
        AppendBuf::with_capacity(8).append_parts(3, |filler| filler.put(b"four"));
    }

    #[test]
    #[should_panic(expected = "only unpublished bytes may change")]
    fn published_bytes_cannot_be_changed() {
        let mut buf = AppendBuf::with_capacity(8);
        buf.extend(b"done");
        buf.publish();
        buf.unpublished_mut(0, 4);
    }
}
