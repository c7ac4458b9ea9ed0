//! Types, CASE and literals that DataFusion lacks or reads differently.

use std::ops::ControlFlow;

use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, Expr, Interval, LimitClause, ObjectName, Query,
    SetExpr, Statement, TypedString, Value, Values, VisitMut, VisitorMut,
};
use weir_common::decimal::{self, Excess};
use weir_common::types::{DECIMAL_PRECISION_MAX, NUMERIC_PRECISION, NUMERIC_SCALE};

use super::build::{call, cast, number, taken};
use crate::error::{Error, sqlstate};
use crate::functions::{AT_PRECISION, CASES, JSONB_CAST};
use crate::parser::identifiers;

/// PostgreSQL's `MaxAttrSize`.
const CHARACTERS_MAX: u64 = 10_485_760;

/// Rewrites types, CASE and literals so that DataFusion reads them as PostgreSQL does.
///
/// # Errors
/// The user's: a type that is not supported.
pub(super) fn as_written(statement: &mut Statement) -> Result<(), Error> {
    match statement.visit(&mut Types) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Rewrites types. PostgreSQL's timestamps have microseconds; DataFusion's default is nanoseconds,
/// which cover only 584 years. A numeric without a precision becomes the stored numeric. A cast to
/// jsonb becomes a call, as does a cast to `varchar(n)` or `char(n)`, which cuts the text, and AT
/// TIME ZONE.
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
        if let Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) = expr {
            if let Err(error) = check_type(data_type) {
                return ControlFlow::Break(error);
            }
            if let Some(digits) = time_digits(data_type) {
                let whole = taken(expr);
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

/// Replaces FETCH by LIMIT, which means the same. FETCH's other variants have been refused.
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

/// Gives literals in VALUES the type that another row states for their column, where DataFusion
/// would refuse them.
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
                *cell = cast(taken(cell), written.clone());
            }
        }
    }
}

/// True if a collation sorts texts as Weir does: by their bytes.
fn is_bytewise(collation: &ObjectName) -> bool {
    let name = identifiers(collation).and_then(|parts| parts.last().map(|last| last.value.clone()));
    name.is_some_and(|name| matches!(name.as_str(), "C" | "POSIX" | "ucs_basic" | "default" | "C.utf8" | "C.UTF-8"))
}

/// Checks the precision of a type.
///
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

/// The bits of the mantissa of a `real`, and of a double precision.
const REAL_BITS: u64 = 24;
const DOUBLE_BITS: u64 = 53;

/// The digits of the fraction of seconds that a time keeps, if they are fewer than 6. Removes the
/// precision from the type.
fn time_digits(data_type: &mut DataType) -> Option<u64> {
    match data_type {
        DataType::Timestamp(precision, _) | DataType::Time(precision, _) => {
            let digits = precision.take();
            digits.filter(|digits| *digits < 6)
        }
        _ => None,
    }
}

/// The maximal number of characters of a type's values.
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

/// Replaces a cast to a text type with a length by a cast to text, of which the first characters
/// are taken.
fn cut(expr: &mut Expr, most: u64) {
    let operand = match expr {
        Expr::Cast { expr, .. } => taken(expr),
        Expr::TypedString(typed) => Expr::Value(typed.value.clone()),
        _ => return,
    };
    *expr = call("left", vec![cast(operand, DataType::Varchar(None)), number(&most.to_string())]);
}

/// Replaces a type by the one that a table's column would have, where DataFusion would use another.
pub(crate) fn as_stored(data_type: &mut DataType) {
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

/// A literal with an exponent is a numeric, or a floating-point number if it is too large for one.
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
