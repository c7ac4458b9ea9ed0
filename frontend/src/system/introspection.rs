//! Replaces the query by which asyncpg looks up types, so that DataFusion can plan it. The original
//! follows the parts of types with a recursive query; in Weir, only arrays have parts, and these
//! have none.

use pgwire::api::Type;
use sqlparser::ast::Statement;
use weir_sql::parser::{fold, parse};

/// The name of a CTE in asyncpg's query.
const ASYNCPG: &str = "typeinfo_tree";

/// The replacement, for types whose parts have no parts. The arrays in its result are null, and
/// have the type text, because asyncpg must know the types of the result without a further query.
const TYPES: &str = "SELECT t.oid AS oid, ns.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::oid AS basetype, \
     t.typelem AS elemtype, e.typdelim AS elemdelim, NULL::oid AS range_subtype, NULL::text AS attrtypoids, \
     NULL::text AS attrnames, 0 AS depth, NULL::text AS basetype_name, e.typname AS elemtype_name, \
     NULL::text AS range_subtype_name \
     FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace ns ON ns.oid = t.typnamespace \
     LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typlen = -1 \
     WHERE t.oid = ANY($1)";

/// Returns the types of the query's parameters, which its text does not determine.
pub(super) fn parameter_types(statement: &Statement) -> Option<Vec<Option<Type>>> {
    is_asyncpg(statement).then(|| vec![Some(Type::OID_ARRAY)])
}

/// Replaces the query; other queries stay as they are.
pub(super) fn plannable(statement: Statement) -> Statement {
    if is_asyncpg(&statement) {
        return query(TYPES).unwrap_or(statement);
    }
    statement
}

fn query(sql: &str) -> Option<Statement> {
    match parse(sql).ok()?.pop()?.statement {
        weir_sql::parser::Statement::Query(statement) => Some(*statement),
        _ => None,
    }
}

fn is_asyncpg(statement: &Statement) -> bool {
    match statement {
        Statement::Query(query) => {
            query.with.iter().flat_map(|with| &with.cte_tables).any(|table| fold(&table.alias.name) == ASYNCPG)
        }
        _ => false,
    }
}
