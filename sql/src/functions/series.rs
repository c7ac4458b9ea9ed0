//! `generate_series` and `range` in FROM, of integers: DataFusion's take bigints alone.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

/// DataFusion's function of a name, of integers too.
pub(crate) fn of_integers(state: &SessionState, name: &str) -> Option<Arc<dyn TableFunctionImpl>> {
    let bigints = state.table_functions().get(name).map(|function| Arc::clone(function.function()))?;
    Some(Arc::new(OfIntegers(bigints)))
}

#[derive(Debug)]
struct OfIntegers(Arc<dyn TableFunctionImpl>);

impl TableFunctionImpl for OfIntegers {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let widened = args.exprs().iter().map(|argument| match argument {
            Expr::Literal(ScalarValue::Int32(value), metadata) => {
                Expr::Literal(ScalarValue::Int64(value.map(i64::from)), metadata.clone())
            }
            argument => argument.clone(),
        });
        let widened: Vec<Expr> = widened.collect();
        self.0.call_with_args(TableFunctionArgs::new(&widened, args.session()))
    }
}
