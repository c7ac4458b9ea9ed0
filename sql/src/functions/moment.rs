//! The parts of a date, a time, a timestamp or an interval, which [`super::to_char`] prints and
//! [`super::date_part`] extracts.
//!
//! Converts Arrow's numbers to parts. Years are astronomical: 0 is 1 BC.

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use weir_common::interval::Interval;

use crate::error::Error;

const SECOND_MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;
/// The Julian day of 1970-01-01, as PostgreSQL counts.
const EPOCH_JULIAN: i64 = 2_440_588;

/// The parts of a value. An interval's parts may be negative, and neither it nor a time has a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// The microseconds of the second.
    pub(super) micros: i64,
    /// Microseconds since 1970 in UTC; for an interval, its length.
    pub(super) since_epoch: i128,
    pub(super) date: Option<NaiveDate>,
    pub(super) zoned: bool,
}

impl Moment {
    /// The parts of a value that is not NULL.
    ///
    /// # Errors
    /// If the value is beyond the calendar's years, or has another type.
    pub(super) fn of(column: &ArrayRef, row: usize) -> Result<Moment, Error> {
        match column.data_type() {
            DataType::Timestamp(_, zone) => {
                let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
                Moment::of_timestamp(micros, zone.is_some())
            }
            DataType::Date32 => {
                let days = i64::from(column.as_primitive::<Date32Type>().value(row));
                let micros = days.checked_mul(DAY_MICROS).ok_or_else(|| Error::out_of_range("date out of range"))?;
                Moment::of_timestamp(micros, false)
            }
            DataType::Time64(_) => {
                let micros = column.as_primitive::<Time64MicrosecondType>().value(row);
                Ok(Moment::of_interval(Interval { months: 0, days: 0, micros }))
            }
            DataType::Interval(_) => {
                let stored = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
                Ok(Moment::of_interval(Interval::from_arrow(stored)))
            }
            _ => Err(Error::internal("a function of dates and times has another operand")),
        }
    }

    fn of_timestamp(micros: i64, zoned: bool) -> Result<Moment, Error> {
        let time =
            DateTime::from_timestamp_micros(micros).ok_or_else(|| Error::out_of_range("timestamp out of range"))?;
        let date = time.date_naive();
        let clock = Moment::of_clock(micros.rem_euclid(DAY_MICROS));
        Ok(Moment {
            year: i64::from(date.year()),
            month: i64::from(date.month()),
            day: i64::from(date.day()),
            since_epoch: i128::from(micros),
            date: Some(date),
            zoned,
            ..clock
        })
    }

    fn of_interval(interval: Interval) -> Moment {
        let (months, days) = (i64::from(interval.months), i64::from(interval.days));
        // A year has 365.25 days here, and a month 30.
        let quarters = i128::from(months / 12) * 1_461 + (i128::from(months % 12) * 30 + i128::from(days)) * 4;
        Moment {
            year: months / 12,
            month: months % 12,
            day: days,
            since_epoch: quarters * i128::from(DAY_MICROS / 4) + i128::from(interval.micros),
            ..Moment::of_clock(interval.micros)
        }
    }

    fn of_clock(micros: i64) -> Moment {
        let seconds = micros / SECOND_MICROS;
        Moment {
            year: 0,
            month: 0,
            day: 0,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            micros: micros % SECOND_MICROS,
            since_epoch: i128::from(micros),
            date: None,
            zoned: false,
        }
    }

    /// True for an interval, or a time, which PostgreSQL prints like one.
    pub(super) fn is_interval(&self) -> bool {
        self.date.is_none()
    }

    /// The day of the year. For an interval, approximately its days.
    pub(super) fn day_of_year(&self) -> i64 {
        match self.date {
            Some(date) => i64::from(date.ordinal()),
            None => (self.year * 12 + self.month) * 30 + self.day,
        }
    }

    /// The year, the week and the day of the week by ISO 8601.
    pub(super) fn iso(&self) -> (i64, i64, i64) {
        self.date.map_or((self.year, 0, 0), |date| {
            let week = date.iso_week();
            (i64::from(week.year()), i64::from(week.week()), i64::from(date.weekday().number_from_monday()))
        })
    }

    /// The Julian day.
    pub(super) fn julian(&self) -> i64 {
        let days = self.since_epoch.div_euclid(i128::from(DAY_MICROS));
        EPOCH_JULIAN + i64::try_from(days).unwrap_or_default()
    }
}

/// The names of the months, from January on.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The names of the days, from Sunday on.
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
