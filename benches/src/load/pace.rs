//! A schedule: when each request of an open loop is due, whatever the answers do.

use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The clock is looked at no more often than this.
const SHORTEST_TICK_NS: f64 = 50_000.0;
const NS_PER_S: f64 = 1e9;

/// Ticks of a timer that wake the loop, and the due times of requests.
pub struct Pace {
    timer: OwnedFd,
    interval_ns: f64,
    made: u64,
}

impl Pace {
    /// `rate` requests a second; ticks arrive in `poll` under `token`.
    pub fn new(poll: &Poll, token: usize, rate: f64) -> anyhow::Result<Pace> {
        anyhow::ensure!(rate > 0.0, "a rate of {rate} requests a second");
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let interval_ns = NS_PER_S / rate;
        let tick = interval_ns.max(SHORTEST_TICK_NS) as i64;
        let tick = Timespec { tv_sec: tick / NS_PER_S as i64, tv_nsec: tick % NS_PER_S as i64 };
        let spec = Itimerspec { it_interval: tick, it_value: tick };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), Token(token), Interest::READABLE)?;
        Ok(Pace { timer, interval_ns, made: 0 })
    }

    /// Takes note of a tick.
    pub fn tick(&self) {
        // Nothing to read means that the tick was already taken note of.
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8][..]);
    }

    /// The due time of the next request, if it is due by `now_ns`.
    pub fn next_due(&mut self, now_ns: u64) -> Option<u64> {
        let due = (self.made as f64 * self.interval_ns) as u64;
        (due <= now_ns).then(|| {
            self.made += 1;
            due
        })
    }
}
