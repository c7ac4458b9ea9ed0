//! Dates and timestamps, from text and from numbers. The calendar is the proleptic Gregorian one.

use weir_common::rounding::{micros_of_digits, micros_of_nanos};

const DAY_SECONDS: i64 = 24 * 60 * 60;
const SECOND_MICROS: i64 = 1_000_000;

/// Days since 1970-01-01 that a date column takes: from 4713 BC, where PostgreSQL's dates begin, to
/// the year 262142, where those of other tools end.
pub(super) const DAYS: std::ops::RangeInclusive<i64> = -2_440_588..=95_026_236;

/// Microseconds since midnight that a time column takes. As in PostgreSQL, they include 24:00.
pub(super) const OF_DAY: std::ops::RangeInclusive<i64> = 0..=DAY_SECONDS * SECOND_MICROS;

/// `HH:MM[:SS[.ffffff]]`, in microseconds since midnight.
pub(super) fn of_day(text: &str) -> Option<i64> {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    let micros = reader.time()?;
    reader.0.is_empty().then_some(micros).filter(|micros| OF_DAY.contains(micros))
}

/// `YYYY-MM-DD`, in days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i64> {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    let days = reader.date()?;
    reader.0.is_empty().then_some(days)
}

/// A written point in time, in microseconds since 1970, and its offset from UTC in seconds if one
/// is given.
pub(super) fn timestamp(text: &str) -> Option<(i64, Option<i64>)> {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    let days = reader.date()?;
    if reader.0.is_empty() {
        return Some((days * DAY_SECONDS * SECOND_MICROS, None));
    }
    if !(reader.take(b'T') || reader.take(b't') || reader.take(b' ')) {
        return None;
    }
    let micros = reader.time()?;
    reader.0 = reader.0.trim_ascii_start();
    let offset = reader.offset()?;
    reader.0.is_empty().then_some((days * DAY_SECONDS * SECOND_MICROS + micros, offset))
}

/// Converts seconds, milliseconds, microseconds or nanoseconds since 1970, by their magnitude, to
/// microseconds.
pub(super) fn epoch(number: i64) -> i64 {
    match number.unsigned_abs() {
        0..100_000_000_000 => number * SECOND_MICROS,
        100_000_000_000..100_000_000_000_000 => number * 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => number,
        _ => micros_of_nanos(number),
    }
}

/// The reason why a text is not a date.
pub(super) fn date_fault(text: &str) -> String {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    reader.date_fault().unwrap_or_else(|| "something follows the date".to_owned())
}

/// The reason why a text is not a time of day.
pub(super) fn of_day_fault(text: &str) -> String {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    reader.time_fault().unwrap_or_else(|| "something follows the time".to_owned())
}

/// The reason why a text is not a timestamp.
pub(super) fn timestamp_fault(text: &str) -> String {
    let mut reader = Reader(text.trim_ascii().as_bytes());
    if let Some(fault) = reader.date_fault() {
        return fault;
    }
    if !(reader.take(b'T') || reader.take(b't') || reader.take(b' ')) {
        return "neither T nor a space follows the date".to_owned();
    }
    if let Some(fault) = reader.time_fault() {
        return fault;
    }
    let offset = String::from_utf8_lossy(reader.0.trim_ascii_start());
    format!("offset \"{offset}\"")
}

