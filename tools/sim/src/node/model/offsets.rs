//! Committed consumer offsets: which of those that were asked for may be in effect.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmq_env::Instant;

use super::{End, QueueName};

/// How old an acknowledged commit may be and still be lost with the process, if the disk is quick: the interval at
/// which offsets are made durable, twice, and some time for the disk.
const MAY_LACK: Duration = Duration::from_millis(1500);

/// Which commit of a queue.
pub type CommitId = usize;

/// A commit that was asked for.
struct Commit {
    offset: i64,
    asked: Instant,
    /// When it was answered, or the process ended: later it does not take effect.
    ended: Option<Instant>,
    /// When it was acknowledged, as long as it is in effect for sure.
    sure: Option<Instant>,
}

/// The commits of one group.
#[derive(Default)]
pub struct Offsets {
    queues: BTreeMap<QueueName, Vec<Commit>>,
}

impl Offsets {
    /// A consumer is about to commit an offset.
    pub fn asks(&mut self, queue: QueueName, offset: i64, now: Instant) -> CommitId {
        let commits = self.queues.entry(queue).or_default();
        commits.push(Commit { offset, asked: now, ended: None, sure: None });
        commits.len() - 1
    }

    /// The broker has answered.
    pub fn answered(&mut self, queue: QueueName, commit: CommitId, is_done: bool, now: Instant) {
        let commits = self.queues.entry(queue).or_default();
        let commit = &mut commits[commit];
        // The answer may come when the process that gave it is gone.
        if commit.ended.is_none() {
            commit.ended = Some(now);
            commit.sure = is_done.then_some(now);
        }
    }

    /// The process ended.
    pub fn ended(&mut self, end: End, now: Instant, is_quick: bool) {
        for commit in self.queues.values_mut().flatten() {
            commit.ended = commit.ended.or(Some(now));
            let is_kept = |sure: &Instant| end == End::Stopped || is_quick && now.since(*sure) > MAY_LACK;
            // What a life has kept the next ones keep.
            commit.sure = commit.sure.filter(|sure| sure.0 == 0 || is_kept(sure)).map(|_| Instant(0));
        }
    }

    /// The broker was asked at `asked` what is committed, and said this.
    pub fn check(&self, queue: QueueName, found: Option<i64>, asked: Instant) {
        let commits = self.queues.get(&queue).map_or(&[][..], Vec::as_slice);
        let known: Vec<&Commit> = commits
            .iter()
            .filter(|commit| commit.sure.is_some() && commit.ended.is_some_and(|at| at <= asked))
            .collect();
        let is_known = match found {
            // A group without a commit may be told 0.
            None | Some(0) => known.is_empty(),
            Some(found) => commits.iter().filter(|commit| commit.offset == found).any(|commit| {
                let ended = commit.ended.unwrap_or(Instant(u64::MAX));
                !known.iter().any(|later| later.asked > ended)
            }),
        };
        assert!(
            is_known,
            "{queue:?}: the committed offset is {found:?}; the last acknowledged is {:?}",
            known.last().map(|commit| commit.offset)
        );
    }
}
