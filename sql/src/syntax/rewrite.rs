//! Changes to a query's syntax tree, for what DataFusion reads differently from PostgreSQL.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use pgwire::api::Type;
use sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CastKind, CharacterLength, DataType, ExactNumberInfo, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Interval, LimitClause, ObjectName,
    Query, SetExpr, Statement, TableFactor, TypedString, Value, ValueWithSpan, Values, VisitMut, VisitorMut,
    visit_expressions, visit_expressions_mut,
};
use sqlparser::tokenizer::Location;
use weir_common::decimal::{self, Excess};
use weir_common::types::{DECIMAL_PRECISION_MAX, NUMERIC_PRECISION, NUMERIC_SCALE};

use super::apart::set_apart;
use super::literals::in_statement;
use super::refused::Functions;
use super::{collected, precedence, refused, rows, scopes, sets, similar, windows};
use crate::encode::pg_type;
use crate::error::{Error, sqlstate};
use crate::functions::{ARRAY_TO_STRING, AT_PRECISION, CASES, JSONB_CAST, function_of};
use crate::parser::{DATABASE, SCHEMA, fold, identifiers, known_type, parse};

/// The protocol counts the values of a statement in 16 bits.
const PARAMETERS_MAX: usize = u16::MAX as usize;

/// PostgreSQL's `MaxAttrSize`.
const CHARACTERS_MAX: u64 = 10_485_760;

/// What every query of a user's goes through.
///
/// # Errors
/// The user's: a clause that is not supported, rows of different lengths.
pub(super) fn for_datafusion(mut statement: Statement, functions: &Functions<'_>) -> Result<Statement, Error> {
    precedence::corrected(&mut statement);
    let mut statement = super::pg_catalog::plannable(statement);
    scopes::found(&mut statement);
    collected::aggregated(&mut statement);
    windows::expand(&mut statement)?;
    sets::unnested(&mut statement, functions.is_aggregate)?;
    refused::check(&statement, functions)?;
    let rewritten = visit_expressions_mut(&mut statement, |expr| {
        array_operation(expr);
        compared_with_query(expr);
        match rows::compared(expr).and_then(|()| similar::as_regex(expr)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    });
    match rewritten {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(statement),
    }
}

/// `op ANY` and `op ALL` of an array become calls of functions, as does `(struct).field`. The length of an empty array is
/// NULL.
fn array_operation(expr: &mut Expr) {
    let replaced = match &*expr {
        Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right }
            if !matches!(right.as_ref(), Expr::Subquery(_)) =>
        {
            let any = matches!(expr, Expr::AnyOp { .. });
            function_of(compare_op, any).map(|function| call(function, vec![(**left).clone(), (**right).clone()]))
        }
        Expr::Function(function) if fold_name(function).as_deref() == Some("array_length") => {
            let two = matches!(&function.args, FunctionArguments::List(arguments) if arguments.args.len() == 2);
            two.then(|| call("nullif", vec![expr.clone(), number("0")]))
        }
        Expr::Function(function) if fold_name(function).as_deref() == Some("array_to_string") => {
            let mut own = function.clone();
            own.name = ObjectName::from(vec![Ident::new(ARRAY_TO_STRING)]);
            Some(Expr::Function(own))
        }
        // DataFusion's functions of these names look at the first such element only.
        Expr::Function(function)
            if matches!(fold_name(function).as_deref(), Some("array_remove" | "array_replace")) =>
        {
            let mut all = function.clone();
            all.name = ObjectName::from(vec![Ident::new(format!("{}_all", fold_name(function).unwrap_or_default()))]);
            Some(Expr::Function(all))
        }
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain.iter().any(|access| matches!(access, AccessExpr::Dot(_))) =>
        {
            Some(access_chain.iter().fold((**root).clone(), part))
        }
        _ => None,
    };
    if let Some(replaced) = replaced {
        *expr = replaced;
    }
}

