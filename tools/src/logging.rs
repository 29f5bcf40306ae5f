//! The log, on stderr, and what a panic does.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` is a level, or a list such as `info,ringmq_broker=debug`.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(filter).with_context(|| format!("log-level = \"{filter}\""))?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    subscriber.with_ansi(colours).with_target(false).init();
    abort_on_panic();
    Ok(())
}

/// A panic is a bug, and one thread of several that has stopped half-way is worse than none: it is told, and the
/// process ends with SIGABRT.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        eprintln!("ringmq: this is a bug: please report it with the lines above");
        std::process::abort();
    }));
}
