//! What may go wrong in a simulated world, and how often.

use std::path::PathBuf;

/// Rates are parts of this.
pub const CERTAIN: u32 = 1_000_000;

/// How a fault relates to what the store promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The promises hold under it.
    Covered,
    /// It takes or changes bytes that a device had confirmed, of which there is one copy: data that it hit may be
    /// lost, and is never served wrong. It is listed in [`super::Sim::take_harm`].
    Harm,
}

macro_rules! faults {
    ($($fault:ident $name:literal $severity:ident $what:literal)*) => {
        /// A fault of the machine or of the network.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $(#[doc = $what] $fault,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Fault] = &[$(Fault::$fault,)*];

            /// Its name on command lines and in traces.
            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)* }
            }

            /// What it does.
            pub fn what(self) -> &'static str {
                match self { $(Fault::$fault => $what,)* }
            }

            /// Whether the promises hold under it.
            pub fn severity(self) -> Severity {
                match self { $(Fault::$fault => Severity::$severity,)* }
            }
        }
    };
}

faults! {
    LostWrite "lost-write" Covered "A power failure takes every unsynced write from some point on."
    TornWrite "torn-write" Covered "The write at that point survives in some of its sectors."
    ReorderedWrite "reordered-write" Covered "A power failure keeps any version of each unsynced sector, each by itself."
    LostEntry "lost-entry" Covered "A power failure takes every unsynced change of a directory from some point on."
    ReorderedEntry "reordered-entry" Covered "A power failure keeps any of a directory's unsynced changes."
    HalfRename "half-rename" Covered "A power failure leaves both names of an unsynced rename."
    TornKill "torn-kill" Covered "A write that is under way when the node ends survives in some of its sectors."
    SlowDisk "slow-disk" Covered "A disk operation takes 10 ms to 10 s."
    StuckIo "stuck-io" Covered "A disk operation takes 10 s to 2 min."
    PiecewiseIo "piecewise-io" Covered "A read or write is done in two pieces at two times."
    ReadError "read-error" Covered "A read fails with EIO."
    WriteError "write-error" Covered "A write, a reservation, a rename or a removal fails with EIO, half done."
    SyncError "sync-error" Covered "A sync fails; what becomes of the unsynced writes is undefined."
    NoSpace "no-space" Covered "For up to 3 s no file can grow."
    NoSpaceAnywhere "no-space-anywhere" Covered "For up to 3 s every write fails with ENOSPC, in reserved space, too, and may have happened in part."
    Pause "pause" Covered "The node's process stands still for 1 ms to 20 s."
    ClockJump "clock-jump" Covered "The node's wall clock jumps by up to a day, forward or back."
    ClockDrift "clock-drift" Covered "The node's wall clock runs up to 5 % fast or slow from now on."
    Reset "reset" Covered "A connection is reset."
    HalfOpen "half-open" Covered "One direction of a connection goes silent for ever, without a reset."
    Partition "partition" Covered "Two nodes cannot reach each other for 1 ms to 30 s."
    SlowSegment "slow-segment" Covered "A segment takes 10 ms to 5 s, as if it had to be sent again; what follows it waits."
    SplitSegment "split-segment" Covered "A write to a connection is cut into many small segments."
    GhostConnection "ghost-connection" Covered "A duplicated SYN: the listener accepts a connection that never says anything."
    RotCold "rot-cold" Harm "A bit flips in a sector that was written at any time."
    RotTail "rot-tail" Harm "A bit flips in a sector that was written last."
    StaleRead "stale-read" Harm "A read gets what one of its sectors held before the last write."
    MisdirectedWrite "misdirected-write" Harm "A write goes to another place of its file."
    LyingSync "lying-sync" Harm "A sync says that it is done, and a power failure shows that it is not."
    TruncatedFile "truncated-file" Harm "A file is shorter when the node starts again."
    MissingFile "missing-file" Harm "A file is gone when the node starts again."
    OldFile "old-file" Harm "A file that was removed is back when the node starts again."
}

impl Fault {
    /// The fault of that name.
    pub fn from_name(name: &str) -> Option<Fault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    }
}

/// How often each fault happens, in parts per million of the occasions: disk operations, segments, crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults([u32; Fault::ALL.len()]);

impl Faults {
    /// Nothing goes wrong, and a power failure loses nothing.
    pub fn none() -> Faults {
        Faults([0; Fault::ALL.len()])
    }

    /// Nothing goes wrong before a power failure, which then takes what it may: what a world has unless told.
    pub fn power_failure() -> Faults {
        Faults::none()
            .with(Fault::ReorderedWrite, CERTAIN)
            .with(Fault::LostEntry, CERTAIN)
            .with(Fault::TornKill, CERTAIN / 2)
    }

    /// The same with another rate, at most [`CERTAIN`].
    pub fn with(mut self, fault: Fault, rate: u32) -> Faults {
        assert!(rate <= CERTAIN, "{rate} parts per million");
        self.0[fault as usize] = rate;
        self
    }

    /// Rate of a fault.
    pub fn rate(&self, fault: Fault) -> u32 {
        self.0[fault as usize]
    }

    /// The faults that may happen.
    pub fn active(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL.iter().copied().filter(|fault| self.rate(*fault) > 0)
    }
}

/// What a fault of [`Severity::Harm`] hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harm {
    /// Which.
    pub fault: Fault,
    /// The file, by its name at the time.
    pub path: PathBuf,
    /// First byte of the file that is not what was written.
    pub offset: u64,
    /// How many bytes from there on.
    pub len: u64,
}

/// The randomness of the faults: a stream for each, so that leaving one out changes nothing about the others.
pub(super) struct Dice {
    streams: Vec<fastrand::Rng>,
    counts: Vec<u64>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        let stream = |n: u64| fastrand::Rng::with_seed(seed ^ (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Dice {
            streams: (0..Fault::ALL.len() as u64).map(stream).collect(),
            counts: vec![0; Fault::ALL.len()],
        }
    }

    /// Whether the fault happens on this occasion.
    pub(super) fn roll(&mut self, faults: &Faults, fault: Fault) -> bool {
        let rate = faults.rate(fault);
        let hit = rate > 0 && self.streams[fault as usize].u32(..CERTAIN) < rate;
        self.counts[fault as usize] += u64::from(hit);
        hit
    }

    /// A number below `end`, which is above 0, from the fault's stream.
    pub(super) fn below(&mut self, fault: Fault, end: u64) -> u64 {
        self.streams[fault as usize].u64(..end)
    }

    /// How often the fault has happened.
    pub(super) fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }
}
