//! `@>`, `<@` and `&&` of arrays, and the array of a sub-query.
//!
//! DataFusion's functions match a NULL with a NULL in an array; PostgreSQL's operators do not. A
//! literal or a parameter beside an array is an array of the same type.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, GenericListArray, ListArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use sqlparser::ast::BinaryOperator;

/// The function that replaces a NULL array by an empty one.
pub(crate) const ARRAY_OR_EMPTY: &str = "__array_or_empty";

pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::from(OrEmpty { signature: Signature::any(1, Volatility::Immutable) })]
}

/// The functions behind the operators, which no client can call by name.
pub(super) fn of_operators() -> Vec<ScalarUDF> {
    [Operator::Contains, Operator::Overlaps].map(|operator| ScalarUDF::from(operator.function())).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrEmpty {
    signature: Signature,
}

impl ScalarUDFImpl for OrEmpty {
    fn name(&self) -> &str {
        ARRAY_OR_EMPTY
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let [ty] = take_function_args(self.name(), given)?;
        Ok(ty.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [lists] = take_function_args(self.name(), args.args)?;
        let lists = lists.into_array(args.number_rows)?;
        let Some(list) = lists.as_list_opt::<i32>() else { return plan_err!("{} takes an array", self.name()) };
        let DataType::List(field) = list.data_type() else { return Ok(ColumnarValue::Array(lists)) };
        // A NULL array may have hidden elements, which would otherwise appear.
        let lengths = (0..list.len()).map(|row| if list.is_null(row) { 0 } else { list.value(row).len() });
        let offsets = OffsetBuffer::from_lengths(lengths);
        let kept: Vec<ArrayRef> =
            (0..list.len()).filter(|row| list.is_valid(*row)).map(|row| list.value(row)).collect();
        let kept: Vec<&dyn Array> = kept.iter().map(AsRef::as_ref).collect();
        let values = if kept.is_empty() { list.values().slice(0, 0) } else { concat(&kept)? };
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, None)?)))
    }
}

/// Plans the operators as calls of functions.
#[derive(Debug)]
pub(crate) struct ArrayOperators;

impl ExprPlanner for ArrayOperators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match raw.op {
            BinaryOperator::AtArrow | BinaryOperator::ArrowAt => Operator::Contains,
            BinaryOperator::PGOverlap => Operator::Overlaps,
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let types = [&raw.left, &raw.right].map(|operand| operand.get_type(schema).unwrap_or(DataType::Null));
        let RawBinaryExpr { op, mut left, mut right } = raw;
        match types.each_ref().map(is_supported) {
            [true, true] => {}
            [true, false] if is_untyped(&right) => right = typed(right, &types[0]),
            [false, true] if is_untyped(&left) => left = typed(left, &types[1]),
            [true, false] if types[1].is_string() => right = Expr::Cast(Cast::new(Box::new(right), types[0].clone())),
            [false, true] if types[0].is_string() => left = Expr::Cast(Cast::new(Box::new(left), types[1].clone())),
            _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        }
        let operands = if op == BinaryOperator::ArrowAt { vec![right, left] } else { vec![left, right] };
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(operator.function())), operands);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// True for a parameter whose type is still open.
fn is_untyped(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

fn typed(parameter: Expr, ty: &DataType) -> Expr {
    match parameter {
        Expr::Placeholder(Placeholder { id, .. }) => {
            Expr::Placeholder(Placeholder { field: Some(Arc::new(Field::new(&id, ty.clone(), true))), id })
        }
        other => other,
    }
}

/// True for arrays of one dimension whose elements are equal exactly if their bytes are.
fn is_supported(ty: &DataType) -> bool {
    match ty {
        DataType::List(element) => {
            let element = element.data_type();
            element.is_string()
                || (element.is_numeric() && !element.is_null())
                || matches!(element, DataType::Boolean | DataType::Binary)
                || (element.is_temporal() && !matches!(element, DataType::Interval(_)))
        }
        _ => false,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    /// `@>`
    Contains,
    /// `&&`
    Overlaps,
}

impl Operator {
    fn function(self) -> ArrayOperator {
        ArrayOperator { operator: self, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayOperator {
    operator: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for ArrayOperator {
    /// PostgreSQL's name of the function behind the operator.
    fn name(&self) -> &str {
        match self.operator {
            Operator::Contains => "arraycontains",
            Operator::Overlaps => "arrayoverlap",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Coerces both to arrays of one type. A literal's element type is known only after it was
    /// planned.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [whole, part] = take_function_args(self.name(), types)?;
        match comparison_coercion(whole, part) {
            Some(array) => Ok(vec![array.clone(), array]),
            None => plan_err!("{} of {whole} and {part}", self.name()),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [whole, part] = take_function_args(self.name(), args.args)?;
        let (whole, part) = (whole.into_array(args.number_rows)?, part.into_array(args.number_rows)?);
        let (Some(whole), Some(part)) = (whole.as_list_opt::<i32>(), part.as_list_opt::<i32>()) else {
            return plan_err!("{} takes two arrays", self.name());
        };
        let converter = RowConverter::new(vec![SortField::new(whole.value_type())])?;
        let (wholes, parts) = (Elements::of(&converter, whole)?, Elements::of(&converter, part)?);
        let answers = (0..args.number_rows).map(|row| {
            if whole.is_null(row) || part.is_null(row) {
                return None;
            }
            let has =
                |place| parts.is_valid(place) && wholes.places(row).any(|other| wholes.equal(other, &parts, place));
            Some(match self.operator {
                Operator::Contains => parts.places(row).all(has),
                Operator::Overlaps => parts.places(row).any(has),
            })
        });
        Ok(ColumnarValue::Array(Arc::new(answers.collect::<BooleanArray>())))
    }
}

/// The elements of many arrays, in comparable form.
struct Elements<'a> {
    arrays: &'a GenericListArray<i32>,
    rows: Rows,
}

impl<'a> Elements<'a> {
    fn of(converter: &RowConverter, arrays: &'a GenericListArray<i32>) -> Result<Elements<'a>> {
        Ok(Elements { arrays, rows: converter.convert_columns(&[one_zero(arrays.values())])? })
    }

    /// The positions of one array's elements.
    fn places(&self, row: usize) -> impl Iterator<Item = usize> + use<> {
        let offsets = self.arrays.value_offsets();
        (offsets[row]..offsets[row + 1]).filter_map(|place| usize::try_from(place).ok())
    }

    fn is_valid(&self, place: usize) -> bool {
        self.arrays.values().is_valid(place)
    }

    fn equal(&self, place: usize, others: &Elements<'_>, other: usize) -> bool {
        self.rows.row(place) == others.rows.row(other)
    }
}

/// Replaces −0 by 0.
fn one_zero(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => {
            let one: Float64Array = values.as_primitive::<Float64Type>().unary(|value| value + 0.0);
            Arc::new(one)
        }
        DataType::Float32 => {
            let one: Float32Array = values.as_primitive::<Float32Type>().unary(|value| value + 0.0);
            Arc::new(one)
        }
        _ => Arc::clone(values),
    }
}
