//! Just enough of the remoting protocol to make load without being the limit: requests are stamped from a
//! template, answers are scanned for their code and opaque. The full codec is `ringmq-protocol`.

use memchr::memmem;

/// Width of the opaque in a template: zero-padded numbers are not JSON, so it starts with a non-zero digit.
const OPAQUE_DIGITS: usize = 10;
/// Opaques count from here, which keeps them at ten digits and within a positive i32.
const OPAQUE_BASE: u32 = 1_000_000_000;

/// A send request (code 310) in which only the opaque and the queue change.
pub struct SendTemplate {
    bytes: Vec<u8>,
    opaque_at: usize,
    queue_at: usize,
}

impl SendTemplate {
    /// For messages of `body_len` bytes to `topic`.
    pub fn new(topic: &str, body_len: usize) -> SendTemplate {
        let properties = "UNIQ_KEY\\u00017F000001000018B4AAC2\\u0002WAIT\\u0001true\\u0002";
        let header = format!(
            "{{\"code\":310,\"extFields\":{{\"a\":\"bench_producer\",\"b\":\"{topic}\",\"c\":\"TBW102\",\"d\":\"8\",\
             \"e\":\"00\",\"f\":\"0\",\"g\":\"1700000000000\",\"h\":\"0\",\"i\":\"{properties}\",\"j\":\"0\",\
             \"k\":\"false\",\"m\":\"false\"}},\"flag\":0,\"language\":\"JAVA\",\"opaque\":{OPAQUE_BASE},\
             \"serializeTypeCurrentRPC\":\"JSON\",\"version\":401}}"
        );
        let mut bytes = Vec::with_capacity(8 + header.len() + body_len);
        bytes.extend_from_slice(&((4 + header.len() + body_len) as u32).to_be_bytes());
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend((0..body_len).map(|i| b'a' + (i * 7 % 26) as u8));
        let find =
            |needle: &str| memmem::find(&bytes, needle.as_bytes()).expect("in the template") + needle.len();
        let (opaque_at, queue_at) = (find("\"opaque\":"), find("\"e\":\""));
        SendTemplate { bytes, opaque_at, queue_at }
    }

    /// Appends one request. `slot` comes back from [`Answer::slot`].
    pub fn write(&self, slot: u32, queue: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        write_digits(&mut out[start + self.opaque_at..][..OPAQUE_DIGITS], OPAQUE_BASE + slot);
        write_digits(&mut out[start + self.queue_at..][..2], queue);
    }
}

fn write_digits(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// What an answer's header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Response code.
    pub code: i32,
    /// The slot that was stamped into the request.
    pub slot: u32,
    /// Length of the whole frame in bytes.
    pub frame_len: usize,
}

impl Answer {
    /// The first answer in `buf`; `None` while it is not whole.
    pub fn parse(buf: &[u8]) -> anyhow::Result<Option<Answer>> {
        let Some((length, rest)) = buf.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        anyhow::ensure!((4..1 << 26).contains(&length), "an answer of {length} bytes");
        if rest.len() < length {
            return Ok(None);
        }
        let header_len = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        anyhow::ensure!(header_len <= length - 4, "a header of {header_len} bytes in a frame of {length}");
        let header = &rest[4..4 + header_len];
        let opaque = number_after(header, b"\"opaque\":")?;
        let slot = u32::try_from(opaque)?.wrapping_sub(OPAQUE_BASE);
        Ok(Some(Answer { code: number_after(header, b"\"code\":")? as i32, slot, frame_len: 4 + length }))
    }
}

fn number_after(header: &[u8], key: &[u8]) -> anyhow::Result<i64> {
    let at = memmem::find(header, key).ok_or_else(|| anyhow::anyhow!("an answer without {key:?}"))?;
    let digits = &header[at + key.len()..];
    let end = digits.iter().position(|b| !b.is_ascii_digit() && *b != b'-').unwrap_or(digits.len());
    Ok(std::str::from_utf8(&digits[..end])?.parse()?)
}

/// The slot part of a request frame's opaque, for a server that answers without decoding.
pub fn request_opaque(header: &[u8]) -> anyhow::Result<i64> {
    number_after(header, b"\"opaque\":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_request_carries_slot_and_queue() {
        let mut out = Vec::new();
        SendTemplate::new("T", 5).write(77, 3, &mut out);
        let text = String::from_utf8_lossy(&out[8..]).into_owned();
        assert!(text.contains("\"opaque\":1000000077") && text.contains("\"e\":\"03\""), "{text}");
        assert_eq!(u32::from_be_bytes(out[..4].try_into().unwrap()) as usize, out.len() - 4);
    }

    #[test]
    fn an_answer_is_parsed_once_whole() {
        let header = br#"{"code":0,"flag":1,"opaque":1000000005}"#;
        let mut frame = ((4 + header.len()) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(header);
        assert_eq!(Answer::parse(&frame[..frame.len() - 1]).unwrap(), None);
        let answer = Answer::parse(&frame).unwrap();
        assert_eq!(answer, Some(Answer { code: 0, slot: 5, frame_len: frame.len() }));
    }
}
