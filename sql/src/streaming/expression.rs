//! Stored expressions, and their conversion from and to DataFusion's.
//!
//! Operators and functions are stored by name, with the revision of their semantics; constants as
//! the text that PostgreSQL prints. Expressions with several forms in DataFusion are stored in one
//! form: CASE with an operand as comparisons, BETWEEN as two of them.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, Operator, Volatility};
use weir_common::plan::{self, StreamColumn};
use weir_common::types::SqlType;

use super::refused;
use crate::error::Error;
use crate::functions::{self, scalar_from_text};
use crate::output;
use crate::types::stored_type;

/// The present revision of each function. A function whose results change gets its own.
const REVISION: u16 = 1;

/// Operators of two operands, by their names in plans.
const OPERATORS: [(&str, Operator); 29] = [
    ("=", Operator::Eq),
    ("<>", Operator::NotEq),
    ("<", Operator::Lt),
    ("<=", Operator::LtEq),
    (">", Operator::Gt),
    (">=", Operator::GtEq),
    ("+", Operator::Plus),
    ("-", Operator::Minus),
    ("*", Operator::Multiply),
    ("/", Operator::Divide),
    ("%", Operator::Modulo),
    ("AND", Operator::And),
    ("OR", Operator::Or),
    ("IS DISTINCT FROM", Operator::IsDistinctFrom),
    ("IS NOT DISTINCT FROM", Operator::IsNotDistinctFrom),
    ("~", Operator::RegexMatch),
    ("~*", Operator::RegexIMatch),
    ("!~", Operator::RegexNotMatch),
    ("!~*", Operator::RegexNotIMatch),
    ("~~", Operator::LikeMatch),
    ("~~*", Operator::ILikeMatch),
    ("!~~", Operator::NotLikeMatch),
    ("!~~*", Operator::NotILikeMatch),
    ("&", Operator::BitwiseAnd),
    ("|", Operator::BitwiseOr),
    ("#", Operator::BitwiseXor),
    (">>", Operator::BitwiseShiftRight),
    ("<<", Operator::BitwiseShiftLeft),
    ("||", Operator::StringConcat),
];

type Test = fn(Box<Expr>) -> Expr;

/// Tests of one operand, by their names in plans.
const TESTS: [(&str, Test); 10] = [
    ("NOT", Expr::Not),
    ("IS NULL", Expr::IsNull),
    ("IS NOT NULL", Expr::IsNotNull),
    ("IS TRUE", Expr::IsTrue),
    ("IS FALSE", Expr::IsFalse),
    ("IS UNKNOWN", Expr::IsUnknown),
    ("IS NOT TRUE", Expr::IsNotTrue),
    ("IS NOT FALSE", Expr::IsNotFalse),
    ("IS NOT UNKNOWN", Expr::IsNotUnknown),
    ("negative", Expr::Negative),
];

