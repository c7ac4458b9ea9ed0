//! `to_date(text, template)` and `to_timestamp(text, template)`, after PostgreSQL's
//! `DCH_from_char`, and `to_timestamp(seconds)`.
//!
//! Reads a text by a template. Rare patterns (weeks, ISO years, eras, Roman months, zones by name)
//! are refused. Names of days are ignored, as in PostgreSQL.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Date32Array, TimestampMicrosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Date32Type, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use weir_common::types::SqlType;

use super::moment::MONTHS;
use super::template::{Key, Node, Pattern};
use super::to_char::{each_with_template, row_by_row, undefined};
use crate::error::{Error, sqlstate};

const SECOND_MICROS: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct FromChar {
    to_date: bool,
    signature: Signature,
}

impl FromChar {
    pub(super) fn to_date() -> FromChar {
        FromChar { to_date: true, signature: Signature::user_defined(Volatility::Immutable) }
    }

    pub(super) fn to_timestamp() -> FromChar {
        FromChar { to_date: false, ..FromChar::to_date() }
    }
}

impl ScalarUDFImpl for FromChar {
    fn name(&self) -> &str {
        if self.to_date { "to_date" } else { "to_timestamp" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |ty: &DataType| ty.is_string() || ty.is_null();
        match given {
            [text, format] if is_text(text) && is_text(format) => Ok(vec![DataType::Utf8; 2]),
            [seconds] if !self.to_date && (seconds.is_numeric() || seconds.is_null()) => Ok(vec![DataType::Float64]),
            _ => Err(undefined(self.name(), given).into()),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.to_date { SqlType::Date.arrow() } else { SqlType::Timestamptz.arrow() })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let [seconds] = args.args.as_slice() {
            let instants = of_seconds(&seconds.to_array(args.number_rows)?)?;
            return Ok(match seconds {
                ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&instants, 0)?),
                ColumnarValue::Array(_) => ColumnarValue::Array(instants),
            });
        }
        row_by_row(&args, |texts, formats| {
            let mut values = Vec::with_capacity(texts.len());
            each_with_template(texts, formats, |row, nodes| {
                let read = |nodes| Fields::read(texts.as_string::<i32>().value(row), nodes)?.finish();
                values.push(nodes.map(read).transpose()?);
                Ok(())
            })?;
            Ok(if self.to_date {
                let days = values.into_iter().map(|value| value.map(|(date, _)| Date32Type::from_naive_date(date)));
                Arc::new(days.collect::<Date32Array>()) as ArrayRef
            } else {
                let micros = values.into_iter().map(|value| {
                    value.map(|(date, micros)| {
                        i64::from(Date32Type::from_naive_date(date)) * DAY_SECONDS * SECOND_MICROS + micros
                    })
                });
                cast(
                    &micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"),
                    &SqlType::Timestamptz.arrow(),
                )?
            })
        })
    }
}

/// Converts seconds since 1970 to timestamps, rounded to the nearest microsecond.
fn of_seconds(seconds: &ArrayRef) -> Result<ArrayRef> {
    let micros = seconds.as_primitive::<Float64Type>().iter().map(|seconds| {
        let Some(seconds) = seconds else { return Ok(None) };
        let micros = (seconds * 1e6).round_ties_even();
        // PostgreSQL's timestamps range from 4714 BC to the year 294276.
        if !(-210_866_803_200e6..9_224_318_016_000e6).contains(&micros) {
            return Err(Error::user(
                sqlstate::DATETIME_FIELD_OVERFLOW,
                format!("timestamp out of range: \"{seconds}\""),
            ));
        }
        #[expect(clippy::cast_possible_truncation, reason = "it is within the bounds of an i64")]
        Ok(Some(micros as i64))
    });
    let micros: TimestampMicrosecondArray = micros.collect::<Result<_, Error>>()?;
    Ok(cast(&micros.with_timezone("UTC"), &SqlType::Timestamptz.arrow())?)
}

/// The fields of a moment that a text states.
#[derive(Default)]
struct Fields<'a> {
    text: &'a str,
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    julian: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    second_of_day: Option<i64>,
    micros: i64,
    /// True if the hour is on the 12-hour clock; `afternoon` is then true for PM.
    twelve: bool,
    afternoon: bool,
    zone_sign: i64,
    zone_hours: i64,
    zone_minutes: i64,
}

