//! How far the readers of this node are: what they know, and what the server says when it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_common::ids::TableSplit;
use weir_connector_nats::{Control, Progress};
use weir_proto::SplitProgress;

/// How long the server may take to answer before it counts as silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A split that is read on this node.
pub(crate) struct ReadSplit {
    pub(crate) split: TableSplit,
    pub(crate) reader: Control,
    pub(crate) bad_records: Arc<AtomicU64>,
}

/// How far it is.
pub(crate) async fn progress(read: &ReadSplit) -> SplitProgress {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, read.reader.progress()).await;
    let server: Option<Progress> = answer.ok().and_then(Result::ok);
    // After the server's answer, so that a reader is never ahead of its stream.
    let status = read.reader.status();
    let consumer = server.and_then(|server| server.consumer);
    SplitProgress {
        table: read.split.table.0,
        split: read.split.split.0.clone(),
        reading: status.reading,
        read_position: status.position.0,
        committed_position: status.committed.0,
        last_sequence: server.map(|server| server.stream_last.0.max(status.position.0.saturating_sub(1))),
        // Of what was delivered all was read once the position is above it.
        lag_messages: consumer
            .map(|consumer| consumer.pending + (consumer.delivered.0 + 1).saturating_sub(status.position.0)),
        read_ns: status.read_ns,
        ack_floor: consumer.map(|consumer| consumer.ack_floor.0),
        ack_pending: consumer.map(|consumer| consumer.ack_pending),
        redelivered: status.redelivered,
        rebuilds: status.rebuilds,
        bad_records: read.bad_records.load(Ordering::Relaxed),
        lost_messages: status.lost,
    }
}