/// The stored form of an expression over the columns of `schema`.
///
/// # Errors
/// `0A000` for what depends on more than the row.
pub(super) fn store(expr: &Expr, schema: &DFSchema) -> Result<plan::Expr, Error> {
    let one = |expr: &Expr| store(expr, schema);
    let ty = || {
        let (_, field) = expr.to_field(schema)?;
        kept_type(&field).ok_or_else(|| refused(&format!("a value of the type {}", field.data_type())))
    };
    let call = |function: &str, arguments: Vec<plan::Expr>| {
        Ok(plan::Expr::Call { function: function.to_owned(), revision: REVISION, arguments, ty: ty()? })
    };
    match expr {
        Expr::Alias(alias) => one(&alias.expr),
        Expr::Column(column) => Ok(plan::Expr::Column(schema.index_of_column(column)?)),
        Expr::Literal(value, _) => literal(value, ty()?),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let named = OPERATORS.iter().find(|(_, operator)| operator == op);
            let (name, _) = named.ok_or_else(|| refused(&format!("the operator {op}")))?;
            call(name, vec![one(left)?, one(right)?])
        }
        Expr::Not(of) => call("NOT", vec![one(of)?]),
        Expr::IsNull(of) => call("IS NULL", vec![one(of)?]),
        Expr::IsNotNull(of) => call("IS NOT NULL", vec![one(of)?]),
        Expr::IsTrue(of) => call("IS TRUE", vec![one(of)?]),
        Expr::IsFalse(of) => call("IS FALSE", vec![one(of)?]),
        Expr::IsUnknown(of) => call("IS UNKNOWN", vec![one(of)?]),
        Expr::IsNotTrue(of) => call("IS NOT TRUE", vec![one(of)?]),
        Expr::IsNotFalse(of) => call("IS NOT FALSE", vec![one(of)?]),
        Expr::IsNotUnknown(of) => call("IS NOT UNKNOWN", vec![one(of)?]),
        Expr::Negative(of) => call("negative", vec![one(of)?]),
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive }) => {
            let name = match (negated, case_insensitive) {
                (false, false) => "LIKE",
                (false, true) => "ILIKE",
                (true, false) => "NOT LIKE",
                (true, true) => "NOT ILIKE",
            };
            call(name, vec![one(expr)?, one(pattern)?])
        }
        Expr::Between(between) => {
            let (value, low, high) = (&between.expr, &between.low, &between.high);
            let above = value.as_ref().clone().gt_eq(low.as_ref().clone());
            let within = above.and(value.as_ref().clone().lt_eq(high.as_ref().clone()));
            one(&if between.negated { Expr::Not(Box::new(within)) } else { within })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let values = std::iter::once(expr.as_ref()).chain(list).map(one).collect::<Result<_, _>>()?;
            call(if *negated { "NOT IN" } else { "IN" }, values)
        }
        Expr::Case(case) => self::case(case, schema, ty()?),
        Expr::Cast(Cast { expr, .. }) => Ok(plan::Expr::Cast { value: Box::new(one(expr)?), ty: ty()? }),
        Expr::ScalarFunction(ScalarFunction { func, args }) => match func.signature().volatility {
            Volatility::Immutable => call(func.name(), args.iter().map(one).collect::<Result<_, _>>()?),
            _ => Err(refused(&format!("{}(), whose value depends on when or by whom it is asked,", func.name()))),
        },
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
            Err(refused("a subquery"))
        }
        Expr::OuterReferenceColumn(..) => Err(refused("a reference to a query around it")),
        _ => Err(refused(&format!("the expression {expr}"))),
    }
}

/// The type as which values of a field are stored. The number of a grouping set has a type that no
/// column of a table has.
pub(super) fn kept_type(field: &Field) -> Option<SqlType> {
    stored_type(field).or(match field.data_type() {
        DataType::UInt8 | DataType::UInt16 => Some(SqlType::Integer),
        DataType::UInt32 => Some(SqlType::BigInt),
        _ => None,
    })
}

/// The type of a stored expression over columns.
pub(super) fn type_of<'a>(expr: &'a plan::Expr, columns: &'a [StreamColumn]) -> &'a SqlType {
    match expr {
        plan::Expr::Column(column) => &columns[*column].ty,
        plan::Expr::Literal { ty, .. }
        | plan::Expr::Call { ty, .. }
        | plan::Expr::Cast { ty, .. }
        | plan::Expr::Case { ty, .. } => ty,
    }
}

fn literal(value: &ScalarValue, ty: SqlType) -> Result<plan::Expr, Error> {
    if value.is_null() {
        return Ok(plan::Expr::Literal { value: None, ty });
    }
    let field = Arc::new(ty.field("value"));
    let stored = value.cast_to(field.data_type())?.to_array()?;
    let printed = output::printed(&stored, &field)?;
    Ok(plan::Expr::Literal { value: Some(printed.as_string::<i32>().value(0).to_owned()), ty })
}

