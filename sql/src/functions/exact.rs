//! Aggregates that queries have in common with materialized views, with the engine's accumulators:
//! sums of floating-point numbers, variances and standard deviations. Their results do not depend
//! on the order of rows.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::{concat, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::utils::take_function_args;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_common::key::Keys;
use weir_common::types::SqlType;
use weir_stream::pipeline::Failure;
use weir_stream::pipeline::batch::Batch;

use crate::error::{Error, sqlstate};

/// The aggregates that statements name.
pub(crate) fn exact() -> Vec<AggregateUDF> {
    let moments: [(&'static str, &[&str]); 4] = [
        ("var_pop", &["var_population"]),
        ("var_samp", &["variance", "var", "var_sample"]),
        ("stddev_pop", &[]),
        ("stddev_samp", &["stddev"]),
    ];
    moments.map(|(name, aliases)| AggregateUDF::from(Exact::new(name, aliases))).into()
}

/// The sum of floating-point numbers.
pub(crate) fn exact_sum() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Exact::new("sum", &[])))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl Exact {
    fn new(name: &'static str, aliases: &[&str]) -> Exact {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Exact { name, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn batch(&self, result: &DataType) -> Result<Batch> {
        let batch = Batch::new(self.name, &sql_type(result));
        Ok(batch.map_err(|error| Error::internal(error.to_string()))?)
    }
}

fn sql_type(result: &DataType) -> SqlType {
    match result {
        DataType::Float64 => SqlType::Double,
        _ => SqlType::Numeric,
    }
}

