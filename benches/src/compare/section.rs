//! What a section of a comparison says: rows of loads, tables of its own, and figures against their goals.

use crate::load::{Connection, Report, Stream};
use crate::peers::Peer;
use crate::process::Costs;
use crate::wire::{PullTemplate, SUCCESS, stamps};

use super::Context;

/// One section, as it is stored between runs.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Section {
    /// The name that `--only` takes.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// How the counted runs were made.
    pub how: String,
    /// Number of the run that it was part of; `None` if it was stored before runs were described.
    #[serde(default)]
    pub run: Option<u32>,
    /// Loads, by broker.
    pub rows: Vec<Row>,
    /// What does not fit rows of loads.
    pub tables: Vec<Table>,
    /// Figures of the goals' table.
    pub figures: Vec<Figure>,
}

/// One load against one broker.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The broker.
    pub peer: String,
    /// A name of its own, if the broker and the load are not enough.
    #[serde(default)]
    pub name: Option<String>,
    /// The median run.
    pub report: Report,
    /// Messages a second of every round.
    pub rounds: Vec<f64>,
    /// Bytes of a stored record of this load, where the broker stores any.
    pub record_len: Option<usize>,
}

/// A table of text.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Column heads.
    pub head: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// Text of a table.
pub type Cell = String;

/// A figure with its goal.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Figure {
    /// What is measured.
    pub what: String,
    /// What it should be.
    pub goal: String,
    /// What it is.
    pub measured: String,
    /// Whether the goal is reached; `None` where there is nothing to compare with.
    pub reached: Option<bool>,
}

impl Section {
    /// Empty.
    pub fn new(name: &str, about: &str, context: &Context) -> Section {
        let args = &context.args;
        let how = format!("median of {} rounds, {} s each after 1 s", args.rounds, args.seconds);
        let (name, about) = (name.to_owned(), about.to_owned());
        let run = Some(context.run);
        Section { name, about, how, run, rows: Vec::new(), tables: Vec::new(), figures: Vec::new() }
    }

    /// The row of a broker under a load.
    pub fn row(&self, peer: &str, label: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.peer == peer && row.report.load.label() == label)
    }

    /// Adds the figure that RingMQ's value ÷ `other`'s is at least `goal`.
    pub fn at_least(&mut self, what: &str, label: &str, other: &str, goal: f64, of: fn(&Row) -> Option<f64>) {
        self.at_least_for("ringmq", what, label, other, goal, of);
    }

    /// [`Section::at_least`] for RingMQ as `ours` says.
    pub fn at_least_for(
        &mut self,
        ours: &str,
        what: &str,
        label: &str,
        other: &str,
        goal: f64,
        of: fn(&Row) -> Option<f64>,
    ) {
        let values = self.values([ours, other], label, of);
        self.compare(what, &format!("≥ {goal} × {other}"), values, |ratio| ratio >= goal);
    }

    /// Adds the figure that RingMQ's value ÷ `other`'s is at most `goal`.
    pub fn at_most(&mut self, what: &str, label: &str, other: &str, goal: f64, of: fn(&Row) -> Option<f64>) {
        let shown = if goal < 1.0 {
            format!("≤ 1/{:.0} of {other}", 1.0 / goal)
        } else {
            format!("≤ {goal} × {other}")
        };
        let values = self.values(["ringmq", other], label, of);
        self.compare(what, &shown, values, |ratio| ratio <= goal);
    }

    /// What `of` says of two brokers under a load.
    fn values(&self, peers: [&str; 2], label: &str, of: fn(&Row) -> Option<f64>) -> Option<(f64, f64)> {
        let [ours, theirs] = peers.map(|peer| self.row(peer, label).and_then(of));
        ours.zip(theirs)
    }

    fn compare(&mut self, what: &str, goal: &str, values: Option<(f64, f64)>, reached: impl Fn(f64) -> bool) {
        let measured = values.map_or("not measured".to_owned(), |(ours, theirs)| {
            let ratio = ours / theirs;
            let shown =
                if ratio < 0.095 { format!("1/{:.0}", 1.0 / ratio) } else { format!("{ratio:.2} ×") };
            format!("{shown} ({} against {})", show(ours), show(theirs))
        });
        let reached = values.map(|(ours, theirs)| reached(ours / theirs));
        self.figures.push(Figure { what: what.to_owned(), goal: goal.to_owned(), measured, reached });
    }

    /// Adds a figure of its own kind.
    pub fn figure(&mut self, what: &str, goal: &str, measured: String, reached: Option<bool>) {
        self.figures.push(Figure { what: what.to_owned(), goal: goal.to_owned(), measured, reached });
    }

    /// Adds a table.
    pub fn table(&mut self, title: &str, head: &[&str], rows: Vec<Vec<Cell>>) {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        self.tables.push(Table { title: title.to_owned(), head, rows });
    }
}

