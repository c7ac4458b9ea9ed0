//! Waits until relations include messages of which their publishers know stream and sequence.
//!
//! Positions of splits are committed with each epoch, so most often a pin already says that an
//! epoch includes a message. Otherwise the compute nodes that read the splits are asked to answer
//! once they have read it, and meta to commit then. A message that is none of a relation's counts
//! as read once the stream has nothing more for it below; positions do not tell that, so the
//! session remembers it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};
use weir_common::catalog::{Entry, RelationKind, RelationName, SplitStart};
use weir_common::error::Kind;
use weir_common::ids::{Incarnation, JobSplit, TableId, TermId};
use weir_common::rpc;
use weir_connector_nats::options::stream_of;
use weir_proto::{AwaitReadRequest, AwaitedSplit};
use weir_sql::error::{Error, sqlstate};

use crate::catalog::Catalog;
use crate::meta::Meta;
use crate::names::SearchPath;
use crate::scan::ComputeNodes;
use crate::session::{Included, Messages, Session};
use crate::snapshot::{Snapshot, Snapshots, TERM_PAUSE};

/// The time for which compute nodes are asked to wait. They are asked again afterwards, since
/// splits may have moved, and jobs may have failed.
const ASK_MAX: Duration = Duration::from_secs(2);
/// The time of a wait without a limit.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The relations that have to include messages.
#[derive(Clone, Debug)]
pub(crate) enum Relations {
    /// The relations of a statement, by the parts of their names, and where these are looked for.
    Named(BTreeSet<Vec<String>>, SearchPath),
    /// All that read the streams.
    All,
}

/// A wait of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    messages: Messages,
    relations: Relations,
    until: Instant,
}

/// A split that has not been read far enough.
#[derive(Clone, Debug)]
struct Missing {
    split: JobSplit,
    relation: RelationName,
    incarnation: Incarnation,
    /// The next place in the stream, and the one that is waited for.
    position: u64,
    sequence: u64,
}

impl Wait {
    /// A wait that begins now; without a limit if there is no timeout.
    pub(crate) fn new(messages: Messages, relations: Relations, timeout: Option<Duration>) -> Wait {
        Wait { messages, relations, until: Instant::now() + timeout.unwrap_or(FOREVER) }
    }

    /// The wait of a session's statement that reads relations; `None` if it waits for nothing.
    pub(crate) fn of(session: &Session, relations: impl FnOnce() -> BTreeSet<Vec<String>>) -> Option<Wait> {
        let path = session.search_path();
        let variables = session.variables();
        let messages = Messages::parse(variables.get("wait_for")?).filter(|messages| !messages.is_empty())?;
        Some(Wait::new(messages, Relations::Named(relations(), path), variables.wait_for_timeout()))
    }

    /// Checks that a snapshot which cannot be replaced includes the messages.
    ///
    /// # Errors
    /// `25001` if it is not known to.
    pub(crate) fn check(&self, session: &Session, held: &Snapshot) -> Result<(), Error> {
        let missing = self.missing(held, &session.included())?;
        let Some(first) = missing.first() else { return Ok(()) };
        let message = format!(
            "the transaction reads an epoch that may lack message {} of stream \"{}\"",
            first.sequence,
            stream_of(&first.split.split)
        );
        let hint = "set wait_for before the first query of the transaction";
        Err(Error::user(sqlstate::ACTIVE_SQL_TRANSACTION, message).with_hint(hint))
    }

    /// The splits of which a snapshot has not read enough.
    ///
    /// # Errors
    /// `55000` if a job that has to read has failed, `42704` if nobody reads a stream.
    fn missing(&self, snapshot: &Snapshot, included: &Included) -> Result<Vec<Missing>, Error> {
        let catalog = &snapshot.catalog;
        let mut missing = Vec::new();
        for (stream, sequence) in self.messages.iter() {
            let mut fed = BTreeMap::new();
            match &self.relations {
                Relations::Named(names, path) => {
                    names
                        .iter()
                        .filter_map(|parts| catalog.read(path, parts))
                        .flat_map(|entry| catalog.read_by(entry))
                        .for_each(|entry| feeding(catalog, entry, &mut fed));
                }
                Relations::All => catalog.entries().for_each(|entry| feeding(catalog, entry, &mut fed)),
            }
            let reads = |entry: &&Entry| splits_of(entry, stream).next().is_some();
            let fed: Vec<&Entry> = fed.into_values().filter(reads).collect();
            if fed.is_empty() && matches!(self.relations, Relations::All) {
                let message = format!("no table or view reads stream \"{stream}\"");
                return Err(Error::user(sqlstate::UNDEFINED_OBJECT, message));
            }
            for entry in fed {
                let failed = catalog.job(entry).and_then(|job| job.failure);
                match (&self.relations, failed) {
                    (_, None) => missing.extend(missing_of(entry, (stream, sequence), snapshot, included)),
                    (Relations::All, Some(_)) => {}
                    (Relations::Named(..), Some(failure)) => {
                        let (kind, name) = (entry.relation.kind.as_str(), entry.name());
                        let (state, error) = (failure.state(), failure.error);
                        let message = format!("{kind} \"{name}\" {state} and reads no more messages: {error}");
                        return Err(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message));
                    }
                }
            }
        }
        Ok(missing)
    }
}

