//! Statements that write, as queries for the rows that they write.
//!
//! `INSERT`, `UPDATE` and `DELETE` become a SELECT whose columns are, in this order: the stored
//! keys of the rows that are deleted, the columns of the rows that are inserted, and the items of
//! RETURNING ([`Shape`]). The caller sends the first two to the table, and answers with the third.
//! UPDATE deletes a row and inserts another one.
//!
//! * `insert`, `conflict`, `change`: the commands;
//! * `returning`: the columns of other tables that RETURNING wants;
//! * `build`: pieces of queries; each value is converted by [`crate::functions`]' `weir_assign`;
//! * `literal`: rows of literals and parameters, which need no query.
//!
//! Owns the checks of names and numbers of columns. NOT NULL is checked on the rows.

mod build;
mod change;
mod conflict;
mod insert;
mod literal;
mod returning;
#[cfg(test)]
mod tests;

use sqlparser::ast::{self, Expr, Ident, Query, SelectItem, SelectItemQualifiedWildcardKind};
use sqlparser::tokenizer::Location;
use weir_common::catalog::{Column, Relation};
use weir_common::plan::Conflict;

pub use build::STORED;
pub use literal::Literals;
pub use returning::{Others, others};

use crate::error::{Error, sqlstate};
use crate::parser::{Command, Delete, Parsed, Write, fold};

/// A statement that writes, as a query.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The query.
    pub query: Box<ast::Statement>,
    /// The meaning of its columns.
    pub shape: Shape,
    /// The same rows without a query, if they are literals and parameters.
    pub literals: Option<Literals>,
}

/// The meaning of a query's columns. Further columns are the answer to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of columns that are keys of deleted rows.
    pub deleted: usize,
    /// The number of columns that are a new row's.
    pub inserted: usize,
    /// True if the client gets rows.
    pub returns: bool,
    /// What becomes of a row with a key that a row before it has.
    pub again: Again,
}

/// What becomes of a row of a statement with a key that a row before it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It is written, as the table's rule says.
    Kept,
    /// It is left out.
    LeftOut,
    /// The statement fails.
    Refused,
}

/// The table that a statement writes to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its relation.
    pub relation: &'a Relation,
    /// Its rule for a row whose key is there already.
    pub conflict: Conflict,
    /// True if statements may update and delete its rows.
    pub is_changeable: bool,
}

/// Makes a query of a statement that writes. `width` is the number of columns of the query of an
/// INSERT, where [`needs_width`] asks for it.
///
/// # Errors
/// The user's, with SQLSTATE and position.
pub fn rows(parsed: &Parsed, write: &Write, target: Target<'_>, width: Option<usize>) -> Result<Rows, Error> {
    let writing = Writing { parsed, write, target };
    let mut rows = match &write.command {
        Command::Insert(insert) => writing.insert(insert, width)?,
        Command::Update(update) => writing.update(update)?,
        Command::Delete(delete) => writing.delete(delete)?,
        Command::Truncate => writing.delete(&Delete { using: Vec::new(), selection: None })?,
    };
    if let (Some(with), ast::Statement::Query(query)) = (&write.with, rows.query.as_mut()) {
        query.with = Some(with.clone());
    }
    Ok(rows)
}

/// The query of an INSERT whose number of columns its text does not tell.
pub fn needs_width(write: &Write) -> Option<Box<Query>> {
    let Command::Insert(insert) = &write.command else { return None };
    let query = insert.rows.as_ref().filter(|query| insert::width(query).is_none())?;
    let mut query = query.clone();
    query.with = query.with.or_else(|| write.with.clone());
    Some(query)
}

/// A statement and its table.
#[derive(Clone, Copy)]
struct Writing<'a> {
    parsed: &'a Parsed,
    write: &'a Write,
    target: Target<'a>,
}

