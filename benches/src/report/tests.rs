use super::*;
use crate::compare::{Figure, Row};
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
    Row { peer: peer.to_owned(), report, rounds: vec![messages as f64], record_len: Some(1200) }
}

fn section() -> Section {
    Section {
        name: "sync".to_owned(),
        about: "sends".to_owned(),
        how: "once".to_owned(),
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
    let path = write(dir.path(), &["sync", "async"]).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("| w | g | m | **missed** |"), "{text}");
    assert!(text.contains("| 64 × 1 | ringmq | sent | 50000 | 5.00 | – | 100 |"), "{text}");
    assert!(text.contains("| 10.00 | 0.10 | 0.00 | 0 | 2.00 |"), "{text}");
    assert!(text.contains("(sync.svg)") && !text.contains("async"), "{text}");
    let plot = std::fs::read_to_string(dir.path().join("sync.svg")).unwrap();
    assert_eq!(plot.matches("<polyline").count(), 2);
    assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
}
