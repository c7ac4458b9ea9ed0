//! `INSERT … ON CONFLICT`: the rule of a statement for rows whose keys are there already.
//!
//! Unless the table's rule does the same, the new rows are joined with the stored ones. A row that
//! is written replaces the stored one by a delete, whatever the table's rule is. Two rows of one
//! statement with the same key are the caller's to find ([`Again`]).

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Ident, Query, visit_expressions_mut};
use weir_common::plan::Conflict;

use super::{Again, Rows, Writing, build, default, insert, is_default};
use crate::error::{Error, sqlstate};
use crate::parser::{ConflictKey, Insert, OnConflict, fold};

/// The name that DO UPDATE gives the rows that are to be inserted.
const EXCLUDED: &str = "excluded";

impl Writing<'_> {
    /// The rule of an INSERT, unless the table's rule does the same.
    ///
    /// # Errors
    /// If the statement names no key of the table, or the table cannot be written by such a rule.
    pub(super) fn own_rule<'i>(&self, insert: &'i Insert) -> Result<Option<&'i OnConflict>, Error> {
        let Some(rule) = &insert.on_conflict else { return Ok(None) };
        let relation = self.target.relation;
        let key: Vec<&str> =
            relation.declared_key().iter().map(|place| relation.columns[*place].name.as_str()).collect();
        let is_known = match &rule.key {
            None => true,
            Some(ConflictKey::Columns(named)) => {
                named.iter().all(|name| key.contains(&name.as_str()))
                    && key.iter().all(|name| named.iter().any(|named| named == name))
            }
            Some(ConflictKey::Constraint(name)) => !key.is_empty() && *name == format!("{}_pkey", relation.name.name),
        };
        if !is_known {
            let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
            return Err(self.at(Error::user(sqlstate::INVALID_COLUMN_REFERENCE, message), self.write.table.location));
        }
        let is_same = match (&rule.update, self.target.conflict) {
            // No two rows are in conflict.
            _ if key.is_empty() => true,
            (None, conflict) => conflict == Conflict::DoNothing,
            (Some(_), Conflict::Overwrite) => self.overwrites(rule),
            (Some(_), _) => false,
        };
        if !is_same && !self.target.is_changeable {
            let message = format!(
                "ON CONFLICT of an INSERT into \"{}\" is not supported: its rows are never updated or deleted",
                relation.name
            );
            let error = Error::unsupported(message).with_hint("leave the clause out: the table has a rule of its own");
            return Err(self.at(error, self.write.table.location));
        }
        Ok(Some(rule).filter(|_| !is_same))
    }

    /// Returns true if a DO UPDATE assigns every column outside of the key its new value.
    fn overwrites(&self, rule: &OnConflict) -> bool {
        let Some(update) = &rule.update else { return false };
        let is_new = |name: &str, value: &Expr| match value {
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [excluded, value] => fold(excluded) == EXCLUDED && fold(value) == name,
                _ => false,
            },
            _ => false,
        };
        let assigns = |name: &str| update.assignments.iter().any(|(column, _)| column.name == name);
        let key = self.target.relation.declared_key();
        let mut rest = self.columns().iter().enumerate().filter(|(place, _)| !key.contains(place));
        update.selection.is_none()
            && update.assignments.iter().all(|(column, value)| is_new(&column.name, value))
            && rest.all(|(_, column)| assigns(&column.name))
    }

    /// The rows that are written of those of a query of plain columns, by the rule of a statement.
    pub(super) fn resolved(&self, rows: Box<Query>, rule: &OnConflict) -> Result<Rows, Error> {
        let (relation, alias) = (self.target.relation, &self.write.alias);
        let new = Ident::new(EXCLUDED);
        let rows = self.with_generated(rows, &[], &[])?;
        let key = relation.declared_key();
        let pair = |place: &usize| {
            let name = &relation.columns[*place].name;
            (build::column(alias, name), build::column(&new, name))
        };
        let is_equal = |(old, new)| build::binary(old, BinaryOperator::Eq, new);
        let condition = key.iter().map(pair).map(is_equal).reduce(|a, b| build::binary(a, BinaryOperator::And, b));
        let condition = condition.ok_or_else(|| Error::internal("a table without a key has no rule"))?;
        let from = build::left_join(rows, &new, (&relation.name, alias), condition)?;
        let is_new = || Expr::IsNull(Box::new(pair(&key[0]).0));
        let values = match &rule.update {
            None => None,
            Some(update) => Some(self.assigned(update)?),
        };
        if values.iter().flatten().any(|(place, _)| key.contains(place)) {
            return Err(Error::unsupported("ON CONFLICT DO UPDATE cannot change columns of the key"));
        }
        let names: Vec<String> = (0..key.len()).map(|place| format!("?key{place}")).collect();
        let mut items: Vec<_> =
            key.iter().map(pair).zip(&names).map(|((_, value), name)| build::item(value, name)).collect();
        for place in self.plain() {
            let column = &self.columns()[place];
            let inserted = build::column(&new, &column.name);
            let value = match &values {
                None => inserted,
                Some(values) => {
                    let value = match values.iter().find(|(assigned, _)| *assigned == place) {
                        Some((_, value)) if is_default(value) => default(column)?,
                        Some((_, value)) => build::assign(self.of_stored((*value).clone())?, column)?,
                        None => build::column(alias, &column.name),
                    };
                    build::choose(is_new(), inserted, value)?
                }
            };
            items.push(build::item(value, &column.name));
        }
        let selection = match &rule.update {
            None => Some(is_new()),
            Some(update) => match &update.selection {
                None => None,
                Some(condition) => {
                    let condition = Expr::Nested(Box::new(self.of_stored(condition.clone())?));
                    Some(build::binary(is_new(), BinaryOperator::Or, condition))
                }
            },
        };
        let again = if rule.update.is_some() { Again::Refused } else { Again::LeftOut };
        let query = build::select(items, vec![from], selection)?;
        self.changed(query, (&names, &[]), self.returning(), again)
    }

    /// An expression of DO UPDATE, in which columns without a table are those of the stored row.
    fn of_stored(&self, mut expr: Expr) -> Result<Expr, Error> {
        if insert::has_query(&expr) {
            return Err(Error::unsupported("sub-queries in ON CONFLICT DO UPDATE are not supported yet"));
        }
        let _finished = visit_expressions_mut(&mut expr, |expr| {
            if let Expr::Identifier(name) = expr
                && self.columns().iter().any(|column| column.name == fold(name))
            {
                *expr = Expr::CompoundIdentifier(vec![self.write.alias.clone(), name.clone()]);
            }
            ControlFlow::<()>::Continue(())
        });
        Ok(expr)
    }
}
