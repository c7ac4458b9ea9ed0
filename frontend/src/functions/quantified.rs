//! `x = ANY (array)`, `x < ALL (array)` and the like, with PostgreSQL's logic of three values: NULL if an element that is
//! NULL could have decided.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, UInt32Array};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use sqlparser::ast::BinaryOperator;

use super::comparable::values;
use crate::error::{Error, sqlstate};

/// The functions, by the names that [`function_of`] gives.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let all = COMPARISONS.iter().flat_map(|(any, all, _, comparison)| {
        [(*any, Quantifier::Any), (*all, Quantifier::All)].map(|(name, quantifier)| {
            let signature = Signature::user_defined(Volatility::Immutable);
            ScalarUDF::from(Quantified { name, quantifier, comparison: *comparison, signature })
        })
    });
    all.collect()
}

/// The name of the function of `x op ANY (array)`, or of ALL, whose operands are `x` and the array.
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
    fn apply(self, left: &ArrayRef, right: &ArrayRef) -> Result<BooleanArray> {
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
        let list =
            |element: &DataType| DataType::List(std::sync::Arc::new(Field::new_list_field(element.clone(), true)));
        let refused = || {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let message = format!("operator does not exist: {}", given.join(" and an element of "));
            Error::user(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("op ANY/ALL (array) requires an array on the right")
        };
        let [value, array] = given else { return Err(refused().into()) };
        Ok(match array {
            // A literal of an array, or NULL: of what it is compared with.
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
        let (value, lists) = (value.to_array(args.number_rows)?, array.to_array(args.number_rows)?);
        let lists = lists.as_list::<i32>();
        // Row by row its elements, each beside the value that it is compared with.
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
        Ok(ColumnarValue::Array(std::sync::Arc::new(result.finish())))
    }
}

impl Quantified {
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
