//! Casts whose meaning in PostgreSQL differs from DataFusion's.
//!
//! * To text: PostgreSQL's output, where Arrow has its own format.
//! * From text to numeric, interval, date, time, timestamps, bytea and arrays: PostgreSQL's input.
//! * From floating-point numbers to numeric: the digits that the number was most likely written
//!   with.
//! * From numeric to floating-point numbers: the nearest one.
//! * From numeric and floating-point numbers to integers: rounded, where Arrow truncates.
//!
//! They replace DataFusion's casts once types are known: casts in the statement, and casts that the
//! coercion has added.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayBuilder, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, Float64Array, ListArray,
    NullBufferBuilder, PrimitiveArray, StringArray, StringBuilder,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal256Type, Field, FieldRef, Float32Type, Float64Type, IntervalMonthDayNanoType,
    IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::BinaryOperator;
use weir_common::decimal::{self, Excess};
use weir_common::interval::Interval;

use super::datetime;
use crate::error::{Error, sqlstate};
use crate::output::texts;

/// The digits that every floating-point number preserves: C's `FLT_DIG` and `DBL_DIG`.
const REAL_DIGITS: usize = 6;
const DOUBLE_DIGITS: usize = 15;

/// Replaces casts by the functions of this module. Applied after types are coerced.
#[derive(Debug)]
pub(crate) struct Casts;

impl FunctionRewrite for Casts {
    fn name(&self) -> &str {
        "casts"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::Cast(Cast { expr: operand, field }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let conversion = operand.get_type(schema).ok().and_then(|from| Conversion::between(&from, field.data_type()));
        Ok(match conversion {
            Some(conversion) => Transformed::yes(conversion.call(*operand, field.data_type())),
            None => Transformed::no(Expr::Cast(Cast { expr: operand, field })),
        })
    }
}

/// Gives a literal the type of the interval or array beside it, as DataFusion does for other types.
#[derive(Debug)]
pub(crate) struct Literals;

impl ExprPlanner for Literals {
    fn plan_binary_op(&self, mut raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let target = |expr: &Expr| {
            let ty = expr.get_type(schema).ok();
            ty.filter(|ty| matches!(ty, DataType::Interval(_) | DataType::List(_)))
        };
        give_type(&mut raw, schema);
        let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)) | ScalarValue::Null, _));
        let (left, right) = (target(&raw.left), target(&raw.right));
        if let (true, Some(ty)) = (is_literal(&raw.left), right) {
            raw.left = Expr::Cast(Cast::new(Box::new(raw.left), ty));
        } else if let (true, Some(ty)) = (is_literal(&raw.right), left) {
            raw.right = Expr::Cast(Cast::new(Box::new(raw.right), ty));
        }
        Ok(PlannerResult::Original(raw))
    }
}

