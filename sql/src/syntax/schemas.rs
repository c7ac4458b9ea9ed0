//! Resolves names in PostgreSQL's own schema, and names that stand for calls, so that DataFusion
//! finds them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use postgres_types::Type;
use sqlparser::ast::{
    AccessExpr, Array, ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArguments, Ident,
    ObjectName, Statement, TableFactor, TypedString, Value, VisitMut, VisitorMut,
};

use super::Known;
use super::build::{call, null};
use super::tables::with_names;
use crate::functions::{EXPANDED, SUBSCRIPTS};
use crate::parser::{PG_CATALOG, fold, identifiers};
use crate::types::oids::is_called;

/// Views that PostgreSQL also has as functions, which psql calls.
const FUNCTIONS: [&str; 2] = ["pg_timezone_names", "pg_timezone_abbrevs"];

/// Names that are values without parentheses, and that sqlparser reads as columns.
const VALUES: [(&str, &str); 3] =
    [("current_schema", "current_schema"), ("user", "current_user"), ("current_role", "current_user")];

/// Rewrites a statement so that it can be planned:
///
/// * System catalogs get the name of their schema; functions lose theirs.
/// * Casts to `regclass` and the like become calls of functions, as do names such as
///   `current_schema`.
/// * `OPERATOR(pg_catalog.=)` becomes the operator; collations without effect are removed.
pub(super) fn found(statement: &mut Statement, known: &Known<'_>) {
    let mut visitor = Schemas { is_in_pg_catalog: known.is_in_pg_catalog, hidden: with_names(statement) };
    let _finished = VisitMut::visit(statement, &mut visitor);
}

struct Schemas<'a> {
    is_in_pg_catalog: &'a dyn Fn(&str) -> bool,
    /// Names that the statement gives to tables in WITH.
    hidden: HashSet<String>,
}

impl VisitorMut for Schemas<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: args @ Some(_), .. } => {
                without_schema(name);
                let is_view = args.as_ref().is_some_and(|args| args.args.is_empty())
                    && identifiers(name)
                        .is_some_and(|parts| matches!(&parts[..], [name] if FUNCTIONS.contains(&fold(name).as_str())));
                if is_view {
                    *args = None;
                    self.qualify(name);
                }
            }
            TableFactor::Table { name, args: None, .. } => self.qualify(name),
            TableFactor::Function { name, .. } => without_schema(name),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let replaced = match expr {
            Expr::Function(function) => {
                without_schema(&mut function.name);
                if matches!(function.args, FunctionArguments::None) { value_of(function) } else { rows_of(function) }
            }
            Expr::CompoundFieldAccess { root, access_chain } => column_of_table(root, access_chain),
            Expr::Identifier(name) if name.quote_style.is_none() => named_value(name),
            Expr::Cast {
                expr: operand,
                data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)),
                ..
            } => called(element).and_then(|function| all_called(&function, operand)),
            Expr::Cast { expr: operand, data_type, .. } => {
                called(data_type).map(|function| call(&function, vec![(**operand).clone()]))
            }
            Expr::TypedString(TypedString { data_type, value, .. }) => {
                called(data_type).map(|function| call(&function, vec![Expr::Value(value.clone())]))
            }
            Expr::BinaryOp { op, .. } => {
                if let Some(plain) = operator(op) {
                    *op = plain;
                }
                None
            }
            Expr::Collate { expr: operand, collation } => {
                let name = collation.0.last().and_then(|part| part.as_ident()).map(fold);
                let changes_nothing = matches!(name.as_deref(), Some("default" | "C" | "POSIX" | "ucs_basic"));
                changes_nothing.then(|| (**operand).clone())
            }
            _ => None,
        };
        if let Some(replaced) = replaced {
            *expr = replaced;
        }
        ControlFlow::Continue(())
    }
}

impl Schemas<'_> {
    fn qualify(&self, name: &mut ObjectName) {
        let parts = identifiers(name);
        let Some([relation]) = parts.as_deref() else { return };
        let folded = fold(relation);
        if (self.is_in_pg_catalog)(&folded) && !self.hidden.contains(&folded) {
            *name = ObjectName::from(vec![Ident::new(PG_CATALOG), (*relation).clone()]);
        }
    }
}

/// Removes the schema of a function's name: functions have one name only.
fn without_schema(name: &mut ObjectName) {
    if name.0.len() > 1
        && let Some(last) = name.0.pop()
    {
        name.0 = vec![last];
    }
}

/// The call that a name without parentheses stands for.
fn named_value(name: &Ident) -> Option<Expr> {
    let value = VALUES.iter().find(|(value, _)| name.value.eq_ignore_ascii_case(value));
    value.map(|(_, function)| call(function, Vec::new()))
}

/// The same, where sqlparser reads the name as a function without arguments.
fn value_of(function: &Function) -> Option<Expr> {
    match identifiers(&function.name)?.as_slice() {
        [name] if name.quote_style.is_none() => named_value(name),
        _ => None,
    }
}

