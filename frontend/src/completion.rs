//! Tells whether a new view can be read.

use weir_common::error::Kind;
use weir_common::ids::TableId;
use weir_common::rpc;
use weir_proto::ScanRequest;
use weir_sql::error::{Error, sqlstate};

use crate::scan::ComputeNodes;
use crate::snapshot::Snapshot;

/// Returns true if a view can be read at a snapshot's epoch: its job has begun, and has read the
/// rows that stored relations had before. Every slot is asked for no rows.
///
/// # Errors
/// If the view was dropped, or a slot refuses for another reason.
pub(crate) async fn is_complete(snapshot: &Snapshot, view: TableId, nodes: &ComputeNodes) -> Result<bool, Error> {
    let dropped = || Error::user(sqlstate::UNDEFINED_TABLE, "the view was dropped while it was being created");
    let layout = snapshot.catalog.by_id(view).ok_or_else(dropped)?.relation.layout().into();
    for slot in &snapshot.slots {
        let mut node = nodes.client(&slot.address, snapshot)?;
        let (term, epoch, slot) = (Some(snapshot.term.into()), snapshot.epoch.0, slot.slot.0);
        let nothing = ScanRequest { term, epoch, slot, table: view.0, layout, limit: Some(0), ..Default::default() };
        let Err(error) = node.scan(nothing).await.map_err(rpc::Error::from) else { continue };
        let is_behind = error.sqlstate.as_deref() == Some(sqlstate::NOT_IN_PREREQUISITE_STATE);
        // Nodes may also be lost, which a later epoch makes good.
        return if is_behind || error.kind != Kind::User { Ok(false) } else { Err(error.into()) };
    }
    Ok(true)
}