/// Gives an untyped parameter the type that it has beside the other operand, so that the operation
/// can be planned.
fn give_type(raw: &mut RawBinaryExpr, schema: &DFSchema) {
    let open = |expr: &Expr| matches!(expr, Expr::Placeholder(placeholder) if placeholder.field.is_none());
    let (parameter, other) = match (open(&raw.left), open(&raw.right)) {
        (true, false) => (&mut raw.left, &raw.right),
        (false, true) => (&mut raw.right, &raw.left),
        _ => return,
    };
    let Ok(other) = other.get_type(schema) else { return };
    let interval = || DataType::Interval(IntervalUnit::MonthDayNano);
    let ty = match (&raw.op, other) {
        (BinaryOperator::Plus, DataType::Timestamp(..) | DataType::Time64(_)) => interval(),
        (BinaryOperator::Plus | BinaryOperator::Minus, DataType::Interval(_)) => interval(),
        (BinaryOperator::Multiply | BinaryOperator::Divide, DataType::Interval(_)) => DataType::Float64,
        (
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo,
            other,
        ) if other.is_numeric() || other.is_temporal() => other,
        _ => return,
    };
    if let Expr::Placeholder(placeholder) = parameter {
        placeholder.field = Some(Arc::new(Field::new("", ty, true)));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Conversion {
    ToText,
    FromText,
    FromFloat,
    ToFloat,
    Round,
}

impl Conversion {
    fn between(from: &DataType, to: &DataType) -> Option<Conversion> {
        let ours = |ty: &DataType| {
            matches!(
                ty,
                DataType::Boolean
                    | DataType::Date32
                    | DataType::Binary
                    | DataType::List(_)
                    | DataType::LargeList(_)
                    | DataType::Struct(_)
            ) || ty.is_numeric()
                || ty.is_temporal()
        };
        if to.is_string() {
            return ours(from).then_some(Conversion::ToText);
        }
        if from.is_string() {
            let read = matches!(
                to,
                DataType::Decimal128(..)
                    | DataType::Decimal256(..)
                    | DataType::Binary
                    | DataType::List(_)
                    | DataType::Date32
                    | DataType::Interval(IntervalUnit::MonthDayNano)
                    | DataType::Time64(TimeUnit::Microsecond)
                    | DataType::Timestamp(_, _)
            );
            return read.then_some(Conversion::FromText);
        }
        if from.is_floating() && matches!(to, DataType::Decimal128(..) | DataType::Decimal256(..)) {
            return Some(Conversion::FromFloat);
        }
        if from.is_decimal() && matches!(to, DataType::Float32 | DataType::Float64) {
            return Some(Conversion::ToFloat);
        }
        ((from.is_floating() || from.is_decimal()) && to.is_integer()).then_some(Conversion::Round)
    }

    fn call(self, operand: Expr, to: &DataType) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        let function = ScalarUDF::from(Convert { conversion: self, to: to.clone(), signature });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![operand]))
    }
}

/// A cast.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    conversion: Conversion,
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        "cast"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map_or_else(String::new, |operand| format!("CAST({operand} AS {})", self.to)))
    }

    /// Named like a cast in DataFusion: by its operand.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map_or_else(String::new, |operand| operand.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.to.clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(operand), Some(field)) = (args.args.first(), args.arg_fields.first()) else {
            return Err(Error::internal("a cast has no operand").into());
        };
        let rows = if matches!(operand, ColumnarValue::Scalar(_)) { 1 } else { args.number_rows };
        let result = self.convert(&operand.to_array(rows)?, field)?;
        Ok(match operand {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            ColumnarValue::Array(_) => ColumnarValue::Array(result),
        })
    }
}

impl Convert {
    fn convert(&self, operand: &ArrayRef, field: &FieldRef) -> Result<ArrayRef> {
        Ok(match self.conversion {
            Conversion::ToText => cast(&texts(operand, field)?, &self.to)?,
            Conversion::FromText => from_text(cast(operand, &DataType::Utf8)?.as_string::<i32>(), &self.to)?,
            Conversion::FromFloat => from_float(operand, &self.to)?,
            Conversion::ToFloat => to_float(operand, field, &self.to)?,
            Conversion::Round => round(operand, &self.to)?,
        })
    }
}

/// Converts a column of text to another type.
pub(crate) fn from_text(texts: &StringArray, to: &DataType) -> Result<ArrayRef> {
    Ok(match to {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            let scale = u8::try_from(*scale).map_err(|_| Error::unsupported("a numeric with a negative scale"))?;
            let wide: PrimitiveArray<Decimal256Type> =
                read(texts, |text| number(text.trim_ascii(), *precision, scale))?;
            cast(&wide.with_precision_and_scale(*precision, i8::try_from(scale).unwrap_or(i8::MAX))?, to)?
        }
        DataType::Interval(_) => Arc::new(read::<IntervalMonthDayNanoType>(texts, |text| {
            let interval = Interval::parse(text).ok_or_else(|| invalid("interval", text))?;
            interval.to_arrow().ok_or_else(|| Error::out_of_range("interval out of range"))
        })?),
        DataType::Date32 => {
            Arc::new(read::<Date32Type>(texts, |text| datetime::date(text).ok_or_else(|| invalid("date", text)))?)
        }
        DataType::Time64(_) => Arc::new(read::<Time64MicrosecondType>(texts, |text| {
            datetime::time(text).ok_or_else(|| invalid("time", text))
        })?),
        DataType::Timestamp(_, zone) => {
            let name = if zone.is_some() { "timestamp with time zone" } else { "timestamp" };
            let micros = read::<TimestampMicrosecondType>(texts, |text| {
                datetime::timestamp(text, zone.is_some()).ok_or_else(|| invalid(name, text))
            })?;
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&micros.with_timezone_opt(zone.clone()), to, &options)?
        }
        DataType::Binary => {
            let values = texts
                .iter()
                .map(|text| text.map(|text| bytea(text).ok_or_else(|| invalid("bytea", text))).transpose())
                .collect::<Result<Vec<_>, Error>>()?;
            Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>())
        }
        DataType::List(element) => lists(texts, element)?,
        _ => cast_with_options(texts, to, &CastOptions { safe: false, ..CastOptions::default() })?,
    })
}

