//! Rows of literals and parameters: the common INSERT, which needs no plan.

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::scalar::ScalarValue;
use sqlparser::ast::{Expr, FunctionArguments, Value};
use weir_common::catalog::{Column, schema};
use weir_common::types::SqlType;

use super::{build, is_default};
use crate::error::Error;
use crate::functions::scalar_from_text;
use crate::parser::fold;

/// Rows whose values are literals, parameters and the present time.
#[derive(Clone, Debug)]
pub struct Literals {
    columns: Vec<Column>,
    /// A list of values for each column.
    cells: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
enum Cell {
    Value(ScalarValue),
    /// A parameter, counted from 0.
    Parameter(usize),
    /// `now()`.
    Now,
}

impl Literals {
    /// The rows, if all values are of this kind and no literal has to be refused: the query does
    /// that, with a better message.
    pub(super) fn of(columns: &[Column], named: &[usize], rows: &[Vec<Expr>]) -> Option<Literals> {
        let cells = columns.iter().enumerate().map(|(place, column)| {
            let at = named.iter().position(|named| *named == place);
            let stored = match column.constraints().and_then(|constraints| constraints.default.as_deref()) {
                Some(text) => Some(build::expression(text).ok()?),
                None => None,
            };
            let missing = || match &stored {
                Some(expr) => cell(expr, &column.ty),
                None => Some(Cell::Value(ScalarValue::try_from(&column.ty.arrow()).ok()?)),
            };
            let value = |row: &Vec<Expr>| match at {
                Some(at) if !is_default(&row[at]) => cell(&row[at], &column.ty),
                _ => missing(),
            };
            rows.iter().map(value).collect()
        });
        let cells = cells.collect::<Option<_>>()?;
        Some(Literals { columns: columns.to_vec(), cells })
    }

    /// The rows with the values of parameters, at a time in microseconds since 1970; `None` if a
    /// parameter has another type than its column.
    ///
    /// # Errors
    /// If a parameter's text is not a value of its column.
    pub fn rows(&self, values: Option<&ParamValues>, now_us: i64) -> Result<Option<RecordBatch>, Error> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, cells) in self.columns.iter().zip(&self.cells) {
            let arrow = column.ty.arrow();
            let mut scalars = Vec::with_capacity(cells.len());
            for cell in cells {
                let scalar = match cell {
                    Cell::Value(value) => Some(value.clone()),
                    Cell::Now => Some(ScalarValue::TimestampMicrosecond(Some(now_us), Some("UTC".into()))),
                    Cell::Parameter(number) => converted(parameter(values, *number), &column.ty, &arrow)?,
                };
                match scalar {
                    Some(scalar) => scalars.push(scalar),
                    None => return Ok(None),
                }
            }
            arrays.push(ScalarValue::iter_to_array(scalars)?);
        }
        let batch = RecordBatch::try_new(schema(&self.columns), arrays);
        Ok(Some(batch.map_err(datafusion::error::DataFusionError::from)?))
    }
}

fn parameter(values: Option<&ParamValues>, number: usize) -> Option<&ScalarValue> {
    match values? {
        ParamValues::List(list) => list.get(number).map(|value| &value.value),
        ParamValues::Map(_) => None,
    }
}

/// A parameter's value as one of a column; `None` if that needs a cast that the query makes.
fn converted(value: Option<&ScalarValue>, ty: &SqlType, arrow: &DataType) -> Result<Option<ScalarValue>, Error> {
    let Some(value) = value else { return Ok(None) };
    if value.is_null() {
        return Ok(Some(ScalarValue::try_from(arrow)?));
    }
    Ok(match (value, ty) {
        // The text of a jsonb is normalised by the query.
        (_, SqlType::Jsonb | SqlType::Array(_) | SqlType::Struct(_)) => None,
        (value, _) if value.data_type() == *arrow => Some(value.clone()),
        (ScalarValue::Utf8(Some(text)), _) => Some(scalar_from_text(text, arrow)?),
        (ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..), SqlType::Numeric | SqlType::Decimal { .. }) => {
            Some(scalar_from_text(&value.to_string(), arrow)?)
        }
        _ => None,
    })
}

/// A value of VALUES, if it is a literal that fits its column, or a parameter.
fn cell(expr: &Expr, ty: &SqlType) -> Option<Cell> {
    if *ty == SqlType::Timestamptz && is_now(expr) {
        return Some(Cell::Now);
    }
    let arrow = ty.arrow();
    let text = |text: &str| scalar_from_text(text, &arrow).ok().map(Cell::Value);
    let (negative, literal) = build::literal(expr)?;
    if matches!(ty, SqlType::Jsonb | SqlType::Struct(_)) && !matches!(literal, Value::Null) {
        return None;
    }
    match literal {
        Value::Null => Some(Cell::Value(ScalarValue::try_from(&arrow).ok()?)),
        Value::Placeholder(name) => {
            let number: usize = name.strip_prefix('$')?.parse().ok()?;
            Some(Cell::Parameter(number.checked_sub(1)?))
        }
        Value::SingleQuotedString(literal) | Value::EscapedStringLiteral(literal) => text(literal),
        Value::Boolean(value) if *ty == SqlType::Boolean => Some(Cell::Value(ScalarValue::Boolean(Some(*value)))),
        Value::Number(digits, _) => {
            let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            let is_exact = matches!(ty, SqlType::Numeric | SqlType::Decimal { .. });
            let is_float = matches!(ty, SqlType::Real | SqlType::Double);
            let is_integer = matches!(ty, SqlType::SmallInt | SqlType::Integer | SqlType::BigInt);
            let sign = if negative { "-" } else { "" };
            (is_exact || is_float || is_integer && is_whole).then(|| text(&format!("{sign}{digits}")))?
        }
        _ => None,
    }
}

fn is_now(expr: &Expr) -> bool {
    let function = match expr {
        Expr::Nested(inner) => return is_now(inner),
        Expr::Function(function) => function,
        _ => return false,
    };
    let is_bare = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let name = function.name.0.first().and_then(|part| part.as_ident()).map(fold);
    is_bare && function.name.0.len() == 1 && matches!(name.as_deref(), Some("now" | "current_timestamp"))
}
