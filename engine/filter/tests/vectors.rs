//! What RocketMQ's own filter (5.5.0) says of thousands of generated expressions; `tools/filter-vectors/run` writes
//! the vectors anew.

use ringmq_filter::{Filter, FilterError, Outcome};

const VECTORS: &str = include_str!("vectors.txt");
const AT_LEAST: usize = 5000;

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                other => other.unwrap_or_default(),
            },
            _ => c,
        });
    }
    out
}

fn properties(text: &str) -> Vec<(&str, &str)> {
    text.split(';').filter_map(|pair| pair.split_once('=')).filter(|(_, value)| !value.is_empty()).collect()
}

/// The same verdicts as Java's, or the same error.
fn verdict(expression: &str, messages: &[Vec<(&str, &str)>]) -> String {
    let letter = |outcome| match outcome {
        Outcome::True => 'T',
        Outcome::False => 'F',
        Outcome::Unknown => 'N',
        Outcome::Failed => 'X',
    };
    match Filter::compile(expression) {
        Ok(filter) => {
            let verdicts = messages.iter().map(|message| letter(filter.evaluate(message.iter().copied())));
            format!("= {}", verdicts.collect::<String>())
        }
        Err(FilterError::Syntax(text)) => {
            let (text, _) = text.split_once("\nWas expecting").unwrap_or((&text, ""));
            format!("! org.apache.rocketmq.filter.parser.ParseException: {text}")
        }
        Err(error) => format!("! {error}"),
    }
}

/// What is compared of an error: where Java looked one token further than the one that was wrong, it shows both, so
/// only the place counts then.
fn essence(verdict: &str) -> String {
    match (verdict.find("Encountered \""), verdict.rfind("at line ")) {
        (Some(from), Some(at))
            if verdict.starts_with("! org.apache.rocketmq.filter.parser.ParseException") =>
        {
            format!("{}{}", &verdict[..from], &verdict[at..])
        }
        _ => verdict.to_owned(),
    }
}

/// Java reads the operand of a `+` twice, so of two errors in it the later one may be told.
const OTHER_TEXTS: usize = 15;

#[test]
fn agrees_with_java() {
    let messages: Vec<_> =
        VECTORS.lines().filter_map(|line| line.strip_prefix("P ")).map(properties).collect();
    let mut lines = VECTORS.lines().skip_while(|line| line.starts_with("P "));
    let (mut compared, mut wrong, mut other_texts) = (0, Vec::new(), Vec::new());
    while let (Some(expression), Some(expected)) = (lines.next(), lines.next()) {
        let expression =
            unescaped(expression.strip_prefix("E ").expect("expressions and verdicts alternate"));
        let (ours, javas) = (verdict(&expression, &messages), unescaped(expected));
        compared += 1;
        if essence(&ours) == essence(&javas) {
            continue;
        }
        let both_refuse = ours.starts_with('!') && javas.starts_with('!');
        let differing = if both_refuse { &mut other_texts } else { &mut wrong };
        differing.push(format!("{expression:?}\n  java {javas}\n  ours {ours}"));
    }
    assert!(compared >= AT_LEAST, "only {compared} vectors");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
    let count = other_texts.len();
    assert!(count <= OTHER_TEXTS, "{count} of {compared} have other texts:\n{}", other_texts.join("\n"));
}
