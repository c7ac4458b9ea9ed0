//! Spans of time as PostgreSQL defines them: months, days and microseconds that are kept apart,
//! because months and days have no fixed length. This module parses intervals and determines which
//! are equal; `weir-sql` prints them.

use arrow::datatypes::IntervalMonthDayNano;

use crate::rounding::{micros_of_amount, nearest};

/// The microseconds of a second, and of a day.
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
const NANOS: i64 = 1_000;
/// The days of a month, for conversions of months into days.
const MONTH_DAYS: i64 = 30;

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// May be negative, like the other parts, independently of them.
    pub months: i32,
    /// The days in addition to the months.
    pub days: i32,
    /// The microseconds in addition to the days; may be more than those of a day.
    pub micros: i64,
}

impl Interval {
    /// Returns the stored form; `None` if the time is beyond 292 years, which nanoseconds cannot
    /// count.
    pub fn to_arrow(self) -> Option<IntervalMonthDayNano> {
        Some(IntervalMonthDayNano::new(self.months, self.days, self.micros.checked_mul(NANOS)?))
    }

    /// Reads the stored form. Nanoseconds are truncated; only values that do not come from a table
    /// have any.
    pub fn from_arrow(stored: IntervalMonthDayNano) -> Interval {
        Interval { months: stored.months, days: stored.days, micros: stored.nanoseconds / NANOS }
    }

    /// Returns the normal form, which all equal intervals share: the time is less than a day, the
    /// days are fewer than in a month, and both are not negative. Intervals are equal if they are
    /// equally long, with 24 hours in a day and 30 days in a month. Normal forms compare part by
    /// part in the same order as the intervals' lengths. An interval that is too long is cut to the
    /// longest one.
    pub fn normal(self) -> Interval {
        let days = i64::from(self.days) + self.micros.div_euclid(DAY);
        let months = i64::from(self.months) + days.div_euclid(MONTH_DAYS);
        let months = i32::try_from(months).unwrap_or(if months < 0 { i32::MIN } else { i32::MAX });
        let days = i32::try_from(days.rem_euclid(MONTH_DAYS)).unwrap_or_default();
        Interval { months, days, micros: self.micros.rem_euclid(DAY) }
    }

    /// Returns the length in microseconds, with 24 hours in a day and 30 days in a month. Equal
    /// intervals are equally long.
    pub fn length(self) -> i128 {
        let days = i128::from(self.months) * i128::from(MONTH_DAYS) + i128::from(self.days);
        days * i128::from(DAY) + i128::from(self.micros)
    }

    /// Parses PostgreSQL's forms of intervals: amounts with units (`1 year 2 mons -3 days`), a time
    /// of day (`04:05:06.7`), years and months (`1-2`), `ago` at the end, or ISO 8601 with
    /// designators (`P1Y2M3DT4H5M6.7S`). A last number without a unit counts seconds. Returns
    /// `None` if the text is not an interval, or one that is too long.
    pub fn parse(text: &str) -> Option<Interval> {
        let text = text.trim_ascii();
        let mut sum = Sum::default();
        match text.strip_prefix(['P', 'p']) {
            Some(designated) => sum.add_designated(designated)?,
            None => sum.add_words(text)?,
        }
        sum.finish()
    }
}

/// The sum of an interval's parts while it is parsed.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

/// The unit of an amount, as a multiple of months, days or microseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

/// An amount: its whole part and the fraction after the point, both with its sign.
#[derive(Clone, Copy)]
struct Amount {
    whole: i64,
    fraction: f64,
}

impl Sum {
    fn finish(self) -> Option<Interval> {
        Some(Interval {
            months: i32::try_from(self.months).ok()?,
            days: i32::try_from(self.days).ok()?,
            micros: self.micros,
        })
    }

    fn add(&mut self, amount: Amount, unit: Unit) -> Option<()> {
        match unit {
            Unit::Months(each) => {
                self.months = self.months.checked_add(amount.whole.checked_mul(each)?)?;
                // A fraction of a year or a longer unit becomes months; a fraction of a month
                // becomes days.
                if each == 1 {
                    self.add_fraction_of_days(amount.fraction, MONTH_DAYS)?;
                } else {
                    self.months = self.months.checked_add(nearest(amount.fraction * to_f64(each)))?;
                }
            }
            Unit::Days(each) => {
                self.days = self.days.checked_add(amount.whole.checked_mul(each)?)?;
                self.add_fraction_of_days(amount.fraction, each)?;
            }
            Unit::Micros(each) => {
                let micros = micros_of_amount(amount.fraction * to_f64(each));
                let micros = amount.whole.checked_mul(each)?.checked_add(micros)?;
                self.micros = self.micros.checked_add(micros)?;
            }
        }
        Some(())
    }

    fn add_fraction_of_days(&mut self, fraction: f64, days: i64) -> Option<()> {
        let days = fraction * to_f64(days);
        let whole = days.trunc();
        self.days = self.days.checked_add(nearest(whole))?;
        self.micros = self.micros.checked_add(micros_of_amount((days - whole) * to_f64(DAY)))?;
        Some(())
    }

