//! A table that grows without being copied, and takes no more memory than what is in it.

use std::ops::{Index, IndexMut};

/// Items in one part, which is allocated at once.
const PART: usize = 1024;

/// Items by number. They stay where they are.
pub(super) struct Segments<T> {
    /// All but the last are full.
    parts: Vec<Vec<T>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Segments { parts: Vec::new() }
    }
}

impl<T> Segments<T> {
    /// Items there are.
    pub(super) fn len(&self) -> usize {
        let last = self.parts.last().map_or(0, Vec::len);
        self.parts.len().saturating_sub(1) * PART + last
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.parts.get(index as usize / PART)?.get(index as usize % PART)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.parts.iter_mut().flatten()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.parts.len() * PART * size_of::<T>()
    }

    /// Puts `item` where one is free, else at the end.
    pub(super) fn place(&mut self, free: &mut Vec<u32>, item: T) -> u32 {
        if let Some(index) = free.pop() {
            self[index] = item;
            return index;
        }
        let index = u32::try_from(self.len()).expect("fewer than 2^32 queues and topics fit in memory");
        if self.parts.last().is_none_or(|part| part.len() == PART) {
            self.parts.push(Vec::with_capacity(PART));
        }
        self.parts.last_mut().expect("a part with room was made above").push(item);
        index
    }
}

impl<T> Index<u32> for Segments<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.parts[index as usize / PART][index as usize % PART]
    }
}

impl<T> IndexMut<u32> for Segments<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.parts[index as usize / PART][index as usize % PART]
    }
}
