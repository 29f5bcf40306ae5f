//! What waits to be written to one connection, gathered so that it leaves in one write.

use bytes::{Bytes, BytesMut};
use ringmq_env::IoSlice;

/// Bodies up to this many bytes are copied behind their header: below it, a copy costs less than one more part of
/// a vectored write.
pub const COPY_LIMIT: usize = 32 << 10;

/// A piece of a write.
enum Part {
    Bytes(Bytes),
    Memory(IoSlice),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Bytes(bytes) => bytes,
            Part::Memory(memory) => memory,
        }
    }
}

/// The queue: parts that are complete, and a tail that small answers are written into.
#[derive(Default)]
pub struct Outgoing {
    parts: Vec<Part>,
    parts_len: usize,
    tail: BytesMut,
}

impl Outgoing {
    /// Where a header, or a whole small answer, is appended.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends the body that belongs behind what is in the tail.
    pub fn body(&mut self, parts: Vec<IoSlice>) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= COPY_LIMIT {
            parts.iter().for_each(|part| self.tail.extend_from_slice(part));
            return;
        }
        self.parts_len += self.tail.len() + len;
        self.parts.push(Part::Bytes(self.tail.split().freeze()));
        self.parts.extend(parts.into_iter().map(Part::Memory));
    }

    /// Bytes in the queue.
    pub fn len(&self) -> usize {
        self.parts_len + self.tail.len()
    }

    /// Whether nothing is in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything out, and goes on with the memory of `spare`, which must be empty.
    pub fn take(&mut self, spare: Gathered) -> Gathered {
        debug_assert!(spare.parts.is_empty() && spare.tail.is_empty());
        self.parts_len = 0;
        Gathered {
            parts: std::mem::replace(&mut self.parts, spare.parts),
            tail: std::mem::replace(&mut self.tail, spare.tail),
        }
    }
}

/// What one write takes.
#[derive(Default)]
pub struct Gathered {
    parts: Vec<Part>,
    tail: BytesMut,
}

impl Gathered {
    /// The pieces in order.
    pub fn slices(&self) -> smallvec::SmallVec<[std::io::IoSlice<'_>; 8]> {
        let parts = self.parts.iter().map(|part| std::io::IoSlice::new(part.bytes()));
        let tail = (!self.tail.is_empty()).then(|| std::io::IoSlice::new(&self.tail));
        parts.chain(tail).collect()
    }

    /// Its memory, empty, to be used again.
    pub fn into_spare(mut self) -> Gathered {
        self.parts.clear();
        self.tail.clear();
        self
    }

    /// Bytes of memory that it has for more.
    pub fn capacity(&self) -> usize {
        self.parts.capacity() * size_of::<Part>() + self.tail.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_are_copied_and_large_ones_are_not() {
        let mut out = Outgoing::default();
        out.tail().extend_from_slice(b"head1");
        out.body(vec![IoSlice::copy_of(b"ab"), IoSlice::copy_of(b"c")]);
        let large = IoSlice::copy_of(&vec![7; COPY_LIMIT + 1]);
        out.tail().extend_from_slice(b"head2");
        out.body(vec![large.clone()]);
        out.tail().extend_from_slice(b"head3");
        assert_eq!(out.len(), 18 + large.len());
        let gathered = out.take(Gathered::default());
        assert!(out.is_empty());
        let slices = gathered.slices();
        assert_eq!(slices.len(), 3);
        assert_eq!((&*slices[0], &*slices[2]), (&b"head1abchead2"[..], &b"head3"[..]));
        assert_eq!(slices[1].as_ptr(), large.as_ptr(), "the large body is the very memory that was given");
    }
}
