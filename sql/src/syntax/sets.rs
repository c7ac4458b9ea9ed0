//! Functions that return sets: `generate_series`, `unnest`, `jsonb_array_elements` and the like.
//!
//! DataFusion has one such function, `unnest`, which turns a list into rows. Each of the others
//! becomes `unnest` of a function that returns the list ([`crate::functions`]). Several in one
//! SELECT list advance in step, as in PostgreSQL: NULLs fill up shorter ones. In FROM they become a
//! sub-query, which numbers its rows for WITH ORDINALITY. They are refused where PostgreSQL does
//! not allow them.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, JoinConstraint, LimitClause,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableAlias, TableAliasColumnDef,
    TableFactor, TableFunctionArgs, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut, visit_expressions_mut,
};

use super::build::{call, query, taken};
use super::joins;
use super::names::{UNKNOWN, item_name};
use crate::error::Error;
use crate::functions::{KEPT, MEMBER_TEXTS, MEMBERS, NUMBERS, ORDINALS, list_holds_jsonb, set_function};
use crate::parser::{fold, identifiers};

/// The column of WITH ORDINALITY.
const ORDINALITY: &str = "ordinality";

/// Rewrites all set-returning functions as calls of `unnest`. `is_aggregate` tells which functions
/// are aggregates.
///
/// # Errors
/// `0A000` where such a function is not supported.
pub(super) fn unnested(statement: &mut Statement, is_aggregate: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    match statement.visit(&mut Sets { is_aggregate }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Sets<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
}

impl VisitorMut for Sets<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.in_query(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(self.in_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        flow(self.in_table_factor(factor))
    }
}

fn flow(result: Result<(), Error>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl Sets<'_> {
    fn in_query(&self, query: &mut Query) -> Result<(), Error> {
        let is_place = |key: &OrderByExpr| is_number(&key.expr);
        let sorts_by_places = query.order_by.as_ref().is_none_or(|order| match &order.kind {
            OrderByKind::Expressions(keys) => keys.iter().all(is_place),
            OrderByKind::All(_) => false,
        });
        if sorts_by_places
            && let SetExpr::Select(select) = query.body.as_mut()
            && hides_column(select)
            && select.projection.iter().filter_map(selected).any(|expr| matches!(self.contains(expr), Ok(true)))
        {
            wrap(select)?;
        }
        let projection = match query.body.as_ref() {
            SetExpr::Select(select) => select.projection.clone(),
            SetExpr::Values(values) => {
                for value in values.rows.iter().flat_map(|row| row.content.iter()) {
                    self.refuse(value, "VALUES")?;
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        if let Some(OrderByKind::Expressions(keys)) = query.order_by.as_mut().map(|order| &mut order.kind) {
            for key in keys {
                // The rows are sorted after they are unnested, so a key that is also selected is
                // named by its position.
                let place = projection.iter().position(|item| selected(item).is_some_and(|expr| *expr == key.expr));
                match place {
                    Some(place) if self.contains(&key.expr)? => {
                        key.expr = Expr::Value(Value::Number((place + 1).to_string(), false).with_empty_span());
                    }
                    _ => self.refuse(&key.expr, "ORDER BY, if it is not selected too")?,
                }
            }
        }
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                counts.into_iter().try_for_each(|count| self.refuse(count, "LIMIT"))
            }
            _ => Ok(()),
        }
    }

    fn in_select(&self, select: &mut Select) -> Result<(), Error> {
        if let Some(condition) = &select.selection {
            self.refuse(condition, "WHERE")?;
        }
        if let Some(condition) = &select.having {
            self.refuse(condition, "HAVING")?;
        }
        for join in select.from.iter().flat_map(|tables| &tables.joins) {
            if let (_, Some(JoinConstraint::On(condition))) = joins::kind(&join.join_operator) {
                self.refuse(condition, "JOIN conditions")?;
            }
        }
        for item in &mut select.projection {
            let name = item_name(item);
            let expr = match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr,
                _ => continue,
            };
            if !self.contains(expr)? {
                continue;
            }
            unnest_in(expr);
            if let SelectItem::UnnamedExpr(expr) = item
                && name != UNKNOWN
            {
                // A query around this one refers to the column by its name as written.
                let expr = taken(expr);
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
            }
        }
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            for key in keys {
                if self.contains(key)? {
                    unnest_in(key);
                }
            }
        }
        Ok(())
    }

    fn in_table_factor(&self, factor: &mut TableFactor) -> Result<(), Error> {
        let (lateral, name, arguments, with_ordinality, alias) = match factor {
            TableFactor::Table { name, alias, args: Some(TableFunctionArgs { args, .. }), with_ordinality, .. } => {
                (false, name.clone(), args.clone(), *with_ordinality, alias.clone())
            }
            TableFactor::Function { lateral, name, args, with_ordinality, alias } => {
                (*lateral, name.clone(), args.clone(), *with_ordinality, alias.clone())
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
                let arguments = array_exprs.iter().cloned();
                let arguments = arguments.map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
                let name = sqlparser::ast::ObjectName::from(vec![Ident::new("unnest")]);
                (false, name, arguments, *with_ordinality, alias.clone())
            }
            _ => return Ok(()),
        };
        let Some(function) = identifiers(&name).and_then(|parts| parts.last().map(|last| fold(last))) else {
            return Ok(());
        };
        let arguments = arguments.into_iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        });
        let Some(arguments) = arguments.collect::<Option<Vec<Expr>>>() else { return Ok(()) };
        for argument in &arguments {
            self.refuse(argument, "the arguments of another")?;
        }
        let refers = arguments.iter().any(refers_to_columns);
        let is_plain = function == "generate_series" && !with_ordinality && arguments.iter().all(is_number);
        let Some(columns) = columns(&function, &arguments) else { return Ok(()) };
        let mut items: Vec<(String, Expr)> = columns;
        let is_single = items.len() == 1;
        if with_ordinality {
            let lists = items.iter().filter_map(|(_, expr)| unnested_list(expr).cloned()).collect();
            items.push((ORDINALITY.to_owned(), call("unnest", vec![call(ORDINALS, lists)])));
        }
        let mut alias = alias.unwrap_or_else(|| named(Ident::new(function.clone())));
        if is_single && alias.columns.is_empty() && !function.starts_with("jsonb_array") {
            // The single column of such a function has the function's name in this FROM.
            items[0].0 = fold(&alias.name);
        }
        if !alias.columns.is_empty() {
            let missing = items.iter().skip(alias.columns.len()).map(|(name, _)| column(name));
            let missing: Vec<TableAliasColumnDef> = missing.collect();
            alias.columns.extend(missing);
        }
        if is_plain {
            *factor = plain_series(&items[0].0, &arguments, alias)?;
            return Ok(());
        }
        *factor = derived(items, alias, lateral || refers)?;
        Ok(())
    }

    /// True if it calls a set-returning function outside its sub-queries.
    fn contains(&self, expr: &Expr) -> Result<bool, Error> {
        let mut search = Search { is_aggregate: self.is_aggregate, queries: 0, around: Vec::new(), found: false };
        match Visit::visit(expr, &mut search) {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(search.found),
        }
    }

    fn refuse(&self, expr: &Expr, place: &str) -> Result<(), Error> {
        if self.contains(expr)? { Err(misplaced(place)) } else { Ok(()) }
    }
}

