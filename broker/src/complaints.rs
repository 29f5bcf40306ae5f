//! What clients did that they should not: counted always, told in the log at most once a second for each kind, so
//! that a flood of bad input is no flood of log lines.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use ringmq_env::Instant;

use crate::connection::End;
use crate::mailbox::{CoreId, Full};

/// Least time between two log lines of one kind.
const QUIET: Duration = Duration::from_secs(1);

/// One kind of complaint.
#[derive(Default)]
pub struct Complaint {
    count: Cell<u64>,
    last_told: Cell<Option<Instant>>,
    untold: Cell<u64>,
}

impl Complaint {
    /// Counts one. When it is time for a log line: how many were left out since the last.
    pub fn add(&self, now: Instant) -> Option<u64> {
        self.count.set(self.count.get() + 1);
        if self.last_told.get().is_some_and(|last| now.since(last) < QUIET) {
            self.untold.set(self.untold.get() + 1);
            return None;
        }
        self.last_told.set(Some(now));
        Some(self.untold.replace(0))
    }

    /// How many there were since the start.
    pub fn count(&self) -> u64 {
        self.count.get()
    }
}

/// The complaints of one core.
#[derive(Default)]
pub struct Complaints {
    /// Connections closed because what they sent is no frame.
    bad_frames: Complaint,
    /// Connections closed because they would take too much memory.
    memory: Complaint,
    /// Connections closed because they were idle or did not read.
    overdue: Complaint,
    /// Connections not accepted.
    connections: Complaint,
    /// Requests refused because the lane to their core was full.
    lane_full: Complaint,
}

impl Complaints {
    /// A connection has ended.
    pub fn connection_ended(&self, now: Instant, peer: SocketAddr, end: &End) {
        match end {
            End::Frame(error) => {
                if let Some(untold) = self.bad_frames.add(now) {
                    tracing::warn!(%peer, reason = %error, untold, "closed a connection that sent no valid frame");
                }
            }
            End::Memory { wanted, used, limit } => {
                if let Some(untold) = self.memory.add(now) {
                    tracing::warn!(%peer, wanted, used, limit, untold, "closed a connection for want of memory");
                }
            }
            End::Io(error) => tracing::debug!(%peer, %error, "a connection broke"),
            End::Peer | End::Closed => tracing::trace!(%peer, "a connection ended"),
        }
    }

    /// A connection is closed because it is idle, or does not read.
    pub fn overdue(&self, now: Instant, peer: SocketAddr, reason: &str) {
        if let Some(untold) = self.overdue.add(now) {
            tracing::info!(%peer, reason, untold, "closed a connection");
        }
    }

    /// A lane to another core gave a request back.
    pub fn lane_full<M>(&self, now: Instant, to: CoreId, full: &Full<M>) {
        if let Some(untold) = self.lane_full.add(now) {
            let Full { what, value, limit, .. } = full;
            tracing::warn!(
                core = to.0,
                what,
                value,
                limit,
                untold,
                "refused a request: too many are in flight"
            );
        }
    }

    /// How often what happened since the start.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("bad_frame", self.bad_frames.count()),
            ("memory", self.memory.count()),
            ("overdue", self.overdue.count()),
            ("connection_limit", self.connections.count()),
            ("lane_full", self.lane_full.count()),
        ]
    }

    /// Tells how often what happened since the start, if anything did.
    pub fn tell_totals(&self, core: CoreId) {
        let (bad_frames, memory, overdue) =
            (self.bad_frames.count(), self.memory.count(), self.overdue.count());
        let (connections, lane_full) = (self.connections.count(), self.lane_full.count());
        if bad_frames + memory + overdue + connections + lane_full > 0 {
            tracing::info!(
                core = core.0,
                bad_frames,
                memory,
                overdue,
                connections,
                lane_full,
                "connections closed or refused, and requests refused, since the start"
            );
        }
    }

    /// A connection is not accepted.
    pub fn too_many_connections(&self, now: Instant, limit: usize) {
        if let Some(untold) = self.connections.add(now) {
            tracing::warn!(limit, untold, "refused a connection: there are as many as the limit");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_once_a_second() {
        let complaint = Complaint::default();
        assert_eq!(complaint.add(Instant(0)), Some(0));
        assert_eq!(complaint.add(Instant(1)), None);
        assert_eq!(complaint.add(Instant(2)), None);
        assert_eq!(complaint.add(Instant(0).after(QUIET)), Some(2));
        assert_eq!(complaint.count(), 4);
    }
}
