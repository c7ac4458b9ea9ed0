//! A cluster of three slots on two compute nodes behind the real RPC services, which hold fixed
//! batches; and a frontend in front of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use futures::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use weir_common::catalog::{
    self, Change, Column, Declaration, Encode, Entry, Graph, OnError, Origin, Plan, Relation, RelationKind,
    RelationName, Schema, Source,
};
use weir_common::error::Kind;
use weir_common::ids::{SchemaId, TableId};
use weir_common::types::SqlType;
use weir_common::{listen, rpc};
use weir_frontend::Config;
use weir_proto as proto;
use weir_proto::compute_server::{Compute, ComputeServer};
use weir_proto::dml_server::DmlServer;
use weir_proto::meta_server::{Meta, MetaServer};
use weir_proto::statements_server::StatementsServer;

use crate::held::Held;

/// The slots, each with its node and its vnodes.
pub(crate) const SLOTS: [(u32, usize, u32, u32); 3] = [(0, 0, 0, 100), (1, 0, 100, 200), (2, 1, 200, 256)];
/// The deadline of waits, long enough for a machine whose cores are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The behaviour of a scan.
#[derive(Clone, Debug)]
pub(crate) enum Scan {
    /// Sends its batches.
    Answer,
    /// Fails after so many batches.
    FailAfter(usize, Kind),
    /// Sends so many batches and ends without the last message.
    EndAfter(usize),
    /// Sends so many batches and then stalls until it is dropped.
    StallAfter(usize),
}

/// The contents of the cluster, and the requests that it received.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) catalog_version: u64,
    pub(crate) catalog: Vec<Entry>,
    pub(crate) schemas: Vec<Schema>,
    /// The batches by table and slot.
    batches: HashMap<(u32, u32), Vec<RecordBatch>>,
    pub(crate) term: u64,
    pub(crate) epoch: u64,
    pub(crate) next_pin: u64,
    pub(crate) pins: HashSet<u64>,
    pub(crate) renewals: u64,
    /// The number of renewals of each pin.
    pub(crate) renewed: HashMap<u64, u64>,
    /// The behaviours of the next scans, one per scan; later scans answer.
    pub(crate) scans: VecDeque<Scan>,
    pub(crate) scan_requests: Vec<proto::ScanRequest>,
    /// The number of running scans.
    pub(crate) open_scans: usize,
    /// The number of batches that scans have handed out for sending.
    pub(crate) sent_batches: usize,
    /// The number of CREATE TABLE calls that are carried out without an answer.
    pub(crate) lose_answers: usize,
    /// The number of CREATE TABLE calls that are carried out before the leader is deposed.
    pub(crate) depositions: usize,
    /// The vnodes of the slots in meta's answers; `None` means those of [`SLOTS`].
    pub(crate) placement: Option<Vec<(u32, u32)>>,
    pub(crate) notices: Vec<String>,
    pub(crate) flushes: u64,
    /// The answer of every compute node to requests for splits.
    pub(crate) splits: proto::SplitsResponse,
    /// True if compute nodes do not answer requests for splits.
    pub(crate) silent: bool,
    /// True if the compute nodes are gone.
    pub(crate) deserted: bool,
    /// The rows of statements.
    pub(crate) held: Held,
}

impl State {
    fn graph(&self) -> Graph {
        Graph::new(self.schemas.iter().cloned(), self.catalog.iter().cloned())
    }

    /// Returns the number of batches of all tables.
    pub(crate) fn batches(&self) -> usize {
        self.batches.values().map(Vec::len).sum()
    }

    /// Replaces the rows of a table's slot.
    pub(crate) fn replace(&mut self, table: u32, slot: u32, rows: RecordBatch) {
        self.batches.insert((table, slot), vec![rows]);
    }
}

