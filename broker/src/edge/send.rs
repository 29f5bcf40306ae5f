//! Sends (10, 310, 320): Java's checks in Java's order, the choice of the queue, and what the broker does to
//! the properties.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringmq_engine::{QueueId, TopicHandle};
use ringmq_env::Env;
use ringmq_protocol::batch::Batch;
use ringmq_protocol::body::{TopicConfig, TopicFilterType, perm};
use ringmq_protocol::codes::request;
use ringmq_protocol::frame::Frame;
use ringmq_protocol::headers::{ExtError, ReplyMessageHeader, SendHeader};
use ringmq_protocol::names;
use ringmq_protocol::properties::{self, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, names as property};
use ringmq_protocol::record::sys_flag;
use ringmq_protocol::text;
use ringmq_protocol::version;
use smallvec::SmallVec;

use super::delay::{self, Wish};
use super::recall;
use super::reply::Reply;
use super::*;
use crate::config::BrokerConfig as Config;
use crate::control::stats::PutsHandle;
use crate::control::{KnownTopic, MetadataCopy};
use crate::delay::When;
use crate::shard_service::MAX_BATCH;
use crate::transaction::{self, HalfTimes};

/// Longest topic name of a batch.
const MAX_BATCH_TOPIC: usize = 127;
/// Bits of a producer's sysFlag that the broker sets itself.
const BROKERS_FLAGS: i32 = sys_flag::TRANSACTION_TYPE | sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6;
/// Flags of a batch that is stored as one.
const INNER: i32 = sys_flag::INNER_BATCH | sys_flag::NEED_UNWRAP;
/// Properties that the broker sets or removes itself, whatever the producer says.
const BROKERS_PROPERTIES: [&str; 6] = [
    property::POP_CK,
    property::MSG_REGION,
    property::TRACE_SWITCH,
    property::CLUSTER,
    property::DUE,
    property::INNER_MULTI_QUEUE_OFFSET,
];

/// The same, and the priority of a message that has none.
const DROPPED: [&str; 7] = [
    property::POP_CK,
    property::MSG_REGION,
    property::TRACE_SWITCH,
    property::CLUSTER,
    property::DUE,
    property::INNER_MULTI_QUEUE_OFFSET,
    property::PRIORITY,
];

/// What the header of a send says, with its texts as places in the frame.
#[derive(Clone, Copy)]
pub struct Fields {
    reply: ReplyTo,
    code: i32,
    producer_group: Span,
    topic: Span,
    default_topic: Option<Span>,
    default_queues: i32,
    queue_id: i32,
    sys_flag: i32,
    born_timestamp: i64,
    flag: i32,
    properties: Span,
    reconsume_times: i32,
    /// Most times that the group may consume it, if the client says.
    max_reconsume_times: Option<i32>,
    unit_mode: bool,
    body: Span,
    /// The body holds several messages.
    is_batch: bool,
}

impl Fields {
    /// Reads the header of a send in the frame that starts at the address `base`.
    pub fn read(frame: &Frame<'_>, base: usize, reply: ReplyTo) -> Result<Fields, ExtError> {
        let header = SendHeader::for_code(frame.header.code, &frame.header.ext)?;
        // What stands for a missing one is not in the frame.
        let given = (base..=base + frame.body_at).contains(&(header.default_topic.as_ptr() as usize));
        Ok(Fields {
            reply,
            code: frame.header.code,
            producer_group: span_of(base, header.producer_group),
            topic: span_of(base, header.topic),
            default_topic: given.then(|| span_of(base, header.default_topic)),
            default_queues: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: header.properties.map_or(Span::default(), |text| span_of(base, text)),
            reconsume_times: header.reconsume_times.unwrap_or(0),
            max_reconsume_times: header
                .max_reconsume_times
                .filter(|_| frame.header.version >= version::V3_4_9),
            unit_mode: header.unit_mode.unwrap_or(false),
            body: Span { start: frame.body_at as u32, end: (frame.body_at + frame.body.len()) as u32 },
            is_batch: frame.header.code == request::SEND_BATCH_MESSAGE || header.batch == Some(true),
        })
    }

