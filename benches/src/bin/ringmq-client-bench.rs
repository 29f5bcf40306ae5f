//! The Rust client beside the Java client: the same load on the same broker, one after the other, and what each costs.
//!
//! `ringmq-client-bench compare --namesrv ADDR --java-lib DIR` needs a broker that runs, and a directory with the jars
//! of rocketmq-client.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use ringmq_client::admin::NewTopic;
use ringmq_client::{Batch, Client, ClientConfig, ConsumeFrom, Consumed, Message, Producer};
use tokio::sync::Notify;

const JAVA: &str = include_str!("ClientLoad.java");
/// Ticks of /proc, which every Linux has at this rate.
const TICKS: f64 = 100.0;

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Sends with many sends in flight.
    Send(Load),
    /// Consumes what `send` sent.
    Consume(Load),
    /// Has a consumer of so many queues in which nothing happens.
    Idle {
        #[command(flatten)]
        load: Load,
        /// Queues of the topic, which is made.
        #[arg(long, default_value_t = 8)]
        queues: i32,
        /// How long.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Sends and consumes with both clients in turn, and prints ratios.
    Compare {
        #[command(flatten)]
        load: Load,
        /// Directory with the jars of rocketmq-client.
        #[arg(long)]
        java_lib: String,
        /// How often each is run; the best counts.
        #[arg(long, default_value_t = 2)]
        rounds: usize,
    },
}

#[derive(clap::Args, Clone)]
struct Load {
    /// Name server.
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Topic.
    #[arg(long, default_value = "ClientBench")]
    topic: String,
    /// Messages that are counted.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Bytes of a body.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Sends at a time.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Batches that make themselves: how long a message waits, in ms; 0 for none.
    #[arg(long, default_value_t = 0)]
    linger_ms: u64,
}

/// What a run cost.
#[derive(Clone, Copy)]
struct Cost {
    messages: u64,
    seconds: f64,
    cpu_seconds: f64,
}

impl Cost {
    fn since(messages: u64, began: Instant, cpu: f64) -> Result<Cost> {
        Ok(Cost { messages, seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds()? - cpu })
    }

    fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.messages as f64
    }

    fn line(&self) -> String {
        let per_second = self.messages as f64 / self.seconds;
        let per_core = 1e6 / self.cpu_us();
        format!("{per_second:>9.0} msg/s  {:>6.2} us CPU/msg  {per_core:>9.0} msg/s per core", self.cpu_us())
    }
}

/// User and system time of this process.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no process name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / TICKS)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Job::Send(load) => println!("{}", send(&load).await?.line()),
        Job::Consume(load) => println!("{}", consume(&load).await?.line()),
        Job::Idle { load, queues, seconds } => idle(&load, queues, Duration::from_secs(seconds)).await?,
        Job::Compare { load, java_lib, rounds } => compare(&load, &java_lib, rounds).await?,
    }
    Ok(())
}

async fn send(load: &Load) -> Result<Cost> {
    let client = Client::connect(ClientConfig::new(&load.namesrv)).await?;
    let mut builder = client.producer("client_bench").send_timeout(Duration::from_secs(30));
    if load.linger_ms > 0 {
        builder = builder.auto_batch(Duration::from_millis(load.linger_ms), 32 << 10);
    }
    let producer = builder.start()?;
    many(&producer, load, load.messages / 4).await?;
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    many(&producer, load, load.messages).await?;
    let cost = Cost::since(load.messages, began, cpu)?;
    client.shutdown().await;
    Ok(cost)
}

async fn many(producer: &Producer, load: &Load, count: u64) -> Result<()> {
    let body = bytes_of(load.size);
    let (next, body) = (Arc::new(AtomicU64::new(0)), Message::new(&load.topic, body)?);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..load.in_flight {
        let (producer, message, next) = (producer.clone(), body.clone(), next.clone());
        senders.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                producer.send(message.clone()).await?;
            }
            Ok::<(), ringmq_client::SendError>(())
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    Ok(())
}

