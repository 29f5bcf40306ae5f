//! The messages that the loop sends: each body can be recognised and checked byte by byte from its own number.

use crate::random::Random;

/// Number of a message: who sent it, and its place in that sender's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageNumber {
    /// The sending connection; a new number for each connection ever made.
    pub sender: u32,
    /// Counts the sender's messages from 0.
    pub sequence: u32,
}

const HEADER: usize = 8;

/// The one body that belongs to `number`: 8 to about 2,000 bytes, now and then 100 KB.
pub fn body(number: MessageNumber) -> Vec<u8> {
    let mut random = Random::new(u64::from(number.sender) << 32 | u64::from(number.sequence));
    let len = match random.next() {
        n if n.is_multiple_of(500) => 100_000,
        n => HEADER + (n % 2000) as usize,
    };
    let mut body = Vec::with_capacity(len + 8);
    body.extend_from_slice(&number.sender.to_be_bytes());
    body.extend_from_slice(&number.sequence.to_be_bytes());
    while body.len() < len {
        body.extend_from_slice(&random.next().to_be_bytes());
    }
    body.truncate(len);
    body
}

/// Which message a stored body is; `None` when any byte is not what was sent.
pub fn recognise(stored: &[u8]) -> Option<MessageNumber> {
    let sender = u32::from_be_bytes(*stored.first_chunk()?);
    let sequence = u32::from_be_bytes(*stored.get(4..)?.first_chunk()?);
    let number = MessageNumber { sender, sequence };
    (body(number) == stored).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_recognised_and_any_change_is_seen() {
        for sequence in 0..600 {
            let number = MessageNumber { sender: 7, sequence };
            let mut stored = body(number);
            assert_eq!(recognise(&stored), Some(number));
            let last = stored.len() - 1;
            stored[last] ^= 1;
            assert_eq!(recognise(&stored), None);
        }
        assert_eq!(recognise(b"short"), None);
    }
}
