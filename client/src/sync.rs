//! Locks for a few instructions: none is held across an await, none is handed out.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic in a holder leaves the value as it was; no holder here panics halfway through a change.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
