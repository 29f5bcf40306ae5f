//! From an expression's text to its program, in one pass: the grammar of RocketMQ's SelectorParser, and the checks
//! that its expressions make when they are put together, in the same order.

use std::collections::BTreeMap;

use crate::program::{Comparison, Constant, Filter, Op, Place, SHORT_LIST, Value, compare};
use crate::text::{show, show_value};
use crate::token::{Kind, Lexer, Token, escaped};
use crate::{FilterError, MAX_DEPTH, MAX_LENGTH, number};

/// What an operand begins with.
const OPERANDS: [Kind; 10] = [
    Kind::Not,
    Kind::True,
    Kind::False,
    Kind::Null,
    Kind::Decimal,
    Kind::Float,
    Kind::Text,
    Kind::Id,
    Kind::Open,
    Kind::Minus,
];

type Parsed<T> = Result<T, FilterError>;

impl Filter {
    /// Compiles an expression. What stands behind a whole expression is not looked at, as in Java.
    pub fn compile(source: &str) -> Result<Filter, FilterError> {
        if source.len() > MAX_LENGTH {
            return Err(FilterError::TooLong { len: source.len() });
        }
        let mut parser = Parser {
            lexer: Lexer::new(source),
            ahead: None,
            second: None,
            expected: Vec::new(),
            depth: 0,
            ops: Vec::new(),
            names: BTreeMap::new(),
        };
        let whole = parser.or_expression()?;
        parser.cast(whole);
        parser.require_boolean(whole)?;
        Ok(Filter::new(source, parser.ops, parser.names))
    }
}

/// What kind of operand stands on the stack, as far as Java's checks ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Property,
    Constant,
    /// A constant that is also a boolean expression: TRUE, FALSE and NULL.
    BooleanConstant,
    Boolean,
    /// The negative of something.
    Other,
}

impl Type {
    fn is_constant(self) -> bool {
        matches!(self, Type::Constant | Type::BooleanConstant)
    }
}

/// An operand: the operations from `start` compute it.
#[derive(Clone, Copy, Debug)]
struct Operand {
    kind: Type,
    start: usize,
    end: usize,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token<'a>>,
    second: Option<Token<'a>>,
    /// Kinds that would have been taken instead of the token ahead.
    expected: Vec<Kind>,
    depth: usize,
    ops: Vec<Op>,
    names: BTreeMap<Box<str>, u32>,
}

/// Tokens.
impl<'a> Parser<'a> {
    fn peek(&mut self) -> Parsed<Kind> {
        if self.ahead.is_none() {
            self.ahead = match self.second.take() {
                Some(token) => Some(token),
                None => Some(self.lexer.next()?),
            };
        }
        Ok(self.ahead.map_or(Kind::Eof, |token| token.kind))
    }

    fn peek_second(&mut self) -> Parsed<Kind> {
        self.peek()?;
        if self.second.is_none() {
            self.second = Some(self.lexer.next()?);
        }
        Ok(self.second.map_or(Kind::Eof, |token| token.kind))
    }

    /// Takes the token ahead if it is of that kind.
    fn take(&mut self, kind: Kind) -> Parsed<Option<Token<'a>>> {
        if self.peek()? != kind {
            self.expected.push(kind);
            return Ok(None);
        }
        self.expected.clear();
        Ok(self.ahead.take())
    }

    fn require(&mut self, kind: Kind) -> Parsed<Token<'a>> {
        match self.take(kind)? {
            Some(token) => Ok(token),
            None => Err(self.unexpected()),
        }
    }

    fn unexpected(&mut self) -> FilterError {
        let token = match self.peek() {
            Err(error) => return error,
            Ok(_) => self.ahead.expect("a token was just read"),
        };
        self.unexpected_at(&token)
    }

    fn unexpected_at(&mut self, token: &Token<'_>) -> FilterError {
        let (line, column) = self.lexer.position_of(token);
        let found = match token.kind {
            Kind::Eof => Kind::Eof.image().to_owned(),
            kind => format!(" {} \"{} \"", kind.image(), escaped(token.text)),
        };
        let mut expected = std::mem::take(&mut self.expected);
        expected.sort_unstable_by_key(|kind| (*kind == Kind::Plus, *kind as u8));
        expected.dedup();
        let one_of = if expected.len() == 1 { "" } else { " one of" };
        let mut text =
            format!("Encountered \"{found}\" at line {line}, column {column}.\nWas expecting{one_of}:\n    ");
        for kind in expected {
            text.push_str(&format!("{} ...\n    ", kind.image()));
        }
        FilterError::Syntax(text)
    }
}

