//! Evaluates a sub-query for all rows around it at once.
//!
//! The rows around it are given as a [`Domain`]: the distinct values of the columns that the
//! sub-query refers to. [`Apply`] pushes the domain down the sub-query's plan, from the top to the
//! places where a branch no longer refers to it, and joins it there. Every operator above then
//! works for each row of the domain separately: an aggregate groups by it, a limit counts within
//! it. The result holds the sub-query's rows for each row of the domain, with that row's values,
//! the keys.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, JoinConstraint, JoinType, NullEquality, TableReference};
use datafusion::error::Result;
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, Sort as SortExpr};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, EmptyRelation, Expr, ExprFunctionExt, Filter, Join, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, Projection, Subquery, SubqueryAlias, Union, Unnest, Values, Window, binary_expr,
    cast, lit, when,
};

use crate::error::Error;

/// The first character of hidden column names, which a user cannot write.
const HIDDEN: char = '\u{2063}';

/// Generates names that are unique in a statement.
#[derive(Debug, Default)]
pub(super) struct Names(Cell<usize>);

impl Names {
    pub(super) fn next(&self) -> String {
        let number = self.0.get();
        self.0.set(number + 1);
        format!("{HIDDEN}q{number}")
    }
}

/// True if this module made the column.
pub(super) fn is_hidden(column: &Column) -> bool {
    column.name.starts_with(HIDDEN)
}

/// The rows around a sub-query.
pub(super) struct Domain {
    /// The rows, each once unless the sub-query only adds to them.
    pub(super) rows: LogicalPlan,
    /// The columns by which the sub-query refers to the rows, and their names in `rows`.
    pub(super) columns: Vec<(Column, String)>,
}

/// A plan with the columns of the original one, followed by the keys.
pub(super) struct Applied {
    pub(super) plan: LogicalPlan,
    pub(super) keys: Vec<Column>,
}

impl Applied {
    /// The plan's columns without the keys.
    fn own(&self) -> Vec<Expr> {
        let mut columns = columns(self.plan.schema());
        columns.truncate(columns.len().saturating_sub(self.keys.len()));
        columns
    }
}

/// All columns of a schema.
pub(super) fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.iter().map(|field| Expr::Column(Column::from(field))).collect()
}

pub(super) fn project(input: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
}

/// Projects expressions under the column names of another plan.
pub(super) fn project_as(input: LogicalPlan, exprs: Vec<Expr>, names: &DFSchema) -> Result<LogicalPlan> {
    let named = exprs.into_iter().zip(names.iter()).map(|(expr, (relation, field))| {
        let is_same = expr.qualified_name() == (relation.cloned(), field.name().clone());
        if is_same { expr } else { expr.alias_qualified(relation.cloned(), field.name()) }
    });
    project(input, named.collect())
}

/// Joins by keys. A NULL key equals a NULL key.
pub(super) fn join_keys(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    join_type: JoinType,
) -> Result<LogicalPlan> {
    // A join needs a condition, even if it is always true.
    let filter = if on.is_empty() { Some(filter.unwrap_or_else(|| lit(true))) } else { filter };
    let (left, right) = (Arc::new(left), Arc::new(right));
    let equality = NullEquality::NullEqualsNull;
    Ok(LogicalPlan::Join(Join::try_new(left, right, on, filter, join_type, JoinConstraint::On, equality, false)?))
}

fn unsupported(place: &str) -> datafusion::error::DataFusionError {
    Error::unsupported(format!("a sub-query that refers to rows around it in {place} is not supported yet"))
        .with_hint("join the tables instead")
        .into()
}

/// The columns of rows outside a plan that it refers to, each once.
pub(super) fn references(plan: &LogicalPlan) -> Result<Vec<(FieldRef, Column)>> {
    let mut found = Vec::new();
    collect(plan, &mut found)?;
    Ok(found)
}

