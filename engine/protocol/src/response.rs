//! The two hot answers, written without any map: a send's and a pull's.

use bytes::BytesMut;

use crate::headers::PullResponseHeader;
use crate::writer::{HeaderWriter, Trailer};

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
    /// The broker's region.
    pub region: &'a str,
    /// Whether clients shall trace.
    pub trace_on: bool,
}

impl SendResponse<'_> {
    /// Appends the whole frame (it has no body). Java's producer reads MSG_REGION and TRACE_ON unasked, so they are
    /// always there.
    pub fn write(&self, out: &mut BytesMut) {
        let mut writer = HeaderWriter::begin(out, self.code);
        writer.ext_int("queueId", i64::from(self.queue_id));
        if let Some(id) = self.transaction_id {
            writer.ext_str("transactionId", id);
        }
        if let Some(handle) = self.recall_handle {
            writer.ext_str("recallHandle", handle);
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
