//! A compiled expression: a program for a stack machine, and its evaluation with Java's conversions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::number;

/// A constant of the expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

/// `>`, `>=`, `<`, `<=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Comparison {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterEqual => ordering.is_ge(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessEqual => ordering.is_le(),
        }
    }
}

/// Where a text is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Anywhere,
    Start,
    End,
}

/// A step of the program. Jumps go forward only.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Puts a constant on the stack.
    Push(Constant),
    /// Puts a property's value on the stack, or null.
    Property(u32),
    /// Of the two topmost values.
    Equal,
    /// Of the two topmost values.
    Compare(Comparison),
    /// Of the topmost value, as the ones that follow.
    Negate,
    Not,
    /// What is no boolean is false.
    Cast,
    /// Up to four texts as given, more of them sorted.
    In {
        list: Box<[Box<str>]>,
        not: bool,
    },
    Find {
        place: Place,
        text: Box<str>,
        not: bool,
    },
    /// Null stays, and what it would be compared with is not looked at.
    IfNull {
        to: u32,
    },
    /// The boolean that decides an AND or OR by itself stays.
    If {
        value: bool,
        to: u32,
    },
    /// As `If`, and takes the value below away.
    IfDropping {
        value: bool,
        to: u32,
    },
    And,
    Or,
    /// The topmost value once more.
    Copy,
    /// The two topmost values change places.
    Swap,
}

/// A value on the stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

impl<'a> From<&'a Constant> for Value<'a> {
    fn from(constant: &'a Constant) -> Value<'a> {
        match constant {
            Constant::Null => Value::Null,
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(value) => Value::Int(*value),
            Constant::Long(value) => Value::Long(*value),
            Constant::Double(value) => Value::Double(*value),
            Constant::Text(text) => Value::Text(text),
        }
    }
}

/// Java's evaluation throws: a text that should be a number and is none, mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thrown;

/// What an expression says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It matches.
    True,
    /// It does not.
    False,
    /// Neither: SQL's NULL. The message is not delivered.
    Unknown,
    /// It cannot be evaluated for this message, such as `price > 5` where price is no number. The message is not
    /// delivered.
    Failed,
}

/// A compiled expression. Immutable; may be shared between cores.
#[derive(Clone, Debug)]
pub struct Filter {
    source: Box<str>,
    ops: Box<[Op]>,
    names: BTreeMap<Box<str>, u32>,
}

impl PartialEq for Filter {
    /// Filters are equal whose expressions are.
    fn eq(&self, other: &Filter) -> bool {
        self.source == other.source
    }
}

impl Eq for Filter {}

impl Filter {
    pub(crate) fn new(source: &str, ops: Vec<Op>, names: BTreeMap<Box<str>, u32>) -> Filter {
        Filter { source: source.into(), ops: ops.into(), names }
    }

    /// The expression as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Steps that one evaluation takes at most: a measure of its time.
    pub fn cost(&self) -> usize {
        self.ops.len() + self.names.len()
    }

    /// Whether a message with these properties is wanted. Of properties with the same name the last one counts.
    pub fn matches<'a>(&'a self, properties: impl IntoIterator<Item = (&'a str, &'a str)>) -> bool {
        self.evaluate(properties) == Outcome::True
    }

    /// What the expression says of a message with these properties.
    pub fn evaluate<'a>(&'a self, properties: impl IntoIterator<Item = (&'a str, &'a str)>) -> Outcome {
        let mut slots: SmallVec<[Option<&'a str>; 8]> = SmallVec::from_elem(None, self.names.len());
        if !slots.is_empty() {
            for (name, value) in properties {
                if let Some(slot) = self.names.get(name) {
                    slots[*slot as usize] = Some(value);
                }
            }
        }
        match self.run(&slots) {
            Ok(Value::Bool(true)) => Outcome::True,
            Ok(Value::Bool(false)) => Outcome::False,
            Ok(_) => Outcome::Unknown,
            Err(Thrown) => Outcome::Failed,
        }
    }

    fn run<'a>(&'a self, slots: &[Option<&'a str>]) -> Result<Value<'a>, Thrown> {
        let mut stack = Stack::default();
        let mut at = 0;
        while let Some(op) = self.ops.get(at) {
            at = match op {
                Op::IfNull { to } if stack.top() == Value::Null => *to as usize,
                Op::If { value, to } if stack.top() == Value::Bool(*value) => *to as usize,
                Op::IfDropping { value, to } if stack.top() == Value::Bool(*value) => {
                    let kept = stack.pop();
                    stack.pop();
                    stack.push(kept);
                    *to as usize
                }
                _ => {
                    stack.step(op, slots)?;
                    at + 1
                }
            };
        }
        Ok(stack.pop())
    }
}

#[derive(Default)]
struct Stack<'a>(SmallVec<[Value<'a>; 8]>);

impl<'a> Stack<'a> {
    fn push(&mut self, value: Value<'a>) {
        self.0.push(value);
    }

    fn pop(&mut self) -> Value<'a> {
        self.0.pop().expect("the parser emits a value for each operand")
    }

    fn top(&self) -> Value<'a> {
        *self.0.last().expect("the parser emits a value for each operand")
    }

    fn step(&mut self, op: &'a Op, slots: &[Option<&'a str>]) -> Result<(), Thrown> {
        let value = match op {
            Op::IfNull { .. } | Op::If { .. } | Op::IfDropping { .. } => return Ok(()),
            Op::Push(constant) => constant.into(),
            Op::Property(slot) => slots[*slot as usize].map_or(Value::Null, Value::Text),
            Op::Copy => self.top(),
            Op::Swap => {
                let (upper, lower) = (self.pop(), self.pop());
                self.push(upper);
                lower
            }
            Op::Negate | Op::Not | Op::Cast | Op::In { .. } | Op::Find { .. } => unary(op, self.pop()),
            Op::Equal | Op::Compare(_) | Op::And | Op::Or => {
                let right = self.pop();
                binary(op, self.pop(), right)?
            }
        };
        self.push(value);
        Ok(())
    }
}

