//! Values: from text to typed and back, with errors that name the limit and the value.

use std::net::{IpAddr, SocketAddr};

use crate::option::{Choice, Kind, TimeUnit};

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text and paths.
    Text(String),
    /// A switch.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Size(u64),
    /// Milliseconds.
    Duration(u64),
    /// One of the option's choices.
    Choice(Choice),
    /// An address.
    Ip(IpAddr),
    /// `host:port` entries, in the order given.
    Addresses(Vec<String>),
}

const SIZE_UNITS: [(&str, u64); 15] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("bytes", 1),
    ("b", 1),
    ("", 1),
];

const TIME_UNITS: [(&str, u64); 9] = [
    ("ms", 1),
    ("s", 1000),
    ("sec", 1000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("hours", 3_600_000),
    ("d", 86_400_000),
    ("days", 86_400_000),
];

/// Parses `text` as `kind` says. The error tells what was expected; the caller adds which option it was for.
pub fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match kind {
        Kind::Text | Kind::Path => Ok(Value::Text(text.to_owned())),
        Kind::Bool => parse_bool(text),
        Kind::Integer { min, max } => parse_integer(text, min, max),
        Kind::Size { min, max } => parse_size(text, min, max),
        Kind::Duration { bare, min_ms, max_ms } => parse_duration(text, bare, min_ms, max_ms),
        Kind::Choice(choices) => parse_choice(text, choices),
        Kind::Ip => {
            text.parse().map(Value::Ip).map_err(|_| "expected an IP address, such as 10.0.0.1".into())
        }
        Kind::Addresses => parse_addresses(text),
    }
}

fn parse_bool(text: &str) -> Result<Value, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
        "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
        _ => Err("expected true or false".into()),
    }
}

fn parse_integer(text: &str, min: i64, max: i64) -> Result<Value, String> {
    let number: i64 = text.parse().map_err(|_| format!("expected a whole number between {min} and {max}"))?;
    if number < min {
        return Err(format!("the least is {min}"));
    }
    if number > max {
        return Err(format!("the most is {max}"));
    }
    Ok(Value::Integer(number))
}

/// Splits `4MiB` into 4 and the factor of its unit.
fn scaled(text: &str, units: &[(&str, u64)], bare: Option<u64>) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let number: u64 = number.parse().ok()?;
    let factor = match (unit.is_empty(), bare) {
        (true, Some(factor)) => factor,
        _ => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

fn parse_size(text: &str, min: u64, max: u64) -> Result<Value, String> {
    let bytes = scaled(text, &SIZE_UNITS, None)
        .ok_or("expected a size in bytes or with a unit, such as 4194304, 4MiB or 2GiB")?;
    if bytes < min {
        return Err(format!("the least is {}", show_size(min)));
    }
    if bytes > max {
        return Err(format!("the most is {}", show_size(max)));
    }
    Ok(Value::Size(bytes))
}

fn parse_duration(text: &str, bare: TimeUnit, min_ms: u64, max_ms: u64) -> Result<Value, String> {
    let ms = scaled(text, &TIME_UNITS, Some(bare.ms()))
        .ok_or("expected a time span with a unit, such as 500ms, 30s or 2h")?;
    if ms < min_ms {
        return Err(format!("the least is {}", show_duration(min_ms)));
    }
    if ms > max_ms {
        return Err(format!("the most is {}", show_duration(max_ms)));
    }
    Ok(Value::Duration(ms))
}

fn parse_choice(text: &str, choices: &'static [Choice]) -> Result<Value, String> {
    let found =
        choices.iter().find(|c| c.name.eq_ignore_ascii_case(text) || c.java.eq_ignore_ascii_case(text));
    found.map(|choice| Value::Choice(*choice)).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|c| c.name).collect();
        format!("expected one of: {}", names.join(", "))
    })
}

fn parse_addresses(text: &str) -> Result<Value, String> {
    let entries = text.split([';', ',']).map(str::trim).filter(|entry| !entry.is_empty());
    let mut addresses = Vec::new();
    for entry in entries {
        if !is_host_port(entry) {
            return Err(format!("\"{entry}\" is not of the form HOST:PORT"));
        }
        addresses.push(entry.to_owned());
    }
    Ok(Value::Addresses(addresses))
}