fn bytes_of(size: usize) -> Vec<u8> {
    vec![0; size]
}

/// A fifth of the messages are not counted.
async fn consume(load: &Load) -> Result<Cost> {
    let client = Client::connect(ClientConfig::new(&load.namesrv)).await?;
    let (seen, changed) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let (first, all) = (load.messages / 5, load.messages);
    let listener = {
        let (seen, changed) = (seen.clone(), changed.clone());
        move |batch: Batch| {
            let now = seen.fetch_add(batch.len() as u64, Ordering::Relaxed) + batch.len() as u64;
            if now == first || now == all {
                changed.notify_one();
            }
            async { Consumed::All }
        }
    };
    let group = format!("client_bench_{}", std::process::id());
    let builder = client.push_consumer(group).subscribe(&load.topic, "*");
    let consumer = builder.consume_from(ConsumeFrom::FirstOffset).start(listener).await?;
    changed.notified().await;
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    while seen.load(Ordering::Relaxed) < all {
        changed.notified().await;
    }
    let cost = Cost::since(all - first, began, cpu)?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(cost)
}

async fn idle(load: &Load, queues: i32, time: Duration) -> Result<()> {
    let client = Client::connect(ClientConfig::new(&load.namesrv)).await?;
    let topic = NewTopic { queues, ..NewTopic::new(format!("{}_{queues}", load.topic)) };
    client.admin().create_topic(&topic).await?;
    while client.admin().queues(&topic.name).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let builder = client.push_consumer("client_bench_idle").subscribe(&topic.name, "*");
    let consumer = builder.start(|_: Batch| async { Consumed::All }).await?;
    let began = Instant::now();
    while consumer.queues().iter().filter(|queue| queue.topic == topic.name).count() < queues as usize {
        ensure!(began.elapsed() < Duration::from_secs(60), "only {} queues came", consumer.queues().len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("{queues} queues taken after {:.1} s", began.elapsed().as_secs_f64());
    // Every queue has made its first pull by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    tokio::time::sleep(time).await;
    let share = (cpu_seconds()? - cpu) / began.elapsed().as_secs_f64();
    println!("idle with {queues} queues: {:.2} % of a core, {} KiB resident", share * 100.0, resident_kib()?);
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

async fn compare(load: &Load, lib: &str, rounds: usize) -> Result<()> {
    for verb in ["send", "consume"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(if verb == "send" { send(load).await? } else { consume(load).await? });
            theirs.push(java(lib, verb, load)?);
        }
        let best = |costs: Vec<Cost>| costs.into_iter().min_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()));
        let (ours, theirs) = best(ours).zip(best(theirs)).context("no round was run")?;
        println!("{verb:<8} Rust  {}", ours.line());
        println!("{verb:<8} Java  {}", theirs.line());
        println!("{verb:<8} Java needs {:.1} times the CPU", theirs.cpu_us() / ours.cpu_us());
    }
    Ok(())
}

fn java(lib: &str, verb: &str, load: &Load) -> Result<Cost> {
    let path = std::env::temp_dir().join("ClientLoad.java");
    std::fs::write(&path, JAVA)?;
    let (messages, size, in_flight) =
        (load.messages.to_string(), load.size.to_string(), load.in_flight.to_string());
    let output = Command::new("java")
        .args(["-Xmx512m", "-cp", &format!("{lib}/*")])
        .arg(&path)
        .args([verb, &load.namesrv, &load.topic, &messages, &size, &in_flight])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Among what a logger may print there.
    let numbers =
        |line: &str| line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<Vec<f64>>>();
    match text.lines().filter_map(numbers).find(|numbers| numbers.len() == 3).as_deref() {
        Some(&[messages, seconds, cpu_seconds]) => {
            Ok(Cost { messages: messages as u64, seconds, cpu_seconds })
        }
        _ => bail!("the Java client printed {text}{}", String::from_utf8_lossy(&output.stderr)),
    }
}
