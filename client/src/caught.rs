//! The application's code, whose panics are its own.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::env::BoxFuture;

/// A future whose panic is a `None`: what it runs is the application's, and the client goes on without it.
pub(crate) struct Caught<R>(pub BoxFuture<'static, R>);

impl<R> Future for Caught<R> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context)));
        match polled {
            Ok(poll) => poll.map(Some),
            Err(_) => {
                tracing::error!(target: "ringmq_client::consumer", "a listener or a checker panicked");
                Poll::Ready(None)
            }
        }
    }
}
