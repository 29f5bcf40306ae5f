//! Kills the broker with SIGKILL at random moments under load, over and over, and checks after each kill that every
//! acknowledged message is there once, at its offset, byte for byte; that offsets have no gap; that nothing a
//! reader saw has gone; and that committed consumer offsets did not go back.

mod load;
mod message;
mod model;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::broker::BrokerCommand;
use crate::random::Random;
use crate::wire::Client;
use load::{Load, Observed, TOPIC};
use message::MessageNumber;
use model::Model;

/// How and how often to kill.
#[derive(clap::Args)]
pub struct KillArgs {
    /// The broker's binary.
    #[arg(long, default_value = "target/release/ringmq")]
    ringmq: PathBuf,
    /// More arguments for `ringmq server`; may be given several times.
    #[arg(long = "ringmq-arg", allow_hyphen_values = true)]
    ringmq_args: Vec<String>,
    /// How often the broker is killed.
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
    /// Flush mode: sync or async.
    #[arg(long, default_value = "sync")]
    flush: String,
    /// Connections that send.
    #[arg(long, default_value_t = 16)]
    producers: u32,
    /// Longest time under load before a kill, in ms; one round in 16 is longer by the interval at which consumer
    /// offsets are made durable.
    #[arg(long, default_value_t = 400)]
    longest_ms: u64,
    /// Decides when the kills happen.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory of the store and the broker's output; removed when all is well.
    #[arg(long, default_value = "target/ordeal-kill")]
    dir: PathBuf,
}

/// Runs the loop; an error says what was lost, and where the store is kept.
pub fn run(args: &KillArgs) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(&args.dir);
    std::fs::create_dir_all(&args.dir)?;
    let command =
        BrokerCommand::new(args.ringmq.clone(), args.dir.canonicalize()?, &args.flush, &args.ringmq_args)?;
    let (mut model, mut random, mut starts) = (Model::new(), Random::new(args.seed), Vec::new());
    create_topic(&command, &mut model).context("creating the topic")?;
    for round in 0..args.rounds {
        run_round(args, &command, &mut model, &mut random, &mut starts, round).with_context(|| {
            format!("round {round} of seed {}; the store is kept in {}", args.seed, args.dir.display())
        })?;
        if (round + 1).is_multiple_of(50) {
            println!("{} kills, {} acknowledged messages, all there", round + 1, model.acknowledged);
        }
    }
    let (broker, _) = command.start()?;
    model.check_everything(&mut Client::connect(command.addr)?).context("at the end")?;
    drop(broker);
    starts.sort();
    println!(
        "{} kills ({} flush): {} acknowledged messages, none lost, none twice; start after a kill: median {:?}, longest {:?}",
        args.rounds,
        args.flush,
        model.acknowledged,
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
    std::fs::remove_dir_all(&args.dir).context("removing the store")
}

/// Creates the topic with a first message, so that even a kill at once leaves something to check.
fn create_topic(command: &BrokerCommand, model: &mut Model) -> anyhow::Result<()> {
    let (broker, _) = command.start()?;
    let mut client = Client::connect(command.addr)?;
    let number = MessageNumber { sender: u32::MAX, sequence: 0 };
    let stored = client.send(TOPIC, 0, &message::body(number))?;
    let observed = Observed { acknowledged: vec![(stored, number)], ..Observed::default() };
    model.check_round(&mut client, &observed, Instant::now(), Duration::ZERO)?;
    broker.kill()
}

/// Starts, loads, kills, starts again (sometimes killed while it recovers), checks, and stops by a kill as well.
fn run_round(
    args: &KillArgs,
    command: &BrokerCommand,
    model: &mut Model,
    random: &mut Random,
    starts: &mut Vec<Duration>,
    round: u32,
) -> anyhow::Result<()> {
    let (broker, _) = command.start()?;
    let load = Load::start(command.addr, args.producers, round * args.producers, model.ends());
    // Offsets are promised to within their flush interval: 1 s with SYNC_FLUSH, 5 s otherwise; and some slack.
    let interval = Duration::from_millis(if args.flush == "sync" { 1_500 } else { 6_000 });
    let outlast = if random.below(16) == 0 { interval } else { Duration::ZERO };
    std::thread::sleep(outlast + Duration::from_millis(random.below(args.longest_ms.max(1))));
    let killed = Instant::now();
    broker.kill()?;
    let observed = load.finish();
    while random.below(4) == 0 {
        let recovering = command.spawn()?;
        std::thread::sleep(Duration::from_micros(random.below(50_000)));
        recovering.kill()?;
    }
    let (broker, ready_after) = command.start()?;
    starts.push(ready_after);
    model.check_round(&mut Client::connect(command.addr)?, &observed, killed, interval)?;
    broker.kill()
}
