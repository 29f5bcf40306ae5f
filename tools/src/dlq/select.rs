//! Which dead letters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use ringmq_client::consumer::{Filter, PullConsumer, PullStatus};
use ringmq_client::{MessageExt, MessageQueue};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Session;

/// Messages of a pull.
const PULL: u16 = 32;

/// The arguments that choose dead letters; those of all of them that are given must hold.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only messages with this key
    #[arg(long)]
    key: Option<String>,
    /// Only the message with this id: the producer's, or the broker's of the first message or of the dead letter
    #[arg(long)]
    id: Option<String>,
    /// Only messages that died at this time or later: 2026-01-31T12:00:00Z, ms since 1970, or 2h ago as 2h
    #[arg(long, value_parser = time_ms)]
    from: Option<i64>,
    /// Only messages that died before this time
    #[arg(long, value_parser = time_ms)]
    until: Option<i64>,
    /// Only messages at this offset of their queue, or at FIRST..END
    #[arg(long, value_parser = offsets)]
    offset: Option<(i64, i64)>,
    /// Only messages in this queue
    #[arg(long)]
    queue: Option<i32>,
    /// Only messages of this broker
    #[arg(long)]
    broker: Option<String>,
}

impl Selection {
    /// Whether it chooses every dead letter.
    pub fn is_all(&self) -> bool {
        let Selection { key, id, from, until, offset, queue, broker } = self;
        let narrow = key.is_some() || id.is_some() || queue.is_some() || broker.is_some();
        !narrow && from.is_none() && until.is_none() && offset.is_none()
    }

    /// Whether it may choose messages of the queue.
    pub fn takes_queue(&self, queue: &MessageQueue) -> bool {
        self.queue.is_none_or(|id| id == queue.queue_id)
            && self.broker.as_ref().is_none_or(|broker| *broker == queue.broker_name)
    }

    pub fn takes(&self, message: &MessageExt) -> bool {
        let is_id = |id: &String| {
            *id == message.msg_id()
                || *id == message.offset_msg_id()
                || Some(id.as_str()) == message.property("ORIGIN_MESSAGE_ID")
        };
        self.key.as_ref().is_none_or(|key| message.keys().any(|k| k == key))
            && self.id.as_ref().is_none_or(is_id)
            && self.from.is_none_or(|from| message.store_timestamp >= from)
            && self.until.is_none_or(|until| message.store_timestamp < until)
            && self.offset.is_none_or(|(first, end)| (first..end).contains(&message.queue_offset))
    }

    /// The offsets of the queue that it may choose, as far as that is known without reading: first, and end.
    pub async fn range(&self, session: &Session, queue: &MessageQueue) -> anyhow::Result<(i64, i64)> {
        let mut first = session.admin.min_offset(queue).await?;
        let mut end = session.admin.max_offset(queue).await?;
        if let Some((from, until)) = self.offset {
            (first, end) = (first.max(from), end.min(until));
        }
        if let Some(from) = self.from {
            first = first.max(session.admin.search_offset(queue, from).await?);
        }
        Ok((first, end.max(first)))
    }
}

/// Reads a queue's messages up to an end, some at a time.
pub struct Reader<'a> {
    puller: &'a PullConsumer,
    queue: &'a MessageQueue,
    next: i64,
    end: i64,
}

impl<'a> Reader<'a> {
    /// The puller's group is made by the broker if it is not there.
    pub fn new(puller: &'a PullConsumer, queue: &'a MessageQueue, range: (i64, i64)) -> Reader<'a> {
        Reader { puller, queue, next: range.0, end: range.1 }
    }

    /// The next messages; none behind the last.
    pub async fn next(&mut self) -> anyhow::Result<Vec<MessageExt>> {
        while self.next < self.end {
            let left = u16::try_from(self.end - self.next).unwrap_or(PULL).min(PULL);
            let pulled = self.puller.pull(self.queue, &Filter::all(), self.next, left, None).await;
            let pulled = pulled.with_context(|| format!("reading {:?} at {}", self.queue, self.next))?;
            match pulled.status {
                PullStatus::NoNewMessage => return Ok(Vec::new()),
                _ if pulled.next_offset <= self.next => {
                    bail!("reading {:?} does not get past {}", self.queue, self.next)
                }
                _ => self.next = pulled.next_offset,
            }
            let mut messages = pulled.messages;
            messages.retain(|message| message.queue_offset < self.end);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
        Ok(Vec::new())
    }
}

/// RFC 3339, milliseconds since 1970, or a duration before now.
fn time_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok((time.unix_timestamp_nanos() / 1_000_000) as i64);
    }
    let ago =
        ago(text).ok_or("neither a time (2026-01-31T12:00:00Z), nor ms since 1970, nor how long ago (2h)")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(now.saturating_sub(ago).as_millis() as i64)
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.char_indices().next_back()?.0;
    let seconds = match &text[unit..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(text[..unit].parse::<u32>().ok()?.into()) * seconds)
}

fn offsets(text: &str) -> Result<(i64, i64), String> {
    let parse = |text: &str| text.parse::<i64>().ok().filter(|offset| (0..i64::MAX).contains(offset));
    let range = match text.split_once("..") {
        None => parse(text).map(|offset| (offset, offset + 1)),
        Some((first, "")) => parse(first).map(|first| (first, i64::MAX)),
        Some((first, end)) => parse(first).zip(parse(end)),
    };
    range.filter(|(first, end)| first < end).ok_or_else(|| "neither an offset nor FIRST..END".to_owned())
}

/// A time as RFC 3339 in UTC.
pub fn time_text(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_three_ways() {
        assert_eq!(time_ms("1700000000123"), Ok(1_700_000_000_123));
        assert_eq!(time_ms("2023-11-14T22:13:20.123Z"), Ok(1_700_000_000_123));
        assert_eq!(time_text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let ago = now - time_ms("2h").unwrap();
        assert!((7_199_000..7_300_000).contains(&ago), "{ago}");
        for wrong in ["", "h", "2w", "-2h", "yesterday", "2023-11-14", "é"] {
            assert!(time_ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn offsets_are_one_or_a_range() {
        assert_eq!(offsets("7"), Ok((7, 8)));
        assert_eq!(offsets("7..9"), Ok((7, 9)));
        assert_eq!(offsets("7.."), Ok((7, i64::MAX)));
        for wrong in ["", "-1", "9..7", "7..7", "..", "9223372036854775807"] {
            assert!(offsets(wrong).is_err(), "{wrong}");
        }
    }
}
