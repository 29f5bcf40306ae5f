//! Answers that need what the shards know: all of them are asked, and their answers put together.

use std::rc::Rc;
use std::sync::Arc;

use ringmq_engine::QueueId;
use ringmq_env::Env;
use ringmq_protocol::body::TopicConfig;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::version;

use super::ControlPlane;
use crate::control::Refusal;
use crate::control::answers::{self, GroupTopic, QueueFigures};
use crate::control::requests::Question;
use crate::control::runtime_info::{RuntimeInputs, runtime_info};
use crate::control::stats::{
    DailyTotals, ITEMS_AT_ONCE, PutLatency, StatsDelta, StatsKind, StoreRates, Totals,
};
use crate::core::Core;
use crate::message::*;
use crate::meters::ShardReport;

/// The name of the version whose answers these are.
const VERSION_NAME: &str = "V5_5_0";

/// Rates that need samples over time.
pub(super) struct Samples {
    boot_ms: i64,
    rates: StoreRates,
    daily: DailyTotals,
}

impl Samples {
    pub(super) fn new(now_ms: i64) -> Samples {
        Samples { boot_ms: now_ms, rates: StoreRates::new(), daily: DailyTotals::new(now_ms) }
    }
}

impl<E: Env> ControlPlane<E> {
    /// Asks the shards, and makes the answer.
    pub(super) async fn ask(&self, core: &Rc<Core<E>>, question: Question) -> Command {
        let answer = match question {
            Question::RuntimeInfo => self.runtime_info(core).await,
            Question::AllOffsets => self.all_offsets(core).await,
            Question::TopicStats(config) => self.topic_stats(core, &config).await,
            Question::ConsumeStats { group, topics, listed } => {
                self.consume_stats(core, &group, topics, listed).await
            }
            Question::TopicGroups(topic) => self.topic_groups(core, &topic).await,
            Question::GroupTopics(group) => self.group_topics(core, &group).await,
            Question::ConsumeQueue { config, queue, index, count, answer } => {
                self.consume_queue(core, &config, queue, index, count, answer).await
            }
            Question::ResumeHalf(offset) => self.resume_half(core, offset).await,
            Question::Offsets(question) => self.ask_offsets(core, question).await,
            Question::Relay(relay) => self.relay(core, relay).await,
            Question::ConsumerStatus { request, consumers } => {
                self.consumer_status(core, request, consumers).await
            }
        };
        answer.unwrap_or_else(|refusal| Command::from(&refusal))
    }

    async fn topic_stats(&self, core: &Rc<Core<E>>, config: &TopicConfig) -> Result<Command, Refusal> {
        let queues = self.queues(core, config, None).await?;
        let tps = self.state.borrow().stats().rate(StatsKind::TopicPutNums, &config.topic_name);
        Ok(answers::topic_stats(&core.identity.config.broker_name, config, &queues, tps))
    }

    async fn consume_stats(
        &self,
        core: &Rc<Core<E>>,
        group: &str,
        mut topics: Vec<String>,
        listed: bool,
    ) -> Result<Command, Refusal> {
        if topics.is_empty() {
            topics = self
                .committed(core, ShardCall::CommittedOf(group.into()))
                .await?
                .into_iter()
                .map(|entry| entry.topic.to_string())
                .collect();
            topics.sort_unstable();
            topics.dedup();
        }
        let configs = self.state.borrow().consumed_topics(group, topics.iter().map(String::as_str), listed);
        let mut described = Vec::with_capacity(configs.len());
        for config in configs {
            described.push(self.group_topic(core, group, config).await?);
        }
        Ok(answers::success(&answers::consume_stats(&core.identity.config.broker_name, &described)))
    }

    /// Where a group is in a topic.
    pub(super) async fn group_topic(
        &self,
        core: &Rc<Core<E>>,
        group: &str,
        config: Arc<TopicConfig>,
    ) -> Result<GroupTopic, Refusal> {
        let queues = self.queues(core, &config, Some(group)).await?;
        let key = format!("{}@{group}", config.topic_name);
        let tps = self.state.borrow().stats().rate(StatsKind::GroupGetNums, &key);
        Ok(GroupTopic { config, queues, tps })
    }

    /// The state of a topic's queues, from the shards that own them.
    pub(super) async fn queues(
        &self,
        core: &Rc<Core<E>>,
        config: &TopicConfig,
        group: Option<&str>,
    ) -> Result<Vec<QueueFigures>, Refusal> {
        let topic: Arc<str> = config.topic_name.as_str().into();
        let group: Option<Arc<str>> = group.map(Into::into);
        let count = config.read_queue_nums.max(config.write_queue_nums).max(0) as u32;
        let routing = core.identity.routing;
        let owned =
            |shard| (0..count).map(QueueId).filter(move |id| routing.shard(&config.topic_name, *id) == shard);
        let question = |shard| ShardCall::Queues {
            topic: topic.clone(),
            queues: owned(shard).collect(),
            group: group.clone(),
        };
        let mut figures = Vec::with_capacity(count as usize);
        for answer in core.call_shards(question).await {
            match answer {
                CallAnswer::Queues(states) => figures.extend(states.iter().map(figures_of)),
                other => return Err(unexpected(other)),
            }
        }
        Ok(figures)
    }

    pub(super) async fn committed(
        &self,
        core: &Rc<Core<E>>,
        question: ShardCall,
    ) -> Result<Vec<CommittedOffset>, Refusal> {
        let mut all = Vec::new();
        for answer in core.call_shards(|_| question.clone()).await {
            match answer {
                CallAnswer::Committed(mut entries) => all.append(&mut entries),
                other => return Err(unexpected(other)),
            }
        }
        Ok(all)
    }

