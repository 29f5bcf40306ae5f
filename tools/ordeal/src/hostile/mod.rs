//! Attacks a broker for a while and watches what a well-behaved client and the process itself notice of it.

mod attack;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::broker::BrokerCommand;
use crate::random::Random;
use crate::wire::Client;

const TOPIC: &str = "WellBehaved";
/// Pause of an attacker between two attacks: the point is malice, not load.
const ATTACK_PAUSE: Duration = Duration::from_millis(2);

/// What to attack, how long.
#[derive(clap::Args)]
pub struct HostileArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// More arguments for `ringmq server`; may be given several times.
    #[arg(long = "ringmq-arg", allow_hyphen_values = true)]
    ringmq_args: Vec<String>,
    /// Seconds of attack.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Attackers at a time.
    #[arg(long, default_value_t = 8)]
    attackers: u64,
    /// Idle connections held open meanwhile.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Memory that the process may gain by the attack, in MiB.
    #[arg(long, default_value_t = 128)]
    memory_gain: u64,
    /// Decides what the attackers do.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory of the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-hostile")]
    dir: PathBuf,
}

/// Runs the attack; an error says what the broker did wrong.
pub fn run(args: &HostileArgs) -> anyhow::Result<()> {
    raise_descriptor_limit(args.idle as u64 + 512)?;
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(&args.dir)?;
    let command =
        BrokerCommand::new(args.ringmq.clone(), args.dir.canonicalize()?, "sync", &args.ringmq_args)?;
    let (broker, _) = command.start()?;
    let mut client = Client::connect(command.addr)?;
    behave(&mut client, Duration::from_secs(1))?;
    let (quiet, before) = (behave(&mut client, Duration::from_secs(5))?, broker.resident()?);
    let idle = connect_idle(command.addr, args.idle)?;
    let with_idle = broker.resident()?;
    let attackers = Attackers::start(command.addr, args);
    let attacked = behave(&mut client, Duration::from_secs(args.seconds)).context("while under attack")?;
    let attacks = attackers.finish();
    drop(idle);
    let after = broker.resident()?;
    behave(&mut client, Duration::from_secs(1)).context("after the attack")?;
    println!(
        "{attacks} attacks and {} idle connections: p99 of a well-behaved client {:?} before, {:?} during ({:.2} x); memory \
         {} MiB before, {} MiB with the idle connections, {} MiB after",
        args.idle,
        quiet,
        attacked,
        attacked.as_secs_f64() / quiet.as_secs_f64(),
        before >> 20,
        with_idle >> 20,
        after >> 20
    );
    let gain = after.saturating_sub(before) >> 20;
    ensure!(gain <= args.memory_gain, "the process gained {gain} MiB, the limit is {}", args.memory_gain);
    broker.kill().context("the broker did not survive")?;
    std::fs::remove_dir_all(&args.dir).context("removing the store")
}

/// Sends one message after another and returns the 99th percentile; any failed send is an error.
fn behave(client: &mut Client, time: Duration) -> anyhow::Result<Duration> {
    let (end, mut latencies) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let start = Instant::now();
        client.send(TOPIC, 0, b"a message like any other")?;
        latencies.push(start.elapsed());
    }
    latencies.sort();
    Ok(latencies[latencies.len() * 99 / 100])
}

fn connect_idle(addr: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    (0..count)
        .map(|index| {
            TcpStream::connect_timeout(&addr, Duration::from_secs(10))
                .with_context(|| format!("idle connection {index}"))
        })
        .collect()
}

fn raise_descriptor_limit(needed: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    ensure!(enough(limit.maximum), "{needed} descriptors are needed: raise ulimit -Hn, or give --idle less");
    if !enough(limit.current) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })?;
    }
    Ok(())
}

struct Attackers {
    stop: Arc<AtomicBool>,
    attacks: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attackers {
    fn start(addr: SocketAddr, args: &HostileArgs) -> Attackers {
        let (stop, attacks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..args.attackers)
            .map(|index| {
                let (stop, attacks) = (Arc::clone(&stop), Arc::clone(&attacks));
                let mut random = Random::new(args.seed.wrapping_mul(1_000_003) + index);
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let kind = random.below(attack::ATTACKS.len() as u64) as usize;
                        attack::carry_out(kind, addr, &mut random);
                        attacks.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(ATTACK_PAUSE);
                    }
                })
            })
            .collect();
        Attackers { stop, attacks, threads }
    }

    /// Stops them and returns how many attacks were carried out.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A panic of an attacker is a defect of this tool, and shows on its standard error.
            let _ = thread.join();
        }
        self.attacks.load(Ordering::Relaxed)
    }
}