/// The grammar.
impl<'a> Parser<'a> {
    fn or_expression(&mut self) -> Parsed<Operand> {
        let mut left = self.and_expression()?;
        while self.take(Kind::Or)?.is_some() {
            left = self.logic(left, true, Parser::and_expression)?;
        }
        Ok(left)
    }

    fn and_expression(&mut self) -> Parsed<Operand> {
        let mut left = self.equality()?;
        while self.take(Kind::And)?.is_some() {
            left = self.logic(left, false, Parser::equality)?;
        }
        Ok(left)
    }

    /// The right side of an AND or OR, which is not evaluated if the left one is `deciding`.
    fn logic(
        &mut self,
        left: Operand,
        deciding: bool,
        right: impl FnOnce(&mut Parser<'a>) -> Parsed<Operand>,
    ) -> Parsed<Operand> {
        self.cast(left);
        let jump = self.emit(Op::If { value: deciding, to: 0 });
        let right = right(self)?;
        self.cast(right);
        self.require_boolean(left)?;
        self.require_boolean(right)?;
        self.emit(if deciding { Op::Or } else { Op::And });
        self.land(jump);
        Ok(self.operand(Type::Boolean, left.start))
    }

    fn equality(&mut self) -> Parsed<Operand> {
        let mut left = self.comparison()?;
        loop {
            let negated = if self.take(Kind::Equal)?.is_some() {
                false
            } else if self.take(Kind::NotEqual)?.is_some() {
                true
            } else if self.take(Kind::Is)?.is_some() {
                left = self.is_null(left)?;
                continue;
            } else {
                return Ok(left);
            };
            let right = self.comparison()?;
            self.check_equal(left, right)?;
            self.emit(Op::Equal);
            if negated {
                self.emit(Op::Not);
            }
            left = self.operand(Type::Boolean, left.start);
        }
    }

    fn is_null(&mut self, left: Operand) -> Parsed<Operand> {
        let not = self.take(Kind::Not)?.is_some();
        self.require(Kind::Null)?;
        self.emit(Op::Push(Constant::Null));
        self.emit(Op::Equal);
        if not {
            self.emit(Op::Not);
        }
        Ok(self.operand(Type::Boolean, left.start))
    }

    fn comparison(&mut self) -> Parsed<Operand> {
        let mut left = self.unary()?;
        loop {
            left = if self.take(Kind::Greater)?.is_some() {
                self.ordering(left, Comparison::Greater)?
            } else if self.take(Kind::GreaterEqual)?.is_some() {
                self.ordering(left, Comparison::GreaterEqual)?
            } else if self.take(Kind::Less)?.is_some() {
                self.ordering(left, Comparison::Less)?
            } else if self.take(Kind::LessEqual)?.is_some() {
                self.ordering(left, Comparison::LessEqual)?
            } else {
                match self.predicate(left)? {
                    Some(predicate) => predicate,
                    None => return Ok(left),
                }
            };
        }
    }

    fn ordering(&mut self, left: Operand, comparison: Comparison) -> Parsed<Operand> {
        let jump = self.emit(Op::IfNull { to: 0 });
        let right = self.unary()?;
        self.check_ordered(left)?;
        self.check_ordered(right)?;
        self.emit(Op::Compare(comparison));
        self.land(jump);
        Ok(self.operand(Type::Boolean, left.start))
    }

    /// `[NOT] CONTAINS | STARTSWITH | ENDSWITH | BETWEEN | IN`, if that is ahead.
    fn predicate(&mut self, left: Operand) -> Parsed<Option<Operand>> {
        let not = self.peek()? == Kind::Not;
        if !not {
            self.expected.push(Kind::Not);
        } else {
            let second = self.peek_second()?;
            let known = [Kind::Contains, Kind::StartsWith, Kind::EndsWith, Kind::Between, Kind::In];
            if !known.contains(&second) {
                return Err(self.unexpected());
            }
            self.take(Kind::Not)?;
        }
        let predicate = if self.take(Kind::Contains)?.is_some() {
            self.find(left, Place::Anywhere, not)
        } else if self.take(Kind::StartsWith)?.is_some() {
            self.find(left, Place::Start, not)
        } else if self.take(Kind::EndsWith)?.is_some() {
            self.find(left, Place::End, not)
        } else if self.take(Kind::Between)?.is_some() {
            self.between(left, not)
        } else if self.take(Kind::In)?.is_some() {
            self.in_list(left, not)
        } else {
            return Ok(None);
        };
        predicate.map(Some)
    }

    fn find(&mut self, left: Operand, place: Place, not: bool) -> Parsed<Operand> {
        let text = self.text_literal()?;
        if text.is_empty() {
            // Never true, and its operand not even evaluated.
            self.ops.truncate(left.start);
            self.emit(Op::Push(Constant::Text(Box::default())));
        }
        self.emit(Op::Find { place, text, not });
        Ok(self.operand(Type::Boolean, left.start))
    }

    /// `value >= low AND value <= high`, or `value < low OR value > high`; the value is computed once.
    fn between(&mut self, value: Operand, not: bool) -> Parsed<Operand> {
        let (lower, upper) = match not {
            false => (Comparison::GreaterEqual, Comparison::LessEqual),
            true => (Comparison::Less, Comparison::Greater),
        };
        self.emit(Op::Copy);
        let jump = self.emit(Op::IfNull { to: 0 });
        let low = self.unary()?;
        self.emit(Op::Compare(lower));
        self.land(jump);
        self.require(Kind::And)?;
        let decided = self.emit(Op::IfDropping { value: not, to: 0 });
        self.emit(Op::Swap);
        let jump = self.emit(Op::IfNull { to: 0 });
        let high = self.unary()?;
        self.emit(Op::Compare(upper));
        self.land(jump);
        if !not {
            self.check_range(low, high)?;
        }
        for operand in [value, low, value, high] {
            self.check_ordered(operand)?;
        }
        self.emit(if not { Op::Or } else { Op::And });
        self.land(decided);
        Ok(self.operand(Type::Boolean, value.start))
    }

    fn in_list(&mut self, left: Operand, not: bool) -> Parsed<Operand> {
        self.require(Kind::Open)?;
        let mut list = vec![self.text_literal()?];
        while self.take(Kind::Comma)?.is_some() {
            list.push(self.text_literal()?);
        }
        self.require(Kind::Close)?;
        if left.kind != Type::Property {
            let text = format!("Expected a property for In expression, got: {}", self.show(left));
            return Err(FilterError::Type(format!("RuntimeException: {text}")));
        }
        if list.len() > SHORT_LIST {
            list.sort_unstable();
            list.dedup();
        }
        self.emit(Op::In { list: list.into(), not });
        Ok(self.operand(Type::Boolean, left.start))
    }

    fn unary(&mut self) -> Parsed<Operand> {
        self.deeper(|parser| {
            if let Some(plus) = parser.take(Kind::Plus)? {
                // Java reads the whole operand ahead, and blames the sign when it is none.
                return parser.unary().map_err(|error| match error {
                    FilterError::Syntax(text) if text.starts_with("Encountered") => {
                        parser.expected = OPERANDS.to_vec();
                        parser.unexpected_at(&plus)
                    }
                    other => other,
                });
            }
            let start = parser.ops.len();
            if parser.take(Kind::Minus)?.is_some() {
                parser.unary()?;
                parser.emit(Op::Negate);
                return Ok(parser.operand(Type::Other, start));
            }
            if parser.take(Kind::Not)?.is_some() {
                let operand = parser.unary()?;
                parser.cast(operand);
                parser.require_boolean(operand)?;
                parser.emit(Op::Not);
                return Ok(parser.operand(Type::Boolean, start));
            }
            parser.primary()
        })
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Parser<'a>) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn primary(&mut self) -> Parsed<Operand> {
        let start = self.ops.len();
        if let Some(constant) = self.constant()? {
            let kind = match constant {
                Constant::Null | Constant::Bool(_) => Type::BooleanConstant,
                _ => Type::Constant,
            };
            self.emit(Op::Push(constant));
            return Ok(self.operand(kind, start));
        }
        if let Some(token) = self.take(Kind::Id)? {
            let slot = self.slot(token.text);
            self.emit(Op::Property(slot));
            return Ok(self.operand(Type::Property, start));
        }
        self.require(Kind::Open)?;
        let inner = self.or_expression()?;
        self.require(Kind::Close)?;
        Ok(inner)
    }

    fn constant(&mut self) -> Parsed<Option<Constant>> {
        let constant = match self.peek()? {
            Kind::Text => Constant::Text(self.text_literal()?),
            Kind::Decimal => decimal(self.require(Kind::Decimal)?.text)?,
            Kind::Float => float(self.require(Kind::Float)?.text)?,
            Kind::True => Constant::Bool(true),
            Kind::False => Constant::Bool(false),
            Kind::Null => Constant::Null,
            _ => {
                self.expected.extend(OPERANDS);
                return Ok(None);
            }
        };
        if matches!(constant, Constant::Bool(_) | Constant::Null) {
            self.expected.clear();
            self.ahead = None;
        }
        Ok(Some(constant))
    }

    fn text_literal(&mut self) -> Parsed<Box<str>> {
        let token = self.require(Kind::Text)?;
        Ok(token.text[1..token.text.len() - 1].replace("''", "'").into())
    }
}

fn decimal(text: &str) -> Parsed<Constant> {
    let digits = text.trim_end_matches(['l', 'L']);
    let Some(value) = number::integer(digits) else {
        let text = format!("NumberFormatException: For input string: \"{digits}\"");
        return Err(FilterError::Type(text));
    };
    Ok(i32::try_from(value).map_or(Constant::Long(value), Constant::Int))
}

fn float(text: &str) -> Parsed<Constant> {
    let value = number::double(text).unwrap_or(f64::NAN);
    let wrong = if value > f64::MAX {
        Some("greater than 1.7976931348623157E308")
    } else if value < f64::from_bits(1) {
        Some("less than 4.9E-324")
    } else {
        None
    };
    match wrong {
        Some(wrong) => Err(FilterError::Type(format!("RuntimeException: {text} is {wrong}"))),
        None => Ok(Constant::Double(value)),
    }
}

/// The program.
impl Parser<'_> {
    fn emit(&mut self, op: Op) -> usize {
        self.ops.push(op);
        self.ops.len() - 1
    }

