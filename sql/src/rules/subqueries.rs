//! Sub-queries as values, and sub-queries that refer to rows around them in ways that DataFusion
//! does not plan.
//!
//! DataFusion plans `EXISTS`, `IN` and comparisons with `ANY` and `ALL` in WHERE, sub-queries
//! without references to rows around them, and sub-queries whose references are equalities below an
//! aggregate. This rule leaves these alone and turns all others into joins: it evaluates a
//! sub-query for the distinct values of the columns that it refers to ([`apply`]), and joins the
//! result to the rows around it by these values. LATERAL is handled in the same way.
//!
//! The rows around a sub-query are therefore read twice, once for their distinct values. Both reads
//! have to agree, or at least the first has to contain all values of the second. [`stable`] refuses
//! plans that cannot guarantee this.
//!
//! Runs after all other rules, when types are known. Invariant: no plan changes the names and types
//! of its columns.

mod apply;
mod one_row;
mod stable;

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::bool_and_or::{bool_and, bool_or};
use datafusion::functions_aggregate::count::{count, count_udaf};
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprFunctionExt, Filter, Join, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, Sort, Subquery, SubqueryAlias, Union, binary_expr, lit, when,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use crate::error::Error;
use apply::{
    Applied, Apply, Domain, Names, collect_in, columns, join_keys, project, project_as, references, subquery_of,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewrite = Rewrite { names: Names::default() };
        let changed = plan.transform_up_with_subqueries(|plan| rewrite.in_plan(plan))?;
        if !changed.transformed {
            return Ok(changed.data);
        }
        // A sub-query's value may be NULL where its column was not, so expressions over it may be
        // too.
        recomputed(changed.data)
    }
}

/// Recomputes the schemas of all operators above changed inputs.
pub(super) fn recomputed(plan: LogicalPlan) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Union(union) => {
            Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(union.inputs)?)))
        }
        plan => plan.recompute_schema().map(Transformed::yes),
    })?;
    Ok(changed.data)
}

/// The place of a sub-query in the plan around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A whole condition of WHERE.
    Condition,
    /// A part of a condition of WHERE.
    InCondition,
    /// A selected expression, or a part of one.
    Selected,
    Elsewhere,
}

/// The rows around sub-queries.
struct Around {
    /// The rows of the plan.
    rows: LogicalPlan,
    /// The same rows, joined with the values of the sub-queries.
    joined: LogicalPlan,
}

impl Around {
    fn new(rows: LogicalPlan) -> RefCell<Around> {
        RefCell::new(Around { joined: rows.clone(), rows })
    }
}

struct Rewrite {
    names: Names,
}

impl Rewrite {
    fn in_plan(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let plan = without_wrappers(plan)?;
        if let LogicalPlan::Join(join) = plan {
            let join = match lateral_of(&join.right) {
                Some(right) => return self.lateral(join, right).map(Transformed::yes),
                None => join,
            };
            return match has_subquery(&LogicalPlan::Join(join.clone()))? {
                true => self.in_join(join).map(Transformed::yes),
                false => Ok(Transformed::no(LogicalPlan::Join(join))),
            };
        }
        if !has_subquery(&plan)? {
            return Ok(Transformed::no(plan));
        }
        match plan {
            LogicalPlan::Filter(filter) => self.in_filter(filter).map(Transformed::yes),
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Sort(_) => {
                self.in_operator(plan)
            }
            plan => Ok(Transformed::no(plan)),
        }
    }

