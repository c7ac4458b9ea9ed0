//! What frontends ask of the leader: DDL, the catalog, pins, flush, the cluster's state. A thin layer: it converts,
//! looks sources over before they are created, and leaves everything else to the coordinator.

use tonic::{Request, Response, Status};
use weir_common::catalog::NewTable;
use weir_common::error::Kind;
use weir_common::rpc;
use weir_connector_nats::inspect::inspect;
use weir_connector_nats::options::Options;
use weir_connector_nats::preflight::{Preflight, preflight};
use weir_proto as proto;
use weir_proto::meta_server;

use crate::coordinator::pins::PIN_LEASE;
use crate::coordinator::task::{Ddl, Handle, Input, not_leading};
use crate::reign::{Config, Current};
use crate::wire::table_bytes;

/// The gRPC service.
pub(crate) struct Service {
    current: Current,
    config: Config,
}

impl Service {
    pub(crate) fn new(current: Current, config: Config) -> Service {
        Service { current, config }
    }

    fn coordinator(&self) -> Result<Handle, rpc::Error> {
        self.current.borrow().as_ref().map(|reign| reign.coordinator.clone()).ok_or_else(not_leading)
    }
}

/// Looks the source of a new table over: that it exists, may be read, and where reading starts.
async fn look_over(cluster: &str, table: &NewTable) -> Result<Preflight, rpc::Error> {
    let options = Options::parse(&table.source.options).map_err(weir_connector_nats::Error::from)?;
    Ok(preflight(&options, &format!("{cluster}/{}", table.name)).await?)
}

#[tonic::async_trait]
impl meta_server::Meta for Service {
    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::CreateTableResponse>, Status> {
        let coordinator = self.coordinator()?;
        let proto::CreateTableRequest { table, if_not_exists } = request.into_inner();
        let new: NewTable = serde_json::from_slice(&table)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("table is not readable: {error}")))?;
        // A table that exists needs no look at its source; if two statements race, the coordinator decides.
        let (_, tables) = coordinator.ask(Input::Catalog).await?;
        let exists = tables.iter().any(|table| table.declared.name == new.name);
        let Preflight { splits, notices } = if exists {
            Preflight { splits: Vec::new(), notices: Vec::new() }
        } else {
            look_over(&self.config.cluster, &new).await?
        };
        let create = |reply| Input::Ddl(Ddl::Create { new: Box::new(new), splits, if_not_exists, reply });
        let (table, created) = coordinator.ask(create).await??;
        Ok(Response::new(proto::CreateTableResponse { table_id: table.0, created, notices }))
    }

    async fn explain_create(
        &self,
        request: Request<proto::ExplainCreateRequest>,
    ) -> Result<Response<proto::ExplainCreateResponse>, Status> {
        let new: NewTable = serde_json::from_slice(&request.into_inner().table)
            .map_err(|error| rpc::Error::new(Kind::Internal, format!("table is not readable: {error}")))?;
        let options =
            Options::parse(&new.source.options).map_err(weir_connector_nats::Error::from).map_err(rpc::Error::from)?;
        let findings = inspect(&options, &format!("{}/{}", self.config.cluster, new.name)).await;
        let findings = findings.into_iter().map(|found| proto::Finding {
            topic: found.topic.to_owned(),
            severity: found.severity.as_str().to_owned(),
            finding: found.finding,
            hint: found.hint.unwrap_or_default(),
        });
        Ok(Response::new(proto::ExplainCreateResponse { findings: findings.collect() }))
    }

    async fn drop_table(
        &self,
        request: Request<proto::DropTableRequest>,
    ) -> Result<Response<proto::DropTableResponse>, Status> {
        let proto::DropTableRequest { name, if_exists } = request.into_inner();
        let drop = |reply| Input::Ddl(Ddl::Drop { name, if_exists, reply });
        let dropped = self.coordinator()?.ask(drop).await??;
        Ok(Response::new(proto::DropTableResponse { dropped }))
    }

    async fn catalog(
        &self,
        _request: Request<proto::CatalogRequest>,
    ) -> Result<Response<proto::CatalogResponse>, Status> {
        let (version, tables) = self.coordinator()?.ask(Input::Catalog).await?;
        let tables = tables.iter().map(|table| table_bytes(table)).collect();
        Ok(Response::new(proto::CatalogResponse { version, tables }))
    }

    async fn pin(&self, _request: Request<proto::PinRequest>) -> Result<Response<proto::PinResponse>, Status> {
        let pinned = self.coordinator()?.ask(Input::Pin).await?;
        let slots = pinned.serving.slots.into_iter();
        let slots = slots.map(|(slot, vnodes, address)| proto::SlotAddress {
            slot: slot.0,
            vnodes: Some(vnodes.into()),
            address,
        });
        Ok(Response::new(proto::PinResponse {
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
