//! The report as Markdown: the figures against their goals, then every section's tables.

use std::fmt::Write as _;

use crate::compare::{Figure, Row, Run, Section};
use crate::load::Stream;
use crate::process::CommitSizes;
use crate::report::svg;

const STREAM_HEAD: [&str; 11] =
    ["load", "broker", "", "msg/s", "÷ java", "÷ null", "p50 µs", "p99", "p99.9", "p99.99", "max"];
/// Heads of what [`costs`] says; it stands in the first line of a row only.
const COSTS_HEAD: [&str; 9] = [
    "CPU µs/msg",
    "kernel µs/msg",
    "both ÷ java",
    "MiB",
    "written ÷ stored",
    "switches/msg",
    "msgs/commit",
    "KiB/commit: p50, p99",
    "flushes/1000 msgs",
];

const RUNS_HEAD: [&str; 13] = [
    "run",
    "date (UTC)",
    "processor",
    "cores",
    "memory",
    "kernel",
    "file system",
    "RingMQ",
    "its rustc",
    "java",
    "fio",
    "commit",
    "command",
];

/// The whole page; of `runs`, those that the sections are from.
pub fn page(runs: &[Run], sections: &[Section]) -> String {
    let mut out = String::new();
    write_runs(runs.iter().filter(|run| sections.iter().any(|s| s.run == Some(run.number))), &mut out);
    write_figures(sections.iter().flat_map(|section| &section.figures), &mut out);
    sections.iter().for_each(|section| write_section(section, &mut out));
    out
}

fn write_runs<'a>(runs: impl Iterator<Item = &'a Run>, out: &mut String) {
    out.push_str("## Runs\n\n");
    line(out, RUNS_HEAD.map(String::from));
    rule(out, RUNS_HEAD.len());
    runs.for_each(|run| line(out, run_cells(run)));
}

fn run_cells(run: &Run) -> [String; RUNS_HEAD.len()] {
    let told = |value: &Option<String>| value.clone().unwrap_or_else(dash);
    [
        run.number.to_string(),
        run.date.clone(),
        told(&run.cpu),
        run.cores.to_string(),
        run.memory_gib.map_or(dash(), |gib| format!("{gib:.1} GiB")),
        run.kernel.clone(),
        told(&run.file_system),
        told(&run.ringmq),
        told(&run.rustc),
        told(&run.java),
        told(&run.fio),
        told(&run.commit),
        format!("`{}`", run.command),
    ]
}

fn write_figures<'a>(figures: impl Iterator<Item = &'a Figure>, out: &mut String) {
    out.push_str("\n## Figures\n\n");
    line(out, ["figure", "goal", "measured", "verdict"].map(String::from));
    rule(out, 4);
    for figure in figures {
        let verdict = match figure.reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "–",
        };
        line(out, [figure.what.clone(), figure.goal.clone(), figure.measured.clone(), verdict.into()]);
    }
}

fn write_section(section: &Section, out: &mut String) {
    // Writing to a String cannot fail.
    let run = section.run.map_or(String::new(), |run| format!("; run {run}"));
    let _ = write!(out, "\n## {}\n\n{}; {}{run}.\n\n", section.name, section.about, section.how);
    if !section.rows.is_empty() {
        line(out, STREAM_HEAD.iter().chain(&COSTS_HEAD).map(|head| (*head).to_owned()));
        rule(out, STREAM_HEAD.len() + COSTS_HEAD.len());
        section.rows.iter().for_each(|row| load_rows(section, row, out));
    }
    if svg::latencies(section).is_some() {
        let _ = write!(out, "\n![latencies]({}.svg)\n", section.name);
    }
    for table in &section.tables {
        let _ = write!(out, "\n{}:\n\n", table.title);
        line(out, table.head.iter().cloned());
        rule(out, table.head.len());
        table.rows.iter().for_each(|row| line(out, row.iter().cloned()));
    }
}

fn line(out: &mut String, cells: impl IntoIterator<Item = String>) {
    out.push('|');
    for cell in cells {
        let _ = write!(out, " {cell} |");
    }
    out.push('\n');
}

fn rule(out: &mut String, columns: usize) {
    out.push('|');
    out.push_str(&"---|".repeat(columns));
    out.push('\n');
}

/// One line for each kind of client of the load.
fn load_rows(section: &Section, row: &Row, out: &mut String) {
    type Pick = fn(&Row) -> Option<&Stream>;
    let kinds: [(&str, Pick); 3] = [
        ("sent", |row| row.report.sent.as_ref()),
        ("delivered", |row| row.report.delivered.as_ref()),
        ("read", |row| row.report.read.as_ref()),
    ];
    let mut first = true;
    for (kind, pick) in kinds {
        let Some(stream) = pick(row) else { continue };
        let other =
            |peer: &str| section.row(peer, &row.report.load.label()).filter(|other| other.peer != row.peer);
        let rate = |peer: &str| other(peer).and_then(pick).map(|theirs| stream.rate() / theirs.rate());
        let mut cells = vec![row.label(), row.peer.clone(), kind.into()];
        cells.push(format!(
            "{:.0}{}",
            stream.rate(),
            if stream.errors.is_empty() { "" } else { " (errors)" }
        ));
        cells.extend([rate("java"), rate("null")].map(ratio));
        let latency = stream.latency.as_ref();
        let shown =
            |of: fn(&crate::load::Latency) -> f64| latency.map_or(dash(), |l| format!("{:.0}", of(l)));
        cells.extend([
            shown(|l| l.p50),
            shown(|l| l.p99),
            shown(|l| l.p999),
            shown(|l| l.p9999),
            shown(|l| l.max),
        ]);
        assert_eq!(cells.len(), STREAM_HEAD.len());
        cells.extend(if first { costs(row, other("java")) } else { no_costs() });
        line(out, cells);
        first = false;
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn ratio(value: Option<f64>) -> String {
    value.map_or(dash(), |ratio| format!("{ratio:.2}"))
}

fn no_costs() -> [String; COSTS_HEAD.len()] {
    std::array::from_fn(|_| dash())
}

/// A cell for each of [`COSTS_HEAD`].
fn costs(row: &Row, java: Option<&Row>) -> [String; COSTS_HEAD.len()] {
    let Some(costs) = &row.report.costs else { return no_costs() };
    let theirs = java.and_then(|java| java.report.costs.as_ref());
    [
        format!("{:.2}", costs.cpu_us),
        format!("{:.2}", costs.kernel_cpu_us),
        ratio(theirs.map(|theirs| costs.all_cpu_us() / theirs.all_cpu_us())),
        format!("{:.0}", costs.resident_mib),
        row.written_ratio().map_or(dash(), |written| format!("{written:.2}")),
        format!("{:.3}", costs.switches),
        // A server that stores nothing commits nothing.
        costs.messages_per_commit().filter(|_| row.peer != "null").map_or(dash(), |n| format!("{n:.1}")),
        costs.commits.as_ref().and_then(CommitSizes::label).unwrap_or_else(dash),
        costs.flushes_per_thousand().map_or(dash(), |n| format!("{n:.2}")),
    ]
}
