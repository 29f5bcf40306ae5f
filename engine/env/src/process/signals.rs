//! SIGTERM and SIGINT as an event.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals that wait to be seen; more of them say nothing new.
const CAPACITY: usize = 8;

/// Tells when the process is asked to end. Installed once, before the executors start, and given to one of them.
#[derive(Clone, Debug)]
pub struct TerminationSignals {
    signals: flume::Receiver<i32>,
}

impl TerminationSignals {
    /// From now on SIGTERM and SIGINT do not end the process any more, but are told here. Starts a thread that
    /// sleeps until a signal comes.
    pub fn install() -> io::Result<TerminationSignals> {
        let mut incoming = Signals::new([SIGTERM, SIGINT])?;
        let (sender, signals) = flume::bounded(CAPACITY);
        std::thread::Builder::new().name("ringmq-signals".into()).spawn(move || {
            for signal in incoming.forever() {
                // Full: the process knows. Gone: it is ending.
                let _ = sender.try_send(signal);
            }
        })?;
        Ok(TerminationSignals { signals })
    }

    /// Waits for the next of the two; returns its name. A second one usually means "at once".
    pub async fn next(&self) -> &'static str {
        match self.signals.recv_async().await {
            Ok(SIGINT) => "SIGINT",
            Ok(_) => "SIGTERM",
            // The thread never ends, unless the process does.
            Err(_) => std::future::pending().await,
        }
    }
}
