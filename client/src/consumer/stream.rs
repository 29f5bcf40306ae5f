//! The messages of a lite pull consumer as a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use super::LitePullConsumer;
use crate::env::BoxFuture;
use crate::message::MessageExt;

/// How long one of the polls behind the stream waits; the next one follows.
const POLL: Duration = Duration::from_secs(5);

type Polled = Vec<Arc<MessageExt>>;

/// The messages of a [`LitePullConsumer`], without an end.
///
/// The messages of a poll count as done when all of them were taken and the next is asked for, so that a crash delivers
/// at most one poll's messages again. What the stream holds when it is dropped does not count as done; the consumer
/// goes on behind it, so take another stream only to go on, not to begin again.
#[must_use = "a stream does nothing until it is polled"]
pub struct MessageStream<'a> {
    consumer: &'a LitePullConsumer,
    taken: VecDeque<Arc<MessageExt>>,
    polling: Option<BoxFuture<'a, Polled>>,
}

impl LitePullConsumer {
    /// The messages one by one, as [`LitePullConsumer::poll`] gives them. Use one stream at a time, and no polls
    /// beside it.
    pub fn stream(&self) -> MessageStream<'_> {
        MessageStream { consumer: self, taken: VecDeque::new(), polling: None }
    }
}

impl MessageStream<'_> {
    /// The next message. Cancel-safe: a future that is dropped has taken none.
    pub async fn next(&mut self) -> Arc<MessageExt> {
        loop {
            if let Some(message) = self.taken.pop_front() {
                return message;
            }
            self.taken.extend(self.consumer.poll(POLL).await);
        }
    }
}

impl Stream for MessageStream<'_> {
    type Item = Arc<MessageExt>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.taken.pop_front() {
                return Poll::Ready(Some(message));
            }
            let consumer = self.consumer;
            let polling = self.polling.get_or_insert_with(|| Box::pin(consumer.poll(POLL)));
            let messages = ready!(polling.as_mut().poll(context));
            self.polling = None;
            self.taken.extend(messages);
        }
    }
}
