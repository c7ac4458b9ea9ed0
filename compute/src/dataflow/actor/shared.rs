//! What all readings of an actor share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use weir_common::catalog::Table;
use weir_common::ids::{Epoch, Sequence, SplitId, TermId};
use weir_common::task::Group;
use weir_common::view::Compile;
use weir_connector_nats::Options;

use crate::control::event::{Event, Inputs};
use crate::ingest::decode::BadRecord;
use crate::metrics::Metrics;

/// At most one bad record in this time is logged.
const BAD_RECORD_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What an actor is made of.
pub(crate) struct Config {
    pub(crate) term: TermId,
    /// The table or source that is read.
    pub(crate) relation: Arc<Table>,
    pub(crate) split: SplitId,
    /// The committed epoch before the first that the actor writes.
    pub(crate) epoch: Epoch,
    pub(crate) cluster: String,
    pub(crate) node: Inputs,
    pub(crate) metrics: Metrics,
    pub(crate) compiler: Arc<dyn Compile>,
}

/// What all readings of an actor need.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) options: Arc<Options>,
    /// The readers belong to it.
    pub(super) group: Group,
    pub(super) bad_records: BadRecordLog,
}

/// What is stored of a relation is not understood, although it was when the relation was created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUnderstood {
    /// The options of WITH.
    #[error(transparent)]
    Options(#[from] weir_connector_nats::OptionError),
    /// The schema of its messages.
    #[error("the stored schema of the messages cannot be used")]
    Schema(#[from] weir_common::protobuf::Error),
    /// A view has no splits.
    #[error("\"{0}\" reads no stream")]
    NoStream(String),
}

impl Shared {
    /// Tells the node.
    pub(super) async fn tell(&self, event: Event) {
        self.config.node.send(event).await;
    }

    pub(super) fn log_bad_record(&mut self, sequence: Sequence, bad: &BadRecord, what: &str) {
        self.bad_records.log(&self.config.relation, sequence, bad, what);
    }
}

/// Logs bad records at a bounded rate.
#[derive(Default)]
pub(super) struct BadRecordLog {
    next: Option<Instant>,
    unmentioned: u64,
}

impl BadRecordLog {
    fn log(&mut self, table: &Table, sequence: Sequence, bad: &BadRecord, what: &str) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            self.unmentioned += 1;
            return;
        }
        let others = std::mem::take(&mut self.unmentioned);
        warn!(table = table.declared.name, %sequence, error = %bad, others_since_last = others, "{what}");
        self.next = Some(now + BAD_RECORD_LOG_INTERVAL);
    }
}
