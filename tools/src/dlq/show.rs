//! `ringmq dlq show`.

use std::fmt::Write;

use clap::Args;
use ringmq_client::MessageExt;
use ringmq_protocol::properties::names;
use serde_json::{Value, json};

use super::mark::origin_topic;
use super::select::{Reader, Selection, time_text};
use super::{REPLAY_GROUP, Session, Whose};

/// The arguments.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    selection: Selection,
    /// Most messages to show
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Most bytes of each body to show
    #[arg(long, default_value_t = 256)]
    body: usize,
}

pub async fn run(session: &Session, arguments: &Arguments) -> anyhow::Result<()> {
    let puller = session.client.pull_consumer(REPLAY_GROUP)?;
    let mut left = arguments.limit;
    for queue in session.queues_of(&arguments.whose).await? {
        if !arguments.selection.takes_queue(&queue) {
            continue;
        }
        let range = arguments.selection.range(session, &queue).await?;
        let mut reader = Reader::new(&puller, &queue, range);
        loop {
            let messages = reader.next().await?;
            if messages.is_empty() || left == 0 {
                break;
            }
            for message in messages.iter().filter(|message| arguments.selection.takes(message)).take(left) {
                left -= 1;
                session.print(&object(message, arguments.body), || text(message, arguments.body));
            }
        }
    }
    Ok(())
}

/// Why the message is here. Java's brokers keep no reason.
fn reason(message: &MessageExt) -> String {
    let given = message.property(names::DEAD_BECAUSE).map(str::to_owned);
    given.unwrap_or_else(|| format!("consumed {} times without success", message.reconsume_times))
}

fn preview(message: &MessageExt, limit: usize) -> String {
    let shown = &message.body[..message.body.len().min(limit)];
    let rest = message.body.len() - shown.len();
    // A character that the limit cuts is left out.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => text.to_owned(),
        Err(error) if rest > 0 && error.error_len().is_none() => {
            String::from_utf8_lossy(&shown[..error.valid_up_to()]).into_owned()
        }
        Err(_) => shown.escape_ascii().to_string(),
    };
    if rest > 0 { format!("{text}… ({rest} bytes more)") } else { text }
}

fn object(message: &MessageExt, body: usize) -> Value {
    json!({
        "broker": message.queue.broker_name,
        "queue": message.queue.queue_id,
        "offset": message.queue_offset,
        "diedAt": message.store_timestamp,
        "bornAt": message.born_timestamp,
        "id": message.msg_id(),
        "deadLetterId": message.offset_msg_id(),
        "originTopic": origin_topic(message),
        "originId": message.property(names::ORIGIN_MESSAGE_ID),
        "reconsumeTimes": message.reconsume_times,
        "reason": reason(message),
        "properties": message.properties(),
        "bodyLength": message.body.len(),
        "body": preview(message, body),
    })
}

fn text(message: &MessageExt, body: usize) -> String {
    let mut text = String::new();
    let (queue, none) = (&message.queue, "-");
    let origin_id = message.property(names::ORIGIN_MESSAGE_ID).unwrap_or(none);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} queue {} offset {}, died at {}: {}",
        queue.broker_name,
        queue.queue_id,
        message.queue_offset,
        time_text(message.store_timestamp),
        reason(message),
    );
    let _ = writeln!(text, "  id {}, first stored as {origin_id}", message.msg_id());
    let _ = writeln!(
        text,
        "  topic {}, tag {}, keys {}",
        origin_topic(message).unwrap_or(none),
        message.tag().unwrap_or(none),
        message.property(names::KEYS).unwrap_or(none),
    );
    let _ = write!(text, "  body of {} bytes: {}", message.body.len(), preview(message, body));
    text
}
