//! Message ids: the broker's offset ids and the producers' unique keys.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why a text is no message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageIdError {
    /// The length fits neither form.
    #[error("a message id has {expected} hexadecimal digits, this one has {actual}")]
    BadLength {
        /// What would fit.
        expected: &'static str,
        /// Bytes of the text.
        actual: usize,
    },
    /// Not a hexadecimal digit.
    #[error("the message id has no hexadecimal digit at byte {at}")]
    NotHex {
        /// Where.
        at: usize,
    },
    /// The port is above 65535.
    #[error("the message id's port {port} is no port")]
    BadPort {
        /// What stands there.
        port: u32,
    },
}

/// Longest id in bytes before it becomes text: an IPv6 one.
const MAX_BYTES: usize = 28;

/// The text of an id, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdText {
    digits: [u8; MAX_BYTES * 2],
    len: u8,
}

impl IdText {
    /// Of so many bytes as words of four: all ids are.
    fn of(bytes: &[u8]) -> IdText {
        debug_assert!(bytes.len().is_multiple_of(4));
        let mut digits = [0; MAX_BYTES * 2];
        for (eight, four) in digits.chunks_exact_mut(8).zip(bytes.as_chunks::<4>().0) {
            eight.copy_from_slice(&hex_of(u32::from_be_bytes(*four)));
        }
        IdText { digits, len: bytes.len() as u8 * 2 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        crate::text::utf8(&self.digits[..usize::from(self.len)]).expect("hexadecimal digits are UTF-8")
    }
}

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The eight hexadecimal digits of a number, all at once: one in each byte of a word.
#[inline]
fn hex_of(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter.
    let letters = ((nibbles + ONES * 6) >> 4) & ONES;
    (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'A' - b'0' - 10)).to_be_bytes()
}

/// Bytes gathered up to the longest id.
struct Gather {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl Gather {
    fn new(ip: IpAddr) -> Gather {
        let mut gather = Gather { bytes: [0; MAX_BYTES], len: 0 };
        match ip.to_canonical() {
            IpAddr::V4(ip) => gather.put(&ip.octets()),
            IpAddr::V6(ip) => gather.put(&ip.octets()),
        }
        gather
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn text(&self) -> IdText {
        IdText::of(&self.bytes[..self.len])
    }
}

/// The bytes behind `text`'s hexadecimal digits, in either case.
fn unhex<const N: usize>(text: &str) -> Result<[u8; N], MessageIdError> {
    let digits = text.as_bytes();
    debug_assert_eq!(digits.len(), N * 2);
    let mut bytes = [0; N];
    for (at, digit) in digits.iter().enumerate() {
        let value = char::from(*digit).to_digit(16).ok_or(MessageIdError::NotHex { at })?;
        bytes[at / 2] = bytes[at / 2] << 4 | value as u8;
    }
    Ok(bytes)
}

/// The broker's id of a stored message: where it is. Java's `offsetMsgId`, `msgId` in a send's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetMessageId {
    /// The broker's address as stored in the record.
    pub store_host: SocketAddr,
    /// The record's physical offset.
    pub physical_offset: i64,
}

impl OffsetMessageId {
    /// The id as text: 32 digits, or 56 with an IPv6 address.
    pub fn encode(&self) -> IdText {
        let mut gather = Gather::new(self.store_host.ip());
        gather.put(&u32::from(self.store_host.port()).to_be_bytes());
        gather.put(&self.physical_offset.to_be_bytes());
        gather.text()
    }

    /// Reads an id.
    pub fn decode(text: &str) -> Result<OffsetMessageId, MessageIdError> {
        let (ip, rest) = match text.len() {
            32 => {
                let bytes: [u8; 16] = unhex(text)?;
                (IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])), tail(&bytes))
            }
            56 => {
                let bytes: [u8; 28] = unhex(text)?;
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[..16]);
                (IpAddr::from(Ipv6Addr::from(octets)), tail(&bytes))
            }
            actual => return Err(MessageIdError::BadLength { expected: "32 or 56", actual }),
        };
        let port = (rest >> 64) as u32;
        let port = u16::try_from(port).map_err(|_| MessageIdError::BadPort { port })?;
        Ok(OffsetMessageId { store_host: SocketAddr::new(ip, port), physical_offset: rest as i64 })
    }
}

/// The last twelve bytes as a number.
fn tail(bytes: &[u8]) -> u128 {
    bytes[bytes.len() - 12..].iter().fold(0, |n, b| n << 8 | u128::from(*b))
}

/// Makes unique keys as Java's `MessageClientIDSetter` does: address, process, a constant of the process, the
/// milliseconds since the month's start, a counter.
///
/// Keys of one generator differ as long as fewer than 65536 are made in a millisecond.
#[derive(Clone, Debug)]
pub struct UniqueKeys {
    ip: IpAddr,
    pid: u16,
    process: u32,
    counter: u16,
    /// The month that contained the last key's time, in ms since 1970.
    month: std::ops::Range<i64>,
}

impl UniqueKeys {
    /// A generator for this address and process; `process` is any number that tells generators with the same
    /// address and pid apart (Java takes a class loader's hash).
    pub fn new(ip: IpAddr, pid: u32, process: u32) -> UniqueKeys {
        UniqueKeys { ip, pid: pid as u16, process, counter: 0, month: 0..0 }
    }