fn collect(plan: &LogicalPlan, found: &mut Vec<(FieldRef, Column)>) -> Result<()> {
    let around = merge_schema(&plan.inputs());
    plan.apply_expressions(|expr| {
        collect_in(expr, &around, found)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    plan.inputs().into_iter().try_for_each(|input| collect(input, found))
}

/// The references in an expression over rows with the columns `around`.
pub(super) fn collect_in(expr: &Expr, around: &DFSchema, found: &mut Vec<(FieldRef, Column)>) -> Result<()> {
    let mut add = |reference: (FieldRef, Column)| {
        if !found.iter().any(|(_, column)| *column == reference.1) {
            found.push(reference);
        }
    };
    expr.apply(|expr| {
        if let Expr::OuterReferenceColumn(field, column) = expr {
            add((Arc::clone(field), column.clone()));
        }
        if let Some(subquery) = subquery_of(expr) {
            let inner = references(&subquery.subquery)?;
            inner.into_iter().filter(|(_, column)| !around.has_column(column)).for_each(&mut add);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The sub-query of an expression that consists of one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

pub(super) fn with_subquery(expr: Expr, change: impl FnOnce(Subquery) -> Result<Subquery>) -> Result<Expr> {
    Ok(match expr {
        Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(change(subquery)?),
        Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists { subquery: change(subquery)?, negated }),
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            Expr::InSubquery(InSubquery { expr, subquery: change(subquery)?, negated })
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
            Expr::SetComparison(SetComparison { expr, subquery: change(subquery)?, op, quantifier })
        }
        expr => expr,
    })
}

/// Pushes a domain down a plan.
pub(super) struct Apply<'a> {
    pub(super) domain: &'a Domain,
    pub(super) names: &'a Names,
}

impl Apply<'_> {
    /// The rows of a plan for each row of the domain.
    ///
    /// # Errors
    /// `0A000` for an operator that cannot work for each row separately.
    pub(super) fn apply(&self, plan: LogicalPlan) -> Result<Applied> {
        if !self.is_referred(&plan)? {
            return self.crossed(plan);
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let applied = self.apply(Arc::unwrap_or_clone(projection.input))?;
                self.projected(projection.expr, applied)
            }
            LogicalPlan::Filter(filter) => {
                let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(filter.input))?;
                let predicate = self.bound(filter.predicate, &keys, plan.schema())?;
                Ok(Applied { plan: LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?), keys })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let applied = self.apply(Arc::unwrap_or_clone(alias.input))?;
                aliased(applied, alias.alias)
            }
            // The operators above do not depend on the order, except for those that look for it.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.apply(Arc::unwrap_or_clone(sort.input)),
            LogicalPlan::Limit(limit) => self.limited(limit),
            LogicalPlan::Aggregate(aggregate) => self.aggregated(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(input))?;
                Ok(Applied { plan: LogicalPlan::Distinct(Distinct::All(Arc::new(plan))), keys })
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct),
            LogicalPlan::Window(window) => self.windowed(window),
            LogicalPlan::Unnest(unnest) => {
                let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(unnest.input))?;
                let unnest = Unnest::try_new(Arc::new(plan), unnest.exec_columns, unnest.options)?;
                Ok(Applied { plan: LogicalPlan::Unnest(unnest), keys })
            }
            LogicalPlan::Union(union) => self.united(union),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::Join(join) => self.joined(join),
            LogicalPlan::RecursiveQuery(_) => Err(unsupported("WITH RECURSIVE")),
            _ => Err(unsupported("such a place")),
        }
    }

    fn is_referred(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(references(plan)?.iter().any(|(_, column)| self.place(column).is_some()))
    }

    fn place(&self, column: &Column) -> Option<usize> {
        self.domain.columns.iter().position(|(known, _)| known == column)
    }

    /// A copy of the domain whose columns have fresh names.
    fn instance(&self) -> Result<Applied> {
        let names: Vec<String> = self.domain.columns.iter().map(|_| self.names.next()).collect();
        let renamed = self.domain.columns.iter().zip(&names);
        let renamed = renamed.map(|((_, from), to)| Expr::Column(Column::from_name(from)).alias(to)).collect();
        let plan = project(self.domain.rows.clone(), renamed)?;
        Ok(Applied { plan, keys: names.into_iter().map(Column::from_name).collect() })
    }

    /// Combines rows that are the same for the whole domain with each row of it.
    fn crossed(&self, plan: LogicalPlan) -> Result<Applied> {
        if self.domain.columns.is_empty() {
            return Ok(Applied { plan, keys: Vec::new() });
        }
        let Applied { plan: rows, keys } = self.instance()?;
        let is_one_row = matches!(&plan, LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema })
            if schema.fields().is_empty());
        let plan = if is_one_row { rows } else { LogicalPlanBuilder::from(plan).cross_join(rows)?.build()? };
        Ok(Applied { plan, keys })
    }

    /// Replaces references to the domain in an expression by the keys.
    fn bound(&self, expr: Expr, keys: &[Column], around: &DFSchema) -> Result<Expr> {
        let key = |column: &Column| self.place(column).map(|place| keys[place].clone());
        bound(expr, &key, around, false)
    }

    fn all_bound(&self, exprs: Vec<Expr>, keys: &[Column], around: &DFSchema) -> Result<Vec<Expr>> {
        exprs.into_iter().map(|expr| self.bound(expr, keys, around)).collect()
    }

    fn bound_sorts(&self, sorts: Vec<SortExpr>, keys: &[Column], around: &DFSchema) -> Result<Vec<SortExpr>> {
        let sorts = sorts.into_iter();
        sorts.map(|sort| Ok(SortExpr { expr: self.bound(sort.expr, keys, around)?, ..sort })).collect()
    }

    /// Binds expressions and keeps their names.
    fn bound_named(&self, exprs: Vec<Expr>, keys: &[Column], around: &DFSchema) -> Result<Vec<Expr>> {
        let preserver = NamePreserver::new_for_projection();
        let exprs = exprs.into_iter().map(|expr| {
            let name = preserver.save(&expr);
            Ok(name.restore(self.bound(expr, keys, around)?))
        });
        exprs.collect()
    }

    fn projected(&self, exprs: Vec<Expr>, Applied { plan, keys }: Applied) -> Result<Applied> {
        let mut exprs = self.bound_named(exprs, &keys, plan.schema())?;
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        Ok(Applied { plan: project(plan, exprs)?, keys })
    }

    fn aggregated(&self, aggregate: Aggregate) -> Result<Applied> {
        let schema = Arc::clone(&aggregate.schema);
        let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(aggregate.input))?;
        if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
            return Err(unsupported("GROUPING SETS"));
        }
        let (of_all, groups) = (aggregate.group_expr.is_empty(), aggregate.group_expr.len());
        let mut group_expr = self.all_bound(aggregate.group_expr, &keys, plan.schema())?;
        group_expr.extend(keys.iter().cloned().map(Expr::Column));
        let calls = self.all_bound(aggregate.aggr_expr, &keys, plan.schema())?;
        let defaults = defaults(&calls, &schema)?;
        let grouped = Aggregate::try_new(Arc::new(plan), group_expr, calls)?;
        let mut results = columns(&grouped.schema);
        let kept: Vec<Expr> = results.drain(groups..groups + keys.len()).collect();
        let names = keys.iter().map(|_| self.names.next()).collect::<Vec<_>>();
        let kept = kept.into_iter().zip(&names).map(|(key, name)| key.alias(name));
        let mut exprs: Vec<Expr> = results
            .into_iter()
            .zip(schema.iter())
            .map(|(result, (relation, field))| result.alias_qualified(relation.cloned(), field.name()))
            .collect();
        exprs.extend(kept);
        let keys = names.into_iter().map(Column::from_name).collect();
        let applied = Applied { plan: project(LogicalPlan::Aggregate(grouped), exprs)?, keys };
        // An aggregate without GROUP BY has a row even if it has no input.
        if of_all { self.completed(applied, defaults) } else { Ok(applied) }
    }

    /// Adds the rows of the domain for which nothing was aggregated.
    fn completed(&self, applied: Applied, defaults: Vec<Option<Expr>>) -> Result<Applied> {
        let own = applied.own();
        let (there, schema) = (self.names.next(), Arc::clone(applied.plan.schema()));
        let mut exprs = columns(&schema);
        exprs.push(lit(true).alias(&there));
        let marked = project(applied.plan, exprs)?;
        let Applied { plan: rows, keys } = self.instance()?;
        let on = keys.iter().cloned().map(Expr::Column).zip(applied.keys.into_iter().map(Expr::Column)).collect();
        let joined = join_keys(rows, marked, on, None, JoinType::Left)?;
        let there = Expr::Column(Column::from_name(there));
        let mut exprs = Vec::with_capacity(own.len() + keys.len());
        for ((column, default), (relation, field)) in own.into_iter().zip(defaults).zip(schema.iter()) {
            exprs.push(match default {
                Some(default) => when(there.clone().is_null(), default)
                    .otherwise(column)?
                    .alias_qualified(relation.cloned(), field.name()),
                None => column,
            });
        }
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        Ok(Applied { plan: project(joined, exprs)?, keys })
    }

    fn distinct_on(&self, distinct: DistinctOn) -> Result<Applied> {
        let names = Arc::clone(&distinct.schema);
        let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(distinct.input))?;
        let own: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
        let mut on_expr = own.clone();
        on_expr.extend(self.all_bound(distinct.on_expr, &keys, plan.schema())?);
        let mut select_expr = self.bound_named(distinct.select_expr, &keys, plan.schema())?;
        select_expr.extend(own.iter().cloned());
        let mut sorts: Vec<SortExpr> = own.iter().map(|key| SortExpr::new(key.clone(), true, false)).collect();
        if let Some(given) = distinct.sort_expr {
            sorts.extend(self.bound_sorts(given, &keys, plan.schema())?);
        } else {
            sorts.extend(on_expr.iter().skip(own.len()).map(|key| SortExpr::new(key.clone(), true, false)));
        }
        let distinct = DistinctOn::try_new(on_expr, select_expr, Some(sorts), Arc::new(plan))?;
        let plan = LogicalPlan::Distinct(Distinct::On(distinct));
        let mut exprs = columns(plan.schema());
        let keys: Vec<Expr> = exprs.split_off(names.fields().len());
        let fresh: Vec<String> = keys.iter().map(|_| self.names.next()).collect();
        let exprs = exprs.into_iter().zip(names.iter());
        let mut exprs: Vec<Expr> =
            exprs.map(|(expr, (relation, field))| expr.alias_qualified(relation.cloned(), field.name())).collect();
        exprs.extend(keys.into_iter().zip(&fresh).map(|(key, name)| key.alias(name)));
        Ok(Applied { plan: project(plan, exprs)?, keys: fresh.into_iter().map(Column::from_name).collect() })
    }

    fn windowed(&self, window: Window) -> Result<Applied> {
        let names = Arc::clone(&window.schema);
        let Applied { plan, keys } = self.apply(Arc::unwrap_or_clone(window.input))?;
        let width = plan.schema().fields().len() - keys.len();
        let calls = self.all_bound(window.window_expr, &keys, plan.schema())?.into_iter().map(|call| {
            let call = call.transform_up(|expr| match expr {
                Expr::WindowFunction(mut call) => {
                    call.params.partition_by.extend(keys.iter().cloned().map(Expr::Column));
                    Ok(Transformed::yes(Expr::WindowFunction(call)))
                }
                expr => Ok(Transformed::no(expr)),
            })?;
            Ok(call.data)
        });
        let window = Window::try_new(calls.collect::<Result<Vec<_>>>()?, Arc::new(plan))?;
        let mut exprs = columns(&window.schema);
        exprs.drain(width..width + keys.len());
        let exprs = exprs.into_iter().zip(names.iter());
        let mut exprs: Vec<Expr> =
            exprs.map(|(expr, (relation, field))| expr.alias_qualified(relation.cloned(), field.name())).collect();
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        Ok(Applied { plan: project(LogicalPlan::Window(window), exprs)?, keys })
    }

    fn united(&self, union: Union) -> Result<Applied> {
        let names: Vec<String> = self.domain.columns.iter().map(|_| self.names.next()).collect();
        let inputs = union.inputs.into_iter().map(|input| {
            let applied = self.apply(Arc::unwrap_or_clone(input))?;
            let mut exprs = applied.own();
            let keys = applied.keys.into_iter().zip(&names);
            exprs.extend(keys.map(|(key, name)| Expr::Column(key).alias(name)));
            Ok(Arc::new(project(applied.plan, exprs)?))
        });
        let union = Union::try_new(inputs.collect::<Result<Vec<_>>>()?)?;
        Ok(Applied { plan: LogicalPlan::Union(union), keys: names.into_iter().map(Column::from_name).collect() })
    }

    fn values(&self, values: Values) -> Result<Applied> {
        let names: Vec<String> = self.domain.columns.iter().map(|_| self.names.next()).collect();
        let empty = DFSchema::empty();
        let rows = values.values.into_iter().map(|row| {
            let Applied { plan, keys } = self.instance()?;
            let cells = row.into_iter().zip(values.schema.iter());
            let cells = cells.map(|(cell, (relation, field))| {
                let cell = cast(self.bound(cell, &keys, &empty)?, field.data_type().clone());
                Ok(cell.alias_qualified(relation.cloned(), field.name()))
            });
            let mut exprs = cells.collect::<Result<Vec<Expr>>>()?;
            exprs.extend(keys.into_iter().zip(&names).map(|(key, name)| Expr::Column(key).alias(name)));
            Ok(Arc::new(project(plan, exprs)?))
        });
        let mut rows = rows.collect::<Result<Vec<_>>>()?;
        let plan = match rows.len() {
            1 => Arc::unwrap_or_clone(rows.remove(0)),
            _ => LogicalPlan::Union(Union::try_new(rows)?),
        };
        Ok(Applied { plan, keys: names.into_iter().map(Column::from_name).collect() })
    }

    /// Applies a limit to each row of the domain.
    fn limited(&self, limit: Limit) -> Result<Applied> {
        let (applied, rank) = self.ranked(Arc::unwrap_or_clone(limit.input))?;
        let rank = cast(Expr::Column(rank), DataType::Int64);
        let count = |expr: Option<Box<Expr>>| {
            let expr = expr.map(|expr| self.bound(*expr, &applied.keys, applied.plan.schema())).transpose()?;
            Ok::<_, datafusion::error::DataFusionError>(expr.map(|expr| cast(expr, DataType::Int64)))
        };
        let skip = count(limit.skip)?.unwrap_or_else(|| lit(0_i64));
        let zero_for_null = |expr: Expr| when(expr.clone().is_null(), lit(0_i64)).otherwise(expr);
        let rank = rank - zero_for_null(skip)?;
        let mut condition = rank.clone().gt(lit(0_i64));
        if let Some(fetch) = count(limit.fetch)? {
            // LIMIT NULL means no limit.
            condition = condition.and(fetch.clone().is_null().or(rank.lt_eq(fetch)));
        }
        let mut exprs = applied.own();
        // The rank is the last of the plan's own columns.
        exprs.pop();
        let Applied { plan, keys } = applied;
        let filtered = LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?);
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        Ok(Applied { plan: project(filtered, exprs)?, keys })
    }

    /// Numbers a plan's rows in their order for each row of the domain. The number is the plan's
    /// last own column.
    fn ranked(&self, plan: LogicalPlan) -> Result<(Applied, Column)> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let applied = self.apply(Arc::unwrap_or_clone(sort.input))?;
                let sorts = self.bound_sorts(sort.expr, &applied.keys, applied.plan.schema())?;
                self.numbered(applied, sorts)
            }
            LogicalPlan::Projection(projection) => {
                let (applied, rank) = self.ranked(Arc::unwrap_or_clone(projection.input))?;
                let mut exprs = projection.expr;
                exprs.push(Expr::Column(rank.clone()));
                Ok((self.projected(exprs, applied)?, rank))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let (applied, rank) = self.ranked(Arc::unwrap_or_clone(alias.input))?;
                let rank = Column::new(Some(alias.alias.clone()), rank.name);
                Ok((aliased(applied, alias.alias)?, rank))
            }
            plan => {
                let applied = self.apply(plan)?;
                self.numbered(applied, Vec::new())
            }
        }
    }

    fn numbered(&self, applied: Applied, sorts: Vec<SortExpr>) -> Result<(Applied, Column)> {
        let mut exprs = applied.own();
        let Applied { plan, keys } = applied;
        let partitions = keys.iter().cloned().map(Expr::Column).collect();
        let number = row_number().partition_by(partitions).order_by(sorts).build()?;
        let window = LogicalPlanBuilder::from(plan).window(vec![number])?.build()?;
        let name = self.names.next();
        exprs.extend(columns(window.schema()).pop().map(|number| number.alias(&name)));
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        Ok((Applied { plan: project(window, exprs)?, keys }, Column::from_name(name)))
    }

    fn joined(&self, join: Join) -> Result<Applied> {
        let (in_left, in_right) = (self.is_referred(&join.left)?, self.is_referred(&join.right)?);
        // The side whose rows are kept must have the domain's columns.
        let (left, right) = match join.join_type {
            _ if join.null_aware => return Err(unsupported("NOT IN")),
            JoinType::Inner => (in_left || !in_right, in_right),
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (true, in_right),
            JoinType::Right => (in_left, true),
            JoinType::Full => (true, true),
            _ => return Err(unsupported("such a join")),
        };
        let side = |plan: Arc<LogicalPlan>, applies: bool| match applies {
            true => self.apply(Arc::unwrap_or_clone(plan)),
            false => Ok(Applied { plan: Arc::unwrap_or_clone(plan), keys: Vec::new() }),
        };
        let (one, other) = (side(join.left, left)?, side(join.right, right)?);
        let keys = if left { one.keys.clone() } else { other.keys.clone() };
        let nulls_are_equal = join.null_equality == NullEquality::NullEqualsNull;
        let is_same = |(one, other): (Expr, Expr)| {
            let operator = if nulls_are_equal { Operator::IsNotDistinctFrom } else { Operator::Eq };
            binary_expr(one, operator, other)
        };
        let conditions = join.on.into_iter().map(is_same).chain(join.filter);
        let around = one.plan.schema().join(other.plan.schema())?;
        let conditions = conditions.map(|condition| self.bound(condition, &keys, &around));
        let filter = conjunction(conditions.collect::<Result<Vec<_>>>()?);
        if !left || !right {
            // The keys of one side are kept. The planner finds the equalities in the condition.
            let (one, other) = (Arc::new(one.plan), Arc::new(other.plan));
            let filter = Some(filter.unwrap_or_else(|| lit(true)));
            let equality = NullEquality::NullEqualsNothing;
            let joined =
                Join::try_new(one, other, Vec::new(), filter, join.join_type, JoinConstraint::On, equality, false)?;
            return keyed(LogicalPlan::Join(joined), &join.schema, keys);
        }
        let on = one.keys.iter().zip(&other.keys);
        let on = on.map(|(one, other)| (Expr::Column(one.clone()), Expr::Column(other.clone()))).collect();
        let (one_keys, other_keys) = (one.keys, other.keys);
        let joined = join_keys(one.plan, other.plan, on, filter, join.join_type)?;
        if join.join_type != JoinType::Full {
            return keyed(joined, &join.schema, keys);
        }
        let mut exprs = columns(&join.schema);
        let names: Vec<String> = one_keys.iter().map(|_| self.names.next()).collect();
        for ((one, other), name) in one_keys.into_iter().zip(other_keys).zip(&names) {
            let (one, other) = (Expr::Column(one), Expr::Column(other));
            exprs.push(when(one.clone().is_null(), other).otherwise(one)?.alias(name));
        }
        Ok(Applied { plan: project(joined, exprs)?, keys: names.into_iter().map(Column::from_name).collect() })
    }
}