/// Converts one text, as `from_text` converts a column.
pub fn scalar_from_text(text: &str, to: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&from_text(&StringArray::from(vec![text]), to)?, 0)
}

fn read<T: ArrowPrimitiveType>(
    texts: &StringArray,
    one: impl Fn(&str) -> Result<T::Native, Error>,
) -> Result<PrimitiveArray<T>, Error> {
    texts.iter().map(|text| text.map(&one).transpose()).collect()
}

fn number(text: &str, precision: u8, scale: u8) -> Result<datafusion::arrow::datatypes::i256, Error> {
    decimal::parse(text, precision, scale, Excess::Round).ok_or_else(|| {
        if ["nan", "inf", "infinity"].contains(&text.trim_start_matches(['+', '-']).to_ascii_lowercase().as_str()) {
            return Error::unsupported(format!("a numeric that is {text} is not supported"))
                .with_hint("use double precision");
        }
        // Rust parses every number, however large, so the text is a number that does not fit.
        match text.parse::<f64>() {
            Ok(_) => Error::out_of_range("numeric field overflow")
                .with_detail(format!("a field with precision {precision}, scale {scale} cannot hold {text}")),
            Err(_) => invalid("numeric", text),
        }
    })
}

/// Reads PostgreSQL's hex format (`\x…`) or its escape format.
pub fn bytea(value: &str) -> Option<Vec<u8>> {
    if let Some(digits) = value.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        return if rest.is_empty() { bytes } else { None };
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            (b'\\', _) => return None,
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

fn invalid(ty: &str, text: &str) -> Error {
    let code = match ty {
        "date" | "time" | "timestamp" | "timestamp with time zone" | "interval" => sqlstate::INVALID_DATETIME_FORMAT,
        _ => sqlstate::INVALID_TEXT_REPRESENTATION,
    };
    Error::user(code, format!("invalid input syntax for type {ty}: \"{text}\""))
}

/// Reads arrays in PostgreSQL's text format.
fn lists(texts: &StringArray, element: &FieldRef) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let mut offsets = vec![0_i32];
    let mut validity = NullBufferBuilder::new(texts.len());
    for text in texts {
        match text {
            Some(text) => read_elements(text, matches!(element.data_type(), DataType::List(_)), &mut elements)?,
            None => validity.append_null(),
        }
        if text.is_some() {
            validity.append_non_null();
        }
        let read = elements.len();
        offsets.push(i32::try_from(read).map_err(|_| Error::out_of_range("array size exceeds the maximum"))?);
    }
    let elements = elements.finish();
    let values = from_text(&elements, element.data_type())?;
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, validity.finish())?))
}