/// The services, shared by all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) computes: Arc<Mutex<Vec<SocketAddr>>>,
    pub(crate) lease: Option<Duration>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the state in its hands")
    }

    /// Adds a table and distributes its rows over the slots, batch by batch.
    pub(crate) fn add(&self, name: &str, columns: &[(&str, SqlType, ArrayRef)], batch_rows: usize) {
        let declared = Declaration {
            kind: RelationKind::Table,
            name: RelationName::public(name),
            columns: columns
                .iter()
                .map(|(name, ty, _)| Column { name: (*name).to_owned(), ty: ty.clone(), origin: Origin::Payload })
                .collect(),
            hidden: Vec::new(),
            primary_key: Vec::new(),
            plan: Plan::Stream(Source { options: Default::default(), encode: Encode::Json }),
            on_error: OnError::default(),
            sql: format!(
                "CREATE TABLE {name} (x int) WITH (connector = 'nats', password = 'hush') FORMAT PLAIN ENCODE JSON"
            ),
        };
        let arrays = columns.iter().map(|(_, _, array)| Arc::clone(array)).collect();
        let rows = RecordBatch::try_new(catalog::schema(&declared.columns), arrays).expect("columns of one length");
        let id = self.declare(declared);
        let mut state = self.state();
        let (mut start, mut slot) = (0, 0);
        while start < rows.num_rows() {
            let length = batch_rows.min(rows.num_rows() - start);
            state.batches.entry((id, slot)).or_default().push(rows.slice(start, length));
            (start, slot) = (start + length, (slot + 1) % SLOTS.len() as u32);
        }
    }

    fn declare(&self, declared: Declaration) -> u32 {
        let mut state = self.state();
        state.catalog_version += 1;
        let id = u32::try_from(state.catalog_version).expect("few tables");
        let schema = state.graph().schema_named(&declared.name.schema).cloned().expect("it was looked for");
        state.catalog.push(Entry::new(TableId(id), declared, Vec::new(), None).in_schema(&schema));
        id
    }

    /// Changes the relation that was added last.
    pub(crate) fn alter_newest(&self, change: impl FnOnce(&mut Relation)) {
        let mut state = self.state();
        change(Arc::make_mut(&mut state.catalog.last_mut().expect("a relation was added").relation));
    }
}

/// A cluster, a frontend, and their addresses.
pub(crate) struct Cluster {
    pub(crate) shared: Shared,
    pub(crate) sql: SocketAddr,
    /// Stops the frontend.
    pub(crate) stop: CancellationToken,
    /// Stops everything else.
    nodes: CancellationToken,
    pub(crate) frontend: JoinHandle<Result<(), weir_frontend::Error>>,
}

impl Cluster {
    pub(crate) async fn start() -> Cluster {
        Cluster::start_with(Shared::default(), Config::default()).await
    }

    /// Starts a cluster. It sets the meta addresses of the configuration: a standby, then a dead
    /// node, then the leader.
    pub(crate) async fn start_with(shared: Shared, config: Config) -> Cluster {
        {
            let mut state = shared.state();
            (state.term, state.epoch, state.catalog_version) = (7, 42, 1);
        }
        let (stop, nodes) = (CancellationToken::new(), CancellationToken::new());
        for _ in 0..2 {
            let address = serve(Node { shared: shared.clone(), leads: false }, &nodes).await;
            shared.computes.lock().expect("no panic").push(address);
        }
        let standby = serve(Node { shared: shared.clone(), leads: false }, &nodes).await;
        let leader = serve(Node { shared: shared.clone(), leads: true }, &nodes).await;
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let sql = listener.local_addr().expect("bound");
        let meta_addrs = [standby, dead, leader].iter().map(ToString::to_string).collect();
        let config = Config { meta_addrs, ..config };
        let frontend = tokio::spawn(weir_frontend::run(config, listener, stop.clone()));
        Cluster { shared, sql, stop, nodes, frontend }
    }

    /// Returns a client of the database `dev`.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.dsn(), NoTls).await.expect("the frontend accepts");
        tokio::spawn(connection);
        client
    }

    pub(crate) fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=root dbname=dev", self.sql.port())
    }

    /// Returns a count of the state once it has not changed for half a second.
    pub(crate) async fn settled(&self, count: impl Fn(&State) -> usize) -> usize {
        let settled = async {
            loop {
                let before = count(&self.shared.state());
                tokio::time::sleep(Duration::from_millis(500)).await;
                if before > 0 && count(&self.shared.state()) == before {
                    return before;
                }
            }
        };
        timeout(PATIENCE, settled).await.expect("it comes to rest")
    }

    /// Waits until the state fulfils a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let reached = async {
            while !condition(&self.shared.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("never {what}: {:?}", self.shared.state()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        self.nodes.cancel();
    }
}

