//! Names that PostgreSQL resolves by the FROM clause around them, and DataFusion does not:
//!
//! * `t.*` of a table that FROM names with its schema;
//! * a column of `USING` by its name alone, in WHERE, HAVING and the conditions of later joins;
//! * the one column of `jsonb_array_elements` by the function's alias;
//! * `tableoid`, the oid of the table that a row is from.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, JoinConstraint, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Statement,
    TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
};

use super::build::call;
use super::joins::{self, Kind};
use super::tables::with_names;
use crate::keywords::quoted_identifier;
use crate::parser::{fold, identifiers};

const TABLEOID: &str = "tableoid";

/// Rewrites the names so that DataFusion resolves them.
pub(super) fn found(statement: &mut Statement) {
    let hidden = with_names(statement);
    let _finished = VisitMut::visit(statement, &mut Scopes { hidden });
}

struct Scopes {
    /// Names that the statement gives to tables in WITH.
    hidden: HashSet<String>,
}

impl VisitorMut for Scopes {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations: Vec<Relation> = select.from.iter().flat_map(relations).collect();
        for item in &mut select.projection {
            qualified_wildcard(item, &relations);
        }
        using(select);
        elements(select);
        self.table_oids(select, &relations);
        ControlFlow::Continue(())
    }
}

/// A table, function or sub-query in FROM.
struct Relation {
    /// The qualifier of its columns.
    qualifier: Ident,
    /// Its name, if it is a table, and true if it has an alias.
    table: Option<(ObjectName, bool)>,
    /// True if a join may replace its rows by NULLs.
    is_nullable: bool,
}

fn relation(factor: &TableFactor) -> Option<Relation> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let last = (*identifiers(name)?.last()?).clone();
            let qualifier = alias.as_ref().map_or(last, |alias| alias.name.clone());
            Some(Relation { qualifier, table: Some((name.clone(), alias.is_some())), is_nullable: false })
        }
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } | TableFactor::Function { alias, .. } => {
            let qualifier = alias.as_ref()?.name.clone();
            Some(Relation { qualifier, table: None, is_nullable: false })
        }
        _ => None,
    }
}

fn relations(tables: &TableWithJoins) -> Vec<Relation> {
    let mut all: Vec<Relation> = relation(&tables.relation).into_iter().collect();
    for join in &tables.joins {
        let (kind, _) = joins::kind(&join.join_operator);
        all.iter_mut().for_each(|before| before.is_nullable |= kind.keeps_right());
        all.extend(relation(&join.relation).map(|joined| Relation { is_nullable: kind.keeps_left(), ..joined }));
    }
    all
}

/// Resolves `columns.*` beside `FROM information_schema.columns`.
fn qualified_wildcard(item: &mut SelectItem, relations: &[Relation]) {
    let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else { return };
    let Some(qualifier) = identifiers(name).filter(|parts| parts.len() == 1).map(|parts| fold(parts[0])) else {
        return;
    };
    let mut named = relations.iter().filter(|relation| fold(&relation.qualifier) == qualifier);
    if let (Some(Relation { table: Some((table, false)), .. }), None) = (named.next(), named.next()) {
        *name = table.clone();
    }
}

/// Qualifies the columns of USING where they are named without a qualifier.
fn using(select: &mut Select) {
    let mut columns: Vec<(String, Expr)> = Vec::new();
    for tables in &mut select.from {
        // From the second join on, the left side has several tables, any of which may have the
        // column.
        let mut left = relation(&tables.relation).map(|relation| relation.qualifier);
        for join in &mut tables.joins {
            let (kind, _) = joins::kind(&join.join_operator);
            let right = relation(&join.relation).map(|relation| relation.qualifier);
            match joins::constraint_mut(&mut join.join_operator) {
                Some(JoinConstraint::Using(names)) => {
                    for name in names.iter().filter_map(identifiers).filter_map(|parts| parts.first().copied().cloned())
                    {
                        let of = |side: &Option<Ident>| {
                            let side = side.clone()?;
                            Some(Expr::CompoundIdentifier(vec![side, name.clone()]))
                        };
                        let column = match (of(&left), of(&right)) {
                            (Some(left), _) if matches!(kind, Kind::Inner | Kind::Left) => Some(left),
                            (_, Some(right)) if matches!(kind, Kind::Inner | Kind::Right) => Some(right),
                            (Some(left), Some(right)) => Some(call("coalesce", vec![left, right])),
                            _ => None,
                        };
                        let folded = fold(&name);
                        if !columns.iter().any(|(known, _)| *known == folded) {
                            columns.extend(column.map(|column| (folded, column)));
                        }
                    }
                }
                Some(JoinConstraint::On(condition)) => replace(condition, &columns),
                _ => {}
            }
            left = None;
        }
    }
    for condition in [&mut select.selection, &mut select.having].into_iter().flatten() {
        replace(condition, &columns);
    }
}

