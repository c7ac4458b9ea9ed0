//! Compiles views, and the expressions of their plans, for compute nodes with the code that plans
//! queries, without a session.

use datafusion::execution::session_state::SessionState;
use weir_common::catalog::Declaration;
use weir_common::plan::{Expr, StreamColumn};
use weir_common::view::{self, Compile, Compiling, Expression, Functions};

use super::compile;
use crate::error::Error;
use crate::execution::QueryThreads;
use crate::planner::{Planner, SystemCatalogs};
use crate::streaming;

/// The expressions of a view are evaluated batch by batch, so no operator reserves memory.
const MEMORY_BYTES: usize = 0;

/// Compiles the statements of views.
#[derive(Debug)]
pub struct ViewCompiler {
    planner: Planner,
    threads: QueryThreads,
    functions: StoredFunctions,
}

/// Builds the expressions of stored plans.
#[derive(Debug)]
pub struct StoredFunctions(SessionState);

impl ViewCompiler {
    /// # Errors
    /// If DataFusion cannot be set up, or the system gives no threads.
    pub fn new() -> Result<ViewCompiler, Error> {
        let planner = Planner::new(MEMORY_BYTES, SystemCatalogs::default())?;
        let functions = StoredFunctions::new(&planner);
        Ok(ViewCompiler { planner, threads: QueryThreads::new()?, functions })
    }
}

impl StoredFunctions {
    /// The functions of a planner, in UTC and with every variable at its default.
    pub fn new(planner: &Planner) -> StoredFunctions {
        StoredFunctions(planner.template([]))
    }
}

impl Functions for StoredFunctions {
    fn build(&self, expr: &Expr, columns: &[StreamColumn]) -> Result<Box<dyn Expression>, view::Error> {
        streaming::build(&self.0, expr, columns).map_err(view::Error::from)
    }
}

impl Functions for ViewCompiler {
    fn build(&self, expr: &Expr, columns: &[StreamColumn]) -> Result<Box<dyn Expression>, view::Error> {
        self.functions.build(expr, columns)
    }
}

impl Compile for ViewCompiler {
    fn compile(&self, view: Declaration) -> Compiling<'_> {
        Box::pin(async move {
            let compiled = compile(&self.planner, &self.threads, &view).await;
            compiled.map_err(view::Error::from)
        })
    }
}
