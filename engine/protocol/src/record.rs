//! The stored record, byte for byte Java's: what a pull delivers is what was stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::text;

/// Magic number of a record whose topic's length takes one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic number of a record whose topic's length takes two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Bytes of a record before the hosts' addresses, body, topic and properties are counted, lengths included.
const FIXED_LEN: usize = 5 * 4 + 8 + 8 + 4 + 8 + 4 + 8 + 4 + 4 + 8 + 4 + 2;
/// What a record states of the body's CRC32.
const BODY_CRC_BITS: u32 = 0x7FFF_FFFF;
/// Most bytes of a record in front of its body: with two IPv6 addresses.
const MAX_HEAD: usize = FIXED_LEN - 2 + 2 * 16;
/// Longest topic of a v1 record.
const MAX_TOPIC_V1: usize = 127;
/// Longest topic of a v2 record.
const MAX_TOPIC_V2: usize = i16::MAX as usize;
/// Most bytes of properties.
pub const MAX_PROPERTIES: usize = crate::properties::MAX_LEN;

/// Byte of a record where the queue offset (i64) stands.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Byte of a record where the physical offset (i64) stands.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// Byte of a record where the sysFlag (i32) stands.
pub const SYS_FLAG_AT: usize = 36;

/// Bits of sysFlag.
pub mod sys_flag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 1;
    /// The message has several tags (of old clients; without effect).
    pub const MULTI_TAGS: i32 = 1 << 1;
    /// Both bits of the transaction type.
    pub const TRANSACTION_TYPE: i32 = 3 << 2;
    /// A half message.
    pub const TRANSACTION_PREPARED: i32 = 1 << 2;
    /// A committed message.
    pub const TRANSACTION_COMMIT: i32 = 2 << 2;
    /// A rolled back message.
    pub const TRANSACTION_ROLLBACK: i32 = 3 << 2;
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: i32 = 1 << 4;
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: i32 = 1 << 5;
    /// The client unwraps an inner batch.
    pub const NEED_UNWRAP: i32 = 1 << 6;
    /// The body is an inner batch.
    pub const INNER_BATCH: i32 = 1 << 7;
    /// The three bits of the compression type.
    pub const COMPRESSION_TYPE: i32 = 7 << 8;
}

/// The sysFlag of a record; `None` when there is not so much of it.
pub fn sys_flag_of(record: &[u8]) -> Option<i32> {
    let bytes = record.get(SYS_FLAG_AT..)?.first_chunk()?;
    Some(i32::from_be_bytes(*bytes))
}

/// Why a record cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The topic does not fit.
    #[error("the topic of {len} bytes is over the limit of {limit}")]
    TopicTooLong {
        /// Bytes of the topic.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The properties do not fit.
    #[error("the properties of {len} bytes are over the limit of {limit}")]
    PropertiesTooLong {
        /// Bytes of the properties.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The record does not fit its length field.
    #[error("the record of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// Bytes of the record.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The magic number is another.
    #[error("{magic:#010x} is no record's magic number")]
    BadMagic {
        /// What stands there.
        magic: u32,
    },
    /// The bytes end in the middle of a field.
    #[error("the record ends in the middle of {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A length is negative.
    #[error("the length {value} of {field} is negative")]
    NegativeLength {
        /// The field.
        field: &'static str,
        /// The length.
        value: i32,
    },
    /// The fields do not fill the record's size.
    #[error("the record says {stated} bytes, its fields take {actual}")]
    SizeMismatch {
        /// By the size field.
        stated: usize,
        /// By the fields.
        actual: usize,
    },
    /// A port is above 65535.
    #[error("{port} is no port")]
    BadPort {
        /// What stands there.
        port: i32,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// The body is damaged.
    #[error("the body's CRC is {actual:#010x}, the record says {stated:#010x}")]
    BadCrc {
        /// By the record.
        stated: u32,
        /// By the body.
        actual: u32,
    },
}

/// What goes into a record.
#[derive(Clone, Copy, Debug)]
pub struct RecordFields<'a> {
    /// Queue within the topic.
    pub queue_id: i32,
    /// The producer's own flag.
    pub flag: i32,
    /// Offset in the queue.
    pub queue_offset: i64,
    /// Where the record is stored.
    pub physical_offset: i64,
    /// See [`sys_flag`]; the bits of the hosts are set here to what the hosts are.
    pub sys_flag: i32,
    /// When the producer made it, in ms.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// When the broker stored it, in ms.
    pub store_timestamp: i64,
    /// The broker's address as clients know it.
    pub store_host: SocketAddr,
    /// How often it was consumed before.
    pub reconsume_times: i32,
    /// Physical offset of the half message, else 0.
    pub prepared_transaction_offset: i64,
    /// The body as sent.
    pub body: &'a [u8],
    /// The topic.
    pub topic: &'a str,
    /// The encoded properties, stored as the concatenation of these parts.
    pub properties: &'a [&'a [u8]],
}