/// A text that is being read. `skipped` counts the characters that were skipped before the next
/// pattern beyond those of the template.
struct Reader<'a> {
    rest: &'a str,
    skipped: i64,
    /// The last character that was skipped.
    last: Option<char>,
    exact: bool,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str, nodes: &[Node]) -> Result<Fields<'a>, Error> {
        let mut fields = Fields { text, zone_sign: 1, ..Fields::default() };
        let is_exact = |node: &Node| matches!(node, Node::Pattern(Pattern { key: Key::Exact, .. }));
        let mut reader = Reader { rest: text, skipped: 0, last: None, exact: nodes.iter().any(is_exact) };
        for (index, node) in nodes.iter().enumerate() {
            if reader.rest.is_empty() {
                break;
            }
            if !reader.exact && (index == 0 || !matches!(node, Node::Literal(_))) {
                reader.skip_blanks();
            }
            match node {
                Node::Separator(_) if reader.exact => reader.pass(),
                Node::Separator(_) => reader.pass_separator(),
                Node::Literal(_) if !reader.exact && reader.skipped > 0 => reader.skipped -= 1,
                Node::Literal(_) => reader.pass(),
                Node::Pattern(pattern) => {
                    let open = is_open(pattern, nodes.get(index + 1));
                    fields.read_pattern(*pattern, open, &mut reader)?;
                    if pattern.ordinal.is_some() {
                        reader.pass();
                        reader.pass();
                    }
                    if !reader.exact {
                        reader.skipped = 0;
                        reader.skip_blanks();
                    }
                }
            }
        }
        Ok(fields)
    }

    fn read_pattern(&mut self, pattern: Pattern, open: bool, reader: &mut Reader<'_>) -> Result<(), Error> {
        let mut number = |digits| reader.number(pattern, digits, open);
        match pattern.key {
            Key::Exact => {}
            Key::Year(digits) => {
                let (year, read) = number(digits)?;
                self.year = if digits < 4 && read < 4 { near_2020(year) } else { year };
            }
            Key::Month => self.month = Some(number(2)?.0),
            Key::DayOfMonth => self.day = Some(number(2)?.0),
            Key::DayOfYear => self.day_of_year = Some(number(3)?.0),
            Key::Julian => self.julian = Some(number(1)?.0),
            Key::Hour24 => self.hour = number(2)?.0,
            Key::Hour12 => (self.hour, self.twelve) = (number(2)?.0, true),
            Key::Minute => self.minute = number(2)?.0,
            Key::Second => self.second = number(2)?.0,
            Key::SecondOfDay => self.second_of_day = Some(number(5)?.0),
            Key::Millisecond => self.micros += fraction(number(3)?, 3) * 1_000,
            Key::Microsecond => self.micros += fraction(number(6)?, 6),
            Key::Fraction(digits) => self.micros += fraction(number(digits)?, digits) * 10_i64.pow(6 - digits),
            Key::MonthName => self.month = Some(reader.name(pattern, &MONTHS, false)?),
            Key::MonthShort => self.month = Some(reader.name(pattern, &MONTHS, true)?),
            Key::DayName => drop(reader.name(pattern, &super::moment::DAYS, false)?),
            Key::DayShort => drop(reader.name(pattern, &super::moment::DAYS, true)?),
            Key::Meridiem { dots } => {
                let words = if dots { ["A.M.", "P.M."] } else { ["AM", "PM"] };
                (self.afternoon, self.twelve) = (reader.name(pattern, &words, false)? == 2, true);
            }
            Key::ZoneHour => {
                // A minus may have been skipped as a separator.
                let mut sign = reader.last.filter(|_| reader.skipped > 0);
                if reader.rest.starts_with(['+', '-']) {
                    reader.pass();
                    sign = reader.last;
                }
                self.zone_sign = if sign == Some('-') { -1 } else { 1 };
                self.zone_hours = reader.number(pattern, 2, open)?.0;
            }
            Key::ZoneMinute => self.zone_minutes = number(2)?.0,
            _ => {
                let name = pattern.name;
                return Err(Error::unsupported(format!("reading the pattern \"{name}\" is not supported yet"))
                    .with_hint("YYYY, MM, Mon, Month, DD, DDD, HH24, HH12, MI, SS, MS, US, AM, TZH and TZM are read"));
            }
        }
        Ok(())
    }

    /// The date, and the microseconds since its midnight in UTC.
    fn finish(self) -> Result<(NaiveDate, i64), Error> {
        let out_of_range = || {
            let message = format!("date/time field value out of range: \"{}\"", self.text);
            Error::user(sqlstate::DATETIME_FIELD_OVERFLOW, message)
        };
        let mut hour = self.hour;
        if self.twelve {
            if !(1..=12).contains(&hour) {
                let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
                return Err(Error::user(sqlstate::INVALID_DATETIME_FORMAT, message)
                    .with_hint("use the 24-hour clock, or give an hour between 1 and 12"));
            }
            hour = hour % 12 + if self.afternoon { 12 } else { 0 };
        }
        let clock = (0..24).contains(&hour) && (0..60).contains(&self.minute) && (0..60).contains(&self.second);
        let seconds = self.second_of_day.unwrap_or((hour * 60 + self.minute) * 60 + self.second);
        let micros = Some(self.micros).filter(|micros| clock && (0..SECOND_MICROS).contains(micros));
        let micros = micros.filter(|_| (0..DAY_SECONDS).contains(&seconds)).ok_or_else(out_of_range)?;
        let zone = self.zone_sign * (self.zone_hours * 60 + self.zone_minutes) * 60;
        let date = self.date().ok_or_else(out_of_range)?;
        Ok((date, (seconds - zone) * SECOND_MICROS + micros))
    }

    fn date(&self) -> Option<NaiveDate> {
        if let Some(julian) = self.julian {
            // Both calendars count days; chrono's day 1 is the first day of the year 1.
            return NaiveDate::from_num_days_from_ce_opt(i32::try_from(julian - 1_721_425).ok()?);
        }
        let year = i32::try_from(self.year).ok()?;
        if let (Some(day), None | Some(1), None | Some(1)) = (self.day_of_year, self.month, self.day) {
            return NaiveDate::from_yo_opt(year, u32::try_from(day).ok()?);
        }
        let month = u32::try_from(self.month.unwrap_or(1)).ok()?;
        let date = NaiveDate::from_ymd_opt(year, month, u32::try_from(self.day.unwrap_or(1)).ok()?);
        date.filter(|date| date.year() == year)
    }
}

