//! Numbers as Java reads and prints them.

/// `Integer.valueOf` and `Long.valueOf`: an optional sign and digits, nothing else.
pub fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `Double.valueOf`: surrounded by anything up to the space, decimal or hexadecimal, maybe with a type's letter.
pub fn double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c| c <= ' ');
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = match digits {
        "NaN" => return Some(f64::NAN),
        "Infinity" => f64::INFINITY,
        _ => {
            let bare = digits.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(digits);
            match bare.get(..2) {
                // The suffix is a hexadecimal digit only within the fraction, which an exponent ends.
                Some("0x" | "0X") => hexadecimal(&bare[2..])?,
                _ => decimal(bare)?,
            }
        }
    };
    Some(if negative { -value } else { value })
}

fn decimal(text: &str) -> Option<f64> {
    let is_part = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    // Rust's parser reads the same form, and words and signs in front that are excluded here.
    if !text.bytes().all(is_part) || text.starts_with(['+', '-']) {
        return None;
    }
    text.parse().ok()
}

/// Digits with an optional point, then `p` and a power of two; rounded once, to the nearest and then to even.
fn hexadecimal(text: &str) -> Option<f64> {
    let at = text.find(['p', 'P'])?;
    let (mantissa, power) = (&text[..at], &text[at + 1..]);
    let power = power.strip_prefix(['+', '-']).unwrap_or(power);
    if power.is_empty() || !power.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let negative = text.as_bytes()[at + 1] == b'-';
    let power = power.parse::<i64>().unwrap_or(1 << 40).min(1 << 40);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut bits, mut exponent, mut sticky) = (0u64, 0i64, false);
    for digit in whole.chars().chain(fraction.chars()) {
        let digit = digit.to_digit(16)?;
        if bits >> 59 == 0 {
            bits = bits << 4 | u64::from(digit);
        } else {
            sticky |= digit != 0;
            exponent += 4;
        }
    }
    exponent -= 4 * fraction.chars().count() as i64;
    exponent += if negative { -power } else { power };
    Some(scaled(bits, exponent, sticky))
}

/// `bits` × 2^`exponent`, where `sticky` stands for something small that was cut off.
fn scaled(bits: u64, exponent: i64, sticky: bool) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    let top = i64::from(63 - bits.leading_zeros());
    // The least power of two that the result can hold.
    let least = (top + exponent - 52).max(-1074);
    let shift = least - exponent;
    let value = match shift {
        ..=0 => return power(bits as f64, exponent),
        1..=63 => {
            let (kept, cut) = (bits >> shift, bits & ((1 << shift) - 1));
            let half = 1u64 << (shift - 1);
            let up = cut > half || (cut == half && (sticky || kept & 1 == 1));
            kept + u64::from(up)
        }
        64 => u64::from(bits > 1 << 63 || (bits == 1 << 63 && sticky)),
        _ => 0,
    };
    power(value as f64, least)
}

/// `value` × 2^`exponent`, exact whenever the result can hold it.
fn power(mut value: f64, exponent: i64) -> f64 {
    let mut left = exponent.clamp(-2200, 2200);
    while left != 0 && value != 0.0 && value.is_finite() {
        let step = left.clamp(-512, 512);
        value *= 2f64.powi(step as i32);
        left -= step;
    }
    value
}

/// `Double.toString`.
pub fn show_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = value.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{value:?}");
    }
    if size == f64::from_bits(1) {
        // Java up to 18 shows two digits where one says it all.
        return if value > 0.0 { "4.9E-324" } else { "-4.9E-324" }.to_owned();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => format!("{mantissa}E{exponent}"),
        Some((mantissa, exponent)) => format!("{mantissa}.0E{exponent}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_java_does() {
        assert_eq!(integer("+5"), Some(5));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "+", "5.0", " 5", "5 ", "0x5", "9223372036854775808", "--5"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_read_as_java_does() {
        for (text, value) in [
            ("5", 5.0),
            (" \t-5.5e2 ", -550.0),
            ("5.", 5.0),
            (".5f", 0.5),
            ("5D", 5.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x1.8p1", 3.0),
            ("0xAp-1d", 5.0),
            ("0x.1p4", 1.0),
            ("0x1p-1074", 5e-324),
            ("0x1p-1075", 0.0),
            ("0x1.8p-1075", 5e-324),
            ("0x1.fffffffffffff8p1023", f64::INFINITY),
            ("0x0.00000000000000000001p80", 1.0),
            ("1e400", f64::INFINITY),
        ] {
            assert_eq!(double(text), Some(value), "{text}");
        }
        assert!(double("+NaN").is_some_and(f64::is_nan));
        for bad in
            ["", ".", "e5", "5e", "inf", "nan", "infinity", "0x1", "0xp1", "5_0", "+-5", "5dd", "0x1.8"]
        {
            assert_eq!(double(bad), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_shown_as_java_does() {
        for (value, text) in
            [(5.0, "5.0"), (1e7, "1.0E7"), (1.25e-5, "1.25E-5"), (0.001, "0.001"), (123456.5, "123456.5")]
        {
            assert_eq!(show_double(value), text);
        }
    }
}
