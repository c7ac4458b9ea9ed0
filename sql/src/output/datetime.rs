//! Dates and times in PostgreSQL's ISO style, and PostgreSQL's epoch on the wire.

use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use weir_common::interval::Interval;

use crate::error::{Error, sqlstate};

/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// Converts to days since PostgreSQL's epoch.
pub(super) fn date_to_wire(days: i32) -> Result<i32, Error> {
    days.checked_sub(EPOCH_DAYS).ok_or_else(|| out_of_range("date"))
}

/// Converts to microseconds since PostgreSQL's epoch.
pub(super) fn timestamp_to_wire(micros: i64) -> Result<i64, Error> {
    micros.checked_sub(i64::from(EPOCH_DAYS) * MICROS_PER_DAY).ok_or_else(|| out_of_range("timestamp"))
}

fn out_of_range(what: &str) -> Error {
    Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, format!("{what} out of range"))
}

/// Writes `2024-02-29` or `0044-03-15 BC`.
pub(super) fn write_date(days: i32, out: &mut BytesMut) {
    if !write_year_month_day(i64::from(days), out) {
        out.put_slice(b" BC");
    }
}

/// Writes `2024-02-29 12:00:00.5`, followed by `+00` if the type has a zone: sessions are in UTC.
pub(super) fn write_timestamp(micros: i64, zoned: bool, out: &mut BytesMut) {
    let after_christ = write_year_month_day(micros.div_euclid(MICROS_PER_DAY), out);
    out.put_u8(b' ');
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
    if zoned {
        out.put_slice(b"+00");
    }
    if !after_christ {
        out.put_slice(b" BC");
    }
}

/// Writes `12:00:00.5`. The hours are unlimited; the sign is left out.
pub(super) fn write_time(micros: i64, out: &mut BytesMut) {
    let micros = micros.unsigned_abs();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(out, "{hour:02}:{minute:02}:{second:02}").expect("the buffer grows");
    if fraction != 0 {
        write!(out, ".{fraction:06}").expect("the buffer grows");
        while out.last() == Some(&b'0') {
            out.truncate(out.len() - 1);
        }
    }
}

/// Writes the style `postgres`: `1 year 2 mons -3 days +04:05:06.7`. A positive part after a
/// negative one has a plus sign.
pub(super) fn write_interval(interval: Interval, out: &mut BytesMut) {
    let start = out.len();
    let mut after_negative = false;
    for (value, unit) in [(interval.months / 12, "year"), (interval.months % 12, "mon"), (interval.days, "day")] {
        if value != 0 {
            let space = if out.len() > start { " " } else { "" };
            let sign = if after_negative && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            write!(out, "{space}{sign}{value} {unit}{plural}").expect("the buffer grows");
            after_negative = value < 0;
        }
    }
    if interval.micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.put_u8(b' ');
    }
    if interval.micros < 0 {
        out.put_u8(b'-');
    } else if after_negative {
        out.put_u8(b'+');
    }
    write_time(interval.micros, out);
}

/// Writes microseconds, days, months.
pub(super) fn put_interval(interval: Interval, out: &mut BytesMut) {
    out.put_i64(interval.micros);
    out.put_i32(interval.days);
    out.put_i32(interval.months);
}

/// The interval between two timestamps. PostgreSQL divides it into days and a time below one day.
pub(super) fn justified(micros: i64) -> Result<Interval, Error> {
    let days = i32::try_from(micros / MICROS_PER_DAY).map_err(|_| out_of_range("interval"))?;
    Ok(Interval { months: 0, days, micros: micros % MICROS_PER_DAY })
}

/// Writes the day; returns false if it lies before the year 1.
fn write_year_month_day(days: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = civil_from_days(days);
    let shown = if year > 0 { year } else { 1 - year };
    write!(out, "{shown:04}-{month:02}-{day:02}").expect("the buffer grows");
    year > 0
}

/// The day of the proleptic Gregorian calendar, by Howard Hinnant's algorithm: eras of 400 years
/// that begin on 1 March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
