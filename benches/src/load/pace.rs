//! A schedule: when each request of an open loop is due, whatever the answers do.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The clock is looked at no more often than this.
const SHORTEST_TICK_NS: u64 = 50_000;
const NS_PER_S: f64 = 1e9;

/// A timer that wakes the loop when a request is due, and the due times. It is set anew for each: ticks at an interval
/// of their own would come up to an interval late, by as much in every tick of a run.
pub struct Pace {
    timer: OwnedFd,
    interval_ns: f64,
    made: u64,
}

impl Pace {
    /// `rate` requests a second; ticks arrive in `poll` under `token`, the first at once.
    pub fn new(poll: &Poll, token: usize, rate: f64) -> anyhow::Result<Pace> {
        anyhow::ensure!(rate > 0.0, "a rate of {rate} requests a second");
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), Token(token), Interest::READABLE)?;
        let pace = Pace { timer, interval_ns: NS_PER_S / rate, made: 0 };
        pace.set(1)?;
        Ok(pace)
    }

    /// All that was due is made: has the next tick come with the next request, but not too soon.
    pub fn rest(&self, now_ns: u64) -> anyhow::Result<()> {
        self.set(self.due().saturating_sub(now_ns).max(SHORTEST_TICK_NS))
    }

    /// Setting it takes back the tick that was there.
    fn set(&self, wait_ns: u64) -> anyhow::Result<()> {
        let (seconds, rest) = (wait_ns / NS_PER_S as u64, wait_ns % NS_PER_S as u64);
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds as i64, tv_nsec: rest as i64 },
        };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    fn due(&self) -> u64 {
        (self.made as f64 * self.interval_ns) as u64
    }

    /// The due time of the next request, if it is due by `now_ns`.
    pub fn next_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.due();
        (due <= now_ns).then(|| {
            self.made += 1;
            due
        })
    }
}