async fn serve(node: Node, stop: &CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = Server::builder()
        .add_service(MetaServer::new(node.clone()))
        .add_service(StatementsServer::new(node.clone()))
        .add_service(DmlServer::new(node.clone()))
        .add_service(ComputeServer::new(node))
        .serve_with_incoming_shutdown(listen::rpc(listener), stop.clone().cancelled_owned());
    tokio::spawn(server);
    address
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) shared: Shared,
    leads: bool,
}

impl Node {
    pub(crate) fn lead(&self) -> Result<MutexGuard<'_, State>, Status> {
        if self.leads {
            Ok(self.shared.state())
        } else {
            Err(rpc::Error::new(Kind::Unavailable, "this node does not lead").into())
        }
    }
}

fn refuse(kind: Kind, sqlstate: &str, message: String) -> Status {
    rpc::Error::new(kind, message).with_sqlstate(sqlstate).into()
}

#[tonic::async_trait]
impl Meta for Node {
    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::CreateTableResponse>, Status> {
        drop(self.lead()?);
        let request = request.into_inner();
        let declared: Declaration = serde_json::from_slice(&request.table).expect("a table as JSON");
        let graph = self.shared.state().graph();
        if graph.schema_named(&declared.name.schema).is_none() {
            let message = format!("schema \"{}\" does not exist", declared.name.schema);
            return Err(refuse(Kind::User, "3F000", message));
        }
        let known = graph.named(&declared.name).cloned();
        if let Some(entry) = known {
            let response = proto::CreateTableResponse { table_id: entry.id().0, created: false, notices: Vec::new() };
            let message = format!("relation \"{}\" already exists", declared.name);
            return if request.if_not_exists {
                Ok(Response::new(response))
            } else {
                Err(refuse(Kind::User, "42P07", message))
            };
        }
        let table_id = self.shared.declare(declared);
        let mut state = self.shared.state();
        if state.lose_answers > 0 {
            state.lose_answers -= 1;
            drop(state);
            // The transport breaks: the client gets no answer from the node.
            panic!("the answer is lost on purpose");
        }
        if state.depositions > 0 {
            state.depositions -= 1;
            let deposed = rpc::Error::new(Kind::Unavailable, "this meta node is not the leader");
            return Err(deposed.with_outcome_unknown().into());
        }
        let notices = state.notices.clone();
        Ok(Response::new(proto::CreateTableResponse { table_id, created: true, notices }))
    }

    async fn explain_create(
        &self,
        _request: Request<proto::ExplainCreateRequest>,
    ) -> Result<Response<proto::ExplainCreateResponse>, Status> {
        Ok(Response::new(proto::ExplainCreateResponse::default()))
    }

    async fn alter_table(
        &self,
        _request: Request<proto::AlterTableRequest>,
    ) -> Result<Response<proto::AlterTableResponse>, Status> {
        Ok(Response::new(proto::AlterTableResponse::default()))
    }

    async fn drop_tables(
        &self,
        request: Request<proto::DropTablesRequest>,
    ) -> Result<Response<proto::DropTablesResponse>, Status> {
        let mut state = self.lead()?;
        let proto::DropTablesRequest { mut tables, schemas, .. } = request.into_inner();
        let in_schemas = state.catalog.iter().filter(|entry| schemas.contains(&entry.about.schema.0));
        tables.extend(in_schemas.map(|entry| entry.id().0).collect::<Vec<_>>());
        state.schemas.retain(|schema| !schemas.contains(&schema.id.0));
        let before = state.catalog.len();
        state.catalog.retain(|entry| !tables.contains(&entry.id().0));
        if state.catalog.len() + tables.len() != before {
            return Err(refuse(Kind::User, "42P01", "a table does not exist".to_owned()));
        }
        state.catalog_version += 1;
        Ok(Response::new(proto::DropTablesResponse { tables }))
    }