    fn add_words(&mut self, text: &str) -> Option<()> {
        let (text, ago) = match text.strip_suffix("ago") {
            Some(rest) if rest.ends_with(|last: char| last.is_ascii_whitespace()) => (rest, true),
            _ => (text, false),
        };
        let mut rest = text.trim_ascii().trim_start_matches('@').trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let (word, tail) = split_while(rest, |byte| matches!(byte, b'0'..=b'9' | b'.' | b':' | b'-' | b'+'));
            rest = tail.trim_ascii_start();
            if word.contains(':') {
                self.add(Amount { whole: time(word)?, fraction: 0.0 }, Unit::Micros(1))?;
                continue;
            }
            if let Some((years, months)) = years_and_months(word) {
                self.months = self.months.checked_add(years.checked_mul(12)?.checked_add(months)?)?;
                continue;
            }
            let amount = amount(word)?;
            let (name, tail) = split_while(rest, |byte| byte.is_ascii_alphabetic());
            let unit = match name {
                // A number before a time of day counts days.
                "" if rest.split_ascii_whitespace().next().is_some_and(|next| next.contains(':')) => Unit::Days(1),
                "" if rest.is_empty() => Unit::Micros(SECOND),
                name => unit(name)?,
            };
            rest = tail.trim_ascii_start();
            self.add(amount, unit)?;
        }
        if ago {
            *self = Sum {
                months: self.months.checked_neg()?,
                days: self.days.checked_neg()?,
                micros: self.micros.checked_neg()?,
            };
        }
        Some(())
    }

    /// Adds the text that follows the P of ISO 8601.
    fn add_designated(&mut self, text: &str) -> Option<()> {
        let (mut rest, mut in_time) = (text, false);
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix(['T', 't']) {
                if in_time || tail.is_empty() {
                    return None;
                }
                (rest, in_time) = (tail, true);
                continue;
            }
            let (number, tail) = split_while(rest, |byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+'));
            let unit = match (tail.bytes().next()?.to_ascii_uppercase(), in_time) {
                (b'Y', false) => Unit::Months(12),
                (b'M', false) => Unit::Months(1),
                (b'W', false) => Unit::Days(7),
                (b'D', false) => Unit::Days(1),
                (b'H', true) => Unit::Micros(3600 * SECOND),
                (b'M', true) => Unit::Micros(60 * SECOND),
                (b'S', true) => Unit::Micros(SECOND),
                _ => return None,
            };
            self.add(amount(number)?, unit)?;
            rest = &tail[1..];
        }
        Some(())
    }
}

/// Splits off the longest prefix of bytes of a kind.
fn split_while(text: &str, of_kind: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !of_kind(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// Parses `[+-]digits[.digits]`.
fn amount(word: &str) -> Option<Amount> {
    let (sign, unsigned) = signed(word);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let fraction = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse::<f64>().ok()? };
    Some(Amount { whole: sign * whole, fraction: to_f64(sign) * fraction })
}

fn signed(word: &str) -> (i64, &str) {
    match word.as_bytes().first() {
        Some(b'-') => (-1, &word[1..]),
        Some(b'+') => (1, &word[1..]),
        _ => (1, word),
    }
}

/// Parses `[+-]years-months`.
fn years_and_months(word: &str) -> Option<(i64, i64)> {
    let (sign, unsigned) = signed(word);
    let (years, months) = unsigned.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let months = number(months).filter(|months| *months < 12)?;
    Some((sign * number(years)?, sign * months))
}

/// Parses `[+-]hours:minutes[:seconds[.fraction]]`, or `minutes:seconds.fraction`, into
/// microseconds.
fn time(word: &str) -> Option<i64> {
    let (sign, unsigned) = signed(word);
    let mut parts = unsigned.splitn(3, ':');
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next());
    let (hours, minutes, seconds) = match third {
        Some(seconds) => (first, second, seconds),
        None if second.contains('.') => ("0", first, second),
        None => (first, second, "0"),
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>().ok())?;
    let minutes = number(minutes).filter(|minutes| *minutes < 60)?;
    let seconds = amount(seconds).filter(|seconds| (0..=60).contains(&seconds.whole))?;
    let micros = seconds.whole * SECOND + nearest(seconds.fraction * to_f64(SECOND));
    let hours = number(hours)?.checked_mul(3600 * SECOND)?;
    Some(sign * hours.checked_add(minutes * 60 * SECOND + micros)?)
}

/// Returns the unit with one of PostgreSQL's names.
fn unit(name: &str) -> Option<Unit> {
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" | "microsecond" | "microseconds" => {
            Unit::Micros(1)
        }
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecon" | "millisecond" | "milliseconds" => {
            Unit::Micros(1_000)
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(60 * SECOND),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(3600 * SECOND),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1_200),
        "mil" | "mils" | "millennia" | "millennium" => Unit::Months(12_000),
        _ => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "units are far below 2⁵³")]
