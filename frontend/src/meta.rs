//! Requests to meta.
//!
//! This module finds the leader among the meta nodes, and retries while none is in reach. It
//! converts answers from wire types to domain types, and does not interpret them further.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Response, Status, Streaming};
use tracing::debug;
use weir_common::catalog::{Change, Declaration, Entry, Schema};
use weir_common::error::Kind;
use weir_common::ids::{Epoch, JobSplit, SchemaId, Sequence, SlotId, SplitId, TableId, TermId, VNODES, VnodeRange};
use weir_common::position::Position;
use weir_common::rpc;
use weir_common::telemetry::trace::{Inject, TracedChannel};
use weir_proto as proto;
use weir_proto::meta_client::MetaClient;
use weir_proto::statements_client::StatementsClient;
use weir_sql::error::{Error, sqlstate};

use crate::catalog::Catalog;

/// A catalog of thousands of tables is a few megabytes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// A node that does not accept a connection within this time counts as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time, and counts as dead after the same time without an
/// answer.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Answers that need no barrier take milliseconds. If none arrives within this time, the next node
/// is asked.
const QUICK_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause between rounds over all meta nodes; each pause doubles the
/// previous one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Returns a connection to a node. It connects at its first use, and again whenever it breaks.
///
/// # Errors
/// If the address is not `host:port`.
fn channel(address: &str) -> Result<Channel, Error> {
    Ok(endpoint(address)?.connect_lazy())
}

/// Returns the settings of connections to a node.
///
/// # Errors
/// If the address is not `host:port`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Error::internal(format!("\"{address}\" is not an address of the form host:port")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// The meta nodes, one of which leads.
#[derive(Debug)]
pub(crate) struct Meta {
    nodes: Vec<Node>,
    /// The node that answered last. It is a guess: if it is wrong, the call continues with the next
    /// node.
    leader: AtomicUsize,
    reached: AtomicBool,
}

/// The services of a meta node.
#[derive(Clone, Debug)]
struct Node {
    meta: MetaClient<TracedChannel>,
    statements: StatementsClient<TracedChannel>,
}

/// The lock of a table; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, not read")] Streaming<proto::LockResponse>);

/// A pin granted by meta.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) pin: u64,
    pub(crate) lease: Duration,
    pub(crate) term: TermId,
    pub(crate) epoch: Epoch,
    pub(crate) catalog_version: u64,
    pub(crate) slots: Vec<Slot>,
    /// The sum of each table's committed positions, as places in the streams.
    pub(crate) places: HashMap<TableId, u64>,
    /// The positions of splits of the streams that were asked for.
    pub(crate) positions: HashMap<JobSplit, Position>,
}

/// The node that serves a slot's state.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) slot: SlotId,
    pub(crate) vnodes: VnodeRange,
    pub(crate) address: String,
}

/// The nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) term: TermId,
    pub(crate) epoch: Epoch,
    pub(crate) nodes: Vec<proto::ClusterNode>,
}

/// The outcome of a call.
struct Outcome<T> {
    result: Result<T, rpc::Error>,
    /// True if an earlier attempt may have been carried out although its answer was lost.
    unsure: bool,
}

impl Meta {
    /// # Errors
    /// If there is no address or one is not `host:port`.
    pub(crate) fn new(addresses: &[String]) -> Result<Meta, Error> {
        if addresses.is_empty() {
            return Err(Error::internal("no meta node is configured"));
        }
        let nodes = addresses
            .iter()
            .map(|address| {
                let channel = channel(address)?;
                let meta = MetaClient::with_interceptor(channel.clone(), Inject);
                let statements = StatementsClient::with_interceptor(channel, Inject);
                Ok(Node { meta: meta.max_decoding_message_size(MESSAGE_BYTES_MAX), statements })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Meta { nodes, leader: AtomicUsize::new(0), reached: AtomicBool::new(false) })
    }

    /// Returns true if a leader answered the last call.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// Pins the newest committed epoch, which keeps it readable until the pin is released. Asks for
    /// the positions of splits of streams.
    pub(crate) async fn pin(&self, streams: &[String], deadline: Instant) -> Result<Pinned, Error> {
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = proto::PinRequest { streams: streams.to_vec() };
            async move { quick(node.pin(request)).await }
        };
        Ok(pinned(self.call(deadline, call).await.result?)?)
    }

