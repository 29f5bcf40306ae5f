//! `ringmq dlq replay`: sends dead letters once more, each at most once to each topic.
//!
//! Two things keep it from sending one twice, whenever it ends and however often it is started:
//! * Each replayed message carries the mark of its dead letter ([`super::mark`]) and keeps its producer's id. Before a
//!   dead letter is sent, the brokers' key index is asked for messages of that id in the target topic; one with the mark
//!   says that it is done. So what counts is what is stored, not what some run remembers.
//! * The brokers' queue lock, which consumers in order hold, lets one replay at a time work on a queue.
//!
//! The progress of a replay of everything is kept at the brokers as offsets of a group of that name, so that the next
//! one need not look at what is behind it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use ringmq_client::admin::AdminError;
use ringmq_client::consumer::PullConsumer;
use ringmq_client::{MessageExt, MessageQueue, Producer, RouteError};
use ringmq_protocol::names;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::mark::{is_replay, kept_properties, mark, origin_topic};
use super::select::{Reader, Selection};
use super::{REPLAY_GROUP, Session, Whose};

/// How often the queue's lock is renewed; it lives for 60 s.
const RENEWAL: Duration = Duration::from_secs(15);
/// How often progress is stored.
const PROGRESS: Duration = Duration::from_secs(1);
/// Times that a send is tried whose outcome is not known, or that may succeed later.
const ATTEMPTS: u32 = 5;

/// The arguments.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    selection: Selection,
    /// Where to: "origin" (the topic it was first sent to, for every group that consumes it), "group" (the retry topic
    /// of the group whose dead letters they are, for it alone), or a topic
    #[arg(long, default_value = "origin")]
    to: String,
    /// Messages a second at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Most messages to send
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Counts what would be sent, and sends nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where replayed messages go.
#[derive(Debug)]
enum Target {
    Origin,
    Group(String),
    Topic(String),
}

impl Target {
    fn of(arguments: &Arguments) -> Target {
        match arguments.to.as_str() {
            "origin" => Target::Origin,
            "group" => Target::Group(names::retry_topic(arguments.whose.group())),
            topic => Target::Topic(topic.to_owned()),
        }
    }

    fn topic<'a>(&'a self, message: &'a MessageExt) -> anyhow::Result<&'a str> {
        match self {
            Target::Group(topic) | Target::Topic(topic) => Ok(topic),
            Target::Origin => origin_topic(message).with_context(|| {
                format!(
                    "the dead letter at offset {} tells no topic: give one with --to",
                    message.queue_offset
                )
            }),
        }
    }
}

/// The group whose offsets say how far everything was replayed to the target.
fn cursor_group(target: &Target) -> anyhow::Result<String> {
    let group = match target {
        Target::Origin => REPLAY_GROUP.to_owned(),
        Target::Group(_) => format!("{REPLAY_GROUP}-to-group"),
        Target::Topic(topic) => format!("{REPLAY_GROUP}-to-{topic}"),
    };
    names::validate_group(&group).context("the name of the group that keeps the progress")?;
    Ok(group)
}

/// A replay on its way.
struct Replay<'a> {
    session: &'a Session,
    arguments: &'a Arguments,
    target: Target,
    cursor_group: String,
    producer: Producer,
    pace: Interval,
    sent: u64,
    /// Those that an earlier run had sent.
    before: u64,
}

pub async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let target = Target::of(arguments);
    let cursor_group = cursor_group(&target)?;
    let queues = session.queues_of(&arguments.whose).await?;
    // One attempt: a second one must not follow before it is known that the first one failed.
    let producer = session.client.producer(REPLAY_GROUP).retries(0).start()?;
    let mut pace = interval(Duration::from_secs(1) / arguments.rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut replay = Replay { session, arguments, target, cursor_group, producer, pace, sent: 0, before: 0 };
    let mut ended = Ok(());
    for queue in queues.iter().filter(|queue| arguments.selection.takes_queue(queue)) {
        ended = replay.queue_locked(queue).await;
        if ended.is_err() || replay.is_done() {
            break;
        }
    }
    replay.tell();
    ended.context("the replay stopped; the same command goes on where it did")
}

