//! The process and its surroundings: what is checked before anything starts, and how it is told to stop.

mod heap;
mod lock;
mod ports;
mod preflight;
mod signals;
#[cfg(test)]
pub(crate) mod tests;

pub use heap::keep_freed_memory;
pub use lock::{Holder, LockError, LockFile};
pub use ports::{PortOwner, port_owner};
pub use preflight::{Facts, PreflightError, preflight};
pub use signals::TerminationSignals;