    fn is_batch(&self) -> bool {
        self.is_batch
    }

    fn is_reply(&self) -> bool {
        matches!(self.code, request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2)
    }
}

/// A send on its way through the checks.
pub struct Draft {
    fields: Fields,
    frame: Bytes,
    /// Core 0 was asked for the topic already.
    asked: bool,
    /// Of a send to a retry topic, once core 0 was asked: it goes to the dead letters.
    is_dead: Option<bool>,
}

/// What a topic lookup gives: the send goes on, waits, or is refused.
enum Topic<'a> {
    Found(KnownTopic<'a>),
    Wanted,
    Refused(Refusal),
}

impl Draft {
    /// A send that was just received.
    pub fn new(fields: Fields, frame: Bytes) -> Draft {
        Draft { fields, frame, asked: false, is_dead: None }
    }

    fn text(&self, span: Span) -> &str {
        text::utf8(&self.frame[span.range()]).expect("the header's texts were read as UTF-8")
    }

    fn topic(&self) -> &str {
        self.text(self.fields.topic)
    }

    fn default_topic(&self) -> &str {
        self.fields.default_topic.map_or(names::topics::AUTO_CREATE_TOPIC_KEY_TOPIC, |span| self.text(span))
    }

    /// Checks the send and hands it to the shard that owns its queue; or refuses it; or wants its topic created.
    pub fn submit<E: Env>(mut self, core: &Rc<Core<E>>, connection: &Connection) -> Step {
        let metadata = core.metadata.borrow();
        let KnownTopic { name, config, place } = match self.find_topic(core, &metadata) {
            Topic::Found(known) => known,
            Topic::Wanted => return Step::Wait(Box::new(Waiting::Topic(self))),
            Topic::Refused(refusal) => {
                refuse(core, self.fields.reply, refusal);
                return Step::Done;
            }
        };
        if self.is_dead.is_none() && !self.fields.is_batch() && names::is_retry_topic(&name) {
            return Step::Wait(Box::new(Waiting::Fate(self)));
        }
        let (reply, bytes, is_dead) = (self.fields.reply, self.frame.len(), self.is_dead);
        let replying = self.fields.is_reply().then(|| (self.fields, self.frame.clone()));
        let mut send = match self.place(core, connection, name, config) {
            Ok(send) => send,
            Err(refusal) => {
                drop(metadata);
                refuse(core, reply, refusal);
                return Step::Done;
            }
        };
        // A reply goes to who waits for it, too.
        if let Some((fields, frame)) = replying {
            drop(metadata);
            reply_of(core, connection, &fields, &frame, send).deliver(core, reply);
            return Step::Done;
        }
        let shard = core.identity.routing.shard(&send.topic, send.queue_id);
        if let (Some(place), None, None | Some(false)) = (place, send.waits_in, is_dead) {
            let place = core.topic_in(shard, &send.topic, place);
            (send.known, send.counted) = (place.handle, place.counted);
        }
        drop(metadata);
        core.submit_send(shard, reply, bytes, send);
        Step::Done
    }

    /// Goes on after core 0 was asked for the topic, or for the fate of a message that was consumed before.
    pub fn resume<E: Env>(mut self, core: &Rc<Core<E>>, connection: &Connection, answer: CallAnswer) -> Step {
        match answer {
            CallAnswer::Refused(refusal) => {
                refuse(core, self.fields.reply, refusal);
                return Step::Done;
            }
            CallAnswer::Fate { is_dead } => self.is_dead = Some(is_dead),
            _ => self.asked = true,
        }
        self.submit(core, connection)
    }

