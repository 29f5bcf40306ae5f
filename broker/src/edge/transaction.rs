//! The end of a transaction (37): to the shard that keeps the half message.

use std::rc::Rc;

use ringmq_engine::PhysicalOffset;
use ringmq_env::Env;
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{EndTransactionHeader, FromExt};

use super::*;
use crate::transaction::{EndTransaction, NotEnded, Verdict};

/// Hands the request to the shard. One without a verdict is not answered and changes nothing, as with Java.
pub fn end<E: Env>(core: &Rc<Core<E>>, connection: &Connection, reply: ReplyTo, header: &Header<'_>) {
    let wanted = match EndTransactionHeader::from_ext(&header.ext) {
        Ok(wanted) => wanted,
        Err(error) => return refuse(core, reply, bad_header(&error)),
    };
    let Some(verdict) = Verdict::of(wanted.commit_or_rollback) else {
        return connection.unanswered(reply.kind);
    };
    let half = PhysicalOffset::from_wire(wanted.commit_log_offset);
    let Some(half) = half.filter(|half| half.shard().0 < core.identity.routing.shards) else {
        return refuse(core, reply, remarks::not_ended(NotEnded::NotFound));
    };
    let end = EndTransaction {
        half,
        state_offset: wanted.tran_state_table_offset,
        producer_group: wanted.producer_group.to_owned(),
        verdict,
        from_check: wanted.from_transaction_check,
    };
    core.submit(
        half.shard(),
        reply,
        wanted.producer_group.len(),
        ShardRequest::EndTransaction(Box::new(end)),
    );
}