/// `a.b[1]` is an element of the column `b` of a table `a`: a field of a struct would be `(a).b`.
fn column_of_table(root: &Expr, accesses: &[AccessExpr]) -> Option<Expr> {
    let mut parts = match root {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return None,
    };
    let names = accesses.iter().map_while(|access| match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
        _ => None,
    });
    let before = parts.len();
    parts.extend(names);
    let rest = accesses[parts.len() - before..].to_vec();
    let column = Expr::CompoundIdentifier(parts);
    match (rest.is_empty(), rest.len() < accesses.len()) {
        (_, false) => None,
        (true, _) => Some(column),
        (false, _) => Some(Expr::CompoundFieldAccess { root: Box::new(column), access_chain: rest }),
    }
}

/// Rewrites a function that returns a row for each element of an array as an unnested array.
fn rows_of(function: &Function) -> Option<Expr> {
    let name = identifiers(&function.name)?.last().map(|name| fold(name))?;
    let elements = match name.as_str() {
        "generate_subscripts" => SUBSCRIPTS,
        "_pg_expandarray" => EXPANDED,
        _ => return None,
    };
    matches!(function.args, FunctionArguments::List(_)).then(|| {
        let elements = Function { name: ObjectName::from(vec![Ident::new(elements)]), ..function.clone() };
        call("unnest", vec![Expr::Function(elements)])
    })
}

/// The type of a parameter that is cast to an oid.
pub(crate) fn oid_type(data_type: &DataType) -> Option<Type> {
    (called(data_type)? == Type::OID.name()).then_some(Type::OID)
}

/// The function that performs a cast to a type.
fn called(data_type: &DataType) -> Option<String> {
    let name = match data_type {
        DataType::Regclass => "regclass".to_owned(),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => match identifiers(name)?.as_slice() {
            [name] => fold(name),
            [schema, name] if fold(schema) == PG_CATALOG => fold(name),
            _ => return None,
        },
        _ => return None,
    };
    is_called(&name).then_some(name)
}

/// Calls a function for each element of a literal array.
fn all_called(function: &str, operand: &Expr) -> Option<Expr> {
    let elements = match operand {
        Expr::Nested(inner) => return all_called(function, inner),
        Expr::Array(array) => array.elem.clone(),
        Expr::Value(literal) => match &literal.value {
            Value::SingleQuotedString(text) => {
                let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
                // Elements that contain commas are quoted.
                let is_plain = !inside.trim().is_empty() && !inside.contains(['"', '\\', '{']);
                let element = |text: &str| match text.trim() {
                    text if text.eq_ignore_ascii_case("null") => null(),
                    text => Expr::Value(Value::SingleQuotedString(text.to_owned()).with_empty_span()),
                };
                is_plain.then(|| inside.split(',').map(element).collect())?
            }
            _ => return None,
        },
        _ => return None,
    };
    let elem: Vec<Expr> = elements.into_iter().map(|element| call(function, vec![element])).collect();
    (!elem.is_empty()).then_some(Expr::Array(Array { elem, named: true }))
}

/// The operator that `OPERATOR(pg_catalog.…)` names.
fn operator(op: &BinaryOperator) -> Option<BinaryOperator> {
    let BinaryOperator::PGCustomBinaryOperator(parts) = op else { return None };
    let name = match parts.as_slice() {
        [name] => name,
        [schema, name] if schema == PG_CATALOG => name,
        _ => return None,
    };
    Some(match name.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "@>" => BinaryOperator::AtArrow,
        "<@" => BinaryOperator::ArrowAt,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> String {
        match crate::parser::parse(sql).expect(sql).remove(0).statement {
            crate::parser::Statement::Query(mut statement) => {
                let no: &dyn Fn(&str) -> bool = &|_| false;
                let is_in_pg_catalog = &|name: &str| matches!(name, "pg_class" | "pg_timezone_names");
                let known =
                    Known { is_scalar: no, is_aggregate: no, is_window: no, returns_table: no, is_in_pg_catalog };
                found(&mut statement, &known);
                statement.to_string()
            }
            _ => panic!("{sql} is a query"),
        }
    }

    #[test]
    fn statements_are_put_so_that_names_are_found() {
        for (sql, expected) in [
            ("SELECT relname FROM pg_class", "SELECT relname FROM pg_catalog.pg_class"),
            (
                "WITH pg_class AS (SELECT 1) SELECT * FROM pg_class",
                "WITH pg_class AS (SELECT 1) SELECT * FROM pg_class",
            ),
            ("SELECT pg_catalog.version(), current_schema", "SELECT version(), current_schema()"),
            ("SELECT user, CASE WHEN a THEN user END", "SELECT current_user(), CASE WHEN a THEN current_user() END"),
            ("SELECT current_role, \"user\"", "SELECT current_user(), \"user\""),
            ("SELECT 'a'::regclass, $1::pg_catalog.oid", "SELECT regclass('a'), oid($1)"),
            ("SELECT '{int,text}'::regtype[]", "SELECT ARRAY[regtype('int'), regtype('text')]"),
            ("SELECT a OPERATOR(pg_catalog.~) 'b' COLLATE pg_catalog.default", "SELECT a ~ 'b'"),
            ("SELECT name FROM pg_catalog.pg_timezone_names()", "SELECT name FROM pg_catalog.pg_timezone_names"),
            ("SELECT i.k[1], (i.s).a FROM i", "SELECT i.k[1], (i.s).a FROM i"),
            ("SELECT (information_schema._pg_expandarray(i.k)).n FROM i", "SELECT (unnest(__expanded(i.k))).n FROM i"),
        ] {
            assert_eq!(read(sql), expected);
        }
    }
}