    fn operand(&self, kind: Type, start: usize) -> Operand {
        Operand { kind, start, end: self.ops.len() }
    }

    /// The jump at `at` goes here.
    fn land(&mut self, at: usize) {
        let here = self.ops.len() as u32;
        match &mut self.ops[at] {
            Op::IfNull { to } | Op::If { to, .. } | Op::IfDropping { to, .. } => *to = here,
            other => unreachable!("{other:?} is no jump"),
        }
    }

    fn slot(&mut self, name: &str) -> u32 {
        let next = self.names.len() as u32;
        *self.names.entry(name.into()).or_insert(next)
    }

    /// The operand that was just emitted stands where a boolean is wanted.
    fn cast(&mut self, operand: Operand) {
        debug_assert_eq!(operand.end, self.ops.len(), "only the last operand can be cast");
        if operand.kind == Type::Property {
            self.emit(Op::Cast);
        }
    }

    fn show(&self, operand: Operand) -> String {
        let name_of = |slot| {
            let name = self.names.iter().find(|(_, other)| **other == slot);
            name.map(|(name, _)| name.to_string()).unwrap_or_default()
        };
        show(&self.ops[operand.start..operand.end], &name_of)
    }

    fn constant_of(&self, operand: Operand) -> Option<&Constant> {
        match &self.ops[operand.start] {
            Op::Push(constant) if operand.kind.is_constant() => Some(constant),
            _ => None,
        }
    }
}

