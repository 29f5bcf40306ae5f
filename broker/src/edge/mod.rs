//! What the core that holds a connection does with a request: read it, check it as Java does and in Java's order,
//! and send it to whoever owns what it is about.

mod attributes;
mod delay;
mod look_ahead;
mod pull;
mod query;
mod queue;
mod recall;
mod reply;
mod send;
mod send_back;
mod transaction;

pub use look_ahead::look_ahead;
pub use send::push_property;

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ringmq_env::Env;
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Frame, FrameError};
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::ExtError;

use crate::connection::{Connection, MAX_PULLS};
use crate::control::Refusal;
use crate::core::Core;
use crate::message::*;
use crate::remarks;

/// Whether the connection may go on to its next request.
pub enum Step {
    /// The request is on its way, or answered.
    Done,
    /// It needs something of core 0 first; the requests behind it wait, so that none overtakes it.
    Wait(Box<Waiting>),
}

/// A request that waits for core 0.
pub enum Waiting {
    /// A send to a topic that may be created.
    Topic(send::Draft),
    /// A send to a retry topic, whose message may belong to the dead letters.
    Fate(send::Draft),
    /// A pull of a group that may be created.
    Group(pull::Draft),
}

impl Waiting {
    /// Asks core 0, and goes on with the request.
    pub async fn finish<E: Env>(self, core: &Rc<Core<E>>, connection: &Rc<Connection>) {
        let mut waiting = self;
        loop {
            let step = match waiting {
                Waiting::Topic(draft) => {
                    let answer = core.call(draft.wanted_topic()).await;
                    draft.resume(core, connection, answer)
                }
                Waiting::Fate(draft) => {
                    let answer = core.call(draft.wanted_fate(core)).await;
                    draft.resume(core, connection, answer)
                }
                Waiting::Group(draft) => {
                    core.call(Call::CreateGroup(draft.group().to_owned())).await;
                    return draft.resume(core, connection);
                }
            };
            // A send is asked for twice at most: for its topic, and for its fate.
            match step {
                Step::Done => return,
                Step::Wait(next) => waiting = *next,
            }
        }
    }
}

/// Hands on one whole frame.
pub fn dispatch<E: Env>(
    core: &Rc<Core<E>>,
    connection: &Rc<Connection>,
    mut frame: BytesMut,
) -> Result<Step, FrameError> {
    let base = frame.as_ptr() as usize;
    let mut forms = core.forms.borrow_mut();
    let parsed = Frame::parse_like(&mut frame, core.limits(), &mut forms)?;
    let header = &parsed.header;
    if header.is_response() {
        if connection.invocation_answered(header.opaque) {
            core.invoked(header.opaque, to_command(&parsed));
        }
        return Ok(Step::Done);
    }
    match header.code {
        request::SEND_MESSAGE
        | request::SEND_MESSAGE_V2
        | request::SEND_BATCH_MESSAGE
        | request::SEND_REPLY_MESSAGE
        | request::SEND_REPLY_MESSAGE_V2 => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            match send::Fields::read(&parsed, base, reply) {
                Ok(fields) => return Ok(send::Draft::new(fields, frame.freeze()).submit(core, connection)),
                Err(error) => refuse(core, reply, bad_header(&error)),
            }
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
            return Ok(pull::begin(core, connection, header));
        }
        request::QUERY_CONSUMER_OFFSET
        | request::UPDATE_CONSUMER_OFFSET
        | request::SEARCH_OFFSET_BY_TIMESTAMP
        | request::GET_MAX_OFFSET
        | request::GET_MIN_OFFSET
        | request::GET_EARLIEST_MSG_STORETIME
        | request::VIEW_MESSAGE_BY_ID => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            queue::dispatch(core, reply, header);
        }
        request::END_TRANSACTION => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            transaction::end(core, connection, reply, header);
        }
        request::CONSUMER_SEND_MSG_BACK => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            send_back::dispatch(core, reply, header);
        }
        request::RECALL_MESSAGE => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            recall::dispatch(core, connection, reply, header);
        }
        request::QUERY_MESSAGE => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            query::dispatch(core, reply, header);
        }
        _ => {
            let reply = begin(core, connection, header, ReplyKind::Counted);
            let command = to_command(&parsed);
            connection.known_to_control.set(true);
            core.submit_control(ControlRequest { reply, address: connection.address, command });
        }
    }
    Ok(Step::Done)
}

/// A request begins: what its answer will need. A oneway request is of kind oneway whatever it is.
fn begin<E: Env>(core: &Core<E>, connection: &Connection, header: &Header<'_>, kind: ReplyKind) -> ReplyTo {
    let kind = if header.is_oneway() { ReplyKind::Oneway } else { kind };
    connection.begin(kind);
    let peer = Peer { core: core.id, connection: connection.id };
    ReplyTo { peer, opaque: header.opaque, kind }
}

fn refuse<E: Env>(core: &Core<E>, to: ReplyTo, refusal: Refusal) {
    core.deliver(Answer { to, credit: None, body: AnswerBody::Refused(refusal) });
}

/// A request whose own header cannot be read.
fn bad_header(error: &ExtError) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, error.to_string())
}

fn to_command(frame: &Frame<'_>) -> Command {
    let header = &frame.header;
    Command {
        code: header.code,
        language: header.language,
        version: header.version,
        opaque: header.opaque,
        flag: header.flag,
        remark: header.remark.map(str::to_owned),
        ext: header.ext.iter().map(|(name, value)| (name.to_owned().into(), value.to_owned())).collect(),
        body: Bytes::copy_from_slice(frame.body),
    }
}

/// Where `part` lies in the frame that starts at the address `base`.
fn span_of(base: usize, part: &str) -> Span {
    let start = part.as_ptr() as usize - base;
    Span { start: start as u32, end: (start + part.len()) as u32 }
}
