//! Connections to compute nodes. Scans share them and never wait for each other.
//!
//! The unread data of a stalled scan stays in two windows of HTTP/2: the window of its own stream,
//! and the window of the connection, which all streams share. The second must never fill up, or one
//! client that does not read would stop all scans of the node. A connection therefore carries at
//! most [`SCANS_MAX`] scans, each of which may have [`STREAM_WINDOW_BYTES`] under way, and its
//! window is larger than their sum. Further scans get another connection. This bounds memory too: a
//! stalled scan holds its stream's window here, and a few batches on the compute node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::transport::Channel;
use weir_common::telemetry::trace::{Inject, TracedChannel};
use weir_proto::compute_client::ComputeClient;
use weir_proto::dml_client::DmlClient;
use weir_sql::error::Error;

use crate::meta::{Slot, endpoint};
use crate::snapshot::Snapshot;

/// A scanned batch is a few megabytes at most. This bounds the memory that a faulty node can fill.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// The unread data that a scan may have. It suffices to fill a network with a round trip of a
/// millisecond.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The maximum number of scans on a connection.
const SCANS_MAX: usize = 1024;
/// The largest window that HTTP/2 allows.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

// The other half is for short calls and for scans that were just dropped.
const _: () = assert!(SCANS_MAX as u64 * STREAM_WINDOW_BYTES as u64 <= CONNECTION_WINDOW_BYTES as u64 / 2);

/// The connections to each node.
#[derive(Debug, Default)]
pub(crate) struct ComputeNodes(Mutex<HashMap<String, Vec<Connection>>>);

#[derive(Debug)]
struct Connection {
    channel: Channel,
    scans: Arc<()>,
}

/// The place of a scan on its connection; held as long as the scan lasts.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held, not read")] Arc<()>);

impl Connection {
    fn open(address: &str) -> Result<Connection, Error> {
        let endpoint = endpoint(address)?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Connection { channel: endpoint.connect_lazy(), scans: Arc::default() })
    }

    fn scans(&self) -> usize {
        Arc::strong_count(&self.scans) - 1
    }
}

impl ComputeNodes {
    /// Returns the client of the node at an address, for calls with short answers. Connections to
    /// nodes that the snapshot does not name are closed.
    pub(crate) fn client(&self, address: &str, snapshot: &Snapshot) -> Result<ComputeClient<TracedChannel>, Error> {
        Ok(self.scanning(address, snapshot)?.0)
    }

    /// Does the same as [`ComputeNodes::client`], given the addresses of all nodes.
    pub(crate) fn client_among(&self, address: &str, all: &[&str]) -> Result<ComputeClient<TracedChannel>, Error> {
        Ok(self.connect(address, |known| all.contains(&known))?.0)
    }

    /// Does the same for a scan, which may take any time.
    pub(super) fn scanning(
        &self,
        address: &str,
        snapshot: &Snapshot,
    ) -> Result<(ComputeClient<TracedChannel>, Place), Error> {
        self.connect(address, |known| snapshot.slots.iter().any(|slot| slot.address == known))
    }

    /// Returns the client that sends rows of statements to the node at an address, which is one of
    /// these slots'.
    pub(crate) fn dml(&self, address: &str, slots: &[Slot]) -> Result<DmlClient<TracedChannel>, Error> {
        let (channel, _) = self.channel(address, |known| slots.iter().any(|slot| slot.address == known))?;
        Ok(DmlClient::with_interceptor(channel, Inject))
    }

    fn connect(
        &self,
        address: &str,
        is_node: impl Fn(&str) -> bool,
    ) -> Result<(ComputeClient<TracedChannel>, Place), Error> {
        let (channel, place) = self.channel(address, is_node)?;
        let client = ComputeClient::with_interceptor(channel, Inject);
        Ok((client.max_decoding_message_size(MESSAGE_BYTES_MAX), place))
    }

    fn channel(&self, address: &str, is_node: impl Fn(&str) -> bool) -> Result<(Channel, Place), Error> {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !nodes.contains_key(address) {
            nodes.retain(|known, _| is_node(known));
            nodes.insert(address.to_owned(), Vec::new());
        }
        let connections = nodes.get_mut(address).expect("it is there now");
        let place = match connections.iter().position(|connection| connection.scans() < SCANS_MAX) {
            Some(place) => place,
            None => {
                connections.push(Connection::open(address)?);
                connections.len() - 1
            }
        };
        // Closes idle connections, except for one.
        let mut number = 0;
        connections.retain(|connection| {
            number += 1;
            number <= place + 2 || connection.scans() > 0
        });
        let Connection { channel, scans } = &connections[place];
        Ok((channel.clone(), Place(Arc::clone(scans))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn scans_that_do_not_fit_on_a_connection_get_another_one() {
        let nodes = ComputeNodes::default();
        let snapshot = Snapshot::of_nobody();
        let connections = || nodes.0.lock().expect("no panic")["127.0.0.1:1"].len();
        let scan = || nodes.scanning("127.0.0.1:1", &snapshot).expect("an address").1;
        let first: Vec<Place> = (0..SCANS_MAX).map(|_| scan()).collect();
        assert_eq!(connections(), 1);
        let second: Vec<Place> = (0..=SCANS_MAX).map(|_| scan()).collect();
        assert_eq!(connections(), 3);
        drop((first, second));
        drop(scan());
        assert_eq!(connections(), 2, "one is kept for the next rush");
    }
}