fn failed(failure: Failure) -> DataFusionError {
    match failure {
        Failure::Value(error) => Error::user(sqlstate::NUMERIC_VALUE_OUT_OF_RANGE, error.message).into(),
        Failure::Broken(message) => Error::internal(message).into(),
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let [ty] = take_function_args(self.name, given)?;
        let is_exact = ty.is_integer() || matches!(ty, DataType::Decimal128(..) | DataType::Decimal256(..));
        if !(is_exact || ty.is_floating() || ty.is_null() || ty.is_string()) {
            let message = format!("function {}({ty}) does not exist", self.name);
            return Err(Error::user(sqlstate::UNDEFINED_FUNCTION, message).into());
        }
        Ok(vec![if is_exact { ty.clone() } else { DataType::Float64 }])
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let [ty] = take_function_args(self.name, given)?;
        let is_exact = ty.is_integer() || ty.is_decimal();
        Ok(if is_exact { SqlType::Numeric.arrow() } else { DataType::Float64 })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mut batch = self.batch(args.return_field.data_type())?;
        batch.resize(1);
        let field = args.expr_fields.first().ok_or_else(|| Error::internal("an aggregate has no argument"))?;
        if args.is_distinct {
            return Ok(Box::new(Distinct {
                batch,
                field: Arc::clone(field),
                seen: HashSet::new(),
                values: Vec::new(),
            }));
        }
        Ok(Box::new(One { batch }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |number: usize, ty: DataType| Arc::new(Field::new(format!("{}[{number}]", args.name), ty, true));
        if args.is_distinct {
            let argument = args.input_fields.first().ok_or_else(|| Error::internal("an aggregate has no argument"))?;
            return Ok(vec![field(0, list_of(argument))]);
        }
        let kept = Batch::kept(self.name, &sql_type(args.return_field.data_type()));
        Ok(kept.into_iter().enumerate().map(|(number, ty)| field(number, ty.arrow())).collect())
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let ty = args.return_field.data_type();
        Ok(Box::new(Many { function: Exact::new(self.name, &[]), result: ty.clone(), batch: self.batch(ty)? }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The rows that count.
fn counted(values: &ArrayRef, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let filter = filter.map(|filter| match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    });
    let nulls = values.nulls().map(|nulls: &NullBuffer| nulls.inner().clone());
    filter.into_iter().chain(nulls).reduce(|one, other| &one & &other)
}

fn first(values: &[ArrayRef]) -> Result<&ArrayRef> {
    Ok(values.first().ok_or_else(|| Error::internal("an aggregate has no argument"))?)
}

/// One group.
#[derive(Debug)]
struct One {
    batch: Batch,
}

impl One {
    fn update(&mut self, values: &[ArrayRef], takes_out: bool) -> Result<()> {
        let values = first(values)?;
        let groups = vec![0; values.len()];
        self.batch.update(&groups, values, counted(values, None).as_ref(), takes_out).map_err(failed)
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.update(values, false)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.update(values, true)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; first(states)?.len()];
        self.batch.merge(&groups, states).map_err(failed)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let taken = self.batch.take(1);
        self.batch.resize(1);
        taken.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.batch.results(1).map_err(failed)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.batch.bytes()
    }
}

fn list_of(field: &FieldRef) -> DataType {
    DataType::List(Arc::new(field.as_ref().clone().with_name("item").with_nullable(true)))
}

/// One group, of which equal values count once.
#[derive(Debug)]
struct Distinct {
    batch: Batch,
    field: FieldRef,
    /// The keys of the values.
    seen: HashSet<Vec<u8>>,
    values: Vec<ArrayRef>,
}

impl Accumulator for Distinct {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = first(values)?;
        let schema = Arc::new(Schema::new(vec![self.field.as_ref().clone().with_nullable(true)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::clone(values)])?;
        let keys = Keys::new(&rows, &[0]);
        let mut is_new = |row: &u32| {
            let mut key = Vec::new();
            keys.write(*row as usize, &mut key);
            self.seen.insert(key)
        };
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let new: Vec<u32> = (0..count).filter(|row| values.is_valid(*row as usize)).filter(&mut is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let new = take(values, &datafusion::arrow::array::UInt32Array::from(new), None)?;
        self.batch.update(&vec![0; new.len()], &new, None, false).map_err(failed)?;
        self.values.push(new);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = first(states)?.as_list::<i32>();
        (0..lists.len()).try_for_each(|row| self.update_batch(&[lists.value(row)]))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let DataType::List(element) = list_of(&self.field) else { return Err(Error::internal("not a list").into()) };
        let none = datafusion::arrow::array::new_empty_array(element.data_type());
        let values: Vec<&dyn Array> = self.values.iter().chain([&none]).map(AsRef::as_ref).collect();
        let values = concat(&values)?;
        let list = ListArray::try_new(element, OffsetBuffer::from_lengths([values.len()]), values, None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.batch.results(1).map_err(failed)?, 0)
    }

    fn size(&self) -> usize {
        let keys: usize = self.seen.iter().map(Vec::capacity).sum();
        let values: usize = self.values.iter().map(|values| values.get_array_memory_size()).sum();
        size_of_val(self) + self.batch.bytes() + keys + values
    }
}

/// Many groups.
#[derive(Debug)]
struct Many {
    function: Exact,
    result: DataType,
    batch: Batch,
}

impl Many {
    fn groups(&mut self, groups: &[usize], total: usize) -> Result<Vec<u32>> {
        self.batch.resize(total.max(self.batch.groups()));
        let number = |group: &usize| u32::try_from(*group).map_err(|_| Error::internal("too many groups").into());
        groups.iter().map(number).collect()
    }

    fn emitted(&self, emit_to: EmitTo) -> usize {
        match emit_to {
            EmitTo::All => self.batch.groups(),
            EmitTo::First(groups) => groups,
        }
    }
}

impl GroupsAccumulator for Many {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let (groups, values) = (self.groups(groups, total)?, first(values)?);
        self.batch.update(&groups, values, counted(values, filter).as_ref(), false).map_err(failed)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let groups = self.groups(groups, total)?;
        self.batch.merge(&groups, states).map_err(failed)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.emitted(emit_to);
        let results = self.batch.results(groups).map_err(failed)?;
        self.batch.forget(groups);
        Ok(results)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.emitted(emit_to);
        Ok(self.batch.take(groups))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = first(values)?;
        let mut many = Many {
            function: Exact::new(self.function.name, &[]),
            result: self.result.clone(),
            batch: self.function.batch(&self.result)?,
        };
        let rows: Vec<usize> = (0..values.len()).collect();
        many.update_batch(&[Arc::clone(values)], &rows, filter, values.len())?;
        Ok(many.batch.take(values.len()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.batch.bytes()
    }
}
