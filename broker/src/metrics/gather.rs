//! Asks every shard and core for its figures. Runs on core 0.

use std::rc::Rc;

use ringmq_engine::{COMMIT_BOUNDS, Job, QueueId, SLICE_BOUNDS_MS, ShardStats, SliceStats};
use ringmq_env::Env;
use ringmq_protocol::names::{DLQ_PREFIX, RETRY_PREFIX};

use super::Figures;
use crate::control::stats::{ITEMS_AT_ONCE, StatsKind};
use crate::control_plane::ControlPlane;
use crate::core::{CONTROL_CORE, Core};
use crate::mailbox::CoreId;
use crate::message::{Call, CallAnswer, ShardCall};
use crate::shard_service::ShardService;

/// Entries of the offset table that are looked at before other tasks have their turn.
const LAG_SLICE: usize = 256;

/// The figures of the whole node.
pub async fn gather<E: Env>(core: &Rc<Core<E>>) -> Figures {
    let mut all = Figures::default();
    let cores: Vec<CoreId> = core.others().chain([CONTROL_CORE]).collect();
    let mut answers = core.call_shards(|_| ShardCall::Figures).await;
    for id in cores {
        answers.push(core.call(Call::CoreFigures(id)).await);
    }
    for answer in answers {
        match answer {
            CallAnswer::Figures(figures) => all.merge(*figures, || core.env.yield_now()).await,
            other => tracing::warn!(?other, "figures are missing from the metrics"),
        }
    }
    if let Some(control) = core.control() {
        control.figures(core, &mut all).await;
    }
    all
}

impl<E: Env> ShardService<E> {
    /// What this shard has counted, and how far its groups are behind.
    pub(crate) async fn figures(&self, core: &Core<E>) -> Figures {
        let mut figures = Figures::default();
        store_figures(&mut figures, self.id().0, &self.engine().stats());
        let shard = self.id().0.to_string();
        for (job, slices) in self.engine().background_slices() {
            let of = if job == Job::MetadataCompaction { "marks" } else { "store" };
            slice_figures(&mut figures, job, &shard, of, &slices);
        }
        let of_offsets = self.offsets_compaction();
        slice_figures(&mut figures, Job::MetadataCompaction, &shard, "offsets", &of_offsets);
        self.traffic(&mut figures);
        self.transaction_figures(&mut figures);
        self.delay_figures(core, &mut figures).await;
        self.dead_letters(core, &mut figures);
        self.lag(core, &mut figures).await;
        figures
    }

    /// How many messages this shard's part of each group's dead letters has.
    fn dead_letters(&self, core: &Core<E>, figures: &mut Figures) {
        let metadata = core.metadata.borrow();
        for (topic, config) in metadata.dead_letter_topics() {
            let group = topic.strip_prefix(DLQ_PREFIX).unwrap_or(topic);
            let queues = config.read_queue_nums.max(config.write_queue_nums);
            let queues = (0..u32::try_from(queues).unwrap_or(0)).map(QueueId);
            let depth = queues.filter_map(|queue| self.engine().queue_range(topic, queue));
            figures.gauge(
                "ringmq_dead_letters",
                "Dead letters of a group that are kept.",
                &[("group", group)],
                depth.map(|range| range.max.0 - range.min.0).sum::<i64>() as f64,
            );
        }
    }

    async fn lag(&self, core: &Core<E>, figures: &mut Figures) {
        for (number, entry) in self.committed_offsets().into_iter().enumerate() {
            if number % LAG_SLICE == LAG_SLICE - 1 {
                core.env.yield_now().await;
            }
            let range = self.engine().queue_range(&entry.topic, entry.queue_id).unwrap_or_default();
            figures.gauge(
                "ringmq_group_lag_messages",
                "Messages of a topic that a group has not committed yet.",
                &[("topic", &entry.topic), ("group", &entry.group)],
                (range.max.0 - entry.offset.0).max(0) as f64,
            );
        }
    }
}

