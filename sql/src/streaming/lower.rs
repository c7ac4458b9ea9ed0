//! A typed logical plan → fragments.
//!
//! Each node of the plan becomes operators at the end of a fragment that is still open, or closes
//! it with a shuffle and opens another. An [`Open`] fragment knows the columns that have come so
//! far: the node's own first, hidden ones behind; the stream key among them; and by which of them
//! its rows are divided over slots. `group` does this for aggregates and DISTINCT.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Projection, TableScan, Unnest};
use weir_common::catalog::{Relation, RelationKind};
use weir_common::plan::{
    self, Dispatch, Distribution, Edge, Fragment, JobPlan, Operator, StateTable, Stream, StreamColumn,
};
use weir_common::types::SqlType;

use super::build::build;
use super::expression::{kept_type, store};
use super::refused;
use crate::error::{Error, sqlstate};
use crate::relation::NamedRelation;

mod group;

/// Cuts a plan into fragments.
///
/// # Errors
/// `0A000` for a plan that cannot be kept up to date.
pub(super) fn lower(state: &SessionState, plan: &LogicalPlan) -> Result<JobPlan, Error> {
    let mut lowering = Lowering { state, plan: JobPlan::default() };
    let open = lowering.node(plan)?;
    lowering.materialize(open, plan.schema().fields().len());
    Ok(lowering.plan)
}

struct Lowering<'a> {
    state: &'a SessionState,
    plan: JobPlan,
}

/// A fragment whose operators are not complete.
struct Open {
    fragment: Fragment,
    /// Edges into it: the fragment that sends, and how.
    inputs: Vec<(u16, Dispatch)>,
    divided: Divided,
}

/// How rows of a fragment are divided over its actors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Divided {
    /// By where they come from.
    ByOrigin,
    /// By the hash of these columns.
    By(Vec<usize>),
    /// Not at all.
    Single,
}

impl Open {
    fn new(distribution: Distribution, divided: Divided, operator: Operator, output: Stream) -> Open {
        let fragment = Fragment { distribution, operators: vec![operator], output };
        Open { fragment, inputs: Vec::new(), divided }
    }

    fn push(&mut self, operator: Operator) {
        self.fragment.operators.push(operator);
    }

    fn stream(&self) -> &Stream {
        &self.fragment.output
    }

    /// Puts columns in the place of the present ones, of which those of the key and of the division
    /// stay, hidden unless they are among the new ones.
    fn project(&mut self, mut columns: Vec<plan::Expr>, mut named: Vec<StreamColumn>) {
        let mut place = |column: usize, present: &Stream| {
            let same = |expr: &plan::Expr| *expr == plan::Expr::Column(column);
            columns.iter().position(same).unwrap_or_else(|| {
                columns.push(plan::Expr::Column(column));
                named.push(present.columns[column].clone());
                columns.len() - 1
            })
        };
        let present = &self.fragment.output;
        let key = present.key.iter().map(|column| place(*column, present)).collect();
        let divided = match &self.divided {
            Divided::By(by) => Divided::By(by.iter().map(|column| place(*column, present)).collect()),
            other => other.clone(),
        };
        let append_only = present.append_only;
        self.divided = divided;
        self.compute(columns, Stream { columns: named, key, append_only });
    }

    /// Computes columns. Those that only rename or reorder become part of the projection below.
    fn compute(&mut self, columns: Vec<plan::Expr>, output: Stream) {
        let width = self.fragment.output.columns.len();
        self.fragment.output = output;
        let is_plain = |expr: &plan::Expr| matches!(expr, plan::Expr::Column(_) | plan::Expr::Literal { .. });
        match self.fragment.operators.last_mut() {
            _ if columns.iter().eq((0..width).map(plan::Expr::Column).collect::<Vec<_>>().iter()) => {}
            Some(Operator::Project { columns: below }) if columns.iter().all(is_plain) => {
                let of_below = |expr| match expr {
                    plan::Expr::Column(column) => below[column].clone(),
                    other => other,
                };
                *below = columns.into_iter().map(of_below).collect();
            }
            _ => self.push(Operator::Project { columns }),
        }
    }
}

