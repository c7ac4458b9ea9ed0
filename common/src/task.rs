//! Background tasks: named, in a group, stopped by one token, joined at shutdown. The meaning of a
//! failure is declared where the task is spawned.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info_span, warn};

use crate::error::chain;

/// The meaning of a task's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The failure is logged; everything else continues.
    Log,
    /// The failure is logged and the whole group stops.
    StopGroup,
}

/// Tasks that live and stop together. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Group {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Group {
    /// Creates a group that also stops when `parent` is cancelled.
    pub fn child_of(parent: &CancellationToken) -> Group {
        Group { tracker: TaskTracker::new(), cancel: parent.child_token() }
    }

    /// Returns the token that is cancelled when the group must stop.
    pub fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Spawns a task. The future is expected to watch [`Group::token`] itself.
    pub fn spawn<E>(
        &self,
        name: &'static str,
        on_failure: OnFailure,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) where
        E: std::error::Error + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let task = task.instrument(info_span!("task", name));
        self.tracker.spawn(async move {
            // A task of its own, so that a panic becomes an outcome like any other.
            let failure = match tokio::spawn(task).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => chain(&error),
                Err(join) => join.to_string(),
            };
            match on_failure {
                OnFailure::Log => warn!(task = name, error = failure, "task failed"),
                OnFailure::StopGroup => {
                    error!(task = name, error = failure, "task failed, stopping");
                    cancel.cancel();
                }
            }
        });
    }

    /// Cancels the group and waits until every task has ended.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.joined().await;
    }

    /// Waits until every task has ended.
    pub async fn joined(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