/// A field of a struct, or an element of an array.
fn part(whole: Expr, access: &AccessExpr) -> Expr {
    match access {
        AccessExpr::Dot(Expr::Identifier(field)) => {
            let field = Expr::Value(Value::SingleQuotedString(fold(field)).with_empty_span());
            call("get_field", vec![whole, field])
        }
        other => Expr::CompoundFieldAccess { root: Box::new(whole), access_chain: vec![other.clone()] },
    }
}

/// `= ANY` and `<> ALL` of a sub-query are IN and NOT IN. For other operators the sub-query gets a name that is nowhere
/// else: DataFusion takes its column for one outside that is called the same.
fn compared_with_query(expr: &mut Expr) {
    let any = matches!(expr, Expr::AnyOp { .. });
    let (Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right }) = expr else {
        return;
    };
    let Expr::Subquery(subquery) = right.as_mut() else {
        return;
    };
    match (compare_op, any) {
        (BinaryOperator::Eq, true) | (BinaryOperator::NotEq, false) => {
            let left = std::mem::replace(left, Box::new(Expr::Value(Value::Null.with_empty_span())));
            *expr = Expr::InSubquery { expr: left, subquery: subquery.clone(), negated: !any };
        }
        _ => {
            if let Some(named) = named(subquery) {
                *subquery = named;
            }
        }
    }
}

fn named(query: &Query) -> Option<Box<Query>> {
    let statement = parse("SELECT * FROM (SELECT 1) AS __compared").ok()?.pop()?.statement;
    let crate::parser::Statement::Query(statement) = statement else { return None };
    let Statement::Query(mut outer) = *statement else { return None };
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation else { return None };
    **subquery = query.clone();
    Some(outer)
}

fn fold_name(function: &Function) -> Option<String> {
    identifiers(&function.name).and_then(|parts| parts.last().map(|last| fold(last)))
}

pub(super) fn number(digits: &str) -> Expr {
    Expr::Value(Value::Number(digits.to_owned(), false).with_empty_span())
}

/// What every query goes through, of a user's or of a tool's.
///
/// # Errors
/// The user's: a type that is not supported.
pub(super) fn common(mut statement: Statement) -> Result<Statement, Error> {
    in_statement(&mut statement);
    if let ControlFlow::Break(error) = statement.visit(&mut Types) {
        return Err(error);
    }
    set_apart(&mut statement);
    Ok(statement)
}

/// Types that DataFusion lacks or takes for others. PostgreSQL's timestamps have microseconds where DataFusion's default
/// has nanoseconds, and with them a range of only 584 years. A numeric without a precision is the stored one. A cast to
/// jsonb is a call of the function that makes one, and one to `varchar(n)` or `char(n)` of the one that cuts. A local time is
/// asked for by a function too.
struct Types;

impl VisitorMut for Types {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        fetched(query);
        if let SetExpr::Values(values) = query.body.as_mut() {
            alike(values);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let taken = |operand: &mut Expr| std::mem::replace(operand, Expr::Value(Value::Null.with_empty_span()));
        if let Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) = expr {
            if let Err(error) = check_type(data_type) {
                return ControlFlow::Break(error);
            }
            if let Some(digits) = time_digits(data_type) {
                let whole = std::mem::replace(expr, null());
                *expr = call(AT_PRECISION, vec![whole, number(&digits.to_string())]);
                return ControlFlow::Continue(());
            }
        }
        if let Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) = &*expr {
            match characters(data_type) {
                Ok(Some(most)) => {
                    cut(expr, most);
                    return ControlFlow::Continue(());
                }
                Ok(None) => {}
                Err(error) => return ControlFlow::Break(error),
            }
        }
        match expr {
            Expr::Case { operand, conditions, else_result, .. } => {
                let (mut arguments, name) = match operand {
                    Some(operand) => (vec![taken(operand)], CASES[1]),
                    None => (Vec::new(), CASES[0]),
                };
                for case in conditions {
                    arguments.extend([taken(&mut case.condition), taken(&mut case.result)]);
                }
                arguments.extend(else_result.as_mut().map(|result| taken(result)));
                *expr = call(name, arguments);
            }
            Expr::Collate { expr: operand, collation } if is_bytewise(collation) => {
                *expr = Expr::Nested(Box::new(taken(operand)));
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("timezone", vec![taken(time_zone), taken(timestamp)]);
            }
            Expr::Cast { expr: operand, data_type: DataType::JSONB | DataType::JSON, .. } => {
                *expr = call(JSONB_CAST, vec![taken(operand)]);
            }
            Expr::TypedString(TypedString { data_type: DataType::JSONB | DataType::JSON, value, .. }) => {
                *expr = call(JSONB_CAST, vec![Expr::Value(value.clone())]);
            }
            Expr::Cast { data_type, .. } => as_stored(data_type),
            Expr::TypedString(typed) => as_stored(&mut typed.data_type),
            Expr::Interval(Interval { value, leading_field: None, leading_precision: None, .. }) => {
                *expr = cast(taken(value), DataType::Interval { fields: None, precision: None });
            }
            Expr::Value(literal) => {
                if let Value::Number(digits, _) = &literal.value
                    && digits.contains(['e', 'E'])
                {
                    *expr = exponent_literal(digits);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}

/// FETCH says the same as LIMIT. What else it could say has been refused.
fn fetched(query: &mut Query) {
    let Some(fetch) = query.fetch.take() else { return };
    let quantity = fetch.quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(quantity),
        clause => {
            *clause = Some(LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: Vec::new() });
        }
    }
}

