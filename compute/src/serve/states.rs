//! How much this node stores of each job: the rows of its relation, its dead letters, and the state
//! of its operators.
//!
//! Caveat: large states are estimated, see [`SlotDb::contents`](crate::storage::state::SlotDb).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;
use weir_common::catalog::{Entry, Graph, Plan, RelationKind};
use weir_common::ids::TableId;
use weir_common::plan::Operator;
use weir_proto::{JobState, JobStates};

use super::serving::Serving;
use crate::metrics::{self, ObservedState, ObservedStates};
use crate::storage::block;
use crate::storage::state::{Content, Stored};

/// The time for which a frontend waits for a look at the state.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Metrics are brought up to date when a job comes or goes, which is looked for this often,
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// and after so many checks otherwise.
const CHECKS: u32 = 12;

/// The states of the jobs for a frontend; `None` if they are not found out in time.
pub(crate) async fn told(serving: &Serving) -> Option<JobStates> {
    let states = timeout(LOOK_MAX, look(serving)).await.ok()??;
    let told = |(id, Content { rows, bytes }): (TableId, Content)| JobState { table: id.0, rows, bytes };
    Some(JobStates { states: states.into_iter().map(told).collect() })
}

/// The states of all jobs that store something; `None` if the term ends.
async fn look(serving: &Serving) -> Option<HashMap<TableId, Content>> {
    let catalog = serving.relations.catalog();
    let count = |stored: Stored<'_>| match stored {
        Stored::Table(id, value) => match catalog.get(id) {
            Some(entry) if !entry.relation.is_keyed() => block::rows(value).map_or(0, u64::from),
            _ => 1,
        },
        Stored::State(job, table) => u64::from(!catalog.get(job).is_some_and(|entry| is_mark(entry, table))),
    };
    let slots = join_all(serving.slots.handles.values().map(|slot| slot.db.contents(&count))).await;
    let mut owners = HashMap::new();
    let mut states = HashMap::new();
    for entry in jobs(catalog) {
        owners.extend(entry.job.stores().map(|id| (id, entry.id())));
        states.insert(entry.id(), Content::default());
    }
    for contents in slots {
        for (id, content) in contents.ok()? {
            // Others were dropped.
            if let Some(state) = owners.get(&id).and_then(|owner| states.get_mut(owner)) {
                *state += content;
            }
        }
    }
    Some(states)
}

/// The entries of the catalog whose jobs store something.
fn jobs(catalog: &Graph) -> impl Iterator<Item = &Entry> {
    catalog.entries().filter(|entry| entry.relation.kind != RelationKind::Source)
}

/// True if a table of a job's state says how far the job is, and holds no rows.
fn is_mark(entry: &Entry, table: u16) -> bool {
    let Plan::Query(query) = &entry.job.plan else { return false };
    query.plan.fragments.iter().flat_map(|fragment| &fragment.operators).any(|operator| match operator {
        Operator::Follow { cursors: marks, .. } | Operator::Values { emitted: marks, .. } => *marks == table,
        _ => false,
    })
}

/// Keeps the metrics of the states up to date. It never ends.
pub(crate) async fn observe(observed: Arc<ObservedStates>, serving: watch::Receiver<Option<Arc<Serving>>>) {
    let mut check = tokio::time::interval(CHECK_INTERVAL);
    let (mut seen, mut checks) = (None, 0);
    loop {
        check.tick().await;
        let served = serving.borrow().clone();
        let present = served.as_ref().map(|served| {
            let names = jobs(served.relations.catalog()).map(|entry| (entry.id(), entry.name().clone()));
            (served.slots.term, names.collect::<HashMap<_, _>>())
        });
        checks += 1;
        if present == seen && checks < CHECKS {
            continue;
        }
        let states = match &served {
            Some(served) => look(served).await,
            None => Some(HashMap::new()),
        };
        let Some(states) = states else { continue };
        let names = present.as_ref().map(|(_, names)| names);
        let named = states.iter().filter_map(|(id, Content { rows, bytes })| {
            Some(ObservedState { labels: [metrics::table(names?.get(id)?)], rows: *rows, bytes: *bytes })
        });
        observed.set(named.collect());
        (seen, checks) = (present, 0);
    }
}