impl Replay<'_> {
    fn is_done(&self) -> bool {
        self.sent >= self.arguments.limit
    }

    fn tell(&self) {
        let (sent, before, dry) = (self.sent, self.before, self.arguments.dry_run);
        let object = json!({
            "group": self.arguments.whose.group(), "to": self.arguments.to, "sent": sent,
            "sentBefore": before, "dryRun": dry,
        });
        self.session.print(&object, || {
            let done = if dry { "would be sent" } else { "sent" };
            format!("{sent} dead letters {done}, {before} were sent before")
        });
    }

    async fn queue_locked(&mut self, queue: &MessageQueue) -> anyhow::Result<()> {
        let admin = &self.session.admin;
        ensure!(
            admin.lock_queue(REPLAY_GROUP, queue).await?,
            "another replay works on {} queue {}; if it was killed, its lock ends within a minute",
            queue.broker_name,
            queue.queue_id
        );
        let replayed = self.queue(queue).await;
        let unlocked = admin.unlock_queue(REPLAY_GROUP, queue).await;
        replayed?;
        Ok(unlocked?)
    }

    async fn queue(&mut self, queue: &MessageQueue) -> anyhow::Result<()> {
        let (admin, all) = (&self.session.admin, self.arguments.selection.is_all());
        // The end is fixed: what dies again meanwhile waits for the next replay.
        let (mut first, end) = self.arguments.selection.range(self.session, queue).await?;
        if all {
            first = first.max(admin.committed(&self.cursor_group, queue).await?.unwrap_or(0)).min(end);
        }
        let puller = self.session.client.pull_consumer(&self.cursor_group)?;
        let mut reader = Reader::new(&puller, queue, (first, end));
        let (mut done, mut result) = (first, Ok(()));
        let (mut stored, mut renewed) = (Instant::now(), Instant::now());
        'reading: loop {
            let messages = match reader.next().await {
                Ok(messages) if messages.is_empty() => {
                    done = end;
                    break;
                }
                Ok(messages) => messages,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            for message in messages {
                if self.is_done() {
                    break 'reading;
                }
                if renewed.elapsed() >= RENEWAL {
                    renewed = Instant::now();
                    ensure!(admin.lock_queue(REPLAY_GROUP, queue).await?, "the lock of {queue:?} was lost");
                }
                if self.arguments.selection.takes(&message)
                    && let Err(error) = self.message(&message).await
                {
                    result = Err(error.context(format!(
                        "the dead letter at {} queue {} offset {}",
                        queue.broker_name, queue.queue_id, message.queue_offset
                    )));
                    break 'reading;
                }
                done = message.queue_offset + 1;
                if all && stored.elapsed() >= PROGRESS {
                    stored = Instant::now();
                    self.store(&puller, queue, done).await?;
                }
            }
        }
        if all && done > first {
            self.store(&puller, queue, done).await?;
        }
        result
    }

    async fn store(&self, puller: &PullConsumer, queue: &MessageQueue, offset: i64) -> anyhow::Result<()> {
        if !self.arguments.dry_run {
            puller.commit(queue, offset).await?;
        }
        Ok(())
    }

    /// Sends a message, unless it is there already.
    async fn message(&mut self, message: &MessageExt) -> anyhow::Result<()> {
        let topic = self.target.topic(message)?.to_owned();
        if self.is_there(message, &topic).await? {
            self.before += 1;
            return Ok(());
        }
        self.sent += 1;
        if self.arguments.dry_run {
            return Ok(());
        }
        let keeps_origin = matches!(self.target, Target::Group(_));
        let copy = message.copy_to(topic.as_str(), kept_properties(message, keeps_origin))?;
        for attempt in 1.. {
            self.pace.tick().await;
            let error = match self.producer.send(copy.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if attempt == ATTEMPTS || !error.is_retryable() {
                self.sent -= 1;
                bail!("it was not sent to {topic}: {error}");
            }
            // It may have been stored all the same, by now or in a moment.
            sleep(Duration::from_secs(1)).await;
            if self.is_there(message, &topic).await? {
                return Ok(());
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn is_there(&self, message: &MessageExt, topic: &str) -> anyhow::Result<bool> {
        let (id, mark) = (message.msg_id(), mark(message));
        match self.session.admin.query_all_by_unique_key(topic, &id).await {
            Ok(found) => Ok(found.iter().any(|found| is_replay(found, &mark))),
            Err(AdminError::Route(RouteError::NoTopic(_))) => Ok(false),
            Err(error) => Err(error).context("asking whether it was sent before"),
        }
    }
}