impl RecordFields<'_> {
    /// Bytes of the record.
    pub fn encoded_len(&self) -> Result<usize, RecordError> {
        let topic = self.topic.len();
        if topic > MAX_TOPIC_V2 {
            return Err(RecordError::TopicTooLong { len: topic, limit: MAX_TOPIC_V2 });
        }
        let properties = self.properties_len();
        if properties > MAX_PROPERTIES {
            return Err(RecordError::PropertiesTooLong { len: properties, limit: MAX_PROPERTIES });
        }
        let hosts = ip_len(self.born_host.ip()) + ip_len(self.store_host.ip());
        let topic_len = if topic > MAX_TOPIC_V1 { 2 } else { 1 };
        let len = FIXED_LEN + hosts + self.body.len() + topic_len + topic + properties;
        if len > i32::MAX as usize {
            return Err(RecordError::TooLong { len, limit: i32::MAX as usize });
        }
        Ok(len)
    }

    /// Writes the record, with the body's CRC. Panics if `out` is not of the size that [`Self::encoded_len`] gave.
    pub fn encode_into(&self, out: &mut [u8]) {
        let size = out.len();
        let mut rest = out;
        self.encode(size, |part| {
            let (here, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = behind;
        });
        assert!(rest.is_empty(), "{} bytes of the record's {size} are left over", rest.len());
    }

    /// Gives the parts of the record, with the body's CRC, one after the other to `put`: together `size` bytes, which is
    /// what [`Self::encoded_len`] gave. Tells where the body lies, and its CRC32.
    #[inline]
    pub fn encode(&self, size: usize, mut put: impl FnMut(&[u8])) -> (Range<usize>, u32) {
        let crc = crc32fast::hash(self.body);
        let is_v2 = self.topic.len() > MAX_TOPIC_V1;
        let mut head = Head { bytes: [0; MAX_HEAD], len: 0 };
        head.i32(size as i32);
        head.i32(if is_v2 { MAGIC_V2 } else { MAGIC_V1 } as i32);
        head.i32((crc & BODY_CRC_BITS) as i32);
        head.i32(self.queue_id);
        head.i32(self.flag);
        head.i64(self.queue_offset);
        head.i64(self.physical_offset);
        head.i32(self.stored_sys_flag());
        head.i64(self.born_timestamp);
        head.host(self.born_host);
        head.i64(self.store_timestamp);
        head.host(self.store_host);
        head.i32(self.reconsume_times);
        head.i64(self.prepared_transaction_offset);
        head.i32(self.body.len() as i32);
        put(&head.bytes[..head.len]);
        put(self.body);
        match is_v2 {
            true => put(&(self.topic.len() as i16).to_be_bytes()),
            false => put(&[self.topic.len() as u8]),
        }
        put(self.topic.as_bytes());
        put(&(self.properties_len() as i16).to_be_bytes());
        self.properties.iter().for_each(|part| put(part));
        (head.len..head.len + self.body.len(), crc)
    }

    fn properties_len(&self) -> usize {
        self.properties.iter().map(|part| part.len()).sum()
    }

    fn stored_sys_flag(&self) -> i32 {
        let bit = |host: SocketAddr, bit| if ip_len(host.ip()) == 16 { bit } else { 0 };
        let hosts =
            bit(self.born_host, sys_flag::BORN_HOST_V6) | bit(self.store_host, sys_flag::STORE_HOST_V6);
        self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6) | hosts
    }
}

/// The CRC that a record states for its body: Java's CRC32 without the top bit.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & BODY_CRC_BITS
}

/// Bytes of an address; an IPv4 address in IPv6 clothes counts as IPv4.
fn ip_len(ip: IpAddr) -> usize {
    if ip.to_canonical().is_ipv4() { 4 } else { 16 }
}

/// What stands in front of the body.
struct Head {
    bytes: [u8; MAX_HEAD],
    len: usize,
}

impl Head {
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..][..N].copy_from_slice(&bytes);
        self.len += N;
    }

    #[inline(always)]
    fn i32(&mut self, value: i32) {
        self.put(value.to_be_bytes());
    }

    #[inline(always)]
    fn i64(&mut self, value: i64) {
        self.put(value.to_be_bytes());
    }

    #[inline(always)]
    fn host(&mut self, host: SocketAddr) {
        match host.ip().to_canonical() {
            IpAddr::V4(ip) => self.put(ip.octets()),
            IpAddr::V6(ip) => self.put(ip.octets()),
        }
        self.i32(i32::from(host.port()));
    }
}

/// A record as a view of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// The whole record.
    pub bytes: &'a [u8],
    /// CRC of the body as stated.
    pub body_crc: u32,
    /// Queue within the topic.
    pub queue_id: i32,
    /// The producer's own flag.
    pub flag: i32,
    /// Offset in the queue.
    pub queue_offset: i64,
    /// Where the record is stored.
    pub physical_offset: i64,
    /// See [`sys_flag`].
    pub sys_flag: i32,
    /// When the producer made it, in ms.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// When the broker stored it, in ms.
    pub store_timestamp: i64,
    /// Byte where the store timestamp stands.
    pub store_timestamp_at: usize,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// How often it was consumed before.
    pub reconsume_times: i32,
    /// Physical offset of the half message, else 0.
    pub prepared_transaction_offset: i64,
    /// The body.
    pub body: &'a [u8],
    /// Byte where the body stands.
    pub body_at: usize,
    /// The topic.
    pub topic: &'a str,
    /// Byte where the topic stands.
    pub topic_at: usize,
    /// The encoded properties.
    pub properties: &'a str,
    /// Byte where the properties stand.
    pub properties_at: usize,
}