    /// What to ask core 0 for before a message is sent to its group's retry topic.
    pub fn wanted_fate<E: Env>(&self, core: &Core<E>) -> Call {
        let group = self.topic().strip_prefix(names::RETRY_PREFIX).unwrap_or_default();
        let metadata = core.metadata.borrow();
        let config = metadata.group(group).map(|(_, config)| config.retry_max_times);
        let max = self.fields.max_reconsume_times.or(config);
        let is_exhausted = max.is_some_and(|max| self.fields.reconsume_times > max);
        Call::RetryFate { group: group.to_owned(), sent: Returned::BySend { is_exhausted } }
    }

    /// What to ask core 0 for.
    pub fn wanted_topic(&self) -> Call {
        Call::CreateTopic {
            topic: self.topic().to_owned(),
            default_topic: self.default_topic().to_owned(),
            queue_nums: self.fields.default_queues,
            unit_mode: self.fields.unit_mode,
        }
    }

    /// The checks of Java's msgCheck up to the topic.
    fn find_topic<'a, E: Env>(&self, core: &Core<E>, metadata: &'a MetadataCopy) -> Topic<'a> {
        let topic = self.topic();
        let found = metadata.known_topic(topic);
        let config = &core.identity.config;
        if config.permission & perm::WRITE as u32 == 0
            && found.as_ref().is_some_and(|known| known.config.order)
        {
            return Topic::Refused(remarks::broker_not_writable(config.advertise));
        }
        if let Some(known) = found {
            if names::is_not_for_clients(topic) {
                return Topic::Refused(remarks::topic_forbidden(topic));
            }
            return Topic::Found(known);
        }
        if let Err(error) = names::validate_topic(topic) {
            return Topic::Refused(Refusal::invalid(error.to_string()));
        }
        if names::is_not_for_clients(topic) {
            return Topic::Refused(remarks::topic_forbidden(topic));
        }
        let inherited = || {
            metadata.topic(self.default_topic()).is_some_and(|(_, default)| default.perm & perm::INHERIT != 0)
        };
        if !self.asked && (inherited() || names::is_retry_topic(topic)) {
            return Topic::Wanted;
        }
        Topic::Refused(remarks::no_topic_to_send(topic))
    }

    /// The checks that need the topic, and the choice of the queue. What passes takes the frame.
    fn place<E: Env>(
        &mut self,
        core: &Core<E>,
        connection: &Connection,
        topic: Arc<str>,
        config: &TopicConfig,
    ) -> Result<SendRequest, Refusal> {
        let mut queue_id = self.queue(core, connection, config)?;
        self.check_message(core, &topic)?;
        let is_dead = self.is_dead == Some(true);
        let topic = match topic.strip_prefix(names::RETRY_PREFIX).filter(|_| is_dead) {
            Some(group) => {
                queue_id = QueueId(0);
                names::dlq_topic(group).into()
            }
            None => topic,
        };
        let text = self.text(self.fields.properties);
        let seen = Seen::of(text);
        let once = self.check_attributes(core, config, &seen)?;
        let inner = self.inner_batch(core, config, &seen)?;
        if let Some(once) = &once {
            queue_id = QueueId(attributes::queue_of(once, config.write_queue_nums));
        } else if let Some(priority) = seen.priority {
            queue_id = QueueId(priority.min(config.write_queue_nums.max(1) as u32 - 1));
        }
        if seen.dispatched && self.may_dispatch(core, &topic) {
            let queues = config.write_queue_nums.max(0) as u32;
            let queue = core.identity.routing.dispatching_queue(&topic, queues, queue_id);
            queue_id = queue.ok_or_else(|| remarks::no_queue_to_dispatch(&topic, queues))?;
            if once.is_some() && core.identity.routing.shards > 1 {
                return Err(remarks::bad_dedupe_key(
                    "its message is for light message queues, and the store has several shards",
                ));
            }
        }
        let base = self.frame.as_ptr() as usize;
        let kept: SmallVec<[Span; 2]> = match seen.overridden {
            false if text.is_empty() => SmallVec::new(),
            false => SmallVec::from_slice(&[self.fields.properties]),
            true => {
                properties::without(text, seen.dropped()).iter().map(|part| span_of(base, part)).collect()
            }
        };
        let is_half = seen.transaction && !self.fields.is_batch() && self.fields.reconsume_times == 0;
        let config_of_delay = &core.identity.config.delay;
        let when = match is_dead || is_half || seen.wish.is_none() {
            true => When::Now,
            false => delay::when(&seen.wish, config_of_delay, core.env.wall_ms(), self.fields.is_batch())?,
        };
        let mut added = Vec::new();
        if kept.last().is_some_and(|span| self.frame[span.end as usize - 1] != PROPERTY_SEPARATOR) {
            added.push(PROPERTY_SEPARATOR);
        }
        let mut uniq_key = UniqKey::from_slice(seen.uniq_key.unwrap_or_default().as_bytes());
        if uniq_key.is_empty() && !self.fields.is_batch() {
            let id = core.unique_keys.borrow_mut().next(core.env.wall_ms());
            uniq_key.extend_from_slice(id.as_bytes());
            push_property(&mut added, property::UNIQ_KEY, &id);
        }
        if inner > 0 {
            push_property(&mut added, property::INNER_NUM, &inner.to_string());
        }
        let waits_in = match is_half {
            true => Some(self.half(core, &topic, queue_id, &uniq_key, &seen, &mut added)?),
            false => delay::put_off(when, &topic, queue_id, &mut added),
        };
        if is_dead {
            // As Java: no delay, and a level that says so.
            push_property(&mut added, property::DELAY_TIME_LEVEL, "-1");
        }
        let indexed = Some(seen.indexed(base));
        let recall_handle = recall::handle(core, when, &topic, &uniq_key);
        let fields = self.fields;
        let multi_tags =
            if config.topic_filter_type == TopicFilterType::MultiTag { sys_flag::MULTI_TAGS } else { 0 };
        let sender = core.quotas.borrow().sender(self.text(fields.producer_group));
        Ok(SendRequest {
            topic,
            known: TopicHandle::default(),
            counted: PutsHandle::default(),
            sender,
            queue_id,
            waits_in,
            flag: fields.flag,
            sys_flag: (fields.sys_flag & !BROKERS_FLAGS) | multi_tags | if inner > 0 { INNER } else { 0 },
            born_timestamp: fields.born_timestamp,
            born_host: connection.address,
            reconsume_times: fields.reconsume_times,
            body: fields.body,
            properties: kept,
            added,
            batch: fields.is_batch() && inner == 0,
            inner,
            uniq_key,
            indexed,
            once,
            recall_handle,
            plain_answer: false,
            frame: std::mem::take(&mut self.frame),
        })
    }

    /// Whether a message to the topic is readable from the LMQs that it names, too.
    fn may_dispatch<E: Env>(&self, core: &Core<E>, topic: &str) -> bool {
        let is_again = names::is_retry_topic(topic) || names::is_dlq_topic(topic);
        core.identity.config.lmq_limit.is_some() && !self.fields.is_batch() && !is_again
    }

    /// What the topic's attributes ask for; nothing for most topics, which have none.
    fn check_attributes<E: Env>(
        &self,
        core: &Core<E>,
        config: &TopicConfig,
        seen: &Seen<'_>,
    ) -> Result<Option<Box<Once>>, Refusal> {
        if config.attributes.is_empty() {
            return Ok(None);
        }
        let text = self.text(self.fields.properties);
        if core.identity.config.message_type_check && !self.fields.is_batch() {
            attributes::check_type(config, text)?;
        }
        if self.fields.is_batch() {
            attributes::check_batch(config, &self.frame[self.fields.body.range()])?;
            return Ok(None);
        }
        seen.dedupe_key.map_or(Ok(None), |key| attributes::once(config, key, text))
    }

    /// How many messages a batch has that is stored as one: in a BatchCQ topic one with an id of its own is. 0: it is none.
    fn inner_batch<E: Env>(
        &self,
        core: &Core<E>,
        config: &TopicConfig,
        seen: &Seen<'_>,
    ) -> Result<u32, Refusal> {
        let illegal = || remarks::message_illegal(core.identity.config.max_message_size);
        if seen.inner_num {
            return Err(illegal());
        }
        if !self.fields.is_batch() || seen.uniq_key.is_none() || !attributes::is_batch_cq(config) {
            return Ok(0);
        }
        let mut count = 0;
        for message in Batch::new(&self.frame[self.fields.body.range()], MAX_BATCH).map_err(|_| illegal())? {
            if message.map_err(|_| illegal())?.body.is_empty() {
                return Err(illegal());
            }
            count += 1;
        }
        Ok(count)
    }

    /// A half message: what it says while it waits for the outcome, and where.
    fn half<E: Env>(
        &self,
        core: &Core<E>,
        topic: &Arc<str>,
        queue_id: QueueId,
        uniq_key: &UniqKey,
        seen: &Seen<'_>,
        added: &mut Vec<u8>,
    ) -> Result<WaitsIn, Refusal> {
        let Config { transactions, advertise, max_message_size, .. } = &*core.identity.config;
        if transactions.reject {
            return Err(remarks::transactions_rejected(*advertise));
        }
        if self.fields.properties.len() > properties::MAX_LEN - transaction::ADDED - topic.len() {
            return Err(remarks::message_illegal(*max_message_size));
        }
        let times = HalfTimes { now_ms: core.env.wall_ms(), born_ms: self.fields.born_timestamp };
        let due_ms = transactions.first_check_ms(times, seen.immunity);
        let uniq_key = std::str::from_utf8(uniq_key).unwrap_or_default();
        push_property(added, transaction::TRANSACTION_ID, uniq_key);
        push_property(added, property::REAL_TOPIC, topic);
        push_property(added, property::REAL_QUEUE_ID, &queue_id.0.to_string());
        push_property(added, property::DUE, &due_ms.to_string());
        let routing = core.identity.routing;
        let half = names::topics::TRANS_HALF_TOPIC;
        Ok(WaitsIn { topic: half, queue_id: routing.queue_on(half, routing.shard(topic, queue_id)) })
    }

    fn queue<E: Env>(
        &self,
        core: &Core<E>,
        connection: &Connection,
        config: &TopicConfig,
    ) -> Result<QueueId, Refusal> {
        let queues = config.write_queue_nums.max(config.read_queue_nums);
        match u32::try_from(self.fields.queue_id) {
            Err(_) if config.write_queue_nums > 0 => {
                Ok(QueueId((core.env.random() % config.write_queue_nums as u64) as u32))
            }
            Ok(queue_id) if self.fields.queue_id < queues => Ok(QueueId(queue_id)),
            _ => Err(remarks::illegal_send_queue(self.fields.queue_id, config, connection.address)),
        }
    }

    /// The checks of the message itself.
    fn check_message<E: Env>(&self, core: &Core<E>, topic: &str) -> Result<(), Refusal> {
        let max = core.identity.config.max_message_size;
        if self.fields.is_batch() {
            if topic.len() > MAX_BATCH_TOPIC {
                return Err(remarks::batch_topic_too_long(topic.len()));
            }
            if names::is_retry_topic(topic) {
                return Err(remarks::batch_to_retry(topic));
            }
        } else if let Some(group) = topic.strip_prefix(names::RETRY_PREFIX)
            && core.metadata.borrow().group(group).is_none()
        {
            return Err(remarks::no_group_to_send(group));
        }
        let refused = match self.fields.is_batch() {
            true => sys_flag::INNER_BATCH | sys_flag::TRANSACTION_TYPE,
            false => sys_flag::INNER_BATCH,
        };
        let flagged = self.fields.sys_flag & refused != 0;
        let body = self.fields.body.len();
        if body == 0 || body > max || flagged || self.fields.properties.len() > properties::MAX_LEN {
            return Err(remarks::message_illegal(max));
        }
        Ok(())
    }
}