fn misplaced(place: &str) -> Error {
    Error::unsupported(format!("set-returning functions are not allowed in {place}"))
        .with_hint("call it in the SELECT list of a sub-query")
}

/// Searches an expression for set-returning functions, and for the expressions around them.
struct Search<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    queries: usize,
    /// For each enclosing expression that refuses such functions, its name in the error.
    around: Vec<Option<String>>,
    found: bool,
}

impl Visitor for Search<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Error> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Error> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        if self.queries > 0 {
            return ControlFlow::Continue(());
        }
        let is_set = matches!(expr, Expr::Function(function) if is_set_function(function));
        if is_set {
            if let Some(place) = self.around.iter().flatten().next() {
                return ControlFlow::Break(misplaced(place));
            }
            self.found = true;
        }
        self.around.push(match expr {
            Expr::Case { .. } => Some("CASE".to_owned()),
            Expr::Function(function) => {
                let name = folded(function).unwrap_or_default();
                let refuses = is_set
                    || function.over.is_some()
                    || matches!(name.as_str(), "coalesce" | "nullif" | "greatest" | "least")
                    || (self.is_aggregate)(&name);
                refuses.then(|| if is_set { "the arguments of another".to_owned() } else { format!("{name}()") })
            }
            _ => None,
        });
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        if self.queries == 0 {
            self.around.pop();
        }
        ControlFlow::Continue(())
    }
}

fn folded(function: &Function) -> Option<String> {
    identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last)))
}

fn is_set_function(function: &Function) -> bool {
    function.over.is_none() && folded(function).is_some_and(|name| name == "unnest" || set_function(&name).is_some())
}

/// Wraps `unnest` around the lists of set-returning functions. Sub-queries are visited separately,
/// and have no such functions left then.
fn unnest_in(expr: &mut Expr) {
    let _finished = visit_expressions_mut(expr, |expr| {
        if let Expr::Function(function) = expr
            && is_set_function(function)
            && let Some(list) = folded(function).and_then(|name| set_function(&name))
        {
            function.name = sqlparser::ast::ObjectName::from(vec![Ident::new(list)]);
            let is_jsonb = list_holds_jsonb(list);
            let rows = call("unnest", vec![taken(expr)]);
            *expr = if is_jsonb { call(KEPT, vec![rows]) } else { rows };
        }
        ControlFlow::<()>::Continue(())
    });
}

