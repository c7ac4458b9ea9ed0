//! `UPDATE` and `DELETE`: the rows of the table that match, with their stored keys.

use std::ops::ControlFlow;

use sqlparser::ast::{self, Expr, Ident, Query, SelectItem, TableWithJoins, visit_expressions_mut};

use super::{Again, Rows, Shape, Writing, build, default, generated, is_default};
use crate::error::{Error, sqlstate};
use crate::parser::{Delete, Update, fold};

impl Writing<'_> {
    pub(super) fn update(&self, update: &Update) -> Result<Rows, Error> {
        let alias = &self.write.alias;
        let values = self.assigned(update)?;
        let (keys, mut items) = self.keys();
        for place in self.plain() {
            let column = &self.columns()[place];
            let value = match values.iter().find(|(assigned, _)| *assigned == place) {
                Some((_, value)) if is_default(value) => default(column)?,
                Some((_, value)) => build::assign((*value).clone(), column)?,
                None => build::column(alias, &column.name),
            };
            items.push(build::item(value, &column.name));
        }
        let mut returning = self.returning();
        let passed = self.passed(&mut returning, !update.from.is_empty())?;
        items.extend(passed.iter().map(|(name, expr)| build::item(expr.clone(), name)));
        let from = self.tables(&update.from)?;
        let query = build::select(items, from, update.selection.clone())?;
        let names: Vec<String> = passed.into_iter().map(|(name, _)| name).collect();
        let again = if update.from.is_empty() { Again::Kept } else { Again::LeftOut };
        self.changed(query, (&keys, &names), returning, again)
    }

    /// The rows of a query of keys, plain columns and whatever `passed` names, which replace those
    /// with the keys.
    pub(super) fn changed(
        &self,
        query: Box<Query>,
        (keys, passed): (&[String], &[String]),
        returning: Vec<SelectItem>,
        again: Again,
    ) -> Result<Rows, Error> {
        let alias = &self.write.alias;
        let mut query = self.with_generated(query, keys, passed)?;
        let returns = !returning.is_empty();
        if returns {
            let own = keys.iter().map(|key| build::item(build::name(key), key));
            let new = self.columns().iter().map(|column| build::item(build::column(alias, &column.name), &column.name));
            let items = own.chain(new).chain(returning).collect();
            query = build::select(items, vec![build::derived(query, alias)?], None)?;
        }
        let shape = Shape { deleted: keys.len(), inserted: self.columns().len(), returns, again };
        Ok(Rows { query: Box::new(ast::Statement::Query(query)), shape, literals: None })
    }

    pub(super) fn delete(&self, delete: &Delete) -> Result<Rows, Error> {
        let (keys, mut items) = self.keys();
        let returning = self.returning();
        let returns = !returning.is_empty();
        items.extend(returning);
        let query = build::select(items, self.tables(&delete.using)?, delete.selection.clone())?;
        let again = if delete.using.is_empty() { Again::Kept } else { Again::LeftOut };
        let shape = Shape { deleted: keys.len(), inserted: 0, returns, again };
        Ok(Rows { query: Box::new(ast::Statement::Query(query)), shape, literals: None })
    }

    /// The columns of the key that rows are stored under: their names in the query, and the items
    /// that select them.
    fn keys(&self) -> (Vec<String>, Vec<SelectItem>) {
        let relation = self.target.relation;
        let names: Vec<String> = (0..relation.primary_key.len()).map(|place| format!("?key{place}")).collect();
        let items = relation.primary_key.iter().zip(&names);
        let items = items
            .map(|(place, name)| build::item(build::column(&self.write.alias, &relation.column(*place).name), name));
        let items = items.collect();
        (names, items)
    }

    /// The table with its hidden columns, and the other tables of the statement.
    fn tables(&self, others: &[TableWithJoins]) -> Result<Vec<TableWithJoins>, Error> {
        let mut tables = vec![build::stored(&self.target.relation.name, &self.write.alias)?];
        tables.extend(others.iter().cloned());
        Ok(tables)
    }

    /// The assignments by the places of their columns.
    pub(super) fn assigned<'u>(&self, update: &'u Update) -> Result<Vec<(usize, &'u Expr)>, Error> {
        let mut assigned: Vec<(usize, &Expr)> = Vec::with_capacity(update.assignments.len());
        for (column, value) in &update.assignments {
            let place = self.place(&column.name, column.location)?;
            if assigned.iter().any(|(known, _)| *known == place) {
                let message = format!("multiple assignments to same column \"{}\"", column.name);
                return Err(self.at(Error::user(sqlstate::SYNTAX_ERROR, message), column.location));
            }
            if generated(&self.columns()[place]).is_some() {
                if is_default(value) {
                    continue;
                }
                let message = format!("column \"{}\" can only be updated to DEFAULT", column.name);
                let detail = format!("column \"{}\" is a generated column", column.name);
                let error = Error::user(sqlstate::GENERATED_ALWAYS, message).with_detail(detail);
                return Err(self.at(error, column.location));
            }
            assigned.push((place, value));
        }
        Ok(assigned)
    }

    /// Takes the columns of other tables out of the items of RETURNING. Returns them with the names
    /// under which the items refer to them.
    fn passed(&self, returning: &mut [SelectItem], has_others: bool) -> Result<Vec<(String, Expr)>, Error> {
        let mut passed: Vec<(String, Expr)> = Vec::new();
        if !has_others {
            return Ok(passed);
        }
        let alias = fold(&self.write.alias);
        for item in returning {
            let (expr, shown) = match item {
                SelectItem::UnnamedExpr(expr) => {
                    let shown = column_name(expr);
                    (expr, shown)
                }
                SelectItem::ExprWithAlias { expr, .. } => (expr, None),
                _ => return Err(Error::internal("a wildcard of RETURNING was not replaced")),
            };
            let before = passed.len();
            let _finished = visit_expressions_mut(expr, |expr| {
                let is_other = match &*expr {
                    Expr::CompoundIdentifier(parts) => parts.first().is_some_and(|first| fold(first) != alias),
                    Expr::Identifier(name) => self.columns().iter().all(|column| column.name != fold(name)),
                    _ => false,
                };
                if is_other {
                    let name = format!("?other{}", passed.len());
                    let other = std::mem::replace(expr, build::name(&name));
                    passed.push((name, other));
                }
                ControlFlow::<()>::Continue(())
            });
            if let (Some(shown), true) = (shown, passed.len() > before) {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: shown };
            }
        }
        Ok(passed)
    }
}

/// The name of a column that an expression is.
fn column_name(expr: &Expr) -> Option<Ident> {
    match expr {
        Expr::Identifier(name) => Some(name.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().cloned(),
        _ => None,
    }
}