    async fn change_catalog(
        &self,
        request: Request<proto::ChangeCatalogRequest>,
    ) -> Result<Response<proto::ChangeCatalogResponse>, Status> {
        let mut state = self.lead()?;
        let change: Change = serde_json::from_slice(&request.into_inner().change).expect("a change");
        let mut catalog = state.graph();
        state.catalog_version += 1;
        let next = SchemaId(u32::try_from(state.catalog_version).expect("few changes"));
        let changed = catalog.changed(&change, next);
        catalog.apply(changed.map_err(|refused| refuse(Kind::User, refused.sqlstate(), refused.to_string()))?);
        for known in &mut state.catalog {
            *known = catalog.get(known.id()).expect("an entry that was there").clone();
        }
        state.schemas = catalog.schemas().cloned().collect();
        Ok(Response::new(proto::ChangeCatalogResponse {}))
    }

    async fn catalog(
        &self,
        _request: Request<proto::CatalogRequest>,
    ) -> Result<Response<proto::CatalogResponse>, Status> {
        let state = self.lead()?;
        let tables = state.catalog.iter().map(|entry| serde_json::to_vec(entry).expect("serialises").into()).collect();
        let schemas =
            state.schemas.iter().map(|schema| serde_json::to_vec(schema).expect("serialises").into()).collect();
        Ok(Response::new(proto::CatalogResponse { version: state.catalog_version, tables, schemas }))
    }

    async fn pin(&self, _request: Request<proto::PinRequest>) -> Result<Response<proto::PinResponse>, Status> {
        let mut state = self.lead()?;
        state.next_pin += 1;
        let pin = state.next_pin;
        state.pins.insert(pin);
        let computes = self.shared.computes.lock().expect("no panic");
        let slots = SLOTS.iter().rev().map(|(slot, node, start, end)| proto::SlotAddress {
            slot: *slot,
            vnodes: Some(proto::VnodeRange { start: *start, end: *end }),
            address: computes[*node].to_string(),
        });
        let mut slots: Vec<_> = slots.collect();
        for (slot, (start, end)) in slots.iter_mut().zip(state.placement.iter().flatten()) {
            slot.vnodes = Some(proto::VnodeRange { start: *start, end: *end });
        }
        Ok(Response::new(proto::PinResponse {
            pin,
            pin_lease_ms: self.shared.lease.unwrap_or(Duration::from_secs(30)).as_millis() as u64,
            term: Some(proto::TermId { term: state.term, nonce: 1 }),
            epoch: state.epoch,
            catalog_version: state.catalog_version,
            slots,
            progress: Vec::new(),
            positions: Vec::new(),
        }))
    }

    async fn renew_pins(&self, request: Request<proto::PinsRequest>) -> Result<Response<proto::PinsResponse>, Status> {
        let mut state = self.lead()?;
        for pin in request.into_inner().pins {
            state.renewals += 1;
            *state.renewed.entry(pin).or_default() += 1;
        }
        Ok(Response::new(proto::PinsResponse {}))
    }

    async fn release_pins(
        &self,
        request: Request<proto::PinsRequest>,
    ) -> Result<Response<proto::PinsResponse>, Status> {
        let mut state = self.lead()?;
        for pin in request.into_inner().pins {
            assert!(state.pins.remove(&pin), "pin {pin} is released once");
        }
        Ok(Response::new(proto::PinsResponse {}))
    }

    async fn flush(&self, _request: Request<proto::FlushRequest>) -> Result<Response<proto::FlushResponse>, Status> {
        let mut state = self.lead()?;
        state.flushes += 1;
        Ok(Response::new(proto::FlushResponse { epoch: state.epoch }))
    }

