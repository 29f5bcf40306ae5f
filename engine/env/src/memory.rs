//! Memory that disk and sockets read from and write into: page-aligned, and where much goes through it, of huge pages.
//!
//! A direct write pins every page of its memory and hands the device a list of them. With ordinary pages 1 MiB are 256 of
//! them, wherever they lie; a request to a virtio disk takes 254. A longer one is split, which io_uring leaves to a kernel
//! worker, and the host goes through the list page by page. Of a huge page it is one stretch.
//!
//! To touch a new one takes 0.4 ms, and several in a virtual machine whose host has to find the memory: a stall, where
//! ordinary pages cost more, but each a few microseconds.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Alignment of the memory in bytes: a page, which satisfies every device's direct I/O.
pub(crate) const PAGE: usize = 4096;

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a block, the least memory of huge pages: half of one.
pub const HUGE_BLOCK: usize = 1 << 20;

/// Blocks that each thread keeps for the next ones, in no budget.
const MAX_FREE: usize = 4;

thread_local! {
    static FREE: RefCell<FreeBlocks> = const { RefCell::new(FreeBlocks(Vec::new())) };
}

/// Blocks that nobody uses. The last to be freed is used first: it may be in the core's cache yet.
struct FreeBlocks(Vec<NonNull<u8>>);

impl Drop for FreeBlocks {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|block| unmap(block, HUGE_BLOCK));
    }
}

/// Plain bytes, with any content at first.
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    /// A mapping, and not the heap's.
    is_mapped: bool,
    /// Asked for as [`Memory::huge`].
    is_huge: bool,
}

// SAFETY: `Memory` owns its bytes, and may be freed by any thread; who reads and writes them is up to its holder.
unsafe impl Send for Memory {}
// SAFETY: as above: it gives nothing but the address.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of at least `len` bytes, in whole pages: the heap's; or if it is a [`HUGE_BLOCK`], of which a log has hundreds and
    /// gives them all up for huge ones, a mapping, which goes back to the system.
    pub(crate) fn new(len: usize) -> Memory {
        let len = len.max(1).next_multiple_of(PAGE);
        Memory::on((len == HUGE_BLOCK).then(|| map(len)).flatten(), len, false)
    }

    /// Memory of at least `len` bytes, in whole pages: of huge ones, as far as the kernel has any, if it is a [`HUGE_BLOCK`] or
    /// whole huge pages; else the heap's all the same.
    pub(crate) fn huge(len: usize) -> Memory {
        let len = len.max(1).next_multiple_of(PAGE);
        let mapped = match len {
            HUGE_BLOCK => take_block(),
            len if len.is_multiple_of(HUGE_PAGE) => map_huge(len),
            _ => None,
        };
        Memory::on(mapped, len, true)
    }

    /// On the mapping, or the heap's if there is none.
    fn on(mapped: Option<NonNull<u8>>, len: usize, is_huge: bool) -> Memory {
        let start = mapped.unwrap_or_else(|| allocate(len));
        Memory { start, len, is_mapped: mapped.is_some(), is_huge }
    }

    /// A [`HUGE_BLOCK`] that this thread has free, if there is one.
    pub(crate) fn free_block() -> Option<Memory> {
        let start = pop_free()?;
        Some(Memory { start, len: HUGE_BLOCK, is_mapped: true, is_huge: true })
    }

    /// Has the kernel give all of it now.
    pub(crate) fn touch(&mut self) {
        for at in (0..self.len).step_by(PAGE) {
            // SAFETY: within the memory, which nobody else has. Volatile, since nobody reads it.
            unsafe { self.start.add(at).write_volatile(0) };
        }
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_huge(&self) -> bool {
        self.is_huge
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match (self.is_mapped, self.is_huge, self.len) {
            // SAFETY: allocated by `allocate` with this very layout.
            (false, _, len) => unsafe { dealloc(self.start.as_ptr(), layout(len)) },
            (true, true, HUGE_BLOCK) => give_block(self.start),
            (true, _, len) => unmap(self.start, len),
        }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, PAGE).expect("a buffer's size fits the address space")
}

fn allocate(len: usize) -> NonNull<u8> {
    // SAFETY: the layout has a size above zero (a page at least).
    let start = unsafe { alloc(layout(len)) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout(len)))
}

fn pop_free() -> Option<NonNull<u8>> {
    FREE.try_with(|free| free.borrow_mut().0.pop()).ok().flatten()
}

/// A free block, or half of a new huge page, whose other half is then free.
fn take_block() -> Option<NonNull<u8>> {
    pop_free().or_else(|| {
        let block = map_huge(HUGE_PAGE)?;
        // SAFETY: within the mapping, which is twice as long.
        give_block(unsafe { block.add(HUGE_BLOCK) });
        Some(block)
    })
}

