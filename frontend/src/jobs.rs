//! Jobs and their conditions: which run, which do not, since when and why.
//!
//! This module asks for them: meta for the catalog and the nodes, every compute node of the running
//! term for the conditions of splits. It needs no snapshot, so it also answers while no term runs.
//! Invariant: a compute node that does not answer delays the answer by a bounded time, and the
//! answer names it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use weir_common::catalog::{self, Entry, RelationKind};
use weir_common::condition::{self, Condition, SplitState, of_job};
use weir_common::error::Kind;
use weir_common::ids::{JobSplit, SplitId, TableId};
use weir_common::rpc;
use weir_common::types::SqlType;
use weir_proto::{JobState, SplitsRequest, SplitsResponse};
use weir_sql::error::Error;

use crate::catalog::Catalog;
use crate::meta::{Cluster, Meta};
use crate::scan::ComputeNodes;
use crate::snapshot::TERM_PAUSE;

/// The time that a compute node may take to report the conditions of its splits. It asks no other
/// node for them.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for which the nodes are asked again while terms change.
const TERM_PATIENCE: Duration = Duration::from_secs(2);

/// A job as users see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) id: TableId,
    pub(crate) name: String,
    /// The kind of the relation that it keeps up to date.
    pub(crate) kind: &'static str,
    pub(crate) condition: Condition<condition::JobState>,
    /// While it reads what its inputs had before it: the percentage that it has read.
    pub(crate) progress: Option<f64>,
    /// The messages that it has still to read, as its servers said some seconds ago.
    pub(crate) lag: Option<u64>,
    /// The share of its actors in the processors lately, in percent of one core.
    pub(crate) cpu: Option<f64>,
    /// The rows and bytes that are stored of it.
    pub(crate) state: Option<(u64, u64)>,
}

/// The nodes to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    pub(crate) meta: Arc<Meta>,
    pub(crate) nodes: Arc<ComputeNodes>,
    /// The time for which meta is asked again while nobody leads.
    pub(crate) retry_max: Duration,
}

/// The known conditions of a term's splits.
#[derive(Debug, Default)]
struct Known {
    splits: HashMap<JobSplit, Condition<SplitState>>,
    /// The reason why conditions are missing. If absent, nobody reads the missing splits.
    silence: Option<String>,
    /// The reason why nobody reads any split.
    idle: Option<String>,
    /// The fault that keeps a node, and with it all others, from committing; and since when.
    trouble: Option<(String, SystemTime)>,
    /// The parts of its inputs that a job has read, and all of them.
    filling: HashMap<TableId, (u32, u32)>,
    /// The messages of splits that are not read yet.
    lags: HashMap<JobSplit, u64>,
    /// The cores that a job uses.
    uses: HashMap<TableId, f64>,
    /// The rows that a job has left out, and a reason.
    left_out: HashMap<TableId, (u64, String)>,
    /// The rows and bytes that nodes store of a job.
    states: HashMap<TableId, (u64, u64)>,
    /// True if a node has not told what it stores.
    lacks_states: bool,
}

impl Jobs {
    /// Returns every job, ordered by name.
    ///
    /// # Errors
    /// Unavailable, if no meta node leads until the deadline.
    pub(crate) async fn list(&self, deadline: Instant) -> Result<Vec<Job>, Error> {
        let catalog = self.meta.catalog(deadline).await?;
        let known = self.ask(deadline, true).await?;
        let now = SystemTime::now();
        Ok(catalog.entries().filter_map(|entry| job(&catalog, entry, &known, now)).collect())
    }

    /// Returns the percentage of its inputs that a new view has read, if that is known.
    ///
    /// # Errors
    /// Unavailable, if no meta node leads until the deadline.
    pub(crate) async fn progress(&self, view: TableId, deadline: Instant) -> Result<Option<f64>, Error> {
        Ok(self.ask(deadline, false).await?.progress(view))
    }

    /// Asks the nodes of the running term, and asks again if the term ends meanwhile. With
    /// `ask_state` they look at what they store, too.
    async fn ask(&self, deadline: Instant, ask_state: bool) -> Result<Known, Error> {
        let began = Instant::now();
        loop {
            let cluster = self.meta.cluster(deadline).await?;
            let known = self.ask_term(&cluster, ask_state).await?;
            match known {
                Some(known) if known.idle.is_none() || began.elapsed() > TERM_PATIENCE => return Ok(known),
                None if began.elapsed() > TERM_PATIENCE => {
                    let idle = Some("the compute nodes begin a new term".to_owned());
                    return Ok(Known { idle, ..Known::default() });
                }
                _ => sleep(TERM_PAUSE).await,
            }
        }
    }