/// Java's checks.
impl Parser<'_> {
    fn require_boolean(&self, operand: Operand) -> Parsed<()> {
        match operand.kind {
            Type::Property | Type::Boolean | Type::BooleanConstant => Ok(()),
            Type::Constant | Type::Other => Err(FilterError::Syntax(format!(
                "Expression will not result in a boolean value: {}",
                self.show(operand)
            ))),
        }
    }

    fn check_ordered(&self, operand: Operand) -> Parsed<()> {
        let is_number = match self.constant_of(operand) {
            Some(constant) => {
                matches!(constant, Constant::Int(_) | Constant::Long(_) | Constant::Double(_))
            }
            None => operand.kind != Type::Boolean,
        };
        match is_number {
            true => Ok(()),
            false => {
                let text = format!("RuntimeException: Value '{}' cannot be compared.", self.show(operand));
                Err(FilterError::Type(text))
            }
        }
    }

    fn check_equal(&self, left: Operand, right: Operand) -> Parsed<()> {
        for operand in [left, right] {
            if self.constant_of(operand) == Some(&Constant::Null) {
                return Err(FilterError::Type("RuntimeException: 'NULL' cannot be compared.".to_owned()));
            }
        }
        if left.kind == Type::BooleanConstant && right.kind == Type::Constant {
            let text = format!("'{}' cannot be compared with '{}'", self.show(left), self.show(right));
            return Err(FilterError::Type(format!("RuntimeException: {text}")));
        }
        Ok(())
    }

    /// The bounds of a BETWEEN, when both are constants.
    fn check_range(&self, low: Operand, high: Operand) -> Parsed<()> {
        let (Some(low), Some(high)) = (self.constant_of(low), self.constant_of(high)) else { return Ok(()) };
        if *low == Constant::Null || *high == Constant::Null {
            let text = "RuntimeException: Illegal values of between, values can not be null!";
            return Err(FilterError::Type(text.to_owned()));
        }
        match compare(Value::from(high), Value::from(low)) {
            Ok(order) if order.is_ge() => Ok(()),
            Ok(_) => Err(FilterError::Type(format!(
                "RuntimeException: Illegal values of between, left value({}) must less than or equal to right \
                 value({})",
                show_value(low),
                show_value(high)
            ))),
            Err(_) => Err(FilterError::Type(incomparable(low, high))),
        }
    }
}

