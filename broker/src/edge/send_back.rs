//! Messages that a consumer sends back (36): Java's checks in Java's order, and the message that is stored for it,
//! in the group's retry topic after a delay, or with its dead letters.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringmq_engine::{PhysicalOffset, QueueId, TopicHandle};
use ringmq_env::{Env, IoSlice};
use ringmq_protocol::body::{SubscriptionGroupConfig, perm};
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{FromExt, SendMsgBackHeader};
use ringmq_protocol::message_id::OffsetMessageId;
use ringmq_protocol::properties::{self, names as property};
use ringmq_protocol::record::{RecordView, sys_flag};
use ringmq_protocol::{names, version};
use smallvec::SmallVec;

use super::delay;
use super::*;
use crate::control::stats::PutsHandle;
use crate::delay::When;

/// Level of the first retry, when the consumer leaves it to the broker.
const FIRST_LEVEL: i32 = 3;
/// What is set anew in the properties of a message that comes back.
const REPLACED: [&str; 9] = [
    property::DELAY_TIME_LEVEL,
    property::WAIT_STORE_MSG_OK,
    property::REAL_TOPIC,
    property::REAL_QUEUE_ID,
    property::MSG_REGION,
    property::TRACE_SWITCH,
    property::CLUSTER,
    property::DUE,
    property::DEAD_BECAUSE,
];

/// A message that comes back, past the checks that need no other core.
struct SentBack {
    group: Arc<str>,
    config: Arc<SubscriptionGroupConfig>,
    offset: i64,
    delay_level: i32,
    unit_mode: bool,
    max_reconsume_times: i32,
}

/// What is asked, with texts of its own.
struct Asked {
    group: String,
    /// All the rest.
    header: SendMsgBackHeader<'static>,
    /// The client's version.
    client: i32,
}

/// Reads the request and starts a task that checks it, looks the message up and stores it.
pub fn dispatch<E: Env>(core: &Rc<Core<E>>, reply: ReplyTo, header: &Header<'_>) {
    let asked = match SendMsgBackHeader::from_ext(&header.ext) {
        Ok(asked) => Asked {
            group: asked.group.to_owned(),
            header: SendMsgBackHeader { group: "", origin_msg_id: None, origin_topic: None, ..asked },
            client: header.version,
        },
        Err(error) => return refuse(core, reply, bad_header(&error)),
    };
    let core = core.clone();
    core.env.clone().spawn(async move {
        match asked.message(&core).await {
            Ok(Some(send)) => {
                let shard = core.identity.routing.shard(&send.topic, send.queue_id);
                let bytes = send.frame.len();
                core.submit(shard, reply, bytes, ShardRequest::Send(send));
            }
            Ok(None) => core.deliver(Answer { to: reply, credit: None, body: AnswerBody::Success }),
            Err(refusal) => refuse(&core, reply, refusal),
        }
        core.flush();
    });
}

impl Asked {
    /// The message to store; none for a group that retries nothing.
    async fn message<E: Env>(&self, core: &Rc<Core<E>>) -> Result<Option<SendRequest>, Refusal> {
        let unknown = core.metadata.borrow().group(&self.group).is_none();
        if unknown {
            core.call(Call::CreateGroup(self.group.clone())).await;
        }
        let sent_back = self.check(core)?;
        match sent_back.config.retry_queue_nums {
            ..=0 => Ok(None),
            _ => sent_back.store(core).await.map(Some),
        }
    }

    fn check<E: Env>(&self, core: &Core<E>) -> Result<SentBack, Refusal> {
        let metadata = core.metadata.borrow();
        let (group, config) =
            metadata.group(&self.group).ok_or_else(|| remarks::no_group_to_send(&self.group))?;
        let broker = &core.identity.config;
        if broker.permission & perm::WRITE as u32 == 0 {
            return Err(remarks::broker_not_writable(broker.advertise));
        }
        let max = self.header.max_reconsume_times.filter(|_| self.client >= version::V3_4_9);
        Ok(SentBack {
            group: group.clone(),
            config: config.clone(),
            offset: self.header.offset,
            delay_level: self.header.delay_level,
            unit_mode: self.header.unit_mode.unwrap_or(false),
            max_reconsume_times: max.unwrap_or(config.retry_max_times),
        })
    }
}

impl SentBack {
    /// The message to store.
    async fn store<E: Env>(&self, core: &Rc<Core<E>>) -> Result<SendRequest, Refusal> {
        let retry_topic = names::retry_topic(&self.group);
        if !core.metadata.borrow().has_topic(&retry_topic) {
            self.make_topic(core, Returned::ForRetry { unit_mode: self.unit_mode }).await?;
        }
        self.check_writable(core, &retry_topic)?;
        let record = self.look_up(core).await?;
        let failed = || remarks::look_up_failed(self.offset);
        let view = RecordView::decode(&record).map_err(|_| failed())?;
        if view.sys_flag & sys_flag::INNER_BATCH != 0 {
            return Err(remarks::inner_batch_sent_back());
        }
        let is_dead = view.reconsume_times >= self.max_reconsume_times || self.delay_level < 0;
        let (topic, queues) = match is_dead {
            true => {
                self.make_topic(core, Returned::ForDeadLetters).await?;
                (names::dlq_topic(&self.group), 1)
            }
            false => (retry_topic, self.config.retry_queue_nums as u64),
        };
        let queue_id = QueueId((core.env.random() % queues) as u32);
        Ok(self.message(core, &view, &topic.into(), queue_id, is_dead))
    }