impl<'a> RecordView<'a> {
    /// Reads the record at the start of `bytes`; there may be more behind it. The body's CRC is not checked, see
    /// [`RecordView::check_body`].
    pub fn decode(bytes: &'a [u8]) -> Result<RecordView<'a>, RecordError> {
        let mut r = Reader { bytes, at: 0 };
        let size = r.len("the size")?;
        let magic = r.i32("the magic number")? as u32;
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError::BadMagic { magic });
        }
        let whole = bytes.get(..size).ok_or(RecordError::Truncated {
            field: "the record",
            needed: size,
            left: bytes.len(),
        })?;
        r.bytes = whole;
        let view = RecordView::fields(&mut r, whole, magic)?;
        if r.at != size {
            return Err(RecordError::SizeMismatch { stated: size, actual: r.at });
        }
        Ok(view)
    }

    fn fields(r: &mut Reader<'a>, bytes: &'a [u8], magic: u32) -> Result<RecordView<'a>, RecordError> {
        let body_crc = r.i32("the body's CRC")? as u32;
        let queue_id = r.i32("the queue id")?;
        let flag = r.i32("the flag")?;
        let queue_offset = r.i64("the queue offset")?;
        let physical_offset = r.i64("the physical offset")?;
        let sys_flag = r.i32("sysFlag")?;
        let born_timestamp = r.i64("the born timestamp")?;
        let born_host = r.host("the born host", sys_flag & sys_flag::BORN_HOST_V6 != 0)?;
        let store_timestamp_at = r.at;
        let store_timestamp = r.i64("the store timestamp")?;
        let store_host = r.host("the store host", sys_flag & sys_flag::STORE_HOST_V6 != 0)?;
        let reconsume_times = r.i32("reconsumeTimes")?;
        let prepared_transaction_offset = r.i64("the prepared transaction offset")?;
        let body_len = r.len("the body's length")?;
        let body_at = r.at;
        let body = r.take("the body", body_len)?;
        let topic_len = match magic {
            MAGIC_V1 => usize::from(r.array::<1>("the topic's length")?[0]),
            _ => r.short_len("the topic's length")?,
        };
        let topic_at = r.at;
        let topic = r.text("the topic", topic_len)?;
        let properties_len = r.short_len("the properties' length")?;
        let properties_at = r.at;
        let properties = r.text("the properties", properties_len)?;
        Ok(RecordView {
            bytes,
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp,
            born_host,
            store_timestamp,
            store_timestamp_at,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            body_at,
            topic,
            topic_at,
            properties,
            properties_at,
        })
    }

    /// Compares the body with its CRC.
    pub fn check_body(&self) -> Result<(), RecordError> {
        let actual = body_crc(self.body);
        if actual == self.body_crc {
            return Ok(());
        }
        Err(RecordError::BadCrc { stated: self.body_crc, actual })
    }
}

/// The records of a pull's or a query's body, one after the other; ends behind the first that cannot be read.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<RecordView<'_>, RecordError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = RecordView::decode(rest);
        rest = record.as_ref().map_or(&[], |r| &rest[r.bytes.len()..]);
        Some(record)
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], RecordError> {
        // The stated size may be less than what was read to get to it.
        let left = self.bytes.get(self.at..).unwrap_or_default();
        let taken = left.get(..needed).ok_or(RecordError::Truncated { field, needed, left: left.len() })?;
        self.at += needed;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    fn len(&mut self, field: &'static str) -> Result<usize, RecordError> {
        let value = self.i32(field)?;
        usize::try_from(value).map_err(|_| RecordError::NegativeLength { field, value })
    }

    fn short_len(&mut self, field: &'static str) -> Result<usize, RecordError> {
        let value = i16::from_be_bytes(self.array(field)?);
        usize::try_from(value).map_err(|_| RecordError::NegativeLength { field, value: i32::from(value) })
    }

    fn text(&mut self, field: &'static str, len: usize) -> Result<&'a str, RecordError> {
        text::utf8(self.take(field, len)?).map_err(|_| RecordError::NotUtf8 { field })
    }

    fn host(&mut self, field: &'static str, v6: bool) -> Result<SocketAddr, RecordError> {
        let ip = match v6 {
            true => IpAddr::V6(Ipv6Addr::from(self.array::<16>(field)?)),
            false => IpAddr::V4(Ipv4Addr::from(self.array::<4>(field)?)),
        };
        let port = self.i32(field)?;
        Ok(SocketAddr::new(ip, u16::try_from(port).map_err(|_| RecordError::BadPort { port })?))
    }
}
