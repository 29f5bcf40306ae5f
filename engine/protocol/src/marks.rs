//! Where either of two bytes stands in a text: sixty-four bytes are looked at together, so that short pieces cost no
//! search each.

/// Bytes that are looked at together: one for each bit of a mask.
const BLOCK: usize = 64;
/// Bytes that are looked at together in a short text.
const SHORT: usize = 16;

/// The places of the bytes `A` and `B` in a text, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Marks<'a, const A: u8, const B: u8> {
    bytes: &'a [u8],
    /// Start of the block that `mask` is about.
    block: usize,
    /// Places of this block that are still to come.
    mask: u64,
    /// Bits of all bytes seen that are not ASCII.
    high: u64,
}

impl<'a, const A: u8, const B: u8> Marks<'a, A, B> {
    /// From the start of `bytes` on.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Marks<'a, A, B> {
        let mut marks = Marks { bytes, block: 0, mask: 0, high: 0 };
        marks.look();
        marks
    }

    /// The next place.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<usize> {
        while self.mask == 0 {
            self.block += BLOCK;
            if self.block >= self.bytes.len() {
                return None;
            }
            self.look();
        }
        let at = self.block + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(at)
    }

    /// Once all places were taken: whether the text is ASCII.
    #[inline]
    pub(crate) fn is_ascii(&self) -> bool {
        self.high == 0
    }

    #[inline]
    fn look(&mut self) {
        let rest = &self.bytes[self.block..];
        let (mask, high) = match rest.first_chunk::<BLOCK>() {
            Some(block) => masks::<A, B, BLOCK>(block),
            None => {
                let mut last = [!A & 0x7f; BLOCK];
                last[..rest.len()].copy_from_slice(rest);
                let (mask, high) = masks::<A, B, BLOCK>(&last);
                (mask & ((1 << rest.len()) - 1), high)
            }
        };
        self.mask = mask;
        self.high |= high;
    }
}

/// Where the first of the two bytes stands, for texts of which most are short; and whether there may be something in
/// front of it that is not ASCII.
#[inline(always)]
pub(crate) fn first<const A: u8, const B: u8>(text: &[u8]) -> (Option<usize>, bool) {
    let (mut at, mut high) = (0, 0);
    while let Some(block) = text[at..].first_chunk::<SHORT>() {
        let (mask, highs) = masks::<A, B, SHORT>(block);
        high |= highs;
        if mask != 0 {
            return (Some(at + mask.trailing_zeros() as usize), high != 0);
        }
        at += SHORT;
    }
    let rest = &text[at..];
    let found = rest.iter().position(|byte| *byte == A || *byte == B);
    (found.map(|found| at + found), high != 0 || !rest.is_ascii())
}

/// A bit for each byte that is `A` or `B`; and any bits at all if one is not ASCII. `N` is 16, 32, 48 or 64.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn masks<const A: u8, const B: u8, const N: usize>(block: &[u8; N]) -> (u64, u64) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };
    let (mut mask, mut high) = (0, 0);
    for (i, part) in block.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: SSE2 is part of x86-64, and the 16 bytes are the array's.
        let (marks, highs) = unsafe {
            let part = _mm_loadu_si128(part.as_ptr().cast());
            let a = _mm_cmpeq_epi8(part, _mm_set1_epi8(A as i8));
            let b = _mm_cmpeq_epi8(part, _mm_set1_epi8(B as i8));
            (_mm_movemask_epi8(_mm_or_si128(a, b)), _mm_movemask_epi8(part))
        };
        mask |= u64::from(marks as u16) << (i * 16);
        high |= u64::from(highs as u16);
    }
    (mask, high)
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn masks<const A: u8, const B: u8, const N: usize>(block: &[u8; N]) -> (u64, u64) {
    masks_in_words::<A, B, N>(block)
}

/// The same, without any instruction that some machine lacks.
#[cfg_attr(target_arch = "x86_64", cfg(test))]
fn masks_in_words<const A: u8, const B: u8, const N: usize>(block: &[u8; N]) -> (u64, u64) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    /// Gathers the top bit of each byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    // The top bit of each byte that is zero.
    let zeros = |word: u64| !(((word & LOW) + LOW) | word | LOW);
    let (mut mask, mut high) = (0, 0);
    for (i, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ u64::from_le_bytes([A; 8])) | zeros(word ^ u64::from_le_bytes([B; 8]));
        mask |= ((found >> 7).wrapping_mul(GATHER) >> 56) << (i * 8);
        high |= word & !LOW;
    }
    (mask, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_is_found_in_order(
            text in prop::collection::vec(prop_oneof![Just(1u8), Just(2), Just(0), Just(0x81), any::<u8>()], 0..200),
        ) {
            let mut marks = Marks::<1, 2>::new(&text);
            let found: Vec<_> = std::iter::from_fn(|| marks.next()).collect();
            let expected: Vec<_> = (0..text.len()).filter(|at| matches!(text[*at], 1 | 2)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(marks.is_ascii(), text.is_ascii());
        }

        #[test]
        fn the_first_is_found(text in prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(1)], 0..50)) {
            let (found, high) = first::<1, 2>(&text);
            prop_assert_eq!(found, text.iter().position(|byte| matches!(byte, 1 | 2)));
            prop_assert!(high || text[..found.unwrap_or(text.len())].is_ascii());
        }

        #[test]
        fn both_ways_agree(block in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), any::<u8>()], BLOCK)) {
            let block = block.as_array().expect("a block");
            let (here, there) = (masks::<b'"', b'\\', BLOCK>(block), masks_in_words::<b'"', b'\\', BLOCK>(block));
            prop_assert_eq!((here.0, here.1 == 0), (there.0, there.1 == 0));
        }
    }
}
