//! One meta process: a standby that campaigns, and a leader that reigns until it is deposed, over and over.
//!
//! Owns the gRPC listener for the whole life of the process; its services answer UNAVAILABLE while it does not lead.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{Instrument, info, info_span};
use weir_common::error::{Kind, chain};
use weir_common::http::Readiness;
use weir_common::listen;
use weir_common::telemetry::{self, trace};
use weir_proto::control_server::ControlServer;
use weir_proto::meta_server::MetaServer;
use weir_proto::statements_server::StatementsServer;

use crate::Error;
use crate::control::Control;
use crate::coordinator::config;
use crate::coordinator::state::Coordinator;
use crate::coordinator::storage::Storage;
use crate::coordinator::task::{Beginning, Handle, Task};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::store::election::{self, Leadership};
use crate::store::{self, MetaStore};
use crate::writes::Writes;

/// How often databases of dead terms are collected, if nothing else is configured.
pub const GARBAGE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a change of the nodes is left to settle: nodes that start together share a term.
const SETTLE: Duration = Duration::from_millis(300);
/// How long a node may take to open its slots or to make an epoch durable.
const NODE_TIMEOUT: Duration = Duration::from_secs(60);
/// The whole catalog travels in one message.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// How long after a reign that failed the next is tried.
const RETRY: Duration = Duration::from_millis(500);

/// What a meta node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address under which other nodes reach this one.
    pub advertise: String,
    /// The cluster's name, part of every key and path.
    pub cluster: String,
    /// Where compute nodes keep state; meta only checks that they agree.
    pub state_url: String,
    /// How often an epoch ends when nobody asks for it.
    pub barrier_interval: Duration,
    /// How long a leader that vanished, or a node, still counts.
    pub lease_ttl: Duration,
    /// How often databases of dead terms are looked for and deleted.
    pub garbage_interval: Duration,
}

/// The services' view of the reign: the coordinator's handle while this process leads.
pub(crate) type Current = watch::Receiver<Option<Reign>>;

/// What services need of a reign.
#[derive(Clone)]
pub(crate) struct Reign {
    pub(crate) coordinator: Handle,
    pub(crate) storage: Arc<Storage>,
}

/// A meta node that has not started yet.
pub struct Meta {
    config: Config,
    store: Arc<dyn MetaStore>,
    campaigning: Arc<AtomicBool>,
}

impl Meta {
    /// A node over a metadata store.
    pub fn new(config: Config, store: Arc<dyn MetaStore>) -> Meta {
        Meta { config, store, campaigning: Arc::new(AtomicBool::new(false)) }
    }

    /// Ready: it leads, or would if the leader went away.
    pub fn readiness(&self) -> Readiness {
        let campaigning = Arc::clone(&self.campaigning);
        Arc::new(move || {
            let ready = campaigning.load(Ordering::Relaxed);
            if ready { Ok(()) } else { Err("metadata store not reached yet".to_owned()) }
        })
    }

    /// Serves and campaigns until cancelled.
    ///
    /// # Errors
    /// If the metadata store or the listener fails for good.
    pub async fn run(self, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
        let (publish, current) = watch::channel(None);
        // The server outlives the reign, which ends by resigning.
        let stop = CancellationToken::new();
        let _stop_server = stop.clone().drop_guard();
        let control = Control::new(self.config.clone(), current.clone());
        let writes = Writes::new(current.clone());
        let service = Service::new(current, self.config.clone());
        let server = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(5)))
            .trace_fn(trace::server_span)
            .add_service(ControlServer::new(control).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(StatementsServer::new(writes))
            .add_service(MetaServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .serve_with_incoming_shutdown(listen::rpc(listener), stop.cancelled_owned());
        let reigns = self.reigns(publish, &cancel);
        tokio::pin!(server);
        tokio::select! {
            ended = &mut server => ended.map_err(Error::from),
            ended = reigns => ended,
        }
    }

    async fn reigns(&self, publish: watch::Sender<Option<Reign>>, cancel: &CancellationToken) -> Result<(), Error> {
        let metrics = Metrics::new(&telemetry::meter());
        let keys = Keys::new(&self.config.cluster);
        while !cancel.is_cancelled() {
            // A store that answers is all a standby needs.
            while let Err(error) = self.store.get(&keys.leader()).await {
                info!(error = chain(&error), "metadata store is out of reach, trying again");
                if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                    return Ok(());
                }
            }
            self.campaigning.store(true, Ordering::Relaxed);
            let (key, Config { advertise, lease_ttl, .. }) = (keys.leader(), &self.config);
            let campaign = election::campaign(Arc::clone(&self.store), &key, advertise, *lease_ttl, cancel);
            let Some(leadership) = campaign.await? else { return Ok(()) };
            metrics.leader.record(1, &[]);
            let reign = self.reign(&leadership, &keys, &metrics, &publish, cancel);
            let span = info_span!("reign", leader = leadership.create_revision);
            if let Err(error) = reign.instrument(span).await {
                // Fenced: the outcome of a transaction is unknown, or the lease has ended. A new reign finds out.
                if !matches!(error.kind(), Kind::Unavailable | Kind::Fenced) {
                    return Err(error);
                }
                info!(error = chain(&error), "reign failed, campaigning again");
            }
            publish.send_replace(None);
            metrics.leader.record(0, &[]);
            leadership.resign().await;
        }
        Ok(())
    }

    /// Leads until leadership is lost, given up, or the process stops.
    async fn reign(
        &self,
        leadership: &Leadership,
        keys: &Keys,
        metrics: &Metrics,
        publish: &watch::Sender<Option<Reign>>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let storage =
            Arc::new(Storage { store: Arc::clone(&self.store), keys: keys.clone(), fence: leadership.fence() });
        storage.forget_orphans().await?;
        let (catalog_version, next_id, catalog) = storage.catalog().await?;
        let id = storage.cluster_id(rand::random()).await?;
        let nodes = self.store.list(&keys.nodes()).await?;
        // By address: a node that opens a new control stream has a new id.
        let address = |stored: store::KeyValue| String::from_utf8_lossy(&stored.value).into_owned();
        let expected: BTreeSet<String> = nodes.into_iter().map(address).collect();
        info!(tables = catalog.entries().count(), expected_nodes = expected.len(), "leading the cluster");
        let core = Coordinator::new(
            config::Config {
                state_prefix: format!("state/{}-{id}", self.config.cluster),
                began: SystemTime::now(),
                barrier_interval: self.config.barrier_interval,
                settle: SETTLE,
                grace: self.config.lease_ttl,
                node_timeout: NODE_TIMEOUT,
            },
            catalog,
            expected,
            rand::rng().random(),
        );
        let beginning = Beginning {
            core,
            storage: Arc::clone(&storage),
            metrics: metrics.clone(),
            catalog_version,
            next_id,
            garbage_interval: self.config.garbage_interval,
        };
        let (coordinator, task) = Task::new(beginning);
        publish.send_replace(Some(Reign { coordinator, storage }));
        cancel.run_until_cancelled(task.run(leadership.lost.clone())).await;
        Ok(())
    }
}