/// Resolves the alias of a function with one column to that column: `FROM
/// jsonb_array_elements(items) AS item`.
fn elements(select: &mut Select) {
    let factors = select
        .from
        .iter()
        .flat_map(|tables| std::iter::once(&tables.relation).chain(tables.joins.iter().map(|join| &join.relation)));
    let named = factors.filter_map(|factor| match factor {
        TableFactor::Table { name, alias: Some(alias), args: Some(_), .. }
        | TableFactor::Function { name, alias: Some(alias), .. }
            if alias.columns.is_empty()
                && identifiers(name)?.last().is_some_and(|name| fold(name).starts_with("jsonb_array_elements")) =>
        {
            let column = Expr::CompoundIdentifier(vec![alias.name.clone(), Ident::new("value")]);
            Some((fold(&alias.name), column))
        }
        _ => None,
    });
    let columns: Vec<(String, Expr)> = named.collect();
    let items = select.projection.iter_mut().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    items.chain(&mut select.selection).for_each(|expr| replace(expr, &columns));
}

/// Replaces names without a qualifier by other expressions, outside sub-queries.
fn replace(expr: &mut Expr, columns: &[(String, Expr)]) {
    struct Replace<'a> {
        columns: &'a [(String, Expr)],
        queries: usize,
    }
    impl VisitorMut for Replace<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
            self.queries += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
            self.queries -= 1;
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if self.queries == 0
                && let Expr::Identifier(name) = expr
                && let Some((_, column)) = self.columns.iter().find(|(known, _)| *known == fold(name))
            {
                *expr = column.clone();
            }
            ControlFlow::Continue(())
        }
    }
    if !columns.is_empty() {
        let _finished = VisitMut::visit(expr, &mut Replace { columns, queries: 0 });
    }
}

impl Scopes {
    fn table_oids(&self, select: &mut Select, relations: &[Relation]) {
        let is_meant = |name: &Ident| fold(name) == TABLEOID;
        // With a single table, its column needs no qualifier.
        let only = match relations {
            [relation] if select.from.len() == 1 => self.oid(relation),
            _ => None,
        };
        let qualified: Vec<(String, Expr)> =
            relations.iter().filter_map(|relation| Some((fold(&relation.qualifier), self.oid(relation)?))).collect();
        if qualified.is_empty() {
            return;
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item {
                let is_column = match expr {
                    Expr::Identifier(name) => is_meant(name),
                    Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_meant),
                    _ => false,
                };
                if is_column {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(TABLEOID) };
                }
            }
        }
        let _finished = sqlparser::ast::visit_expressions_mut(select, |expr| {
            if let Expr::CompoundIdentifier(parts) = expr
                && let [qualifier, name] = parts.as_slice()
                && is_meant(name)
                && let Some((_, oid)) = qualified.iter().find(|(known, _)| *known == fold(qualifier))
            {
                *expr = oid.clone();
            }
            ControlFlow::<()>::Continue(())
        });
        if let Some(oid) = only {
            let columns = [(TABLEOID.to_owned(), oid)];
            let items = select.projection.iter_mut().filter_map(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                _ => None,
            });
            items.chain(&mut select.selection).for_each(|expr| replace(expr, &columns));
        }
    }

    /// The oid of a table; `None` if the relation is not a table, or a join may leave out its rows.
    fn oid(&self, relation: &Relation) -> Option<Expr> {
        let (table, _) = relation.table.as_ref().filter(|_| !relation.is_nullable)?;
        let parts: Vec<String> = identifiers(table)?.into_iter().map(fold).collect();
        if matches!(parts.as_slice(), [name] if self.hidden.contains(name)) {
            return None;
        }
        let name: Vec<String> = parts.iter().map(|part| quoted_identifier(part)).collect();
        let name = Expr::Value(Value::SingleQuotedString(name.join(".")).with_empty_span());
        Some(call("oid", vec![call("regclass", vec![name])]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> String {
        match crate::parser::parse(sql).expect(sql).remove(0).statement {
            crate::parser::Statement::Query(mut statement) => {
                found(&mut statement);
                statement.to_string()
            }
            _ => panic!("{sql} is a query"),
        }
    }

    #[test]
    fn names_are_put_so_that_they_are_found() {
        for (sql, expected) in [
            ("SELECT b.* FROM a.b", "SELECT a.b.* FROM a.b"),
            ("SELECT b.* FROM a.b AS b", "SELECT b.* FROM a.b AS b"),
            ("SELECT x FROM a JOIN b USING (x) WHERE x = 1", "SELECT x FROM a JOIN b USING(x) WHERE a.x = 1"),
            (
                "SELECT x FROM a RIGHT JOIN b USING (x) WHERE x = 1",
                "SELECT x FROM a RIGHT JOIN b USING(x) WHERE b.x = 1",
            ),
            (
                "SELECT x FROM a FULL JOIN b USING (x) WHERE x = 1",
                "SELECT x FROM a FULL JOIN b USING(x) WHERE coalesce(a.x, b.x) = 1",
            ),
            (
                "SELECT 1 FROM a JOIN b USING (x) WHERE EXISTS (SELECT x FROM c)",
                "SELECT 1 FROM a JOIN b USING(x) WHERE EXISTS (SELECT x FROM c)",
            ),
            ("SELECT tableoid FROM a.b", "SELECT oid(regclass('a.b')) AS tableoid FROM a.b"),
            ("SELECT 1 FROM a JOIN b ON a.tableoid = b.y", "SELECT 1 FROM a JOIN b ON oid(regclass('a')) = b.y"),
            ("SELECT 1 FROM a LEFT JOIN b ON b.tableoid = 1", "SELECT 1 FROM a LEFT JOIN b ON b.tableoid = 1"),
        ] {
            assert_eq!(read(sql), expected);
        }
    }
}