/// The rest of the text.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A number of exactly `N` digits.
    #[inline]
    fn digits<const N: usize>(&mut self) -> Option<i64> {
        let (digits, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    }

    #[inline]
    fn date(&mut self) -> Option<i64> {
        let year = self.digits::<4>()?;
        let month = self.take(b'-').then(|| self.digits::<2>())??;
        let day = self.take(b'-').then(|| self.digits::<2>())??;
        let valid = year >= 1 && (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
        valid.then(|| days_since_1970(year, month, day))
    }

    /// The fault of a date, which is passed over if it has none.
    fn date_fault(&mut self) -> Option<String> {
        const FORM: &str = "not of the form YYYY-MM-DD";
        let part = |reader: &mut Self| reader.take(b'-').then(|| reader.digits::<2>()).flatten();
        let (Some(year), Some(month), Some(day)) = (self.digits::<4>(), part(self), part(self)) else {
            return Some(FORM.to_owned());
        };
        match (year, month, day) {
            (0, ..) => Some("year 0".to_owned()),
            (_, month, _) if !(1..=12).contains(&month) => Some(format!("month {month}")),
            (year, month, day) if !(1..=days_of_month(year, month)).contains(&day) => {
                Some(format!("day {day} of month {month}"))
            }
            _ => None,
        }
    }

    /// The fault of a time, which is passed over if it has none.
    fn time_fault(&mut self) -> Option<String> {
        const FORM: &str = "its time is not of the form HH:MM[:SS[.ffffff]]";
        let hour = self.digits::<2>();
        let minute = self.take(b':').then(|| self.digits::<2>()).flatten();
        let (Some(hour), Some(minute)) = (hour, minute) else { return Some(FORM.to_owned()) };
        let (mut second, mut micros) = (0, 0);
        if self.take(b':') {
            let Some(seconds) = self.digits::<2>() else { return Some(FORM.to_owned()) };
            second = seconds;
            if self.take(b'.') || self.take(b',') {
                let Some(fraction) = self.fraction() else { return Some(FORM.to_owned()) };
                micros = fraction;
            }
        }
        match (hour, minute, second) {
            (25.., ..) => Some(format!("hour {hour}")),
            (_, 60.., _) => Some(format!("minute {minute}")),
            (_, _, 61..) => Some(format!("second {second}")),
            (24, ..) if minute + second + micros > 0 => Some("a time after 24:00".to_owned()),
            _ => None,
        }
    }

    /// `HH:MM[:SS[.fraction]]` in microseconds. As in PostgreSQL, 24:00 and second 60 are the start
    /// of the next day or minute.
    #[inline]
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits::<2>()?;
        let minute = self.take(b':').then(|| self.digits::<2>())??;
        let (mut second, mut micros) = (0, 0);
        if self.take(b':') {
            second = self.digits::<2>()?;
            if self.take(b'.') || self.take(b',') {
                micros = self.fraction()?;
            }
        }
        let total = ((hour * 60 + minute) * 60 + second) * SECOND_MICROS + micros;
        let valid = hour <= 24 && minute <= 59 && second <= 60 && (hour < 24 || total == DAY_SECONDS * SECOND_MICROS);
        valid.then_some(total)
    }

    /// The digits after the point, in microseconds.
    #[inline]
    fn fraction(&mut self) -> Option<i64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        str::from_utf8(digits).ok().filter(|digits| !digits.is_empty()).map(micros_of_digits)
    }

    /// Nothing, `Z`, or `±HH[[:]MM[[:]SS]]`, in seconds.
    #[inline]
    fn offset(&mut self) -> Option<Option<i64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        if self.take(b'Z') || self.take(b'z') {
            return Some(Some(0));
        }
        let sign = if self.take(b'-') { -1 } else { self.take(b'+').then_some(1)? };
        let mut seconds = self.digits::<2>().filter(|hours| *hours <= 15)? * 3600;
        for unit in [60, 1] {
            if self.0.is_empty() {
                break;
            }
            self.take(b':');
            seconds += self.digits::<2>().filter(|part| *part <= 59)? * unit;
        }
        Some(Some(sign * seconds))
    }
}