/// For how long a job that goes on beside requests held its core at a stretch.
fn slice_figures(figures: &mut Figures, job: Job, shard: &str, of: &str, slices: &SliceStats) {
    figures.histogram(
        "ringmq_background_slice_seconds",
        "Time for which background work held its core at a stretch, by job.",
        &[("job", job.name())],
        SLICE_BOUNDS_MS.into_iter().zip(slices.classes),
        slices.beyond,
        slices.sum_ns as f64 / 1e9,
    );
    figures.gauge(
        "ringmq_background_slice_max_seconds",
        "The longest of these since the start.",
        &[("job", job.name()), ("shard", shard), ("of", of)],
        slices.max_ns as f64 / 1e9,
    );
}

fn store_figures(figures: &mut Figures, shard: u16, stats: &ShardStats) {
    let shard = shard.to_string();
    let of = [("shard", shard.as_str())];
    figures.counter(
        "ringmq_store_messages_total",
        "Messages appended to the log.",
        &of,
        stats.messages_appended,
    );
    figures.counter(
        "ringmq_store_record_bytes_total",
        "Bytes of records appended to the log.",
        &of,
        stats.bytes_appended,
    );
    figures.counter("ringmq_store_commits_total", "Group commits.", &of, stats.commits);
    figures.histogram(
        "ringmq_store_commit_bytes",
        "Bytes of log that a group commit added.",
        &of,
        COMMIT_BOUNDS.map(|bound| bound * 1000).into_iter().zip(stats.commit_sizes.classes),
        stats.commit_sizes.beyond,
        stats.commit_sizes.bytes as f64,
    );
    figures.counter("ringmq_store_flushes_total", "Flushes of the device asked for.", &of, stats.flushes);
    let written = "Bytes written to files, by what they are.";
    let name = "ringmq_store_written_bytes_total";
    figures.counter(name, written, &[("shard", &shard), ("file", "log")], stats.log_bytes_written);
    figures.counter(name, written, &[("shard", &shard), ("file", "index")], stats.index_bytes_written);
    figures.counter(name, written, &[("shard", &shard), ("file", "shadow")], stats.log_bytes_shadowed);
    let made = "Segments of the log that were made, of new space or of a segment that had expired.";
    let name = "ringmq_store_segments_made_total";
    let new = stats.segments_made.saturating_sub(stats.segments_reused);
    figures.counter(name, made, &[("shard", &shard), ("from", "new")], new);
    figures.counter(name, made, &[("shard", &shard), ("from", "expired")], stats.segments_reused);
    let read = "Messages read, by where they were.";
    let hot = stats.messages_read.saturating_sub(stats.messages_read_cold);
    figures.counter("ringmq_store_read_messages_total", read, &[("shard", &shard), ("from", "memory")], hot);
    figures.counter(
        "ringmq_store_read_messages_total",
        read,
        &[("shard", &shard), ("from", "disk")],
        stats.messages_read_cold,
    );
    figures.counter(
        "ringmq_store_damaged_messages_total",
        "Messages that were not served because the disk gave back other bytes than were written.",
        &of,
        stats.messages_damaged,
    );
    figures.gauge("ringmq_store_queues", "Queues with messages.", &of, stats.queues as f64);
    figures.gauge("ringmq_store_lmqs", "Queues with messages that are LMQs.", &of, stats.lmqs as f64);
    figures.gauge(
        "ringmq_store_log_bytes",
        "Bytes of log kept.",
        &of,
        (stats.log_committed - stats.log_min) as f64,
    );
    let unflushed = stats.log_staged.saturating_sub(stats.log_flushed);
    figures.gauge(
        "ringmq_store_unflushed_bytes",
        "Bytes of log not yet on the device.",
        &of,
        unflushed as f64,
    );
    let memory = "Memory in use, by what for.";
    figures.gauge("ringmq_memory_bytes", memory, &[("for", "tail")], stats.tail_memory as f64);
    figures.gauge("ringmq_memory_bytes", memory, &[("for", "cold")], stats.cold_memory as f64);
    figures.gauge("ringmq_memory_bytes", memory, &[("for", "index")], stats.index_memory as f64);
}

