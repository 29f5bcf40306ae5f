//! Committed offsets (14, 15) and questions about one queue or one message (29 to 33).

use std::rc::Rc;
use std::sync::Arc;

use ringmq_engine::{Boundary, PhysicalOffset, QueueId, QueueOffset};
use ringmq_env::Env;
use ringmq_protocol::codes::request;
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{
    BoundaryType, FromExt, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    UpdateConsumerOffsetHeader, ViewMessageHeader,
};

use super::*;

/// Hands the request to the shard that owns what it is about.
pub fn dispatch<E: Env>(core: &Rc<Core<E>>, reply: ReplyTo, header: &Header<'_>) {
    let asked = match header.code {
        request::QUERY_CONSUMER_OFFSET => committed_offset(core, header),
        request::UPDATE_CONSUMER_OFFSET => commit_offset(core, header),
        request::SEARCH_OFFSET_BY_TIMESTAMP => offset_by_time(header),
        request::VIEW_MESSAGE_BY_ID => return message_at(core, reply, header),
        code => one_queue(code, header),
    };
    match asked {
        Ok((queue, request)) => {
            let shard = core.identity.routing.shard(&queue.topic, queue.queue_id);
            core.submit(shard, reply, queue.topic.len(), request);
        }
        Err(refusal) => refuse(core, reply, refusal),
    }
}

type Asked = Result<(QueueRef, ShardRequest), Refusal>;

fn queue_ref(topic: Arc<str>, queue_id: i32) -> Result<QueueRef, Refusal> {
    let queue_id =
        u32::try_from(queue_id).map_err(|_| Refusal::invalid(format!("queueId[{queue_id}] is illegal")))?;
    Ok(QueueRef { topic, queue_id: QueueId(queue_id) })
}

fn committed_offset<E: Env>(core: &Core<E>, header: &Header<'_>) -> Asked {
    let wanted = QueryConsumerOffsetHeader::from_ext(&header.ext).map_err(|error| bad_header(&error))?;
    let set_zero = wanted.set_zero_if_not_found.unwrap_or(true);
    let metadata = core.metadata.borrow();
    let known = metadata.topic(wanted.topic).zip(metadata.group(wanted.consumer_group));
    let (topic, group) = match known {
        Some(((topic, _), (group, _))) => (topic, group.clone()),
        None if !metadata.has_topic(wanted.topic) => return Err(remarks::offset_not_found(set_zero)),
        None => (wanted.topic.into(), wanted.consumer_group.into()),
    };
    let queue = queue_ref(topic, wanted.queue_id)?;
    Ok((queue.clone(), ShardRequest::CommittedOffset(group, queue, set_zero)))
}

fn commit_offset<E: Env>(core: &Core<E>, header: &Header<'_>) -> Asked {
    let commit = UpdateConsumerOffsetHeader::from_ext(&header.ext).map_err(|error| bad_header(&error))?;
    let metadata = core.metadata.borrow();
    let (group, _) = metadata
        .group(commit.consumer_group)
        .ok_or_else(|| remarks::no_group_for_offset(commit.consumer_group))?;
    let (topic, _) =
        metadata.topic(commit.topic).ok_or_else(|| remarks::no_topic_for_offset(commit.topic))?;
    let queue = queue_ref(topic, commit.queue_id)?;
    Ok((queue.clone(), ShardRequest::CommitOffset(group.clone(), queue, QueueOffset(commit.commit_offset))))
}

fn offset_by_time(header: &Header<'_>) -> Asked {
    let wanted = SearchOffsetHeader::from_ext(&header.ext).map_err(|error| bad_header(&error))?;
    let queue = queue_ref(wanted.topic.into(), wanted.queue_id)?;
    let boundary = match wanted.boundary_type {
        BoundaryType::Lower => Boundary::Lower,
        BoundaryType::Upper => Boundary::Upper,
    };
    Ok((queue.clone(), ShardRequest::OffsetByTime(queue, wanted.timestamp, boundary)))
}

fn one_queue(code: i32, header: &Header<'_>) -> Asked {
    let wanted = QueueHeader::from_ext(&header.ext).map_err(|error| bad_header(&error))?;
    let queue = queue_ref(wanted.topic.into(), wanted.queue_id)?;
    let request = match code {
        request::GET_MAX_OFFSET => ShardRequest::MaxOffset(queue.clone()),
        request::GET_MIN_OFFSET => ShardRequest::MinOffset(queue.clone()),
        request::GET_EARLIEST_MSG_STORETIME => ShardRequest::EarliestStoreTime(queue.clone()),
        _ => return Err(crate::compat::not_supported(code)),
    };
    Ok((queue, request))
}

fn message_at<E: Env>(core: &Rc<Core<E>>, reply: ReplyTo, header: &Header<'_>) {
    let wanted = match ViewMessageHeader::from_ext(&header.ext) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(core, reply, bad_header(&error)),
    };
    let offset = PhysicalOffset::from_wire(wanted.offset);
    match offset.filter(|offset| offset.shard().0 < core.identity.routing.shards) {
        Some(offset) => core.submit(offset.shard(), reply, 0, ShardRequest::MessageAt(offset)),
        None => refuse(core, reply, remarks::no_message_at(wanted.offset)),
    }
}
