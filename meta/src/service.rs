//! What frontends ask of the leader: DDL, the catalog, pins, flush, the cluster's state. A thin layer: it converts,
//! looks sources over before they are created and cleans up behind tables that are dropped, and leaves everything else to
//! the coordinator.
//!
//! Statements that create, alter or drop a relation of one name come one after the other, because each looks after consumers that
//! are recognised by that name. They go on when whoever asked has gone away: half of one would leave consumers behind,
//! which under Interest retention keep messages for ever.

use tokio::sync::OwnedMutexGuard;
use tonic::{Request, Response, Status};
use tracing::{info, warn};
use weir_common::catalog::{Change, Declaration, Entry, Graph, JobState, RelationKind, RelationName, SplitStart};
use weir_common::error::{Kind, chain};
use weir_common::ids::{SchemaId, TableId};
use weir_common::rpc;
use weir_connector_nats::inspect::inspect;
use weir_connector_nats::options::{Options, stream_of};
use weir_connector_nats::preflight::{Altered, Preflight, preflight, preflight_of_view, undo};
use weir_connector_nats::remove_consumers;
use weir_proto as proto;
use weir_proto::meta_server;

use crate::coordinator::ddl::{Dropping, no_table};
use crate::coordinator::pins::PIN_LEASE;
use crate::coordinator::task::{Begin, Ddl, Handle, Input, not_leading};
use crate::reign::{Config, Current};
use crate::turns::Turns;
use crate::wire::{self, entry_bytes, schema_bytes};

/// The gRPC service.
pub(crate) struct Service {
    current: Current,
    config: Config,
    /// The names of relations that are being created, altered, renamed or dropped.
    names: Turns<String>,
}

impl Service {
    pub(crate) fn new(current: Current, config: Config) -> Service {
        Service { current, config, names: Turns::default() }
    }

    fn statement(&self) -> Result<Statement, rpc::Error> {
        let (coordinator, names, cluster) = (self.coordinator()?, self.names.clone(), self.config.cluster.clone());
        Ok(Statement { coordinator, names, cluster })
    }

    fn coordinator(&self) -> Result<Handle, rpc::Error> {
        self.current.borrow().as_ref().map(|reign| reign.coordinator.clone()).ok_or_else(not_leading)
    }
}

/// A statement that creates, alters or drops a table.
struct Statement {
    coordinator: Handle,
    names: Turns<String>,
    cluster: String,
}

/// What came of a CREATE TABLE: the table, whether it is new, what the user should be told.
type Created = (TableId, bool, Vec<String>);

impl Statement {
    /// Looks the source over, creates the table, and removes what was made for it if that fails.
    async fn create(
        self,
        new: Declaration,
        if_not_exists: bool,
        backfill_rate: Option<u32>,
    ) -> Result<Created, rpc::Error> {
        let _turn = self.names.take(own_consumers(&new.name)).await;
        let catalog = self.catalog().await?;
        if catalog.named(&new.name).is_some() || catalog.schema_named(&new.name.schema).is_none() {
            // What exists needs no look at its source, nor what cannot be created.
            return self
                .store(new, Begin::default(), if_not_exists)
                .await?
                .map(|(table, created)| (table, created, Vec::new()));
        }
        let Some(source) = new.plan.stream() else {
            let (splits, notices) = self.begin_of_view(&new).await?;
            let begin = Begin { splits, backfill_rate, ..Begin::default() };
            let created = self.store(new, begin, if_not_exists).await?;
            return created.map(|(view, created)| (view, created, notices));
        };
        let options = Options::parse(&source.options).map_err(weir_connector_nats::Error::from)?;
        let (consumers, _other_turn) = self.free_consumers(&new.name).await?;
        let owner = self.owner(&consumers);
        let Preflight { splits, mut notices, made, consumes } = preflight(&options, &owner).await?;
        if consumes && new.kind == RelationKind::Source {
            let notice = "the stream loses what views over the source have read, and one that is created later begins where \
                          they are: use CREATE TABLE to keep everything";
            notices.push(notice.to_owned());
        }
        // If the outcome is unknown the table may be there, and then needs them.
        let begin = Begin { splits, consumes, backfill_rate: None, consumers: Some(consumers) };
        let created = self.store(new, begin, if_not_exists).await?;
        if !matches!(created, Ok((_, true)))
            && let Err(error) = undo(&options, &owner, &made).await
        {
            warn!(owner, error = chain(&error), "consumer of a table that was not created remains");
        }
        created.map(|(table, created)| (table, created, notices))
    }

