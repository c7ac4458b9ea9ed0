//! `extract(field FROM source)` and `date_part('field', source)`, as PostgreSQL computes them:
//! `extract` returns a numeric whose seconds include their fraction, `date_part` the same in double
//! precision.
//!
//! Owns the list of fields. DataFusion's are whole numbers, except for the epoch.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_common::types::SqlType;

use super::moment::Moment;
use super::to_char::undefined;
use crate::error::{Error, sqlstate};

/// Plans `extract(… FROM …)`.
#[derive(Debug)]
pub(crate) struct Extract;

impl ExprPlanner for Extract {
    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let function = Arc::new(ScalarUDF::from(DatePart::new(true)));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, args))))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Julian,
    IsoYear,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Epoch,
    Zone,
}

impl Unit {
    /// The field with one of PostgreSQL's names.
    fn named(name: &str) -> Option<Unit> {
        Some(match name.trim_matches(['\'', '"']).to_ascii_lowercase().as_str() {
            "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" => Unit::Microsecond,
            "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" => Unit::Millisecond,
            "second" | "seconds" | "sec" | "secs" | "s" => Unit::Second,
            "minute" | "minutes" | "min" | "mins" | "m" => Unit::Minute,
            "hour" | "hours" | "hr" | "hrs" | "h" => Unit::Hour,
            "day" | "days" | "d" => Unit::Day,
            "week" | "weeks" | "w" => Unit::Week,
            "month" | "months" | "mon" | "mons" => Unit::Month,
            "quarter" | "qtr" => Unit::Quarter,
            "year" | "years" | "yr" | "yrs" | "y" => Unit::Year,
            "decade" | "decades" | "dec" | "decs" => Unit::Decade,
            "century" | "centuries" | "cent" | "c" => Unit::Century,
            "millennium" | "millennia" | "mil" | "mils" => Unit::Millennium,
            "julian" | "jd" | "j" => Unit::Julian,
            "isoyear" => Unit::IsoYear,
            "dow" => Unit::DayOfWeek,
            "isodow" => Unit::IsoDayOfWeek,
            "doy" => Unit::DayOfYear,
            "epoch" => Unit::Epoch,
            "timezone" | "timezone_hour" | "timezone_minute" => Unit::Zone,
            _ => return None,
        })
    }

    /// True if values of the type have the field. With `exact`, a date has no fields of the time;
    /// `date_part` returns those of midnight.
    fn is_of(self, ty: &DataType, exact: bool) -> bool {
        let clock = [Unit::Microsecond, Unit::Millisecond, Unit::Second, Unit::Minute, Unit::Hour].contains(&self);
        match ty {
            DataType::Date32 => !(clock && exact) && self != Unit::Zone,
            DataType::Timestamp(_, zone) => self != Unit::Julian && (self != Unit::Zone || zone.is_some()),
            DataType::Time64(_) => clock || self == Unit::Epoch,
            _ => {
                let dated = [Unit::Week, Unit::Julian, Unit::IsoYear, Unit::DayOfWeek, Unit::IsoDayOfWeek];
                !dated.contains(&self) && self != Unit::DayOfYear && self != Unit::Zone
            }
        }
    }

    /// The precision and scale that `extract` prints.
    fn shape(self, ty: &DataType) -> (u8, i8) {
        match self {
            Unit::Second => (8, 6),
            Unit::Millisecond => (8, 3),
            // The epoch of a date is a whole number.
            Unit::Epoch if *ty != DataType::Date32 => (26, 6),
            Unit::Epoch => (20, 0),
            _ => (10, 0),
        }
    }

