//! Changes to a query's syntax tree, for what DataFusion reads differently from PostgreSQL.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion_pg_catalog::pg_catalog::PG_CATALOG_TABLES;
use datafusion_pg_catalog::sql::rules::{
    CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral, PrependUnqualifiedPgTableName,
    RewriteArrayAnyAllOperation, RewritePgCatalogOperator, RewriteRegCastToSubquery, SqlStatementRewriteRule,
    StripCallableQualifier,
};
use sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    LimitClause, ObjectName, Query, Statement, TableFactor, TypedString, Value, ValueWithSpan, VisitMut, VisitorMut,
    visit_expressions, visit_expressions_mut,
};
use sqlparser::tokenizer::Location;

use super::apart::set_apart;
use weir_common::types::SqlType;

use crate::functions::JSONB_CAST;
use crate::parser::{DATABASE, SCHEMA, fold, identifiers, known_type};

/// The protocol counts the values of a statement in 16 bits.
const PARAMETERS_MAX: usize = u16::MAX as usize;

static NAMES_AS_OIDS: LazyLock<RewriteRegCastToSubquery> = LazyLock::new(RewriteRegCastToSubquery::new);

/// What every query of a user's goes through.
pub(super) fn for_datafusion(statement: Statement) -> Statement {
    let with = with_names(&statement);
    let is_hidden = PG_CATALOG_TABLES.iter().any(|name| with.contains(*name));
    let rules: [&dyn SqlStatementRewriteRule; 6] = [
        &RewriteArrayAnyAllOperation,
        &StripCallableQualifier,
        &FixArrayLiteral,
        &CurrentUserVariableToSessionUserFunctionCall,
        &RewritePgCatalogOperator,
        &*NAMES_AS_OIDS,
    ];
    let statement = if is_hidden { statement } else { PrependUnqualifiedPgTableName.rewrite(statement) };
    rules.iter().fold(statement, |statement, rule| rule.rewrite(statement))
}

/// What every query goes through, of a user's or of a tool's.
pub(super) fn common(mut statement: Statement) -> Statement {
    let _finished = statement.visit(&mut Types);
    set_apart(&mut statement);
    statement
}

/// Types that DataFusion lacks or takes for others. PostgreSQL's timestamps have microseconds where DataFusion's default
/// has nanoseconds, and with them a range of only 584 years. A cast to jsonb is a call of the function that makes one.
struct Types;

impl VisitorMut for Types {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr: operand, data_type: DataType::JSONB | DataType::JSON, .. } => {
                let operand = std::mem::replace(operand.as_mut(), Expr::Value(Value::Null.with_empty_span()));
                *expr = call(JSONB_CAST, operand);
            }
            Expr::TypedString(TypedString { data_type: DataType::JSONB | DataType::JSON, value, .. }) => {
                *expr = call(JSONB_CAST, Expr::Value(value.clone()));
            }
            Expr::Cast { data_type, .. } => with_microseconds(data_type),
            Expr::TypedString(typed) => with_microseconds(&mut typed.data_type),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A call of a function of one operand.
pub(super) fn call(function: &str, operand: Expr) -> Expr {
    let operand = FunctionArg::Unnamed(FunctionArgExpr::Expr(operand));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![operand],
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn with_microseconds(data_type: &mut DataType) {
    if let DataType::Timestamp(precision @ None, _) = data_type {
        *precision = Some(6);
    }
}

/// The highest `$n` of a statement; 0 without any.
///
/// # Errors
/// A placeholder that no value can be bound to, and where it stands: the protocol counts parameters in 16 bits.
pub(super) fn parameter_count(statement: &Statement) -> Result<usize, (String, Location)> {
    let mut count = 0;
    let found = visit_expressions(statement, |expr| {
        if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), span }) = expr {
            match placeholder(expr) {
                Some(number) if (1..=PARAMETERS_MAX).contains(&number) => count = count.max(number),
                _ => return ControlFlow::Break((name.clone(), span.start)),
            }
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Continue(()) => Ok(count),
        ControlFlow::Break(unbound) => Err(unbound),
    }
}

/// The types that a statement's text gives its parameters: `$1::int`, and `LIMIT $2`, of which DataFusion infers nothing.
pub(super) fn written_types(statement: &Statement) -> HashMap<usize, SqlType> {
    struct Written(HashMap<usize, SqlType>);
    impl sqlparser::ast::Visitor for Written {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: operand, data_type, .. } = expr
                && let Some(number) = placeholder(operand)
                && let Some(ty) = known_type(data_type)
            {
                self.0.entry(number).or_insert(ty);
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.0.extend(counts.filter_map(placeholder).map(|number| (number, SqlType::BigInt)));
            }
            ControlFlow::Continue(())
        }
    }
    let mut written = Written(HashMap::new());
    let _finished = sqlparser::ast::Visit::visit(statement, &mut written);
    written.0
}

/// Gives parameters a type: `$n` becomes a cast of itself. Where the answer is `None` it stays bare.
pub(super) fn cast_parameters(statement: &mut Statement, type_of: impl Fn(usize) -> Option<DataType>) {
    // Children are visited before their parents, so the operand of a new cast is not visited again.
    let _finished = visit_expressions_mut(statement, |expr| {
        if let Some(data_type) = placeholder(expr).and_then(&type_of) {
            let operand = Box::new(expr.clone());
            *expr = Expr::Cast { kind: CastKind::Cast, expr: operand, data_type, array: false, format: None };
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The number of a placeholder.
fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Every table that a query names, with the identifiers of its name; calls of table functions are none.
pub(super) fn tables(statement: &Statement) -> Vec<Vec<Ident>> {
    struct Tables(Vec<Vec<Ident>>);
    impl sqlparser::ast::Visitor for Tables {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { name, args: None, .. } = factor
                && let Some(parts) = identifiers(name)
            {
                self.0.push(parts.into_iter().cloned().collect());
            }
            ControlFlow::Continue(())
        }
    }
    let mut tables = Tables(Vec::new());
    let _finished = sqlparser::ast::Visit::visit(statement, &mut tables);
    tables.0
}

/// The names of the tables in the schema `public` that a query reads, each once.
pub(super) fn table_names(statement: &Statement) -> BTreeSet<String> {
    let tables = tables(statement).into_iter().filter_map(|parts| {
        let folded: Vec<String> = parts.iter().map(fold).collect();
        match folded.as_slice() {
            [name] => Some(name.clone()),
            [schema, name] if schema == SCHEMA => Some(name.clone()),
            [database, schema, name] if database == DATABASE && schema == SCHEMA => Some(name.clone()),
            _ => None,
        }
    });
    let with = with_names(statement);
    tables.filter(|name| !with.contains(name)).collect()
}

/// Every name that a WITH clause gives, wherever it stands.
pub(super) fn with_names(statement: &Statement) -> HashSet<String> {
    struct Names(HashSet<String>);
    impl sqlparser::ast::Visitor for Names {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let tables = query.with.iter().flat_map(|with| &with.cte_tables);
            self.0.extend(tables.map(|table| fold(&table.alias.name)));
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(HashSet::new());
    let _finished = sqlparser::ast::Visit::visit(statement, &mut names);
    names.0
}
