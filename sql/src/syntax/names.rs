//! PostgreSQL's names of a result's columns. DataFusion names a column after its whole expression.

use sqlparser::ast::{AccessExpr, CastKind, Expr, Query, Select, SelectItem, SetExpr, Statement};

use super::apart::shown;
use crate::parser::{fold, identifiers};

/// The name of a column whose expression determines none.
pub(super) const UNKNOWN: &str = "?column?";

/// The names, by position, of a result with `fields`, which are DataFusion's names. A wildcard's
/// columns keep theirs.
pub fn column_names(statement: &Statement, fields: &[String]) -> Vec<String> {
    let mut names: Vec<String> = fields.iter().map(|field| shown(field).to_owned()).collect();
    let Some(select) = first_select(statement) else {
        return names;
    };
    let items = &select.projection;
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let head = items.iter().take_while(|item| !is_wildcard(item)).count();
    let tail = items.iter().rev().take_while(|item| !is_wildcard(item)).count();
    for (index, item) in items[..head].iter().enumerate().take(names.len()) {
        names[index] = item_name(item);
    }
    if head < items.len() && tail <= names.len() {
        let first = names.len() - tail;
        for (index, item) in items[items.len() - tail..].iter().enumerate() {
            names[first + index] = item_name(item);
        }
    }
    names
}

/// The SELECT that names a query's columns: the first one of a set operation.
fn first_select(statement: &Statement) -> Option<&Select> {
    let Statement::Query(query) = statement else {
        return None;
    };
    select_of(&query.body)
}

fn select_of(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => select_of(&query.body),
        SetExpr::SetOperation { left, .. } => select_of(left),
        _ => None,
    }
}

/// PostgreSQL's name for a selected item.
pub(super) fn item_name(item: &SelectItem) -> String {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => fold(alias),
        SelectItem::UnnamedExpr(expr) => expression_name(expr).unwrap_or_else(|| UNKNOWN.to_owned()),
        _ => UNKNOWN.to_owned(),
    }
}

/// Follows PostgreSQL's `FigureColname`.
fn expression_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(field)) => Some(fold(field)),
                _ => None,
            });
            field.or_else(|| expression_name(root))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => expression_name(inner),
        Expr::Function(function) => identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last))),
        Expr::Cast { expr, data_type, kind: CastKind::Cast | CastKind::DoubleColon, .. } => {
            expression_name(expr).or_else(|| Some(type_name(&data_type.to_string())))
        }
        Expr::TypedString(typed) => Some(type_name(&typed.data_type.to_string())),
        Expr::Case { else_result, .. } => {
            let named = else_result.as_ref().and_then(|result| match result.as_ref() {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => expression_name(result),
                _ => None,
            });
            Some(named.unwrap_or_else(|| "case".to_owned()))
        }
        Expr::Subquery(query) => subquery_name(query),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Overlay { .. } => Some("overlay".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::AtTimeZone { .. } => Some("timezone".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        _ => None,
    }
}

fn subquery_name(query: &Query) -> Option<String> {
    select_of(&query.body)?.projection.first().map(item_name)
}

/// The internal name of a type, which PostgreSQL uses as the name of a cast's column.
fn type_name(written: &str) -> String {
    let written = written.to_lowercase();
    let base = written.split('(').next().unwrap_or_default().trim();
    match base {
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double precision" | "float" | "double" => "float8",
        "boolean" => "bool",
        "character varying" => "varchar",
        "decimal" => "numeric",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{self, parse};

    fn names(sql: &str, fields: &[&str]) -> String {
        let parsed = parse(sql).expect(sql).remove(0);
        let parser::Statement::Query(statement) = parsed.statement else { panic!("{sql} is a query") };
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        column_names(&statement, &fields).join(" ")
    }

    #[test]
    fn columns_are_called_as_in_postgresql() {
        assert_eq!(
            names("SELECT 1, count(*), T.A, a AS \"B\", a + 1", &["", "", "", "", ""]),
            "?column? count a B ?column?"
        );
        assert_eq!(names("SELECT '1'::int, CAST(a AS text), date '2024-01-01'", &["", "", ""]), "int4 a date");
        assert_eq!(
            names("SELECT CASE WHEN a THEN b END, (SELECT max(x) FROM t), EXISTS (SELECT 1)", &["", "", ""]),
            "case max exists"
        );
        assert_eq!(names("SELECT (r).x, (r).y[1], a[1]", &["", "", ""]), "x y a");
        assert_eq!(names("SELECT a UNION SELECT b", &["x"]), "a");
        assert_eq!(names("SELECT pg_catalog.version()", &["x"]), "version");
    }

    #[test]
    fn columns_of_a_wildcard_keep_their_names() {
        assert_eq!(names("SELECT count(*), *, 1", &["x", "a", "b", "y"]), "count a b ?column?");
        assert_eq!(names("SELECT *", &["a", "b"]), "a b");
        assert_eq!(names("VALUES (1)", &["column1"]), "column1");
    }
}
