//! Sorting and merging, of many items and without holding the core for long.

use ringmq_env::Env;
use smallvec::SmallVec;

use crate::slices::Pacer;

/// Items of a bucket, if their hashes are as different as usual: it is sorted in one go, within the core's cache.
const BUCKET: usize = 4096;
/// More are not: too many have the same hash.
const MAX_BUCKET: usize = 4 * BUCKET;
/// Items of a bucket that are sorted together, once they are by their hashes.
const GROUP: usize = 4;
/// Stretches that are merged without an allocation for their list.
const USUAL_STRETCHES: usize = 8;

/// Items to be sorted, of which the order is first of all that of their hashes. These spread them over buckets: each is
/// sorted by itself, and freed by itself, because either would take long for all.
pub(super) struct Buckets<T, H> {
    hash: H,
    /// Highest bits of the hash that tell the bucket.
    bits: u32,
    buckets: Vec<Vec<T>>,
    /// Room that a bucket gets with its first item.
    usual: usize,
}

impl<T: Copy + Ord, H: Fn(&T) -> u64> Buckets<T, H> {
    /// For about so many items.
    pub(super) fn new(items: usize, hash: H) -> Buckets<T, H> {
        let bits = (items / BUCKET).next_power_of_two().ilog2();
        let usual = items >> bits;
        Buckets { hash, bits, buckets: vec![Vec::new(); 1 << bits], usual: usual + usual / 16 }
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        let bucket = &mut self.buckets[top_bits((self.hash)(&item), self.bits)];
        if bucket.capacity() == 0 {
            bucket.reserve(self.usual);
        }
        bucket.push(item);
    }

    /// The items in their order.
    pub(super) async fn sorted<E: Env>(mut self, pacer: &mut Pacer<E>) -> Vec<Vec<T>> {
        let (mut spare, mut ends) = (Vec::new(), Vec::new());
        for bucket in &mut self.buckets {
            if bucket.len() > MAX_BUCKET {
                sort_alike(bucket, pacer).await;
                continue;
            }
            let hash = |item: &T| (self.hash)(item) << self.bits;
            sort_by_hash(bucket, hash, &mut spare, &mut ends);
            pacer.done_quickly(bucket.len()).await;
        }
        self.buckets
    }
}

/// The highest bits, as a number.
fn top_bits(hash: u64, bits: u32) -> usize {
    hash.checked_shr(u64::BITS - bits).unwrap_or(0) as usize
}

/// Sorts items of which many have the same hash, as where all messages have a key in common: piece by piece, which are then
/// merged. Those of one hash come in their order mostly, and are only looked at.
async fn sort_alike<E: Env, T: Copy + Ord>(items: &mut Vec<T>, pacer: &mut Pacer<E>) {
    for piece in items.chunks_mut(BUCKET) {
        piece.sort_unstable();
        pacer.done(piece.len()).await;
    }
    let mut merged = Vec::new();
    let mut len = BUCKET;
    while len < items.len() {
        merged.clear();
        merged.reserve(items.len());
        for pair in items.chunks(2 * len) {
            let (mut one, mut other) = pair.split_at(len.min(pair.len()));
            while !one.is_empty() || !other.is_empty() {
                let (from_one, from_other) = merge_some(one, other, BUCKET, &mut merged);
                (one, other) = (&one[from_one..], &other[from_other..]);
                pacer.done_quickly(from_one + from_other).await;
            }
        }
        std::mem::swap(items, &mut merged);
        len *= 2;
    }
}

/// Appends the first `most` of what two stretches have to `out`; returns how many of them were in each.
fn merge_some<T: Copy + Ord>(one: &[T], other: &[T], most: usize, out: &mut Vec<T>) -> (usize, usize) {
    let (mut i, mut j) = (0, 0);
    while i + j < most && i < one.len() && j < other.len() {
        if other[j] < one[i] {
            out.push(other[j]);
            j += 1;
        } else {
            out.push(one[i]);
            i += 1;
        }
    }
    // One of them has come to its end, or nothing more is wanted.
    let rest = most - i - j;
    let (end_of_one, end_of_other) = (one.len().min(i + rest), other.len().min(j + rest));
    out.extend_from_slice(&one[i..end_of_one]);
    out.extend_from_slice(&other[j..end_of_other]);
    (end_of_one, end_of_other)
}

/// Spreads the items over groups by the highest bits of their hashes, and sorts each, which is small then. `spare` and
/// `ends` are memory for it.
fn sort_by_hash<T: Copy + Ord>(
    items: &mut Vec<T>,
    hash: impl Fn(&T) -> u64,
    spare: &mut Vec<T>,
    ends: &mut Vec<usize>,
) {
    let bits = (items.len() / GROUP).next_power_of_two().ilog2();
    ends.clear();
    ends.resize(1 << bits, 0);
    for item in items.iter() {
        ends[top_bits(hash(item), bits)] += 1;
    }
    let mut before = 0;
    for end in ends.iter_mut() {
        before += std::mem::replace(end, before);
    }
    spare.clone_from(items);
    // Where a group begins becomes where it ends.
    for item in items.iter() {
        let place = &mut ends[top_bits(hash(item), bits)];
        spare[*place] = *item;
        *place += 1;
    }
    std::mem::swap(items, spare);
    let mut start = 0;
    for end in ends.iter() {
        items[start..*end].sort_unstable();
        start = *end;
    }
}

