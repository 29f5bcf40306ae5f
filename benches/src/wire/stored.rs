//! Stored records, as the body of a pull's answer carries them: enough to count them and to find the time stamp
//! that the producer put at the start of each body.

/// Position of the body's length within a record whose hosts are IPv4 addresses.
const BODY_LEN_AT: usize = 84;
const BODY_AT: usize = 88;
/// Bytes of a record beside body, topic and properties.
const FIXED: usize = 91;
/// RocketMQ's magic of a stored record.
const MAGIC: u32 = 0xdaa3_20a7;

/// Calls `each` with the size of every record and the stamp at the start of its body.
pub fn stamps(body: &[u8], mut each: impl FnMut(usize, u64)) -> anyhow::Result<()> {
    let mut rest = body;
    while !rest.is_empty() {
        let head = rest.first_chunk::<{ BODY_AT + 8 }>();
        let head = head.ok_or_else(|| anyhow::anyhow!("{} bytes are no record", rest.len()))?;
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        anyhow::ensure!((FIXED..=rest.len()).contains(&size), "a record of {size} bytes in {}", rest.len());
        let mut stamp = [0; 8];
        stamp.copy_from_slice(&head[BODY_AT..]);
        each(size, u64::from_be_bytes(stamp));
        rest = &rest[size..];
    }
    Ok(())
}

/// Appends a record with a body of `body_len` zeroes: what a server that stores nothing hands out.
pub fn write_record(body_len: usize, out: &mut Vec<u8>) {
    let (start, topic) = (out.len(), b"BenchTopic");
    let size = FIXED + body_len + topic.len();
    out.resize(start + size, 0);
    let record = &mut out[start..];
    record[..4].copy_from_slice(&(size as u32).to_be_bytes());
    record[4..8].copy_from_slice(&MAGIC.to_be_bytes());
    record[BODY_LEN_AT..BODY_AT].copy_from_slice(&(body_len as u32).to_be_bytes());
    let topic_at = BODY_AT + body_len;
    record[topic_at] = topic.len() as u8;
    record[topic_at + 1..][..topic.len()].copy_from_slice(topic);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_walked() {
        let mut body = Vec::new();
        write_record(16, &mut body);
        write_record(100, &mut body);
        let mut sizes = Vec::new();
        stamps(&body, |size, stamp| sizes.push((size, stamp))).unwrap();
        assert_eq!(sizes, [(117, 0), (201, 0)]);
        assert!(stamps(&body[..150], |_, _| {}).is_err());
    }
}
