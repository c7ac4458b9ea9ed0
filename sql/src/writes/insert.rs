//! `INSERT`: each row of VALUES, or of a query, as a row of the table.

use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Visit, Visitor};
use weir_common::catalog::Column;

use super::{Again, Literals, Rows, Shape, Writing, build, default, generated, is_default};
use crate::error::{Error, sqlstate};
use crate::parser::{Insert, OnConflict};

/// The name of a query's rows in FROM.
const SOURCE: &str = "weir rows";

/// The number of columns of an INSERT's rows, as far as its text tells.
pub(super) fn width(query: &Query) -> Option<usize> {
    match query.body.as_ref() {
        SetExpr::Values(values) => Some(values.rows.first().map_or(0, |row| row.content.len())),
        SetExpr::Select(select) => {
            let is_one =
                |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
            select.projection.iter().all(is_one).then_some(select.projection.len())
        }
        SetExpr::Query(query) => width(query),
        _ => None,
    }
}

impl Writing<'_> {
    pub(super) fn insert(&self, insert: &Insert, counted: Option<usize>) -> Result<Rows, Error> {
        let rule = self.own_rule(insert)?;
        let rows = match insert.rows.as_deref() {
            None => vec![Vec::new()],
            Some(query) => match values(query) {
                Some(rows) => rows,
                None => return self.insert_query(insert, query, (counted, rule)),
            },
        };
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|row| row.len() != width) {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "VALUES lists must all be the same length"));
        }
        let named = if insert.rows.is_some() { self.named(insert, width)? } else { Vec::new() };
        let plain = self.plain();
        let is_computed = plain.len() < self.columns().len();
        let literals = if is_computed || rule.is_some() || !self.write.returning.is_empty() {
            None
        } else {
            Literals::of(self.columns(), &named, &rows)
        };
        let mut cells = Vec::with_capacity(rows.len());
        for row in &rows {
            self.check_generated(&named, row)?;
            cells.push(self.cells(&plain, &named, row)?);
        }
        let query = self.query_of(&plain, cells)?;
        match rule {
            Some(rule) => self.resolved(query, rule),
            None => self.inserted(query, literals),
        }
    }

    /// The values of a row's plain columns.
    fn cells(&self, plain: &[usize], named: &[usize], row: &[Expr]) -> Result<Vec<Expr>, Error> {
        let value = |place: &usize| {
            let column = &self.columns()[*place];
            match named.iter().position(|named| named == place) {
                Some(at) if !is_default(&row[at]) => build::assign(row[at].clone(), column),
                _ => default(column),
            }
        };
        plain.iter().map(value).collect()
    }

    /// A query whose rows have these values.
    fn query_of(&self, plain: &[usize], rows: Vec<Vec<Expr>>) -> Result<Box<Query>, Error> {
        let names: Vec<&str> = plain.iter().map(|place| self.columns()[*place].name.as_str()).collect();
        let selected = |row: Vec<Expr>| {
            let items = row.into_iter().zip(&names).map(|(value, name)| build::item(value, name));
            build::select(items.collect(), Vec::new(), None)
        };
        if rows.len() == 1 || rows.iter().flatten().any(has_query) {
            // DataFusion's VALUES takes no sub-queries.
            let mut all: Option<Box<Query>> = None;
            for row in rows {
                let next = selected(row)?;
                all = Some(match all {
                    None => next,
                    Some(mut before) => {
                        before.body = Box::new(SetExpr::SetOperation {
                            op: SetOperator::Union,
                            set_quantifier: SetQuantifier::All,
                            left: before.body,
                            right: next.body,
                        });
                        before
                    }
                });
            }
            return all.ok_or_else(|| Error::internal("an INSERT has no rows"));
        }
        let mut values = build::values()?;
        if let SetExpr::Values(written) = values.body.as_mut() {
            written.rows = rows.into_iter().map(ast::Parens::with_empty_span).collect();
        }
        let mut from = build::derived(values, &Ident::with_quote('"', SOURCE))?;
        build::rename(&mut from, names.iter().map(|name| (*name).to_owned()));
        let items = names.iter().map(|name| build::item(build::name(name), name)).collect();
        build::select(items, vec![from], None)
    }

    fn insert_query(
        &self,
        insert: &Insert,
        query: &Query,
        (counted, rule): (Option<usize>, Option<&OnConflict>),
    ) -> Result<Rows, Error> {
        let mut query = Box::new(query.clone());
        let width =
            width(&query).or(counted).ok_or_else(|| Error::internal("the columns of a query are not counted"))?;
        let named = self.named(insert, width)?;
        if let Some(place) = named.iter().find(|place| generated(&self.columns()[**place]).is_some()) {
            return Err(self.is_generated(&self.columns()[*place]));
        }
        self.cast_literals(&mut query, &named)?;
        let source = Ident::with_quote('"', SOURCE);
        let numbered = |place: usize| format!("?{place}");
        let mut from = build::derived(query, &source)?;
        build::rename(&mut from, (0..width).map(numbered));
        let value = |place: usize| {
            let column = &self.columns()[place];
            let value = match named.iter().position(|named| *named == place) {
                Some(at) => build::assign(build::column(&source, &numbered(at)), column)?,
                None => default(column)?,
            };
            Ok(build::item(value, &column.name))
        };
        let items = self.plain().into_iter().map(value).collect::<Result<_, Error>>()?;
        let query = build::select(items, vec![from], None)?;
        match rule {
            Some(rule) => self.resolved(query, rule),
            None => self.inserted(query, None),
        }
    }

    /// Gives literals and parameters of a SELECT the types of their columns.
    fn cast_literals(&self, query: &mut Query, named: &[usize]) -> Result<(), Error> {
        let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
        if select.distinct.is_some() {
            return Ok(());
        }
        for (item, place) in select.projection.iter_mut().zip(named) {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && build::is_open(expr)
            {
                *expr = build::assign(expr.clone(), &self.columns()[*place])?;
            }
        }
        Ok(())
    }

    /// Adds generated columns and RETURNING to a query of plain columns.
    fn inserted(&self, query: Box<Query>, literals: Option<Literals>) -> Result<Rows, Error> {
        let mut query = self.with_generated(query, &[], &[])?;
        let returns = !self.write.returning.is_empty();
        if returns {
            let alias = &self.write.alias;
            let own = self.columns().iter().map(|column| build::item(build::column(alias, &column.name), &column.name));
            let items = own.chain(self.returning()).collect();
            query = build::select(items, vec![build::derived(query, alias)?], None)?;
        }
        let shape = Shape { deleted: 0, inserted: self.columns().len(), returns, again: Again::Kept };
        Ok(Rows { query: Box::new(ast::Statement::Query(query)), shape, literals })
    }

    /// The places of the columns that the rows have.
    fn named(&self, insert: &Insert, width: usize) -> Result<Vec<usize>, Error> {
        let all = self.columns().len();
        let wrong = |message: &str| Error::user(sqlstate::SYNTAX_ERROR, message);
        if insert.columns.is_empty() {
            let message = "INSERT has more expressions than target columns";
            return if width > all { Err(wrong(message)) } else { Ok((0..width).collect()) };
        }
        let mut places = Vec::with_capacity(insert.columns.len());
        for column in &insert.columns {
            let place = self.place(&column.name, column.location)?;
            if places.contains(&place) {
                let message = format!("column \"{}\" specified more than once", column.name);
                return Err(self.at(Error::user(sqlstate::DUPLICATE_COLUMN, message), column.location));
            }
            places.push(place);
        }
        match width.cmp(&places.len()) {
            std::cmp::Ordering::Greater => Err(wrong("INSERT has more expressions than target columns")),
            std::cmp::Ordering::Less => Err(wrong("INSERT has more target columns than expressions")),
            std::cmp::Ordering::Equal => Ok(places),
        }
    }

    fn check_generated(&self, named: &[usize], row: &[Expr]) -> Result<(), Error> {
        for (place, value) in named.iter().zip(row) {
            let column = &self.columns()[*place];
            if generated(column).is_some() && !is_default(value) {
                return Err(self.is_generated(column));
            }
        }
        Ok(())
    }

    fn is_generated(&self, column: &Column) -> Error {
        let message = format!("cannot insert a non-DEFAULT value into column \"{}\"", column.name);
        let detail = format!("column \"{}\" is a generated column", column.name);
        Error::user(sqlstate::GENERATED_ALWAYS, message).with_detail(detail)
    }
}

/// The rows of a query that is nothing but VALUES.
fn values(query: &Query) -> Option<Vec<Vec<Expr>>> {
    let is_bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    match query.body.as_ref() {
        SetExpr::Values(values) if is_bare => Some(values.rows.iter().map(|row| row.content.clone()).collect()),
        _ => None,
    }
}

pub(super) fn has_query(expr: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    expr.visit(&mut Queries).is_break()
}