    fn in_filter(&self, Filter { predicate, input, .. }: Filter) -> Result<LogicalPlan> {
        let (schema, around) = (Arc::clone(input.schema()), Around::new(Arc::unwrap_or_clone(input)));
        let conditions = split_conjunction_owned(predicate).into_iter().map(|condition| match condition {
            condition if is_left(&condition, Place::Condition, &around)? => Ok(condition),
            condition => self.in_expression(condition, Place::InCondition, &around),
        });
        let predicate = conjunction(conditions.collect::<Result<Vec<_>>>()?).unwrap_or_else(|| lit(true));
        let joined = around.into_inner().joined;
        let is_wider = joined.schema().fields().len() > schema.fields().len();
        let filtered = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(joined))?);
        if is_wider { project(filtered, columns(&schema)) } else { Ok(filtered) }
    }

    /// Handles an operator by adding the values of its sub-queries to its input as columns.
    fn in_operator(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = Arc::clone(plan.schema());
        let plan = match plan {
            LogicalPlan::Sort(sort) => LogicalPlan::Sort(with_columns(sort)?),
            plan => plan,
        };
        let Some(input) = plan.inputs().first().copied().cloned() else { return Ok(Transformed::no(plan)) };
        let (width, around) = (input.schema().fields().len(), Around::new(input));
        let preserver = NamePreserver::new_for_projection();
        let is_projection = matches!(plan, LogicalPlan::Projection(_));
        let place = if is_projection { Place::Selected } else { Place::Elsewhere };
        let changed = plan.map_expressions(|expr| {
            let name = preserver.save(&expr);
            let expr = self.in_expression(expr, place, &around)?;
            Ok(Transformed::yes(if is_projection { name.restore(expr) } else { expr }))
        })?;
        let joined = around.into_inner().joined;
        let added = joined.schema().fields().len() - width;
        let joined = Arc::new(joined);
        let (plan, added_at) = match changed.data {
            LogicalPlan::Projection(projection) => {
                return Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(projection.expr, joined)?)));
            }
            LogicalPlan::Aggregate(aggregate) => {
                let aggregate = Aggregate::try_new(joined, aggregate.group_expr, aggregate.aggr_expr)?;
                (LogicalPlan::Aggregate(aggregate), None)
            }
            LogicalPlan::Window(window) => {
                let window = datafusion::logical_expr::Window::try_new(window.window_expr, joined)?;
                (LogicalPlan::Window(window), Some(width))
            }
            LogicalPlan::Sort(mut sort) => {
                sort.input = joined;
                (LogicalPlan::Sort(sort), Some(width))
            }
            plan => return Ok(Transformed::no(plan)),
        };
        let mut exprs = columns(plan.schema());
        if let Some(place) = added_at {
            exprs.drain(place..place + added);
        }
        project_as(plan, exprs, &schema).map(Transformed::yes)
    }

    /// Handles a join whose condition has sub-queries. They belong to the rows of one side, or, in
    /// an inner join, to those of both.
    fn in_join(&self, mut join: Join) -> Result<LogicalPlan> {
        let schema = Arc::clone(&join.schema);
        let conditions: Vec<Expr> = join.filter.take().map(split_conjunction_owned).unwrap_or_default();
        if join.join_type == JoinType::Inner {
            let (later, now): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(contains_subquery);
            join.filter = conjunction(now);
            let joined = LogicalPlan::Join(join);
            return match conjunction(later) {
                Some(later) => self.in_filter(Filter::try_new(later, Arc::new(joined))?),
                None => Ok(joined),
            };
        }
        let (left, right) =
            (Around::new(Arc::unwrap_or_clone(join.left)), Around::new(Arc::unwrap_or_clone(join.right)));
        let conditions = conditions.into_iter().map(|condition| {
            let changed = condition.transform_up(|expr| {
                let Some(subquery) = subquery_of(&expr) else { return Ok(Transformed::no(expr)) };
                let mut needed: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
                needed.extend(references(&subquery.subquery)?.into_iter().map(|(_, column)| column));
                let is_in = |around: &RefCell<Around>| {
                    let around = around.borrow();
                    needed.iter().any(|column| around.joined.schema().has_column(column))
                };
                match (is_in(&left), is_in(&right)) {
                    (true, true) => Err(unsupported("both sides of an outer join").into()),
                    (false, true) => self.value(expr, Place::Elsewhere, &right),
                    _ => self.value(expr, Place::Elsewhere, &left),
                }
            })?;
            Ok(changed.data)
        });
        let filter = conjunction(conditions.collect::<Result<Vec<_>>>()?);
        let (left, right) = (Arc::new(left.into_inner().joined), Arc::new(right.into_inner().joined));
        let (on, equality) = (join.on, join.null_equality);
        let joined =
            Join::try_new(left, right, on, filter, join.join_type, join.join_constraint, equality, join.null_aware)?;
        project(LogicalPlan::Join(joined), columns(&schema))
    }

    fn in_expression(&self, expr: Expr, place: Place, around: &RefCell<Around>) -> Result<Expr> {
        Ok(expr.transform_up(|expr| self.value(expr, place, around))?.data)
    }

    /// The value of a sub-query, as an expression over the rows around it.
    fn value(&self, expr: Expr, place: Place, around: &RefCell<Around>) -> Result<Transformed<Expr>> {
        if subquery_of(&expr).is_none() || is_left(&expr, place, around)? {
            return Ok(Transformed::no(expr));
        }
        let value = match expr {
            Expr::ScalarSubquery(subquery) => self.scalar(subquery, around)?,
            Expr::Exists(Exists { subquery, negated }) => {
                let exists = match references(&subquery.subquery)?.is_empty() {
                    true => some_row(&subquery)?,
                    false => self.exists(subquery, around)?,
                };
                if negated { !exists } else { exists }
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let is_in = match references(&subquery.subquery)?.is_empty() {
                    true => self.is_member(*expr, &subquery, around)?,
                    false => self.compared(*expr, subquery, (Operator::Eq, SetQuantifier::Any), around)?,
                };
                if negated { !is_in } else { is_in }
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                self.compared(*expr, subquery, (op, quantifier), around)?
            }
            expr => expr,
        };
        Ok(Transformed::yes(value))
    }

    fn scalar(&self, subquery: Subquery, around: &RefCell<Around>) -> Result<Expr> {
        let (is_one, plan) = (is_one_row(&subquery.subquery), Arc::unwrap_or_clone(subquery.subquery));
        let (domain, outside) = self.domain(&plan, &[], around)?;
        let Applied { plan, keys } = Apply { domain: &domain, names: &self.names }.apply(plan)?;
        let (value, number) = (self.names.next(), self.names.next());
        let Some(first) = columns(plan.schema()).into_iter().next() else {
            return Err(Error::internal("a sub-query has no column").into());
        };
        let key_columns = || keys.iter().cloned().map(Expr::Column);
        let mut exprs = vec![first.alias(&value)];
        exprs.extend(key_columns());
        let plan = project(plan, exprs)?;
        let plan = if is_one {
            plan
        } else {
            // Keeps one of several rows, with the number of rows.
            let (width, rank) = (plan.schema().fields().len(), self.names.next());
            let all = Expr::from(WindowFunction::new(count_udaf(), vec![lit(1_i64)]));
            let all = all.partition_by(key_columns().collect()).build()?;
            let plan = with_window(plan, all, &number)?;
            let ranked = with_window(plan, row_number().partition_by(key_columns().collect()).build()?, &rank)?;
            let mut exprs = columns(ranked.schema());
            exprs.truncate(width + 1);
            let is_first = Expr::Column(Column::from_name(rank)).eq(lit(1_u64));
            project(LogicalPlan::Filter(Filter::try_new(is_first, Arc::new(ranked))?), exprs)?
        };
        attach(around, plan, outside, keys)?;
        let value = Expr::Column(Column::from_name(value));
        Ok(if is_one { value } else { one_row::one_row(value, Expr::Column(Column::from_name(number))) })
    }

    fn exists(&self, subquery: Subquery, around: &RefCell<Around>) -> Result<Expr> {
        let plan = Arc::unwrap_or_clone(subquery.subquery);
        let (domain, outside) = self.domain(&plan, &[], around)?;
        let Applied { plan, keys } = Apply { domain: &domain, names: &self.names }.apply(plan)?;
        let there = self.names.next();
        let plan = match keys.is_empty() {
            true => LogicalPlanBuilder::from(plan).limit(0, Some(1))?.build()?,
            false => {
                let keys = project(plan, keys.iter().cloned().map(Expr::Column).collect())?;
                LogicalPlan::Distinct(Distinct::All(Arc::new(keys)))
            }
        };
        let mut exprs = vec![lit(true).alias(&there)];
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        attach(around, project(plan, exprs)?, outside, keys)?;
        Ok(Expr::Column(Column::from_name(there)).is_not_null())
    }

    /// `value op ANY (…)` and `value op ALL (…)`, in PostgreSQL's three-valued logic.
    fn compared(
        &self,
        value: Expr,
        subquery: Subquery,
        (op, quantifier): (Operator, SetQuantifier),
        around: &RefCell<Around>,
    ) -> Result<Expr> {
        let plan = Arc::unwrap_or_clone(subquery.subquery);
        let value = self.named(value, around)?;
        let (domain, outside) = self.domain(&plan, std::slice::from_ref(&value), around)?;
        let Applied { plan, keys } = Apply { domain: &domain, names: &self.names }.apply(plan)?;
        let (Some(member), Some(key)) =
            (columns(plan.schema()).into_iter().next(), domain.columns.iter().position(|(known, _)| *known == value))
        else {
            return Err(Error::internal("a sub-query has no column").into());
        };
        let (result, all, known) = (self.names.next(), self.names.next(), self.names.next());
        let compared = self.names.next();
        let mut exprs = vec![binary_expr(Expr::Column(keys[key].clone()), op, member).alias(&compared)];
        exprs.extend(keys.iter().cloned().map(Expr::Column));
        let plan = project(plan, exprs)?;
        let compared = || Expr::Column(Column::from_name(&compared));
        let aggregate = if quantifier == SetQuantifier::Any { bool_or(compared()) } else { bool_and(compared()) };
        let calls = vec![aggregate.alias(&result), count(lit(1_i64)).alias(&all), count(compared()).alias(&known)];
        let groups = keys.iter().cloned().map(Expr::Column).collect();
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), groups, calls)?);
        attach(around, plan, outside, keys)?;
        let column = |name: &String| Expr::Column(Column::from_name(name));
        let (result, unknown) = (column(&result), column(&all).gt(column(&known)));
        let null = Expr::Literal(ScalarValue::Boolean(None), None);
        Ok(match quantifier {
            SetQuantifier::Any => when(result, lit(true)).when(unknown, null).otherwise(lit(false))?,
            SetQuantifier::All => when(!result, lit(false)).when(unknown, null).otherwise(lit(true))?,
        })
    }

    /// `value IN (…)`, where the sub-query is the same for all rows.
    fn is_member(&self, value: Expr, subquery: &Subquery, around: &RefCell<Around>) -> Result<Expr> {
        let value = self.named(value, around)?;
        let plan = subquery.subquery.as_ref();
        let Some(member) = columns(plan.schema()).into_iter().next() else {
            return Err(Error::internal("a sub-query has no column").into());
        };
        let (found, key, all, known) = (self.names.next(), self.names.next(), self.names.next(), self.names.next());
        let members = project(plan.clone(), vec![member.clone().alias(&key)])?;
        let counts = vec![count(lit(1_i64)).alias(&all), count(Expr::Column(Column::from_name(&key))).alias(&known)];
        let counts = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(members.clone()), Vec::new(), counts)?);
        let distinct = LogicalPlan::Distinct(Distinct::All(Arc::new(members)));
        let key = Expr::Column(Column::from_name(key));
        let distinct = project(distinct, vec![lit(true).alias(&found), key.clone()])?;
        let mut around = around.borrow_mut();
        let rows = std::mem::take(&mut around.joined);
        let rows = join_keys(rows, counts, Vec::new(), None, JoinType::Left)?;
        let equal = Expr::Column(value.clone()).eq(key);
        let rows = LogicalPlanBuilder::from(rows).join_on(distinct, JoinType::Left, [equal])?.build()?;
        around.joined = rows;
        let column = |name: &String| Expr::Column(Column::from_name(name));
        let null = || Expr::Literal(ScalarValue::Boolean(None), None);
        when(column(&found).is_not_null(), lit(true))
            .when(column(&all).eq(lit(0_i64)), lit(false))
            .when(Expr::Column(value).is_null(), null())
            .when(column(&all).gt(column(&known)), null())
            .otherwise(lit(false))
    }

    /// Makes a value a column of the rows around the sub-query.
    fn named(&self, value: Expr, around: &RefCell<Around>) -> Result<Column> {
        if let Expr::Column(column) = value {
            return Ok(column);
        }
        let mut around = around.borrow_mut();
        let name = self.names.next();
        // A value that only uses the rows' own columns is added to them as well.
        let own: Vec<Column> = value.column_refs().into_iter().cloned().collect();
        let is_own = own.iter().all(|column| around.rows.schema().has_column(column));
        let with_value = |plan: &mut LogicalPlan| {
            let mut exprs = columns(plan.schema());
            exprs.push(value.clone().alias(&name));
            *plan = project(std::mem::take(plan), exprs)?;
            Ok::<_, datafusion::error::DataFusionError>(())
        };
        with_value(&mut around.joined)?;
        if is_own {
            with_value(&mut around.rows)?;
        }
        Ok(Column::from_name(name))
    }

    /// The domain of a sub-query, and the columns around it that the domain is made of. `values`
    /// are part of it.
    fn domain(&self, plan: &LogicalPlan, values: &[Column], around: &RefCell<Around>) -> Result<(Domain, Vec<Column>)> {
        let around = around.borrow();
        let referred = references(plan)?.into_iter().map(|(_, column)| column);
        let mut outside: Vec<Column> = referred.filter(|column| around.joined.schema().has_column(column)).collect();
        outside.extend(values.iter().cloned());
        let is_own = outside.iter().all(|column| around.rows.schema().has_column(column));
        let rows = if is_own { &around.rows } else { &around.joined };
        Ok((self.distinct(rows, &outside)?, outside))
    }

    fn distinct(&self, rows: &LogicalPlan, outside: &[Column]) -> Result<Domain> {
        let columns: Vec<(Column, String)> = outside.iter().map(|column| (column.clone(), self.names.next())).collect();
        if columns.is_empty() {
            return Ok(Domain { rows: LogicalPlan::default(), columns });
        }
        let rows = stable::values(rows, outside)?;
        let exprs = columns.iter().map(|(column, name)| Expr::Column(column.clone()).alias(name)).collect();
        let rows = LogicalPlan::Distinct(Distinct::All(Arc::new(project(rows, exprs)?)));
        Ok(Domain { rows, columns })
    }

    fn lateral(&self, join: Join, right: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(&join.schema);
        let left = Arc::unwrap_or_clone(join.left);
        let referred = references(&right)?.into_iter().map(|(_, column)| column);
        let outside: Vec<Column> = referred.filter(|column| left.schema().has_column(column)).collect();
        if outside.is_empty() {
            let (left, right) = (Arc::new(left), Arc::new(right));
            let (on, filter, equality) = (join.on, join.filter, join.null_equality);
            let joined = Join::try_new(left, right, on, filter, join.join_type, join.join_constraint, equality, false)?;
            return Ok(LogicalPlan::Join(joined));
        }
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Err(unsupported("such a join").into());
        }
        let conditions = join.on.into_iter().map(|(one, other)| one.eq(other)).chain(join.filter);
        let condition = conjunction(conditions.collect::<Vec<_>>());
        if join.join_type == JoinType::Inner && only_adds(&right)? {
            return self.beside(left, right, condition, &schema);
        }
        let domain = self.distinct(&left, &outside)?;
        let Applied { plan, keys } = Apply { domain: &domain, names: &self.names }.apply(right)?;
        let on = outside.into_iter().map(Expr::Column).zip(keys.into_iter().map(Expr::Column)).collect();
        let joined = join_keys(left, plan, on, condition, join.join_type)?;
        project(joined, columns(&schema))
    }

    /// LATERAL of a sub-query that only extends each row around it. The whole row is passed
    /// through.
    fn beside(
        &self,
        left: LogicalPlan,
        right: LogicalPlan,
        condition: Option<Expr>,
        schema: &DFSchemaRef,
    ) -> Result<LogicalPlan> {
        let own: Vec<Column> = left.schema().columns();
        let domain_columns: Vec<(Column, String)> = own.into_iter().map(|column| (column, self.names.next())).collect();
        let renamed = domain_columns.iter().map(|(column, name)| Expr::Column(column.clone()).alias(name)).collect();
        let domain = Domain { rows: project(left, renamed)?, columns: domain_columns };
        let applied = Apply { domain: &domain, names: &self.names }.apply(right)?;
        let mut exprs: Vec<Expr> = applied.keys.iter().cloned().map(Expr::Column).collect();
        let mut others = columns(applied.plan.schema());
        others.truncate(others.len() - exprs.len());
        exprs.extend(others);
        let plan = project_as(applied.plan, exprs, schema)?;
        match condition {
            Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?)),
            None => Ok(plan),
        }
    }
}

