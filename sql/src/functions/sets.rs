//! The lists of set-returning functions, which `unnest` turns into rows ([`crate::syntax`]).
//!
//! Series advance as in PostgreSQL: each value is the previous one plus the step, so that a step of
//! months keeps to the ends of months, and a series of dates is one of `timestamptz`. A NULL
//! argument gives no rows.

use std::sync::Arc;

use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{
    Array, ArrayBuilder, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, NullBufferBuilder, PrimitiveBuilder,
    StringArray, StringBuilder,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{
    DataType, Decimal256Type, Field, FieldRef, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType, i256,
};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use weir_common::interval::Interval;
use weir_common::types::SqlType;

use super::jsonb::{elements, members};
use crate::error::{Error, sqlstate};

/// Returns the bigints from 1 to the length of the longest of some lists.
pub(crate) const ORDINALS: &str = "__ordinals";
/// Returns the values of an object's keys, in the order of the keys.
pub(crate) const MEMBERS: &str = "__jsonb_members";
/// Returns the same values as texts.
pub(crate) const MEMBER_TEXTS: &str = "__jsonb_member_texts";
/// DataFusion's table function of whole numbers.
pub(crate) const NUMBERS: &str = "__numbers";
/// Returns the values of `generate_series`.
pub(super) const SERIES: &str = "__series";
const KEYS: &str = "__jsonb_keys";
const ELEMENTS: &str = "__jsonb_elements";
const ELEMENT_TEXTS: &str = "__jsonb_element_texts";

/// The function that returns a set-returning function's rows as a list.
pub(crate) fn set_function(name: &str) -> Option<&'static str> {
    Some(match name {
        "generate_series" => SERIES,
        "jsonb_array_elements" => ELEMENTS,
        "jsonb_array_elements_text" => ELEMENT_TEXTS,
        "jsonb_object_keys" => KEYS,
        "string_to_table" => "string_to_array",
        _ => return None,
    })
}

/// True if the function of this name returns a list of jsonb.
pub(crate) fn list_holds_jsonb(list: &str) -> bool {
    matches!(list, ELEMENTS | MEMBERS)
}

pub(super) fn functions() -> Vec<ScalarUDF> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    let parts = [
        (ELEMENTS, Part::Elements),
        (ELEMENT_TEXTS, Part::ElementTexts),
        (KEYS, Part::Keys),
        (MEMBERS, Part::Members),
        (MEMBER_TEXTS, Part::MemberTexts),
    ];
    let parts = parts.map(|(name, part)| ScalarUDF::from(Parts { name, part, signature: signature() }));
    let others = [
        ScalarUDF::from(Ordinals(Signature::variadic_any(Volatility::Immutable))),
        ScalarUDF::from(Series(signature())),
    ];
    parts.into_iter().chain(others).collect()
}

fn list_of(element: FieldRef) -> DataType {
    DataType::List(element)
}

fn no_such_function(name: &str, given: &[DataType]) -> Error {
    let given: Vec<String> = given.iter().map(ToString::to_string).collect();
    Error::user(sqlstate::UNDEFINED_FUNCTION, format!("function {name}({}) does not exist", given.join(", ")))
}

/// Builds lists of primitives row by row.
struct Lists<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    lengths: Vec<usize>,
    validity: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Lists<T> {
    fn new(rows: usize) -> Lists<T> {
        Lists {
            values: PrimitiveBuilder::new(),
            lengths: Vec::with_capacity(rows),
            validity: NullBufferBuilder::new(rows),
        }
    }

    fn end(&mut self, first: usize, is_valid: bool) {
        self.lengths.push(self.values.len() - first);
        self.validity.append(is_valid);
    }

    fn finish(mut self, element: FieldRef) -> Result<ArrayRef> {
        let values = self.values.finish().with_data_type(element.data_type().clone());
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        Ok(Arc::new(ListArray::try_new(element, offsets, Arc::new(values), self.validity.finish())?))
    }
}

/// See [`ORDINALS`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ordinals(Signature);