    /// Lets core 0 make sure of the group's topic.
    async fn make_topic<E: Env>(&self, core: &Rc<Core<E>>, sent: Returned) -> Result<(), Refusal> {
        match core.call(Call::RetryFate { group: self.group.to_string(), sent }).await {
            CallAnswer::Refused(refusal) => Err(refusal),
            _ => Ok(()),
        }
    }

    fn check_writable<E: Env>(&self, core: &Core<E>, topic: &str) -> Result<(), Refusal> {
        let metadata = core.metadata.borrow();
        let (_, config) = metadata.topic(topic).ok_or_else(|| remarks::no_retry_topic(topic))?;
        match config.perm & perm::WRITE {
            0 => Err(remarks::topic_not_writable(topic)),
            _ => Ok(()),
        }
    }

    async fn look_up<E: Env>(&self, core: &Rc<Core<E>>) -> Result<IoSlice, Refusal> {
        let failed = || remarks::look_up_failed(self.offset);
        let shards = core.identity.routing.shards;
        let offset = PhysicalOffset::from_wire(self.offset).filter(|offset| offset.shard().0 < shards);
        let offset = offset.ok_or_else(failed)?;
        match core.call(Call::Shard(offset.shard(), ShardCall::RecordAt(offset))).await {
            CallAnswer::Records(records) => records.into_iter().next().ok_or_else(failed),
            CallAnswer::Refused(refusal) => Err(refusal),
            _ => Err(failed()),
        }
    }

    fn message<E: Env>(
        &self,
        core: &Core<E>,
        view: &RecordView<'_>,
        topic: &Arc<str>,
        queue_id: QueueId,
        is_dead: bool,
    ) -> SendRequest {
        let level = match (is_dead, self.delay_level) {
            (true, _) => 0,
            (false, 0) => FIRST_LEVEL.saturating_add(view.reconsume_times),
            (false, level) => level,
        };
        let mut frame = view.body.to_vec();
        let body = Span { start: 0, end: frame.len() as u32 };
        keep_properties(&mut frame, view, is_dead);
        let properties = SmallVec::from_slice(&[Span { start: body.end, end: frame.len() as u32 }]);
        let mut added = added_properties(core, view, level);
        if is_dead {
            push_property(&mut added, property::DEAD_BECAUSE, &self.cause_of_death(view));
        }
        let when = self.when(core, level);
        let waits_in = delay::put_off(when, topic, queue_id, &mut added);
        SendRequest {
            known: TopicHandle::default(),
            counted: PutsHandle::default(),
            frame: Bytes::from(frame),
            topic: topic.clone(),
            sender: None,
            queue_id,
            waits_in,
            flag: view.flag,
            sys_flag: view.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6),
            born_timestamp: view.born_timestamp,
            born_host: view.born_host,
            reconsume_times: view.reconsume_times.saturating_add(1),
            body,
            properties,
            added,
            batch: false,
            inner: 0,
            uniq_key: UniqKey::new(),
            indexed: None,
            once: None,
            recall_handle: None,
            plain_answer: true,
        }
    }

    /// What Java's brokers keep to themselves, for whoever looks at the dead letter.
    fn cause_of_death(&self, view: &RecordView<'_>) -> String {
        match self.delay_level {
            ..0 => format!("given up by its consumer (delayLevel {})", self.delay_level),
            _ => format!("consumed {} times, the most is {}", view.reconsume_times, self.max_reconsume_times),
        }
    }

    fn when<E: Env>(&self, core: &Core<E>, level: i32) -> When {
        if level <= 0 {
            return When::Now;
        }
        let delay = &core.identity.config.delay;
        let level = delay.level(level);
        When::Level { level, due_ms: core.env.wall_ms() + delay.levels[level - 1] }
    }
}

/// Appends what stays of the properties, ending with a separator. Dead letters tell where they waited last.
fn keep_properties(frame: &mut Vec<u8>, view: &RecordView<'_>, is_dead: bool) {
    let start = frame.len();
    for (name, value) in properties::iter(view.properties) {
        let stays = is_dead && matches!(name, property::REAL_TOPIC | property::REAL_QUEUE_ID);
        if stays || !REPLACED.contains(&name) {
            push_property(frame, name, value);
        }
    }
    debug_assert!(frame.len() - start <= view.properties.len() + 1);
}

fn added_properties<E: Env>(core: &Core<E>, view: &RecordView<'_>, level: i32) -> Vec<u8> {
    let mut added = Vec::new();
    if properties::find(view.properties, property::RETRY_TOPIC).is_none() {
        push_property(&mut added, property::RETRY_TOPIC, view.topic);
    }
    if properties::find(view.properties, property::ORIGIN_MESSAGE_ID).is_none() {
        let (store_host, physical_offset) = (core.identity.store_host, view.physical_offset);
        let id = OffsetMessageId { store_host, physical_offset }.encode();
        push_property(&mut added, property::ORIGIN_MESSAGE_ID, &id);
    }
    push_property(&mut added, property::WAIT_STORE_MSG_OK, "false");
    push_property(&mut added, property::DELAY_TIME_LEVEL, &level.to_string());
    added
}