/// Gives literals in VALUES the type that is written in another row of their column, where DataFusion would refuse them.
fn alike(values: &mut Values) {
    let columns = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..columns {
        let written = values.rows.iter().find_map(|row| match row.content.get(column)? {
            Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => Some(data_type.clone()),
            Expr::Interval(_) => Some(DataType::Interval { fields: None, precision: None }),
            _ => None,
        });
        let Some(written) = written else { continue };
        for cell in values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
            let is_open = matches!(&*cell, Expr::Value(value)
                if matches!(value.value, Value::SingleQuotedString(_) | Value::Null));
            if is_open {
                *cell = cast(std::mem::replace(cell, null()), written.clone());
            }
        }
    }
}

/// True if a collation sorts texts as they are sorted here: by their bytes.
fn is_bytewise(collation: &ObjectName) -> bool {
    let name = identifiers(collation).and_then(|parts| parts.last().map(|last| last.value.clone()));
    name.is_some_and(|name| matches!(name.as_str(), "C" | "POSIX" | "ucs_basic" | "default" | "C.utf8" | "C.UTF-8"))
}

/// # Errors
/// `22023` for a precision that PostgreSQL refuses.
fn check_type(data_type: &DataType) -> Result<(), Error> {
    let refuse = |message: &str| Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
    match data_type {
        DataType::Float(ExactNumberInfo::Precision(0)) => refuse("precision for type float must be at least 1 bit"),
        DataType::Float(ExactNumberInfo::Precision(bits)) if *bits > DOUBLE_BITS => {
            refuse("precision for type float must be less than 54 bits")
        }
        DataType::Float(ExactNumberInfo::PrecisionAndScale(..)) => {
            Err(Error::user(sqlstate::SYNTAX_ERROR, "a float has no scale"))
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => check_type(element),
        _ => Ok(()),
    }
}

/// The bits of a `real`'s mantissa, and of a double precision's.
const REAL_BITS: u64 = 24;
const DOUBLE_BITS: u64 = 53;

/// How many digits a time keeps of its seconds' fraction, if that is less than it has; the type becomes the whole one.
fn time_digits(data_type: &mut DataType) -> Option<u64> {
    match data_type {
        DataType::Timestamp(precision, _) | DataType::Time(precision, _) => {
            let digits = precision.take();
            digits.filter(|digits| *digits < 6)
        }
        _ => None,
    }
}

/// How many characters a value of the type has at most.
fn characters(data_type: &DataType) -> Result<Option<u64>, Error> {
    let (length, name) = match data_type {
        DataType::Varchar(length) | DataType::CharacterVarying(length) | DataType::CharVarying(length) => {
            (*length, "varchar")
        }
        DataType::Char(length) | DataType::Character(length) => {
            (length.or(Some(CharacterLength::IntegerLength { length: 1, unit: None })), "char")
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => {
            return match characters(element)? {
                Some(_) => Err(Error::unsupported(format!("a cast to {data_type} is not supported yet"))
                    .with_hint("cast to varchar[]")),
                None => Ok(None),
            };
        }
        _ => return Ok(None),
    };
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) if (1..=CHARACTERS_MAX).contains(&length) => {
            Ok(Some(length))
        }
        Some(CharacterLength::IntegerLength { length, .. }) => {
            let bound = if length == 0 { "at least 1".to_owned() } else { format!("at most {CHARACTERS_MAX}") };
            let message = format!("length for type {name} must be {bound}");
            Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message))
        }
        _ => Ok(None),
    }
}

