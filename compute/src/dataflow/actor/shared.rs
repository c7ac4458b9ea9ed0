//! Configuration and helpers that all readings of an actor share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use weir_common::catalog::{Entry, RelationName, Source};
use weir_common::ids::{Epoch, Sequence, SplitId, TermId};
use weir_common::task::Group;
use weir_common::view::Compile;
use weir_connector_nats::Options;

use crate::control::event::{Event, Inputs};
use crate::dataflow::usage::Usage;
use crate::ingest::decode::BadRecord;
use crate::metrics::Metrics;

/// Logs at most one bad record in this time.
const BAD_RECORD_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The configuration of an actor.
pub(crate) struct Config {
    pub(crate) term: TermId,
    /// The table or source that it reads.
    pub(crate) source: Entry,
    pub(crate) split: SplitId,
    /// The committed epoch before the first one that the actor writes.
    pub(crate) epoch: Epoch,
    pub(crate) cluster: String,
    pub(crate) node: Inputs,
    pub(crate) metrics: Metrics,
    pub(crate) usage: Usage,
    pub(crate) compiler: Arc<dyn Compile>,
}

/// Shared by all readings of an actor.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) options: Arc<Options>,
    /// The group that the readers run in.
    pub(super) group: Group,
    pub(super) bad_records: BadRecordLog,
}

/// This version does not understand the stored definition of a relation, although an earlier one
/// accepted it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotUnderstood {
    /// The options of WITH.
    #[error(transparent)]
    Options(#[from] weir_connector_nats::OptionError),
    /// The schema of its messages.
    #[error("the stored schema of the messages cannot be used")]
    Schema(#[from] weir_common::protobuf::Error),
    /// The relation is a view, and has no splits.
    #[error("\"{0}\" reads no stream")]
    NoStream(RelationName),
}

impl Config {
    /// The stream that it reads.
    ///
    /// # Errors
    /// If the relation is a view.
    pub(super) fn stream(&self) -> Result<&Source, NotUnderstood> {
        self.source.job.stream().ok_or_else(|| NotUnderstood::NoStream(self.source.name().clone()))
    }
}

impl Shared {
    /// Sends an event to the node.
    pub(super) async fn tell(&self, event: Event) {
        self.config.node.send(event).await;
    }

    pub(super) fn log_bad_record(&mut self, sequence: Sequence, bad: &BadRecord, what: &str) {
        self.bad_records.log(self.config.source.name(), sequence, bad, what);
    }
}

/// Logs bad records at a bounded rate.
#[derive(Default)]
pub(super) struct BadRecordLog {
    next: Option<Instant>,
    unmentioned: u64,
}

impl BadRecordLog {
    fn log(&mut self, table: &RelationName, sequence: Sequence, bad: &BadRecord, what: &str) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            self.unmentioned += 1;
            return;
        }
        let others = std::mem::take(&mut self.unmentioned);
        warn!(%table, %sequence, error = %bad, others_since_last = others, "{what}");
        self.next = Some(now + BAD_RECORD_LOG_INTERVAL);
    }
}
