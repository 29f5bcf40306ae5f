//! What is read of a frame: the few fields of its header that the harness needs, and its body.

use memchr::memmem;

use super::OPAQUE_BASE;

/// Longest frame that is believed.
const MAX_FRAME: usize = 1 << 28;

/// An answer, borrowed from the input.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Response code.
    pub code: i32,
    /// The slot that was stamped into the request.
    pub slot: u32,
    /// The header's text.
    pub header: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// Length of the whole frame in bytes.
    pub frame_len: usize,
}

impl<'a> Answer<'a> {
    /// The first answer in `buf`; `None` while it is not whole.
    pub fn parse(buf: &'a [u8]) -> anyhow::Result<Option<Answer<'a>>> {
        let Some((header, body, frame_len)) = split(buf)? else { return Ok(None) };
        let opaque = number_after(header, b"\"opaque\":")?;
        let slot = u32::try_from(opaque)?.wrapping_sub(OPAQUE_BASE);
        let code = number_after(header, b"\"code\":")? as i32;
        Ok(Some(Answer { code, slot, header, body, frame_len }))
    }

    /// Where a pull goes on.
    pub fn next_offset(&self) -> anyhow::Result<u64> {
        Ok(number_after(self.header, b"\"nextBeginOffset\":\"")? as u64)
    }

    /// What the broker says about a failure, for a message.
    pub fn remark(&self) -> String {
        let from = memmem::find(self.header, b"\"remark\":").unwrap_or(0);
        String::from_utf8_lossy(&self.header[from..]).chars().take(200).collect()
    }
}

/// A request, for a server that answers without decoding more than it must.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Request code.
    pub code: i32,
    /// Pairs the answer with it.
    pub opaque: i64,
    /// The header's text.
    pub header: &'a [u8],
    /// Length of the whole frame in bytes.
    pub frame_len: usize,
}

impl<'a> Request<'a> {
    /// The first request in `buf`; `None` while it is not whole.
    pub fn parse(buf: &'a [u8]) -> anyhow::Result<Option<Request<'a>>> {
        let Some((header, _, frame_len)) = split(buf)? else { return Ok(None) };
        let opaque = number_after(header, b"\"opaque\":")?;
        let code = number_after(header, b"\"code\":")? as i32;
        Ok(Some(Request { code, opaque, header, frame_len }))
    }
}

/// Header and body of a frame, and its whole length.
type Parts<'a> = (&'a [u8], &'a [u8], usize);

/// The first frame.
fn split(buf: &[u8]) -> anyhow::Result<Option<Parts<'_>>> {
    let Some((length, rest)) = buf.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    anyhow::ensure!((4..MAX_FRAME).contains(&length), "a frame of {length} bytes");
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let header_len = u32::from_be_bytes([0, frame[1], frame[2], frame[3]]) as usize;
    anyhow::ensure!(header_len <= length - 4, "a header of {header_len} bytes in a frame of {length}");
    let (header, body) = frame[4..].split_at(header_len);
    Ok(Some((header, body, 4 + length)))
}

/// The number that follows `key` in a header.
pub fn number_after(header: &[u8], key: &[u8]) -> anyhow::Result<i64> {
    let missing = || anyhow::anyhow!("a header without {}", String::from_utf8_lossy(key));
    let at = memmem::find(header, key).ok_or_else(missing)?;
    let digits = &header[at + key.len()..];
    let end = digits.iter().position(|b| !b.is_ascii_digit() && *b != b'-').unwrap_or(digits.len());
    Ok(std::str::from_utf8(&digits[..end])?.parse()?)
}

/// The number at `"key":"…"` (or without quotes) in a JSON text.
pub fn json_number(text: &[u8], key: &str) -> anyhow::Result<f64> {
    let missing = || anyhow::anyhow!("no {key} in the answer");
    let at = memmem::find(text, format!("\"{key}\"").as_bytes()).ok_or_else(missing)?;
    let value = &text[at + key.len() + 2..];
    let from = value.iter().position(|b| b.is_ascii_digit() || *b == b'-').ok_or_else(missing)?;
    let len = value[from..].iter().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'.' | b'E' | b'e'));
    let digits = &value[from..from + len.unwrap_or(value.len() - from)];
    Ok(std::str::from_utf8(digits)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_once_whole() {
        let header = br#"{"code":0,"extFields":{"nextBeginOffset":"42"},"flag":1,"opaque":1000000005}"#;
        let mut frame = ((4 + header.len() + 3) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(header);
        frame.extend_from_slice(b"abc");
        assert_eq!(Answer::parse(&frame[..frame.len() - 1]).unwrap(), None);
        let answer = Answer::parse(&frame).unwrap().unwrap();
        assert_eq!((answer.code, answer.slot, answer.body), (0, 5, &b"abc"[..]));
        assert_eq!((answer.next_offset().unwrap(), answer.frame_len), (42, frame.len()));
    }

    #[test]
    fn numbers_of_a_table_are_found() {
        let text = br#"{"table":{"a":"12","putTps":"1.5 2.5","b":-3}}"#;
        let number = |key| json_number(text, key).unwrap();
        assert_eq!((number("a"), number("putTps"), number("b")), (12.0, 1.5, -3.0));
        assert!(json_number(text, "c").is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Answer::parse(&[0, 0, 0, 1, 9, 9, 9, 9]).is_err());
        assert!(Answer::parse(&[0, 0, 0, 4, 0, 0, 0, 9]).is_err());
    }
}