    /// Returns the newest catalog.
    pub(crate) async fn catalog(&self, deadline: Instant) -> Result<Catalog, Error> {
        let call =
            |mut node: MetaClient<TracedChannel>| async move { quick(node.catalog(proto::CatalogRequest {})).await };
        let response = self.call(deadline, call).await.result?;
        let tables = response.tables.iter().map(|table| serde_json::from_slice::<Entry>(table));
        let unreadable = |error| {
            let message = format!("a table of the catalog cannot be read: {error}");
            Error::new(Kind::Corrupt, sqlstate::DATA_CORRUPTED, message)
        };
        let tables: Vec<Entry> = tables.collect::<Result<_, _>>().map_err(unreadable)?;
        let schemas = response.schemas.iter().map(|schema| serde_json::from_slice::<Schema>(schema));
        let schemas: Vec<Schema> = schemas.collect::<Result<_, _>>().map_err(unreadable)?;
        Ok(Catalog::new(response.version, schemas, tables))
    }

    /// Renews pins; without pins, it only checks that there is a leader. It tries once.
    pub(crate) async fn renew_pins(&self, pins: Vec<u64>) -> Result<(), Error> {
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = proto::PinsRequest { pins: pins.clone() };
            async move { quick(node.renew_pins(request)).await }
        };
        self.call(Instant::now(), call).await.result?;
        Ok(())
    }

    /// Releases pins. It tries once, because pins expire anyway.
    pub(crate) async fn release_pins(&self, pins: Vec<u64>) -> Result<(), Error> {
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = proto::PinsRequest { pins: pins.clone() };
            async move { quick(node.release_pins(request)).await }
        };
        self.call(Instant::now(), call).await.result?;
        Ok(())
    }

    /// Creates a table; returns when its job is committed. The job of a view reads so many rows a
    /// second at most of those that its inputs have already.
    pub(crate) async fn create_table(
        &self,
        declared: &Declaration,
        if_not_exists: bool,
        backfill_rate: Option<u32>,
        deadline: Instant,
    ) -> Result<proto::CreateTableResponse, Error> {
        let bytes = serde_json::to_vec(declared).map_err(|error| Error::internal(error.to_string()))?;
        let request = proto::CreateTableRequest { table: bytes.into(), if_not_exists, backfill_rate };
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = request.clone();
            async move { node.create_table(request).await }
        };
        let outcome = self.call(deadline, call).await;
        let duplicate = |error: &rpc::Error| error.sqlstate.as_deref() == Some(sqlstate::DUPLICATE_TABLE);
        match outcome.result {
            // If the existing table equals the requested one, the attempt whose answer was lost
            // created it.
            Err(error) if outcome.unsure && duplicate(&error) => {
                let catalog = self.catalog(deadline).await?;
                match catalog.entry(&declared.name) {
                    Some(there) if there.declaration() == *declared => {
                        Ok(proto::CreateTableResponse { table_id: there.id().0, created: true, notices: Vec::new() })
                    }
                    _ => Err(error.into()),
                }
            }
            result => Ok(result?),
        }
    }

    /// Returns the findings that creating a table would report.
    pub(crate) async fn explain_create(
        &self,
        declared: &Declaration,
        deadline: Instant,
    ) -> Result<Vec<proto::Finding>, Error> {
        let bytes = serde_json::to_vec(declared).map_err(|error| Error::internal(error.to_string()))?;
        let request = proto::ExplainCreateRequest { table: bytes.into() };
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = request.clone();
            async move { node.explain_create(request).await }
        };
        Ok(self.call(deadline, call).await.result?.findings)
    }

    /// Changes a table; returns once it is read with the change. `sql` is the statement from which
    /// the change was derived. With `renew`, a new term is awaited even if nothing changes.
    pub(crate) async fn alter_table(
        &self,
        declared: &Declaration,
        sql: &str,
        renew: bool,
        deadline: Instant,
    ) -> Result<proto::AlterTableResponse, Error> {
        let bytes = serde_json::to_vec(declared).map_err(|error| Error::internal(error.to_string()))?;
        let request = proto::AlterTableRequest { table: bytes.into(), sql: sql.to_owned(), renew };
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = request.clone();
            async move { node.alter_table(request).await }
        };
        // A repeated change changes nothing, so retries are safe.
        Ok(self.call(deadline, call).await.result?)
    }

    /// Drops relations, with what depends on them if `cascade` is set. Returns all that were
    /// dropped, once their jobs are stopped and that is committed.
    pub(crate) async fn drop_tables(
        &self,
        ids: &[TableId],
        cascade: bool,
        deadline: Instant,
    ) -> Result<Vec<TableId>, Error> {
        let request =
            proto::DropTablesRequest { tables: ids.iter().map(|id| id.0).collect(), cascade, schemas: Vec::new() };
        let outcome = self.drop(&request, deadline).await;
        match outcome.result {
            // If all are gone, the attempt whose answer was lost dropped them.
            Err(error) if outcome.unsure && error.sqlstate.as_deref() == Some(sqlstate::UNDEFINED_TABLE) => {
                let catalog = self.catalog(deadline).await?;
                match ids.iter().all(|id| catalog.by_id(*id).is_none()) {
                    true => Ok(ids.to_vec()),
                    false => Err(error.into()),
                }
            }
            result => Ok(result?.tables.into_iter().map(TableId).collect()),
        }
    }

    /// Drops schemas, with what is in them and depends on that if `cascade` is set. Returns all
    /// relations that were dropped.
    pub(crate) async fn drop_schemas(
        &self,
        ids: &[SchemaId],
        cascade: bool,
        deadline: Instant,
    ) -> Result<Vec<TableId>, Error> {
        let schemas = ids.iter().map(|id| id.0).collect();
        let request = proto::DropTablesRequest { tables: Vec::new(), cascade, schemas };
        let outcome = self.drop(&request, deadline).await;
        match outcome.result {
            // If all are gone, the attempt whose answer was lost dropped them.
            Err(error) if outcome.unsure && error.sqlstate.as_deref() == Some(sqlstate::INVALID_SCHEMA_NAME) => {
                let catalog = self.catalog(deadline).await?;
                match catalog.schemas().all(|schema| !ids.contains(&schema.id)) {
                    true => Ok(Vec::new()),
                    false => Err(error.into()),
                }
            }
            result => Ok(result?.tables.into_iter().map(TableId).collect()),
        }
    }

    async fn drop(&self, request: &proto::DropTablesRequest, deadline: Instant) -> Outcome<proto::DropTablesResponse> {
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = request.clone();
            async move { node.drop_tables(request).await }
        };
        self.call(deadline, call).await
    }

    /// Changes names, schemas, comments or a plain view.
    pub(crate) async fn change_catalog(&self, change: &Change, deadline: Instant) -> Result<(), Error> {
        let bytes = serde_json::to_vec(change).map_err(|error| Error::internal(error.to_string()))?;
        let request = proto::ChangeCatalogRequest { change: bytes.into() };
        let call = |mut node: MetaClient<TracedChannel>| {
            let request = request.clone();
            async move { node.change_catalog(request).await }
        };
        let outcome = self.call(deadline, call).await;
        match (outcome.result, change) {
            // If the column has the new name, the attempt whose answer was lost gave it that.
            (Err(error), Change::RenameColumn { relation, to, .. })
                if outcome.unsure && error.sqlstate.as_deref() == Some(sqlstate::UNDEFINED_COLUMN) =>
            {
                let catalog = self.catalog(deadline).await?;
                let columns = catalog.by_id(*relation).map(|entry| entry.relation.columns.as_slice());
                match columns.unwrap_or_default().iter().any(|column| column.name == *to) {
                    true => Ok(()),
                    false => Err(error.into()),
                }
            }
            // A schema of the name was made by the attempt whose answer was lost, or by somebody
            // else at the same time: nothing tells one from the other.
            (Err(error), Change::CreateSchema { .. })
                if outcome.unsure && error.sqlstate.as_deref() == Some(sqlstate::DUPLICATE_SCHEMA) =>
            {
                Ok(())
            }
            (result, _) => Ok(result.map(drop)?),
        }
    }

    /// Returns once everything read so far is committed.
    pub(crate) async fn flush(&self, deadline: Instant) -> Result<Epoch, Error> {
        let call = |mut node: MetaClient<TracedChannel>| async move { node.flush(proto::FlushRequest {}).await };
        Ok(Epoch(self.call(deadline, call).await.result?.epoch))
    }

    /// Returns the nodes, the term and the committed epoch.
    pub(crate) async fn cluster(&self, deadline: Instant) -> Result<Cluster, Error> {
        let call =
            |mut node: MetaClient<TracedChannel>| async move { quick(node.cluster(proto::ClusterRequest {})).await };
        let response = self.call(deadline, call).await.result?;
        Ok(Cluster { term: term(response.term)?, epoch: Epoch(response.epoch), nodes: response.nodes })
    }

    /// Takes the lock of a table. Returns once it is this statement's.
    pub(crate) async fn lock(&self, table: TableId, deadline: Instant) -> Result<Lock, Error> {
        let call = |node: Node| async move {
            let Node { mut statements, .. } = node;
            let mut lock = statements.lock(proto::LockRequest { table: table.0 }).await?;
            match lock.get_mut().message().await? {
                Some(_) => Ok(lock),
                None => Err(Status::unavailable("the lock of the table was given up")),
            }
        };
        Ok(Lock(self.call_node(deadline, call).await.result?))
    }

    /// Commits a statement whose rows are held. Returns the epoch that has it.
    ///
    /// # Errors
    /// `40001` if its term ended before: it is not committed then, and never will be. `08007` if
    /// nobody could tell until the deadline.
    pub(crate) async fn commit(
        &self,
        term: TermId,
        statement: &proto::NamedStatement,
        deadline: Instant,
    ) -> Result<Epoch, Error> {
        let request = proto::CommitRequest { term: Some(term.into()), statement: Some(statement.clone()) };
        let call = |node: Node| {
            let request = request.clone();
            async move {
                let Node { mut statements, .. } = node;
                statements.commit(request).await
            }
        };
        let outcome = self.call_node(deadline, call).await;
        match outcome.result {
            Ok(response) => Ok(Epoch(response.epoch)),
            Err(error) if outcome.unsure && error.kind == Kind::Unavailable => {
                let message = "nobody could tell whether the statement was committed";
                Err(Error::new(Kind::User, sqlstate::TRANSACTION_RESOLUTION_UNKNOWN, message)
                    .with_detail(error.message)
                    .with_hint("look for its rows once the cluster has recovered"))
            }
            // The same request would fail again; the statement may run anew.
            Err(error) if error.kind == Kind::Fenced => {
                Err(Error::new(Kind::Fenced, sqlstate::SERIALIZATION_FAILURE, error.message)
                    .with_hint("nothing of the statement was committed: run it again"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks the meta service of the node that answered last, then of the others, in rounds until
    /// the deadline.
    async fn call<T, F, A>(&self, deadline: Instant, attempt: F) -> Outcome<T>
    where
        F: Fn(MetaClient<TracedChannel>) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_node(deadline, |node| attempt(node.meta)).await
    }

    /// Asks the node that answered last, then the others, in rounds until the deadline.
    async fn call_node<T, F, A>(&self, deadline: Instant, attempt: F) -> Outcome<T>
    where
        F: Fn(Node) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let mut pause = PAUSE_MIN;
        let mut unsure = false;
        loop {
            let first = self.leader.load(Ordering::Relaxed);
            let mut last = None;
            for step in 0..self.nodes.len() {
                let index = (first + step) % self.nodes.len();
                match attempt(self.nodes[index].clone()).await {
                    Ok(response) => {
                        self.answered(index);
                        return Outcome { result: Ok(response.into_inner()), unsure };
                    }
                    Err(status) => {
                        let lost = may_have_been_carried_out(&status);
                        let error = rpc::Error::from(status);
                        unsure |= lost || error.outcome_unknown;
                        // An error with a SQLSTATE is about an object of the statement, such as a
                        // NATS server.
                        let elsewhere =
                            matches!(error.kind, Kind::Unavailable | Kind::Fenced) && error.sqlstate.is_none();
                        if !elsewhere {
                            self.answered(index);
                            return Outcome { result: Err(error), unsure };
                        }
                        debug!(node = index, error = error.message, "meta node does not lead or is out of reach");
                        last = Some(error);
                    }
                }
            }
            self.reached.store(false, Ordering::Relaxed);
            if Instant::now() + pause >= deadline {
                let error = last.unwrap_or_else(|| rpc::Error::new(Kind::Unavailable, "no meta node is configured"));
                return Outcome { result: Err(out_of_reach(error)), unsure };
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn answered(&self, index: usize) {
        self.leader.store(index, Ordering::Relaxed);
        self.reached.store(true, Ordering::Relaxed);
    }
}

/// Bounds the time of a call whose answer does not wait for a barrier.
async fn quick<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    timeout(QUICK_TIMEOUT, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the node does not answer")))
}

/// Returns true if the request may have been carried out. It was not if the node itself refused it
/// or no connection was established.
fn may_have_been_carried_out(status: &Status) -> bool {
    let mut source = status.source();
    if source.is_none() {
        return status.code() == tonic::Code::DeadlineExceeded;
    }
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return false;
        }
        source = cause.source();
    }
    true
}

fn out_of_reach(error: rpc::Error) -> rpc::Error {
    let hint = error.hint.unwrap_or_else(|| "the cluster may be recovering; try again".to_owned());
    rpc::Error::new(Kind::Unavailable, format!("no meta node leads: {}", error.message))
        .with_hint(hint)
        .with_sqlstate(sqlstate::CANNOT_CONNECT_NOW)
}

fn pinned(response: proto::PinResponse) -> Result<Pinned, rpc::Error> {
    let mut slots = response
        .slots
        .into_iter()
        .map(|slot| {
            let vnodes = slot.vnodes.ok_or_else(|| missing("vnodes"))?;
            Ok(Slot { slot: SlotId(slot.slot), vnodes: vnodes.try_into()?, address: slot.address })
        })
        .collect::<Result<Vec<_>, rpc::Error>>()?;
    slots.sort_by_key(|slot| slot.vnodes);
    let end = slots.iter().try_fold(0, |end, slot| (slot.vnodes.start == end).then_some(slot.vnodes.end));
    if end != Some(VNODES) {
        let ranges: Vec<String> = slots.iter().map(|slot| slot.vnodes.to_string()).collect();
        let message = format!("meta's slots do not hold every vnode once: {}", ranges.join(", "));
        return Err(rpc::Error::new(Kind::Internal, message));
    }
    Ok(Pinned {
        pin: response.pin,
        lease: Duration::from_millis(response.pin_lease_ms),
        term: term(response.term)?,
        epoch: Epoch(response.epoch),
        catalog_version: response.catalog_version,
        slots,
        places: response.progress.iter().map(|progress| (TableId(progress.table), progress.places)).collect(),
        positions: response.positions.into_iter().map(position).collect(),
    })
}

fn position(position: proto::Position) -> (JobSplit, Position) {
    let split = JobSplit { job: TableId(position.table), split: SplitId(position.split) };
    (split, Position { next: Sequence(position.sequence), anchor: position.anchor.into() })
}

fn term(term: Option<proto::TermId>) -> Result<TermId, rpc::Error> {
    term.map(TermId::from).ok_or_else(|| missing("term"))
}

fn missing(field: &str) -> rpc::Error {
    rpc::Error::new(Kind::Internal, format!("meta's answer lacks the field \"{field}\""))
}
