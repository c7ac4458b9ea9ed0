//! What compute nodes compile views with: the code that plans queries, without a server.

use weir_common::catalog::NewTable;
use weir_common::error::chain;
use weir_common::view::{self, Compile, Compiling};

use crate::Error;
use crate::catalog::CatalogCache;
use crate::config::Config;
use crate::query::{Planner, QueryThreads, compile_view};

/// Compiles the statements of views.
#[derive(Debug)]
pub struct ViewCompiler {
    planner: Planner,
    threads: QueryThreads,
}

impl ViewCompiler {
    /// # Errors
    /// If DataFusion cannot be set up, or the system gives no threads.
    pub fn new() -> Result<ViewCompiler, Error> {
        let planner = Planner::new(&Config::default(), CatalogCache::default()).map_err(Error::Start)?;
        Ok(ViewCompiler { planner, threads: QueryThreads::new().map_err(Error::Start)? })
    }
}

impl Compile for ViewCompiler {
    fn compile(&self, view: NewTable) -> Compiling<'_> {
        Box::pin(async move {
            let compiled = compile_view(&self.planner, &self.threads, &view).await;
            compiled.map_err(|error| view::Error(chain(&error)))
        })
    }
}
