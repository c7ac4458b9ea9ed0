//! `x = ANY (array)`, `x < ALL (array)` and the like, in PostgreSQL's three-valued logic: NULL if a
//! NULL element could have decided.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, BooleanBuilder, Datum, ListArray, Scalar, UInt32Array};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::{and_kleene, or_kleene, take};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::BinaryOperator;

use super::comparable::values;
use crate::error::{Error, sqlstate};

/// The functions, under the names that [`function_of`] returns.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let all = COMPARISONS.iter().flat_map(|(any, all, _, comparison)| {
        [(*any, Quantifier::Any), (*all, Quantifier::All)].map(|(name, quantifier)| {
            let signature = Signature::user_defined(Volatility::Immutable);
            ScalarUDF::from(Quantified { name, quantifier, comparison: *comparison, signature })
        })
    });
    all.collect()
}

/// The name of the function for `x op ANY (array)` or ALL. Its operands are `x` and the array.
pub(crate) fn function_of(op: &BinaryOperator, any: bool) -> Option<&'static str> {
    COMPARISONS
        .iter()
        .find(|(_, _, known, _)| known == op)
        .map(|(any_name, all_name, ..)| if any { *any_name } else { *all_name })
}

const COMPARISONS: [(&str, &str, BinaryOperator, Comparison); 6] = [
    ("any_eq", "all_eq", BinaryOperator::Eq, Comparison::Eq),
    ("any_ne", "all_ne", BinaryOperator::NotEq, Comparison::NotEq),
    ("any_lt", "all_lt", BinaryOperator::Lt, Comparison::Lt),
    ("any_le", "all_le", BinaryOperator::LtEq, Comparison::LtEq),
    ("any_gt", "all_gt", BinaryOperator::Gt, Comparison::Gt),
    ("any_ge", "all_ge", BinaryOperator::GtEq, Comparison::GtEq),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Quantifier {
    Any,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

impl Comparison {
    fn apply(self, left: &dyn Datum, right: &dyn Datum) -> Result<BooleanArray> {
        let compare = match self {
            Comparison::Eq => cmp::eq,
            Comparison::NotEq => cmp::neq,
            Comparison::Lt => cmp::lt,
            Comparison::LtEq => cmp::lt_eq,
            Comparison::Gt => cmp::gt,
            Comparison::GtEq => cmp::gt_eq,
        };
        Ok(compare(left, right)?)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    name: &'static str,
    quantifier: Quantifier,
    comparison: Comparison,
    signature: Signature,
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let list = |element: &DataType| DataType::List(Arc::new(Field::new_list_field(element.clone(), true)));
        let refused = || {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let message = format!("operator does not exist: {}", given.join(" and an element of "));
            Error::user(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("op ANY/ALL (array) requires an array on the right")
        };
        let [value, array] = given else { return Err(refused().into()) };
        Ok(match array {
            // A literal array, or NULL, has elements of the value's type.
            array if array.is_string() || array.is_null() => vec![value.clone(), list(value)],
            DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
                let types = [value, element.data_type()];
                let common = if value == element.data_type() {
                    value.clone()
                } else if types.iter().any(|ty| ty.is_floating()) && types.iter().any(|ty| ty.is_decimal()) {
                    // A numeric beside a floating-point number becomes one.
                    DataType::Float64
                } else {
                    comparison_coercion(value, element.data_type()).ok_or_else(refused)?
                };
                vec![common.clone(), list(&common)]
            }
            _ => return Err(refused().into()),
        })
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, array] = args.args.as_slice() else {
            return Err(Error::internal("ANY has two operands").into());
        };
        let field = args.arg_fields.first().ok_or_else(|| Error::internal("ANY has two operands"))?;
        if let ColumnarValue::Scalar(ScalarValue::List(list)) = array {
            return self.against_one(value, list, field, args.number_rows);
        }
        let (value, lists) = (value.to_array(args.number_rows)?, array.to_array(args.number_rows)?);
        let lists = lists.as_list::<i32>();
        // Pairs each element of each row's array with the row's value.
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
            let bounds = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
            for place in bounds.0..bounds.1 {
                rows.push(u32::try_from(row).map_err(|_| Error::internal("a batch has so many rows"))?);
                places.push(place.unsigned_abs());
            }
        }
        let values_of_rows = take(&values(&value, field), &UInt32Array::from(rows), None)?;
        let elements = take(&values(lists.values(), field), &UInt32Array::from(places), None)?;
        let compared = self.comparison.apply(&values_of_rows, &elements)?;
        let mut result = BooleanBuilder::with_capacity(lists.len());
        let mut next = 0;
        for row in 0..lists.len() {
            if lists.is_null(row) {
                result.append_null();
                continue;
            }
            let length = usize::try_from(lists.value_length(row)).unwrap_or_default();
            result.append_option(
                self.fold((next..next + length).map(|at| compared.is_valid(at).then(|| compared.value(at)))),
            );
            next += length;
        }
        Ok(ColumnarValue::Array(Arc::new(result.finish())))
    }
}

impl Quantified {
    /// Compares all rows with a constant array, element by element. Drivers send arrays of
    /// thousands of elements, which must not be copied for each row.
    fn against_one(
        &self,
        value: &ColumnarValue,
        list: &ListArray,
        field: &Field,
        rows: usize,
    ) -> Result<ColumnarValue> {
        let is_scalar = matches!(value, ColumnarValue::Scalar(_));
        let rows = if is_scalar { 1 } else { rows };
        let compared = values(&value.to_array(rows)?, field);
        let any = self.quantifier == Quantifier::Any;
        let mut result = match list.is_valid(0) {
            true => BooleanArray::from(vec![!any; rows]),
            false => BooleanArray::new_null(rows),
        };
        let elements = if list.is_valid(0) { values(&list.value(0), field) } else { list.values().slice(0, 0) };
        for place in 0..elements.len() {
            let outcome = self.comparison.apply(&compared, &Scalar::new(elements.slice(place, 1)))?;
            result = if any { or_kleene(&result, &outcome)? } else { and_kleene(&result, &outcome)? };
        }
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(Arc::new(result))),
        }
    }

    fn fold(&self, outcomes: impl Iterator<Item = Option<bool>>) -> Option<bool> {
        let decisive = self.quantifier == Quantifier::Any;
        let mut unknown = false;
        for outcome in outcomes {
            match outcome {
                Some(outcome) if outcome == decisive => return Some(decisive),
                Some(_) => {}
                None => unknown = true,
            }
        }
        if unknown { None } else { Some(!decisive) }
    }
}
