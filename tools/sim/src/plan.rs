//! What a seed means: how long the run is, how the store is set up, and what goes wrong how often.
//!
//! Everything follows from level and seed; what the shrinker takes away is kept beside it ([`Cuts`]), so that a
//! failure is named by a few words on a command line.

use std::fmt;

use clap::{Args, ValueEnum};
use ringmq_env::sim::{CERTAIN, Fault, Faults, Severity};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// One shard's storage, and crash upon crash.
    Shard,
    /// Brokers, one or two name servers and clients on a network.
    Node,
}

/// What is left out of a run, or added to it.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Faults that do not happen, by name.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    pub without: Vec<Fault>,
    /// Faults that happen often, by name.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    pub often: Vec<Fault>,
    /// At most so many lives of the process.
    #[arg(long)]
    pub lives: Option<u32>,
    /// At most so many clients at a time.
    #[arg(long)]
    pub clients: Option<u32>,
    /// At most so many operations of each client in a life.
    #[arg(long)]
    pub ops: Option<u32>,
    /// At most so many brokers.
    #[arg(long)]
    pub brokers: Option<u32>,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::from_name(name).ok_or_else(|| format!("there is no fault {name}"))
}

impl fmt::Display for Cuts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, faults) in [("without", &self.without), ("often", &self.often)] {
            if !faults.is_empty() {
                let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
                write!(out, " --{name} {}", names.join(","))?;
            }
        }
        let numbers =
            [("lives", self.lives), ("clients", self.clients), ("ops", self.ops), ("brokers", self.brokers)];
        for (name, cut) in numbers {
            if let Some(most) = cut {
                write!(out, " --{name} {most}")?;
            }
        }
        Ok(())
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is simulated.
    pub level: Level,
    /// What all randomness comes from.
    pub seed: u64,
    /// What was left out.
    pub cuts: Cuts,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// SYNC_FLUSH.
    pub sync_flush: bool,
    /// How often the process is started.
    pub lives: u32,
    /// Clients at a time.
    pub clients: u32,
    /// Operations of each client in a life.
    pub ops: u32,
    /// Brokers.
    pub brokers: u32,
    /// Name servers.
    pub name_servers: u32,
    /// Limits of memory and queues are as small as they may be.
    pub small: bool,
    /// In some lives the disk has a real limit.
    pub quota: bool,
    /// Harm hits only what can be made anew from the log: runs of the index, tables of waiting records.
    pub spares_log: bool,
    /// Each life of a shard has SYNC_FLUSH or not, as it happens.
    pub changes_flush: bool,
}

impl Plan {
    /// The run that `seed` stands for, without what is cut.
    pub fn new(level: Level, seed: u64, cuts: &Cuts) -> Plan {
        // Of its own, so that the plan does not depend on what a world draws.
        let mut random = fastrand::Rng::with_seed(seed ^ 0x706c_616e);
        let mut faults = mix(&mut random, level);
        for fault in &cuts.often {
            let rate = if matches!(kind(*fault), Kind::AtCrash) { CERTAIN / 2 } else { OFTEN };
            faults = faults.with(*fault, rate);
        }
        for fault in &cuts.without {
            faults = faults.with(*fault, 0);
        }
        let (lives, clients, ops) = match level {
            Level::Shard => (random.u32(5..60), random.u32(1..4), random.u32(5..60)),
            Level::Node => (random.u32(2..8), random.u32(1..5), random.u32(10..80)),
        };
        let cut = |value: u32, most: Option<u32>| most.map_or(value, |most| value.min(most));
        Plan {
            level,
            seed,
            cuts: cuts.clone(),
            faults,
            sync_flush: random.bool(),
            lives: cut(lives, cuts.lives),
            clients: cut(clients, cuts.clients),
            ops: cut(ops, cuts.ops),
            small: random.u8(..4) == 0,
            quota: random.u8(..4) == 0,
            brokers: cut([1, 1, 1, 2, 2, 3][random.usize(..6)], cuts.brokers),
            name_servers: random.u32(1..3),
            spares_log: random.u8(..3) == 0,
            changes_flush: random.u8(..4) == 0,
        }
    }

    /// The command that runs it again and shows what happens.
    pub fn replay_command(&self) -> String {
        let level = self.level.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
        format!("ringmq-sim replay {} --level {level}{}", self.seed, self.cuts)
    }

    /// Whether bytes that were confirmed may be taken or changed.
    pub fn harms(&self) -> bool {
        self.faults.active().any(|fault| fault.severity() == Severity::Harm)
    }
}

/// Rate of a fault that happens often.
const OFTEN: u32 = 5_000;

/// The faults of power failures are nearly always there, a few of the others, and harm in some runs.
fn mix(random: &mut fastrand::Rng, level: Level) -> Faults {
    let mut faults = Faults::none();
    // What becomes of harmed bytes is the store's affair, and checked there.
    let harms = random.u8(..4) == 0 && level == Level::Shard;
    for fault in Fault::ALL {
        let rate = match (kind(*fault), fault.severity()) {
            (Kind::AtCrash, Severity::Covered) if random.u8(..4) > 0 => random.u32(..=CERTAIN),
            (Kind::AtCrash, Severity::Harm) if harms && random.u8(..6) == 0 => random.u32(..CERTAIN / 10),
            (Kind::OnDisk, Severity::Covered) if random.u8(..5) == 0 => spread(random, 20, 8_000),
            (Kind::OnDisk, Severity::Harm) if harms && random.u8(..5) == 0 => spread(random, 20, 4_000),
            (Kind::OnNetwork, _) if level == Level::Node && random.u8(..4) == 0 => spread(random, 20, 8_000),
            _ => 0,
        };
        faults = faults.with(*fault, rate);
    }
    faults
}

/// A number from a range of magnitudes.
fn spread(random: &mut fastrand::Rng, from: u32, to: u32) -> u32 {
    let magnitudes = (to / from).ilog2();
    let scale = from << random.u32(..=magnitudes);
    scale + random.u32(..scale)
}

enum Kind {
    AtCrash,
    OnDisk,
    OnNetwork,
}

fn kind(fault: Fault) -> Kind {
    use Fault::*;
    match fault {
        LostWrite | TornWrite | ReorderedWrite | LostEntry | ReorderedEntry | HalfRename | TornKill
        | TruncatedFile | MissingFile | OldFile => Kind::AtCrash,
        Reset | HalfOpen | Partition | SlowSegment | SplitSegment | GhostConnection => Kind::OnNetwork,
        SlowDisk | StuckIo | PiecewiseIo | ReadError | WriteError | SyncError | NoSpace | NoSpaceAnywhere
        | Pause | ClockJump | ClockDrift | RotCold | RotTail | StaleRead | MisdirectedWrite | LyingSync => {
            Kind::OnDisk
        }
    }
}