/// Appends the texts of an array's elements. Quotes are removed, except in elements that are
/// arrays.
fn read_elements(text: &str, of_arrays: bool, elements: &mut StringBuilder) -> Result<(), Error> {
    let malformed =
        || Error::user(sqlstate::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{text}\""));
    let inner = text.trim_ascii().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(malformed)?;
    if inner.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut rest = inner;
    loop {
        let end = element_end(rest).ok_or_else(malformed)?;
        let element = rest[..end].trim_ascii();
        if element.eq_ignore_ascii_case("NULL") {
            elements.append_null();
        } else if of_arrays {
            elements.append_value(element);
        } else if let Some(quoted) = element.strip_prefix('"') {
            let quoted = quoted.strip_suffix('"').ok_or_else(malformed)?;
            elements.append_value(without_escapes(quoted).ok_or_else(malformed)?);
        } else if element.is_empty() || element.contains(['"', '{', '}']) {
            return Err(malformed());
        } else {
            elements.append_value(without_escapes(element).ok_or_else(malformed)?);
        }
        match rest[end..].strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok(()),
        }
    }
}

/// The end of the first element: a comma outside quotes and braces, or the end of the text.
fn element_end(text: &str) -> Option<usize> {
    let (mut depth, mut in_quotes, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_quotes = !in_quotes,
            b'{' if !in_quotes => depth += 1,
            b'}' if !in_quotes => depth = depth.checked_sub(1)?,
            b',' if !in_quotes && depth == 0 => return Some(at),
            _ => {}
        }
    }
    (depth == 0 && !in_quotes && !escaped).then_some(text.len())
}

fn without_escapes(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next()? } else { character });
    }
    Some(plain)
}

/// Converts by way of the shortest text with the digits that every such number preserves, as
/// PostgreSQL does.
fn from_float(numbers: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let digits = if *numbers.data_type() == DataType::Float64 { DOUBLE_DIGITS } else { REAL_DIGITS };
    let numbers = cast(numbers, &DataType::Float64)?;
    let numbers: &Float64Array = numbers.as_primitive::<Float64Type>();
    let texts: StringArray = numbers.iter().map(|number| number.map(|number| written(number, digits))).collect();
    from_text(&texts, to)
}

fn written(number: f64, digits: usize) -> String {
    if number.is_finite() { format!("{number:.*e}", digits - 1) } else { number.to_string() }
}

/// Converts to the nearest floating-point number. Arrow's cast divides by a power of ten, which is
/// inexact for most numbers.
fn to_float(numbers: &ArrayRef, field: &FieldRef, to: &DataType) -> Result<ArrayRef> {
    let texts = texts(numbers, field)?;
    let texts = texts.as_string::<i32>().iter();
    let invalid = || Error::internal("a numeric is not printed as a number");
    Ok(match to {
        DataType::Float32 => {
            let numbers = texts.map(|text| text.map(|text| text.parse::<f32>().map_err(|_| invalid())).transpose());
            Arc::new(numbers.collect::<Result<PrimitiveArray<Float32Type>, Error>>()?)
        }
        _ => {
            let numbers = texts.map(|text| text.map(|text| text.parse::<f64>().map_err(|_| invalid())).transpose());
            Arc::new(numbers.collect::<Result<Float64Array, Error>>()?)
        }
    })
}