fn unsupported(place: &str) -> Error {
    Error::unsupported(format!("a sub-query that refers to rows of {place} is not supported yet"))
}

/// Lets the sub-queries of a sort refer to columns that are not selected, by passing these columns
/// on.
fn with_columns(mut sort: Sort) -> Result<Sort> {
    let mut referred = Vec::new();
    for key in &sort.expr {
        collect_in(&key.expr, &DFSchema::empty(), &mut referred)?;
    }
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return Ok(sort) };
    let (selected, below) = (&projection.schema, projection.input.schema());
    let missing = referred.into_iter().map(|(_, column)| column);
    let missing: Vec<Expr> =
        missing.filter(|column| !selected.has_column(column) && below.has_column(column)).map(Expr::Column).collect();
    if !missing.is_empty() {
        let exprs = projection.expr.iter().cloned().chain(missing).collect();
        let wider = Projection::try_new(exprs, Arc::clone(&projection.input))?;
        sort.input = Arc::new(LogicalPlan::Projection(wider));
    }
    Ok(sort)
}

/// Appends the result of a window function to a plan, as its last column.
fn with_window(plan: LogicalPlan, call: Expr, name: &str) -> Result<LogicalPlan> {
    let window = LogicalPlanBuilder::from(plan).window(vec![call])?.build()?;
    let mut exprs = columns(window.schema());
    let last = exprs.pop().map(|result| result.alias(name));
    exprs.extend(last);
    project(window, exprs)
}