    async fn all_offsets(&self, core: &Rc<Core<E>>) -> Result<Command, Refusal> {
        let all = self.committed(core, ShardCall::AllCommitted).await?;
        let entries =
            all.iter().map(|entry| (&*entry.topic, &*entry.group, entry.queue_id.0 as i32, entry.offset.0));
        let version = self.state.borrow().config_version();
        Ok(answers::all_offsets(version, entries))
    }

    async fn topic_groups(&self, core: &Rc<Core<E>>, topic: &str) -> Result<Command, Refusal> {
        let topic: Arc<str> = topic.into();
        let mut committed = Vec::new();
        for answer in core.call_shards(|_| ShardCall::GroupsOf(topic.clone())).await {
            match answer {
                CallAnswer::Groups(mut groups) => committed.append(&mut groups),
                other => return Err(unexpected(other)),
            }
        }
        let subscribers = self.state.borrow().consumers().subscribers(&topic);
        Ok(answers::topic_groups(subscribers, committed))
    }

    async fn group_topics(&self, core: &Rc<Core<E>>, group: &str) -> Result<Command, Refusal> {
        let committed = self.committed(core, ShardCall::CommittedOf(group.into())).await?;
        let address = core.identity.store_host.to_string();
        Ok(answers::group_topics(&address, committed.into_iter().map(|entry| entry.topic)))
    }

    async fn runtime_info(&self, core: &Rc<Core<E>>) -> Result<Command, Refusal> {
        let reports = self.take_reports(core).await?;
        let config = &core.identity.config;
        let disk = core.env.disk_space(&config.data).await.unwrap_or_default();
        let mut put_latency = PutLatency::default();
        reports.iter().for_each(|report| put_latency.merge(&report.put_latency));
        let shards: Vec<_> = reports.iter().map(|report| report.stats).collect();
        let delayed: Vec<_> = reports.iter().map(|report| report.delayed).collect();
        let samples = self.samples.borrow();
        let table = runtime_info(&RuntimeInputs {
            shards: &shards,
            disk,
            data_dir: &config.data.to_string_lossy(),
            boot_ms: samples.boot_ms,
            now_ms: core.env.wall_ms(),
            rates: &samples.rates,
            daily: samples.daily,
            put_latency: &put_latency,
            put_failed: reports.iter().map(|report| report.put_failed).sum(),
            get_max_ms: 0,
            queued_requests: core.lane_gauges().map(|gauge| gauge.requests).sum(),
            queue_capacity: config.lanes.requests,
            delayed: &delayed,
            deliveries: reports.iter().map(|report| report.deliveries).sum(),
            version: version::CURRENT,
            version_name: VERSION_NAME,
        });
        Ok(answers::kv_table(table))
    }

    /// Gathers what the shards have counted. To be called every ten seconds or so.
    pub(super) async fn sample(&self, core: &Rc<Core<E>>) {
        if let Err(refusal) = self.take_reports(core).await {
            tracing::warn!(%refusal, "the shards' counters could not be gathered");
        }
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.state.borrow_mut().stats_mut().sample(from, core.env.wall_ms());
            core.env.yield_now().await;
        }
    }

    async fn take_reports(&self, core: &Rc<Core<E>>) -> Result<Vec<ShardReport>, Refusal> {
        let mut reports = Vec::new();
        for answer in core.call_shards(|_| ShardCall::Report).await {
            match answer {
                CallAnswer::Report(report) => reports.push(*report),
                other => return Err(unexpected(other)),
            }
        }
        let now_ms = core.env.wall_ms();
        let totals = reports.iter().fold(Totals::default(), |sum, report| add(sum, report.totals));
        {
            let mut samples = self.samples.borrow_mut();
            samples.rates.sample(now_ms, totals);
            samples.daily.roll(now_ms, totals.put, totals.transferred);
        }
        for report in &mut reports {
            self.add_deltas(core, std::mem::take(&mut report.deltas), now_ms).await;
        }
        Ok(reports)
    }

    async fn add_deltas(&self, core: &Core<E>, deltas: Vec<StatsDelta>, now_ms: i64) {
        let mut deltas = deltas.into_iter();
        while deltas.len() > 0 {
            {
                let mut state = self.state.borrow_mut();
                deltas.by_ref().take(ITEMS_AT_ONCE).for_each(|delta| state.stats_mut().add(delta, now_ms));
            }
            core.env.yield_now().await;
        }
    }
}

fn add(sum: Totals, more: Totals) -> Totals {
    Totals {
        put: sum.put + more.put,
        get_found: sum.get_found + more.get_found,
        get_miss: sum.get_miss + more.get_miss,
        transferred: sum.transferred + more.transferred,
        filter_evaluated: sum.filter_evaluated + more.filter_evaluated,
        filter_rejected: sum.filter_rejected + more.filter_rejected,
    }
}

fn figures_of(state: &QueueState) -> QueueFigures {
    let range = state.range.unwrap_or_default();
    QueueFigures {
        queue_id: state.queue_id.0 as i32,
        min: range.min.0,
        max: range.max.0,
        last_store_ms: state.last_store_ms,
        committed: state.committed.map(|offset| offset.0),
        consumed_store_ms: state.consumed_store_ms,
    }
}

/// A shard refused, or answered another question.
pub(super) fn unexpected(answer: CallAnswer) -> Refusal {
    match answer {
        CallAnswer::Refused(refusal) => refusal,
        other => Refusal::new(response::SYSTEM_ERROR, format!("a shard gave the wrong answer: {other:?}")),
    }
}