impl<E: Env> Core<E> {
    /// What this core has counted of its connections.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        let memory = "Memory in use, by what for.";
        figures.gauge("ringmq_memory_bytes", memory, &[("for", "network")], self.network_memory() as f64);
        figures.gauge("ringmq_connections", "Open connections.", &[], self.connection_count() as f64);
        for (reason, count) in self.complaints.counts() {
            figures.counter(
                "ringmq_complaints_total",
                "Connections closed or refused, and requests turned away, by reason.",
                &[("reason", reason)],
                count,
            );
        }
        self.quotas.borrow().figures(&mut figures);
        let lanes: usize = self.lane_gauges().map(|gauge| gauge.requests).sum();
        let help = "Times that connections were not read on, because too much was under way to the log.";
        figures.counter("ringmq_backlogs_total", help, &[], self.backlogs());
        figures.gauge("ringmq_lane_requests", "Requests on their way between cores.", &[], lanes as f64);
        figures
    }
}

impl<E: Env> ControlPlane<E> {
    /// What core 0 knows: metadata, clients, disk, and traffic by topic and group.
    async fn figures(&self, core: &Rc<Core<E>>, figures: &mut Figures) {
        slice_figures(figures, Job::MetadataCompaction, "", "meta", &self.meta_compaction());
        let config = &core.identity.config;
        if let Ok(disk) = core.env.disk_space(&config.data).await {
            let help = "Space of the filesystem that holds the store.";
            figures.gauge("ringmq_disk_bytes", help, &[("is", "total")], disk.total as f64);
            figures.gauge("ringmq_disk_bytes", help, &[("is", "available")], disk.available as f64);
        }
        figures.gauge("ringmq_memory_limit_bytes", "The memory limit.", &[], config.memory as f64);
        self.client_figures(core, figures);
        self.traffic_figures(core, figures).await;
    }

    fn client_figures(&self, core: &Core<E>, figures: &mut Figures) {
        let state = self.state();
        figures.gauge("ringmq_topics", "Topics.", &[], state.topics().iter().len() as f64);
        for (group, _) in state.consumers().views() {
            let members = state.consumers().members(group).len() as f64;
            figures.gauge("ringmq_group_members", "Consumers of a group.", &[("group", group)], members);
        }
        for (group, held) in state.locks().held(core.env.now()) {
            let help = "Queues that members of a group have locked, to consume them in order.";
            figures.gauge("ringmq_queue_locks", help, &[("group", group)], held as f64);
        }
    }

    async fn traffic_figures(&self, core: &Core<E>, figures: &mut Figures) {
        let mut from = 0;
        while from < self.state().stats().counted() {
            for (kind, key, value) in self.state().stats().totals(from) {
                topic_figures(figures, kind, key, value);
            }
            from += ITEMS_AT_ONCE;
            core.env.yield_now().await;
        }
    }
}

fn topic_figures(figures: &mut Figures, kind: StatsKind, key: &str, value: u64) {
    let (topic, group) = key.split_once('@').unwrap_or((key, ""));
    match kind {
        StatsKind::TopicPutNums => {
            let help = "Messages stored, by topic; gathered every ten seconds.";
            figures.counter("ringmq_topic_put_messages_total", help, &[("topic", topic)], value);
            if let Some(group) = topic.strip_prefix(DLQ_PREFIX) {
                let help = "Messages that became dead letters of a group; gathered every ten seconds.";
                figures.counter("ringmq_dlq_arrivals_total", help, &[("group", group)], value);
            }
            if let Some(group) = topic.strip_prefix(RETRY_PREFIX) {
                let help = "Messages that were given to a group once more; gathered every ten seconds.";
                figures.counter("ringmq_group_retries_total", help, &[("group", group)], value);
            }
        }
        StatsKind::TopicPutSize => {
            let help = "Bytes of bodies stored, by topic; gathered every ten seconds.";
            figures.counter("ringmq_topic_put_bytes_total", help, &[("topic", topic)], value);
        }
        StatsKind::GroupGetNums => {
            let help = "Messages handed out, by topic and group; gathered every ten seconds.";
            let labels = [("topic", topic), ("group", group)];
            figures.counter("ringmq_group_get_messages_total", help, &labels, value);
        }
        StatsKind::GroupGetSize => {
            let help = "Bytes of records handed out, by topic and group; gathered every ten seconds.";
            let labels = [("topic", topic), ("group", group)];
            figures.counter("ringmq_group_get_bytes_total", help, &labels, value);
        }
        // The sums over all topics.
        StatsKind::BrokerPutNums | StatsKind::BrokerGetNums => {}
    }
}
