//! Rows that a view leaves out because an expression or an aggregate fails for them. They are
//! counted, for `SHOW JOBS` too, and mentioned in the log now and then.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use tracing::info;
use weir_common::ids::TableId;
use weir_common::view::Error;
use weir_stream::pipeline::FailedRow;

use super::usage::{LeftOut, Usage};
use crate::metrics::{self, Metrics};

/// The log mentions a view at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct FailedRows {
    metrics: Metrics,
    labels: [KeyValue; 1],
    view: String,
    /// When the log may mention the view again.
    next: Option<Instant>,
    unmentioned: u64,
    shown: LeftOut,
}

impl FailedRows {
    /// Rows of a job, whose relation has this name.
    pub(crate) fn new(usage: &Usage, (job, view): (TableId, &str)) -> FailedRows {
        let (metrics, labels) = (usage.metrics().clone(), [metrics::table(view)]);
        let shown = usage.left_out(job, view);
        FailedRows { metrics, labels, view: view.to_owned(), next: None, unmentioned: 0, shown }
    }

    /// Takes the rows of a step.
    pub(crate) fn note(&mut self, failed: &[FailedRow]) {
        self.note_errors(failed.iter().filter(|row| !row.is_delete).map(|row| &row.error));
    }

    /// Takes the reasons for which rows were left out.
    pub(crate) fn note_errors<'a>(&mut self, errors: impl IntoIterator<Item = &'a Error>) {
        let mut errors = errors.into_iter();
        let Some(error) = errors.next() else { return };
        let count = 1 + errors.count() as u64;
        self.metrics.failed_rows.add(count, &self.labels);
        self.unmentioned += count;
        self.shown.add(count, error);
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            let rows = std::mem::take(&mut self.unmentioned);
            let view = &self.view;
            info!(view, rows, %error, "rows are left out of a view, because an expression fails for them");
            self.next = Some(now + LOG_INTERVAL);
        }
    }
}
