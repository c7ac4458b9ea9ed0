//! Builds expressions for rewrites.

use sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Query, Statement, Value,
};

use crate::error::Error;
use crate::parser::{self, parse};

/// A call of a function.
pub(crate) fn call(function: &str, operands: Vec<Expr>) -> Expr {
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

/// A cast.
pub(crate) fn cast(operand: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(operand), data_type, array: false, format: None }
}

/// A number with these digits.
pub(crate) fn number(digits: &str) -> Expr {
    Expr::Value(Value::Number(digits.to_owned(), false).with_empty_span())
}

/// NULL.
pub(crate) fn null() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}

/// Takes an expression out of a tree; NULL is left in its place.
pub(crate) fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

/// A query, from its text.
///
/// # Errors
/// The parser's; Internal if the text is not a query.
pub(crate) fn query(text: &str) -> Result<Box<Query>, Error> {
    match parse(text)?.pop().map(|parsed| parsed.statement) {
        Some(parser::Statement::Query(statement)) => match *statement {
            Statement::Query(query) => Ok(query),
            _ => Err(Error::internal("the replacement of a function is not a query")),
        },
        _ => Err(Error::internal("the replacement of a function is not a query")),
    }
}
