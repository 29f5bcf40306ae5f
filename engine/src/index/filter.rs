//! Which queues a run surely does not have.

use ringmq_env::Env;

use crate::slices::Pacer;

/// Bits for each extent.
const BITS: usize = 10;
/// A filter has a multiple of so many lines when it is made, so that it can be halved a few times.
const FOLDS: usize = 8;
/// Lines that are halved in a row; even.
const FOLDED: usize = 512;
/// Bits that a queue sets.
const PROBES: u32 = 4;

/// A Bloom filter over the queues of a run. All bits of a queue are in one line of the cache, and the higher its hash, the
/// higher the line: a run's queues, which come in the order of their hashes, fill it from its beginning to its end.
pub(super) struct Filter {
    /// How many lines it has. Those behind the last that was set are empty, and in no memory yet: that of a large run
    /// would take milliseconds to clear in one go.
    count: usize,
    lines: Vec<Line>,
}

/// A line of the core's cache.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; Line::WORDS]);

impl Line {
    const WORDS: usize = 8;
    const BITS: usize = 64 * Line::WORDS;

    /// The words and bits that a queue with this hash sets. The lowest bits say which: the highest have chosen the line.
    fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
        (0..PROBES).map(move |probe| {
            let bit = (hash >> (probe * Line::BITS.ilog2())) as usize % Line::BITS;
            (bit / 64, 1 << (bit % 64))
        })
    }

    fn with(self, other: Line) -> Line {
        Line(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl Filter {
    /// An empty one for about so many extents.
    pub(super) fn new(items: usize) -> Filter {
        let count = (items * BITS).div_ceil(Line::BITS).next_multiple_of(FOLDS);
        Filter { count, lines: Vec::with_capacity(count) }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Gives back what is too much for so many items: of half as many lines, one has what two neighbours had.
    pub(super) async fn shrink<E: Env>(&mut self, items: usize, pacer: &mut Pacer<E>) {
        let is_too_large =
            |lines: usize| lines > 0 && lines.is_multiple_of(2) && lines / 2 * Line::BITS >= items * BITS;
        while is_too_large(self.count) {
            let mut half = Vec::with_capacity(self.count / 2);
            for some in self.lines.chunks(FOLDED) {
                half.extend(
                    some.chunks(2).map(|pair| pair.iter().fold(Line::default(), |all, line| all.with(*line))),
                );
                pacer.done(some.len()).await;
            }
            (self.count, self.lines) = (self.count / 2, half);
        }
    }

    /// Where the bits of such a hash are: spread over the lines as a division would, which takes longer than all the rest.
    fn line(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.count as u128) >> 64) as usize
    }

    /// Takes in a queue with this hash.
    pub(super) fn add(&mut self, hash: u64) {
        let line = self.line(hash);
        if line >= self.lines.len() {
            self.lines.resize(line + 1, Line::default());
        }
        let line = &mut self.lines[line];
        Line::places(hash).for_each(|(word, bit)| line.0[word] |= bit);
    }

    /// False: there surely is no queue with this hash.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let line = self.lines.get(self.line(hash));
        line.is_some_and(|line| Line::places(hash).all(|(word, bit)| line.0[word] & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use ringmq_env::sim::Sim;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn a_filter_that_was_too_large_knows_the_same() {
        let sim = Sim::new(1);
        let mut pacer = Pacer::new(&sim.node("a"));
        for items in [0, 1, 7, 1000, 50_000] {
            let hash = |n: usize| xxh3_64(&n.to_le_bytes());
            let mut filter = Filter::new(8 * items);
            (0..items).for_each(|item| filter.add(hash(item)));
            let before = filter.count;
            sim.run(async { filter.shrink(items, &mut pacer).await });
            let after = filter.count;
            assert!(items < 1000 || after == before / 8, "{items}: {before}, {after}");
            assert!((0..items).all(|item| filter.may_have(hash(item))));
            let wrong = (items..items + 10_000).filter(|item| filter.may_have(hash(*item))).count();
            assert!(wrong < 300, "{items}: {wrong} of 10,000 that are not there");
        }
    }
}