    /// The positions at which a view begins to read its sources, which were looked over when those
    /// were created; and what the user should be told.
    async fn begin_of_view(&self, view: &Declaration) -> Result<(Vec<SplitStart>, Vec<String>), rpc::Error> {
        let catalog = self.catalog().await?;
        let (mut splits, mut notices) = (Vec::new(), Vec::new());
        let reads = view.plan.reads();
        // The coordinator says so if one is gone when it is asked to store the view.
        let read = reads.iter().filter_map(|reads| catalog.get(reads.relation));
        // The rows of a table are read where they are stored.
        let sources = read.filter(|read| read.relation.kind == RelationKind::Source);
        for (source, stream) in sources.filter_map(|source| Some((source, source.job.stream()?))) {
            let options = Options::parse(&stream.options).map_err(weir_connector_nats::Error::from)?;
            let begin = preflight_of_view(&options, &self.owner(source.consumers()), &source.job.splits).await?;
            splits.extend(begin.into_iter().map(|start| match reads.len() {
                1 => start,
                _ => start.among_others(source.id()),
            }));
            if source.is_consumed() && catalog.readers(source.id()).next().is_some() {
                let source = source.name();
                notices.push(format!(
                    "the stream loses what other views over \"{source}\" have read: this one begins where they are; use \
                     CREATE TABLE to keep everything"
                ));
            }
        }
        Ok((splits, notices))
    }

    /// Has the coordinator store the table; fails by itself if it is not known whether it did.
    async fn store(
        &self,
        new: Declaration,
        begin: Begin,
        if_not_exists: bool,
    ) -> Result<Result<(TableId, bool), rpc::Error>, rpc::Error> {
        let create = |reply| Input::Ddl(Ddl::Create { new: Box::new(new), begin, if_not_exists, reply });
        self.coordinator.ask(create).await
    }

    /// Drops relations or schemas, with what depends on them if the statement says so, and removes
    /// the consumers that were made for them. Returns all relations that were dropped.
    async fn drop(self, mut dropping: Dropping) -> Result<Vec<Entry>, rpc::Error> {
        loop {
            let catalog = self.catalog().await?;
            let in_schemas = dropping.schemas.iter().flat_map(|schema| catalog.of_schema(*schema));
            dropping.known = in_schemas.map(Entry::id).collect();
            // Only relations that are named, or are in schemas, can have consumers: what depends on
            // others has none.
            let with_consumers = [dropping.relations.as_slice(), dropping.known.as_slice()].concat();
            let _turns = self.turns(&with_consumers).await?;
            let dropping = dropping.clone();
            let dropped = self.coordinator.ask(|reply| Input::Ddl(Ddl::Drop { dropping, reply })).await??;
            let Some(dropped) = dropped else { continue };
            for entry in &dropped {
                clean_up(entry, &self.owner(entry.consumers())).await;
            }
            return Ok(dropped);
        }
    }

    /// Changes names, comments or a plain view.
    async fn change(self, change: Change) -> Result<(), rpc::Error> {
        let _turns = match &change {
            // A CREATE of the new name that is under way finds it taken in the end, and undoes what
            // it made: the renamed relation's consumers are known by another name.
            Change::Rename { relation, .. }
            | Change::SetSchema { relation, .. }
            | Change::RenameColumn { relation, .. }
            | Change::Comment { relation, .. }
            | Change::Replace { relation, .. } => self.turns(&[*relation]).await?,
            Change::Swap { one, other } => self.turns(&[one.0, other.0]).await?,
            // The consumers of what is in a schema are not known by its name.
            Change::CreateSchema { .. } | Change::RenameSchema { .. } | Change::CommentSchema { .. } => Vec::new(),
        };
        self.coordinator.ask(|reply| Input::Ddl(Ddl::Change { change: Box::new(change), reply })).await?
    }

