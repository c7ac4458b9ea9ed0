//! Rows that a view leaves out because an expression or an aggregate fails for them. They become
//! its dead letters, are counted, for `SHOW JOBS` too, and mentioned in the log now and then. If
//! the view's user wants it so, the first of them stops its job.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use tracing::info;
use weir_common::catalog::{OnError, RelationName};
use weir_common::ids::TableId;
use weir_stream::pipeline::{FailedRow, Failing};

use super::letters::{self, RowLetters};
use super::usage::{LeftOut, Usage};
use crate::metrics::{self, Metrics};
use crate::storage::entries::Entries;

/// The log mentions a view at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct FailedRows {
    metrics: Metrics,
    labels: [KeyValue; 1],
    view: RelationName,
    /// When the log may mention the view again.
    next: Option<Instant>,
    unmentioned: u64,
    shown: LeftOut,
    on_error: OnError,
    /// Absent from jobs that keep none, and from those of views that are older than their dead
    /// letters.
    letters: Option<RowLetters>,
}

impl FailedRows {
    /// Rows of a job, whose relation has this name.
    pub(crate) fn new(
        usage: &Usage,
        (job, view): (TableId, &RelationName),
        (on_error, letters): (OnError, Option<RowLetters>),
    ) -> FailedRows {
        let (metrics, labels) = (usage.metrics().clone(), [metrics::table(view)]);
        let shown = usage.left_out(job, view);
        FailedRows { metrics, labels, view: view.to_owned(), next: None, unmentioned: 0, shown, on_error, letters }
    }

    /// Takes the rows of a step. `failing` tells which rows an operator leaves out.
    ///
    /// # Errors
    /// The reason to stop the job, if its user wants it to stop then.
    pub(crate) fn note<'a>(
        &mut self,
        failed: &[FailedRow],
        failing: impl Fn(u16) -> &'a Failing,
    ) -> Result<(), String> {
        if failed.is_empty() {
            return Ok(());
        }
        if let Some(letters) = &mut self.letters {
            let mut operators: BTreeMap<u16, Vec<&FailedRow>> = BTreeMap::new();
            failed.iter().for_each(|row| operators.entry(row.operator).or_default().push(row));
            operators.into_iter().for_each(|(operator, rows)| letters.add(operator, failing(operator), &rows));
        }
        let mut new = failed.iter().filter(|row| !row.is_delete);
        let Some(first @ FailedRow { error, .. }) = new.next() else { return Ok(()) };
        let count = 1 + new.count() as u64;
        self.metrics.failed_rows.add(count, &self.labels);
        if self.on_error == OnError::Fail {
            return Err(letters::reason(failing(first.operator), first));
        }
        self.unmentioned += count;
        self.shown.add(count, error);
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            let rows = std::mem::take(&mut self.unmentioned);
            let view = &self.view;
            info!(%view, rows, %error, "rows are left out of a view, because an expression fails for them");
            self.next = Some(now + LOG_INTERVAL);
        }
        Ok(())
    }

    /// Bytes of the changes of dead letters since the last [`FailedRows::take`].
    pub(crate) fn bytes(&self) -> usize {
        self.letters.as_ref().map_or(0, RowLetters::bytes)
    }

    /// The changes of the view's dead letters.
    pub(crate) fn take(&mut self) -> Entries {
        self.letters.as_mut().map(RowLetters::take).unwrap_or_default()
    }
}