/// Three significant digits.
pub fn show(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Row {
    /// The run in the middle: by rate of a closed loop, by p99.9 of an open one.
    pub fn median_of(peer: &Peer, record_len: Option<usize>, mut reports: Vec<Report>) -> Row {
        let rounds = reports.iter().map(Report::rate).collect();
        let key = |report: &Report| match (&report.load.rate, &report.sent) {
            (Some(_), Some(sent)) => sent.latency.as_ref().map_or(0.0, |latency| latency.p999),
            _ => report.rate(),
        };
        reports.sort_by(|a, b| key(a).total_cmp(&key(b)));
        let report = reports.swap_remove(reports.len() / 2);
        Row { peer: peer.name.to_owned(), name: None, report, rounds, record_len }
    }

    /// A single run of RingMQ whose broker is gone.
    pub fn of(report: Report) -> Row {
        let (peer, rounds) = ("ringmq".to_owned(), vec![report.rate()]);
        Row { peer, name: None, rounds, report, record_len: None }
    }

    /// Messages a second.
    pub fn rate(&self) -> Option<f64> {
        Some(self.report.rate())
    }

    /// CPU µs of the process and of kernel workers for each message.
    pub fn cpu(&self) -> Option<f64> {
        self.report.costs.as_ref().map(Costs::all_cpu_us)
    }

    /// The same row under a name of its own, where its load and its broker do not tell it from others.
    #[must_use]
    pub fn named(self, name: &str) -> Row {
        Row { name: Some(name.to_owned()), ..self }
    }

    /// What the table's first column says.
    pub fn label(&self) -> String {
        let load = self.report.load.label();
        self.name.as_ref().map_or(load.clone(), |name| format!("{name}: {load}"))
    }

    /// Median latency of acknowledgements.
    pub fn sent_p50(&self) -> Option<f64> {
        latency(&self.report.sent, |latency| latency.p50)
    }

    /// p99.9 of acknowledgements.
    pub fn sent_p999(&self) -> Option<f64> {
        latency(&self.report.sent, |latency| latency.p999)
    }

    /// Median end-to-end latency.
    pub fn delivered_p50(&self) -> Option<f64> {
        latency(&self.report.delivered, |latency| latency.p50)
    }

    /// p99.9 of end-to-end latency.
    pub fn delivered_p999(&self) -> Option<f64> {
        latency(&self.report.delivered, |latency| latency.p999)
    }

    /// Bytes written to storage ÷ bytes of records acknowledged.
    pub fn written_ratio(&self) -> Option<f64> {
        let costs = self.report.costs.as_ref()?;
        self.report.sent.as_ref()?;
        Some(costs.written / self.record_len? as f64)
    }

    /// Bytes of records of one group commit, on average.
    pub fn commit_bytes(&self) -> Option<f64> {
        self.report.sent.as_ref()?;
        Some(self.report.costs.as_ref()?.messages_per_commit()? * self.record_len? as f64)
    }
}

fn latency(stream: &Option<Stream>, of: fn(&crate::load::Latency) -> f64) -> Option<f64> {
    stream.as_ref()?.latency.as_ref().map(of)
}

/// Bytes of a record of the load's first topic; `None` when the load stored none. To be asked for right behind the load:
/// the broker may keep its messages for as long as it has room.
pub fn record_len(peer: &Peer, report: &Report) -> anyhow::Result<Option<usize>> {
    if report.sent.is_none() || peer.name == "null" {
        return Ok(None);
    }
    let load = &report.load;
    let topic = if load.topics > 1 { format!("{}000000", load.topic) } else { load.topic.clone() };
    // The load's newest messages: an earlier load to the same topic may have had another size.
    let end = crate::load::max_offset(peer.addr, &topic, 0)?;
    let mut request = Vec::new();
    PullTemplate::new(&topic, "bench_group_len", 1, 0).write(0, 0, end.saturating_sub(1), &mut request);
    Connection::ask(peer.addr, &request, |answer| {
        let mut len = None;
        if answer.code == SUCCESS {
            stamps(answer.body, |size, _| len = Some(size))?;
        }
        Ok(len)
    })
}
