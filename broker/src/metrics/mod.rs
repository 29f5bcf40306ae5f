//! The node's figures for Prometheus, gathered when they are asked for.
//!
//! To add one: where the count is kept, as a plain value of its core, write it into the [`Figures`] of that place:
//! `ShardService::figures` (a shard's), `Core::figures` (a core's), or `ControlPlane::figures` (core 0's).
//! Figures of the same name and labels are added up over shards and cores, so that a label for the shard is only
//! needed where the difference matters. Names follow Prometheus' conventions: `ringmq_` first, base units, `_total`
//! behind counters.

mod gather;
mod server;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;

pub use server::serve;

/// Samples that are gone through before other tasks have their turn.
const SAMPLES_AT_ONCE: usize = 256;

/// What a figure does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One line of a family behind its labels; ordered as Prometheus wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Value,
    /// Observations up to this bound, in thousandths of the unit.
    Bucket(u64),
    Sum,
    Count,
}

#[derive(Clone, Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    samples: BTreeMap<(String, Part), f64>,
}

/// Figures by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Figures(BTreeMap<&'static str, Family>);

/// Labels of a figure: name and value.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Figures {
    /// Adds to a figure that only grows while the process lives; its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: u64) {
        debug_assert!(name.ends_with("_total"), "{name} is a counter");
        self.add(name, help, Kind::Counter, labels, Part::Value, value as f64);
    }

    /// Adds to a figure that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: Labels<'_>, value: f64) {
        debug_assert!(!name.ends_with("_total"), "{name} is a gauge");
        self.add(name, help, Kind::Gauge, labels, Part::Value, value);
    }

    /// Adds to a distribution. `buckets` are the upper bounds, in thousandths of the unit, each with the
    /// observations in its own bucket; what lies beyond the last is `beyond`.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        buckets: impl Iterator<Item = (u64, u64)>,
        beyond: u64,
        sum: f64,
    ) {
        let mut count = 0;
        for (bound, observed) in buckets {
            count += observed;
            self.add(name, help, Kind::Histogram, labels, Part::Bucket(bound), count as f64);
        }
        count += beyond;
        self.add(name, help, Kind::Histogram, labels, Part::Bucket(u64::MAX), count as f64);
        self.add(name, help, Kind::Histogram, labels, Part::Sum, sum);
        self.add(name, help, Kind::Histogram, labels, Part::Count, count as f64);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: Labels<'_>,
        part: Part,
        value: f64,
    ) {
        let family = self.0.entry(name).or_insert_with(|| Family { help, kind, samples: BTreeMap::new() });
        assert_eq!(family.kind, kind, "{name} is one kind of figure");
        *family.samples.entry((write_labels(labels), part)).or_default() += value;
    }

    /// Adds the figures of another shard or core; `rest` is called again and again meanwhile.
    pub async fn merge<F: Future<Output = ()>>(&mut self, other: Figures, mut rest: impl FnMut() -> F) {
        for (name, family) in other.0 {
            let own = match self.0.entry(name) {
                Entry::Vacant(free) => {
                    free.insert(family);
                    continue;
                }
                Entry::Occupied(own) => own.into_mut(),
            };
            for (number, (key, value)) in family.samples.into_iter().enumerate() {
                *own.samples.entry(key).or_default() += value;
                if number % SAMPLES_AT_ONCE == SAMPLES_AT_ONCE - 1 {
                    rest().await;
                }
            }
        }
    }

    /// Prometheus' text format, version 0.0.4; `rest` is called again and again meanwhile.
    pub async fn to_text<F: Future<Output = ()>>(&self, mut rest: impl FnMut() -> F) -> String {
        let mut text = String::new();
        for (name, family) in &self.0 {
            let _ = writeln!(text, "# HELP {name} {}", family.help);
            let _ = writeln!(text, "# TYPE {name} {}", family.kind.name());
            for (number, ((labels, part), value)) in family.samples.iter().enumerate() {
                write_sample(&mut text, name, labels, *part, *value);
                if number % SAMPLES_AT_ONCE == SAMPLES_AT_ONCE - 1 {
                    rest().await;
                }
            }
        }
        text
    }

    #[cfg(test)]
    pub fn text(&self) -> String {
        futures_lite::future::block_on(self.to_text(|| std::future::ready(())))
    }
}

fn write_sample(text: &mut String, name: &str, labels: &str, part: Part, value: f64) {
    let (suffix, bound) = match part {
        Part::Value => ("", None),
        Part::Bucket(u64::MAX) => ("_bucket", Some("+Inf".to_owned())),
        Part::Bucket(bound) => ("_bucket", Some((bound as f64 / 1000.0).to_string())),
        Part::Sum => ("_sum", None),
        Part::Count => ("_count", None),
    };
    let le = bound.map(|bound| format!("le=\"{bound}\""));
    let all: Vec<&str> =
        [labels, le.as_deref().unwrap_or("")].into_iter().filter(|part| !part.is_empty()).collect();
    let _ = match all.is_empty() {
        true => writeln!(text, "{name}{suffix} {value}"),
        false => writeln!(text, "{name}{suffix}{{{}}} {value}", all.join(",")),
    };
}

/// `topic="a",group="b"`, with the characters escaped that the format asks for.
fn write_labels(labels: Labels<'_>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let comma = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_shards_add_up_and_labels_stay_apart() {
        let mut one = Figures::default();
        one.counter("a_total", "As.", &[("topic", "t")], 2);
        one.gauge("b", "Bs.", &[], 1.5);
        let mut two = Figures::default();
        two.counter("a_total", "As.", &[("topic", "t")], 3);
        two.counter("a_total", "As.", &[("topic", "q\"\\\n")], 1);
        futures_lite::future::block_on(one.merge(two, || std::future::ready(())));
        let expected = "# HELP a_total As.\n# TYPE a_total counter\na_total{topic=\"q\\\"\\\\\\n\"} 1\n\
            a_total{topic=\"t\"} 5\n# HELP b Bs.\n# TYPE b gauge\nb 1.5\n";
        assert_eq!(one.text(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_in_order() {
        let mut figures = Figures::default();
        for _ in 0..2 {
            figures.histogram("s", "S.", &[("x", "y")], [(0, 1), (10, 2), (500, 3)].into_iter(), 4, 2.5);
        }
        let expected = "# HELP s S.\n# TYPE s histogram\ns_bucket{x=\"y\",le=\"0\"} 2\n\
            s_bucket{x=\"y\",le=\"0.01\"} 6\ns_bucket{x=\"y\",le=\"0.5\"} 12\ns_bucket{x=\"y\",le=\"+Inf\"} 20\n\
            s_sum{x=\"y\"} 5\ns_count{x=\"y\"} 20\n";
        assert_eq!(figures.text(), expected);
    }
}
