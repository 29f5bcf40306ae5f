//! Pulls (11, 361): Java's checks in Java's order, the filter, and the limits of one answer.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_engine::{QueueId, QueueOffset};
use ringmq_env::Env;
use ringmq_protocol::body::{MessageModel, SubscriptionData, perm};
use ringmq_protocol::header::Header;
use ringmq_protocol::headers::{FromExt, PullHeader, pull_sys_flag, request_source};
use ringmq_protocol::names;

use super::*;
use crate::broadcasts::Broadcaster;
use crate::config::BrokerConfig;
use crate::control::sessions::GroupView;
use crate::core::core_bit;
use crate::message_filter::{MessageFilter, SQL92, is_tag_type};
use crate::tag_filter::TagFilter;

/// Most messages of one answer.
const MAX_MESSAGES: usize = 32;
/// Most bytes of one answer, but for a single larger message.
const MAX_BYTES: usize = 256 << 10;
/// What a subscription with a filter class is called in its refusal.
const CLASS: &str = "CLASS";

/// A pull of a group that core 0 is asked for, with texts of its own.
pub struct Draft {
    reply: ReplyTo,
    group: String,
    topic: String,
    subscription: Option<String>,
    expression_type: Option<String>,
    proxied_client: Option<String>,
    /// All the rest.
    header: PullHeader<'static>,
}

impl Draft {
    fn new(reply: ReplyTo, header: &PullHeader<'_>) -> Draft {
        Draft {
            reply,
            group: header.consumer_group.to_owned(),
            topic: header.topic.to_owned(),
            subscription: header.subscription.map(str::to_owned),
            expression_type: header.expression_type.map(str::to_owned),
            proxied_client: header.proxy_forward_client_id.map(str::to_owned),
            header: PullHeader {
                consumer_group: "",
                topic: "",
                subscription: None,
                expression_type: None,
                proxy_forward_client_id: None,
                ..*header
            },
        }
    }

    /// The group that may be created.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Goes on after core 0 was asked for the group.
    pub fn resume<E: Env>(self, core: &Rc<Core<E>>, connection: &Connection) {
        let header = PullHeader {
            consumer_group: &self.group,
            topic: &self.topic,
            subscription: self.subscription.as_deref(),
            expression_type: self.expression_type.as_deref(),
            proxy_forward_client_id: self.proxied_client.as_deref(),
            ..self.header
        };
        if core.metadata.borrow().group(&self.group).is_none() {
            return refuse(core, self.reply, remarks::no_group_to_pull(&self.group));
        }
        submit(core, connection, self.reply, &header);
    }
}

/// A pull has arrived. Oneway, nobody would get the messages: it is dropped.
pub fn begin<E: Env>(core: &Rc<Core<E>>, connection: &Connection, header: &Header<'_>) -> Step {
    if header.is_oneway() {
        return Step::Done;
    }
    if connection.pulls() >= MAX_PULLS {
        let reply = super::begin(core, connection, header, ReplyKind::Counted);
        let what = format_args!("{MAX_PULLS} pulls of this connection are in flight, the limit");
        refuse(core, reply, remarks::busy(what));
        return Step::Done;
    }
    let reply = super::begin(core, connection, header, ReplyKind::Pull);
    let pull = match PullHeader::from_ext(&header.ext) {
        Ok(pull) => pull,
        Err(error) => {
            refuse(core, reply, bad_header(&error));
            return Step::Done;
        }
    };
    let unknown = core.metadata.borrow().group(pull.consumer_group).is_none();
    let readable = core.identity.config.permission & perm::READ as u32 != 0;
    if unknown && readable {
        return Step::Wait(Box::new(Waiting::Group(Draft::new(reply, &pull))));
    }
    submit(core, connection, reply, &pull);
    Step::Done
}

fn submit<E: Env>(core: &Rc<Core<E>>, connection: &Connection, reply: ReplyTo, header: &PullHeader<'_>) {
    match check(core, connection, reply.peer, header) {
        Ok(pull) => {
            let shard = core.identity.routing.shard(&pull.topic, pull.queue_id);
            let owner = core.identity.routing.core(shard);
            connection.pulled_from.set(connection.pulled_from.get() | core_bit(owner));
            let bytes = pull.group.len() + pull.topic.len();
            core.submit(shard, reply, bytes, ShardRequest::Pull(pull));
        }
        Err(refusal) => refuse(core, reply, refusal),
    }
}