/// Rounds to the nearest integer. Halves go to the even integer for a floating-point number, and
/// away from zero for a numeric.
fn round(numbers: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let rounded: ArrayRef = match numbers.data_type() {
        DataType::Decimal256(precision, _) => cast(numbers, &DataType::Decimal256(*precision, 0))?,
        DataType::Decimal128(precision, _) => cast(numbers, &DataType::Decimal128(*precision, 0))?,
        _ => {
            let numbers = cast(numbers, &DataType::Float64)?;
            Arc::new(numbers.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
        }
    };
    let name = match to {
        DataType::Int8 | DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        _ => "bigint",
    };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(&rounded, to, &options);
    Ok(cast.map_err(|_| Error::out_of_range(format!("{name} out of range")))?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Decimal128Type, Int32Type};
    use weir_common::types::SqlType;

    use super::*;

    fn read_as(ty: &SqlType, texts: &[&str]) -> Result<ArrayRef, String> {
        let texts = StringArray::from(texts.to_vec());
        from_text(&texts, &ty.arrow()).map_err(|error| Error::from(error).message)
    }

    fn printed(array: &ArrayRef, ty: &SqlType) -> Vec<String> {
        let texts = texts(array, &Arc::new(ty.field(""))).expect("a type of a table's");
        texts.as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_owned()).collect()
    }

    #[test]
    fn arrays_are_read_as_they_are_printed() {
        let (integers, texts) =
            (SqlType::Array(Box::new(SqlType::Integer)), SqlType::Array(Box::new(SqlType::Varchar)));
        let nested = SqlType::Array(Box::new(texts.clone()));
        for (ty, written, expected) in [
            (&integers, " { 1 , NULL,-3 } ", "{1,NULL,-3}"),
            (&integers, "{}", "{}"),
            (&texts, r#"{a,"b c","NULL",null,"x\"y","x\\y",a\,b}"#, r#"{a,"b c","NULL",NULL,"x\"y","x\\y","a,b"}"#),
            (&nested, r#"{{a,"}"},{},{NULL},null}"#, r#"{{a,"}"},{},{NULL},NULL}"#),
        ] {
            let array = read_as(ty, &[written]).expect(written);
            assert_eq!(printed(&array, ty), [expected], "{written}");
        }
        for (ty, written) in [
            (&integers, ""),
            (&integers, "1"),
            (&integers, "{1"),
            (&integers, "{1,}"),
            (&integers, "{1}2"),
            (&integers, "{{1}}"),
            (&texts, "{\"a}"),
            (&texts, "{a\"b\"}"),
            (&texts, "{a\\}"),
            (&nested, "{{a}}}"),
        ] {
            assert_eq!(read_as(ty, &[written]), Err(format!("malformed array literal: \"{written}\"")));
        }
        assert!(read_as(&integers, &["{x}"]).is_err());
    }

    #[test]
    fn numbers_are_read_and_rounded() {
        let money = SqlType::Decimal { precision: 10, scale: 2 };
        let array = read_as(&money, &[" 1.005 ", "-2.5e1", ".5"]).expect("numbers");
        assert_eq!(printed(&array, &money), ["1.01", "-25.00", "0.50"]);
        assert_eq!(array.as_primitive::<Decimal128Type>().value(0), 101);
        assert_eq!(read_as(&money, &["123456789"]), Err("numeric field overflow".to_owned()));
        assert_eq!(read_as(&money, &["x"]), Err("invalid input syntax for type numeric: \"x\"".to_owned()));
        assert_eq!(
            read_as(&SqlType::Time, &["25:00"]),
            Err("invalid input syntax for type time: \"25:00\"".to_owned())
        );
        let times = read_as(&SqlType::Time, &["24:00", "1:02:03.4567896", "01:02 PM"]).expect("times");
        assert_eq!(printed(&times, &SqlType::Time), ["24:00:00", "01:02:03.45679", "13:02:00"]);
    }

    #[test]
    fn a_float_is_the_number_that_was_meant() {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 1.0 / 3.0, 1e20, -2.5]));
        let cast = from_float(&numbers, &SqlType::Numeric.arrow()).expect("numbers");
        let expected = ["0.1", "0.333333333333333", "100000000000000000000", "-2.5"];
        assert_eq!(printed(&cast, &SqlType::Numeric), expected);
        let nan: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
        assert!(from_float(&nan, &SqlType::Numeric.arrow()).is_err());
    }

    #[test]
    fn halves_are_rounded_as_their_types_are() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5, -0.5, -1.5]));
        let rounded = round(&floats, &DataType::Int32).expect("integers");
        assert_eq!(rounded.as_primitive::<Int32Type>().values(), &[0, 2, 2, 0, -2]);
        let exact = read_as(&SqlType::Numeric, &["0.5", "1.5", "2.5", "-0.5", "2.4999"]).expect("numbers");
        let rounded = round(&exact, &DataType::Int32).expect("integers");
        assert_eq!(rounded.as_primitive::<Int32Type>().values(), &[1, 2, 3, -1, 2]);
        let large: ArrayRef = Arc::new(Float64Array::from(vec![3e9]));
        let error = round(&large, &DataType::Int32).expect_err("too large");
        assert_eq!(Error::from(error).message, "integer out of range");
    }
}
