//! `to_char` of dates, times, timestamps and intervals, by PostgreSQL's templates.
//!
//! Sessions are in UTC, so a timestamp with a zone prints in UTC, as does a date, which becomes
//! such a timestamp. Numbers are refused: their templates are a different language.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use weir_common::types::SqlType;

use super::moment::{DAYS, MONTHS, Moment};
use super::template::{self, Key, Letters, Node, Pattern};
use crate::error::{Error, sqlstate};

const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ToChar {
    /// The alias of DataFusion's function. Without it, that function would take the name back when
    /// a session's state is made.
    aliases: [String; 1],
    signature: Signature,
}

impl ToChar {
    pub(super) fn new() -> ToChar {
        ToChar { aliases: ["date_format".to_owned()], signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let time = match given {
            [time, format] if format.is_string() || format.is_null() => time,
            _ => return Err(undefined(self.name(), given).into()),
        };
        let time = match time {
            DataType::Timestamp(_, None) => SqlType::Timestamp.arrow(),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Null => SqlType::Timestamptz.arrow(),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            // `return_type` refuses numbers, because DataFusion replaces the errors of this
            // function.
            ty if ty.is_numeric() => ty.clone(),
            _ => return Err(undefined(self.name(), given).into()),
        };
        Ok(vec![time, DataType::Utf8])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if arguments.first().is_some_and(DataType::is_numeric) {
            return Err(Error::unsupported("to_char of a number is not supported yet")
                .with_hint("round it and cast it to varchar, as in `round(x, 2)::varchar`")
                .into());
        }
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        row_by_row(&args, |times, formats| {
            let (mut texts, mut text) = (StringBuilder::new(), String::new());
            each_with_template(times, formats, |row, nodes| {
                match nodes {
                    Some(nodes) => {
                        text.clear();
                        print(nodes, &Moment::of(times, row)?, &mut text)?;
                        texts.append_value(&text);
                    }
                    None => texts.append_null(),
                }
                Ok(())
            })?;
            Ok(Arc::new(texts.finish()))
        })
    }
}

/// The error that there is no such function.
pub(super) fn undefined(name: &str, given: &[DataType]) -> Error {
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    Error::user(sqlstate::UNDEFINED_FUNCTION, format!("function {name}({}) does not exist", given.join(", ")))
        .with_hint("cast the arguments to the types that the function takes")
}

/// Calls a function of two columns, with one row if both operands are constants.
pub(super) fn row_by_row(
    args: &ScalarFunctionArgs,
    function: impl FnOnce(&ArrayRef, &ArrayRef) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let [first, second] = args.args.as_slice() else {
        return Err(Error::internal("a function of two operands has another number of them").into());
    };
    let is_scalar = |operand: &ColumnarValue| matches!(operand, ColumnarValue::Scalar(_));
    let all_scalars = is_scalar(first) && is_scalar(second);
    let rows = if all_scalars { 1 } else { args.number_rows };
    let result = function(&first.to_array(rows)?, &second.to_array(rows)?)?;
    if all_scalars {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
    }
    Ok(ColumnarValue::Array(result))
}

/// Calls `row` with each row and its template; `None` where either operand is NULL. A template is
/// parsed again only if it differs from the previous row's.
pub(super) fn each_with_template(
    values: &ArrayRef,
    formats: &ArrayRef,
    mut row: impl FnMut(usize, Option<&[Node]>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut last: Option<(&str, Vec<Node>)> = None;
    for (index, format) in formats.as_string::<i32>().iter().enumerate() {
        match format.filter(|_| values.is_valid(index)) {
            Some(format) => {
                let nodes = match last.take() {
                    Some((same, nodes)) if same == format => nodes,
                    _ => template::parse(format),
                };
                row(index, Some(&nodes))?;
                last = Some((format, nodes));
            }
            None => row(index, None)?,
        }
    }
    Ok(())
}

/// Prints a moment by a template.
fn print(nodes: &[Node], moment: &Moment, out: &mut String) -> Result<(), Error> {
    for node in nodes {
        match node {
            Node::Pattern(pattern) => print_pattern(*pattern, moment, out)?,
            Node::Separator(character) | Node::Literal(character) => out.push(*character),
        }
    }
    Ok(())
}

fn print_pattern(pattern: Pattern, moment: &Moment, out: &mut String) -> Result<(), Error> {
    let Some((number, width)) = number(pattern.key, moment) else {
        return print_words(pattern, moment, out);
    };
    let is_fraction = matches!(pattern.key, Key::Millisecond | Key::Microsecond | Key::Fraction(_));
    let width = if pattern.fill_mode && !is_fraction { 0 } else { width + usize::from(number < 0) };
    match pattern.key {
        Key::YearWithComma => append(out, format_args!("{},{:03}", number / 1_000, number % 1_000)),
        _ => append(out, format_args!("{number:0width$}")),
    }
    if let Some(letters) = pattern.ordinal {
        let suffix = match (number / 10 % 10, number % 10) {
            (1, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        out.extend(suffix.chars().map(|character| match letters {
            Letters::Lower => character,
            _ => character.to_ascii_uppercase(),
        }));
    }
    Ok(())
}

fn append(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string grows");
}

/// The number that a pattern prints, and its least number of digits.
fn number(key: Key, moment: &Moment) -> Option<(i64, usize)> {
    let years = |year: i64| if moment.is_interval() || year > 0 { year } else { 1 - year };
    let twelve = |hour: i64| if hour % 12 == 0 { 12 } else { hour % 12 };
    let (iso_year, iso_week, iso_day) = moment.iso();
    let last = |year: i64, digits: u32| match digits {
        4 => (years(year), 4),
        _ => (years(year) % 10_i64.pow(digits), usize::try_from(digits).unwrap_or_default()),
    };
    Some(match key {
        Key::Century if moment.is_interval() => (moment.year / 100, 2),
        Key::Century if moment.year > 0 => ((moment.year - 1) / 100 + 1, 2),
        Key::Century => (moment.year / 100 - 1, 2),
        Key::DayOfYear => (moment.day_of_year(), 3),
        Key::DayOfMonth => (moment.day, 2),
        Key::DayOfWeek if !moment.is_interval() => (iso_day % 7 + 1, 1),
        Key::IsoDayOfYear => ((iso_week - 1) * 7 + iso_day, 3),
        Key::IsoDayOfWeek if !moment.is_interval() => (iso_day, 1),
        Key::Fraction(digits) => (moment.micros / 10_i64.pow(6 - digits), usize::try_from(digits).unwrap_or_default()),
        Key::Hour24 => (moment.hour, 2),
        Key::Hour12 => (twelve(moment.hour), 2),
        Key::IsoWeek => (iso_week, 2),
        Key::IsoYear(digits) => last(iso_year, digits),
        Key::Julian => (moment.julian(), 1),
        Key::Minute => (moment.minute, 2),
        Key::Month => (moment.month, 2),
        Key::Millisecond => (moment.micros / 1_000, 3),
        Key::Microsecond => (moment.micros, 6),
        Key::Quarter if moment.month != 0 => ((moment.month - 1) / 3 + 1, 1),
        Key::SecondOfDay => ((moment.hour * 60 + moment.minute) * 60 + moment.second, 1),
        Key::Second => (moment.second, 2),
        Key::WeekOfYear => ((moment.day_of_year() - 1) / 7 + 1, 2),
        Key::WeekOfMonth => ((moment.day - 1) / 7 + 1, 1),
        Key::YearWithComma => (years(moment.year), 1),
        Key::Year(digits) => last(moment.year, digits),
        _ => return None,
    })
}

fn print_words(pattern: Pattern, moment: &Moment, out: &mut String) -> Result<(), Error> {
    if let Key::Meridiem { dots } = pattern.key {
        let late = moment.hour.rem_euclid(24) >= 12;
        let word = if dots { ["A.M.", "P.M."] } else { ["AM", "PM"] }[usize::from(late)];
        print_word(word, 0, pattern, out);
        return Ok(());
    }
    if let Key::MonthRoman = pattern.key {
        let word = month_of(moment).map_or("", |month| ROMAN[month]);
        print_word(word, 4, pattern, out);
        return Ok(());
    }
    // These patterns print nothing, and are allowed for intervals.
    if let Key::Exact | Key::Quarter = pattern.key {
        return Ok(());
    }
    let Some(date) = moment.date else {
        return Err(Error::user(
            sqlstate::INVALID_DATETIME_FORMAT,
            "invalid format specification for an interval value",
        )
        .with_hint("intervals are not tied to specific calendar dates"));
    };
    let month = month_of(moment).map_or("", |month| MONTHS[month]);
    let day = DAYS[chrono::Datelike::weekday(&date).num_days_from_sunday() as usize];
    match pattern.key {
        Key::Era { dots } => {
            let before = moment.year <= 0;
            let word = if dots { ["A.D.", "B.C."] } else { ["AD", "BC"] }[usize::from(before)];
            print_word(word, 0, pattern, out);
        }
        Key::MonthName => print_word(month, 9, pattern, out),
        Key::MonthShort => print_word(&month[..3], 0, pattern, out),
        Key::DayName => print_word(day, 9, pattern, out),
        Key::DayShort => print_word(&day[..3], 0, pattern, out),
        Key::Offset | Key::ZoneHour => out.push_str(if pattern.fill_mode { "+0" } else { "+00" }),
        Key::ZoneMinute => out.push_str("00"),
        Key::Zone if moment.zoned => print_word("UTC", 0, pattern, out),
        _ => {}
    }
    Ok(())
}

/// The index of the month, from 0.
fn month_of(moment: &Moment) -> Option<usize> {
    usize::try_from(moment.month - 1).ok().filter(|month| *month < MONTHS.len())
}

/// Prints a word in the case of its pattern, padded with blanks.
fn print_word(word: &str, width: usize, pattern: Pattern, out: &mut String) {
    let end = out.len() + if pattern.fill_mode { 0 } else { width };
    out.extend(word.chars().map(|character| match pattern.letters {
        Letters::Upper => character.to_ascii_uppercase(),
        Letters::Lower => character.to_ascii_lowercase(),
        Letters::Capital => character,
    }));
    while out.len() < end {
        out.push(' ');
    }
}