impl ScalarUDFImpl for Ordinals {
    fn name(&self) -> &str {
        ORDINALS
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(list_of(Arc::new(Field::new_list_field(DataType::Int64, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lists = args.args.iter().map(|list| list.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let mut ordinals = Lists::<Int64Type>::new(args.number_rows);
        for row in 0..args.number_rows {
            let length = |list: &ArrayRef| match list.data_type() {
                DataType::List(_) if list.is_valid(row) => i64::from(list.as_list::<i32>().value_length(row)),
                DataType::LargeList(_) if list.is_valid(row) => list.as_list::<i64>().value_length(row),
                _ => 0,
            };
            let longest = lists.iter().map(length).max().unwrap_or(0);
            let first = ordinals.values.len();
            (1..=longest).for_each(|ordinal| ordinals.values.append_value(ordinal));
            ordinals.end(first, true);
        }
        Ok(ColumnarValue::Array(ordinals.finish(Arc::new(Field::new_list_field(DataType::Int64, true)))?))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Elements,
    ElementTexts,
    Keys,
    Members,
    MemberTexts,
}

/// Returns parts of a jsonb as texts. `unnest` would drop the mark of jsonb ([`list_holds_jsonb`]).
#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    name: &'static str,
    part: Part,
    signature: Signature,
}

impl ScalarUDFImpl for Parts {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        match given {
            [only] if only.is_string() || only.is_null() => Ok(vec![DataType::Utf8]),
            _ => Err(no_such_function(self.name, given).into()),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(list_of(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let documents = args.args.first().ok_or_else(|| Error::internal("a jsonb is missing"))?;
        let documents = documents.to_array(args.number_rows)?;
        let documents: &StringArray = documents.as_string();
        let mut values = StringBuilder::new();
        let mut lengths = Vec::with_capacity(documents.len());
        for document in documents {
            let first = values.len();
            if let Some(document) = document {
                self.append(document, &mut values)?;
            }
            lengths.push(values.len() - first);
        }
        let element = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let nulls = documents.nulls().cloned();
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(element, offsets, Arc::new(values.finish()), nulls)?)))
    }
}

impl Parts {
    fn append(&self, document: &str, values: &mut StringBuilder) -> Result<()> {
        match self.part {
            Part::Elements => elements(document)?.iter().for_each(|element| values.append_value(element)),
            Part::ElementTexts => {
                for element in elements(document)? {
                    values.append_option(super::jsonb::as_text(&element)?);
                }
            }
            Part::Keys => members(document, "jsonb_object_keys")?.iter().for_each(|(key, _)| values.append_value(key)),
            Part::Members => members(document, "jsonb_each")?.iter().for_each(|(_, value)| values.append_value(value)),
            Part::MemberTexts => {
                for (_, value) in members(document, "jsonb_each_text")? {
                    values.append_option(super::jsonb::as_text(&value)?);
                }
            }
        }
        Ok(())
    }
}

/// See [`SERIES`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Series(Signature);

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        SERIES
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let element = series_type(given).ok_or_else(|| no_such_function("generate_series", given))?;
        let step = match element {
            DataType::Timestamp(..) => DataType::Interval(IntervalUnit::MonthDayNano),
            _ => element.clone(),
        };
        Ok([element.clone(), element, step].into_iter().take(given.len()).collect())
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let element = series_type(given).ok_or_else(|| no_such_function("generate_series", given))?;
        Ok(list_of(Arc::new(Field::new_list_field(element, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let operands =
            args.args.iter().map(|operand| operand.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let element = Arc::new(Field::new_list_field(
            operands.first().ok_or_else(|| Error::internal("a series has no beginning"))?.data_type().clone(),
            true,
        ));
        let rows = args.number_rows;
        let lists = match element.data_type() {
            DataType::Int32 => numbers::<Int32Type>(&operands, rows, 0, 1, i32::checked_add)?.finish(element),
            DataType::Int64 => numbers::<Int64Type>(&operands, rows, 0, 1, i64::checked_add)?.finish(element),
            DataType::Decimal256(_, scale) => {
                let one = i256::from_i128(10).checked_pow(u32::from(scale.unsigned_abs())).unwrap_or(i256::ONE);
                numbers::<Decimal256Type>(&operands, rows, i256::ZERO, one, i256::checked_add)?.finish(element)
            }
            _ => moments(&operands, rows)?.finish(element),
        };
        Ok(ColumnarValue::Array(lists?))
    }
}

/// The type of a series' values; `None` if there is no such series.
fn series_type(given: &[DataType]) -> Option<DataType> {
    let (ends, step) = match given {
        [from, to] => ([from, to], None),
        [from, to, step] => ([from, to], Some(step)),
        _ => return None,
    };
    let is_time = |ty: &&DataType| matches!(ty, DataType::Timestamp(..) | DataType::Date32);
    let is_open = |ty: &DataType| ty.is_string() || ty.is_null();
    let micros = |zone: Option<Arc<str>>| DataType::Timestamp(TimeUnit::Microsecond, zone);
    if ends.iter().any(is_time) {
        let fits = ends.iter().all(|ty| is_time(ty) || is_open(ty));
        let has_step = step.is_some_and(|step| matches!(step, DataType::Interval(_)) || is_open(step));
        // Dates become timestamps with a zone, PostgreSQL's preferred type.
        let is_local = ends.iter().any(|ty| matches!(ty, DataType::Timestamp(_, None)));
        let zoned = ends.iter().any(|ty| matches!(ty, DataType::Timestamp(_, Some(_))));
        let zone = (zoned || !is_local).then(|| "UTC".into());
        return (fits && has_step).then(|| micros(zone));
    }
    let all: Vec<&DataType> = ends.into_iter().chain(step).collect();
    if all.iter().all(|ty| is_open(ty)) || !all.iter().all(|ty| ty.is_integer() || ty.is_decimal() || is_open(ty)) {
        return None;
    }
    Some(if all.iter().any(|ty| ty.is_decimal()) {
        SqlType::Numeric.arrow()
    } else if all.iter().any(|ty| matches!(ty, DataType::Int64 | DataType::UInt64 | DataType::UInt32)) {
        DataType::Int64
    } else {
        DataType::Int32
    })
}

fn no_step() -> Error {
    Error::user(sqlstate::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn numbers<T: ArrowPrimitiveType>(
    operands: &[ArrayRef],
    rows: usize,
    zero: T::Native,
    one: T::Native,
    add: fn(T::Native, T::Native) -> Option<T::Native>,
) -> Result<Lists<T>> {
    let mut lists = Lists::<T>::new(rows);
    for row in 0..rows {
        let first = lists.values.len();
        let is_valid = operands.iter().all(|operand| operand.is_valid(row));
        if is_valid {
            let operand = |index: usize| operands.get(index).map(|operand| operand.as_primitive::<T>().value(row));
            let step = operand(2).unwrap_or(one);
            if step == zero {
                return Err(no_step().into());
            }
            let mut next = operand(0);
            while let (Some(value), Some(end)) = (next, operand(1)) {
                if (step > zero && value > end) || (step < zero && value < end) {
                    break;
                }
                lists.values.append_value(value);
                next = add(value, step);
            }
        }
        lists.end(first, is_valid);
    }
    Ok(lists)
}

fn moments(operands: &[ArrayRef], rows: usize) -> Result<Lists<TimestampMicrosecondType>> {
    let [from, to, step] = operands else { return Err(Error::internal("a series of times has no step").into()) };
    let (from, to) = (from.as_primitive::<TimestampMicrosecondType>(), to.as_primitive::<TimestampMicrosecondType>());
    let step = step.as_primitive::<IntervalMonthDayNanoType>();
    let utc: Tz = "+00:00".parse()?;
    let mut lists = Lists::new(rows);
    for row in 0..rows {
        let first = lists.values.len();
        let is_valid = operands.iter().all(|operand| operand.is_valid(row));
        if is_valid {
            let step = step.value(row);
            let step_length = Interval::from_arrow(step).normal();
            let sign = (step_length.months, step_length.days, step_length.micros).cmp(&(0, 0, 0));
            if sign.is_eq() {
                return Err(no_step().into());
            }
            let mut next = Some(from.value(row));
            while let Some(value) = next {
                if (sign.is_gt() && value > to.value(row)) || (sign.is_lt() && value < to.value(row)) {
                    break;
                }
                lists.values.append_value(value);
                next = TimestampMicrosecondType::add_month_day_nano(value, step, utc);
            }
        }
        lists.end(first, is_valid);
    }
    Ok(lists)
}
