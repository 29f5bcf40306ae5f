//! The two hot answers, written without any map: a send's and a pull's.

use bytes::BytesMut;

use crate::headers::PullResponseHeader;
use crate::json::write;
use crate::writer::{HeaderWriter, Scratch, Trailer};

/// Longest id or region of an answer that is written the quick way.
const MAX_USUAL_TEXT: usize = 64;

/// What a send's answer tells.
#[derive(Clone, Copy, Debug)]
pub struct SendResponse<'a> {
    /// The request's opaque.
    pub opaque: i32,
    /// SUCCESS, or one of the codes that mean "stored, but".
    pub code: i32,
    /// Free text.
    pub remark: Option<&'a str>,
    /// Offset message id, see [`crate::headers::SendResponseHeader::msg_id`].
    pub msg_id: &'a str,
    /// Queue that it went to.
    pub queue_id: i32,
    /// Queue offset.
    pub queue_offset: i64,
    /// The message's UNIQ_KEY.
    pub transaction_id: Option<&'a str>,
    /// By which a timer message may be recalled.
    pub recall_handle: Option<&'a str>,
    /// The UNIQ_KEY of an inner batch.
    pub batch_uniq_id: Option<&'a str>,
    /// The broker's region.
    pub region: &'a str,
    /// Whether clients shall trace.
    pub trace_on: bool,
}

impl SendResponse<'_> {
    /// Appends the whole frame (it has no body). Java's producer reads MSG_REGION and TRACE_ON unasked, so they are
    /// always there.
    pub fn write(&self, out: &mut BytesMut) {
        if self.is_usual() { self.write_usual(out) } else { self.write_any(out) }
    }

    /// Whether the frame is of the usual kind: short, with nothing to escape, without what few answers have.
    fn is_usual(&self) -> bool {
        let texts = [self.msg_id, self.transaction_id.unwrap_or_default(), self.region];
        self.remark.is_none()
            && self.recall_handle.is_none()
            && self.batch_uniq_id.is_none()
            && texts.iter().all(|text| text.len() <= MAX_USUAL_TEXT && write::is_plain(text))
    }

    /// The whole frame of the usual kind.
    fn write_usual(&self, out: &mut BytesMut) {
        let mut frame = Scratch::begin(out, self.code);
        frame.literal(b",\"extFields\":{\"queueId\":\"");
        frame.int(i64::from(self.queue_id));
        if let Some(id) = self.transaction_id {
            frame.literal(b"\",\"transactionId\":\"");
            frame.put(id.as_bytes());
        }
        frame.literal(b"\",\"msgId\":\"");
        frame.put(self.msg_id.as_bytes());
        match self.trace_on {
            true => frame.literal(b"\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\""),
            false => frame.literal(b"\",\"TRACE_ON\":\"false\",\"MSG_REGION\":\""),
        }
        frame.put(self.region.as_bytes());
        frame.literal(b"\",\"queueOffset\":\"");
        frame.int(self.queue_offset);
        frame.literal(b"\"}");
        frame.finish_response(self.opaque);
    }

    /// The whole frame of any kind.
    fn write_any(&self, out: &mut BytesMut) {
        let mut writer = HeaderWriter::begin(out, self.code);
        writer.ext_int("queueId", i64::from(self.queue_id));
        if let Some(id) = self.transaction_id {
            writer.ext_str("transactionId", id);
        }
        if let Some(handle) = self.recall_handle {
            writer.ext_str("recallHandle", handle);
        }
        if let Some(id) = self.batch_uniq_id {
            writer.ext_str("batchUniqId", id);
        }
        writer.ext_str("msgId", self.msg_id);
        writer.ext_str("TRACE_ON", if self.trace_on { "true" } else { "false" });
        writer.ext_str("MSG_REGION", self.region);
        writer.ext_int("queueOffset", self.queue_offset);
        writer.finish(&Trailer::response(self.opaque, self.remark), 0);
    }
}

/// Appends prefix and header of a pull's answer. The records' `body_len` bytes follow from elsewhere.
pub fn write_pull_head(
    out: &mut BytesMut,
    code: i32,
    header: &PullResponseHeader,
    trailer: &Trailer<'_>,
    body_len: usize,
) {
    let mut writer = HeaderWriter::begin(out, code);
    crate::headers::ExtHeader::write_to(header, &mut writer);
    writer.finish(trailer, body_len);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_ways_of_writing_agree(
            numbers: (i32, i32, i64, i32, bool),
            msg_id in "[0-9A-F]{32}(,[0-9A-F]{32}){0,2}",
            transaction_id in prop::option::of("[0-9A-F]{0,40}|.{0,8}"),
            region in "[a-zA-Z\"]{0,10}",
            remark in prop::option::weighted(0.1, "[a-z]{0,5}"),
            batch_id in prop::option::weighted(0.1, "[0-9A-F]{32}"),
        ) {
            let (opaque, queue_id, queue_offset, code, trace_on) = numbers;
            let response = SendResponse {
                opaque,
                code,
                remark: remark.as_deref(),
                msg_id: &msg_id,
                queue_id,
                queue_offset,
                transaction_id: transaction_id.as_deref(),
                recall_handle: None,
                batch_uniq_id: batch_id.as_deref(),
                region: &region,
                trace_on,
            };
            let (mut one, mut two) = (BytesMut::from("x"), BytesMut::from("x"));
            response.write(&mut one);
            response.write_any(&mut two);
            prop_assert_eq!(one, two);
        }
    }
}
