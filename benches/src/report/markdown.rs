//! The report as Markdown: the figures against their goals, then every section's tables.

use std::fmt::Write as _;

use crate::compare::{Figure, Row, Section};
use crate::load::Stream;
use crate::process::CommitSizes;
use crate::report::svg;

const HEAD: &[&str] = &[
    "load",
    "broker",
    "",
    "msg/s",
    "÷ java",
    "÷ null",
    "p50 µs",
    "p99",
    "p99.9",
    "p99.99",
    "max",
    "CPU µs/msg",
    "÷ java",
    "kernel µs/msg",
    "MiB",
    "written ÷ stored",
    "switches/msg",
    "msgs/commit",
    "KiB/commit: p50, p99",
];

/// The whole page.
pub fn page(sections: &[Section]) -> String {
    let figures: Vec<&Figure> = sections.iter().flat_map(|section| &section.figures).collect();
    let mut out = String::from("## Figures\n\n");
    line(&mut out, ["figure", "goal", "measured", "verdict"].map(String::from));
    rule(&mut out, 4);
    for figure in figures {
        let verdict = match figure.reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "–",
        };
        line(&mut out, [figure.what.clone(), figure.goal.clone(), figure.measured.clone(), verdict.into()]);
    }
    sections.iter().for_each(|section| write_section(section, &mut out));
    out
}

fn write_section(section: &Section, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\n## {}\n\n{}; {}.\n\n", section.name, section.about, section.how);
    if !section.rows.is_empty() {
        line(out, HEAD.iter().map(|head| (*head).to_owned()));
        rule(out, HEAD.len());
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
        let mut cells = vec![row.report.load.label(), row.peer.clone(), kind.into()];
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
        cells.extend(if first { costs(row, other("java")) } else { vec![dash(); 7] });
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

fn costs(row: &Row, java: Option<&Row>) -> Vec<String> {
    let Some(costs) = &row.report.costs else { return vec![dash(); 8] };
    let theirs = java.and_then(|java| java.report.costs.as_ref());
    vec![
        format!("{:.2}", costs.cpu_us),
        ratio(theirs.map(|theirs| costs.cpu_us / theirs.cpu_us)),
        format!("{:.2}", costs.kernel_cpu_us),
        format!("{:.0}", costs.resident_mib),
        row.written_ratio().map_or(dash(), |written| format!("{written:.2}")),
        format!("{:.3}", costs.switches),
        // A server that stores nothing commits nothing.
        costs.messages_per_commit().filter(|_| row.peer != "null").map_or(dash(), |n| format!("{n:.1}")),
        costs.commits.as_ref().and_then(CommitSizes::label).unwrap_or_else(dash),
    ]
}