/// True if an item has the alias of a column that another item reads. DataFusion confuses the two
/// when sets are selected.
fn hides_column(select: &Select) -> bool {
    if select.distinct.is_some() {
        return false;
    }
    let mut columns = Vec::new();
    for expr in select.projection.iter().filter_map(selected) {
        let _finished = sqlparser::ast::visit_expressions(expr, |expr| {
            match expr {
                Expr::Identifier(name) => columns.push(fold(name)),
                Expr::CompoundIdentifier(parts) => columns.extend(parts.last().map(fold)),
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        });
    }
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) && columns.contains(&fold(alias))
        }
        _ => false,
    })
}

/// Selects the items under hidden names, and renames them in a query around that.
fn wrap(select: &mut Select) -> Result<(), Error> {
    let (mut inner, mut outer) = (select.clone(), Vec::with_capacity(select.projection.len()));
    for (index, item) in inner.projection.iter_mut().enumerate() {
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), Ident::with_quote('"', item_name(item))),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.clone()),
            // A wildcard's columns are not known here.
            _ => return Ok(()),
        };
        let hidden = Ident::with_quote('"', format!("\u{2063}item{index}"));
        outer.push(SelectItem::ExprWithAlias { expr: Expr::Identifier(hidden.clone()), alias: name });
        *item = SelectItem::ExprWithAlias { expr, alias: hidden };
    }
    let mut around = query("SELECT 1 FROM (SELECT 1) AS items")?;
    let SetExpr::Select(around) = around.body.as_mut() else { return Ok(()) };
    if let Some(TableFactor::Derived { subquery, .. }) = around.from.first_mut().map(|tables| &mut tables.relation) {
        *subquery.body = SetExpr::Select(Box::new(inner));
    }
    around.projection = outer;
    *select = std::mem::replace(around, select.clone());
    Ok(())
}

fn selected(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// The columns of a set-returning function in FROM; `None` for other functions.
fn columns(function: &str, arguments: &[Expr]) -> Option<Vec<(String, Expr)>> {
    let unnest = |list: &str| {
        let rows = call("unnest", vec![call(list, arguments.to_vec())]);
        if list_holds_jsonb(list) { call(KEPT, vec![rows]) } else { rows }
    };
    Some(match function {
        "unnest" => {
            let columns = arguments.iter().map(|argument| call("unnest", vec![argument.clone()]));
            columns.map(|column| (function.to_owned(), column)).collect()
        }
        "jsonb_each" => {
            vec![("key".to_owned(), unnest(set_function("jsonb_object_keys")?)), ("value".to_owned(), unnest(MEMBERS))]
        }
        "jsonb_each_text" => vec![
            ("key".to_owned(), unnest(set_function("jsonb_object_keys")?)),
            ("value".to_owned(), unnest(MEMBER_TEXTS)),
        ],
        "jsonb_array_elements" | "jsonb_array_elements_text" => {
            vec![("value".to_owned(), unnest(set_function(function)?))]
        }
        _ => vec![(function.to_owned(), unnest(set_function(function)?))],
    })
}

/// The list that a column unnests.
fn unnested_list(expr: &Expr) -> Option<&Expr> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(arguments) = &function.args else { return None };
    match arguments.args.first() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))) => match folded(function).as_deref() {
            Some("unnest") => Some(inner),
            _ => unnested_list(inner),
        },
        _ => None,
    }
}

fn named(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: Vec::new(), at: None }
}

fn column(name: &str) -> TableAliasColumnDef {
    TableAliasColumnDef { name: Ident::with_quote('"', name), data_type: None }
}

/// A sub-query that selects these columns.
fn derived(items: Vec<(String, Expr)>, alias: TableAlias, lateral: bool) -> Result<TableFactor, Error> {
    let mut subquery = query("SELECT 1")?;
    if let SetExpr::Select(select) = subquery.body.as_mut() {
        let item = |(name, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        select.projection = items.into_iter().map(item).collect();
    }
    Ok(TableFactor::Derived { lateral, subquery, alias: Some(alias), sample: None })
}

/// A series of literal whole numbers. DataFusion's table function computes it batch by batch,
/// whatever its length.
fn plain_series(name: &str, arguments: &[Expr], alias: TableAlias) -> Result<TableFactor, Error> {
    let texts: Vec<String> = arguments.iter().map(|argument| argument.to_string().replace(' ', "")).collect();
    let is_small = texts.iter().all(|text| text.parse::<i32>().is_ok());
    let ty = if is_small { "integer" } else { "bigint" };
    let name = name.replace('"', "\"\"");
    // The table function takes only bigints.
    let bigints: Vec<String> = texts.iter().map(|text| format!("CAST({text} AS bigint)")).collect();
    let text = format!("SELECT CAST(value AS {ty}) AS \"{name}\" FROM {NUMBERS}({})", bigints.join(", "));
    Ok(TableFactor::Derived { lateral: false, subquery: query(&text)?, alias: Some(alias), sample: None })
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, Value::Number(digits, _) if digits.parse::<i64>().is_ok()),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => is_number(expr),
        _ => false,
    }
}

fn refers_to_columns(expr: &Expr) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Columns).is_break()
}
