//! Functions of values that `array_agg` collected: the aggregates of PostgreSQL that DataFusion
//! lacks become calls of them ([`crate::syntax`]). Here is `to_jsonb` too, which they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, UInt64Array, make_comparator,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::{SortOptions, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit};
use datafusion::common::utils::take_function_args;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use weir_common::types::SqlType;

use super::comparable;
use super::jsonb::normalise;
use crate::error::{Error, sqlstate};
use crate::output::printed;
use crate::types::is_jsonb;

/// Puts JSON texts together to a jsonb array.
pub(crate) const JSONB_ARRAY: &str = "__jsonb_array";
/// Puts names and JSON texts together to a jsonb object.
pub(crate) const JSONB_OBJECT: &str = "__jsonb_object";
/// The value at a fraction of sorted numbers, or between two of them.
pub(crate) const PERCENTILE_CONT: &str = "__percentile_cont";
/// The first of sorted values that is not before a fraction.
pub(crate) const PERCENTILE_DISC: &str = "__percentile_disc";
/// The most frequent of sorted values.
pub(crate) const MODE: &str = "__mode";
/// A value as jsonb.
pub(crate) const TO_JSONB: &str = "to_jsonb";

pub(super) fn functions() -> Vec<ScalarUDF> {
    let functions = [
        (TO_JSONB, Function::ToJsonb),
        (JSONB_ARRAY, Function::JsonbArray),
        (JSONB_OBJECT, Function::JsonbObject),
        (PERCENTILE_CONT, Function::Continuous),
        (PERCENTILE_DISC, Function::Discrete),
        (MODE, Function::Mode),
    ];
    let signature = || Signature::user_defined(Volatility::Immutable);
    functions.map(|(name, function)| ScalarUDF::from(Collected { name, function, signature: signature() })).into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    ToJsonb,
    JsonbArray,
    JsonbObject,
    Continuous,
    Discrete,
    Mode,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Collected {
    name: &'static str,
    function: Function,
    signature: Signature,
}

fn doubles() -> DataType {
    DataType::List(Arc::new(SqlType::Double.field("item")))
}

/// True if a percentile is wanted at several fractions.
fn is_list(given: &[DataType]) -> bool {
    matches!(given.first(), Some(DataType::List(_)))
}

fn list(ty: &DataType) -> Result<FieldRef> {
    match ty {
        DataType::List(element) => Ok(Arc::clone(element)),
        other => Err(Error::internal(format!("a {other} does not hold collected values")).into()),
    }
}

impl ScalarUDFImpl for Collected {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let texts = || DataType::List(Arc::new(SqlType::Varchar.field("item")));
        match self.function {
            Function::ToJsonb => {
                let [value] = take_function_args(self.name, given)?;
                Ok(vec![if value.is_null() { DataType::Utf8 } else { value.clone() }])
            }
            Function::JsonbArray => Ok(vec![texts()]),
            Function::JsonbObject => Ok(vec![texts(), texts()]),
            Function::Mode => Ok(given.to_vec()),
            Function::Continuous | Function::Discrete => {
                let [fraction, values] = take_function_args(self.name, given)?;
                let fraction = if matches!(fraction, DataType::List(_)) { doubles() } else { DataType::Float64 };
                let element = list(values)?;
                if self.function == Function::Discrete {
                    return Ok(vec![fraction, values.clone()]);
                }
                if !element.data_type().is_numeric() && !element.data_type().is_null() {
                    let message = "percentile_cont of values that are not numbers is not supported";
                    return Err(Error::unsupported(message).with_hint("use percentile_disc").into());
                }
                Ok(vec![fraction, doubles()])
            }
        }
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(match (self.function, given.last()) {
            (Function::Continuous, _) if is_list(given) => doubles(),
            (Function::Discrete, Some(values)) if is_list(given) => values.clone(),
            (Function::ToJsonb | Function::JsonbArray | Function::JsonbObject, _) => SqlType::Jsonb.arrow(),
            (Function::Continuous, _) => DataType::Float64,
            (Function::Discrete | Function::Mode, Some(values)) => list(values)?.data_type().clone(),
            (Function::Discrete | Function::Mode, None) => return Err(Error::internal("no collected values").into()),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let given: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(match (self.function, args.arg_fields.last()) {
            (Function::ToJsonb | Function::JsonbArray | Function::JsonbObject, _) => {
                Arc::new(SqlType::Jsonb.field(self.name))
            }
            (Function::Discrete, Some(values)) if is_list(&given) => {
                Arc::new(values.as_ref().clone().with_name(self.name).with_nullable(true))
            }
            (Function::Discrete | Function::Mode, Some(values)) => {
                let element = list(values.data_type())?;
                Arc::new(element.as_ref().clone().with_name(self.name).with_nullable(true))
            }
            _ => Arc::new(Field::new(self.name, self.return_type(&given)?, true)),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|value| value.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let array: ArrayRef = match (self.function, arrays.as_slice()) {
            (Function::ToJsonb, [values]) => {
                let texts = json_texts(values, &args.arg_fields[0])?;
                let texts = texts.into_iter().map(|text| text.map(|text| normalise(&text)).transpose());
                Arc::new(texts.collect::<Result<StringArray, Error>>()?)
            }
            (Function::JsonbArray, [lists]) => Arc::new(jsonb_arrays(lists.as_list())),
            (Function::JsonbObject, [names, lists]) => Arc::new(jsonb_objects(names.as_list(), lists.as_list())?),
            (Function::Continuous | Function::Discrete, [wanted, lists]) => {
                let lists = lists.as_list();
                let found: ArrayRef = match self.function {
                    Function::Continuous => Arc::new(continuous(fractions(wanted), lists)?),
                    _ => discrete(fractions(wanted), lists)?,
                };
                match wanted.as_list_opt() {
                    Some(wanted) => several(wanted, found, lists, list(lists.data_type())?)?,
                    None => found,
                }
            }
            (Function::Mode, [lists]) => modes(lists.as_list(), &list(lists.data_type())?)?,
            _ => return Err(Error::internal("a function of collected values lacks an argument").into()),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// Values as JSON.
fn json_texts(values: &ArrayRef, field: &FieldRef) -> Result<Vec<Option<String>>, Error> {
    let texts = || -> Result<ArrayRef, Error> { printed(values, field) };
    let each = |form: &dyn Fn(&str) -> String| -> Result<Vec<Option<String>>, Error> {
        Ok(texts()?.as_string::<i32>().iter().map(|text| text.map(form)).collect())
    };
    let null = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
    match values.data_type() {
        DataType::Boolean => Ok(values.as_boolean().iter().map(|value| value.map(|value| value.to_string())).collect()),
        DataType::Utf8 if is_jsonb(field) => {
            Ok(values.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect())
        }
        ty if ty.is_numeric() => each(&|text| match text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            true => quoted(text),
            false if text.starts_with("-I") => quoted(text),
            false => text.to_owned(),
        }),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => each(&|text| {
            let minutes = if zone.is_some() && text.ends_with("+00") { ":00" } else { "" };
            quoted(&format!("{}{minutes}", text.replacen(' ', "T", 1)))
        }),
        DataType::List(element) => {
            let lists: &ListArray = values.as_list();
            let elements = json_texts(lists.values(), element)?;
            let offsets = lists.value_offsets();
            let one = |row: usize| {
                let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                let elements: Vec<String> = elements[first..end].iter().cloned().map(null).collect();
                lists.is_valid(row).then(|| format!("[{}]", elements.join(", ")))
            };
            Ok((0..lists.len()).map(one).collect())
        }
        DataType::Struct(fields) => {
            let rows = values.as_struct();
            let columns = rows.columns().iter().zip(fields).map(|(column, field)| json_texts(column, field));
            let columns = columns.collect::<Result<Vec<_>, Error>>()?;
            let one = |row: usize| {
                let member = |(field, column): (&FieldRef, &Vec<Option<String>>)| {
                    format!("{}: {}", quoted(field.name()), null(column[row].clone()))
                };
                let members: Vec<String> = fields.iter().zip(&columns).map(member).collect();
                rows.is_valid(row).then(|| format!("{{{}}}", members.join(", ")))
            };
            Ok((0..rows.len()).map(one).collect())
        }
        _ => each(&quoted),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The texts of a row, which has some.
fn texts_of(lists: &ListArray, row: usize) -> Option<ArrayRef> {
    lists.is_valid(row).then(|| lists.value(row))
}

fn jsonb_arrays(lists: &ListArray) -> StringArray {
    let array = |row| {
        let elements = texts_of(lists, row)?;
        let elements: Vec<&str> = elements.as_string::<i32>().iter().map(|text| text.unwrap_or("null")).collect();
        Some(format!("[{}]", elements.join(", ")))
    };
    (0..lists.len()).map(array).collect()
}

/// Names are sorted as in every jsonb: shorter ones first. The last of several values stays.
fn jsonb_objects(names: &ListArray, lists: &ListArray) -> Result<StringArray, Error> {
    let object = |row| {
        let Some((names, values)) = texts_of(names, row).zip(texts_of(lists, row)) else { return Ok(None) };
        let mut members: BTreeMap<(usize, &str), &str> = BTreeMap::new();
        for (name, value) in names.as_string::<i32>().iter().zip(values.as_string::<i32>()) {
            let null = || Error::user(sqlstate::NULL_VALUE_NOT_ALLOWED, "field name must not be null");
            let name = name.ok_or_else(null)?;
            members.insert((name.len(), name), value.unwrap_or("null"));
        }
        let members = members.into_iter().map(|((_, name), value)| format!("{}: {value}", quoted(name)));
        let members: Vec<String> = members.collect();
        Ok(Some(normalise(&format!("{{{}}}", members.join(", ")))?))
    };
    (0..lists.len()).map(object).collect()
}

/// The fractions at which percentiles are wanted, each with the row whose values it is of.
fn fractions(fractions: &ArrayRef) -> Vec<(Option<f64>, usize)> {
    let of = |fractions: &ArrayRef, place: usize| {
        let fractions = fractions.as_primitive::<Float64Type>();
        fractions.is_valid(place).then(|| fractions.value(place))
    };
    let Some(lists) = fractions.as_list_opt::<i32>() else {
        return (0..fractions.len()).map(|row| (of(fractions, row), row)).collect();
    };
    let rows = (0..lists.len()).filter(|row| lists.is_valid(*row));
    let each = |row: usize| {
        let offsets = &lists.value_offsets()[row..=row + 1];
        (offsets[0] as usize..offsets[1] as usize).map(move |place| (of(lists.values(), place), row))
    };
    rows.flat_map(each).collect()
}

/// The percentiles at several fractions, as a list for each row.
fn several(fractions: &ListArray, found: ArrayRef, lists: &ListArray, element: FieldRef) -> Result<ArrayRef> {
    let count = |row: usize| if fractions.is_valid(row) { fractions.value_length(row) as usize } else { 0 };
    let lengths = OffsetBuffer::from_lengths((0..fractions.len()).map(count));
    let is_there = |row: usize| fractions.is_valid(row) && lists.is_valid(row) && lists.value_length(row) > 0;
    let nulls: NullBuffer = (0..fractions.len()).map(is_there).collect::<Vec<_>>().into();
    Ok(Arc::new(ListArray::try_new(element, lengths, found, Some(nulls))?))
}

/// Where the values of a row are, and the fraction; `None` if there is no result.
fn fraction_of((fraction, row): (Option<f64>, usize), lists: &ListArray) -> Result<Option<(usize, usize, f64)>, Error> {
    let offsets = lists.value_offsets();
    let (first, count) = (offsets[row] as usize, (offsets[row + 1] - offsets[row]) as usize);
    let Some(fraction) = fraction.filter(|_| lists.is_valid(row) && count > 0) else { return Ok(None) };
    if !(0.0..=1.0).contains(&fraction) {
        let message = format!("percentile value {fraction} is not between 0 and 1");
        return Err(Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, message));
    }
    Ok(Some((first, count, fraction)))
}

fn continuous(fractions: Vec<(Option<f64>, usize)>, lists: &ListArray) -> Result<Float64Array, Error> {
    let values = lists.values().as_primitive::<Float64Type>();
    let one = |fraction| {
        let Some((first, count, fraction)) = fraction_of(fraction, lists)? else { return Ok(None) };
        let place = fraction * (count - 1) as f64;
        let (low, high) = (values.value(first + place.floor() as usize), values.value(first + place.ceil() as usize));
        let between = place - place.floor();
        Ok(Some(if between == 0.0 { low } else { low + between * (high - low) }))
    };
    fractions.into_iter().map(one).collect()
}

fn discrete(fractions: Vec<(Option<f64>, usize)>, lists: &ListArray) -> Result<ArrayRef> {
    let one = |fraction| {
        let Some((first, count, fraction)) = fraction_of(fraction, lists)? else { return Ok(None) };
        let place = ((fraction * count as f64).ceil() as usize).max(1) - 1;
        Ok(Some((first + place) as u64))
    };
    let places: UInt64Array = fractions.into_iter().map(one).collect::<Result<_, Error>>()?;
    Ok(take(lists.values(), &places, None)?)
}

fn modes(lists: &ListArray, element: &FieldRef) -> Result<ArrayRef> {
    let keys = comparable::values(lists.values(), element);
    let compare = make_comparator(&keys, &keys, SortOptions::default())?;
    let offsets = lists.value_offsets();
    let one = |row: usize| {
        let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let (mut best, mut most, mut run) = (None, 0, first);
        for place in (first..end).filter(|_| lists.is_valid(row)) {
            if compare(place, run).is_ne() {
                run = place;
            }
            if place - run + 1 > most {
                (best, most) = (Some(run as u64), place - run + 1);
            }
        }
        best
    };
    let places: UInt64Array = (0..lists.len()).map(one).collect();
    Ok(take(lists.values(), &places, None)?)
}
