//! `min`, `max`, `greatest` and `least` of values that DataFusion would compare by their bits. The
//! result is one of the values, unchanged; the comparison uses the comparable form
//! ([`super::comparable`]).

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, make_comparator};
use datafusion::arrow::compute::{SortOptions, interleave};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::comparable::values;
use crate::error::Error;
use crate::types::is_jsonb;

/// NULL sorts above everything.
const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The aggregate that replaces `min` or `max`; `None` for other names.
pub(crate) fn extreme_aggregate(name: &str) -> Option<Arc<AggregateUDF>> {
    let wanted = match name {
        "min" => Ordering::Less,
        "max" => Ordering::Greater,
        _ => return None,
    };
    Some(Arc::new(AggregateUDF::from(Extreme { wanted, signature: Signature::any(1, Volatility::Immutable) })))
}

/// The function that replaces `greatest` or `least`; `None` for other names.
pub(crate) fn extreme_function(name: &str) -> Option<Arc<ScalarUDF>> {
    let wanted = match name {
        "least" => Ordering::Less,
        "greatest" => Ordering::Greater,
        _ => return None,
    };
    Some(Arc::new(ScalarUDF::from(Choice { wanted, signature: Signature::variadic_any(Volatility::Immutable) })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    wanted: Ordering,
    signature: Signature,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        if self.wanted.is_lt() { "min" } else { "max" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("an aggregate has no argument").into())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let field = args.expr_fields.first().ok_or_else(|| Error::internal("an aggregate has no argument"))?;
        Ok(Box::new(Best { wanted: self.wanted, field: Arc::clone(field), best: None }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(args.name, args.return_field.data_type().clone(), true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The least or the greatest value so far.
#[derive(Debug)]
struct Best {
    wanted: Ordering,
    field: FieldRef,
    /// An array with the one value.
    best: Option<ArrayRef>,
}

impl Accumulator for Best {
    fn update_batch(&mut self, arrays: &[ArrayRef]) -> Result<()> {
        let array = arrays.first().ok_or_else(|| Error::internal("an aggregate has no argument"))?;
        let keys = values(array, &self.field);
        let compare = make_comparator(&keys, &keys, ASCENDING)?;
        let mut best = None;
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            // The last of equal values wins, as in PostgreSQL.
            if best.is_none_or(|best| compare(row, best) != self.wanted.reverse()) {
                best = Some(row);
            }
        }
        let Some(row) = best else { return Ok(()) };
        let is_better = match &self.best {
            Some(before) => {
                make_comparator(&keys, &values(before, &self.field), ASCENDING)?(row, 0) != self.wanted.reverse()
            }
            None => true,
        };
        if is_better {
            // A copy, so that the batch can be freed.
            self.best = Some(interleave(&[array.as_ref()], &[(0, row)])?);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match &self.best {
            Some(best) => ScalarValue::try_from_array(best, 0),
            None => ScalarValue::try_from(self.field.data_type()),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.best.as_ref().map_or(0, |best| best.get_array_memory_size())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Choice {
    wanted: Ordering,
    signature: Signature,
}

impl ScalarUDFImpl for Choice {
    fn name(&self) -> &str {
        if self.wanted.is_lt() { "least" } else { "greatest" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("a choice has no arguments").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = args.arg_fields.iter().find(|field| is_jsonb(field)).or(args.arg_fields.first());
        let field = field.ok_or_else(|| Error::internal("a choice has no arguments"))?;
        Ok(Arc::new(field.as_ref().clone().with_name(self.name()).with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays =
            args.args.iter().map(|argument| argument.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let field = &args.return_field;
        let keys: Vec<ArrayRef> = arrays.iter().map(|array| values(array, field)).collect();
        let against = |key: &ArrayRef| keys.iter().map(|other| make_comparator(key, other, ASCENDING)).collect();
        let compare: Vec<Vec<_>> = keys.iter().map(against).collect::<Result<_, _>>()?;
        let chosen = (0..args.number_rows).map(|row| {
            let valid = (0..arrays.len()).filter(|index| arrays[*index].is_valid(row));
            let best =
                valid.reduce(|best, index| if compare[index][best](row, row) == self.wanted { index } else { best });
            (best.unwrap_or(0), row)
        });
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(interleave(&arrays, &chosen.collect::<Vec<_>>())?))
    }
}
