//! `INSERT`, `UPDATE`, `DELETE` and `TRUNCATE`: sqlparser's trees, without the clauses of other
//! databases.

use sqlparser::ast::{
    self, Assignment, AssignmentTarget, ConflictTarget, Expr, FromTable, Ident, ObjectName, OnConflictAction, OnInsert,
    Query, SelectItem, SetExpr, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind, With,
};
use sqlparser::tokenizer::Location;

use super::create_table::ColumnRef;
use super::cursor::{Cursor, fold, identifiers};
use super::{Statement, TableName, depth};
use crate::error::{Error, sqlstate};

/// A statement that writes rows of a table.
#[derive(Clone, Debug)]
pub struct Write {
    /// The table.
    pub table: TableName,
    /// The name that expressions give the table.
    pub alias: Ident,
    /// `WITH …` before the command.
    pub with: Option<With>,
    /// The command.
    pub command: Command,
    /// The items of RETURNING; none without it.
    pub returning: Vec<SelectItem>,
}

/// The commands that write.
#[derive(Clone, Debug)]
pub enum Command {
    /// `INSERT`.
    Insert(Insert),
    /// `UPDATE`.
    Update(Update),
    /// `DELETE`.
    Delete(Delete),
    /// `TRUNCATE`: all rows are deleted.
    Truncate,
}

/// `INSERT INTO table [(columns)] rows [ON CONFLICT …]`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The columns that the rows have; none: the table's, in their order.
    pub columns: Vec<ColumnRef>,
    /// The rows; `None` for DEFAULT VALUES.
    pub rows: Option<Box<Query>>,
    /// The rule of the statement.
    pub on_conflict: Option<OnConflict>,
}

/// `ON CONFLICT [key] { DO NOTHING | DO UPDATE SET … [WHERE …] }`.
#[derive(Clone, Debug)]
pub struct OnConflict {
    /// The key.
    pub key: Option<ConflictKey>,
    /// The new values of the row that is there; `None`: it stays.
    pub update: Option<Update>,
}

/// The key of which two rows may not have the same.
#[derive(Clone, Debug)]
pub enum ConflictKey {
    /// `(a, b)`.
    Columns(Vec<String>),
    /// `ON CONSTRAINT name`.
    Constraint(String),
}

/// `UPDATE table SET assignments [FROM …] [WHERE …]`.
#[derive(Clone, Debug)]
pub struct Update {
    /// The columns and their new values.
    pub assignments: Vec<(ColumnRef, Expr)>,
    /// Other tables.
    pub from: Vec<TableWithJoins>,
    /// The condition.
    pub selection: Option<Expr>,
}

/// `DELETE FROM table [USING …] [WHERE …]`.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Other tables.
    pub using: Vec<TableWithJoins>,
    /// The condition.
    pub selection: Option<Expr>,
}

impl Write {
    /// The word that begins the command, and its tag.
    pub fn verb(&self) -> &'static str {
        match self.command {
            Command::Insert(_) => "INSERT",
            Command::Update(_) => "UPDATE",
            Command::Delete(_) => "DELETE",
            Command::Truncate => "TRUNCATE TABLE",
        }
    }
}

