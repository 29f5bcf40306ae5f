//! What the node keeps about its store as a whole: `store.meta`, written when the store is made, and when its format is
//! raised.

use std::path::{Path, PathBuf};

use ringmq_env::{Env, File, IoSlice, OpenOptions};

use crate::shard::OpenError;
use crate::types::MAX_SHARDS;

/// Newest format of the store that this program reads and writes; it covers every file under the data directory.
/// 2: frames may be marks, and a slot of the tail journal may hold more than a sector. 3: the newest of the log may be in
/// the shadow alone. Stores of older formats are read as they are, and count as this one from then on.
pub const STORE_FORMAT: u32 = 3;

const META_FILE: &str = "store.meta";
const META_NEW_FILE: &str = "store.meta.new";
const MAGIC: [u8; 8] = *b"RINGMETA";

// Layout of store.meta, little endian (docs/store-format.md).
const FORMAT_AT: usize = 8;
const CRC_AT: usize = 12;
const STORE_ID_AT: usize = 16;
const CREATED_AT: usize = 24;
const SHARDS_AT: usize = 32;
const META_LEN: usize = 40;
const _: () = assert!(SHARDS_AT + 2 <= META_LEN && FORMAT_AT == MAGIC.len());

/// The store's own facts, fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreMeta {
    /// Random number that every segment carries, so that files of another store are told apart.
    pub store_id: u64,
    /// Number of shards. It never changes, whatever the node's cores.
    pub shards: u16,
    /// Wall clock at creation, in ms.
    pub created_ms: i64,
}

impl StoreMeta {
    /// Reads `dir/store.meta`; in an empty `dir` (created if missing) makes a store of `shards` shards first. The
    /// stored number of shards wins over `shards`. Durable when it returns.
    pub async fn open<E: Env>(env: &E, dir: &Path, shards: u16) -> Result<StoreMeta, OpenError> {
        assert!(shards > 0 && shards < MAX_SHARDS, "{shards} shards");
        env.create_dir_all(dir).await.map_err(OpenError::at(dir))?;
        let entries = env.read_dir(dir).await.map_err(OpenError::at(dir))?;
        let path = dir.join(META_FILE);
        if entries.iter().any(|entry| entry.name == META_FILE) {
            let (meta, format) = read(env, path.clone()).await?;
            if format < STORE_FORMAT {
                // Before anything is written that an older program would take for the log's end.
                write(env, dir, meta).await.map_err(OpenError::at(&path))?;
            }
            return Ok(meta);
        }
        if entries.iter().any(|entry| entry.name == "shards") {
            return Err(OpenError::Damaged { path, what: "it is missing, but its shards are there".into() });
        }
        let meta = StoreMeta { store_id: env.random(), shards, created_ms: env.wall_ms() };
        write(env, dir, meta).await.map_err(OpenError::at(&path))?;
        Ok(meta)
    }

    /// Reads `dir/store.meta`, which must be there.
    pub async fn read<E: Env>(env: &E, dir: &Path) -> Result<StoreMeta, OpenError> {
        Ok(read(env, dir.join(META_FILE)).await?.0)
    }

    /// Directory of one shard's files under the store's directory.
    pub fn shard_dir(dir: &Path, shard: crate::ShardId) -> PathBuf {
        dir.join("shards").join(format!("{:03}", shard.0))
    }

    fn encode(&self) -> [u8; META_LEN] {
        self.encode_as(STORE_FORMAT)
    }

    fn encode_as(&self, format: u32) -> [u8; META_LEN] {
        let mut bytes = [0; META_LEN];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes[FORMAT_AT..][..4].copy_from_slice(&format.to_le_bytes());
        bytes[STORE_ID_AT..][..8].copy_from_slice(&self.store_id.to_le_bytes());
        bytes[CREATED_AT..][..8].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[SHARDS_AT..][..2].copy_from_slice(&self.shards.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The facts, and the format that they are in.
    fn decode(bytes: &[u8]) -> Result<(StoreMeta, u32), DecodeError> {
        let mut bytes: [u8; META_LEN] = bytes.try_into().map_err(|_| DecodeError::Damaged("wrong length"))?;
        if bytes[..MAGIC.len()] != MAGIC {
            return Err(DecodeError::Damaged("not a store.meta"));
        }
        // Every format keeps the checksum's place, so that damage never looks like a newer format.
        let crc = u32::from_le_bytes(crate::bytes::array(&bytes, CRC_AT));
        bytes[CRC_AT..][..4].fill(0);
        if crc32fast::hash(&bytes) != crc {
            return Err(DecodeError::Damaged("checksum mismatch"));
        }
        let format = u32::from_le_bytes(crate::bytes::array(&bytes, FORMAT_AT));
        if format > STORE_FORMAT {
            return Err(DecodeError::Newer(format));
        }
        let meta = StoreMeta {
            store_id: u64::from_le_bytes(crate::bytes::array(&bytes, STORE_ID_AT)),
            created_ms: i64::from_le_bytes(crate::bytes::array(&bytes, CREATED_AT)),
            shards: u16::from_le_bytes(crate::bytes::array(&bytes, SHARDS_AT)),
        };
        match meta.shards {
            1..MAX_SHARDS => Ok((meta, format)),
            _ => Err(DecodeError::Damaged("impossible number of shards")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum DecodeError {
    Newer(u32),
    Damaged(&'static str),
}

async fn read<E: Env>(env: &E, path: PathBuf) -> Result<(StoreMeta, u32), OpenError> {
    let file = env.open(&path, OpenOptions::default()).await.map_err(OpenError::at(&path))?;
    let bytes = file.read_at(0, META_LEN + 1).await.map_err(OpenError::at(&path))?;
    StoreMeta::decode(&bytes).map_err(|error| match error {
        DecodeError::Newer(found) => OpenError::NewerFormat { path, found, known: STORE_FORMAT },
        DecodeError::Damaged(what) => OpenError::Damaged { path, what: what.into() },
    })
}

/// Written beside and renamed, so that a crash leaves either no `store.meta` or a whole one.
async fn write<E: Env>(env: &E, dir: &Path, meta: StoreMeta) -> std::io::Result<()> {
    let new = dir.join(META_NEW_FILE);
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let file = env.open(&new, options).await?;
    file.set_len(0).await?;
    file.write_at(IoSlice::copy_of(&meta.encode()), 0).await?;
    file.sync().await?;
    env.rename(&new, &dir.join(META_FILE)).await?;
    env.sync_dir(dir).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: StoreMeta =
        StoreMeta { store_id: 0x0123_4567_89ab_cdef, shards: 5, created_ms: 1_790_000_000_000 };

    #[test]
    fn store_meta_reads_back_and_every_damaged_byte_is_noticed() {
        let bytes = META.encode();
        assert_eq!(StoreMeta::decode(&bytes), Ok((META, STORE_FORMAT)));
        assert_eq!(StoreMeta::decode(&META.encode_as(1)), Ok((META, 1)));
        for at in 0..META_LEN {
            let mut damaged = bytes;
            damaged[at] ^= 0x40;
            let error = StoreMeta::decode(&damaged).unwrap_err();
            assert!(matches!(error, DecodeError::Damaged(_)), "byte {at}: {error:?}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut bytes = META.encode();
        bytes[FORMAT_AT] = 9;
        bytes[CRC_AT..][..4].fill(0);
        let crc = crc32fast::hash(&bytes);
        bytes[CRC_AT..][..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(StoreMeta::decode(&bytes), Err(DecodeError::Newer(9)));
    }
}
