//! Reads dates and times from text as PostgreSQL does. Handles the cases that Arrow lacks or reads
//! differently: a timestamp without seconds, 24:00, rounding to microseconds, and zones. Only a
//! timestamptz uses the zone; other types accept and ignore it. Arrow reads dates and times of day
//! themselves.

use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_time_nanoseconds};
use datafusion::arrow::datatypes::{Date32Type, TimestampMicrosecondType};

const SECOND_MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;
/// PostgreSQL's `MAX_TZDISP_HOUR`.
const OFFSET_HOURS_MAX: i64 = 15;

/// Reads a date as days since 1970. A time after it is accepted and ignored.
pub(super) fn date(text: &str) -> Option<i32> {
    i32::try_from(timestamp(text, false)?.div_euclid(DAY_MICROS)).ok()
}

/// Reads a time as microseconds since midnight.
pub(super) fn time(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    if ["24:00", "24:00:00"].contains(&text) {
        return Some(DAY_MICROS);
    }
    // Rounds to the nearest microsecond.
    Some((string_to_time_nanoseconds(text).ok()? + 500) / 1_000)
}

/// Reads a timestamp as microseconds since 1970: in UTC if `zoned`, else as written.
pub(super) fn timestamp(text: &str, zoned: bool) -> Option<i64> {
    let text = text.trim_ascii();
    let (date, clock) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let clock = clock.trim_ascii_start();
    let end = clock.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'.' | b':')).unwrap_or(clock.len());
    let (clock, zone) = (&clock[..end], clock[end..].trim_ascii_start());
    let micros = if clock.is_empty() { 0 } else { time(clock)? };
    let local = i64::from(Date32Type::parse(date)?).checked_mul(DAY_MICROS)?.checked_add(micros)?;
    if zone.is_empty() {
        return Some(local);
    }
    match (offset(zone), zoned) {
        (Some(seconds), true) => local.checked_sub(seconds * SECOND_MICROS),
        (Some(_), false) => Some(local),
        (None, _) if zone.starts_with(['+', '-']) => None,
        // The zone is a name.
        (None, true) => TimestampMicrosecondType::parse(text),
        (None, false) => zone.parse::<Tz>().is_ok().then_some(local),
    }
}

/// Reads `Z`, `+02`, `-0330`, `+05:30:00` as seconds eastward.
fn offset(zone: &str) -> Option<i64> {
    if ["z", "utc", "gmt"].contains(&zone.to_ascii_lowercase().as_str()) {
        return Some(0);
    }
    let (sign, digits) = match zone.as_bytes() {
        [b'+', ..] => (1, &zone[1..]),
        [b'-', ..] => (-1, &zone[1..]),
        _ => return None,
    };
    let width = digits.len().min(2);
    let (mut parts, mut rest) = ([0; 3], digits);
    for (place, part) in parts.iter_mut().enumerate() {
        if rest.is_empty() && place > 0 {
            break;
        }
        rest = if place > 0 { rest.strip_prefix(':').unwrap_or(rest) } else { rest };
        let (two, after) =
            rest.split_at_checked(width).filter(|(two, _)| two.bytes().all(|byte| byte.is_ascii_digit()))?;
        (*part, rest) = (two.parse().ok()?, after);
    }
    let [hours, minutes, seconds]: [i64; 3] = parts;
    let valid = rest.is_empty() && hours <= OFFSET_HOURS_MAX && minutes < 60 && seconds < 60;
    valid.then_some(sign * ((hours * 60 + minutes) * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * SECOND_MICROS;

    /// As PostgreSQL 15 reads `'…'::timestamp` and `'…'::timestamptz` in a session whose zone is
    /// UTC.
    #[test]
    fn timestamps_are_read_as_by_postgresql() {
        for (text, local, utc) in [
            ("1970-01-02", DAY_MICROS, DAY_MICROS),
            (" 1970-01-01 01:00 ", HOUR, HOUR),
            ("1970-01-01T01:00:00", HOUR, HOUR),
            ("1970-01-01 01:00:00.0000005", HOUR + 1, HOUR + 1),
            ("1969-12-31 24:00", 0, 0),
            ("1970-01-01 02:00:00+02", 2 * HOUR, 0),
            ("1970-01-01 02:00 +0200", 2 * HOUR, 0),
            ("1970-01-01 00:00:00-01:30", 0, 3 * HOUR / 2),
            ("1970-01-01 00:00:00-5", 0, 5 * HOUR),
            ("1970-01-01T01:00:00Z", HOUR, HOUR),
            ("1970-01-02 +00", DAY_MICROS, DAY_MICROS),
        ] {
            assert_eq!((timestamp(text, false), timestamp(text, true)), (Some(local), Some(utc)), "{text}");
        }
        for text in [
            "",
            "soon",
            "1970-13-01",
            "1970-01-01 25:00",
            "1970-01-01 1",
            "1970-01-01 01:00 +x",
            "1970-01-01 01:00 +16",
            "1970-01-01 01:00 +",
            "1970-01-01 01:00 +1:00",
            "1970-01-01 01:00 +01:0",
            "1970-01-01 01:00 +01:00:00:00",
            "1970-01-01 01:00 ä",
        ] {
            assert_eq!((timestamp(text, false), timestamp(text, true)), (None, None), "{text}");
        }
    }

    #[test]
    fn a_date_is_the_day_that_is_written() {
        for (text, days) in
            [("1970-01-02", 1), ("1970-01-01 23:00:00-05", 0), ("1969-12-31 10:00", -1), ("1970-01-02 +01", 1)]
        {
            assert_eq!(date(text), Some(days), "{text}");
        }
    }
}