/// Collects the jobs whose messages a relation contains: its own if it reads a stream, else those
/// below it. A statement that reads a source reads the stream up to its end.
fn feeding<'a>(catalog: &'a Catalog, entry: &'a Entry, fed: &mut BTreeMap<TableId, &'a Entry>) {
    if entry.relation.kind == RelationKind::Source || fed.insert(entry.id(), entry).is_some() {
        return;
    }
    entry.job.inputs().filter_map(|input| catalog.by_id(input)).for_each(|input| feeding(catalog, input, fed));
}

fn missing_of(
    entry: &Entry,
    (stream, sequence): (&str, u64),
    snapshot: &Snapshot,
    included: &Included,
) -> Vec<Missing> {
    let missing = |start: &SplitStart| {
        let split = JobSplit { job: entry.id(), split: start.split.clone() };
        let position = snapshot.positions.get(&split).copied().unwrap_or_else(|| start.position());
        let (incarnation, next) = (position.next.incarnation(), position.next.in_stream());
        let is_read = next > sequence && !position.anchor.parted;
        let is_read = is_read || included.has(&split, (incarnation, sequence), snapshot.epoch);
        let relation = entry.name().clone();
        (!is_read).then_some(Missing { split, relation, incarnation, position: next, sequence })
    };
    splits_of(entry, stream).filter_map(missing).collect()
}

/// The splits of a job that are parts of a stream.
fn splits_of<'a>(entry: &'a Entry, stream: &'a str) -> impl Iterator<Item = &'a SplitStart> {
    entry.job.splits.iter().filter(move |start| stream_of(&entry.job.read(&start.split).split) == stream)
}

/// The means to wait. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    pub(crate) meta: Arc<Meta>,
    pub(crate) nodes: Arc<ComputeNodes>,
    pub(crate) snapshots: Snapshots,
    /// The time for which a leader is looked for.
    pub(crate) retry_max: Duration,
}

impl Waits {
    /// Pins an epoch that includes the messages.
    ///
    /// # Errors
    /// `57014` if there is none in time, and those of the relations.
    pub(crate) async fn acquire(&self, session: &Session, wait: &Wait) -> Result<Arc<Snapshot>, Error> {
        let mut read: Option<(TermId, Vec<Missing>)> = None;
        loop {
            let deadline = Instant::now() + self.retry_max;
            let snapshot = self.snapshots.acquire_after(wait.messages.streams(), deadline).await?;
            if let Some((term, missing)) = read.take()
                && term == snapshot.term
            {
                let mut included = session.included();
                for read in missing {
                    included.add(read.split, (read.incarnation, read.sequence), snapshot.epoch);
                }
            }
            let mut missing = wait.missing(&snapshot, &session.included())?;
            if missing.is_empty() {
                return Ok(snapshot);
            }
            if Instant::now() >= wait.until {
                return Err(expired(&missing));
            }
            match self.read(&snapshot, &mut missing, wait.until).await {
                Ok(Read::All) => {
                    // If the term ends meanwhile, what was read in it may be read once more.
                    self.meta.flush(deadline).await?;
                    read = Some((snapshot.term, missing));
                }
                Ok(Read::InTime) => {}
                Ok(Read::Nowhere) => sleep(TERM_PAUSE).await,
                Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Fenced) => sleep(TERM_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until all has been read, and notes how far it is.
    async fn read(&self, snapshot: &Snapshot, missing: &mut [Missing], until: Instant) -> Result<Read, Error> {
        let timeout = until.saturating_duration_since(Instant::now()).min(ASK_MAX);
        let splits = missing.iter().map(|missing| AwaitedSplit {
            table: missing.split.job.0,
            split: missing.split.split.0.clone(),
            sequence: missing.sequence,
        });
        let request = AwaitReadRequest {
            term: Some(snapshot.term.into()),
            splits: splits.collect(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let mut addresses: Vec<&str> = snapshot.slots.iter().map(|slot| slot.address.as_str()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let asked = addresses.into_iter().map(async |address| {
            let mut node = self.nodes.client(address, snapshot)?;
            Ok::<_, Error>(node.await_read(request.clone()).await.map_err(rpc::Error::from)?.into_inner().read)
        });
        let answers: Vec<_> = try_join_all(asked).await?.into_iter().flatten().collect();
        for answer in &answers {
            if let Some(missing) = usize::try_from(answer.place).ok().and_then(|place| missing.get_mut(place)) {
                missing.position = answer.position.max(missing.position);
            }
        }
        Ok(match answers.iter().filter(|answer| answer.is_read).count() {
            read if read == missing.len() => Read::All,
            _ if answers.len() == missing.len() => Read::InTime,
            _ => Read::Nowhere,
        })
    }
}

/// How far nodes have read.
enum Read {
    All,
    /// Not all has been read in time.
    InTime,
    /// No node reads one of the splits now.
    Nowhere,
}

fn expired(missing: &[Missing]) -> Error {
    let part = |missing: &Missing| {
        let Missing { relation, split, position, sequence, .. } = missing;
        let (stream, read) = (stream_of(&split.split), position.saturating_sub(1));
        format!("\"{relation}\" has read stream \"{stream}\" up to {read}, not up to {sequence}")
    };
    let detail: Vec<String> = missing.iter().take(5).map(part).collect();
    Error::canceled("wait_for_timeout").with_detail(detail.join("; "))
}
