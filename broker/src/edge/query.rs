//! The query by key (12): every shard may hold messages with the key, so all of them are asked.

use std::rc::Rc;

use ringmq_env::{Env, IoSlice};
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{FromExt, QueryMessageHeader, QueryMessageResponseHeader};
use ringmq_protocol::record::RecordView;

use super::*;

/// Most messages of a query by KEYS.
const MAX_MESSAGES: usize = 64;
/// Most messages of a query by UNIQ_KEY.
const MAX_UNIQUE: usize = 32;
/// Most bytes of records in one answer, but for a single larger message.
const MAX_BYTES: usize = 8 << 20;

/// Starts a task that asks every shard and answers.
pub fn dispatch<E: Env>(core: &Rc<Core<E>>, reply: ReplyTo, header: &Header<'_>) {
    let query = match QueryMessageHeader::from_ext(&header.ext) {
        Ok(query) => query,
        Err(error) => return refuse(core, reply, bad_header(&error)),
    };
    let max_messages = match query.unique_key_query {
        Some(true) => MAX_UNIQUE,
        _ => usize::try_from(query.max_num).unwrap_or(0).min(MAX_MESSAGES),
    };
    let question = ShardCall::Keys {
        topic: query.topic.into(),
        key: query.key.into(),
        max_messages,
        begin_ms: query.begin_timestamp,
        end_ms: query.end_timestamp,
    };
    let asking = core.clone();
    core.env.spawn(async move {
        let answers = asking.call_shards(|_| question.clone()).await;
        let body = gather(answers, max_messages);
        asking.deliver(Answer { to: reply, credit: None, body });
        asking.flush();
    });
}

/// The newest messages of all shards, newest first.
fn gather(answers: Vec<CallAnswer>, max_messages: usize) -> AnswerBody {
    let mut found: Vec<(i64, i64, IoSlice)> = Vec::new();
    for answer in answers {
        match answer {
            CallAnswer::Records(records) => found.extend(records.into_iter().filter_map(with_time)),
            CallAnswer::Refused(refusal) => return AnswerBody::Refused(refusal),
            _ => {}
        }
    }
    found.sort_by_key(|(store_ms, _, _)| std::cmp::Reverse(*store_ms));
    found.truncate(max_messages);
    let Some((index_last_update_timestamp, index_last_update_phyoffset, _)) = found.first().cloned() else {
        return AnswerBody::Refused(remarks::no_message_with_key());
    };
    let header = QueryMessageResponseHeader { index_last_update_timestamp, index_last_update_phyoffset };
    let mut body = BytesMut::new();
    for (_, _, record) in &found {
        if !body.is_empty() && body.len() + record.len() > MAX_BYTES {
            break;
        }
        body.extend_from_slice(record);
    }
    let command = Command::response(response::SUCCESS, 0).with_header(&header).with_body(body.freeze());
    AnswerBody::Command(Box::new(command))
}

fn with_time(record: IoSlice) -> Option<(i64, i64, IoSlice)> {
    let view = RecordView::decode(&record).ok()?;
    Some((view.store_timestamp, view.physical_offset, record.clone()))
}