fn reply_of<E: Env>(
    core: &Core<E>,
    connection: &Connection,
    fields: &Fields,
    frame: &Bytes,
    send: SendRequest,
) -> Reply {
    let text = |span: Span| std::str::from_utf8(&frame[span.range()]).unwrap_or_default();
    let default_topic = fields.default_topic.map_or(names::topics::AUTO_CREATE_TOPIC_KEY_TOPIC, text);
    let header = ReplyMessageHeader {
        producer_group: text(fields.producer_group),
        topic: text(fields.topic),
        default_topic,
        default_topic_queue_nums: fields.default_queues,
        queue_id: fields.queue_id,
        sys_flag: fields.sys_flag,
        born_timestamp: fields.born_timestamp,
        flag: fields.flag,
        properties: Some(text(fields.properties)),
        reconsume_times: Some(fields.reconsume_times),
        unit_mode: Some(fields.unit_mode),
        born_host: &connection.address.to_string(),
        store_host: &core.identity.store_host.to_string(),
        store_timestamp: 0,
    };
    Reply::new(send, header, core.env.wall_ms())
}

/// What matters among a message's properties.
#[derive(Default)]
struct Seen<'a> {
    tags: Option<&'a str>,
    keys: Option<&'a str>,
    uniq_key: Option<&'a str>,
    dedupe_key: Option<&'a str>,
    /// A message's priority, if that is what it has.
    priority: Option<u32>,
    /// There are some that the broker sets itself.
    overridden: bool,
    /// TRAN_MSG.
    transaction: bool,
    /// INNER_NUM.
    inner_num: bool,
    /// INNER_MULTI_DISPATCH.
    dispatched: bool,
    /// CHECK_IMMUNITY_TIME_IN_SECONDS.
    immunity: Option<&'a str>,
    wish: Wish<'a>,
}