fn is_host_port(entry: &str) -> bool {
    if entry.parse::<SocketAddr>().is_ok() {
        return true;
    }
    match entry.rsplit_once(':') {
        Some((host, port)) => {
            let host_fits = !host.is_empty() && !host.contains([':', '/', ' ', '"']);
            host_fits && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => false,
    }
}

/// A size as people write it: the largest binary unit that divides it.
pub fn show_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A time span as people write it: the largest unit that divides it.
pub fn show_duration(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", ms / factor),
        None => format!("{ms}ms"),
    }
}

impl Value {
    /// As RingMQ's own files and messages write it.
    pub fn show(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Size(bytes) => show_size(*bytes),
            Value::Duration(ms) => show_duration(*ms),
            Value::Choice(choice) => choice.name.to_owned(),
            Value::Ip(ip) => ip.to_string(),
            Value::Addresses(addresses) => addresses.join(";"),
        }
    }

    /// As a Java `.properties` file writes it: bare numbers, Java's enumeration names.
    pub fn show_java(&self, kind: Kind) -> String {
        match (self, kind) {
            (Value::Size(bytes), _) => bytes.to_string(),
            (Value::Duration(ms), Kind::Duration { bare, .. }) => (ms / bare.ms()).to_string(),
            (Value::Choice(choice), _) => choice.java.to_owned(),
            _ => self.show(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Kind = Kind::Size { min: 1024, max: 1 << 40 };
    const SPAN: Kind = Kind::Duration { bare: TimeUnit::Ms, min_ms: 10, max_ms: 60_000 };

    #[test]
    fn sizes_take_units_and_bounds() {
        assert_eq!(parse(SIZE, "4MiB"), Ok(Value::Size(4 << 20)));
        assert_eq!(parse(SIZE, "4 mb"), Ok(Value::Size(4_000_000)));
        assert_eq!(parse(SIZE, "4194304"), Ok(Value::Size(4 << 20)));
        assert_eq!(parse(SIZE, "1"), Err("the least is 1KiB".into()));
        assert_eq!(parse(SIZE, "2TiB"), Err("the most is 1TiB".into()));
        assert!(parse(SIZE, "99999999999999999999").is_err());
        assert!(parse(SIZE, "4XB").is_err() && parse(SIZE, "-4").is_err() && parse(SIZE, "").is_err());
    }

    #[test]
    fn durations_take_units_and_the_bare_number_of_java() {
        assert_eq!(parse(SPAN, "500"), Ok(Value::Duration(500)));
        assert_eq!(parse(SPAN, "30s"), Ok(Value::Duration(30_000)));
        assert_eq!(parse(SPAN, "2m"), Err("the most is 1m".into()));
        assert_eq!(parse(SPAN, "1ms"), Err("the least is 10ms".into()));
        let seconds = Kind::Duration { bare: TimeUnit::Seconds, min_ms: 0, max_ms: u64::MAX };
        let value = parse(seconds, "120").unwrap();
        assert_eq!((value.show(), value.show_java(seconds)), ("2m".into(), "120".into()));
    }

    #[test]
    fn addresses_are_lists_of_host_and_port() {
        let both = parse(Kind::Addresses, "a.example:9876; [::1]:9877").unwrap();
        assert_eq!(both, Value::Addresses(vec!["a.example:9876".into(), "[::1]:9877".into()]));
        for bad in ["a", "a:", "a:0", "a:70000", ":9876", "http://a:9876", "a b:1"] {
            assert!(parse(Kind::Addresses, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn integers_name_the_limit() {
        let kind = Kind::Integer { min: 1, max: 65535 };
        assert_eq!(parse(kind, "0"), Err("the least is 1".into()));
        assert_eq!(parse(kind, "70000"), Err("the most is 65535".into()));
        assert!(parse(kind, "ten").is_err());
    }

    #[test]
    fn what_is_shown_parses_back() {
        for bytes in [1024, 4 << 20, 1 << 30, 1025] {
            assert_eq!(parse(SIZE, &show_size(bytes)), Ok(Value::Size(bytes)));
        }
        for ms in [10, 1000, 1500, 60_000] {
            assert_eq!(parse(SPAN, &show_duration(ms)), Ok(Value::Duration(ms)));
        }
    }
}
