//! The same loads against each broker in turn, in one run, with ratios: absolute figures of a shared machine say
//! little, ratios between neighbours in time say more.
//!
//! A comparison consists of sections. Each leaves a JSON file in the results' directory; the report is made of all
//! that are there, so that sections may run one at a time.

mod context;
mod run;
mod section;
mod sections;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

pub use context::{Context, RINGMQ_AT_LIMIT};
pub use run::Run;
pub use section::{Figure, Row, Section, record_len};

use crate::report;

/// What to compare.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {
    /// RingMQ's binary; with `cargo run` it is built first when left out.
    #[arg(long)]
    ringmq: Option<PathBuf>,
    /// More arguments for `ringmq server`; may be given several times.
    #[arg(long = "ringmq-arg", allow_hyphen_values = true)]
    ringmq_args: Vec<String>,
    /// Directory with the Java broker's jars (org.apache.rocketmq:rocketmq-broker, -namesrv and what they depend
    /// on); without it the Java broker is left out.
    #[arg(long)]
    java_lib: Option<PathBuf>,
    /// rocketmq-rust's broker (`cargo install rocketmq-broker` makes `rocketmq-broker-rust`); without it that broker
    /// is left out.
    #[arg(long)]
    rust_broker: Option<PathBuf>,
    /// Sections to run, separated by commas; all of them when left out. `list` names them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Loads of the sections `sync` and `async`, as CONNECTIONSxINFLIGHT.
    #[arg(long, value_delimiter = ',')]
    loads: Vec<context::Shape>,
    /// How often each load is run against each broker; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that the Java broker is warmed up before the first round.
    #[arg(long, default_value_t = 15.0)]
    java_warm_up: f64,
    /// Seconds of each counted run.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Bytes of log of the sections about large stores, in GiB.
    #[arg(long, default_value_t = 10.0)]
    gib: f64,
    /// Directory for the stores and logs of the run; made, and removed at the end.
    #[arg(long, default_value = "benches/results/run.tmp")]
    dir: PathBuf,
    /// Where report.md, report.json and the plots go.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

/// Runs the comparison and writes its report. `prefix`: arguments before this program's subcommands.
pub fn run(args: &CompareArgs, prefix: &[std::ffi::OsString]) -> anyhow::Result<()> {
    let all = sections::ALL;
    if args.only.iter().any(|name| name == "list") {
        all.iter().for_each(|(name, about, _)| println!("{name:<10} {about}"));
        return Ok(());
    }
    let unknown = args.only.iter().find(|name| all.iter().all(|(known, ..)| known != name));
    ensure!(unknown.is_none(), "--only: no section {}; `--only list` names them", unknown.map_or("", |n| n));
    ensure!(args.rounds > 0 && args.seconds > 0.0, "--rounds and --seconds: more than 0");
    let context = Context::new(args, prefix)?;
    for (name, about, section) in all {
        if args.only.is_empty() || args.only.iter().any(|only| only == name) {
            eprintln!("== {name}: {about}");
            let mut result = Section::new(name, about, &context);
            context.rest();
            section(&context, &mut result)?;
            context.clean()?;
            report::save_section(&args.results, &result)?;
        }
    }
    let report = report::write(&args.results, &all.map(|(name, ..)| name))?;
    println!("{}", std::fs::read_to_string(&report).with_context(|| report.display().to_string())?);
    context.remove()
}
