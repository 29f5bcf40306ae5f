//! Replies to requests (324, 325): checked like a send, handed to the producer that waits (326), and stored.

use ringmq_env::Env;
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::ReplyMessageHeader;
use ringmq_protocol::properties::{self, names as property};

use super::*;

/// A reply that passed the checks.
pub struct Reply {
    /// What is stored of it.
    pub send: SendRequest,
    /// Who waits for it, by its client id.
    pub to_client: Option<String>,
    /// What that one is told (326), but for the opaque.
    pub push: Command,
}

impl Reply {
    /// A reply whose header is `header`, with what is to be stored of it. Now is `now_ms`.
    pub fn new(send: SendRequest, header: ReplyMessageHeader<'_>, now_ms: i64) -> Reply {
        let text = header.properties.unwrap_or_default();
        let mut pushed: String = properties::without(text, &[property::PUSH_REPLY_TIME]).concat();
        properties::push(&mut pushed, property::PUSH_REPLY_TIME, &now_ms.to_string());
        let header = ReplyMessageHeader { properties: Some(&pushed), store_timestamp: now_ms, ..header };
        let body = send.frame.slice(send.body.range());
        Reply {
            to_client: properties::find(text, property::REPLY_TO_CLIENT).map(str::to_owned),
            push: Command::request(request::PUSH_REPLY_MESSAGE_TO_CLIENT, 0)
                .with_header(&header)
                .with_body(body),
            send,
        }
    }

    /// Hands the reply on and stores it, in a task of its own; the answer says whether it was handed on. As with Java,
    /// it is stored either way.
    pub fn deliver<E: Env>(self, core: &Rc<Core<E>>, reply: ReplyTo) {
        let core = core.clone();
        core.env.clone().spawn(async move {
            let Reply { send, to_client, push } = self;
            let pushed = match to_client {
                Some(client_id) => core.call(Call::PushReply(client_id, Box::new(push))).await,
                None => CallAnswer::Refused(remarks::reply_to_nobody()),
            };
            store(&core, reply, send, pushed);
            core.flush();
        });
    }
}

fn store<E: Env>(core: &Rc<Core<E>>, reply: ReplyTo, send: SendRequest, pushed: CallAnswer) {
    let stores = core.identity.config.store_reply;
    let queue_id = send.queue_id;
    let to = match pushed {
        CallAnswer::Refused(refusal) => {
            refuse(core, reply, refusal);
            ReplyTo { kind: ReplyKind::Oneway, ..reply }
        }
        _ if stores => reply,
        _ => {
            let body = AnswerBody::Replied(queue_id);
            return core.deliver(Answer { to: reply, credit: None, body });
        }
    };
    if stores {
        let shard = core.identity.routing.shard(&send.topic, send.queue_id);
        let bytes = send.frame.len();
        core.submit(shard, to, bytes, ShardRequest::Send(send));
    }
}
