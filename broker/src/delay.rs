//! Delay levels and timer messages: what the broker was told of them, and how a message says when it is due.

use ringmq_protocol::properties::names as property;

/// Most delay levels.
const MAX_LEVELS: usize = 1024;
/// Java's timerPrecisionMs: TIMER_OUT_MS is rounded down to it. (What is due is due to the millisecond here.)
const PRECISION_MS: i64 = 1000;

/// What the broker was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayConfig {
    /// How long each level is, in ms, from level 1 on; at least one.
    pub levels: Vec<i64>,
    /// Whether timer messages are taken.
    pub timers: bool,
    /// Longest that one may wait, in ms.
    pub timer_max_delay_ms: i64,
    /// Whether they may be recalled.
    pub recall: bool,
}

impl DelayConfig {
    /// The level that a message with DELAY = `level` (above 0) goes to: the last one, if there are not so many.
    pub fn level(&self, level: i32) -> usize {
        usize::try_from(level).unwrap_or(1).clamp(1, self.levels.len())
    }
}

/// Reads Java's messageDelayLevel: `1s 5s 10s`, in ms; `None` when it is no such text.
pub fn parse_levels(text: &str) -> Option<Vec<i64>> {
    let levels: Option<Vec<i64>> = text.split_whitespace().map(parse_span).collect();
    levels.filter(|levels| (1..=MAX_LEVELS).contains(&levels.len()))
}

fn parse_span(text: &str) -> Option<i64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let number: i64 = number.parse().ok()?;
    // A century is long enough.
    number.checked_mul(unit_ms).filter(|ms| *ms <= 100 * 365 * 86_400_000)
}

/// What a message says about its time, as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish<'a> {
    level: Option<&'a str>,
    delay_sec: Option<&'a str>,
    delay_ms: Option<&'a str>,
    deliver_ms: Option<&'a str>,
    /// It has been through a timer already.
    is_done: bool,
    /// It is to delete the timer message with this key.
    pub deletes: Option<&'a str>,
}

/// When a message is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// By a delay level.
    Level {
        /// The level, from 1.
        level: usize,
        /// When it is due, in ms.
        due_ms: i64,
    },
    /// By a timer.
    Timer {
        /// When it is due, in ms.
        due_ms: i64,
        /// Java's TIMER_OUT_MS.
        out_ms: i64,
    },
}

/// Why a message cannot be taken for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenError {
    /// DELAY is no number.
    Level(String),
    /// Timers are switched off.
    Disabled,
    /// The time is no number, too far off, or (for a deletion) not ahead.
    Illegal,
}

impl<'a> Wish<'a> {
    /// Notes a property, if it is about the time; false otherwise.
    pub fn note(&mut self, name: &str, value: &'a str) -> bool {
        match name {
            property::DELAY_TIME_LEVEL => self.level = Some(value),
            property::TIMER_DELAY_SEC => self.delay_sec = Some(value),
            property::TIMER_DELAY_MS => self.delay_ms = Some(value),
            property::TIMER_DELIVER_MS => self.deliver_ms = Some(value),
            property::TIMER_OUT_MS => self.is_done = true,
            property::TIMER_DEL_UNIQKEY => self.deletes = Some(value),
            _ => return false,
        }
        true
    }

    /// Whether it names a time for a timer.
    pub fn has_timer(&self) -> bool {
        self.delay_sec.or(self.delay_ms).or(self.deliver_ms).is_some()
    }

    /// Whether nothing is wished: the message is for now.
    pub fn is_none(&self) -> bool {
        self.level.is_none() && !self.has_timer()
    }

    /// What it comes to at `now_ms`.
    pub fn when(&self, config: &DelayConfig, now_ms: i64) -> Result<When, WhenError> {
        let level = self
            .level
            .map_or(Ok(0), |level| level.parse::<i32>().map_err(|_| WhenError::Level(level.to_owned())))?;
        if level > 0 {
            let level = config.level(level);
            return Ok(When::Level { level, due_ms: now_ms + config.levels[level - 1] });
        }
        if self.is_done || !self.has_timer() {
            return Ok(When::Now);
        }
        if !config.timers {
            return Err(WhenError::Disabled);
        }
        let due_ms = self.timer_due(now_ms).ok_or(WhenError::Illegal)?;
        if due_ms <= now_ms {
            return if self.deletes.is_some() { Err(WhenError::Illegal) } else { Ok(When::Now) };
        }
        if due_ms - now_ms > config.timer_max_delay_ms {
            return Err(WhenError::Illegal);
        }
        let slot_ms = due_ms - due_ms.rem_euclid(PRECISION_MS);
        let out_ms = if slot_ms == due_ms { due_ms - PRECISION_MS } else { slot_ms };
        Ok(When::Timer { due_ms, out_ms })
    }

