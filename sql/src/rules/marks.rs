//! Values of `regclass` and similar types, when they are cast to text or sent to the client.
//!
//! In a plan they are oids with a mark. [`Printed`] replaces a cast to text by the function that
//! prints the type. [`Sent`] sends each oid with its name, because a client may ask for either.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use postgres_types::Type;

use super::subqueries::recomputed;
use crate::error::Error;
use crate::types::oids::printed_by;
use crate::types::{array_of, arrow_type, mark_of, marked};

/// The functions that print values, by their names.
type Printers = Arc<HashMap<String, Arc<ScalarUDF>>>;

/// Collects functions by their names.
pub(crate) fn printers(functions: &[ScalarUDF]) -> Printers {
    Arc::new(functions.iter().map(|function| (function.name().to_owned(), Arc::new(function.clone()))).collect())
}

fn print(printers: &Printers, ty: &Type, operand: Expr) -> Option<Expr> {
    let function = printers.get(printed_by(ty)?)?;
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), vec![operand])))
}

/// Replaces casts of oids to text by their names, and removes the marks of other texts.
#[derive(Debug)]
pub(crate) struct Printed(pub(crate) Printers);

impl FunctionRewrite for Printed {
    fn name(&self) -> &str {
        "printed"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::Cast(Cast { expr: operand, field }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let mark = match operand.to_field(schema) {
            Ok((_, operand)) if field.data_type().is_string() => mark_of(&operand),
            _ => None,
        };
        let Some(mark) = mark else { return Ok(Transformed::no(Expr::Cast(Cast { expr: operand, field }))) };
        if let Some(printed) = print(&self.0, &mark, operand.as_ref().clone()) {
            return Ok(Transformed::yes(printed));
        }
        if arrow_type(&mark) != *field.data_type() {
            return Ok(Transformed::no(Expr::Cast(Cast { expr: operand, field })));
        }
        let unmarked = Unmarked { signature: Signature::any(1, Volatility::Immutable) };
        let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(unmarked)), vec![*operand]);
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }
}

/// Turns a text of another type into one of type text. DataFusion's cast would keep the mark.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Unmarked {
    signature: Signature,
}

impl ScalarUDFImpl for Unmarked {
    fn name(&self) -> &str {
        "text"
    }

    /// Named like a cast in DataFusion: by its operand.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map_or_else(String::new, |operand| operand.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(given.first().cloned().unwrap_or(DataType::Utf8))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| Error::internal("a cast has no operand").into())
    }
}

/// Keeps the types of values that aggregates choose or collect, because DataFusion forgets the
/// marks of their arguments.
#[derive(Debug)]
pub(crate) struct Aggregated;

impl AnalyzerRule for Aggregated {
    fn name(&self) -> &str {
        "aggregated"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let changed = plan.transform_up_with_subqueries(aggregated)?;
        if !changed.transformed {
            return Ok(changed.data);
        }
        // The operators above see the marks only after this.
        recomputed(changed.data)
    }
}

fn aggregated(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let kept: Vec<Option<Type>> = aggregate.aggr_expr.iter().map(|call| kept(call, aggregate.input.schema())).collect();
    if kept.iter().all(Option::is_none) {
        return Ok(Transformed::no(plan));
    }
    let exprs = aggregate.schema.iter().enumerate().map(|(place, (qualifier, field))| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match place.checked_sub(groups).and_then(|place| kept.get(place)) {
            Some(Some(ty)) if arrow_type(ty) == *field.data_type() => {
                let kept = Marked { ty: ty.clone(), signature: Signature::any(1, Volatility::Immutable) };
                let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(kept)), vec![column]);
                Expr::ScalarFunction(call).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => column,
        }
    });
    let exprs: Vec<Expr> = exprs.collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(exprs)?.build()?))
}

/// The type of an aggregate's result, if a marked argument determines it.
fn kept(call: &Expr, input: &DFSchema) -> Option<Type> {
    let Expr::AggregateFunction(call) = call.clone().unalias() else { return None };
    let (_, field) = call.params.args.first()?.to_field(input).ok()?;
    let ty = mark_of(&field)?;
    match call.func.name() {
        "array_agg" => array_of(&ty),
        "min" | "max" | "first_value" | "last_value" | "any_value" => Some(ty),
        _ => None,
    }
}

/// Marks a value with a type that has the same Arrow type.
#[derive(Debug)]
struct Marked {
    ty: Type,
    signature: Signature,
}

impl PartialEq for Marked {
    fn eq(&self, other: &Marked) -> bool {
        self.ty == other.ty
    }
}

impl Eq for Marked {}

impl Hash for Marked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ty.oid().hash(state);
    }
}

impl ScalarUDFImpl for Marked {
    fn name(&self) -> &str {
        "marked"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(given.first().cloned().unwrap_or(DataType::Utf8))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = args.arg_fields.first().ok_or_else(|| Error::internal("an aggregate has no result"))?;
        Ok(Arc::new(marked(Field::new(self.name(), field.data_type().clone(), true), &self.ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| Error::internal("an aggregate has no result").into())
    }
}

/// Adds the names of marked oids to the result of a query.
#[derive(Debug)]
pub(crate) struct Sent(pub(crate) Printers);

impl AnalyzerRule for Sent {
    fn name(&self) -> &str {
        "sent"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let printed = |field: &Field| mark_of(field).filter(|ty| printed_by(ty).is_some());
        let is_sent = |field: &FieldRef| *field.data_type() == DataType::UInt32 && printed(field).is_some();
        if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
            || !plan.schema().fields().iter().any(is_sent)
        {
            return Ok(plan);
        }
        let columns: Vec<Expr> = plan
            .schema()
            .iter()
            .map(|(qualifier, field)| {
                let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
                let Some(ty) = printed(field).filter(|_| is_sent(field)) else { return column };
                let Some(name) = print(&self.0, &ty, column.clone()) else { return column };
                let sent = WithName { ty, signature: Signature::any(2, Volatility::Immutable) };
                let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(sent)), vec![column, name]);
                Expr::ScalarFunction(call).alias_qualified(qualifier.cloned(), field.name())
            })
            .collect();
        LogicalPlanBuilder::from(plan).project(columns)?.build()
    }
}

/// Pairs an oid with its name, as a value of the oid's type.
#[derive(Debug)]
struct WithName {
    ty: Type,
    signature: Signature,
}

impl PartialEq for WithName {
    fn eq(&self, other: &WithName) -> bool {
        self.ty == other.ty
    }
}

impl Eq for WithName {}

impl Hash for WithName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ty.oid().hash(state);
    }
}

/// The fields that [`WithName`] returns and the encoder sends.
fn fields() -> Fields {
    Fields::from(vec![Field::new("oid", DataType::UInt32, true), Field::new("name", DataType::Utf8, true)])
}

impl ScalarUDFImpl for WithName {
    fn name(&self) -> &str {
        "with_name"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(marked(Field::new(self.name(), DataType::Struct(fields()), true), &self.ty)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays =
            args.args.iter().map(|argument| argument.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let nulls = arrays[0].nulls().cloned();
        let sent: ArrayRef = Arc::new(StructArray::try_new(fields(), arrays, nulls)?);
        Ok(ColumnarValue::Array(sent))
    }
}