/// Why two constants cannot be compared.
fn incomparable(low: &Constant, high: &Constant) -> String {
    match (low, high) {
        (Constant::Text(_), Constant::Bool(_)) => {
            "ClassCastException: class java.lang.Boolean cannot be cast to class java.lang.String \
             (java.lang.Boolean and java.lang.String are in module java.base of loader 'bootstrap')"
                .to_owned()
        }
        (Constant::Text(text), other) | (other, Constant::Text(text)) => {
            let why = match (other, text.trim_matches(|c| c <= ' ')) {
                (Constant::Double(_), "") => "empty String".to_owned(),
                _ => format!("For input string: \"{text}\""),
            };
            format!("RuntimeException: java.lang.NumberFormatException: {why}")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    const MESSAGE: [(&str, &str); 4] = [("a", "5"), ("b", "x"), ("t", "True"), ("a1", "5.5")];

    fn outcome(source: &str) -> Outcome {
        Filter::compile(source).unwrap_or_else(|error| panic!("{source}: {error}")).evaluate(MESSAGE)
    }

    fn error(source: &str) -> String {
        Filter::compile(source).unwrap_err().to_string()
    }

    #[test]
    fn evaluates_with_javas_conversions() {
        for source in [
            "a = 5",
            "a = '5' AND b = 'x'",
            "5 = a",
            "a BETWEEN 5 AND 6 AND NOT (a BETWEEN 6 AND 7)",
            "a NOT BETWEEN 6 AND 7",
            "b IN ('y', 'x')",
            "b IN ('1', '2', '3', '4', 'x')",
            "b NOT IN ('y')",
            "none IS NULL and b is not null",
            "t = TRUE",
            "none = other",
            "NOT b",
            "b CONTAINS 'x' AND b STARTSWITH 'x' AND b ENDSWITH 'x' AND b NOT CONTAINS 'y'",
            "a < a1 AND a >= a",
            "(a = 5) = TRUE",
            "a > -6 AND a = +5",
            "a = 5 whatever follows",
            "none > 1 OR a = 5",
        ] {
            assert_eq!(outcome(source), Outcome::True, "{source}");
        }
        for (source, expected) in [
            ("b", Outcome::False),
            ("b CONTAINS ''", Outcome::False),
            ("b NOT CONTAINS ''", Outcome::False),
            ("none NOT CONTAINS 'x'", Outcome::False),
            ("none > 1", Outcome::Unknown),
            ("none = 1", Outcome::Unknown),
            ("none", Outcome::Unknown),
            ("NULL", Outcome::Unknown),
            ("none > 1 AND a = 6", Outcome::False),
            ("b > 1", Outcome::Failed),
            ("a1 = 5", Outcome::Failed),
            ("TRUE = t", Outcome::Failed),
            ("b > b", Outcome::Failed),
            ("a = 5 AND b > 1", Outcome::Failed),
        ] {
            assert_eq!(outcome(source), expected, "{source}");
        }
    }

    #[test]
    fn errors_are_javas() {
        for (source, text) in [
            ("a > 'x'", "java.lang.RuntimeException: Value ''x'' cannot be compared."),
            ("(a = 1) > 2", "java.lang.RuntimeException: Value '(a == 1)' cannot be compared."),
            ("a = NULL", "java.lang.RuntimeException: 'NULL' cannot be compared."),
            ("TRUE = 5", "java.lang.RuntimeException: 'TRUE' cannot be compared with '5'"),
            (
                "a BETWEEN 6 AND 5",
                "java.lang.RuntimeException: Illegal values of between, left value(6) must less than or equal to \
                 right value(5)",
            ),
            ("5 IN ('a')", "java.lang.RuntimeException: Expected a property for In expression, got: 5"),
            ("a = 0.0", "java.lang.RuntimeException: 0.0 is less than 4.9E-324"),
            (
                "a = 9223372036854775808",
                "java.lang.NumberFormatException: For input string: \"9223372036854775808\"",
            ),
            (
                "a OR 5",
                "org.apache.rocketmq.filter.parser.ParseException: Expression will not result in a boolean value: 5",
            ),
            (
                "a IN ('x' b)",
                "org.apache.rocketmq.filter.parser.ParseException: Encountered \" <ID> \"b \"\" at line 1, column \
                 11.\nWas expecting one of:\n    \",\" ...\n    \")\" ...\n    ",
            ),
        ] {
            assert_eq!(error(source), text, "{source}");
        }
    }

    #[test]
    fn depth_and_length_have_limits_with_errors_that_name_them() {
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Filter::compile(&nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(Filter::compile(&nested(MAX_DEPTH)), Err(FilterError::TooDeep));
        assert_eq!(Filter::compile(&"- ".repeat(MAX_DEPTH + 1)), Err(FilterError::TooDeep));
        let chain = vec!["a = 1"; MAX_LENGTH / 9 - 1].join(" OR ");
        assert_eq!(Filter::compile(&chain).unwrap().evaluate([]), Outcome::Unknown);
        let len = MAX_LENGTH + 1;
        assert_eq!(Filter::compile(&" ".repeat(len)), Err(FilterError::TooLong { len }));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(words in proptest::collection::vec(
            proptest::sample::select(vec![
                "a", "b", "(", ")", "NOT", "AND", "OR", "=", "<>", "<", ">=", "BETWEEN", "IN", "IS", "NULL", "TRUE",
                "'x'", "'5'", "5", "5.5", "-", "+", ",", "CONTAINS", "ENDSWITH", "/*", "*/", "--", "\n", "#", "é",
            ]),
            0..24,
        )) {
            if let Ok(filter) = Filter::compile(&words.join(" ")) {
                filter.evaluate(MESSAGE);
            }
        }
    }
}
