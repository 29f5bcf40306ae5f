//! What tools ask of core 0: topics, consumer groups, configuration, statistics.

use std::sync::Arc;

use ringmq_protocol::body::{
    CreateTopicList, DataVersion, GroupForbidden, SubscriptionGroupConfig, SubscriptionGroupList,
    SubscriptionGroupWrapper, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType, TopicList,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::headers::{
    CreateTopicHeader, DeleteSubscriptionGroupHeader, GetAllSubscriptionGroupHeader,
    GetAllSubscriptionGroupResponseHeader, GetAllTopicConfigHeader, GetAllTopicConfigResponseHeader,
    GetBrokerConfigResponseHeader, GetConsumeStatsHeader, GroupHeader, TopicHeader,
    UpdateGroupForbiddenHeader, ViewBrokerStatsDataHeader,
};
use ringmq_protocol::json::{self, Dialect};

use super::super::Page;
use super::super::answers::success;
use super::super::refusal::Refusal;
use super::super::sessions::Clock;
use super::super::state::{ControlState, Effects};
use super::super::topics::parse_attributes;
use super::{Handled, Outcome, Question, answer, done};

impl ControlState {
    pub(super) fn dispatch_admin(&mut self, command: &Command, clock: Clock) -> Outcome {
        match command.code {
            request::UPDATE_AND_CREATE_TOPIC => self.create_topic(command, clock),
            request::UPDATE_AND_CREATE_TOPIC_LIST => self.create_topics(command, clock),
            request::DELETE_TOPIC_IN_BROKER => self.drop_topic(command, clock),
            request::GET_ALL_TOPIC_CONFIG => self.all_topics(command),
            request::GET_TOPIC_CONFIG => self.topic_config(command),
            request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => Ok(self.system_topic_list()),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => self.create_group(command, clock),
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => self.create_groups(command, clock),
            request::DELETE_SUBSCRIPTIONGROUP => self.drop_group(command, clock),
            request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => self.all_groups(command),
            request::GET_SUBSCRIPTIONGROUP_CONFIG => self.group_config(command),
            request::GET_BROKER_CONFIG => Ok(self.broker_config()),
            request::VIEW_BROKER_STATS_DATA => self.view_stats(command),
            request::UPDATE_AND_GET_GROUP_FORBIDDEN => self.group_forbidden(command, clock),
            _ => self.question(command),
        }
    }

    /// What the shards have to be asked for.
    fn question(&self, command: &Command) -> Outcome {
        let question = match command.code {
            request::GET_BROKER_RUNTIME_INFO => Question::RuntimeInfo,
            request::GET_ALL_CONSUMER_OFFSET => Question::AllOffsets,
            request::GET_TOPIC_STATS_INFO => {
                let topic = command.header::<TopicHeader<'_>>()?.topic;
                let config = self.topics().get(topic).ok_or_else(|| {
                    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"))
                })?;
                Question::TopicStats(config.clone())
            }
            request::GET_CONSUME_STATS => consume_stats(command)?,
            request::QUERY_TOPIC_CONSUME_BY_WHO => {
                Question::TopicGroups(command.header::<TopicHeader<'_>>()?.topic.to_owned())
            }
            request::QUERY_TOPICS_BY_CONSUMER => {
                Question::GroupTopics(command.header::<GroupHeader<'_>>()?.group.to_owned())
            }
            request::QUERY_CONSUME_QUEUE => self.consume_queue(command)?,
            request::RESUME_CHECK_HALF_MESSAGE => self.resume_half(command)?,
            _ => Question::Offsets(self.offset_question(command)?),
        };
        Ok(Handled::Ask(question))
    }

    /// Which of a group's topics count for 208: those that exist and, if members of the group are online, are
    /// subscribed to. Topics that the request `listed` count anyway.
    pub fn consumed_topics<'a>(
        &self,
        group: &str,
        topics: impl IntoIterator<Item = &'a str>,
        listed: bool,
    ) -> Vec<Arc<TopicConfig>> {
        let view = self.consumers().view(group).filter(|view| !listed && !view.subscriptions.is_empty());
        let counts = |topic: &&str| view.is_none_or(|view| view.subscriptions.contains_key(*topic));
        topics.into_iter().filter(counts).filter_map(|topic| self.topics().get(topic).cloned()).collect()
    }

    // --- topics ---

    fn create_topic(&mut self, command: &Command, clock: Clock) -> Outcome {
        let header: CreateTopicHeader<'_> = command.header()?;
        let filter_type = header.topic_filter_type.unwrap_or(TopicFilterType::SingleTag.name());
        let config = TopicConfig {
            topic_name: header.topic.to_owned(),
            read_queue_nums: header.read_queue_nums,
            write_queue_nums: header.write_queue_nums,
            perm: header.perm,
            topic_filter_type: TopicFilterType::from_name(filter_type).ok_or_else(|| {
                Refusal::system_error(format!("topicFilterType = [{filter_type}] value invalid"))
            })?,
            topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
            order: header.order,
            attributes: parse_attributes(header.attributes.unwrap_or_default())?,
        };
        Ok(done(self.upsert_topics(vec![config], clock.wall_ms)?))
    }

    fn create_topics(&mut self, command: &Command, clock: Clock) -> Outcome {
        let list: CreateTopicList = json::from_slice(&command.body)?;
        Ok(done(self.upsert_topics(list.topic_config_list, clock.wall_ms)?))
    }

    fn drop_topic(&mut self, command: &Command, clock: Clock) -> Outcome {
        let topic = command.get("topic").unwrap_or_default();
        Ok(done(self.delete_topic(topic, clock.wall_ms)?))
    }

    fn all_topics(&self, command: &Command) -> Outcome {
        let header: GetAllTopicConfigHeader<'_> = command.header()?;
        let page = page(header.topic_seq, header.max_topic_num, header.data_version);
        let topics =
            self.topics().page(&page).map(|config| (config.topic_name.clone(), TopicConfig::clone(config)));
        let body = TopicConfigSerializeWrapper {
            data_version: self.topics().version(),
            topic_config_table: topics.collect(),
            ..TopicConfigSerializeWrapper::default()
        };
        let total = i32::try_from(self.topics().iter().len()).unwrap_or(i32::MAX);
        let header = GetAllTopicConfigResponseHeader { total_topic_num: Some(total) };
        Ok(answer(success(&body).with_header(&header)))
    }

    fn topic_config(&self, command: &Command) -> Outcome {
        let topic = command.header::<TopicHeader<'_>>()?.topic;
        let config = self.topics().get(topic).ok_or_else(|| {
            Refusal::new(response::TOPIC_NOT_EXIST, format!("No topic in this broker. topic: {topic}"))
        })?;
        Ok(answer(success(&**config)))
    }

    fn system_topic_list(&self) -> Handled {
        let topic_list = self.topics().system_topics().map(|topic| topic.to_string()).collect();
        answer(success(&TopicList { broker_addr: None, topic_list }))
    }

    // --- consumer groups ---

    fn create_group(&mut self, command: &Command, clock: Clock) -> Outcome {
        if command.body.is_empty() {
            return Ok(done(Effects::default()));
        }
        let config: SubscriptionGroupConfig = json::from_slice(&command.body)?;
        Ok(done(self.upsert_groups(vec![config], clock.wall_ms)?))
    }

    fn create_groups(&mut self, command: &Command, clock: Clock) -> Outcome {
        let list: SubscriptionGroupList = json::from_slice(&command.body)?;
        Ok(done(self.upsert_groups(list.group_config_list, clock.wall_ms)?))
    }

    fn drop_group(&mut self, command: &Command, clock: Clock) -> Outcome {
        let header: DeleteSubscriptionGroupHeader<'_> = command.header()?;
        Ok(done(self.delete_group(header.group_name, header.clean_offset, clock.wall_ms)))
    }

    fn all_groups(&self, command: &Command) -> Outcome {
        let header: GetAllSubscriptionGroupHeader<'_> = command.header()?;
        let page = page(header.group_seq, header.max_group_num, header.data_version);
        let groups = self.groups().page(&page);
        let body = SubscriptionGroupWrapper {
            data_version: self.groups().version(),
            forbidden_table: self.groups().forbidden_table(),
            subscription_group_table: groups
                .map(|config| (config.group_name.clone(), SubscriptionGroupConfig::clone(config)))
                .collect(),
        };
        let total = i32::try_from(self.groups().iter().len()).unwrap_or(i32::MAX);
        let header = GetAllSubscriptionGroupResponseHeader { total_group_num: Some(total) };
        Ok(answer(success(&body).with_header(&header)))
    }

    /// 353.
    fn group_forbidden(&mut self, command: &Command, clock: Clock) -> Outcome {
        let header: UpdateGroupForbiddenHeader<'_> = command.header()?;
        let (group, topic) = (header.group, header.topic);
        let effects = match header.readable {
            Some(readable) => self.forbid(group, topic, !readable, clock.wall_ms)?,
            None => Effects::default(),
        };
        let readable = !self.groups().is_forbidden(group, topic);
        let body = GroupForbidden { group: group.to_owned(), readable, topic: topic.to_owned() };
        Ok(Handled::Answer(success(&body), effects))
    }

    fn group_config(&self, command: &Command) -> Outcome {
        let group = command.header::<GroupHeader<'_>>()?.group;
        Ok(answer(success(&*self.groups().describe(group)?)))
    }

    // --- the broker ---

    /// 26: the options in force, as Java properties.
    fn broker_config(&self) -> Handled {
        let version = json::to_vec(&self.config_version(), Dialect::Java);
        let version = String::from_utf8_lossy(&version);
        let header = GetBrokerConfigResponseHeader { version: &version };
        let text = self.config_text().to_owned();
        answer(Command::response(response::SUCCESS, 0).with_header(&header).with_body(text))
    }

    fn view_stats(&self, command: &Command) -> Outcome {
        let header: ViewBrokerStatsDataHeader<'_> = command.header()?;
        Ok(answer(success(&self.stats().view(header.stats_name, header.stats_key)?)))
    }
}

/// The question of 208: topics by a list, by name, or those that the group committed offsets in.
fn consume_stats(command: &Command) -> Result<Question, Refusal> {
    let header: GetConsumeStatsHeader<'_> = command.header()?;
    let names = header.topic_list.unwrap_or_default().split(';').filter(|topic| !topic.is_empty());
    let mut topics: Vec<String> = names.map(str::to_owned).collect();
    let listed = !topics.is_empty();
    if !listed {
        topics.extend(header.topic.filter(|topic| !topic.trim().is_empty()).map(str::to_owned));
    }
    Ok(Question::ConsumeStats { group: header.consumer_group.to_owned(), topics, listed })
}

fn page(from: Option<i32>, max: Option<i32>, version: Option<&str>) -> Page {
    let count = |number: i32| usize::try_from(number).unwrap_or(0);
    // A version that cannot be read is another one: the caller starts again.
    let version =
        version.map(|text| json::from_slice(text.as_bytes()).unwrap_or_else(|_| DataVersion::default()));
    Page { from: from.map(count), max: max.map(count), version }
}