    fn timer_due(&self, now_ms: i64) -> Option<i64> {
        if let Some(seconds) = self.delay_sec {
            return now_ms.checked_add(seconds.parse::<i64>().ok()?.checked_mul(1000)?);
        }
        if let Some(ms) = self.delay_ms {
            return now_ms.checked_add(ms.parse().ok()?);
        }
        // A time before 1970 is as good as now.
        self.deliver_ms?.parse::<i64>().ok().map(|due| due.max(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DelayConfig {
        let levels = parse_levels("1s 5s 1m").unwrap();
        DelayConfig { levels, timers: true, timer_max_delay_ms: 259_200_000, recall: false }
    }

    fn when(properties: &[(&str, &str)]) -> Result<When, WhenError> {
        let mut wish = Wish::default();
        for (name, value) in properties {
            assert!(wish.note(name, value), "{name}");
        }
        wish.when(&config(), 1_000_500)
    }

    #[test]
    fn levels_are_read_as_java_writes_them() {
        assert_eq!(parse_levels("1s 5m  2h 1d 7ms"), Some(vec![1000, 300_000, 7_200_000, 86_400_000, 7]));
        for wrong in ["", " ", "5", "s", "5x", "-1s", "1s,2s", "99999999999999999999s", "9999999999999d"] {
            assert_eq!(parse_levels(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_level_goes_before_a_timer_and_is_clamped() {
        assert_eq!(when(&[("DELAY", "2")]), Ok(When::Level { level: 2, due_ms: 1_005_500 }));
        let both = when(&[("TIMER_DELAY_SEC", "9"), ("DELAY", "99")]);
        assert_eq!(both, Ok(When::Level { level: 3, due_ms: 1_060_500 }));
        assert_eq!(when(&[("DELAY", "0")]), Ok(When::Now));
        assert_eq!(when(&[("DELAY", "-3")]), Ok(When::Now));
        assert_eq!(when(&[("DELAY", "x")]), Err(WhenError::Level("x".into())));
    }

    #[test]
    fn timers_have_javas_priority_and_limits() {
        let timer = |due_ms, out_ms| Ok(When::Timer { due_ms, out_ms });
        assert_eq!(when(&[("TIMER_DELIVER_MS", "1002000")]), timer(1_002_000, 1_001_000));
        assert_eq!(when(&[("TIMER_DELIVER_MS", "1002001")]), timer(1_002_001, 1_002_000));
        assert_eq!(
            when(&[("TIMER_DELAY_MS", "700"), ("TIMER_DELIVER_MS", "1")]),
            timer(1_001_200, 1_001_000)
        );
        assert_eq!(when(&[("TIMER_DELAY_SEC", "2"), ("TIMER_DELAY_MS", "1")]), timer(1_002_500, 1_002_000));
        assert_eq!(when(&[("TIMER_DELIVER_MS", "1000500")]), Ok(When::Now));
        assert_eq!(when(&[("TIMER_DELIVER_MS", "-9223372036854775808")]), Ok(When::Now));
        assert_eq!(when(&[("TIMER_OUT_MS", "1"), ("TIMER_DELAY_SEC", "2")]), Ok(When::Now));
        assert_eq!(when(&[("TIMER_DELAY_SEC", "259200")]).unwrap(), timer(260_200_500, 260_200_000).unwrap());
        for wrong in ["259201", "x", "", "9223372036854775807", "9223372036854775"] {
            assert_eq!(when(&[("TIMER_DELAY_SEC", wrong)]), Err(WhenError::Illegal), "{wrong}");
        }
        let deletes = when(&[("TIMER_DEL_UNIQKEY", "k"), ("TIMER_DELIVER_MS", "5")]);
        assert_eq!(deletes, Err(WhenError::Illegal));
    }
}
