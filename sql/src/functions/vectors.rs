//! Bounds and elements of arrays, and of `int2vector` and `oidvector`, whose first element has the
//! index 0.
//!
//! Functions that return rows of elements unnest an array that a function of this module returns.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int32Builder, ListArray, ListBuilder, StructArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::functions_nested::extract::array_element;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{
    ColumnarValue, ExprSchemable, GetFieldAccess, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    lit,
};

use crate::error::{Error, sqlstate};

/// The function that returns the indexes of an array, for `generate_subscripts`.
pub(crate) const SUBSCRIPTS: &str = "__subscripts";
/// The function that returns an array's elements with their numbers, for `_pg_expandarray`.
pub(crate) const EXPANDED: &str = "__expanded";

pub(super) fn functions() -> Vec<ScalarUDF> {
    [Kind::Lower, Kind::Upper, Kind::Subscripts, Kind::Expanded]
        .map(|kind| ScalarUDF::from(Bounds { kind, signature: Signature::user_defined(Volatility::Immutable) }))
        .into()
}

/// Plans `vector[0]` as the first element.
#[derive(Debug)]
pub(crate) struct Vectors;

impl ExprPlanner for Vectors {
    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let is_vector = raw.expr.get_type(schema).is_ok_and(|ty| matches!(ty, DataType::LargeList(_)));
        match raw.field_access {
            GetFieldAccess::ListIndex { key } if is_vector => {
                Ok(PlannerResult::Planned(array_element(raw.expr, *key + lit(1_i64))))
            }
            field_access => Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, expr: raw.expr })),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Lower,
    Upper,
    Subscripts,
    Expanded,
}

#[derive(Debug)]
struct Bounds {
    kind: Kind,
    signature: Signature,
}

impl PartialEq for Bounds {
    fn eq(&self, other: &Bounds) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Bounds {}

impl Hash for Bounds {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

impl ScalarUDFImpl for Bounds {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Lower => "array_lower",
            Kind::Upper => "array_upper",
            Kind::Subscripts => SUBSCRIPTS,
            Kind::Expanded => EXPANDED,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let count = match self.kind {
            Kind::Lower | Kind::Upper => 2..=2,
            Kind::Subscripts => 2..=3,
            Kind::Expanded => 1..=1,
        };
        let is_array = matches!(given.first(), Some(DataType::List(_) | DataType::LargeList(_) | DataType::Null));
        if !is_array || !count.contains(&given.len()) {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let name = match self.kind {
                Kind::Subscripts => "generate_subscripts",
                Kind::Expanded => "_pg_expandarray",
                _ => self.name(),
            };
            let message = format!("function {name}({}) does not exist", given.join(", "));
            return Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message).into());
        }
        let first = match &given[0] {
            DataType::Null => DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
            ty => ty.clone(),
        };
        let others = [DataType::Int64, DataType::Boolean];
        Ok(std::iter::once(first).chain(others.into_iter().take(given.len() - 1)).collect())
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Lower | Kind::Upper => DataType::Int32,
            Kind::Subscripts => DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
            Kind::Expanded => DataType::List(Arc::new(Field::new_list_field(DataType::Struct(numbered(given)?), true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays =
            args.args.iter().map(|argument| argument.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let first = i32::from(!matches!(arrays[0].data_type(), DataType::LargeList(_)));
        let lists = as_list(&arrays[0])?;
        let bounds: Vec<Option<(i32, i32)>> = match self.kind {
            Kind::Expanded => (0..lists.len()).map(|row| bounds(&lists, row, first, 1)).collect(),
            _ => {
                let dimensions = arrays[1].as_primitive::<Int64Type>();
                let of = |row: usize| {
                    dimensions.is_valid(row).then(|| bounds(&lists, row, first, dimensions.value(row))).flatten()
                };
                (0..lists.len()).map(of).collect()
            }
        };
        let result: ArrayRef = match self.kind {
            Kind::Lower => Arc::new(bounds.into_iter().map(|bounds| Some(bounds?.0)).collect::<Int32Array>()),
            Kind::Upper => Arc::new(bounds.into_iter().map(|bounds| Some(bounds?.1)).collect::<Int32Array>()),
            Kind::Subscripts => {
                let reversed = arrays.get(2).map(|array| array.as_boolean().clone());
                let mut lists = ListBuilder::new(Int32Builder::new());
                for (row, bounds) in bounds.into_iter().enumerate() {
                    let mut indexes: Vec<i32> =
                        bounds.map_or_else(Vec::new, |(lower, upper)| (lower..=upper).collect());
                    if reversed.as_ref().is_some_and(|reversed| reversed.is_valid(row) && reversed.value(row)) {
                        indexes.reverse();
                    }
                    lists.append_value(indexes.into_iter().map(Some));
                }
                Arc::new(lists.finish())
            }
            Kind::Expanded => Arc::new(expanded(&lists)?),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// The fields of an element with its number.
fn numbered(given: &[DataType]) -> Result<Fields> {
    let (Some(DataType::List(element)) | Some(DataType::LargeList(element))) = given.first() else {
        return Err(Error::internal("an array is expected").into());
    };
    let element = element.as_ref().clone().with_name("x");
    Ok(Fields::from(vec![element, Field::new("n", DataType::Int32, true)]))
}

fn as_list(array: &ArrayRef) -> Result<ListArray> {
    let list = match array.data_type() {
        DataType::LargeList(element) => cast(array, &DataType::List(Arc::clone(element)))?,
        _ => Arc::clone(array),
    };
    Ok(list.as_list::<i32>().clone())
}

/// The first and the last index of a dimension; `None` for an empty array.
fn bounds(lists: &ListArray, row: usize, first: i32, dimension: i64) -> Option<(i32, i32)> {
    if lists.is_null(row) || dimension < 1 {
        return None;
    }
    let inner = lists.value(row);
    if inner.is_empty() {
        return None;
    }
    if dimension > 1 {
        return bounds(inner.as_list_opt::<i32>()?, 0, first, dimension - 1);
    }
    Some((first, first + i32::try_from(inner.len()).ok()? - 1))
}

fn expanded(lists: &ListArray) -> Result<ListArray> {
    let mut numbers = Int32Builder::new();
    for row in 0..lists.len() {
        let length = if lists.is_null(row) { 0 } else { lists.value_length(row) };
        (1..=length).for_each(|number| numbers.append_value(number));
    }
    // A NULL array may have hidden elements, which belong to no row.
    let kept: Vec<ArrayRef> = (0..lists.len()).filter(|row| lists.is_valid(*row)).map(|row| lists.value(row)).collect();
    let elements = match kept.as_slice() {
        [] => lists.values().slice(0, 0),
        kept => {
            let kept: Vec<&dyn Array> = kept.iter().map(AsRef::as_ref).collect();
            datafusion::arrow::compute::concat(&kept)?
        }
    };
    let fields = numbered(&[lists.data_type().clone()])?;
    let values = StructArray::try_new(fields.clone(), vec![elements, Arc::new(numbers.finish())], None)?;
    let lengths = (0..lists.len()).map(|row| if lists.is_null(row) { 0 } else { lists.value(row).len() });
    let offsets = datafusion::arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let field = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
    Ok(ListArray::try_new(field, offsets, Arc::new(values), lists.nulls().cloned())?)
}