    /// The next key, at `now_ms` since 1970. Months are those of UTC.
    pub fn next(&mut self, now_ms: i64) -> IdText {
        if !self.month.contains(&now_ms) {
            self.month = month_of(now_ms);
        }
        let mut gather = Gather::new(self.ip);
        gather.put(&self.pid.to_be_bytes());
        gather.put(&self.process.to_be_bytes());
        gather.put(&((now_ms - self.month.start) as u32).to_be_bytes());
        gather.put(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        gather.text()
    }
}

/// When a unique key was made, in ms since 1970, given that it was made in the month before `now_ms`.
///
/// A key tells the time since the start of a month in its maker's time zone; read as UTC here, so the answer is off
/// by that zone's offset.
pub fn birth_time(key: &str, now_ms: i64) -> Result<i64, MessageIdError> {
    let since_month = match key.len() {
        32 => u32_at(&unhex::<16>(key)?, 10),
        56 => u32_at(&unhex::<28>(key)?, 22),
        actual => return Err(MessageIdError::BadLength { expected: "32 or 56", actual }),
    };
    let this_month = month_of(now_ms).start;
    let time = this_month + i64::from(since_month);
    if time >= now_ms {
        return Ok(month_of(this_month - 1).start + i64::from(since_month));
    }
    Ok(time)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |n, b| n << 8 | u32::from(*b))
}

const DAY_MS: i64 = 86_400_000;

/// Start of the month that `time_ms` is in and of the one after it (UTC), in ms since 1970.
fn month_of(time_ms: i64) -> std::ops::Range<i64> {
    let day = time_ms.div_euclid(DAY_MS);
    // Howard Hinnant's civil_from_days: years start on 1 March, eras are 400 years.
    let shifted = day + 719_468;
    let era_day = shifted.rem_euclid(146_097);
    let era_year = (era_day - era_day / 1_460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let month = (5 * year_day + 2) / 153;
    let month_day = year_day - (153 * month + 2) / 5;
    let first = day - month_day;
    let year = shifted.div_euclid(146_097) * 400 + era_year + i64::from(month >= 10);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, if leap { 29 } else { 28 }][month as usize];
    first * DAY_MS..(first + days) * DAY_MS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offset_ids_go_both_ways() {
        let id = OffsetMessageId { store_host: "127.0.0.1:10911".parse().unwrap(), physical_offset: 0x1234 };
        assert_eq!(id.encode().as_str(), "7F00000100002A9F0000000000001234");
        assert_eq!(OffsetMessageId::decode("7f00000100002a9f0000000000001234"), Ok(id));
        let id = OffsetMessageId { store_host: "[::2]:9".parse().unwrap(), physical_offset: i64::MAX };
        assert_eq!(id.encode().len(), 56);
        assert_eq!(OffsetMessageId::decode(&id.encode()), Ok(id));
        assert!(matches!(OffsetMessageId::decode("7F"), Err(MessageIdError::BadLength { actual: 2, .. })));
        let bad = "7F0000010000ZZ9F0000000000001234";
        assert_eq!(OffsetMessageId::decode(bad), Err(MessageIdError::NotHex { at: 12 }));
        let bad = "7F00000100012A9F0000000000001234";
        assert_eq!(OffsetMessageId::decode(bad), Err(MessageIdError::BadPort { port: 0x12A9F }));
    }

    proptest! {
        #[test]
        fn digits_are_those_of_the_number(number: u32) {
            let digits = String::from_utf8(hex_of(number).to_vec());
            prop_assert_eq!(digits, Ok(format!("{number:08X}")));
        }
    }

    #[test]
    fn months_start_where_the_calendar_says() {
        // date -u -d ... +%s
        let months = [
            (1_709_164_800_000, 1_706_745_600_000, 1_709_251_200_000), // 2024-02-29
            (1_732_233_600_000, 1_730_419_200_000, 1_733_011_200_000), // 2024-11-22
            (0, 0, 2_678_400_000),                                     // 1970-01-01
            (1_735_689_599_999, 1_733_011_200_000, 1_735_689_600_000), // the last ms of 2024
        ];
        for (time, start, end) in months {
            assert_eq!(month_of(time), start..end, "{time}");
        }
    }

    #[test]
    fn unique_keys_tell_their_birth() {
        for ip in ["10.1.2.3", "fe80::1"] {
            let mut keys = UniqueKeys::new(ip.parse().unwrap(), 0x12345, 7);
            let now = 1_732_233_600_123;
            let (first, second) = (keys.next(now), keys.next(now));
            assert_ne!(first, second);
            assert_eq!(birth_time(&first, now + 5), Ok(now));
            // Read in the next month, the key is of the month before.
            assert_eq!(birth_time(&first, 1_733_011_200_000 + 1), Ok(now));
        }
        let mut keys = UniqueKeys::new("10.1.2.3".parse().unwrap(), 0x12345, 7);
        assert_eq!(keys.next(1_732_233_600_123).as_str(), "0A0102032345000000076C258C7B0000");
    }
}
