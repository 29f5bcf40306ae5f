use super::*;
use crate::compare::{Figure, Row, Run};
use crate::load::{Latency, LoadArgs, Report, Stream};
use crate::process::Costs;

fn row(peer: &str, messages: u64, us: f64) -> Row {
    let curve = vec![(0.0, us / 2.0), (0.9, us), (0.99, 3.0 * us)];
    let latency = Latency { p50: us, max: 4.0 * us, curve, ..Latency::default() };
    let sent = Stream { messages, seconds: 1.0, latency: Some(latency), ..Stream::default() };
    let costs = Costs { cpu_us: us / 10.0, written: 2400.0, messages, ..Costs::default() };
    let report = Report {
        load: LoadArgs::default(),
        sent: Some(sent),
        delivered: None,
        read: None,
        costs: Some(costs),
    };
    Row { peer: peer.to_owned(), name: None, report, rounds: vec![messages as f64], record_len: Some(1200) }
}

fn section() -> Section {
    Section {
        name: "sync".to_owned(),
        about: "sends".to_owned(),
        how: "once".to_owned(),
        run: Some(2),
        rows: vec![row("ringmq", 50_000, 100.0), row("java", 10_000, 1000.0)],
        tables: Vec::new(),
        figures: Vec::new(),
    }
}

#[test]
fn figures_are_ratios_with_a_verdict() {
    let mut section = section();
    section.at_least("rate", "64 × 1", "java", 4.0, Row::rate);
    section.at_most("CPU", "64 × 1", "java", 1.0 / 15.0, Row::cpu);
    section.at_least("rate", "64 × 1", "null", 0.9, Row::rate);
    let shown: Vec<(&str, Option<bool>)> =
        section.figures.iter().map(|figure| (figure.measured.as_str(), figure.reached)).collect();
    let expected = [
        ("5.00 × (50000 against 10000)", Some(true)),
        ("0.10 × (10.0 against 100)", Some(false)),
        ("not measured", None),
    ];
    assert_eq!(shown, expected);
    assert_eq!(section.figures[1].goal, "≤ 1/15 of java");
}

#[test]
fn a_report_is_made_of_the_sections_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut section = section();
    let figure = Figure { what: "w".into(), goal: "g".into(), measured: "m".into(), reached: Some(false) };
    section.figures.push(figure);
    save_section(dir.path(), &section).unwrap();
    for (number, cpu) in [(1, "of another run"), (2, "of this run")] {
        let run = Run { cpu: Some(cpu.to_owned()), ..Run::default() };
        assert_eq!(save_run(dir.path(), run).unwrap(), number);
    }
    let path = write(dir.path(), &["sync", "async"]).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("| w | g | m | **missed** |"), "{text}");
    assert!(text.contains("| 64 × 1 | ringmq | sent | 50000 | 5.00 | – | 100 |"), "{text}");
    assert!(text.contains("| 10.00 | 0.00 | 0.10 | 0 | 2.00 |"), "{text}");
    assert!(text.contains("(sync.svg)") && !text.contains("async"), "{text}");
    assert!(text.contains("| of this run |") && !text.contains("of another run"), "{text}");
    assert!(text.contains("sends; once; run 2."), "{text}");
    let plot = std::fs::read_to_string(dir.path().join("sync.svg")).unwrap();
    assert_eq!(plot.matches("<polyline").count(), 2);
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
}

/// Cells of a line of a table; `None` of what is none.
fn cells(line: &str) -> Option<usize> {
    Some(line.strip_prefix('|')?.strip_suffix('|')?.split('|').count())
}

#[test]
fn all_rows_of_a_table_have_as_many_cells_as_its_head() {
    let mut section = section();
    let mut both = row("java", 10_000, 1000.0);
    both.report.delivered = both.report.sent.clone();
    both.report.read = both.report.sent.clone();
    let mut unmetered = both.clone();
    unmetered.report.costs = None;
    section.rows.extend([both, unmetered]);
    section.table("t", &["a", "b"], vec![vec!["1".into(), "2".into()]]);
    section.figure("w", "g", "m".into(), None);
    let page = markdown::page(&[Run { number: 2, ..Run::default() }], &[section]);
    let tables: Vec<Vec<usize>> = page
        .lines()
        .map(cells)
        .collect::<Vec<_>>()
        .split(Option::is_none)
        .map(|table| table.iter().flatten().copied().collect::<Vec<_>>())
        .filter(|table| !table.is_empty())
        .collect();
    assert_eq!(tables.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2 + 2 + 6, 3], "{page}");
    assert!(tables.iter().all(|table| table.iter().all(|cells| *cells == table[0])), "{page}");
}

#[test]
fn rows_of_one_broker_and_load_are_told_apart_by_their_names() {
    let mut section = section();
    section.rows = ["tail alone", "tail beside it"].map(|name| row("ringmq", 1000, 100.0).named(name)).into();
    let page = markdown::page(&[], std::slice::from_ref(&section));
    assert!(page.contains("| tail beside it: 64 × 1 | ringmq | sent |"), "{page}");
    let plot = svg::latencies(&section).unwrap();
    assert!(plot.contains(">tail alone<") && plot.contains(">tail beside it<"), "{plot}");
}