    /// Asks the nodes of a term; returns `None` if the term has ended.
    async fn ask_term(&self, cluster: &Cluster, ask_state: bool) -> Result<Option<Known>, Error> {
        let compute: Vec<_> = cluster.nodes.iter().filter(|node| node.role == "compute").collect();
        let running = compute.iter().filter(|node| node.state == "running");
        let addresses: Vec<&str> = running.map(|node| node.address.as_str()).collect();
        if addresses.is_empty() {
            let troubles = compute.iter().map(|node| node.trouble.as_str()).find(|trouble| !trouble.is_empty());
            let idle = match (compute.is_empty(), troubles) {
                (true, _) => "there is no compute node".to_owned(),
                (false, Some(trouble)) => trouble.to_owned(),
                (false, None) => "the compute nodes begin a new term".to_owned(),
            };
            return Ok(Some(Known { idle: Some(idle), ..Known::default() }));
        }
        let request = SplitsRequest { term: Some(cluster.term.into()), ask_servers: false, ask_state };
        let answers = join_all(addresses.iter().map(|address| self.ask_node(address, &addresses, request))).await;
        let mut known = Known::default();
        for (address, answer) in addresses.iter().zip(answers) {
            match answer {
                Ok(answer) => known.take(address, answer),
                Err(error) if error.kind == Kind::Fenced => return Ok(None),
                Err(error) => {
                    known.lacks_states = true;
                    known.silence.get_or_insert(format!("compute node {address} does not answer: {}", error.message));
                }
            }
        }
        Ok(Some(known))
    }

    async fn ask_node(&self, address: &str, named: &[&str], request: SplitsRequest) -> Result<SplitsResponse, Error> {
        let mut node = self.nodes.client_among(address, named)?;
        match timeout(NODE_TIMEOUT, node.splits(request)).await {
            Ok(answer) => Ok(answer.map_err(rpc::Error::from)?.into_inner()),
            Err(_) => {
                let message = format!("nothing for {} seconds", NODE_TIMEOUT.as_secs());
                Err(rpc::Error::new(Kind::Unavailable, message).into())
            }
        }
    }
}

impl Known {
    fn take(&mut self, address: &str, answer: SplitsResponse) {
        for split in answer.splits {
            let condition = Condition {
                // An unknown state comes from a newer version; report it as trouble.
                state: SplitState::parse(&split.state).unwrap_or(SplitState::Stalled),
                since: Some(UNIX_EPOCH + Duration::from_nanos(split.since_ns)),
                reason: Some(split.reason).filter(|reason| !reason.is_empty()),
            };
            let key = JobSplit { job: TableId(split.table), split: SplitId(split.split) };
            self.lags.extend(split.lag_messages.map(|lag| (key.clone(), lag)));
            self.splits.insert(key, condition);
        }
        for filling in answer.filling {
            let parts = self.filling.entry(TableId(filling.table)).or_default();
            *parts = (parts.0.saturating_add(filling.read), parts.1.saturating_add(filling.parts));
        }
        for used in answer.uses {
            *self.uses.entry(TableId(used.table)).or_default() += used.cpu;
            if used.left_out > 0 {
                let (rows, reason) = self.left_out.entry(TableId(used.table)).or_default();
                (*rows, *reason) = (*rows + used.left_out, used.reason);
            }
        }
        self.lacks_states |= answer.states.is_none();
        for JobState { table, rows, bytes } in answer.states.into_iter().flat_map(|states| states.states) {
            let state = self.states.entry(TableId(table)).or_default();
            *state = (state.0 + rows, state.1 + bytes);
        }
        if let Some(trouble) = answer.trouble {
            let since = UNIX_EPOCH + Duration::from_nanos(trouble.since_ns);
            self.trouble.get_or_insert((format!("compute node {address}: {}", trouble.reason), since));
        }
    }

    /// Returns the percentage of its inputs that a job has read, unless it has read all.
    fn progress(&self, job: TableId) -> Option<f64> {
        let (read, parts) = self.filling.get(&job).filter(|(read, parts)| read < parts)?;
        Some(100.0 * f64::from(*read) / f64::from(*parts))
    }

    /// Returns the messages that are on their way to a job: those of its splits, or of the input
    /// that is furthest behind, since inputs may share a stream. `None` if some are not known.
    fn lag(&self, catalog: &Catalog, entry: &Entry) -> Option<u64> {
        let job = &entry.job;
        let of_split = |start: &catalog::SplitStart| {
            read_for(job, &start.split).into_iter().find_map(|split| self.lags.get(&split)).copied()
        };
        let own: Option<u64> = job.splits.iter().map(of_split).sum();
        let inputs = job.reads().iter().filter_map(|reads| catalog.by_id(reads.relation));
        let inputs = inputs.filter(|input| input.relation.kind != RelationKind::Source);
        inputs.map(|input| self.lag(catalog, input)).try_fold(own?, |most, lag| Some(most.max(lag?)))
    }