fn case(case: &Case, schema: &DFSchema, ty: SqlType) -> Result<plan::Expr, Error> {
    let branch = |(when, then): &(Box<Expr>, Box<Expr>)| {
        let condition = match &case.expr {
            Some(operand) => operand.as_ref().clone().eq(when.as_ref().clone()),
            None => when.as_ref().clone(),
        };
        Ok((store(&condition, schema)?, store(then, schema)?))
    };
    let branches = case.when_then_expr.iter().map(branch).collect::<Result<_, Error>>()?;
    let otherwise = case.else_expr.as_ref().map(|expr| store(expr, schema)).transpose()?;
    Ok(plan::Expr::Case { branches, otherwise: otherwise.map(Box::new), ty })
}

/// Builds a stored expression over columns, which are called by `names`.
///
/// # Errors
/// Internal, with the name of a function that this version does not have.
pub(super) fn load(expr: &plan::Expr, names: &[Column], state: &SessionState) -> Result<Expr, Error> {
    let one = |expr: &plan::Expr| load(expr, names, state);
    let boxed = |expr: &plan::Expr| Ok::<_, Error>(Box::new(load(expr, names, state)?));
    Ok(match expr {
        plan::Expr::Column(column) => {
            let missing = || Error::internal(format!("a stored expression names column {column} of {}", names.len()));
            Expr::Column(names.get(*column).ok_or_else(missing)?.clone())
        }
        plan::Expr::Literal { value: None, ty } => Expr::Literal(ScalarValue::try_new_null(&ty.arrow())?, None),
        plan::Expr::Literal { value: Some(text), ty } => Expr::Literal(scalar_from_text(text, &ty.arrow())?, None),
        plan::Expr::Cast { value, ty } => Expr::Cast(Cast::new_from_field(boxed(value)?, Arc::new(ty.field("value")))),
        plan::Expr::Case { branches, otherwise, .. } => {
            let branch = |(when, then): &(plan::Expr, plan::Expr)| Ok((boxed(when)?, boxed(then)?));
            let branches = branches.iter().map(branch).collect::<Result<_, Error>>()?;
            Expr::Case(Case::new(None, branches, otherwise.as_deref().map(boxed).transpose()?))
        }
        plan::Expr::Call { function, revision, arguments, .. } if *revision == REVISION => {
            let arguments = arguments.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            call(function, arguments, state).ok_or_else(|| unknown(function, *revision))?
        }
        plan::Expr::Call { function, revision, .. } => return Err(unknown(function, *revision)),
    })
}

fn unknown(function: &str, revision: u16) -> Error {
    Error::internal(format!("this version of Weir has no function {function} of revision {revision}"))
        .with_hint("run the version that created the job, or drop it and create it again")
}

fn call(function: &str, mut arguments: Vec<Expr>, state: &SessionState) -> Option<Expr> {
    if let Some((_, operator)) = OPERATORS.iter().find(|(name, _)| *name == function) {
        let [left, right] = arguments.try_into().ok()?;
        return Some(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), *operator, Box::new(right))));
    }
    if let Some((_, test)) = TESTS.iter().find(|(name, _)| *name == function) {
        let [of] = arguments.try_into().ok()?;
        return Some(test(Box::new(of)));
    }
    match function {
        "LIKE" | "ILIKE" | "NOT LIKE" | "NOT ILIKE" => {
            let [value, pattern] = arguments.try_into().ok()?;
            let (negated, folded) = (function.starts_with("NOT"), function.ends_with("ILIKE"));
            Some(Expr::Like(Like::new(negated, Box::new(value), Box::new(pattern), None, folded)))
        }
        "IN" | "NOT IN" => {
            let list = arguments.split_off(1);
            Some(Expr::InList(InList::new(Box::new(arguments.pop()?), list, function == "NOT IN")))
        }
        _ => {
            let of_operator = || functions::of_operators().into_iter().find(|own| own.name() == function).map(Arc::new);
            let function = state.scalar_functions().get(function).cloned().or_else(of_operator)?;
            Some(Expr::ScalarFunction(ScalarFunction::new_udf(function, arguments)))
        }
    }
}
