//! `ringmq dlq purge`.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{REPLAY_GROUP, Session, Whose};

/// The arguments.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    whose: Whose,
    /// Deletes; without it only tells what would be
    #[arg(long)]
    yes: bool,
    /// Deletes even if not all of them were replayed
    #[arg(long)]
    unreplayed: bool,
}

/// Deletes the topic at every broker and name server. The broker makes it again for the next dead letter, from offset 0;
/// with the topic go all groups' offsets in it, the progress of replays among them.
pub async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let (whose, topic) = (&arguments.whose, arguments.whose.topic());
    let (mut messages, mut waiting) = (0, 0);
    for queue in session.queues(&topic).await? {
        let (min, max) = (session.admin.min_offset(&queue).await?, session.admin.max_offset(&queue).await?);
        let cursor = session.admin.committed(REPLAY_GROUP, &queue).await?;
        messages += max - min;
        waiting += max - cursor.unwrap_or(0).clamp(min, max);
    }
    if waiting > 0 && !arguments.unreplayed {
        bail!(
            "{waiting} of the {messages} dead letters of {} were not replayed: replay them, or delete them with --unreplayed",
            whose.group()
        );
    }
    if arguments.yes {
        session.admin.delete_topic(&topic).await?;
    }
    let object = json!({
        "group": whose.group(), "messages": messages, "notReplayed": waiting, "deleted": arguments.yes,
    });
    session.print(&object, || match arguments.yes {
        true => format!("{messages} dead letters of {} are deleted", whose.group()),
        false => format!("{messages} dead letters of {} would be deleted: add --yes", whose.group()),
    });
    Ok(())
}