    /// Returns the condition of a relation's split. A view that is behind has a reading of its own;
    /// any other view shares its source's.
    fn condition(&self, job: &catalog::Job, split: &SplitId) -> Condition<SplitState> {
        let found = read_for(job, split).into_iter().find_map(|split| self.splits.get(&split));
        let (state, reason) = match (found, &self.silence) {
            (Some(condition), _) => return condition.clone(),
            (None, Some(silence)) => (SplitState::Unknown, silence.clone()),
            (None, None) => {
                let idle = self.idle.clone().unwrap_or_else(|| "no compute node reads it".to_owned());
                (SplitState::Unread, idle)
            }
        };
        Condition { state, since: None, reason: Some(reason) }
    }
}

/// The readings that may feed a split of a job: its own, and that of its source.
fn read_for(job: &catalog::Job, split: &SplitId) -> [JobSplit; 2] {
    [JobSplit { job: job.id, split: split.clone() }, job.read(split)]
}

/// Returns the job of a relation, if it has one.
fn job(catalog: &Catalog, entry: &Entry, known: &Known, now: SystemTime) -> Option<Job> {
    let declared = catalog.job(entry)?;
    let progress = known.progress(entry.id()).filter(|_| declared.failure.is_none());
    let condition = match declared.failure {
        Some(failure) => Condition {
            state: if failure.waits { condition::JobState::Waiting } else { condition::JobState::Failed },
            since: failure.since_ms.map(|ms| UNIX_EPOCH + Duration::from_millis(ms)),
            reason: Some(failure.error.into_owned()),
        },
        None => {
            let splits = entry.job.splits.iter().map(|start| &start.split);
            let splits: Vec<_> = splits.map(|split| (split.clone(), known.condition(&entry.job, split))).collect();
            of_job(&splits, known.trouble.as_ref(), now)
        }
    };
    let condition = match condition.state {
        condition::JobState::Running if progress.is_some() => {
            Condition { state: condition::JobState::Creating, ..condition }
        }
        _ => condition,
    };
    let reason =
        condition.reason.or_else(|| known.left_out.get(&entry.id()).map(|(rows, error)| left_out(*rows, error)));
    let condition = Condition { reason, ..condition };
    let (id, name, kind) = (entry.id(), declared.name.to_string(), declared.kind);
    let lag = known.lag(catalog, entry);
    let cpu = known.uses.get(&id).map(|cores| (cores * 1000.0).round() / 10.0);
    let state = known.states.get(&id).filter(|_| !known.lacks_states).copied();
    Some(Job { id, name, kind, condition, progress, lag, cpu, state })
}

/// The remark on a job that has left rows out.
fn left_out(rows: u64, error: &str) -> String {
    let are = if rows == 1 { "row is" } else { "rows are" };
    format!("{rows} {are} left out, because an expression fails: {error}")
}

/// Returns the schema of jobs, for `weir_catalog.jobs` or for `SHOW JOBS` with RisingWave's names.
pub(crate) fn schema(names: [&str; 11]) -> SchemaRef {
    let [id, name, kind, state, since, reason, progress, lag, cpu, rows, bytes] = names;
    let text = |name| SqlType::Varchar.field(name);
    let fields = vec![
        SqlType::BigInt.field(id),
        text(name),
        text(kind),
        text(state),
        SqlType::Timestamptz.field(since),
        text(reason),
        SqlType::Double.field(progress),
        SqlType::BigInt.field(lag),
        SqlType::Double.field(cpu),
        SqlType::BigInt.field(rows),
        SqlType::BigInt.field(bytes),
    ];
    Arc::new(Schema::new(fields))
}

/// Converts jobs to rows.
///
/// # Errors
/// Never, because the columns match the schema.
pub(crate) fn batch(schema: &SchemaRef, jobs: &[Job]) -> Result<RecordBatch, Error> {
    let micros = |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok();
    let text = |of: fn(&Job) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(jobs.iter().map(of))) };
    let number = |of: fn(&Job) -> Option<u64>| -> ArrayRef {
        let number = |job| of(job).and_then(|number| i64::try_from(number).ok());
        Arc::new(Int64Array::from_iter(jobs.iter().map(number)))
    };
    let since = jobs.iter().map(|job| job.condition.since.and_then(micros));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(jobs.iter().map(|job| i64::from(job.id.0)))),
        text(|job| &job.name),
        text(|job| job.kind),
        text(|job| job.condition.state.as_str()),
        Arc::new(TimestampMicrosecondArray::from_iter(since).with_timezone("UTC")),
        Arc::new(StringArray::from_iter(jobs.iter().map(|job| job.condition.reason.as_deref()))),
        Arc::new(Float64Array::from_iter(jobs.iter().map(|job| job.progress))),
        number(|job| job.lag),
        Arc::new(Float64Array::from_iter(jobs.iter().map(|job| job.cpu))),
        number(|job| Some(job.state?.0)),
        number(|job| Some(job.state?.1)),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| Error::internal(error.to_string()))
}