fn check<E: Env>(
    core: &Core<E>,
    connection: &Connection,
    peer: Peer,
    header: &PullHeader<'_>,
) -> Result<PullRequest, Refusal> {
    let (config, metadata) = (&core.identity.config, core.metadata.borrow());
    if config.permission & perm::READ as u32 == 0 {
        return Err(remarks::broker_not_readable(config.advertise));
    }
    let (group, group_config) = metadata
        .group(header.consumer_group)
        .ok_or_else(|| remarks::no_group_to_pull(header.consumer_group))?;
    if !group_config.consume_enable {
        return Err(remarks::group_not_permitted(group));
    }
    let (topic, topic_config) =
        &metadata.topic(header.topic).ok_or_else(|| remarks::no_topic_to_pull(header.topic))?;
    if topic_config.perm & perm::READ == 0 {
        return Err(remarks::topic_not_readable(topic));
    }
    let queue_id = u32::try_from(header.queue_id)
        .ok()
        .filter(|_| header.queue_id < topic_config.read_queue_nums)
        .ok_or_else(|| remarks::illegal_pull_queue(header.queue_id, topic_config, connection.address))?;
    let has = |flag| header.sys_flag & flag != 0;
    let (filter, sub_version) = match has(pull_sys_flag::SUBSCRIPTION) {
        true => (requested_filter(core, header)?, None),
        false => {
            let view = metadata.view(group).ok_or_else(remarks::no_group_info)?;
            if view.message_model == Some(MessageModel::Broadcasting)
                && !group_config.consume_broadcast_enable
            {
                return Err(remarks::no_broadcast(group));
            }
            if metadata.is_forbidden(group, topic) {
                return Err(remarks::topic_forbidden_to_group(group, topic));
            }
            let (filter, version) = subscribed_filter(config, view, topic, header)?;
            (filter, Some(version))
        }
    };
    let suspend_ms =
        if has(pull_sys_flag::SUSPEND) { header.suspend_timeout_millis.max(0) as u64 } else { 0 };
    let commits = has(pull_sys_flag::COMMIT_OFFSET) && header.commit_offset > 0;
    Ok(PullRequest {
        group: group.clone(),
        topic: topic.clone(),
        queue_id: QueueId(queue_id),
        offset: QueueOffset(header.queue_offset),
        max_messages: usize::try_from(header.max_msg_nums).unwrap_or(0).clamp(1, MAX_MESSAGES),
        max_bytes: max_bytes(header.max_msg_bytes),
        filter,
        sub_version,
        suspend_ms: suspend_ms.min(config.max_long_poll.as_millis() as u64),
        commit: commits.then_some(QueueOffset(header.commit_offset)),
        broadcaster: config.broadcasts.and_then(|_| broadcaster(metadata.view(group), peer, header)),
        topic_sys_flag: topic_config.topic_sys_flag,
        group_sys_flag: group_config.group_sys_flag,
    })
}

/// The client that pulls for itself alone: through a proxy, which says so, or as a member of a broadcasting group.
fn broadcaster(view: Option<&Arc<GroupView>>, peer: Peer, header: &PullHeader<'_>) -> Option<Broadcaster> {
    if header.request_source == Some(request_source::PROXY_FOR_BROADCAST) {
        let client = header.proxy_forward_client_id.filter(|client| !client.is_empty())?;
        return Some(Broadcaster { client: client.into(), from_proxy: true });
    }
    let client = view?.broadcasters.get(&peer.into())?.clone();
    Some(Broadcaster { client, from_proxy: false })
}

fn max_bytes(wanted: Option<i32>) -> usize {
    let wanted = wanted.and_then(|wanted| usize::try_from(wanted).ok()).filter(|wanted| *wanted > 0);
    wanted.map_or(MAX_BYTES, |wanted| wanted.min(MAX_BYTES))
}

/// The filter that the pull brings along.
fn requested_filter<E: Env>(core: &Core<E>, header: &PullHeader<'_>) -> Result<MessageFilter, Refusal> {
    let (kind, expression) =
        (header.expression_type.unwrap_or_default(), header.subscription.unwrap_or_default());
    if is_tag_type(kind) {
        return TagFilter::parse(expression).map(MessageFilter::Tag).ok_or_else(remarks::bad_subscription);
    }
    if !core.identity.config.property_filter || kind != SQL92 {
        return Err(remarks::no_filter_by(kind));
    }
    let filter = core.filters.borrow_mut().get(expression);
    filter.map(MessageFilter::Sql).map_err(|_| remarks::bad_subscription())
}

/// The filter that the group's heartbeats told, and its version.
fn subscribed_filter(
    config: &BrokerConfig,
    view: &Arc<GroupView>,
    topic: &str,
    header: &PullHeader<'_>,
) -> Result<(MessageFilter, i64), Refusal> {
    let data = view.subscriptions.get(topic).ok_or_else(remarks::no_subscription)?;
    if data.sub_version < header.sub_version {
        return Err(remarks::subscription_not_latest());
    }
    if data.class_filter_mode {
        return Err(remarks::no_filter_by(CLASS));
    }
    if is_tag_type(&data.expression_type) {
        return Ok((tag_filter(config, view, data), data.sub_version));
    }
    if data.expression_type != SQL92 || !config.property_filter {
        return Err(remarks::no_filter_by(&data.expression_type));
    }
    let filter = view.filters.get(topic).ok_or_else(remarks::no_filter_data)?;
    Ok((MessageFilter::Sql(filter.clone()), data.sub_version))
}

fn tag_filter(config: &BrokerConfig, view: &Arc<GroupView>, data: &SubscriptionData) -> MessageFilter {
    if config.filter_retry && !view.filters.is_empty() && names::is_retry_topic(&data.topic) {
        return MessageFilter::Original(view.clone());
    }
    MessageFilter::Tag(match data.sub_string == "*" {
        true => TagFilter::All,
        false => TagFilter::from_codes(data.code_set.iter().copied()),
    })
}
