//! Bodies compressed as Java's clients do.

use std::io::{self, Read, Write};

use ringmq_protocol::record::sys_flag;

/// Longest body that is unpacked: what brokers take at most is far below, so more is an attack or damage.
const MAX_UNPACKED: u64 = 64 << 20;
/// Java's default level for zlib.
const ZLIB_LEVEL: u32 = 5;
/// Where the type stands in sysFlag.
const TYPE_SHIFT: i32 = 8;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// zlib at level 5: Java's default, and what every client understands.
    #[default]
    Zlib,
    /// LZ4 frames: faster; Java understands it since 5.0. Needs the feature `lz4`, which is on.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard at its default level; Java understands it since 5.0. Needs the feature `zstd`.
    #[cfg(feature = "zstd")]
    Zstd,
}

/// Why a body cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The type is not known, or not built in.
    #[error("the compression type {0} is not known")]
    UnknownType(i32),
    /// The bytes are damaged.
    #[error("the body cannot be unpacked: {0}")]
    Damaged(#[from] io::Error),
    /// It would get too long.
    #[error("the unpacked body is over {MAX_UNPACKED} bytes")]
    TooLong,
}

impl Compression {
    /// From a message's sysFlag. Old clients set no type; theirs is zlib.
    pub(crate) fn of(sys_flag: i32) -> Result<Compression, CompressionError> {
        match (sys_flag & sys_flag::COMPRESSION_TYPE) >> TYPE_SHIFT {
            0 | 3 => Ok(Compression::Zlib),
            #[cfg(feature = "lz4")]
            1 => Ok(Compression::Lz4),
            #[cfg(feature = "zstd")]
            2 => Ok(Compression::Zstd),
            other => Err(CompressionError::UnknownType(other)),
        }
    }

    /// The bits of sysFlag.
    pub(crate) fn sys_flag(self) -> i32 {
        let kind = match self {
            #[cfg(feature = "lz4")]
            Compression::Lz4 => 1,
            #[cfg(feature = "zstd")]
            Compression::Zstd => 2,
            Compression::Zlib => 3,
        };
        sys_flag::COMPRESSED | kind << TYPE_SHIFT
    }

    /// Packs a body.
    pub(crate) fn pack(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Compression::Zlib => {
                let level = flate2::Compression::new(ZLIB_LEVEL);
                let mut writer = flate2::write::ZlibEncoder::new(Vec::with_capacity(body.len() / 2), level);
                writer.write_all(body)?;
                writer.finish()
            }
            #[cfg(feature = "lz4")]
            Compression::Lz4 => {
                let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(body.len() / 2));
                writer.write_all(body)?;
                writer.finish().map_err(io::Error::other)
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd => zstd::encode_all(body, zstd::DEFAULT_COMPRESSION_LEVEL),
        }
    }

    /// Unpacks a body.
    pub(crate) fn unpack(self, body: &[u8]) -> Result<Vec<u8>, CompressionError> {
        match self {
            Compression::Zlib => read(flate2::read::ZlibDecoder::new(body)),
            #[cfg(feature = "lz4")]
            Compression::Lz4 => read(lz4_flex::frame::FrameDecoder::new(body)),
            #[cfg(feature = "zstd")]
            Compression::Zstd => read(zstd::Decoder::new(body)?),
        }
    }
}

fn read(reader: impl Read) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    let len = reader.take(MAX_UNPACKED + 1).read_to_end(&mut out)?;
    if len as u64 > MAX_UNPACKED { Err(CompressionError::TooLong) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Compression] = &[
        Compression::Zlib,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd,
    ];

    #[test]
    fn what_is_packed_unpacks() {
        let body: Vec<u8> = (0..50_000u32).flat_map(|i| (i % 300).to_be_bytes()).collect();
        for compression in ALL {
            let packed = compression.pack(&body).unwrap();
            assert!(packed.len() < body.len() / 4);
            let flag = compression.sys_flag();
            assert_eq!(flag & sys_flag::COMPRESSED, sys_flag::COMPRESSED);
            assert_eq!(Compression::of(flag).unwrap().unpack(&packed).unwrap(), body);
            let error = compression.unpack(&packed[..packed.len() / 2]);
            assert!(matches!(error, Err(CompressionError::Damaged(_))), "{compression:?}: {error:?}");
        }
        assert_eq!(Compression::of(sys_flag::COMPRESSED).unwrap(), Compression::Zlib);
        assert!(matches!(Compression::of(7 << 8), Err(CompressionError::UnknownType(7))));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeroes = vec![0; MAX_UNPACKED as usize + 1];
        for compression in ALL {
            let packed = compression.pack(&zeroes).unwrap();
            assert!(matches!(compression.unpack(&packed), Err(CompressionError::TooLong)), "{compression:?}");
        }
    }
}