#[inline]
fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Years begin in March, so that the leap day is the last day of its year; 400 years have 146,097
/// days.
#[inline]
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_709_208_000_000_000; // 2024-02-29 12:00:00 UTC

    #[test]
    fn days_follow_the_calendar_without_a_gap() {
        let mut expected = days_since_1970(1, 1, 1);
        assert_eq!(expected, -719_162);
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_of_month(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("9999-12-31"), Some(expected - 1));
    }

    #[test]
    fn timestamps_are_read_in_every_form() {
        for (text, micros, offset) in [
            ("2024-02-29T12:00:00", NOON, None),
            (" 2024-02-29 12:00 ", NOON, None),
            ("2024-02-29t12:00:00Z", NOON, Some(0)),
            ("2024-02-29 12:00:00 +05:30", NOON, Some(19_800)),
            ("2024-02-29 12:00:00-08", NOON, Some(-28_800)),
            ("2024-02-29 12:00:00+0530", NOON, Some(19_800)),
            ("2024-02-29 12:00:00+00:00:01", NOON, Some(1)),
            ("2024-02-29 12:00:00.5", NOON + 500_000, None),
            ("2024-02-29 12:00:00,123456", NOON + 123_456, None),
            ("2024-02-29 12:00:00.1234564", NOON + 123_456, None),
            ("2024-02-29 12:00:00.1234565", NOON + 123_456, None),
            ("2024-02-29 12:00:00.1234575", NOON + 123_458, None),
            ("2024-02-29 11:59:59.99999951", NOON, None),
            ("2024-02-29 11:59:60", NOON, None),
            ("2024-02-28 24:00:00", NOON - 43_200_000_000, None),
            ("2024-02-29", NOON - 43_200_000_000, None),
        ] {
            assert_eq!(timestamp(text), Some((micros, offset)), "{text}");
        }
    }

    #[test]
    fn times_of_day() {
        for (text, micros) in [
            ("00:00", 0),
            ("12:34:56.7", 45_296_700_000),
            ("23:59:59.9999999", 86_400_000_000),
            ("24:00:00", 86_400_000_000),
            (" 01:02:03 ", 3_723_000_000),
        ] {
            assert_eq!(of_day(text), Some(micros), "{text}");
        }
        for text in ["", "12", "1:02", "24:00:01", "12:60", "12:00Z", "12:00:00+01", "noon", "23:59:60.5"] {
            assert_eq!(of_day(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_refused() {
        for text in [
            "",
            "now",
            "2024",
            "2024-02",
            "2024-2-9",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "2024-02-29T",
            "2024-02-29T12",
            "2024-02-29 25:00",
            "2024-02-29 24:00:01",
            "2024-02-29 12:60",
            "2024-02-29 12:00:61",
            "2024-02-29 12:00:00.",
            "2024-02-29 12:00:00+",
            "2024-02-29 12:00:00+1",
            "2024-02-29 12:00:00+16",
            "2024-02-29 12:00:00Zx",
            "2024-02-29x12:00:00",
            "20240229",
            "+024-02-29",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
        assert_eq!(date("2024-02-29 12:00"), None);
    }

    #[test]
    fn numbers_are_rounded_as_texts_are() {
        for (text, nanos) in [
            ("2017-07-14 02:40:00.0000005", 1_500_000_000_000_000_500_i64),
            ("2017-07-14 02:40:00.0000015", 1_500_000_000_000_001_500),
            ("2017-07-14 02:40:00.123456501", 1_500_000_000_123_456_501),
            ("2017-07-14 02:40:00.9999995", 1_500_000_000_999_999_500),
            ("1922-06-20 21:19:59.9999985", -1_500_000_000_000_001_500),
            ("1922-06-20 21:19:59.9999995", -1_500_000_000_000_000_500),
        ] {
            assert_eq!(timestamp(text), Some((epoch(nanos), None)), "{text}");
        }
    }

    #[test]
    fn the_unit_of_a_number_follows_from_its_magnitude() {
        for number in [1_666_666_666, 1_666_666_666_000, 1_666_666_666_000_000, 1_666_666_666_000_000_000] {
            assert_eq!(epoch(number), 1_666_666_666_000_000);
            assert_eq!(epoch(-number), -1_666_666_666_000_000);
        }
        assert_eq!(epoch(99_999_999_999), 99_999_999_999_000_000);
        assert_eq!(epoch(100_000_000_000), 100_000_000_000_000);
        assert_eq!(epoch(i64::MIN), i64::MIN / 1_000 - 1);
    }
}
