//! One connection: frames in, answers out, in order.

use std::cell::Cell;
use std::io;

use bytes::BytesMut;
use ringmq_env::{Instant, StreamCloser, StreamReader, StreamWriter};
use ringmq_protocol::frame::{self, Frame, FrameError, Limits};

/// What a connection starts to read with; most requests are smaller.
const READ_BUFFER: usize = 4 << 10;
/// A larger buffer is given back once it is empty.
const KEPT_BUFFER: usize = 64 << 10;
/// Answers are written once so many bytes of them wait, however many requests are still unread.
const MAX_WAITING_ANSWERS: usize = 1 << 20;

/// What the rest of the server knows of a connection.
pub(crate) struct Open {
    /// Ends it.
    pub closer: StreamCloser,
    /// When bytes last came in or went out.
    pub last: Cell<Instant>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The peer closed it, or the idle time-out or the end of the server did.
    #[error("closed")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Answers a frame by appending to the buffer.
pub(crate) trait Service {
    /// Called for every whole frame, in order; `now` was just taken.
    async fn answer(&self, frame: &Frame<'_>, out: &mut BytesMut);
    /// Told whenever bytes came in or went out.
    fn alive(&self);
}

/// Serves one connection until it ends. Holds at most one frame of `limits.max_frame` and about
/// [`MAX_WAITING_ANSWERS`] of answers; the memory for a frame grows with what has arrived of it.
pub(crate) async fn serve<R: StreamReader, W: StreamWriter>(
    mut reader: R,
    mut writer: W,
    service: &impl Service,
    limits: &Limits,
) -> End {
    let mut input = BytesMut::with_capacity(READ_BUFFER);
    let mut output = BytesMut::new();
    loop {
        match reader.read(&mut input).await {
            Ok(0) => return End::Closed,
            Ok(_) => service.alive(),
            Err(error) => return End::Io(error),
        }
        let handled = handle(&mut input, &mut output, &mut writer, service, limits).await;
        let flushed = flush(&mut output, &mut writer, service).await;
        match handled.and(flushed) {
            Ok(()) => make_room(&mut input),
            Err(end) => return end,
        }
    }
}

/// Answers every whole frame in `input`.
async fn handle<W: StreamWriter>(
    input: &mut BytesMut,
    output: &mut BytesMut,
    writer: &mut W,
    service: &impl Service,
    limits: &Limits,
) -> Result<(), End> {
    while let Some(size) = frame::peek(input, limits)?.filter(|size| *size <= input.len()) {
        let mut bytes = input.split_to(size);
        let frame = Frame::parse(&mut bytes, limits)?;
        service.answer(&frame, output).await;
        if output.len() >= MAX_WAITING_ANSWERS {
            flush(output, writer, service).await?;
        }
    }
    Ok(())
}

async fn flush<W: StreamWriter>(
    output: &mut BytesMut,
    writer: &mut W,
    service: &impl Service,
) -> Result<(), End> {
    if output.is_empty() {
        return Ok(());
    }
    writer.write_all(&[io::IoSlice::new(output)]).await?;
    service.alive();
    *output = BytesMut::new();
    Ok(())
}

/// Room for the next read: twice of what a partial frame has so far, so that a length field alone costs nothing.
fn make_room(input: &mut BytesMut) {
    if input.is_empty() && input.capacity() > KEPT_BUFFER {
        *input = BytesMut::new();
    }
    input.reserve(input.len().max(READ_BUFFER));
}