fn unary<'a>(op: &Op, value: Value<'a>) -> Value<'a> {
    match (op, value) {
        (Op::Find { place, text, not }, value) => Value::Bool(find(*place, text, *not, value)),
        (Op::In { list, not }, Value::Text(value)) => Value::Bool(is_in(list, value) != *not),
        (Op::Negate, Value::Int(value)) => Value::Int(value.wrapping_neg()),
        (Op::Negate, Value::Long(value)) => Value::Long(value.wrapping_neg()),
        (Op::Negate, Value::Double(value)) => Value::Double(-value),
        (Op::Not, Value::Bool(value)) => Value::Bool(!value),
        (Op::Cast, Value::Null) => Value::Null,
        (Op::Cast, value) => Value::Bool(value == Value::Bool(true)),
        _ => Value::Null,
    }
}

fn binary<'a>(op: &Op, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Thrown> {
    Ok(match op {
        Op::Equal => equal(left, right)?,
        Op::Compare(comparison) => ordered(*comparison, left, right)?,
        Op::And => both(left, right, false),
        _ => both(left, right, true),
    })
}

/// AND, where false decides, and OR, where true does.
fn both<'a>(left: Value<'a>, right: Value<'a>, deciding: bool) -> Value<'a> {
    let decides = Value::Bool(deciding);
    if left == decides || right == decides {
        decides
    } else if left == Value::Null || right == Value::Null {
        Value::Null
    } else {
        Value::Bool(!deciding)
    }
}

fn equal<'a>(left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Thrown> {
    let equal = match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) => return Ok(Value::Null),
        (_, Value::Null) => false,
        (Value::Text(left), Value::Text(right)) => left == right,
        _ => compare(left, right)?.is_eq(),
    };
    Ok(Value::Bool(equal))
}

fn ordered<'a>(comparison: Comparison, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Thrown> {
    let ordering = match (left, right) {
        (Value::Null, _) | (_, Value::Null) => return Ok(Value::Null),
        (Value::Text(left), Value::Text(right)) => {
            let read = |text| number::double(text).ok_or(Thrown);
            double_order(read(left)?, read(right)?)
        }
        _ => compare(left, right)?,
    };
    Ok(Value::Bool(comparison.holds(ordering)))
}

/// Java's comparison of values that are not null: a text is converted to the other one's type. Values that cannot
/// be compared count as less.
pub fn compare(left: Value<'_>, right: Value<'_>) -> Result<Ordering, Thrown> {
    Ok(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(&right),
        // Java casts the boolean to a text here, which throws.
        (Value::Bool(_), Value::Text(_)) => return Err(Thrown),
        (Value::Text(left), Value::Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
        (Value::Text(left), Value::Text(right)) => text_order(left, right),
        (Value::Text(text), other) => compare(read_as(text, other)?, other)?,
        (other, Value::Text(text)) => compare(other, read_as(text, other)?)?,
        (Value::Int(left), Value::Int(right)) => left.cmp(&right),
        _ => match (whole(left), whole(right), float(left), float(right)) {
            (Some(left), Some(right), ..) => left.cmp(&right),
            (.., Some(left), Some(right)) => double_order(left, right),
            _ => Ordering::Less,
        },
    })
}

/// The text as a number of the same type as `like`.
fn read_as<'a>(text: &str, like: Value<'_>) -> Result<Value<'a>, Thrown> {
    let value = match like {
        Value::Int(_) => number::integer(text).and_then(|value| value.try_into().ok()).map(Value::Int),
        Value::Long(_) => number::integer(text).map(Value::Long),
        _ => number::double(text).map(Value::Double),
    };
    value.ok_or(Thrown)
}

fn whole(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(i64::from(value)),
        Value::Long(value) => Some(value),
        _ => None,
    }
}

fn float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(f64::from(value)),
        Value::Long(value) => Some(value as f64),
        Value::Double(value) => Some(value),
        _ => None,
    }
}

/// `Double.compareTo`: -0.0 is less than 0.0, and NaN greater than everything and equal to itself.
fn double_order(left: f64, right: f64) -> Ordering {
    let one_nan = |value: f64| if value.is_nan() { f64::NAN.abs() } else { value };
    one_nan(left).total_cmp(&one_nan(right))
}

/// `String.compareTo`.
fn text_order(left: &str, right: &str) -> Ordering {
    left.encode_utf16().cmp(right.encode_utf16())
}

/// Most texts of an IN that are searched one by one; more are sorted.
pub const SHORT_LIST: usize = 4;

fn is_in(list: &[Box<str>], value: &str) -> bool {
    match list.len() {
        ..=SHORT_LIST => list.iter().any(|text| **text == *value),
        _ => list.binary_search_by(|text| (**text).cmp(value)).is_ok(),
    }
}

fn find(place: Place, text: &str, not: bool, value: Value<'_>) -> bool {
    let Value::Text(value) = value else { return false };
    if text.is_empty() {
        return false;
    }
    let found = match place {
        Place::Anywhere => value.contains(text),
        Place::Start => value.starts_with(text),
        Place::End => value.ends_with(text),
    };
    found != not
}