    /// A name for the consumers of a new relation by which no other's are known, and the turn with
    /// it if it is not the relation's own, which has its turn already.
    async fn free_consumers(&self, name: &RelationName) -> Result<(String, Option<OwnedMutexGuard<()>>), rpc::Error> {
        let own = own_consumers(name);
        loop {
            let consumers = free_consumers(&self.catalog().await?, &own);
            if consumers == own {
                return Ok((consumers, None));
            }
            let turn = self.names.take(consumers.clone()).await;
            if free_consumers(&self.catalog().await?, &own) == consumers {
                return Ok((consumers, Some(turn)));
            }
        }
    }

    /// Waits for the turn with relations, by the names that they and their consumers have then.
    async fn turns(&self, ids: &[TableId]) -> Result<Vec<OwnedMutexGuard<()>>, rpc::Error> {
        loop {
            let names = names_of(&self.catalog().await?, ids);
            let turns = self.names.take_all(names.clone()).await;
            if names_of(&self.catalog().await?, ids) == names {
                return Ok(turns);
            }
        }
    }

    /// Looks over what a table would become, stores it, and waits until it is read so. `sql`: the statement that the change was
    /// made up for. `renew`: even if there is nothing to change.
    async fn alter(self, new: Declaration, sql: &str, renew: bool) -> Result<Vec<String>, rpc::Error> {
        let _turn = self.names.take(own_consumers(&new.name)).await;
        let entry = self.find(&new.name).await?.ok_or_else(|| no_table(&new.name))?;
        let before = entry.declaration();
        if before == new && entry.job.state == JobState::Running && !renew {
            // An attempt whose answer was lost has done it.
            return Ok(Vec::new());
        }
        let changed = Declaration {
            columns: new.columns.clone(),
            hidden: new.hidden.clone(),
            primary_key: new.primary_key.clone(),
            plan: new.plan.clone(),
            sql: new.sql.clone(),
            ..before.clone()
        };
        if before.sql != sql || changed != new {
            let message = format!("{} \"{}\" was changed by somebody else meanwhile", before.kind.as_str(), new.name);
            return Err(rpc::Error::new(Kind::User, message).with_sqlstate("40001").with_hint("try again"));
        }
        before
            .check_change(&new)
            .map_err(|change| rpc::Error::new(Kind::User, change.to_string()).with_sqlstate("42804"))?;
        let notices = match (before.plan.stream(), new.plan.stream(), before.kind) {
            (Some(from), Some(to), _) => {
                let altered = Altered { before: from, after: to, splits: &entry.job.splits };
                altered.preflight(&self.owner(entry.consumers())).await?
            }
            // Statements write its rows.
            (None, None, RelationKind::Table) => Vec::new(),
            _ => {
                let message = format!("\"{}\" is a view, which cannot be altered", new.name);
                return Err(rpc::Error::new(Kind::User, message).with_sqlstate("42809"));
            }
        };
        self.coordinator.ask(|reply| Input::Ddl(Ddl::Alter { declared: Box::new(new), reply })).await??;
        Ok(notices)
    }

    async fn find(&self, name: &RelationName) -> Result<Option<Entry>, rpc::Error> {
        Ok(self.catalog().await?.named(name).cloned())
    }

    async fn catalog(&self) -> Result<Graph, rpc::Error> {
        Ok(self.coordinator.ask(Input::Catalog).await?.1)
    }

    /// By which consumers of a relation are recognised, given the name that they are known by.
    fn owner(&self, consumers: &str) -> String {
        format!("{}/{consumers}", self.cluster)
    }
}

/// The name by which the consumers of a relation are known, unless those of another one are.
fn own_consumers(name: &RelationName) -> String {
    if name.is_public() { name.name.clone() } else { name.to_string() }
}

/// The name by which the consumers of a new relation are known: its own, unless those of a renamed
/// one are known by that.
fn free_consumers(catalog: &Graph, name: &str) -> String {
    let is_free = |candidate: &String| catalog.entries().all(|entry| entry.consumers() != candidate);
    let others = (2..).map(|number: u64| format!("{name}~{number}"));
    std::iter::once(name.to_owned()).chain(others).find(is_free).expect("a catalog is finite")
}