impl<'a> Writing<'a> {
    fn columns(&self) -> &'a [Column] {
        &self.target.relation.columns
    }

    /// The places of the columns that are not computed from others.
    fn plain(&self) -> Vec<usize> {
        (0..self.columns().len()).filter(|place| generated(&self.columns()[*place]).is_none()).collect()
    }

    fn at(&self, error: Error, location: Location) -> Error {
        error.at(self.parsed.position(location))
    }

    /// The place of a column that the statement names.
    fn place(&self, name: &str, location: Location) -> Result<usize, Error> {
        self.columns().iter().position(|column| column.name == name).ok_or_else(|| {
            let message = format!("column \"{name}\" of relation \"{}\" does not exist", self.target.relation.name);
            self.at(Error::user(sqlstate::UNDEFINED_COLUMN, message), location)
        })
    }

    /// The query over a query of keys, plain columns and whatever `passed` names, that adds the
    /// generated columns. Returns the query itself if there are none.
    fn with_generated(&self, query: Box<Query>, keys: &[String], passed: &[String]) -> Result<Box<Query>, Error> {
        if self.columns().iter().all(|column| generated(column).is_none()) {
            return Ok(query);
        }
        let own = |name: &String| build::item(build::name(name), name);
        let mut items: Vec<SelectItem> = keys.iter().map(own).collect();
        for column in self.columns() {
            let value = match generated(column) {
                Some(text) => build::assign(build::expression(text)?, column)?,
                None => build::name(&column.name),
            };
            items.push(build::item(value, &column.name));
        }
        items.extend(passed.iter().map(own));
        build::select(items, vec![build::derived(query, &self.write.alias)?], None)
    }

    /// The items of RETURNING, over the columns of the table under its alias. Wildcards become
    /// columns.
    fn returning(&self) -> Vec<SelectItem> {
        let alias = &self.write.alias;
        let mut items = Vec::new();
        for item in &self.write.returning {
            match item {
                SelectItem::Wildcard(_) => items.extend(self.all(alias)),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _)
                    if name.0.len() == 1 && name.0[0].as_ident().is_some_and(|ident| fold(ident) == fold(alias)) =>
                {
                    items.extend(self.all(alias));
                }
                item => items.push(item.clone()),
            }
        }
        items
    }

    fn all(&self, alias: &Ident) -> impl Iterator<Item = SelectItem> {
        let alias = alias.clone();
        self.columns().iter().map(move |column| SelectItem::UnnamedExpr(build::column(&alias, &column.name)))
    }
}

/// The expression of a generated column.
fn generated(column: &Column) -> Option<&str> {
    column.constraints()?.generated.as_deref()
}

/// The value of a column that no value is given for.
fn default(column: &Column) -> Result<Expr, Error> {
    match column.constraints().and_then(|constraints| constraints.default.as_deref()) {
        Some(text) => build::assign(build::expression(text)?, column),
        None => build::assign(build::null(), column),
    }
}

/// Returns true for the word DEFAULT in the place of a value.
fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// The query that checks the expression of a column.
#[derive(Clone, Debug)]
pub struct Check {
    /// The query; it reads no table.
    pub query: Box<ast::Statement>,
    /// True if the expression has a sub-query.
    pub has_query: bool,
    /// True if it is a literal, which has to be one of the column's type.
    pub is_literal: bool,
}

/// Returns the query that checks the default or the generation expression of a column, if it has
/// one.
///
/// # Errors
/// If the expression cannot be parsed.
pub fn check(columns: &[Column], place: usize) -> Result<Option<Check>, Error> {
    let column = &columns[place];
    let Some(constraints) = column.constraints() else { return Ok(None) };
    let (text, from) = match (&constraints.generated, &constraints.default) {
        (Some(text), _) => {
            // Generated columns are computed from others alone.
            let plain = columns.iter().filter(|column| generated(column).is_none());
            let items = plain.map(|column| Ok(build::item(build::assign(build::null(), column)?, &column.name)));
            let inner = build::select(items.collect::<Result<_, Error>>()?, Vec::new(), None)?;
            (text, vec![build::derived(inner, &Ident::new("t"))?])
        }
        (None, Some(text)) => (text, Vec::new()),
        (None, None) => return Ok(None),
    };
    let expr = build::expression(text)?;
    let (has_query, is_literal) = (insert::has_query(&expr), build::literal(&expr).is_some());
    let items = vec![build::item(build::assign(expr, column)?, &column.name)];
    let query = Box::new(ast::Statement::Query(build::select(items, from, None)?));
    Ok(Some(Check { query, has_query, is_literal }))
}
