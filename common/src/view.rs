//! Computing rows of views: the seam between storage and SQL.
//!
//! The process hands a compute node a compiler made of the code that plans queries, so that a view
//! means the same as the query. The node compiles the statement of a view that selects, filters
//! and computes when it begins to feed it
//! ([decision 12](../../docs/decisions/0012-views-are-compiled-where-they-run.md)); of any other
//! view it builds the expressions of the stored plan ([`crate::plan`]).

use std::borrow::Cow;
use std::fmt::Debug;
use std::pin::Pin;

use arrow::array::{ArrayRef, RecordBatch};

use crate::catalog::Declaration;
use crate::plan::{Expr, StreamColumn};

/// Builds stored expressions.
pub trait Functions: Debug + Send + Sync {
    /// Builds an expression over rows of these columns.
    ///
    /// # Errors
    /// [`Error`], if this version does not have a function of it in its revision.
    fn build(&self, expr: &Expr, columns: &[StreamColumn]) -> Result<Box<dyn Expression>, Error>;
}

/// An expression over the columns of a row.
pub trait Expression: Debug + Send + Sync {
    /// Computes a value for each row. The type is that of the stored expression.
    ///
    /// # Errors
    /// [`Error`], if it fails for one of the rows: a division by zero, say. The same rows fail
    /// again.
    fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, Error>;
}

/// Compiles a view's statement into an evaluator of its rows.
pub trait Compile: Functions {
    /// Compiles a view.
    ///
    /// # Errors
    /// [`Error`], if the statement has another meaning than when the view was created, or none.
    fn compile(&self, view: Declaration) -> Compiling<'_>;
}

/// A view that is being compiled.
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Evaluate>, Error>> + Send + 'a>>;

/// A compiled view.
pub trait Evaluate: Debug + Send + Sync {
    /// Computes the rows of the view from `rows`, which has the columns that the view reads, in
    /// their order. Columns behind them are returned behind the view's own. The order of rows
    /// stays.
    ///
    /// # Errors
    /// [`Error`], if an expression fails: a division by zero, say. The same rows fail again.
    fn evaluate(&self, rows: RecordBatch) -> Result<RecordBatch, Error>;
}

/// The reason why a view has no rows, or lacks one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The reason, in PostgreSQL's words if it has some for it.
    pub message: String,
    /// The SQLSTATE of a query that fails for the same reason.
    pub sqlstate: Cow<'static, str>,
}

impl Error {
    /// A job cannot go on: this version lacks a function, say.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), sqlstate: Cow::Borrowed("XX000") }
    }

    /// A number is out of range.
    pub fn out_of_range(message: impl Into<String>) -> Error {
        Error { message: message.into(), sqlstate: Cow::Borrowed("22003") }
    }
}