impl Cursor<'_> {
    /// Parses INSERT, UPDATE, DELETE or TRUNCATE.
    pub(super) fn write(&mut self) -> Result<Statement, Error> {
        let statement = self.parser.parse_statement().map_err(|error| self.lift(error))?;
        self.expect_end()?;
        depth::check(&statement)?;
        self.written(statement, None).map(|write| Statement::Write(Box::new(write)))
    }

    /// The statement that writes, if `WITH …` stands before one.
    pub(super) fn write_behind(&self, query: &mut Query) -> Option<Result<Write, Error>> {
        match query.body.as_mut() {
            SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => {
                let statement = statement.clone();
                Some(self.written(statement, query.with.take()))
            }
            _ => None,
        }
    }

    fn written(&self, statement: ast::Statement, with: Option<With>) -> Result<Write, Error> {
        match statement {
            ast::Statement::Insert(insert) => self.insert(insert, with),
            ast::Statement::Update(update) => self.update(update, with),
            ast::Statement::Delete(delete) => self.delete(delete, with),
            ast::Statement::Truncate(truncate) => self.truncate(&truncate),
            _ => Err(self.expected("INSERT, UPDATE, DELETE or TRUNCATE")),
        }
    }

    fn insert(&self, insert: ast::Insert, with: Option<With>) -> Result<Write, Error> {
        let TableObject::TableName(name) = &insert.table else { return Err(self.expected("the name of a table")) };
        let is_foreign = !insert.into
            || insert.has_table_keyword
            || insert.overwrite
            || insert.partitioned.is_some()
            || insert.output.is_some()
            || insert.or.is_some()
            || !insert.assignments.is_empty();
        if is_foreign {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "INSERT INTO, a table and its rows are expected"));
        }
        let table = self.target(name)?;
        let alias = insert.table_alias.map_or_else(|| own_alias(name), |alias| alias.alias);
        let columns = insert.columns.iter().map(|name| self.column_ref(name)).collect::<Result<_, _>>()?;
        let on_conflict = match insert.on {
            None => None,
            Some(OnInsert::OnConflict(rule)) => Some(self.conflict_rule(rule)?),
            Some(_) => return Err(Error::user(sqlstate::SYNTAX_ERROR, "ON CONFLICT is expected")),
        };
        let command = Command::Insert(Insert { columns, rows: insert.source, on_conflict });
        Ok(Write { table, alias, with, command, returning: insert.returning.unwrap_or_default() })
    }

    fn conflict_rule(&self, rule: ast::OnConflict) -> Result<OnConflict, Error> {
        let key = match rule.conflict_target {
            None => None,
            Some(ConflictTarget::Columns(columns)) => Some(ConflictKey::Columns(columns.iter().map(fold).collect())),
            Some(ConflictTarget::OnConstraint(name)) => match identifiers(&name).as_deref() {
                Some([name]) => Some(ConflictKey::Constraint(fold(name))),
                _ => return Err(self.expected("the name of a constraint")),
            },
        };
        let update = match rule.action {
            OnConflictAction::DoNothing => None,
            OnConflictAction::DoUpdate(update) if key.is_some() => {
                let assignments = self.assignments(update.assignments)?;
                Some(Update { assignments, from: Vec::new(), selection: update.selection })
            }
            OnConflictAction::DoUpdate(_) => {
                let message = "ON CONFLICT DO UPDATE requires inference specification or constraint name";
                return Err(Error::user(sqlstate::SYNTAX_ERROR, message).with_hint("ON CONFLICT (column) DO UPDATE"));
            }
        };
        Ok(OnConflict { key, update })
    }

    fn update(&self, update: ast::Update, with: Option<With>) -> Result<Write, Error> {
        let (table, alias) = self.target_of(&update.table)?;
        let from = match update.from {
            None => Vec::new(),
            Some(UpdateTableFromKind::AfterSet(from)) => from,
            Some(UpdateTableFromKind::BeforeSet(_)) => return Err(foreign("UPDATE", "FROM before SET")),
        };
        if update.or.is_some() || update.output.is_some() || update.limit.is_some() || !update.order_by.is_empty() {
            return Err(foreign("UPDATE", "OR, OUTPUT, ORDER BY or LIMIT"));
        }
        let assignments = self.assignments(update.assignments)?;
        let command = Command::Update(Update { assignments, from, selection: update.selection });
        Ok(Write { table, alias, with, command, returning: update.returning.unwrap_or_default() })
    }

    fn assignments(&self, written: Vec<Assignment>) -> Result<Vec<(ColumnRef, Expr)>, Error> {
        let mut assignments = Vec::new();
        for Assignment { target, value } in written {
            self.assign(target, value, &mut assignments)?;
        }
        Ok(assignments)
    }

    /// Adds an assignment of UPDATE; `(a, b) = (x, y)` is several.
    fn assign(
        &self,
        target: AssignmentTarget,
        value: Expr,
        assignments: &mut Vec<(ColumnRef, Expr)>,
    ) -> Result<(), Error> {
        match (target, value) {
            (AssignmentTarget::ColumnName(name), value) => assignments.push((self.column_ref(&name)?, value)),
            (AssignmentTarget::Tuple(names), Expr::Tuple(values)) => {
                if names.len() != values.len() {
                    let message = "number of columns does not match number of values";
                    return Err(Error::user(sqlstate::SYNTAX_ERROR, message));
                }
                for (name, value) in names.iter().zip(values) {
                    assignments.push((self.column_ref(name)?, value));
                }
            }
            (AssignmentTarget::Tuple(names), Expr::Nested(value)) if names.len() == 1 => {
                assignments.push((self.column_ref(&names[0])?, *value));
            }
            (AssignmentTarget::Tuple(_), _) => {
                return Err(Error::unsupported("SET (…) = (SELECT …) is not supported yet")
                    .with_hint("assign each column a sub-query of its own"));
            }
        }
        Ok(())
    }

    fn delete(&self, delete: ast::Delete, with: Option<With>) -> Result<Write, Error> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [from] = from.as_slice() else { return Err(foreign("DELETE", "several tables")) };
        let is_foreign = !delete.tables.is_empty()
            || delete.output.is_some()
            || delete.limit.is_some()
            || !delete.order_by.is_empty();
        if is_foreign {
            return Err(foreign("DELETE", "OUTPUT, ORDER BY or LIMIT"));
        }
        let (table, alias) = self.target_of(from)?;
        let using = delete.using.unwrap_or_default();
        let command = Command::Delete(Delete { using, selection: delete.selection });
        Ok(Write { table, alias, with, command, returning: delete.returning.unwrap_or_default() })
    }

    fn truncate(&self, truncate: &ast::Truncate) -> Result<Write, Error> {
        let is_foreign = truncate.partitions.is_some() || truncate.if_exists || truncate.on_cluster.is_some();
        if is_foreign {
            return Err(foreign("TRUNCATE", "PARTITION, IF EXISTS or ON CLUSTER"));
        }
        let [target] = truncate.table_names.as_slice() else {
            return Err(Error::unsupported("TRUNCATE of several tables is not supported yet")
                .with_hint("truncate one after the other"));
        };
        let table = self.target(&target.name)?;
        let alias = own_alias(&target.name);
        Ok(Write { table, alias, with: None, command: Command::Truncate, returning: Vec::new() })
    }

    /// The table of UPDATE or DELETE, and its alias.
    fn target_of(&self, table: &TableWithJoins) -> Result<(TableName, Ident), Error> {
        let TableFactor::Table { name, alias, .. } = &table.relation else {
            return Err(self.expected("the name of a table"));
        };
        if !table.joins.is_empty() {
            return Err(Error::user(sqlstate::SYNTAX_ERROR, "one table is expected, without JOIN"));
        }
        let known = alias.as_ref().map_or_else(|| own_alias(name), |alias| alias.name.clone());
        Ok((self.target(name)?, known))
    }

    fn target(&self, name: &ObjectName) -> Result<TableName, Error> {
        let parts = identifiers(name).ok_or_else(|| self.expected("the name of a table"))?;
        let location = parts.first().map_or(Location::empty(), |part| part.span.start);
        let end = parts.last().map_or(location, |part| part.span.end);
        let folded: Vec<String> = parts.iter().map(|part| fold(part)).collect();
        self.named_table(&folded, (location, end))
    }

    fn column_ref(&self, name: &ObjectName) -> Result<ColumnRef, Error> {
        match identifiers(name).as_deref() {
            Some([column]) => Ok(ColumnRef { name: fold(column), location: column.span.start }),
            Some([column, ..]) => Err(Error::unsupported("a field of a column cannot be written alone")
                .at(self.text.position(column.span.start))),
            _ => Err(self.expected("the name of a column")),
        }
    }
}

/// The name of a table without its schema.
fn own_alias(name: &ObjectName) -> Ident {
    let parts = identifiers(name).unwrap_or_default();
    parts.last().map_or_else(|| Ident::new(""), |last| (*last).clone())
}

fn foreign(verb: &str, what: &str) -> Error {
    Error::user(sqlstate::SYNTAX_ERROR, format!("PostgreSQL has no {verb} with {what}"))
}
