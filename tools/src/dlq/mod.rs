//! `ringmq dlq`: what to do about dead letters, from outside of the broker, by requests that every RocketMQ broker
//! serves.

mod list;
mod mark;
mod purge;
mod replay;
mod select;
mod show;

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use ringmq_client::admin::Admin;
use ringmq_client::{Client, ClientConfig, MessageQueue};
use ringmq_protocol::names::{self, DLQ_PREFIX};
use serde_json::Value;

/// Group whose offsets are the progress of replays of all messages, see [`replay::cursor_group`].
const REPLAY_GROUP: &str = "DLQ_REPLAY";

/// The arguments.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Name servers, host:port with ; between them
    #[arg(long, env = "NAMESRV_ADDR", default_value = "127.0.0.1:9876", global = true)]
    namesrv: String,
    /// Prints a JSON object for each line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the groups that have dead letters: how many, how many are not replayed, the oldest one's time
    List {
        /// This group only
        group: Option<String>,
    },
    /// Shows dead letters: origin topic and id, how often they failed, the body's beginning
    Show(show::Arguments),
    /// Sends dead letters once more, each at most once
    Replay(replay::Arguments),
    /// Deletes a group's dead letters, all of them
    Purge(purge::Arguments),
}

/// Whose dead letters.
#[derive(Clone, Debug, Args)]
struct Whose {
    /// The consumer group, or its topic %DLQ%group
    group: String,
}

impl Whose {
    fn group(&self) -> &str {
        self.group.strip_prefix(DLQ_PREFIX).unwrap_or(&self.group)
    }

    fn topic(&self) -> String {
        names::dlq_topic(self.group())
    }
}

/// The cluster, and how to print.
pub struct Session {
    client: Client,
    admin: Admin,
    json: bool,
}

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(&arguments.namesrv)).await?;
        let session = Session { admin: client.admin(), client: client.clone(), json: arguments.json };
        let result = match arguments.verb {
            Verb::List { group } => list::run(&session, group.as_deref()).await,
            Verb::Show(arguments) => show::run(&session, &arguments).await,
            Verb::Replay(arguments) => replay::run(&session, &arguments).await,
            Verb::Purge(arguments) => purge::run(&session, &arguments).await,
        };
        client.shutdown().await;
        result
    })
}

impl Session {
    /// The topic's queues, in order. A topic that does not exist has none.
    async fn queues(&self, topic: &str) -> anyhow::Result<Vec<MessageQueue>> {
        if !self.topics().await?.contains(topic) {
            return Ok(Vec::new());
        }
        let mut queues = self.admin.queues(topic).await.with_context(|| format!("where {topic} is"))?;
        ensure!(
            !queues.is_empty(),
            "{topic} may not be read: give it the permission (mqadmin updateTopicPerm -t {topic} -p 6)"
        );
        queues.sort();
        Ok(queues)
    }

    /// As [`Session::queues`], of a group that must have dead letters.
    async fn queues_of(&self, whose: &Whose) -> anyhow::Result<Vec<MessageQueue>> {
        let queues = self.queues(&whose.topic()).await?;
        if queues.is_empty() {
            bail!("the group {} has no dead letters", whose.group());
        }
        Ok(queues)
    }

    async fn topics(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.admin.topics().await.context("the list of topics")?.into_iter().collect())
    }

    /// Prints a line: the object, or its text.
    fn print(&self, object: &Value, text: impl FnOnce() -> String) {
        match self.json {
            true => println!("{object}"),
            false => println!("{}", text()),
        }
    }
}