/// Joins a sub-query's values to the rows around it.
fn attach(around: &RefCell<Around>, values: LogicalPlan, outside: Vec<Column>, keys: Vec<Column>) -> Result<()> {
    let mut around = around.borrow_mut();
    let on = outside.into_iter().map(Expr::Column).zip(keys.into_iter().map(Expr::Column)).collect();
    let rows = std::mem::take(&mut around.joined);
    around.joined = join_keys(rows, values, on, None, JoinType::Left)?;
    Ok(())
}

/// Unwraps a LATERAL that refers to no table before it in FROM: it is an ordinary sub-query.
fn without_wrappers(plan: LogicalPlan) -> Result<LogicalPlan> {
    let unwrapped = |plan: &Arc<LogicalPlan>| lateral_of(plan).map_or_else(|| Arc::clone(plan), Arc::new);
    match plan {
        LogicalPlan::Join(mut join) => {
            join.left = unwrapped(&join.left);
            Ok(LogicalPlan::Join(join))
        }
        // The operator above handles this one.
        LogicalPlan::SubqueryAlias(alias) if matches!(alias.input.as_ref(), LogicalPlan::Subquery(_)) => {
            Ok(LogicalPlan::SubqueryAlias(alias))
        }
        plan => {
            let unwrapped = |input| Ok(lateral_of(&input).map_or(Transformed::no(input), Transformed::yes));
            Ok(plan.map_children(unwrapped)?.data)
        }
    }
}

