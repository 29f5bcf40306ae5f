//! Latency by percentile as an SVG plot: rarity to the right (each decade as wide as the other), latency upwards on
//! a logarithmic scale, one curve for each broker; one plot below the other for each load.

use std::fmt::Write as _;

use crate::compare::{Row, Section};
use crate::load::Latency;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 70.0;
/// Room for the names of the curves.
const RIGHT: f64 = 170.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;
/// Curves end at the quantile 0.99999.
const DECADES: f64 = 5.0;
const COLOURS: [&str; 5] = ["#c0392b", "#2c5fa8", "#7f8c8d", "#1e8449", "#8e44ad"];

struct Curve<'a> {
    name: String,
    latency: &'a Latency,
}

/// The plots of a section; `None` when it took no latencies.
pub fn latencies(section: &Section) -> Option<String> {
    let mut loads: Vec<(String, Vec<Curve<'_>>)> = Vec::new();
    for row in &section.rows {
        let label = row.report.load.label();
        for curve in curves(row) {
            match loads.iter_mut().find(|(known, _)| *known == label) {
                Some((_, curves)) => curves.push(curve),
                None => loads.push((label.clone(), vec![curve])),
            }
        }
    }
    if loads.is_empty() {
        return None;
    }
    let height = HEIGHT * loads.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (number, (label, curves)) in loads.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {})\">", number as f64 * HEIGHT);
        plot(&section.name, label, curves, &mut out);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn curves(row: &Row) -> Vec<Curve<'_>> {
    let kinds = [("", &row.report.sent), (" end to end", &row.report.delivered)];
    let kinds = kinds.into_iter().filter_map(|(kind, stream)| {
        let latency = stream.as_ref()?.latency.as_ref()?;
        Some(Curve { name: format!("{}{kind}", row.name.as_ref().unwrap_or(&row.peer)), latency })
    });
    kinds.collect()
}

fn plot(section: &str, label: &str, curves: &[Curve<'_>], out: &mut String) {
    let values = curves.iter().flat_map(|curve| curve.latency.curve.iter().map(|point| point.1.max(1.0)));
    let (low, high) = values.fold((f64::MAX, 1.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let x = |decades: f64| LEFT + (WIDTH - LEFT - RIGHT) * decades.clamp(0.0, DECADES) / DECADES;
    let y = |us: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (us.max(1.0).log10() - low) / (high - low);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{section}: {label}</text>");
    for decade in 0..=DECADES as u32 {
        let at = x(f64::from(decade));
        let name = ["min", "p90", "p99", "p99.9", "p99.99", "p99.999"][decade as usize];
        grid(out, (at, TOP), (at, HEIGHT - BOTTOM));
        let _ = writeln!(
            out,
            "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            HEIGHT - BOTTOM + 16.0
        );
    }
    for power in low as i32..=high as i32 {
        let us = 10_f64.powi(power);
        grid(out, (LEFT, y(us)), (WIDTH - RIGHT, y(us)));
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y(us) + 4.0,
            show_us(us)
        );
    }
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = curve.latency.curve.iter().map(|(quantile, us)| {
            let decades = -(1.0 - quantile).max(1e-9).log10();
            format!("{:.1},{:.1}", x(decades), y(*us))
        });
        let points: Vec<String> = points.collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        let (at, name) = (TOP + 14.0 + 16.0 * number as f64, &curve.name);
        let _ =
            writeln!(out, "<text x=\"{}\" y=\"{at}\" fill=\"{colour}\">{name}</text>", WIDTH - RIGHT + 8.0);
    }
}

fn grid(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn show_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.0} s", us / 1e6),
        us if us >= 1e3 => format!("{:.0} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}