/// Merges stretches, of which each is sorted, in rounds of two each. `buffers` are the memory for it; what is merged is in
/// the first one.
pub(super) fn merge<'a, T: Copy + Default + Ord>(
    stretches: &[&[T]],
    buffers: &'a mut [Vec<T>; 2],
) -> &'a [T] {
    let items: usize = stretches.iter().map(|stretch| stretch.len()).sum();
    let [merged, next] = buffers;
    for buffer in [&mut *merged, &mut *next] {
        buffer.resize(items.max(buffer.len()), T::default());
    }
    let mut lens = merge_pairs(stretches, merged);
    while lens.len() > 1 {
        lens = merge_pairs(&cut(merged, &lens), next);
        std::mem::swap(merged, next);
    }
    &merged[..items]
}

/// The stretches of these lengths that `items` begin with.
fn cut<'a, T>(mut items: &'a [T], lens: &[usize]) -> SmallVec<[&'a [T]; USUAL_STRETCHES]> {
    lens.iter().map(|len| items.split_off(..*len).unwrap_or_default()).collect()
}

/// Merges each two of the stretches; returns how long each is that comes of it.
fn merge_pairs<T: Copy + Ord>(stretches: &[&[T]], out: &mut [T]) -> SmallVec<[usize; USUAL_STRETCHES]> {
    let mut at = 0;
    let merged = stretches.chunks(2).map(|pair| {
        let (one, other) = (pair[0], pair.get(1).copied().unwrap_or_default());
        let len = one.len() + other.len();
        merge_two(one, other, &mut out[at..at + len]);
        at += len;
        len
    });
    merged.collect()
}

/// Without a branch on what is the smaller one, which nobody could foretell.
fn merge_two<T: Copy + Ord>(one: &[T], other: &[T], out: &mut [T]) {
    let (mut i, mut j) = (0, 0);
    while i < one.len() && j < other.len() {
        let (a, b) = (one[i], other[j]);
        let is_other = b < a;
        out[i + j] = if is_other { b } else { a };
        i += usize::from(!is_other);
        j += usize::from(is_other);
    }
    let (rest_of_one, rest_of_other) = out[i + j..].split_at_mut(one.len() - i);
    rest_of_one.copy_from_slice(&one[i..]);
    rest_of_other.copy_from_slice(&other[j..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringmq_env::sim::Sim;

    use super::*;

    proptest! {
        #[test]
        fn what_is_merged_is_what_sorting_gives(
            mut stretches in prop::collection::vec(prop::collection::vec(0..200u128, 0..300), 0..9),
        ) {
            stretches.iter_mut().for_each(|stretch| stretch.sort_unstable());
            let parts: Vec<&[u128]> = stretches.iter().map(Vec::as_slice).collect();
            let mut wanted = stretches.concat();
            wanted.sort_unstable();
            let mut buffers = [vec![7; 40], Vec::new()];
            prop_assert_eq!(merge(&parts, &mut buffers), &wanted);
            prop_assert_eq!(merge(&parts, &mut buffers), &wanted, "whatever the buffers hold");
        }

        #[test]
        fn buckets_sort(items in prop::collection::vec(any::<u64>(), 0..20), times in 1..2000usize) {
            let mut buckets = Buckets::new(items.len() * times, |item: &u64| *item);
            let all: Vec<u64> = items.iter().flat_map(|item| (0..times as u64).map(move |add| item ^ add)).collect();
            all.iter().for_each(|item| buckets.push(*item));
            let sim = Sim::new(1);
            let sorted = sim.run(async { buckets.sorted(&mut Pacer::new(&sim.node("a"))).await }).concat();
            let mut wanted = all;
            wanted.sort_unstable();
            prop_assert!(sorted == wanted);
        }
    }

    #[test]
    fn items_of_one_hash_are_sorted_in_slices() {
        let sim = Sim::new(1);
        let number =
            |n: u64| if n.is_multiple_of(3) { n } else { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 };
        let mut buckets = Buckets::new(100_000, |_: &u64| 7);
        (0..100_000).for_each(|n| buckets.push(number(n)));
        let others_turns = std::rc::Rc::new(std::cell::Cell::new(0));
        let sorted = sim.run(async {
            let (env, turns) = (sim.node("a"), std::rc::Rc::clone(&others_turns));
            let other = env.clone();
            env.clone().spawn(async move {
                loop {
                    turns.set(turns.get() + 1);
                    other.yield_now().await;
                }
            });
            buckets.sorted(&mut Pacer::new(&env)).await
        });
        let mut wanted: Vec<u64> = (0..100_000).map(number).collect();
        wanted.sort_unstable();
        assert!(sorted.concat() == wanted);
        assert!(others_turns.get() > 100_000 / BUCKET, "{} turns", others_turns.get());
    }
}
