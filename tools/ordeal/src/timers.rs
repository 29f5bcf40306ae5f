//! Makes very many timer messages wait, some for minutes and the rest for a year, and looks at when the first ones come,
//! at what live sends notice of it, and at the broker's memory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use crate::broker::BrokerCommand;
use crate::wire::Client;

const TOPIC: &str = "Timers";
const LIVE: &str = "TimersLive";
const QUEUES: u32 = 8;
const YEAR_MS: i64 = 365 * 86_400_000;
/// A message is late beyond this, in ms: the goal for the 99th percentile.
const GOAL_MS: i64 = 100;

/// The broker, and how many.
#[derive(clap::Args)]
pub struct TimersArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// Messages that wait when the first is due.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u32,
    /// How many of them come due in this run; the others wait for a year.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1..))]
    due: u32,
    /// Seconds until the first is due. All must have been sent by then.
    #[arg(long, default_value_t = 60)]
    lead: u32,
    /// Seconds over which they are due, evenly.
    #[arg(long, default_value_t = 30)]
    window: u32,
    /// Connections that send them.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Directory of the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-timers")]
    dir: PathBuf,
    /// More arguments for the broker.
    #[arg(last = true)]
    broker: Vec<String>,
}

/// Runs it; an error says which message came late, twice or never.
pub fn run(args: &TimersArgs) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(&args.dir)?;
    let extra = [&["--set".to_owned(), "timer-max-delay=1000d".to_owned()][..], &args.broker].concat();
    let command = BrokerCommand::new(args.ringmq.clone(), args.dir.canonicalize()?, "sync", &extra)?;
    let (broker, _) = command.start()?;
    let quiet = live_sends(command.addr, Duration::from_secs(3))?;
    let before = broker.resident()? >> 20;
    let first_due = now_ms() + i64::from(args.lead) * 1000;
    let started = Instant::now();
    send_all(args, command.addr, first_due)?;
    let sent_in = started.elapsed();
    ensure!(now_ms() < first_due, "sending took {sent_in:?}, longer than --lead");
    let waiting = broker.resident()? >> 20;
    println!(
        "{} timers sent in {:.1} s ({:.0}/s); memory {before} MiB before, {waiting} MiB with them",
        args.messages,
        sent_in.as_secs_f64(),
        f64::from(args.messages) / sent_in.as_secs_f64()
    );
    std::thread::sleep(Duration::from_millis((first_due - now_ms()).max(0) as u64));
    let busy = live_sends(command.addr, Duration::from_secs(args.window.into()))?;
    let late = lateness(args, command.addr)?;
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let resident = broker.resident()? >> 20;
    println!(
        "{} due over {} s ({:.0}/s): late p50 {} p99 {} p99.9 {} max {} ms; memory {resident} MiB",
        args.due,
        args.window,
        f64::from(args.due) / f64::from(args.window),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!("live sends: {} before, {} while they came due", quiet.text(), busy.text());
    broker.kill()?;
    ensure!(at(0.0) >= 0, "a message came {} ms early", -at(0.0));
    ensure!(at(0.99) <= GOAL_MS, "the 99th percentile is {} ms late, the goal is {GOAL_MS}", at(0.99));
    std::fs::remove_dir_all(&args.dir).context("removing the directory")
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Sends all; those that come due in this run are mixed with those that do not.
fn send_all(args: &TimersArgs, addr: SocketAddr, first_due: i64) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let sender = |connection: u32| {
            scope.spawn(move || -> anyhow::Result<()> {
                let mut client = Client::connect(addr)?;
                for n in (connection..args.messages).step_by(args.connections as usize) {
                    send_one(&mut client, args, n, first_due)?;
                }
                Ok(())
            })
        };
        let senders: Vec<_> = (0..args.connections).map(sender).collect();
        senders.into_iter().try_for_each(|sender| match sender.join() {
            Ok(sent) => sent,
            Err(_) => bail!("a sender panicked"),
        })
    })
}

fn send_one(client: &mut Client, args: &TimersArgs, n: u32, first_due: i64) -> anyhow::Result<()> {
    // Which ones are due soon is spread evenly over all.
    let (number, all) = (u64::from(n), u64::from(args.messages));
    let (so_far, then) = (number * u64::from(args.due) / all, (number + 1) * u64::from(args.due) / all);
    let window_ms = i64::from(args.window) * 1000;
    // Neighbours are due far apart, so that nothing comes in the order in which it was sent.
    let scattered = (so_far * 7919 % u64::from(args.due.max(1))) as i64;
    let due = match then > so_far {
        true => first_due + scattered * window_ms / i64::from(args.due),
        false => first_due + YEAR_MS + i64::from(n),
    };
    let body = format!("{n} {due}");
    let properties = format!("TIMER_DELIVER_MS\u{1}{due}\u{2}");
    match client.try_send_with(TOPIC, n % QUEUES, body.as_bytes(), &properties)? {
        Ok(_) => Ok(()),
        Err(refused) => bail!("timer {n} was answered {} {}", refused.code, refused.remark),
    }
}

/// By how many ms each that was due was late, in order. An error when one came twice or is missing.
fn lateness(args: &TimersArgs, addr: SocketAddr) -> anyhow::Result<Vec<i64>> {
    let mut client = Client::connect(addr)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut late, mut seen) = (Vec::new(), std::collections::HashSet::new());
    let mut next = [0; QUEUES as usize];
    while seen.len() < args.due as usize {
        for queue in 0..QUEUES {
            let pulled = client.pull(TOPIC, queue, next[queue as usize])?;
            next[queue as usize] = pulled.next;
            for ((_, body), stored_ms) in pulled.messages.iter().zip(pulled.stored_ms) {
                let text = std::str::from_utf8(body)?;
                let (number, due) = text.split_once(' ').context("a body that is none of ours")?;
                ensure!(seen.insert(number.to_owned()), "message {number} came twice");
                late.push(stored_ms - due.parse::<i64>()?);
            }
        }
        ensure!(Instant::now() < deadline, "only {} of {} messages have come", seen.len(), args.due);
    }
    late.sort_unstable();
    Ok(late)
}

/// Latencies of sends one after the other.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn text(&self) -> String {
        let at = |share: f64| self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        format!("{} (p50 {:.2} p99 {:.2} max {:.2} ms)", self.0.len(), at(0.5), at(0.99), at(1.0))
    }
}

fn live_sends(addr: SocketAddr, time: Duration) -> anyhow::Result<Latencies> {
    let (mut client, end) = (Client::connect(addr)?, Instant::now() + time);
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let asked = Instant::now();
        client.send(LIVE, 0, b"a message that does not wait")?;
        latencies.push(asked.elapsed());
    }
    latencies.sort_unstable();
    ensure!(!latencies.is_empty(), "no message was sent in {time:?}");
    Ok(Latencies(latencies))
}
