//! `AT TIME ZONE`, which is the function `timezone(zone, time)`. For a timestamp with time zone it
//! returns the local time in the zone; for one without, the moment at which clocks in the zone show
//! it.
//!
//! Owns the names of zones: those of the tz database in any case, common abbreviations, POSIX
//! offsets (`UTC+3`, which is three hours *west*, as in PostgreSQL), and intervals, which count
//! eastward.

use std::sync::Arc;

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use weir_common::interval::Interval;
use weir_common::types::SqlType;

use super::to_char::{row_by_row, undefined};
use crate::error::{Error, sqlstate};

const SECOND_MICROS: i64 = 1_000_000;
/// The largest offset that POSIX allows.
const OFFSET_HOURS_MAX: i64 = 167;

/// Abbreviations of PostgreSQL's default set that have a fixed offset, in hours eastward.
const ABBREVIATIONS: &[(&str, i64)] = &[
    ("utc", 0),
    ("ut", 0),
    ("gmt", 0),
    ("z", 0),
    ("zulu", 0),
    ("wet", 0),
    ("west", 1),
    ("bst", 1),
    ("cet", 1),
    ("cest", 2),
    ("met", 1),
    ("mest", 2),
    ("eet", 2),
    ("eest", 3),
    ("msk", 3),
    ("est", -5),
    ("edt", -4),
    ("cst", -6),
    ("cdt", -5),
    ("mst", -7),
    ("mdt", -6),
    ("pst", -8),
    ("pdt", -7),
    ("hst", -10),
    ("jst", 9),
    ("kst", 9),
];

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct AtTimeZone(Signature);

impl AtTimeZone {
    pub(super) fn new() -> AtTimeZone {
        AtTimeZone(Signature::user_defined(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for AtTimeZone {
    fn name(&self) -> &str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let zone = match given {
            [DataType::Interval(_), _] => DataType::Interval(IntervalUnit::MonthDayNano),
            [zone, _] if zone.is_string() || zone.is_null() => DataType::Utf8,
            _ => return Err(undefined(self.name(), given).into()),
        };
        let time = match &given[1] {
            DataType::Timestamp(_, None) => SqlType::Timestamp.arrow(),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Null => SqlType::Timestamptz.arrow(),
            text if text.is_string() => SqlType::Timestamptz.arrow(),
            // `return_type` refuses times, because DataFusion replaces the errors of this function.
            time @ (DataType::Time32(_) | DataType::Time64(_)) => time.clone(),
            _ => return Err(undefined(self.name(), given).into()),
        };
        Ok(vec![zone, time])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match arguments {
            [_, DataType::Timestamp(_, None)] => SqlType::Timestamptz.arrow(),
            [_, DataType::Time32(_) | DataType::Time64(_)] => {
                return Err(Error::unsupported("AT TIME ZONE of a time is not supported yet")
                    .with_hint("add the time to a date, and take the zone of that")
                    .into());
            }
            _ => SqlType::Timestamp.arrow(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let to_local = matches!(args.return_type(), DataType::Timestamp(_, None));
        let ty = args.return_type().clone();
        row_by_row(&args, |zones, times| Ok(Arc::new(shifted(zones, times, to_local)?.with_data_type(ty))))
    }
}

fn shifted(zones: &ArrayRef, times: &ArrayRef, to_local: bool) -> Result<TimestampMicrosecondArray, Error> {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    // The zone is mostly the same in all rows.
    let mut last: Option<(&str, Zone)> = None;
    let mut result = Vec::with_capacity(times.len());
    for (row, time) in times.iter().enumerate() {
        let Some(time) = time.filter(|_| zones.is_valid(row)) else {
            result.push(None);
            continue;
        };
        let zone = match zones.data_type() {
            DataType::Interval(_) => {
                let stored = zones.as_primitive::<IntervalMonthDayNanoType>().value(row);
                Zone::of_interval(Interval::from_arrow(stored))?
            }
            _ => {
                let name = zones.as_string::<i32>().value(row);
                match last {
                    Some((same, zone)) if same == name => zone,
                    _ => last.insert((name, Zone::named(name)?)).1,
                }
            }
        };
        let moved = if to_local { zone.local(time) } else { zone.instant(time) };
        result.push(Some(moved.ok_or_else(|| Error::out_of_range("timestamp out of range"))?));
    }
    Ok(TimestampMicrosecondArray::from(result))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    /// An offset in seconds eastward.
    Fixed(i64),
    Named(Tz),
}

impl Zone {
    fn named(name: &str) -> Result<Zone, Error> {
        let abbreviation = ABBREVIATIONS.iter().find(|(abbreviation, _)| abbreviation.eq_ignore_ascii_case(name));
        if let Some((_, hours)) = abbreviation {
            return Ok(Zone::Fixed(hours * 3_600));
        }
        let named = name.parse::<Tz>().ok();
        let named = named.or_else(|| TZ_VARIANTS.into_iter().find(|zone| zone.name().eq_ignore_ascii_case(name)));
        named.map(Zone::Named).or_else(|| posix(name).map(Zone::Fixed)).ok_or_else(|| {
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
                .with_hint("name a zone of the tz database, such as Europe/Berlin, or an offset as an interval")
        })
    }

    fn of_interval(interval: Interval) -> Result<Zone, Error> {
        if interval.months != 0 || interval.days != 0 {
            let message = "interval time zone must not include months or days";
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint("give hours and minutes"));
        }
        Ok(Zone::Fixed(interval.micros / SECOND_MICROS))
    }

    /// The local time at a moment.
    fn local(self, micros: i64) -> Option<i64> {
        micros.checked_add(
            match self {
                Zone::Fixed(seconds) => seconds,
                Zone::Named(zone) => seconds_at(zone, DateTime::from_timestamp_micros(micros)?.naive_utc()),
            } * SECOND_MICROS,
        )
    }

    /// The moment at which clocks show a time. If there are two, it is the later one. A time that
    /// clocks skip is read with the offset before the change.
    fn instant(self, micros: i64) -> Option<i64> {
        let seconds = match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(zone) => {
                let local = DateTime::from_timestamp_micros(micros)?.naive_utc();
                match zone.offset_from_local_datetime(&local) {
                    LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => seconds_of(&offset),
                    LocalResult::None => seconds_at(zone, local.checked_sub_signed(Duration::days(1))?),
                }
            }
        };
        micros.checked_sub(seconds * SECOND_MICROS)
    }
}

fn seconds_at(zone: Tz, utc: NaiveDateTime) -> i64 {
    seconds_of(&zone.offset_from_utc_datetime(&utc))
}

fn seconds_of(offset: &impl Offset) -> i64 {
    i64::from(offset.fix().local_minus_utc())
}

/// Reads `UTC+3`, `<+03>-3`, `-05:30` as seconds eastward, although the text counts westward.
fn posix(name: &str) -> Option<i64> {
    let rest = match name.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => name.trim_start_matches(|character: char| character.is_ascii_alphabetic()),
    };
    let (sign, rest) = match rest.as_bytes() {
        [b'-', ..] => (1, &rest[1..]),
        [b'+', ..] => (-1, &rest[1..]),
        _ => (-1, rest),
    };
    let mut seconds = 0;
    let mut parts = rest.split(':');
    for (unit, most) in [(3_600, OFFSET_HOURS_MAX), (60, 59), (1, 59)] {
        let Some(part) = parts.next() else { break };
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        seconds += part.parse::<i64>().ok().filter(|part| is_number && *part <= most)? * unit;
    }
    parts.next().is_none().then_some(sign * seconds)
}