fn names_of(catalog: &Graph, ids: &[TableId]) -> Vec<String> {
    let entries = ids.iter().filter_map(|id| catalog.get(*id));
    entries.flat_map(|entry| [own_consumers(entry.name()), entry.consumers().to_owned()]).collect()
}

/// Removes the consumers that were made for a relation that was dropped.
async fn clean_up(entry: &Entry, owner: &str) {
    // This version made no consumers for options that it does not understand. A view has none: they
    // are its source's.
    let Some(Ok(options)) = entry.job.stream().map(|source| Options::parse(&source.options)) else { return };
    for split in &entry.job.splits {
        match remove_consumers(&options, &split.split, owner).await {
            Ok(removed) if removed.is_empty() => {}
            Ok(consumers) => info!(owner, ?consumers, "removed the consumers of a dropped table"),
            Err(error) => warn!(owner, error = chain(&error), "consumers of a dropped table remain"),
        }
    }
}

/// Carries a statement through, whether or not whoever asked still waits.
async fn carry_through<T: Send + 'static>(
    statement: impl Future<Output = Result<T, rpc::Error>> + Send + 'static,
) -> Result<T, rpc::Error> {
    let fault = |error: tokio::task::JoinError| rpc::Error::new(Kind::Internal, format!("statement failed: {error}"));
    tokio::spawn(statement).await.map_err(fault)?
}