/// Puts a plan's columns in the order of a schema, with the keys after them.
fn keyed(plan: LogicalPlan, schema: &DFSchema, keys: Vec<Column>) -> Result<Applied> {
    let mut exprs = columns(schema);
    exprs.extend(keys.iter().cloned().map(Expr::Column));
    Ok(Applied { plan: project(plan, exprs)?, keys })
}

fn aliased(Applied { plan, keys }: Applied, alias: TableReference) -> Result<Applied> {
    let keys = keys.into_iter().map(|key| Column::new(Some(alias.clone()), key.name)).collect();
    Ok(Applied { plan: LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias)?), keys })
}

/// The results of aggregates without input rows, where they are not NULL.
fn defaults(calls: &[Expr], schema: &DFSchema) -> Result<Vec<Option<Expr>>> {
    let fields = schema.fields().iter().skip(schema.fields().len() - calls.len());
    let defaults = calls.iter().zip(fields).map(|(call, field)| match call.clone().unalias() {
        Expr::AggregateFunction(call) => {
            let value = call.func.default_value(field.data_type())?;
            Ok((!value.is_null()).then(|| Expr::Literal(value, None)))
        }
        _ => Ok(None),
    });
    defaults.collect()
}

/// Replaces references to rows outside by the columns that `key` returns. Inside the plans of
/// sub-queries the result remains a reference to a row outside, unless it refers to one of the rows
/// `around` the sub-query.
fn bound(expr: Expr, key: &dyn Fn(&Column) -> Option<Column>, around: &DFSchema, stays_outside: bool) -> Result<Expr> {
    let changed = expr.transform_up(|expr| match expr {
        Expr::OuterReferenceColumn(field, column) => Ok(match key(&column) {
            Some(key) if stays_outside => Transformed::yes(Expr::OuterReferenceColumn(field, key)),
            // Expressions over the column expect the type that it had when they were planned.
            Some(key) => {
                let ty = around.field_from_column(&key).map_or(field.data_type(), |key| key.data_type());
                let is_same = ty == field.data_type();
                let key = Expr::Column(key);
                Transformed::yes(if is_same { key } else { cast(key, field.data_type().clone()) })
            }
            None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
        }),
        expr if subquery_of(&expr).is_some() => {
            let is_own = |column: &Column| around.has_column(column);
            let outside = |column: &Column| if is_own(column) { None } else { key(column) };
            with_subquery(expr, |subquery| bound_in(subquery, &outside)).map(Transformed::yes)
        }
        expr => Ok(Transformed::no(expr)),
    })?;
    Ok(changed.data)
}

fn bound_in(subquery: Subquery, key: &dyn Fn(&Column) -> Option<Column>) -> Result<Subquery> {
    let plan = Arc::unwrap_or_clone(subquery.subquery).transform_up(|plan| {
        let around = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(bound(expr, key, &around, true)?)))
        })
    })?;
    let outer_ref_columns = plan.data.all_out_ref_exprs();
    Ok(Subquery { subquery: Arc::new(plan.data), outer_ref_columns, spans: subquery.spans })
}