fn to_f64(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600 * SECOND;

    /// The expected results are those of PostgreSQL 15 for `'…'::interval`.
    #[test]
    fn intervals_are_read_as_by_postgresql() {
        for (text, months, days, micros) in [
            ("1 day", 0, 1, 0),
            ("1 year 2 mons 3 days 04:05:06.789", 14, 3, 4 * HOUR + 306_789_000),
            ("-1 days +02:03:00", 0, -1, 2 * HOUR + 180 * SECOND),
            ("1 mon -1 days", 1, -1, 0),
            ("0", 0, 0, 0),
            ("-1 year 2 mons", -10, 0, 0),
            ("-00:00:01.5", 0, 0, -1_500_000),
            ("1 mon ago", -1, 0, 0),
            ("25:00:00", 0, 0, 25 * HOUR),
            ("1.5 days", 0, 1, 12 * HOUR),
            ("1.5 months", 1, 15, 0),
            ("1.5 years", 18, 0, 0),
            ("2 weeks", 0, 14, 0),
            ("0.5 weeks", 0, 3, 12 * HOUR),
            ("0.1 months", 0, 3, 0),
            ("-0.1 day", 0, 0, -8_640_000_000),
            ("P1Y2M3DT4H5M6.7S", 14, 3, 4 * HOUR + 306_700_000),
            ("PT-1H", 0, 0, -HOUR),
            ("P2W", 0, 14, 0),
            ("@ 1 minute 2 seconds", 0, 0, 62 * SECOND),
            ("1 12:30", 0, 1, 12 * HOUR + 1800 * SECOND),
            ("3", 0, 0, 3 * SECOND),
            ("1-2", 14, 0, 0),
            ("1-2 3 4:05:06", 14, 3, 4 * HOUR + 306 * SECOND),
            ("1 century 2 decades", 1_440, 0, 0),
            ("1 millennium", 12_000, 0, 0),
            ("5 ms 7 us", 0, 0, 5_007),
            ("1d2h", 0, 1, 2 * HOUR),
            ("00:01.5", 0, 0, 1_500_000),
            ("1:2:3", 0, 0, 3_723 * SECOND),
            ("00:00:00.0000005", 0, 0, 0),
            ("-00:00:00.0000015", 0, 0, -2),
            ("0.0000005 s", 0, 0, 0),
            ("0.0000015 s", 0, 0, 1),
            ("-0.0000016 s", 0, 0, -2),
            ("1.1234565 s", 0, 0, 1_123_456),
            ("2.5 us", 0, 0, 2),
            ("0.00251 ms", 0, 0, 3),
            ("0.123456789 mon", 0, 3, 60_799_997_088),
            ("1 month -3 days -00:00:00.000001", 1, -3, -1),
            ("2562047:47:16.854775", 0, 0, 9_223_372_036_854_775),
        ] {
            assert_eq!(Interval::parse(text), Some(Interval { months, days, micros }), "{text}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused() {
        for text in [
            "",
            "day",
            "1 fortnight",
            "1 2 days",
            "P",
            "PT",
            "P1",
            "P1H",
            "1:60",
            "1:2:61",
            "1-12",
            "1..5 days",
            "ago",
            "1 day ago 2",
            "--1 day",
            "1 day x",
            "99999999999 days",
            "9999999999 years",
            "1 hour @",
            "99999999999999999999 seconds",
        ] {
            assert_eq!(Interval::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_month_is_as_long_as_30_days() {
        let normal = |text: &str| Interval::parse(text).expect(text).normal();
        assert_eq!(normal("1 mon"), normal("30 days"));
        assert_eq!(normal("1 day"), normal("24:00"));
        assert_eq!(normal("1 mon -30 days"), normal("0"));
        assert_eq!(normal("1 year"), normal("360 days"));
        assert_eq!(normal("-1 day"), normal("-24:00"));
        assert_ne!(normal("1 mon"), normal("31 days"));
    }

    proptest! {
        #[test]
        fn normal_forms_are_ordered_as_lengths_are(
            a in (-50_i32..50, -100_i32..100, -10 * DAY..10 * DAY),
            b in (-50_i32..50, -100_i32..100, -10 * DAY..10 * DAY),
        ) {
            let length = |(months, days, micros)| {
                (i64::from(months) * MONTH_DAYS + i64::from(days)) * DAY + micros
            };
            let parts = |(months, days, micros)| {
                let normal = Interval { months, days, micros }.normal();
                (normal.months, normal.days, normal.micros)
            };
            prop_assert_eq!(parts(a).cmp(&parts(b)), length(a).cmp(&length(b)));
            prop_assert_eq!(length(parts(a)), length(a));
        }

        #[test]
        fn nothing_is_misread(text in "[-+0-9.: a-zPT]{0,12}") {
            // The parser does not panic, and the result can be written and parsed again.
            if let Some(Interval { months, days, micros }) = Interval::parse(&text) {
                let told = format!("{months} months {days} days {micros} us");
                prop_assert_eq!(Interval::parse(&told), Some(Interval { months, days, micros }));
            }
        }
    }
}
