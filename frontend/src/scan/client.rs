//! Connections to compute nodes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tonic::transport::Channel;
use weir_common::telemetry::trace::{Inject, TracedChannel};
use weir_proto::compute_client::ComputeClient;

use crate::error::Error;
use crate::meta::channel;
use crate::snapshot::Snapshot;

/// A scanned batch is a few megabytes at most; this bounds what a faulty node can make us hold.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// One connection a node, shared by all scans.
#[derive(Debug, Default)]
pub(crate) struct ComputeNodes(Mutex<HashMap<String, Channel>>);

impl ComputeNodes {
    /// The client of the node at an address; connections to nodes that the snapshot does not name are closed.
    pub(crate) fn client(&self, address: &str, snapshot: &Snapshot) -> Result<ComputeClient<TracedChannel>, Error> {
        self.connect(address, |known| snapshot.slots.iter().any(|slot| slot.address == known))
    }

    /// As [`ComputeNodes::client`], with the addresses of all nodes.
    pub(crate) fn client_among(&self, address: &str, all: &[&str]) -> Result<ComputeClient<TracedChannel>, Error> {
        self.connect(address, |known| all.contains(&known))
    }

    fn connect(&self, address: &str, is_node: impl Fn(&str) -> bool) -> Result<ComputeClient<TracedChannel>, Error> {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                channels.retain(|known, _| is_node(known));
                let channel = channel(address)?;
                channels.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(ComputeClient::with_interceptor(channel, Inject).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}
