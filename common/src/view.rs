//! How rows of a source become rows of a view: the seam between who stores them and who understands SQL.
//!
//! A compute node compiles the statement of a view when it begins to feed it, and evaluates what it gets for batch after
//! batch. The process hands it a compiler that is made of the code which plans queries, so that a view means what the query
//! means; nothing of a plan is ever stored ([decision 12](../../docs/decisions/0012-views-are-compiled-where-they-run.md)).

use std::fmt::Debug;
use std::pin::Pin;

use arrow::array::RecordBatch;

use crate::catalog::NewTable;

/// Makes of a view's statement what computes its rows.
pub trait Compile: Debug + Send + Sync {
    /// Compiles a view.
    ///
    /// # Errors
    /// [`Error`], if its statement means something else than when it was created, or nothing any more.
    fn compile(&self, view: NewTable) -> Compiling<'_>;
}

/// A view that is being compiled.
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Evaluate>, Error>> + Send + 'a>>;

/// A compiled view.
pub trait Evaluate: Debug + Send + Sync {
    /// The rows of the view that are made of these. `rows` has the columns that the view reads, in their order, and may have
    /// others behind them, which are behind the view's own in what is returned. The order of rows stays.
    ///
    /// # Errors
    /// [`Error`], if an expression fails: a division by zero, say. The same rows fail again.
    fn evaluate(&self, rows: RecordBatch) -> Result<RecordBatch, Error>;
}

/// Why a view has no rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
