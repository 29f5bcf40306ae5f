//! Configuration files: TOML with RingMQ's names, or Java `.properties` with Java's. Both take both names.

use std::path::Path;

/// Why a file could not be read as configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Not TOML.
    #[error("{0}")]
    Toml(String),
    /// A `[section]` or nested table.
    #[error("[{0}]: options are not grouped, remove the section header")]
    Section(String),
    /// A value that no option takes.
    #[error("{key}: expected text, a number, true, false or a list of text")]
    Value {
        /// The key.
        key: String,
    },
    /// A broken `\u` escape in a `.properties` file.
    #[error("line {line}: \\u must be followed by four hexadecimal digits")]
    Escape {
        /// The line, from 1.
        line: usize,
    },
}

/// Keys and values of a file, in order. `.toml` is TOML, `.properties` is Java's; any other name is TOML if it
/// parses as such (Java's `broker.conf` rarely does: its text has no quotes) and Java's if not.
pub fn parse(path: &Path, text: &str) -> Result<Vec<(String, String)>, FileError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml(text),
        Some("properties") => parse_properties(text),
        _ => match text.parse::<toml::Table>() {
            Ok(table) => toml_entries(table),
            Err(_) => parse_properties(text),
        },
    }
}

fn parse_toml(text: &str) -> Result<Vec<(String, String)>, FileError> {
    let table = text.parse::<toml::Table>().map_err(|error| FileError::Toml(error.to_string()))?;
    toml_entries(table)
}

fn toml_entries(table: toml::Table) -> Result<Vec<(String, String)>, FileError> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let text = match value {
            toml::Value::Table(_) => return Err(FileError::Section(key)),
            toml::Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(toml_scalar).collect();
                items.map(|items| items.join(";"))
            }
            scalar => toml_scalar(&scalar),
        };
        entries.push((key.clone(), text.ok_or(FileError::Value { key })?));
    }
    Ok(entries)
}

fn toml_scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Parses Java's `.properties` format: `#` and `!` comments, `=`, `:` or blanks between key and value, a
/// backslash at the end of a line continues it, `\t \n \r \f \uXXXX` escapes.
pub fn parse_properties(text: &str) -> Result<Vec<(String, String)>, FileError> {
    let mut entries = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let start = line.trim_start();
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while continues(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start()),
                None => break,
            }
        }
        let (key, value) = split_property(&logical);
        let line = index + 1;
        entries.push((unescape(key, line)?, unescape(value, line)?));
    }
    Ok(entries)
}

/// An odd number of backslashes at the end continues the line.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn split_property(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (c == '=' || c == ':' || c.is_ascii_whitespace());
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start())
}

fn unescape(text: &str, line: usize) -> Result<String, FileError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\x0c'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                let code = code.ok_or(FileError::Escape { line })?;
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// Writes `text` so that a `.properties` parser reads it back as one value.
pub(crate) fn escape_value(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' ' if index == 0 => out.push_str("\\ "),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(name: &str, text: &str) -> Vec<(String, String)> {
        parse(Path::new(name), text).unwrap()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn a_broker_conf_of_java_is_recognised_by_its_content() {
        let text =
            "# comment\nbrokerClusterName = DefaultCluster\ndeleteWhen = 04\nflushDiskType=ASYNC_FLUSH\n";
        let expected = [
            pair("brokerClusterName", "DefaultCluster"),
            pair("deleteWhen", "04"),
            pair("flushDiskType", "ASYNC_FLUSH"),
        ];
        assert_eq!(entries("broker.conf", text), expected);
    }

    #[test]
    fn toml_takes_text_numbers_switches_and_lists() {
        let text = "port = 10911\nname = \"b\"\ntrace-on = false\nnamesrv = [\"a:1\", \"b:2\"]\n";
        let mut found = entries("x.conf", text);
        found.sort();
        let expected =
            [pair("name", "b"), pair("namesrv", "a:1;b:2"), pair("port", "10911"), pair("trace-on", "false")];
        assert_eq!(found, expected);
    }

    #[test]
    fn toml_errors_are_told() {
        assert!(matches!(parse(Path::new("a.toml"), "port = "), Err(FileError::Toml(_))));
        assert_eq!(
            parse(Path::new("a.toml"), "[broker]\nport = 1"),
            Err(FileError::Section("broker".into()))
        );
        let error = parse(Path::new("a.toml"), "port = [[1]]");
        assert_eq!(error, Err(FileError::Value { key: "port".into() }));
    }

    #[test]
    fn properties_follow_java() {
        let text = "a:1\nb 2\n  c = x y \\\n   z\nd\n! no\n\\u0065\\=f=\\t!\n";
        let expected =
            [pair("a", "1"), pair("b", "2"), pair("c", "x y z"), pair("d", ""), pair("e=f", "\t!")];
        assert_eq!(entries("x.properties", text), expected);
        assert_eq!(parse_properties("a=1\nb=\\u12"), Err(FileError::Escape { line: 2 }));
        assert_eq!(parse_properties("a=1\\"), Ok(vec![pair("a", "1")]));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse(Path::new("x.conf"), &text);
            let _ = parse_properties(&text);
        }

        #[test]
        fn escaped_values_read_back(value in "[ -~\n\r\t\\\\äß]{0,40}") {
            let line = format!("key={}\n", escape_value(&value));
            prop_assert_eq!(parse_properties(&line), Ok(vec![("key".to_owned(), value)]));
        }
    }
}