    async fn cluster(
        &self,
        _request: Request<proto::ClusterRequest>,
    ) -> Result<Response<proto::ClusterResponse>, Status> {
        let state = self.lead()?;
        let address = self.shared.computes.lock().expect("no panic")[0].to_string();
        let node = |id: &str, role: &str, at: &str, slots| proto::ClusterNode {
            id: id.to_owned(),
            role: role.to_owned(),
            address: address.clone(),
            state: at.to_owned(),
            slots,
            trouble: if role == "compute" { "no object store".to_owned() } else { String::new() },
        };
        Ok(Response::new(proto::ClusterResponse {
            term: Some(proto::TermId { term: state.term, nonce: 1 }),
            epoch: state.epoch,
            nodes: match state.deserted {
                true => vec![node("m", "meta", "leader", vec![])],
                false => vec![node("m", "meta", "leader", vec![]), node("c", "compute", "running", vec![0, 1])],
            },
        }))
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<proto::ScanResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Compute for Node {
    type ScanStream = Responses;

    async fn scan(&self, request: Request<proto::ScanRequest>) -> Result<Response<Responses>, Status> {
        let request = request.into_inner();
        let mut state = self.shared.state();
        state.scan_requests.push(request.clone());
        if request.term.as_ref().map(|term| term.term) != Some(state.term) {
            return Err(rpc::Error::new(Kind::Fenced, "the term is over").into());
        }
        let behaviour = state.scans.pop_front().unwrap_or(Scan::Answer);
        let batches = state.batches.get(&(request.table, request.slot)).cloned().unwrap_or_default();
        state.open_scans += 1;
        drop(state);
        let open = Open(self.shared.clone());
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        let batches = limited(batches, limit).into_iter();
        let responses = batches.map(move |batch| Ok(encode(&batch, &request)));
        let responses: Responses = match behaviour {
            Scan::Answer => {
                let done = proto::ScanResponse { done: true, ..Default::default() };
                Box::pin(stream::iter(responses.chain([Ok(done)])))
            }
            Scan::EndAfter(count) => Box::pin(stream::iter(responses.take(count))),
            Scan::FailAfter(count, kind) => {
                let failure = Err(rpc::Error::new(kind, "on purpose").into());
                Box::pin(stream::iter(responses.take(count).chain([failure])))
            }
            Scan::StallAfter(count) => Box::pin(stream::iter(responses.take(count)).chain(stream::pending())),
        };
        Ok(Response::new(Box::pin(responses.map(move |response| {
            open.0.state().sent_batches += 1;
            response
        }))))
    }

    type ReadSourceStream = Responses;

    async fn read_source(&self, _request: Request<proto::ReadSourceRequest>) -> Result<Response<Responses>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn replay(&self, _request: Request<proto::ReplayRequest>) -> Result<Response<proto::ReplayResponse>, Status> {
        Ok(Response::new(proto::ReplayResponse::default()))
    }

    async fn await_read(
        &self,
        _request: Request<proto::AwaitReadRequest>,
    ) -> Result<Response<proto::AwaitReadResponse>, Status> {
        Ok(Response::new(proto::AwaitReadResponse::default()))
    }

    async fn splits(&self, _request: Request<proto::SplitsRequest>) -> Result<Response<proto::SplitsResponse>, Status> {
        let (silent, splits) = {
            let state = self.shared.state();
            (state.silent, state.splits.clone())
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(splits))
    }
}

/// A running scan.
struct Open(Shared);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().open_scans -= 1;
    }
}

fn limited(batches: Vec<RecordBatch>, limit: usize) -> Vec<RecordBatch> {
    let mut left = limit;
    let cut = batches.into_iter().map(|batch| {
        let length = batch.num_rows().min(left);
        left -= length;
        batch.slice(0, length)
    });
    cut.filter(|batch| batch.num_rows() > 0).collect()
}

fn encode(batch: &RecordBatch, request: &proto::ScanRequest) -> proto::ScanResponse {
    let rows = batch.num_rows() as u64;
    if request.projection.is_empty() {
        return proto::ScanResponse { rows, ..Default::default() };
    }
    let projection: Vec<usize> = request.projection.iter().map(|column| *column as usize).collect();
    let batch = batch.project(&projection).expect("columns of the table");
    let (_, encoded) = IpcDataGenerator::default()
        .encode(
            &batch,
            &mut DictionaryTracker::new(false),
            &IpcWriteOptions::default(),
            &mut IpcWriteContext::default(),
        )
        .expect("plain columns");
    proto::ScanResponse { header: encoded.ipc_message.into(), body: encoded.arrow_data.into(), rows, done: false }
}
