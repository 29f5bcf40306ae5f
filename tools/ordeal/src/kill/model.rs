//! What must be true of the store after any number of kills.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::load::{Observed, QUEUES, TOPIC};
use super::message::{self, MessageNumber};
use crate::wire::Client;

/// Every message ever found, by queue and offset.
#[derive(Default)]
pub struct Model {
    queues: Vec<Vec<MessageNumber>>,
    seen: HashSet<MessageNumber>,
    /// For each queue, the commits of consumer offsets that must have survived.
    owed_commits: Vec<i64>,
    /// Acknowledged messages checked so far.
    pub acknowledged: u64,
}

impl Model {
    /// Knows nothing yet.
    pub fn new() -> Model {
        let queues = QUEUES as usize;
        Model { queues: vec![Vec::new(); queues], owed_commits: vec![0; queues], ..Model::default() }
    }

    /// End of each queue as far as it was checked.
    pub fn ends(&self) -> Vec<i64> {
        self.queues.iter().map(|queue| queue.len() as i64).collect()
    }

    /// Reads what is new in every queue and holds it against what the clients saw before the kill at `killed`.
    /// `commit_interval` is how old an offset commit may be and still be lost.
    pub fn check_round(
        &mut self,
        client: &mut Client,
        observed: &Observed,
        killed: Instant,
        commit_interval: Duration,
    ) -> anyhow::Result<()> {
        ensure!(observed.complaints.is_empty(), "{}", observed.complaints.join("; "));
        for queue in 0..QUEUES {
            self.read_on(client, queue)?;
        }
        for (stored, number) in observed.acknowledged.iter().chain(&observed.read) {
            let found = self.queues[stored.queue as usize].get(stored.offset as usize);
            ensure!(
                found == Some(number),
                "{number:?} was at {stored:?} before the kill; now there is {found:?}"
            );
        }
        self.acknowledged += observed.acknowledged.len() as u64;
        self.check_commits(client, observed, killed, commit_interval)
    }

    /// Reads every queue from its start again: each message is still where it was.
    pub fn check_everything(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let before = std::mem::replace(self, Model { acknowledged: self.acknowledged, ..Model::new() });
        for queue in 0..QUEUES {
            self.read_on(client, queue)?;
        }
        ensure!(self.queues == before.queues, "an old message is no longer where it was");
        Ok(())
    }

    fn read_on(&mut self, client: &mut Client, queue: u32) -> anyhow::Result<()> {
        loop {
            let expected = self.queues[queue as usize].len() as i64;
            let pulled = client
                .pull(TOPIC, queue, expected)
                .with_context(|| format!("queue {queue} at {expected}"))?;
            if pulled.messages.is_empty() {
                ensure!(
                    pulled.max <= expected,
                    "queue {queue} ends at {} but offset {expected} is empty",
                    pulled.max
                );
                return Ok(());
            }
            for (offset, body) in &pulled.messages {
                self.take(queue, *offset, body)?;
            }
            let end = self.queues[queue as usize].len() as i64;
            ensure!(
                pulled.next == end,
                "queue {queue}: nextBeginOffset {} after offset {}",
                pulled.next,
                end - 1
            );
        }
    }

    fn take(&mut self, queue: u32, offset: i64, body: &[u8]) -> anyhow::Result<()> {
        let known = &mut self.queues[queue as usize];
        ensure!(
            offset == known.len() as i64,
            "queue {queue}: offset {offset} follows {}",
            known.len() as i64 - 1
        );
        let number = message::recognise(body).with_context(|| {
            format!("queue {queue} offset {offset}: {} bytes that nobody sent", body.len())
        })?;
        ensure!(self.seen.insert(number), "queue {queue} offset {offset}: {number:?} is there twice");
        known.push(number);
        Ok(())
    }

    fn check_commits(
        &mut self,
        client: &mut Client,
        observed: &Observed,
        killed: Instant,
        interval: Duration,
    ) -> anyhow::Result<()> {
        for (queue, offset, at) in &observed.commits {
            if killed.saturating_duration_since(*at) > interval {
                let owed = &mut self.owed_commits[*queue as usize];
                *owed = (*owed).max(*offset);
            }
        }
        for queue in 0..QUEUES {
            let owed = self.owed_commits[queue as usize];
            let found = client.committed_offset(TOPIC, queue)?.unwrap_or(0);
            ensure!(found >= owed, "queue {queue}: the committed offset went back from {owed} to {found}");
        }
        Ok(())
    }
}
