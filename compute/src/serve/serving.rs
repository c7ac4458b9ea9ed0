//! The running term of this node, as far as frontends may read it.
//!
//! Requests of another term are refused. An older one must not be answered with newer or
//! uncommitted data, and a newer one shows that this node was left behind.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use weir_common::catalog::Table;
use weir_common::error::Kind;
use weir_common::ids::{Sequence, TableId, TableSplit, TermId};
use weir_common::rpc;
use weir_common::view::Compile;

use crate::control::plan::Route;
use crate::ingest::progress::ReadSplit;
use crate::storage::slots::{Slots, not_running};
use crate::storage::state::Store;

/// The slots, tables and splits that may be read.
pub(crate) struct Serving {
    pub(crate) slots: Arc<Slots>,
    pub(crate) tables: HashMap<TableId, Arc<Table>>,
    /// The newest table that the node has heard of, dropped or not.
    pub(crate) newest_table: TableId,
    /// The splits that each actor reads from NATS.
    pub(crate) splits: Vec<watch::Receiver<Vec<ReadSplit>>>,
    /// The positions at which the actors of the term began, on whichever node, by the split that
    /// they read.
    pub(crate) starts: HashMap<TableSplit, Sequence>,
    /// Every slot of the term, in the order of their vnodes.
    pub(crate) routes: Vec<Route>,
    pub(crate) cluster: String,
    pub(crate) compiler: Arc<dyn Compile>,
    pub(crate) store: Store,
}

impl Serving {
    /// Returns the running term if it is `term`.
    ///
    /// # Errors
    /// If another term runs, or none.
    pub(crate) fn of_term(
        serving: Option<Arc<Serving>>,
        term: Option<weir_proto::TermId>,
    ) -> Result<Arc<Serving>, rpc::Error> {
        let term = term.map(TermId::from).unwrap_or_default();
        serving.filter(|serving| serving.slots.term == term).ok_or_else(|| not_running(term))
    }

    /// A table or source of the catalog, if node and caller know it with the same layout.
    pub(crate) fn table(&self, id: TableId, layout: u32) -> Result<Arc<Table>, rpc::Error> {
        let table = self.tables.get(&id).cloned().ok_or_else(|| {
            if id > self.newest_table {
                // It is in the catalog, but the barrier that adds it has not come yet. A later
                // epoch has it.
                return rpc::Error::new(Kind::Unavailable, format!("table {id} is being created"));
            }
            rpc::Error::new(Kind::User, format!("table {id} was dropped")).with_sqlstate("42P01")
        })?;
        if u32::from(table.layout()) != layout {
            // Columns change with the term, so either the node or the caller is behind.
            return Err(rpc::Error::new(Kind::Unavailable, format!("columns of table {id} are being changed")));
        }
        Ok(table)
    }
}