/// Makes of a cast to a text with a length one to any text, of which the first characters are taken.
fn cut(expr: &mut Expr, most: u64) {
    let operand = match expr {
        Expr::Cast { expr, .. } => std::mem::replace(expr.as_mut(), Expr::Value(Value::Null.with_empty_span())),
        Expr::TypedString(typed) => Expr::Value(typed.value.clone()),
        _ => return,
    };
    *expr = call("left", vec![cast(operand, DataType::Varchar(None)), number(&most.to_string())]);
}

/// A call of a function.
pub(super) fn call(function: &str, operands: Vec<Expr>) -> Expr {
    let operands = operands.into_iter().map(|operand| FunctionArg::Unnamed(FunctionArgExpr::Expr(operand)));
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: operands.collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

pub(super) fn cast(operand: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(operand), data_type, array: false, format: None }
}

/// The type of a table's that a written type stands for, where DataFusion would take another.
pub(super) fn as_stored(data_type: &mut DataType) {
    match data_type {
        DataType::Timestamp(precision @ None, _) => *precision = Some(6),
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => {
            let info = match info {
                ExactNumberInfo::None => {
                    ExactNumberInfo::PrecisionAndScale(NUMERIC_PRECISION.into(), NUMERIC_SCALE.into())
                }
                declared => *declared,
            };
            *data_type = DataType::Numeric(info);
        }
        DataType::Float(ExactNumberInfo::Precision(1..=REAL_BITS)) => *data_type = DataType::Real,
        DataType::Float(_) | DataType::Double(_) => *data_type = DataType::DoublePrecision,
        DataType::CharacterVarying(None) | DataType::CharVarying(None) => *data_type = DataType::Varchar(None),
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => as_stored(element),
        _ => {}
    }
}

/// A literal with an exponent is a numeric, or, if it is too large for one, a floating-point number.
fn exponent_literal(digits: &str) -> Expr {
    let text = Expr::Value(Value::SingleQuotedString(digits.to_owned()).with_empty_span());
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = exponent.parse::<i64>().ok().zip(i64::try_from(fraction).ok());
    let scale = scale.map_or(i64::MAX, |(exponent, fraction)| fraction.saturating_sub(exponent).max(0));
    let fits = u8::try_from(scale).ok().filter(|scale| *scale <= DECIMAL_PRECISION_MAX);
    let fits = fits.filter(|scale| decimal::parse(digits, DECIMAL_PRECISION_MAX, *scale, Excess::Refuse).is_some());
    let precision = u64::from(DECIMAL_PRECISION_MAX);
    cast(
        text,
        match fits {
            Some(scale) => DataType::Numeric(ExactNumberInfo::PrecisionAndScale(precision, scale.into())),
            None => DataType::DoublePrecision,
        },
    )
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
pub(super) fn written_types(statement: &Statement) -> HashMap<usize, Type> {
    struct Written(HashMap<usize, Type>);
    impl sqlparser::ast::Visitor for Written {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: operand, data_type, .. } = expr
                && let Some(number) = placeholder(operand)
                && let Some(ty) = super::pg_catalog::oid_type(data_type)
                    .or_else(|| pg_type(&Arc::new(known_type(data_type)?.field(""))).ok())
            {
                self.0.entry(number).or_insert(ty);
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let fetched = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()).and_then(placeholder);
            self.0.extend(fetched.map(|number| (number, Type::INT8)));
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.0.extend(counts.filter_map(placeholder).map(|number| (number, Type::INT8)));
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
