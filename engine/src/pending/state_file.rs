//! The table's state as of one log position: which runs there are, and what of them is settled.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ringmq_env::{Env, File, IoSlice, OpenOptions};

use super::entry::Key;
use super::run::Run;
use crate::bytes::array;
use crate::reread::read_checked;
use crate::slices::Pacer;

/// Name of the file, and while it is written.
pub(super) const STATE_FILE: &str = "state";
const STATE_NEW_FILE: &str = "state.new";
const MAGIC: [u8; 8] = *b"RINGPSTA";
/// Format of the state file; a higher one is refused.
pub(super) const FORMAT: u32 = 1;
const HEADER: usize = 40;
const RUN: usize = 72;
const GONE: usize = 24;
/// About as many bytes are written at a time.
const PART: usize = 64 << 10;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// The state counts every record before this log position, and none behind.
    pub upto: u64,
    /// Records that wait.
    pub count: u64,
    /// In the order of their positions.
    pub runs: Vec<Run>,
    /// Positions of settled entries of the runs, with their keys where known.
    pub gone: BTreeMap<u64, Option<Key>>,
}

/// Why the file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StateError {
    /// It is not what was written.
    Damaged,
    /// Written by a newer program.
    Newer(u32),
}

impl Saved {
    /// The header, with a checksum of 0.
    fn header(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[16..24].copy_from_slice(&self.upto.to_le_bytes());
        out[24..32].copy_from_slice(&self.count.to_le_bytes());
        out[32..36].copy_from_slice(&(self.runs.len() as u32).to_le_bytes());
        out[36..40].copy_from_slice(&(self.gone.len() as u32).to_le_bytes());
        out
    }

    fn encode_runs(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PART + GONE);
        for run in &self.runs {
            let keys = [run.low, run.last].map(|key| [key.due_ms as u64, key.order]);
            let numbers = [run.id, run.from, run.to].into_iter().chain(keys.into_iter().flatten());
            for number in numbers.chain([run.count, run.min_position]) {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Saved, StateError> {
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(StateError::Damaged);
        }
        // First whether it is what was written: damage must not look like another format.
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..12]);
        crc.update(&[0; 4]);
        crc.update(&bytes[16..]);
        if crc.finalize() != u32::from_le_bytes(array(bytes, 12)) {
            return Err(StateError::Damaged);
        }
        let format = u32::from_le_bytes(array(bytes, 8));
        if format > FORMAT {
            return Err(StateError::Newer(format));
        }
        let number = |at: usize| u64::from_le_bytes(array(bytes, at));
        let key = |at: usize| Key { due_ms: number(at) as i64, order: number(at + 8) };
        let runs = u32::from_le_bytes(array(bytes, 32)) as usize;
        let gone = u32::from_le_bytes(array(bytes, 36)) as usize;
        if bytes.len() != HEADER + runs * RUN + gone * GONE {
            return Err(StateError::Damaged);
        }
        let run = |at: usize| Run {
            id: number(at),
            from: number(at + 8),
            to: number(at + 16),
            low: key(at + 24),
            last: key(at + 40),
            count: number(at + 56),
            min_position: number(at + 64),
        };
        let gone_at = HEADER + runs * RUN;
        Ok(Saved {
            upto: number(16),
            count: number(24),
            runs: (0..runs).map(|i| run(HEADER + i * RUN)).collect(),
            gone: (0..gone)
                .map(|i| gone_at + i * GONE)
                .map(|at| (number(at), Some(key(at + 8)).filter(|key| *key != Key::MIN)))
                .collect(),
        })
    }

    /// Puts it in place of the one before, durably.
    pub(super) async fn write<E: Env>(&self, env: &E, dir: &Path) -> io::Result<()> {
        let new = dir.join(STATE_NEW_FILE);
        let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
        let file = env.open(&new, options).await?;
        file.set_len(0).await?;
        let (mut header, mut crc) = (self.header(), crc32fast::Hasher::new());
        crc.update(&header);
        let (mut part, mut at, mut pacer) = (self.encode_runs(), HEADER as u64, Pacer::new(env));
        for (position, key) in &self.gone {
            let key = key.unwrap_or(Key::MIN);
            part.extend_from_slice(&position.to_le_bytes());
            part.extend_from_slice(&key.due_ms.to_le_bytes());
            part.extend_from_slice(&key.order.to_le_bytes());
            if part.len() >= PART {
                crc.update(&part);
                file.write_at(IoSlice::copy_of(&part), at).await?;
                at += part.len() as u64;
                part.clear();
            }
            pacer.done(1).await;
        }
        crc.update(&part);
        if !part.is_empty() {
            file.write_at(IoSlice::copy_of(&part), at).await?;
        }
        header[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
        file.write_at(IoSlice::copy_of(&header), 0).await?;
        file.sync().await?;
        env.rename(&new, &dir.join(STATE_FILE)).await?;
        env.sync_dir(dir).await
    }

    /// Reads the file; `None` when there is none. What is damaged was looked at twice.
    pub(super) async fn read<E: Env>(env: &E, dir: &Path) -> io::Result<Option<Result<Saved, StateError>>> {
        let path = dir.join(STATE_FILE);
        let file = match env.open(&path, OpenOptions::default()).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.size().await? as usize;
        let check = |bytes: &[u8]| match Saved::decode(bytes) {
            Err(StateError::Damaged) => Err(io::ErrorKind::InvalidData.into()),
            decoded => Ok(decoded),
        };
        match read_checked(env, &path, &file, (0, len), check).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Err(StateError::Damaged))),
            read => read.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmq_env::sim::Sim;

    use super::*;

    #[test]
    fn a_state_reads_back_and_every_damaged_byte_is_noticed() {
        let key = Key { due_ms: -7, order: 9 };
        let run = Run { id: 1, from: 2, to: 30, low: key, last: key, count: 4, min_position: 5 };
        let saved = Saved {
            upto: 30,
            count: 6,
            runs: vec![run.clone(), Run { id: 2, low: Key::MIN, ..run }],
            gone: [(8, Some(key)), (9, None)].into_iter().collect(),
        };
        let sim = Sim::new(1);
        let bytes = sim.run(async {
            let (env, dir) = (sim.node("a"), Path::new("/"));
            saved.write(&env, dir).await.unwrap();
            let file = env.open(&dir.join(STATE_FILE), OpenOptions::default()).await.unwrap();
            let len = file.size().await.unwrap() as usize;
            file.read_at(0, len).await.unwrap().to_vec()
        });
        assert_eq!(Saved::decode(&bytes), Ok(saved));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x11;
            assert!(Saved::decode(&damaged).is_err(), "byte {at}");
            assert_eq!(Saved::decode(&bytes[..at]), Err(StateError::Damaged));
        }
    }
}