impl Reader<'_> {
    fn pass(&mut self) {
        let mut characters = self.rest.chars();
        self.last = characters.next();
        self.rest = characters.as_str();
    }

    fn skip_blanks(&mut self) {
        while self.rest.starts_with(|character: char| character.is_ascii_whitespace()) {
            self.pass();
            self.skipped += 1;
        }
    }

    /// Skips a separator of the template, which matches any separator of the text, or none.
    fn pass_separator(&mut self) {
        self.skipped -= 1;
        let separates = |character: char| matches!(character, ' '..='~') && !character.is_ascii_alphanumeric();
        if self.rest.starts_with(|character: char| character.is_ascii_whitespace() || separates(character)) {
            self.pass();
            self.skipped += 1;
        }
    }

    /// Reads a number, and returns it with the number of its characters: `digits`, or all that
    /// follow if `open`.
    fn number(&mut self, pattern: Pattern, digits: u32, open: bool) -> Result<(i64, u32), Error> {
        let name = pattern.name;
        let invalid = |value: &str, detail: String| {
            let message = format!("invalid value \"{value}\" for \"{name}\"");
            Error::user(sqlstate::INVALID_DATETIME_FORMAT, message).with_detail(detail)
        };
        self.rest = self.rest.trim_ascii_start();
        let wanted = if open { usize::MAX } else { digits as usize };
        let signed = usize::from(self.rest.starts_with(['+', '-']));
        let count = self.rest.bytes().skip(signed).take_while(u8::is_ascii_digit).count();
        let read = (signed + count).min(wanted);
        let (number, rest) = self.rest.split_at(read);
        let value = number.parse::<i64>().ok().filter(|value| i32::try_from(*value).is_ok());
        let shown = if read > signed { number } else { self.rest.split_whitespace().next().unwrap_or("") };
        if count == 0 || read == signed {
            return Err(invalid(shown, "value must be an integer".to_owned()));
        }
        if !open && read < wanted {
            let (what, width) = (if rest.is_empty() { "are there" } else { "could be parsed" }, wanted);
            return Err(invalid(shown, format!("the field requires {width} characters, but only {read} {what}")));
        }
        self.rest = rest;
        let value = value.ok_or_else(|| invalid(shown, "value must be in the range of an integer".to_owned()))?;
        Ok((value, u32::try_from(read).unwrap_or(u32::MAX)))
    }

    /// Reads a name in upper or lower case, and returns its number, from 1.
    fn name(&mut self, pattern: Pattern, names: &[&str], short: bool) -> Result<i64, Error> {
        for (index, name) in names.iter().enumerate() {
            let name = if short { &name[..3] } else { *name };
            let matches = self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            if matches {
                self.rest = &self.rest[name.len()..];
                return Ok(i64::try_from(index + 1).unwrap_or_default());
            }
        }
        let found = self.rest.split_whitespace().next().unwrap_or("");
        let message = format!("invalid value \"{found}\" for \"{}\"", pattern.name);
        Err(Error::user(sqlstate::INVALID_DATETIME_FORMAT, message)
            .with_detail("the given value did not match any of the allowed values for this field"))
    }
}

/// True if a number may be longer or shorter than its pattern, because nothing after it can begin
/// with a digit.
fn is_open(pattern: &Pattern, next: Option<&Node>) -> bool {
    pattern.fill_mode
        || pattern.ordinal.is_some()
        || match next {
            None => true,
            Some(Node::Pattern(next)) => matches!(
                next.key,
                Key::Era { .. }
                    | Key::Meridiem { .. }
                    | Key::DayName
                    | Key::DayShort
                    | Key::MonthName
                    | Key::MonthShort
                    | Key::MonthRoman
                    | Key::Exact
                    | Key::Zone
                    | Key::ZoneHour
                    | Key::Offset
            ),
            Some(Node::Separator(_)) => true,
            Some(Node::Literal(character)) => !character.is_ascii_digit(),
        }
}

/// Scales the digits of a fraction: `25` in a pattern of three digits is 250.
fn fraction((value, read): (i64, u32), digits: u32) -> i64 {
    value * 10_i64.pow(digits.saturating_sub(read))
}

/// Completes a year whose last digits are given to the one nearest to 2020.
fn near_2020(year: i64) -> i64 {
    match year {
        0..70 => year + 2_000,
        70..100 => year + 1_900,
        100..520 => year + 2_000,
        520..1_000 => year + 1_000,
        _ => year,
    }
}