#[tonic::async_trait]
impl meta_server::Meta for Service {
    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::CreateTableResponse>, Status> {
        let statement = self.statement()?;
        let proto::CreateTableRequest { table, if_not_exists, backfill_rate } = request.into_inner();
        let new: Declaration = serde_json::from_slice(&table)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("table is not readable: {error}")))?;
        let (table, created, notices) = carry_through(statement.create(new, if_not_exists, backfill_rate)).await?;
        Ok(Response::new(proto::CreateTableResponse { table_id: table.0, created, notices }))
    }

    async fn explain_create(
        &self,
        request: Request<proto::ExplainCreateRequest>,
    ) -> Result<Response<proto::ExplainCreateResponse>, Status> {
        let new: Declaration = serde_json::from_slice(&request.into_inner().table)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("table is not readable: {error}")))?;
        let source =
            new.plan.stream().ok_or_else(|| rpc::Error::new(Kind::Internal, "a view has no stream to look at"))?;
        let options =
            Options::parse(&source.options).map_err(weir_connector_nats::Error::from).map_err(rpc::Error::from)?;
        let findings = inspect(
            &options,
            &format!("{}/{}", self.config.cluster, own_consumers(&new.name)),
            new.kind != RelationKind::Source,
        )
        .await;
        let findings = findings.into_iter().map(|found| proto::Finding {
            topic: found.topic.to_owned(),
            severity: found.severity.as_str().to_owned(),
            finding: found.finding,
            hint: found.hint.unwrap_or_default(),
        });
        Ok(Response::new(proto::ExplainCreateResponse { findings: findings.collect() }))
    }

    async fn alter_table(
        &self,
        request: Request<proto::AlterTableRequest>,
    ) -> Result<Response<proto::AlterTableResponse>, Status> {
        let proto::AlterTableRequest { table, sql, renew } = request.into_inner();
        let new: Declaration = serde_json::from_slice(&table)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("table is not readable: {error}")))?;
        let statement = self.statement()?;
        let notices = carry_through(async move { statement.alter(new, &sql, renew).await }).await?;
        Ok(Response::new(proto::AlterTableResponse { notices }))
    }

    async fn drop_tables(
        &self,
        request: Request<proto::DropTablesRequest>,
    ) -> Result<Response<proto::DropTablesResponse>, Status> {
        let proto::DropTablesRequest { tables, schemas, cascade } = request.into_inner();
        let relations = tables.into_iter().map(TableId).collect();
        let schemas = schemas.into_iter().map(SchemaId).collect();
        let dropping = Dropping { relations, schemas, cascade, known: Vec::new() };
        let dropped = carry_through(self.statement()?.drop(dropping)).await?;
        let tables = dropped.iter().map(|entry| entry.id().0).collect();
        Ok(Response::new(proto::DropTablesResponse { tables }))
    }

    async fn change_catalog(
        &self,
        request: Request<proto::ChangeCatalogRequest>,
    ) -> Result<Response<proto::ChangeCatalogResponse>, Status> {
        let change: Change = serde_json::from_slice(&request.into_inner().change)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("change is not readable: {error}")))?;
        carry_through(self.statement()?.change(change)).await?;
        Ok(Response::new(proto::ChangeCatalogResponse {}))
    }

    async fn catalog(
        &self,
        _request: Request<proto::CatalogRequest>,
    ) -> Result<Response<proto::CatalogResponse>, Status> {
        let (version, catalog) = self.coordinator()?.ask(Input::Catalog).await?;
        let tables = catalog.entries().map(entry_bytes).collect();
        let schemas = catalog.schemas().map(schema_bytes).collect();
        Ok(Response::new(proto::CatalogResponse { version, tables, schemas }))
    }

    async fn pin(&self, request: Request<proto::PinRequest>) -> Result<Response<proto::PinResponse>, Status> {
        let streams = request.into_inner().streams;
        let pinned = self.coordinator()?.ask(Input::Pin).await?;
        let slots = pinned.serving.slots.into_iter();
        let slots = slots.map(|(slot, vnodes, address)| proto::SlotAddress {
            slot: slot.0,
            vnodes: Some(vnodes.into()),
            address,
        });
        let places = pinned.serving.places.iter();
        let progress = places.map(|(table, places)| proto::TableProgress { table: table.0, places: *places });
        let all = pinned.serving.positions.iter().filter(|_| !streams.is_empty());
        let positions = all.filter(|(split, _)| streams.iter().any(|stream| stream == stream_of(&split.split)));
        Ok(Response::new(proto::PinResponse {
            progress: progress.collect(),
            positions: positions.map(|(split, position)| wire::position(split, position)).collect(),
            pin: pinned.pin,
            pin_lease_ms: u64::try_from(PIN_LEASE.as_millis()).expect("seconds"),
            term: Some(pinned.serving.term.into()),
            epoch: pinned.serving.epoch.0,
            catalog_version: pinned.catalog_version,
            slots: slots.collect(),
        }))
    }

    async fn renew_pins(&self, request: Request<proto::PinsRequest>) -> Result<Response<proto::PinsResponse>, Status> {
        self.coordinator()?.send(Input::RenewPins(request.into_inner().pins)).await?;
        Ok(Response::new(proto::PinsResponse {}))
    }

    async fn release_pins(
        &self,
        request: Request<proto::PinsRequest>,
    ) -> Result<Response<proto::PinsResponse>, Status> {
        self.coordinator()?.send(Input::ReleasePins(request.into_inner().pins)).await?;
        Ok(Response::new(proto::PinsResponse {}))
    }

    async fn flush(&self, _request: Request<proto::FlushRequest>) -> Result<Response<proto::FlushResponse>, Status> {
        let epoch = self.coordinator()?.ask(Input::Flush).await?;
        Ok(Response::new(proto::FlushResponse { epoch: epoch.0 }))
    }

    async fn cluster(
        &self,
        _request: Request<proto::ClusterRequest>,
    ) -> Result<Response<proto::ClusterResponse>, Status> {
        let view = self.coordinator()?.ask(Input::Cluster).await?;
        let leader = proto::ClusterNode {
            id: self.config.advertise.clone(),
            role: "meta".to_owned(),
            address: self.config.advertise.clone(),
            state: "leader".to_owned(),
            slots: Vec::new(),
            trouble: String::new(),
        };
        let compute = view.nodes.into_iter().map(|(node, address, state, slots)| proto::ClusterNode {
            trouble: view.troubles.get(&node).cloned().unwrap_or_default(),
            id: node.0,
            role: "compute".to_owned(),
            address,
            state: state.to_owned(),
            slots: slots.into_iter().map(|slot| slot.0).collect(),
        });
        Ok(Response::new(proto::ClusterResponse {
            term: Some(view.term.into()),
            epoch: view.epoch.0,
            nodes: std::iter::once(leader).chain(compute).collect(),
        }))
    }
}
