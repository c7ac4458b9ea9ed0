//! The few functions that plans in tests call.

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::compute::kernels::{cmp, numeric};
use weir_common::plan::{Expr, StreamColumn};
use weir_common::types::SqlType;
use weir_common::view::{Error, Expression, Functions};

/// Columns, literals, casts, comparisons and additions.
#[derive(Debug)]
pub(super) struct Few;

#[derive(Debug)]
struct Tree(Expr);

impl Functions for Few {
    fn build(&self, expr: &Expr, _columns: &[StreamColumn]) -> Result<Box<dyn Expression>, Error> {
        Ok(Box::new(Tree(expr.clone())))
    }
}

impl Expression for Tree {
    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, Error> {
        evaluate(&self.0, rows)
    }
}

fn evaluate(expr: &Expr, rows: &RecordBatch) -> Result<ArrayRef, Error> {
    match expr {
        Expr::Column(column) => Ok(rows.column(*column).clone()),
        Expr::Literal { value, ty } => Ok(values(&vec![value.as_deref(); rows.num_rows()], ty)),
        Expr::Cast { value, ty } => {
            cast(&evaluate(value, rows)?, &ty.arrow()).map_err(|error| Error::new(error.to_string()))
        }
        Expr::Call { function, arguments, .. } => {
            let (left, right) = (evaluate(&arguments[0], rows)?, evaluate(&arguments[1], rows)?);
            let result = match function.as_str() {
                "+" => numeric::add(&left, &right),
                "/" => numeric::div(&left, &right),
                ">" => cmp::gt(&left, &right).map(|result| std::sync::Arc::new(result) as ArrayRef),
                "=" => cmp::eq(&left, &right).map(|result| std::sync::Arc::new(result) as ArrayRef),
                other => panic!("tests have no function {other}"),
            };
            result.map_err(|error| Error::new(error.to_string()))
        }
        Expr::Case { .. } => panic!("tests have no CASE"),
    }
}

/// Values of a type, given as texts.
pub(super) fn values(texts: &[Option<&str>], ty: &SqlType) -> ArrayRef {
    let column = cast(&StringArray::from(texts.to_vec()), &ty.arrow()).expect("a type of values");
    for (row, text) in texts.iter().enumerate() {
        assert_eq!(column.is_null(row), text.is_none(), "{text:?} is a {ty}");
    }
    column
}