/// The sub-query of a LATERAL, with its alias.
fn lateral_of(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let inner = lateral_of(&alias.input)?;
            SubqueryAlias::try_new(Arc::new(inner), alias.alias.clone()).ok().map(LogicalPlan::SubqueryAlias)
        }
        _ => None,
    }
}

/// True if a plan makes its rows from each row around it separately, and in one branch only.
fn only_adds(plan: &LogicalPlan) -> Result<bool> {
    if references(plan)?.is_empty() {
        return Ok(true);
    }
    Ok(match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().map(only_adds).all(|adds| matches!(adds, Ok(true))),
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            (references(&join.left)?.is_empty() && only_adds(&join.right)?)
                || (references(&join.right)?.is_empty() && only_adds(&join.left)?)
        }
        _ => false,
    })
}

fn contains_subquery(expr: &Expr) -> bool {
    matches!(expr.exists(|expr| Ok(subquery_of(expr).is_some())), Ok(true))
}

fn has_subquery(plan: &LogicalPlan) -> Result<bool> {
    let mut has = false;
    plan.apply_expressions(|expr| {
        has |= contains_subquery(expr);
        Ok(if has { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(has)
}

/// Turns EXISTS of a sub-query that is the same for all rows into a single value.
fn some_row(subquery: &Subquery) -> Result<Expr> {
    let first = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).limit(0, Some(1))?;
    let counted = first.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("count")])?;
    let there = Expr::Column(Column::from_name("count")).gt(lit(0_i64)).alias("exists");
    let plan = Arc::new(counted.project(vec![there])?.build()?);
    Ok(Expr::ScalarSubquery(Subquery { subquery: plan, outer_ref_columns: Vec::new(), spans: subquery.spans.clone() }))
}

/// True if DataFusion plans a sub-query correctly.
fn is_left(expr: &Expr, place: Place, around: &RefCell<Around>) -> Result<bool> {
    let Some(subquery) = subquery_of(expr) else { return Ok(false) };
    let plan = subquery.subquery.as_ref();
    let referred = references(plan)?;
    let in_condition = matches!(place, Place::Condition | Place::InCondition);
    if referred.is_empty() {
        return Ok(match expr {
            Expr::ScalarSubquery(_) => true,
            Expr::Exists(_) => in_condition,
            Expr::InSubquery(inner) => place == Place::Condition && !contains_subquery(&inner.expr),
            Expr::SetComparison(inner) => in_condition && !contains_subquery(&inner.expr),
            _ => false,
        });
    }
    let around = around.borrow();
    if !referred.iter().all(|(_, column)| around.rows.schema().has_column(column)) {
        return Ok(false);
    }
    Ok(match expr {
        Expr::Exists(_) => in_condition && is_filtered(plan, false),
        Expr::InSubquery(inner) => {
            place == Place::Condition && !inner.negated && !contains_subquery(&inner.expr) && is_filtered(plan, false)
        }
        Expr::ScalarSubquery(_) if place == Place::Elsewhere => false,
        Expr::ScalarSubquery(_) => match plan {
            LogicalPlan::Projection(Projection { expr, input, .. }) if expr.iter().all(is_plain) => {
                matches!(input.as_ref(), LogicalPlan::Aggregate(aggregate) if is_whole(aggregate))
            }
            LogicalPlan::Aggregate(aggregate) => is_whole(aggregate),
            _ => false,
        },
        _ => false,
    })
}

/// True if an aggregate covers all rows that remain after equalities with rows around it.
fn is_whole(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty() && aggregate.aggr_expr.iter().all(is_plain) && is_filtered(&aggregate.input, true)
}

/// True if a plan refers to rows around it only in the conditions at its top. With `by_equality`,
/// these conditions must be equalities.
fn is_filtered(plan: &LogicalPlan, by_equality: bool) -> bool {
    match plan {
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            expr.iter().all(is_plain) && is_filtered(input, by_equality)
        }
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            let is_fit = |condition: &&Expr| {
                is_plain(condition) || !contains_subquery(condition) && (!by_equality || is_equality(condition))
            };
            split_conjunction(predicate).iter().all(is_fit) && is_filtered(input, by_equality)
        }
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_) => false,
        plan => references(plan).is_ok_and(|referred| referred.is_empty()),
    }
}

/// True if an expression refers to no row around it.
fn is_plain(expr: &Expr) -> bool {
    let mut found = Vec::new();
    collect_in(expr, &DFSchema::empty(), &mut found).is_ok() && found.is_empty()
}

/// True for an equality between an own column and a column of the rows around.
fn is_equality(expr: &Expr) -> bool {
    let is_outside = |expr: &Expr| matches!(expr, Expr::OuterReferenceColumn(..));
    let is_own = |expr: &Expr| matches!(expr, Expr::Column(_));
    matches!(expr, Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
        if is_own(left) && is_outside(right) || is_outside(left) && is_own(right))
}

/// True if a plan has at most one row.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_one_row)
        }
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Limit(limit) => {
            let is_one = |fetch: &Expr| {
                let value = match fetch {
                    Expr::Literal(value, _) => value.cast_to(&DataType::Int64).ok(),
                    _ => None,
                };
                matches!(value, Some(ScalarValue::Int64(Some(..=1))))
            };
            limit.fetch.as_deref().is_some_and(is_one) || is_one_row(&limit.input)
        }
        _ => false,
    }
}