    /// The value of the field, in units of the last digit that `extract` prints.
    fn of(self, moment: &Moment, ty: &DataType) -> i128 {
        let seconds = moment.second * 1_000_000 + moment.micros;
        let (iso_year, iso_week, iso_day) = moment.iso();
        let year = moment.year;
        // There is no year 0, and years before the year 1 are counted backwards.
        let back = |span: i64, offset: i64| match year {
            _ if moment.is_interval() => year / span,
            1.. => (year + offset) / span,
            _ => -((offset - (year - 1)) / span),
        };
        let counted = |year: i64| if year > 0 || moment.is_interval() { year } else { year - 1 };
        i128::from(match self {
            Unit::Microsecond | Unit::Millisecond | Unit::Second => seconds,
            Unit::Minute => moment.minute,
            Unit::Hour => moment.hour,
            Unit::Day => moment.day,
            Unit::Week => iso_week,
            Unit::Month => moment.month,
            Unit::Quarter if moment.is_interval() => moment.month / 3 + 1,
            Unit::Quarter => (moment.month - 1) / 3 + 1,
            Unit::Year => counted(year),
            Unit::Decade if year >= 0 || moment.is_interval() => year / 10,
            Unit::Decade => -((8 - (year - 1)) / 10),
            Unit::Century => back(100, 99),
            Unit::Millennium => back(1_000, 999),
            Unit::Julian => moment.julian(),
            Unit::IsoYear => counted(iso_year),
            Unit::DayOfWeek => iso_day % 7,
            Unit::IsoDayOfWeek => iso_day,
            Unit::DayOfYear => moment.day_of_year(),
            Unit::Zone => 0,
            Unit::Epoch if *ty == DataType::Date32 => return moment.since_epoch / 1_000_000,
            Unit::Epoch => return moment.since_epoch,
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    extracts: bool,
    /// The alias of DataFusion's function. Without it, that function would take the name back when
    /// a session's state is made.
    aliases: Vec<String>,
    signature: Signature,
}

impl DatePart {
    pub(super) fn new(extracts: bool) -> DatePart {
        let aliases = if extracts { Vec::new() } else { vec!["datepart".to_owned()] };
        DatePart { extracts, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The field that the first argument names.
    fn unit(&self, name: Option<&ScalarValue>, ty: &DataType) -> Result<Unit, Error> {
        let Some(Some(name)) = name.and_then(ScalarValue::try_as_str) else {
            return Err(Error::unsupported(format!("the field of {} is not a constant", self.name()))
                .with_hint("write the field's name"));
        };
        let shown = match ty {
            DataType::Date32 => "date",
            DataType::Time64(_) => "time without time zone",
            DataType::Interval(_) => "interval",
            DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
            _ => "timestamp without time zone",
        };
        let unit = Unit::named(name).ok_or_else(|| {
            let message = format!("unit \"{name}\" not recognized for type {shown}");
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
        })?;
        if !unit.is_of(ty, self.extracts) {
            return Err(Error::unsupported(format!("unit \"{name}\" not supported for type {shown}"))
                .with_hint("cast the value to a type that has the unit"));
        }
        Ok(unit)
    }
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &str {
        if self.extracts { "extract" } else { "date_part" }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let [name, source] = given else { return Err(undefined(self.name(), given).into()) };
        let source = match source {
            DataType::Timestamp(_, None) | DataType::Null => SqlType::Timestamp.arrow(),
            DataType::Timestamp(..) => SqlType::Timestamptz.arrow(),
            DataType::Date32 => DataType::Date32,
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            text if text.is_string() => SqlType::Timestamp.arrow(),
            _ => return Err(undefined(self.name(), given).into()),
        };
        if !(name.is_string() || name.is_null()) {
            return Err(undefined(self.name(), given).into());
        }
        Ok(vec![DataType::Utf8, source])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(Error::internal("the type of a field depends on which one it is").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [_, source] = args.arg_fields else { return Err(undefined(self.name(), &[]).into()) };
        let name = args.scalar_arguments.first().copied().flatten();
        let unit = self.unit(name, source.data_type())?;
        let ty = if self.extracts {
            let (precision, scale) = unit.shape(source.data_type());
            DataType::Decimal128(precision, scale)
        } else {
            DataType::Float64
        };
        Ok(Arc::new(Field::new(self.name(), ty, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [name, source] = args.args.as_slice() else {
            return Err(Error::internal("a field is asked of another number of operands").into());
        };
        let name = if let ColumnarValue::Scalar(name) = name { Some(name) } else { None };
        let is_scalar = matches!(source, ColumnarValue::Scalar(_));
        let values = source.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let unit = self.unit(name, values.data_type())?;
        let (_, scale) = unit.shape(values.data_type());
        let parts = (0..values.len()).map(|row| {
            let moment = values.is_valid(row).then(|| Moment::of(&values, row)).transpose()?;
            Ok(moment.map(|moment| unit.of(&moment, values.data_type())))
        });
        let result: ArrayRef = if self.extracts {
            let parts: Decimal128Array = parts.collect::<Result<_, Error>>()?;
            Arc::new(parts.with_data_type(args.return_type().clone()))
        } else {
            let unit = 10_f64.powi(i32::from(scale));
            #[expect(clippy::cast_precision_loss, reason = "the result is double precision")]
            let parts = parts.map(|part| Ok(part?.map(|part| part as f64 / unit)));
            Arc::new(parts.collect::<Result<Float64Array, Error>>()?)
        };
        Ok(if is_scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}
