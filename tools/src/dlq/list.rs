//! `ringmq dlq list`.

use anyhow::bail;
use ringmq_protocol::names::DLQ_PREFIX;
use serde_json::json;

use super::select::time_text;
use super::{REPLAY_GROUP, Session, Whose};

/// What a group's dead letters come to.
struct Depth {
    messages: i64,
    /// Behind the place up to which all were replayed to their origin.
    not_replayed: i64,
    oldest_ms: Option<i64>,
}

pub async fn run(session: &Session, group: Option<&str>) -> anyhow::Result<()> {
    let mut topics = session.topics().await?;
    topics.retain(|topic| topic.starts_with(DLQ_PREFIX));
    if let Some(group) = group {
        let topic = Whose { group: group.to_owned() }.topic();
        topics.retain(|other| *other == topic);
        if topics.is_empty() {
            bail!("the group {group} has no dead letters");
        }
    }
    for topic in topics {
        let group = topic.strip_prefix(DLQ_PREFIX).unwrap_or(&topic);
        let Depth { messages, not_replayed, oldest_ms } = depth(session, &topic).await?;
        let object = json!({
            "group": group, "topic": topic, "messages": messages, "notReplayed": not_replayed,
            "oldestDiedAt": oldest_ms,
        });
        session.print(&object, || {
            let oldest = oldest_ms.map_or_else(|| "-".to_owned(), time_text);
            format!(
                "{group}  {messages} dead letters, {not_replayed} not replayed, the oldest died at {oldest}"
            )
        });
    }
    Ok(())
}

async fn depth(session: &Session, topic: &str) -> anyhow::Result<Depth> {
    let mut depth = Depth { messages: 0, not_replayed: 0, oldest_ms: None };
    for queue in session.queues(topic).await? {
        let (min, max) = (session.admin.min_offset(&queue).await?, session.admin.max_offset(&queue).await?);
        depth.messages += max - min;
        let cursor = session.admin.committed(REPLAY_GROUP, &queue).await?;
        depth.not_replayed += max - cursor.unwrap_or(0).clamp(min, max);
        if max > min {
            let oldest = session.admin.earliest_store_time(&queue).await?;
            depth.oldest_ms = [depth.oldest_ms, oldest].into_iter().flatten().min();
        }
    }
    Ok(depth)
}
