//! The definitions of views, as queries that name relations.
//!
//! A definition is stored as it was written, with the names that relations had then; names without
//! a schema get the one that the search path finds them in, unless that is `public`. This module
//! tells which relations a new one names, and shows stored ones with the names of now.

use std::sync::Arc;

use sqlparser::ast;
use weir_common::catalog::{Declaration, Entry, Named, Plan, Relation, RelationKind, RelationName};
use weir_common::ids::TableId;
use weir_sql::error::Error;
use weir_sql::keywords::quoted_identifier;
use weir_sql::parser::{self, CreateView, Parsed, SCHEMA, Statement, fold};
use weir_sql::syntax::{Substitute, column_names, in_schemas, substituted, table_names, tables, with_names};

use crate::bind::is_secret;
use crate::catalog::{Catalog, check_known};
use crate::names::{DEAD_LETTERS, Meaning, SearchPath};

/// Returns a statement that creates a view, and its text, with the schemas that `find` gives to
/// names without one. So the view means the same whatever the search path of those who read it is.
/// Locations are those of the client's text.
pub(crate) fn with_schemas(
    parsed: &Parsed,
    create: &CreateView,
    find: &dyn Fn(&str) -> Option<String>,
) -> (CreateView, String) {
    let with = with_names(&create.query);
    let find = |name: &str| find(name).filter(|schema| schema != SCHEMA && !with.contains(name));
    let unqualified = tables(&create.query).into_iter().filter_map(|parts| match parts.as_slice() {
        [name] => Some((name.span.start, find(&fold(name))?)),
        _ => None,
    });
    let sql = parser::with_schemas(parsed, unqualified);
    let query = Box::new(in_schemas(&create.query, &find));
    (CreateView { query, ..create.clone() }, sql)
}

/// Returns the relations that a query names, each once; also those of which it reads only the dead
/// letters.
pub(crate) fn named(catalog: &Catalog, query: &ast::Statement) -> Vec<Arc<Relation>> {
    let mut relations: Vec<Arc<Relation>> = Vec::new();
    for entry in table_names(query).iter().filter_map(|parts| catalog.read(&SearchPath::of_stored(), parts)) {
        if relations.iter().all(|known| known.id != entry.id()) {
            relations.push(Arc::clone(&entry.relation));
        }
    }
    relations
}

/// Returns the plain views that a query names.
pub(crate) fn through(catalog: &Catalog, query: &ast::Statement) -> Vec<Named> {
    let views = named(catalog, query).into_iter().filter(|relation| relation.kind == RelationKind::View);
    views.map(|view| Named { relation: view.id, name: view.name.clone() }).collect()
}

/// Returns a query with the definitions of views in their places.
pub(crate) fn expanded(catalog: &Catalog, query: &ast::Statement) -> ast::Statement {
    put_in(catalog, query, &|name| Some(catalog.entry(name)?.id()))
}

/// `find` tells which relation a name of the query means.
fn put_in(
    catalog: &Catalog,
    query: &ast::Statement,
    find: &dyn Fn(&RelationName) -> Option<TableId>,
) -> ast::Statement {
    substituted(query, &|parts| {
        let Meaning::Rows(name) = Meaning::stored(parts)? else { return None };
        let entry = catalog.by_id(find(&name)?)?;
        let Plan::Definition(definition) = &entry.job.plan else {
            return Some(Substitute::Table(qualified(entry.name())));
        };
        let find =
            |name: &RelationName| definition.names.iter().find(|reads| reads.name == *name).map(|reads| reads.relation);
        let columns = entry.relation.columns.iter().map(|column| column.name.clone()).collect();
        Some(Substitute::Query(Box::new(put_in(catalog, &written(entry)?.1, &find)), columns))
    })
}

fn qualified(name: &RelationName) -> Vec<String> {
    vec![name.schema.clone(), name.name.clone()]
}

/// Returns the query of a view with the names that relations and its columns have now; `None` if
/// the entry is no view.
pub(crate) fn query(catalog: &Catalog, entry: &Entry) -> Option<ast::Statement> {
    query_with(catalog, entry, Names::Shown)
}

/// Returns the same query with the schemas of all relations, which means the same under every
/// search path.
pub(crate) fn qualified_query(catalog: &Catalog, entry: &Entry) -> Option<ast::Statement> {
    query_with(catalog, entry, Names::Qualified)
}

fn query_with(catalog: &Catalog, entry: &Entry, names: Names) -> Option<ast::Statement> {
    let (columns, written) = written(entry)?;
    let query = renamed(catalog, entry, &written, names);
    match columns.is_empty() && !entry.about.columns_renamed {
        true => Some(query),
        false => with_columns(query, &entry.relation),
    }
}