impl Lowering<'_> {
    fn node(&mut self, plan: &LogicalPlan) -> Result<Open, Error> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => {
                let mut open = self.node(&filter.input)?;
                let condition = self.stored(&filter.predicate, filter.input.schema(), open.stream())?;
                open.push(Operator::Filter { condition });
                Ok(open)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let open = self.node(input)?;
                let keys: Vec<plan::Expr> = (0..input.schema().fields().len()).map(plan::Expr::Column).collect();
                let named = open.stream().columns[..keys.len()].to_vec();
                let count = keys.len();
                Ok(self.group(open, (keys, named), count, Vec::new()))
            }
            LogicalPlan::Union(union) => self.union(&union.inputs, &union.schema),
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => self.values(vec![Vec::new()], Vec::new()),
            LogicalPlan::Values(values) => {
                let row = |row: &Vec<Expr>| row.iter().map(|expr| self.constant(expr)).collect();
                let rows = values.values.iter().map(row).collect::<Result<Vec<Vec<_>>, _>>()?;
                self.values(rows, columns_of(&values.schema)?)
            }
            LogicalPlan::Join(_) => Err(refused("a join")),
            LogicalPlan::Sort(_) => Err(refused("ORDER BY")),
            LogicalPlan::Limit(_) => Err(refused("LIMIT")),
            LogicalPlan::Distinct(Distinct::On(_)) => Err(refused("DISTINCT ON")),
            LogicalPlan::Window(_) => Err(refused("a window function")),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::RecursiveQuery(_) => Err(refused("a recursive query")),
            _ => Err(refused("such a query")),
        }
    }

    /// Stores an expression over the first columns of a stream, and builds it as nodes will, to
    /// find errors now.
    fn stored(&self, expr: &Expr, schema: &DFSchema, stream: &Stream) -> Result<plan::Expr, Error> {
        let stored = store(expr, schema)?;
        build(self.state, &stored, &stream.columns)?;
        Ok(stored)
    }

    /// Stores an expression that names no column, and computes it, to find errors now.
    fn constant(&self, expr: &Expr) -> Result<plan::Expr, Error> {
        let stored = store(expr, &DFSchema::empty())?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
        let row = row.map_err(DataFusionError::from)?;
        let computed = build(self.state, &stored, &[])?.evaluate(&row);
        computed.map_err(|error| Error::user(sqlstate::DATA_EXCEPTION, error.to_string()))?;
        Ok(stored)
    }

    fn state(&mut self, key: Vec<SqlType>, value: Vec<SqlType>) -> u16 {
        self.plan.tables.push(StateTable { version: 1, key, value });
        number(self.plan.tables.len() - 1)
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Open, Error> {
        let of_letters = NamedRelation::reads_letters(scan)?;
        let relation = NamedRelation::of(scan)?.filter(|_| !of_letters);
        let relation = relation.ok_or_else(|| refused(&format!("reading \"{}\"", scan.table_name)))?;
        let all = (0..relation.columns.len()).collect();
        let columns: Vec<usize> = scan.projection.clone().unwrap_or(all);
        match relation.kind {
            RelationKind::Source => Ok(read(&relation, columns)),
            RelationKind::Table | RelationKind::MaterializedView => Ok(self.follow(&relation, columns)),
            RelationKind::View => Err(Error::internal("a view is not planned by its query")),
        }
    }

    /// The changes of a relation that is stored. The columns of its key come along.
    fn follow(&mut self, relation: &Relation, mut columns: Vec<usize>) -> Open {
        let primary_key = &relation.primary_key;
        let key: Vec<usize> = primary_key
            .iter()
            .map(|column| {
                columns.iter().position(|read| read == column).unwrap_or_else(|| {
                    columns.push(*column);
                    columns.len() - 1
                })
            })
            .collect();
        let mut named: Vec<StreamColumn> = columns.iter().map(|column| named(relation, *column)).collect();
        let append_only = key.is_empty();
        let (key, divided) = match append_only {
            true => (with_origin(&mut named), Divided::ByOrigin),
            false => (key.clone(), Divided::By(key)),
        };
        let cursor_key = key.iter().map(|column| named[*column].ty.clone()).collect();
        let cursors = self.state(vec![SqlType::SmallInt], cursor_key);
        let output = Stream { columns: named, key, append_only };
        let operator = Operator::Follow { relation: relation.id, columns, cursors };
        Open::new(Distribution::SameAs(relation.id), divided, operator, output)
    }

    fn projection(&mut self, projection: &Projection) -> Result<Open, Error> {
        let mut open = self.node(&projection.input)?;
        let input = projection.input.schema();
        let columns = projection.expr.iter().map(|expr| self.stored(expr, input, open.stream()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        open.project(columns, columns_of(&projection.schema)?);
        Ok(open)
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<Open, Error> {
        let mut open = self.node(&unnest.input)?;
        let lists: Vec<usize> = unnest.list_type_columns.iter().map(|(column, _)| *column).collect();
        let is_plain = unnest.list_type_columns.iter().all(|(_, list)| list.depth == 1)
            && (1..lists.len()).all(|place| !lists[..place].contains(&lists[place]))
            && unnest.struct_type_columns.is_empty()
            && !unnest.options.preserve_nulls();
        if !is_plain {
            return Err(refused("unnest of a struct or of an array of arrays"));
        }
        let Stream { mut columns, mut key, append_only } = open.stream().clone();
        for list in &lists {
            let SqlType::Array(element) = columns[*list].ty.clone() else {
                return Err(refused("unnest of such a value"));
            };
            if key.contains(list) {
                return Err(refused("unnest of a column that identifies its row"));
            }
            columns[*list].ty = *element;
        }
        key.push(columns.len());
        columns.push(StreamColumn { name: "_place".to_owned(), ty: SqlType::Integer });
        open.push(Operator::Unnest { columns: lists });
        open.fragment.output = Stream { columns, key, append_only };
        let columns = unnest.dependency_indices.iter().map(|column| plan::Expr::Column(*column)).collect();
        let present = &open.stream().columns;
        let named = |(column, field): (&usize, &Arc<Field>)| StreamColumn {
            name: field.name().clone(),
            ty: present[*column].ty.clone(),
        };
        let named = unnest.dependency_indices.iter().zip(unnest.schema.fields()).map(named).collect();
        open.project(columns, named);
        Ok(open)
    }

    fn values(&mut self, mut rows: Vec<Vec<plan::Expr>>, mut columns: Vec<StreamColumn>) -> Result<Open, Error> {
        // Equal rows are different rows, so each has its number as the key.
        for (row, number) in rows.iter_mut().zip(1..) {
            row.push(plan::Expr::Literal { value: Some(i64::to_string(&number)), ty: SqlType::BigInt });
        }
        columns.push(StreamColumn { name: "_row".to_owned(), ty: SqlType::BigInt });
        let key = vec![columns.len() - 1];
        let emitted = self.state(Vec::new(), vec![SqlType::Boolean]);
        let output = Stream { columns, key, append_only: true };
        Ok(Open::new(Distribution::Single, Divided::Single, Operator::Values { rows, emitted }, output))
    }

    fn union(&mut self, inputs: &[Arc<LogicalPlan>], schema: &DFSchema) -> Result<Open, Error> {
        let own = columns_of(schema)?;
        let mut opened = inputs.iter().map(|input| self.node(input)).collect::<Result<Vec<_>, _>>()?;
        let hidden: Vec<Vec<StreamColumn>> = opened
            .iter()
            .map(|open| open.stream().key.iter().map(|column| open.stream().columns[*column].clone()).collect())
            .collect();
        let branch = StreamColumn { name: "_branch".to_owned(), ty: SqlType::SmallInt };
        let columns: Vec<StreamColumn> =
            own.iter().cloned().chain(std::iter::once(branch)).chain(hidden.iter().flatten().cloned()).collect();
        let key: Vec<usize> = (own.len()..columns.len()).collect();
        for (number, open) in opened.iter_mut().enumerate() {
            let mut exprs: Vec<plan::Expr> = (0..own.len()).map(plan::Expr::Column).collect();
            exprs.push(plan::Expr::Literal { value: Some(number.to_string()), ty: SqlType::SmallInt });
            for (other, columns) in hidden.iter().enumerate() {
                let own_key = open.stream().key.clone();
                exprs.extend(columns.iter().zip(0..).map(|(column, place): (_, usize)| match other == number {
                    true => plan::Expr::Column(own_key[place]),
                    false => plan::Expr::Literal { value: None, ty: column.ty.clone() },
                }));
            }
            let append_only = open.stream().append_only;
            open.compute(exprs, Stream { columns: columns.clone(), key: key.clone(), append_only });
        }
        let append_only = opened.iter().all(|open| open.stream().append_only);
        let senders = opened.into_iter().map(|open| (self.close(open), Dispatch::Hash(key.clone()))).collect();
        let output = Stream { columns, key: key.clone(), append_only };
        let mut open = Open::new(Distribution::Hash, Divided::By(key), Operator::Union, output);
        open.inputs = senders;
        Ok(open)
    }

    /// Ends a fragment; its rows go on in another one, divided by columns.
    fn shuffle(&mut self, open: Open, by: Vec<usize>) -> Open {
        let mut output = open.stream().clone();
        let (distribution, dispatch, divided) = match by.is_empty() {
            true => (Distribution::Single, Dispatch::Single, Divided::Single),
            false => (Distribution::Hash, Dispatch::Hash(by.clone()), Divided::By(by.clone())),
        };
        let mut open = open;
        if !output.append_only {
            // The columns become part of the key, so that all changes of a row take one way.
            output.key.extend(by.iter().filter(|column| !output.key.contains(column)).copied().collect::<Vec<_>>());
            open.fragment.output = output.clone();
        }
        let sender = self.close(open);
        Open {
            fragment: Fragment { distribution, operators: Vec::new(), output },
            inputs: vec![(sender, dispatch)],
            divided,
        }
    }

    fn close(&mut self, open: Open) -> u16 {
        let to = number(self.plan.fragments.len());
        self.plan.fragments.push(open.fragment);
        let edges = open.inputs.into_iter().zip(0..);
        self.plan.edges.extend(edges.map(|((from, dispatch), input)| Edge { from, to, input, dispatch }));
        to
    }

    /// Stores the rows at the vnodes of their keys: in place if they are there already.
    fn materialize(&mut self, mut open: Open, visible: usize) {
        if open.stream().key.is_empty() {
            // The row of an aggregate without GROUP BY. A stored row has a key.
            let Stream { mut columns, append_only, .. } = open.stream().clone();
            let mut exprs: Vec<plan::Expr> = (0..columns.len()).map(plan::Expr::Column).collect();
            let key = vec![columns.len()];
            exprs.push(plan::Expr::Literal { value: Some("0".to_owned()), ty: SqlType::SmallInt });
            columns.push(StreamColumn { name: "_row".to_owned(), ty: SqlType::SmallInt });
            open.compute(exprs, Stream { columns, key, append_only });
            open.push(Operator::Materialize { visible, conflict: plan::Conflict::None, groups: None });
            self.close(open);
            return;
        }
        let key = open.stream().key.clone();
        let is_in_place = match &open.divided {
            // A reader stores the rows of a view that only selects, filters and computes.
            Divided::ByOrigin => is_read(&open.fragment) && !open.fragment.operators.iter().any(is_unnest),
            Divided::By(by) => *by == key,
            // Nobody looks up a hidden column, so it does not matter at which vnode the row is.
            Divided::Single => key.iter().all(|column| *column >= visible),
        };
        let groups = groups_of(&open.fragment.operators, &key).filter(|_| is_in_place);
        let mut open = if is_in_place { open } else { self.shuffle(open, key) };
        open.push(Operator::Materialize { visible, conflict: plan::Conflict::None, groups });
        self.close(open);
    }
}

/// The table of the groups of which each makes one row with the group's key, if operators end with
/// such an aggregate. Behind a filter there may be many groups without a row, which scans would
/// have to pass over.
fn groups_of(operators: &[Operator], key: &[usize]) -> Option<u16> {
    let mut key = key.to_vec();
    for operator in operators.iter().rev() {
        match operator {
            Operator::Project { columns } => {
                let column = |place: &usize| match columns[*place] {
                    plan::Expr::Column(column) => Some(column),
                    _ => None,
                };
                key = key.iter().map(column).collect::<Option<_>>()?;
            }
            Operator::Aggregate { keys, groups, .. } => {
                return key.into_iter().eq(0..keys.len()).then_some(*groups);
            }
            _ => return None,
        }
    }
    None
}

/// Returns true for a fragment that runs in the readers of a source.
fn is_read(fragment: &Fragment) -> bool {
    matches!(fragment.distribution, Distribution::Splits(_))
}

fn is_unnest(operator: &Operator) -> bool {
    matches!(operator, Operator::Unnest { .. })
}

fn number(place: usize) -> u16 {
    u16::try_from(place).expect("a statement has fewer parts")
}

fn named(relation: &Relation, column: usize) -> StreamColumn {
    let column = relation.column(column);
    StreamColumn { name: column.name.clone(), ty: column.ty.clone() }
}

/// Adds the columns that identify a row of a stream: its split, its sequence, its place in the
/// message.
fn with_origin(columns: &mut Vec<StreamColumn>) -> Vec<usize> {
    let first = columns.len();
    let origin = [("_split", SqlType::Varchar), ("_sequence", SqlType::BigInt), ("_ordinal", SqlType::Integer)];
    columns.extend(origin.map(|(name, ty)| StreamColumn { name: name.to_owned(), ty }));
    (first..columns.len()).collect()
}

/// The rows of a source, as its readers bring them.
fn read(relation: &Relation, columns: Vec<usize>) -> Open {
    let mut named: Vec<StreamColumn> = columns.iter().map(|column| named(relation, *column)).collect();
    let key = with_origin(&mut named);
    let output = Stream { columns: named, key, append_only: true };
    Open::new(Distribution::Splits(relation.id), Divided::ByOrigin, Operator::Read { columns }, output)
}

/// The columns of a node, with their types as they are stored.
fn columns_of(schema: &DFSchema) -> Result<Vec<StreamColumn>, Error> {
    let column = |field: &Arc<Field>| {
        let ty = kept_type(field).ok_or_else(|| refused(&format!("a value of the type {}", field.data_type())))?;
        Ok(StreamColumn { name: field.name().clone(), ty })
    };
    schema.fields().iter().map(column).collect()
}
