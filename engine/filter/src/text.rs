//! An operand as Java prints it, for the errors that name one.

use crate::number::show_double;
use crate::program::{Comparison, Constant, Op, Place};

/// Longest text of an operand in an error.
const MAX_SHOWN: usize = 2048;

/// The operand that `ops` compute.
pub fn show(ops: &[Op], name_of: &dyn Fn(u32) -> String) -> String {
    let mut stack: Vec<String> = Vec::new();
    for op in ops {
        let mut pop = || stack.pop().unwrap_or_default();
        let mut text = match op {
            Op::IfNull { .. } | Op::If { .. } | Op::IfDropping { .. } => continue,
            Op::Push(constant) => show_constant(constant),
            Op::Property(slot) => name_of(*slot),
            Op::Copy => {
                let top = pop();
                stack.push(top.clone());
                top
            }
            Op::Swap => {
                let (upper, lower) = (pop(), pop());
                stack.push(upper);
                lower
            }
            Op::Cast => continue,
            Op::In { list, not } => {
                format!("{} {} ( {} )", pop(), if *not { "NOT IN" } else { "IN" }, list.join(", "))
            }
            Op::Negate | Op::Not | Op::Find { .. } => format!("({} {})", symbol(op), pop()),
            Op::Equal | Op::Compare(_) | Op::And | Op::Or => {
                let right = pop();
                format!("({} {} {right})", pop(), symbol(op))
            }
        };
        if text.len() > MAX_SHOWN {
            let end = (0..=MAX_SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        stack.push(text);
    }
    stack.pop().unwrap_or_default()
}

fn show_constant(constant: &Constant) -> String {
    match constant {
        Constant::Null => "NULL".to_owned(),
        Constant::Bool(value) => if *value { "TRUE" } else { "FALSE" }.to_owned(),
        Constant::Text(text) => format!("'{}'", text.replace('\'', "''")),
        number => show_value(number),
    }
}

/// A constant as Java's `String.valueOf` prints it.
pub fn show_value(constant: &Constant) -> String {
    match constant {
        Constant::Null => "null".to_owned(),
        Constant::Bool(value) => value.to_string(),
        Constant::Int(value) => value.to_string(),
        Constant::Long(value) => value.to_string(),
        Constant::Double(value) => show_double(*value),
        Constant::Text(text) => text.to_string(),
    }
}

fn symbol(op: &Op) -> &'static str {
    match op {
        Op::Equal => "==",
        Op::Compare(Comparison::Greater) => ">",
        Op::Compare(Comparison::GreaterEqual) => ">=",
        Op::Compare(Comparison::Less) => "<",
        Op::Compare(Comparison::LessEqual) => "<=",
        Op::And => "&&",
        Op::Or => "||",
        Op::Negate => "-",
        Op::Not => "NOT",
        Op::Find { place: Place::Anywhere, not, .. } => ["CONTAINS", "NOT CONTAINS"][usize::from(*not)],
        Op::Find { place: Place::Start, not, .. } => ["STARTSWITH", "NOT STARTSWITH"][usize::from(*not)],
        Op::Find { place: Place::End, not, .. } => ["ENDSWITH", "NOT ENDSWITH"][usize::from(*not)],
        _ => "",
    }
}
