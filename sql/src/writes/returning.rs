//! `RETURNING *` of an UPDATE with FROM, or of a DELETE with USING: also the columns of the other
//! tables. Their names are those of a query, which the caller asks for.

use sqlparser::ast::{
    Ident, JoinConstraint, JoinOperator, ObjectName, Query, SelectItem, SelectItemQualifiedWildcardKind, TableFactor,
    TableWithJoins, WildcardAdditionalOptions,
};

use super::build;
use crate::error::Error;
use crate::parser::{Command, Write, fold, identifiers};

/// Another table of a statement whose columns RETURNING wants.
#[derive(Clone, Debug)]
pub struct Others {
    /// The name that the statement gives the table.
    name: Ident,
    /// The query that has its columns.
    pub query: Box<Query>,
}

/// The other tables of a statement whose columns RETURNING wants.
///
/// # Errors
/// If it wants those of a table without a name, or of one that is joined by its columns' names.
pub fn others(write: &Write) -> Result<Vec<Others>, Error> {
    let from = match &write.command {
        Command::Update(update) => &update.from,
        Command::Delete(delete) => &delete.using,
        Command::Insert(_) | Command::Truncate => return Ok(Vec::new()),
    };
    let wants_all = write.returning.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
    let wants = |name: &Ident| wants_all || write.returning.iter().filter_map(qualifier).any(|of| of == fold(name));
    let mut others = Vec::new();
    for table in from.iter().flat_map(|table| factors(table)) {
        let Some(name) = name(table) else {
            if wants_all {
                return Err(Error::unsupported("RETURNING * of a table without a name is not supported")
                    .with_hint("give it a name: … AS name"));
            }
            continue;
        };
        if !wants(&name) {
            continue;
        }
        if from.iter().any(merges) {
            return Err(Error::unsupported("RETURNING * of tables that are joined with USING is not supported yet")
                .with_hint("name the columns"));
        }
        let all = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![name.clone()]));
        let items = vec![SelectItem::QualifiedWildcard(all, WildcardAdditionalOptions::default())];
        let mut query = build::select(items, from.clone(), None)?;
        query.with.clone_from(&write.with);
        others.push(Others { name, query });
    }
    Ok(others)
}

impl Write {
    /// Puts columns in the place of the wildcards of RETURNING. `others` are all that the statement
    /// has, with the names of their columns.
    pub fn expand(&mut self, others: &[(Others, Vec<String>)]) {
        let of = |(other, names): &(Others, Vec<String>)| {
            let name = other.name.clone();
            let column = move |column: &String| SelectItem::UnnamedExpr(build::column(&name, column));
            names.iter().map(column).collect::<Vec<_>>()
        };
        let own = || {
            let all = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![self.alias.clone()]));
            SelectItem::QualifiedWildcard(all, WildcardAdditionalOptions::default())
        };
        let mut items = Vec::with_capacity(self.returning.len());
        for item in &self.returning {
            let named = qualifier(item).and_then(|of| others.iter().find(|(other, _)| fold(&other.name) == of));
            match (item, named) {
                (SelectItem::Wildcard(_), _) => {
                    items.push(own());
                    items.extend(others.iter().flat_map(of));
                }
                (_, Some(other)) => items.extend(of(other)),
                (item, None) => items.push(item.clone()),
            }
        }
        self.returning = items;
    }
}

/// The table of `t.*`.
fn qualifier(item: &SelectItem) -> Option<String> {
    let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else { return None };
    match identifiers(name)?.as_slice() {
        [name] => Some(fold(name)),
        _ => None,
    }
}

fn factors(table: &TableWithJoins) -> Vec<&TableFactor> {
    std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)).collect()
}

/// The name under which a statement refers to a table.
fn name(table: &TableFactor) -> Option<Ident> {
    match table {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, alias: None, .. } => identifiers(name)?.last().map(|last| (*last).clone()),
        _ => None,
    }
}

/// Returns true if a join makes one column of two.
fn merges(table: &TableWithJoins) -> bool {
    table.joins.iter().any(|join| match &join.join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => {
            matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
        }
        _ => false,
    })
}