impl<'a> Seen<'a> {
    /// Goes through the properties once.
    fn of(text: &'a str) -> Seen<'a> {
        let mut seen = Seen::default();
        for (name, value) in properties::iter(text) {
            match name {
                property::TAGS => seen.tags = Some(value),
                property::KEYS => seen.keys = Some(value),
                property::UNIQ_KEY => seen.uniq_key = Some(value),
                property::DEDUPE_KEY => seen.dedupe_key = Some(value),
                property::PRIORITY if attributes::message_type(text) == "PRIORITY" => {
                    // What is no number of at least 0 is no priority.
                    seen.priority = value.parse::<i32>().ok().and_then(|value| value.try_into().ok());
                }
                property::PRIORITY => seen.overridden = true,
                property::POP_CK
                | property::MSG_REGION
                | property::TRACE_SWITCH
                | property::CLUSTER
                | property::DUE
                | property::INNER_MULTI_QUEUE_OFFSET => {
                    seen.overridden = true;
                }
                property::INNER_NUM => seen.inner_num = true,
                property::INNER_MULTI_DISPATCH => seen.dispatched = true,
                property::TRANSACTION_PREPARED => seen.transaction = value.eq_ignore_ascii_case("true"),
                property::CHECK_IMMUNITY_TIME => seen.immunity = Some(value),
                _ => {
                    seen.wish.note(name, value);
                }
            }
        }
        seen
    }

    /// Where what is indexed stands in the frame that starts at the address `base`.
    fn indexed(&self, base: usize) -> IndexedSpans {
        let span = |value: Option<&str>| value.map_or(Span::default(), |value| span_of(base, value));
        let mut dedupe_key = span(self.dedupe_key);
        if self.dedupe_key.is_some() {
            dedupe_key.start -= property::DEDUPE_KEY.len() as u32 + 1;
        }
        IndexedSpans { tags: span(self.tags), keys: span(self.keys), dedupe_key }
    }

    /// Names of the properties that are dropped; the priority of a message that is of another type is no priority.
    fn dropped(&self) -> &'static [&'static str] {
        match self.priority {
            Some(_) => &BROKERS_PROPERTIES,
            None => &DROPPED,
        }
    }
}

/// Appends a property in its encoded form.
pub fn push_property(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_VALUE_SEPARATOR);
    out.extend_from_slice(value.as_bytes());
    out.push(PROPERTY_SEPARATOR);
}