fn give_block(block: NonNull<u8>) {
    let is_kept = FREE.try_with(|free| {
        let free = &mut free.borrow_mut().0;
        let has_room = free.len() < MAX_FREE;
        free.extend(has_room.then_some(block));
        has_room
    });
    // A thread that ends keeps nothing any more.
    if !is_kept.unwrap_or(false) {
        unmap(block, HUGE_BLOCK);
    }
}

/// Maps `len` bytes, a multiple of a huge page's, of huge pages, as far as the kernel has any and the machine's settings
/// allow it; else of ordinary ones. They take no memory until they are touched. `None` if there is no room for a mapping.
fn map_huge(len: usize) -> Option<NonNull<u8>> {
    // One more, of which the parts before and behind the aligned ones go back.
    let mapped = len + HUGE_PAGE;
    let start = map(mapped)?;
    let before = start.align_offset(HUGE_PAGE);
    // SAFETY: all of it within the mapping, of which nothing is used yet. Advice that is refused changes nothing.
    unsafe {
        let aligned = start.add(before);
        unmap(start, before);
        unmap(aligned.add(len), mapped - before - len);
        libc::madvise(aligned.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
        Some(aligned)
    }
}

fn map(len: usize) -> Option<NonNull<u8>> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which nobody else knows.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    NonNull::new(start).filter(|start| start.as_ptr() != libc::MAP_FAILED).map(NonNull::cast)
}

/// Gives a mapping back, or a part of one. (What is half of a huge page the kernel takes once it needs memory, or the other
/// half goes, too.)
fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: whole pages of a mapping of `map`, of which the caller was the owner.
    unsafe {
        if len > 0 && libc::munmap(start.as_ptr().cast(), len) != 0 {
            // A process may have so many mappings only, and this would part one: its memory goes all the same.
            libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(memory: &Memory, byte: u8) {
        // SAFETY: all of the memory, which nobody else has.
        unsafe { memory.start().as_ptr().write_bytes(byte, memory.len()) };
    }

    fn is_all(memory: &Memory, byte: u8) -> bool {
        // SAFETY: all of the memory, which has been filled.
        unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), memory.len()) }
            .iter()
            .all(|b| *b == byte)
    }

    #[test]
    fn sizes_are_whole_pages_and_blocks_and_whole_huge_pages_are_mapped() {
        for (asked, len, is_mapped) in [
            (0, PAGE, false),
            (PAGE + 1, 2 * PAGE, false),
            (HUGE_BLOCK - PAGE, HUGE_BLOCK - PAGE, false),
            (HUGE_BLOCK - 1, HUGE_BLOCK, true),
            (HUGE_BLOCK, HUGE_BLOCK, true),
            (HUGE_BLOCK + 1, HUGE_BLOCK + PAGE, false),
            (HUGE_PAGE, HUGE_PAGE, true),
            (HUGE_PAGE + 1, HUGE_PAGE + PAGE, false),
            (3 * HUGE_PAGE - 1, 3 * HUGE_PAGE, true),
        ] {
            let (ordinary, large) = (Memory::new(asked), Memory::huge(asked));
            assert_eq!((ordinary.len(), large.len()), (len, len), "{asked}");
            assert_eq!((ordinary.is_mapped, large.is_mapped), (len == HUGE_BLOCK, is_mapped), "{asked}");
            assert!(!ordinary.is_huge() && large.is_huge());
            for mut memory in [ordinary, large] {
                assert_eq!(memory.start().align_offset(PAGE), 0);
                memory.touch();
                fill(&memory, 7);
                assert!(is_all(&memory, 7));
            }
        }
    }

    #[test]
    fn blocks_do_not_overlap_and_are_used_again() {
        // A thread of its own has no blocks yet.
        let test = || {
            let blocks: Vec<Memory> = (0..2 * MAX_FREE).map(|_| Memory::huge(HUGE_BLOCK)).collect();
            (0..).zip(&blocks).for_each(|(byte, block)| fill(block, byte));
            (0..).zip(&blocks).for_each(|(byte, block)| assert!(is_all(block, byte), "{byte}"));
            let starts: Vec<_> = blocks.iter().map(Memory::start).collect();
            drop(blocks);
            assert_eq!(FREE.with(|free| free.borrow().0.len()), MAX_FREE, "no more are kept");
            let block = Memory::free_block().unwrap();
            assert!(starts.contains(&block.start()), "one of these again");
            std::thread::spawn(|| drop(block)).join().unwrap();
            assert_eq!(
                FREE.with(|free| free.borrow().0.len()),
                MAX_FREE - 1,
                "it was the other thread's to keep"
            );
        };
        std::thread::spawn(test).join().unwrap();
    }
}
