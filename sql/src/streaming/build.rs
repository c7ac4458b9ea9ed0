//! Stored expressions → evaluators, which nodes call batch by batch.
//!
//! An evaluator means the same as the expression in a query: the rules that put Weir's own
//! functions in the place of operators run here, on a plan of this one expression.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast_with_options;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{BinaryExpr, EmptyRelation, Expr, ExprSchemable, LogicalPlan, Projection};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use weir_common::plan::{self, StreamColumn};
use weir_common::view::{self, Expression};

use super::expression::{load, type_of};
use super::{COERCION, LATER};
use crate::error::Error;
use crate::functions::{decimal_operation, round_to_even};

/// Builds a stored expression over rows of these columns.
///
/// # Errors
/// Internal, if this version does not have a function of it in its revision.
pub(crate) fn build(
    state: &SessionState,
    expr: &plan::Expr,
    columns: &[StreamColumn],
) -> Result<Box<dyn Expression>, Error> {
    // Names need not be unique in a stream.
    let names: Vec<String> = (0..columns.len()).map(|place| format!("c{place}")).collect();
    let fields: Vec<_> = columns.iter().zip(&names).map(|(column, name)| column.ty.field(name)).collect();
    let schema = Arc::new(Schema::new(fields));
    let input = DFSchema::try_from(Arc::clone(&schema))?;
    let names: Vec<Column> = names.into_iter().map(Column::new_unqualified).collect();
    let loaded = load(expr, &names, state)?;
    let physical = state.create_physical_expr(rewritten(state, loaded, &input)?, &input)?;
    Ok(Box::new(Built { schema, physical, ty: type_of(expr, columns).arrow() }))
}

/// Puts Weir's functions in the place of operators.
fn rewritten(state: &SessionState, expr: Expr, input: &DFSchema) -> Result<Expr, Error> {
    let expr = expr.transform_up(|part| Ok(of_numbers(part, input)))?.data;
    let empty = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(input.clone()) });
    let plan = LogicalPlan::Projection(Projection::try_new(vec![expr], Arc::new(empty))?);
    let is_needed = |name: &str| name == COERCION || LATER.contains(&name);
    let rules = state.analyzer().rules.iter().filter(|rule| is_needed(rule.name()));
    let analyzer = Analyzer::with_rules(rules.cloned().collect());
    let plan = analyzer.execute_and_check(plan, state.config_options(), |_, _| {})?;
    let rules: [Arc<dyn OptimizerRule + Send + Sync>; 1] = [Arc::new(SimplifyExpressions::new())];
    match Optimizer::with_rules(rules.into()).optimize(plan, state, |_, _| {})? {
        LogicalPlan::Projection(mut projection) if projection.expr.len() == 1 => {
            Ok(projection.expr.remove(0).unalias())
        }
        _ => Err(Error::internal("an expression has become a plan")),
    }
}

/// Restores the functions whose stored names are also those of other functions: which one is meant
/// depends on the types of the arguments.
fn of_numbers(expr: Expr, input: &DFSchema) -> Transformed<Expr> {
    let ty = |expr: &Expr| expr.get_type(input).unwrap_or(DataType::Null);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match decimal_operation(op, &ty(&left), &ty(&right)) {
            Some(operation) => Transformed::yes(operation.call(vec![*left, *right])),
            None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::ScalarFunction(mut call) if call.name() == "round" && call.args.len() == 1 => match call.args.pop() {
            Some(number) if ty(&number).is_floating() => Transformed::yes(round_to_even(number)),
            number => {
                call.args.extend(number);
                Transformed::no(Expr::ScalarFunction(call))
            }
        },
        expr => Transformed::no(expr),
    }
}

/// An expression that can be evaluated.
#[derive(Debug)]
struct Built {
    /// The columns of its rows, under names of their own. Some functions look up whether a column
    /// is jsonb, which the schema of a batch need not tell.
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
    /// The type of its values.
    ty: DataType,
}

impl Built {
    fn run(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = rows.columns().to_vec();
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let values = self.physical.evaluate(&rows)?.into_array(rows.num_rows())?;
        Ok(if *values.data_type() == self.ty {
            values
        } else {
            cast_with_options(&values, &self.ty, &DEFAULT_CAST_OPTIONS)?
        })
    }
}

impl Expression for Built {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, view::Error> {
        // The message is the one that a query would get, in PostgreSQL's words.
        self.run(rows).map_err(|error| Error::from(error).into())
    }
}