/// Returns a query with the names of a view's columns as those of its result.
fn with_columns(query: ast::Statement, relation: &Relation) -> Option<ast::Statement> {
    let names: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
    with_aliases(&query, &names).or_else(|| {
        let columns: Vec<String> = names.iter().map(|name| quoted_identifier(name)).collect();
        let sql =
            format!("SELECT * FROM ({query}) AS {} ({})", quoted_identifier(&relation.name.name), columns.join(", "));
        match parser::parse(&sql).ok()?.pop()?.statement {
            Statement::Query(query) => Some(*query),
            _ => None,
        }
    })
}

/// Returns a query whose expressions have these names as aliases; `None` if other parts of it could
/// then mean something else.
fn with_aliases(query: &ast::Statement, names: &[&str]) -> Option<ast::Statement> {
    let now = column_names(query, &vec![String::new(); names.len()]);
    let mut changed = query.clone();
    let ast::Statement::Query(inner) = &mut changed else { return None };
    let ast::SetExpr::Select(select) = inner.body.as_mut() else { return None };
    if inner.order_by.is_some() || select.projection.len() != names.len() {
        return None;
    }
    for ((item, now), name) in select.projection.iter_mut().zip(&now).zip(names) {
        match item {
            _ if now == name => {}
            ast::SelectItem::UnnamedExpr(expr) => {
                let alias = ast::Ident::with_quote('"', *name);
                let alias = if quoted_identifier(name) == *name { ast::Ident::new(*name) } else { alias };
                *item = ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            _ => return None,
        }
    }
    Some(changed)
}

/// How the names of relations are written in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// As the statement has them, as long as they are right; without the schema `public`.
    Shown,
    /// With their schemas.
    Qualified,
}

fn renamed(catalog: &Catalog, entry: &Entry, query: &ast::Statement, names: Names) -> ast::Statement {
    let plan = &entry.job.plan;
    substituted(query, &|parts| {
        let meaning = Meaning::stored(parts)?;
        let through = plan.through().iter().map(|named| (named.relation, &named.name));
        let mut known = through.chain(plan.depends().iter().map(|reads| (reads.relation, &reads.name)));
        let (id, known) = known.find(|(_, known)| meaning.is(known))?;
        let now = catalog.by_id(id)?.name();
        if now == known && names == Names::Shown {
            return None;
        }
        Some(Substitute::Table(match meaning {
            Meaning::Letters(_) => vec![DEAD_LETTERS.to_owned(), now.to_string()],
            Meaning::Rows(_) if names == Names::Shown && parts.len() == 1 && now.is_public() => vec![now.name.clone()],
            Meaning::Rows(_) => qualified(now),
        }))
    })
}

/// Returns the statement that would create a relation as it is now: as it was written, unless names
/// have changed.
///
/// # Errors
/// Internal, if the stored statement cannot be read.
fn created(catalog: &Catalog, entry: &Entry) -> Result<String, Error> {
    let relation = &entry.relation;
    let Some((_, written)) = written(entry) else {
        let sql = parser::renamed(&relation.sql, &relation.name)?;
        let names = relation.columns.iter().map(|column| column.name.as_str());
        return if entry.about.columns_renamed { parser::with_columns(&sql, names) } else { Ok(sql) };
    };
    let query = renamed(catalog, entry, &written, Names::Shown);
    if !entry.about.columns_renamed && query == *written {
        return parser::renamed(&relation.sql, &relation.name);
    }
    let columns: Vec<String> = relation.columns.iter().map(|column| quoted_identifier(&column.name)).collect();
    let kind = relation.kind.as_str().to_uppercase();
    let created =
        format!("CREATE {kind} {} ({}) AS {query}", quoted_identifier(&relation.name.name), columns.join(", "));
    parser::renamed(&created, &relation.name)
}

/// Returns the declaration of a relation, with the statement that would create it as it is now.
///
/// # Errors
/// `55000` if a newer version of Weir created it. Internal, if the stored statement cannot be read.
pub(crate) fn declaration(catalog: &Catalog, entry: &Entry) -> Result<Declaration, Error> {
    check_known(entry)?;
    Ok(Declaration { sql: created(catalog, entry)?, ..entry.declaration() })
}

/// Returns the statement that would create a relation as it is now, without the secrets that only
/// options can hold.
///
/// # Errors
/// Internal, if the stored statement cannot be read.
pub(crate) fn shown(catalog: &Catalog, entry: &Entry) -> Result<String, Error> {
    let sql = created(catalog, entry)?;
    match entry.relation.kind {
        RelationKind::MaterializedView | RelationKind::View => Ok(sql),
        RelationKind::Table | RelationKind::Source => parser::redact(&sql, is_secret),
    }
}

/// Returns the columns that the statement of a view names, and its query.
fn written(entry: &Entry) -> Option<(Vec<String>, Box<ast::Statement>)> {
    if !matches!(entry.relation.kind, RelationKind::View | RelationKind::MaterializedView) {
        return None;
    }
    match parser::parse(&entry.relation.sql).ok()?.pop()?.statement {
        Statement::CreateView(create) => {
            Some((create.columns.into_iter().map(|column| column.name).collect(), create.query))
        }
        _ => None,
    }
}
