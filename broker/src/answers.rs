//! Writes answers as frames.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use ringmq_engine::{PhysicalOffset, QueueId, QueueOffset};
use ringmq_protocol::codes::response;
use ringmq_protocol::headers::PullResponseHeader;
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::response::{SendResponse, write_pull_head};
use ringmq_protocol::text;
use ringmq_protocol::writer::{HeaderWriter, Trailer};

use crate::config::BrokerConfig;
use crate::message::{AnswerBody, Pulled};
use crate::outgoing::Outgoing;
use crate::routing::Routing;

/// What every core knows of the node from its start to its end.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What the broker was told.
    pub config: Arc<BrokerConfig>,
    /// The address that clients know the broker by; it stands in records and message ids.
    pub store_host: SocketAddr,
    /// Shards and cores.
    pub routing: Routing,
}

impl Identity {
    /// Appends the answer to the request with the number `opaque`.
    pub fn write_answer(&self, out: &mut Outgoing, opaque: i32, body: AnswerBody) {
        match body {
            AnswerBody::Sent {
                physical_offsets,
                queue_id,
                queue_offset,
                uniq_key,
                recall_handle,
                is_inner_batch,
            } => {
                let names =
                    SentNames { uniq_key: &uniq_key, recall: recall_handle.as_deref(), is_inner_batch };
                self.write_sent(out.tail(), opaque, &physical_offsets, (queue_id, queue_offset), names);
            }
            AnswerBody::Replied(queue_id) => self.write_replied(out.tail(), opaque, queue_id),
            AnswerBody::Pulled(pulled) => write_pulled(out, opaque, pulled),
            AnswerBody::Number(name, value) => {
                let mut writer = HeaderWriter::begin(out.tail(), response::SUCCESS);
                writer.ext_int(name, value);
                writer.finish(&Trailer::response(opaque, None), 0);
            }
            AnswerBody::Records(parts) => {
                let len = parts.iter().map(|part| part.len()).sum();
                let writer = HeaderWriter::begin(out.tail(), response::SUCCESS);
                writer.finish(&Trailer::response(opaque, None), len);
                out.body(parts);
            }
            AnswerBody::Success => write_plain(out.tail(), response::SUCCESS, opaque, None),
            AnswerBody::Refused(refusal) => {
                write_plain(out.tail(), refusal.code, opaque, Some(&refusal.remark));
            }
            AnswerBody::Command(mut command) => {
                command.opaque = opaque;
                command.encode_json(out.tail());
            }
        }
    }

    /// Java's placeholders: clients read the fields of a send's answer.
    fn write_replied(&self, out: &mut BytesMut, opaque: i32, queue_id: QueueId) {
        let response = SendResponse {
            opaque,
            code: response::SUCCESS,
            remark: None,
            msg_id: "0",
            queue_id: queue_id.0 as i32,
            queue_offset: 0,
            transaction_id: None,
            recall_handle: None,
            batch_uniq_id: None,
            region: &self.config.region_id,
            trace_on: self.config.trace_on,
        };
        response.write(out);
    }

    fn write_sent(
        &self,
        out: &mut BytesMut,
        opaque: i32,
        physical_offsets: &[PhysicalOffset],
        (queue_id, queue_offset): (QueueId, QueueOffset),
        names: SentNames<'_>,
    ) {
        let id = |offset: &PhysicalOffset| {
            OffsetMessageId { store_host: self.store_host, physical_offset: offset.get() }.encode()
        };
        let (one, many);
        let msg_id = match physical_offsets {
            [offset] => {
                one = id(offset);
                one.as_str()
            }
            offsets => {
                many = offsets.iter().map(|offset| id(offset).to_string()).collect::<Vec<_>>().join(",");
                many.as_str()
            }
        };
        let uniq_key = text::utf8(names.uniq_key).ok().filter(|key| !key.is_empty());
        let response = SendResponse {
            opaque,
            code: response::SUCCESS,
            remark: None,
            msg_id,
            queue_id: queue_id.0 as i32,
            queue_offset: queue_offset.0,
            transaction_id: uniq_key,
            recall_handle: names.recall,
            batch_uniq_id: uniq_key.filter(|_| names.is_inner_batch),
            region: &self.config.region_id,
            trace_on: self.config.trace_on,
        };
        response.write(out);
    }
}

/// Names that the answer to a send gives back.
struct SentNames<'a> {
    uniq_key: &'a [u8],
    recall: Option<&'a str>,
    /// The key is that of a batch that is stored as one.
    is_inner_batch: bool,
}

/// A header without ext fields and without a body.
fn write_plain(out: &mut BytesMut, code: i32, opaque: i32, remark: Option<&str>) {
    HeaderWriter::begin(out, code).finish(&Trailer::response(opaque, remark), 0);
}

fn write_pulled(out: &mut Outgoing, opaque: i32, pulled: Pulled) {
    let header = PullResponseHeader {
        suggest_which_broker_id: 0,
        next_begin_offset: pulled.next_offset.0,
        min_offset: pulled.range.min.0,
        max_offset: pulled.range.max.0,
        offset_delta: Some(0),
        topic_sys_flag: Some(pulled.topic_sys_flag),
        group_sys_flag: Some(pulled.group_sys_flag),
        forbidden_type: Some(0),
    };
    let trailer = Trailer::response(opaque, Some(pulled.remark));
    write_pull_head(out.tail(), pulled.code, &header, &trailer, pulled.bytes);
    out.body(pulled.parts);
}
