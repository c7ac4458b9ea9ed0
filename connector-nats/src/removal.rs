//! What DROP TABLE does on the server: it removes the consumers that Weir made for the table, guards included, and keeps
//! those that it found. Invariant: it ends within [`DEADLINE`].

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_common::ids::SplitId;

use crate::api::{Api, ConsumerInfo};
use crate::connect;
use crate::consumer;
use crate::error::Error;
use crate::options::Options;
use crate::retention::{self, GUARD_KEY, Retention};

/// The longest that DROP TABLE waits for the server.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the table's reader may take to send its last acknowledgements and to end.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often is looked whether it has.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Removes the consumers of a dropped table that Weir made for this owner; their names. Waits a little for the reader to
/// end, so that what is committed is acknowledged before.
///
/// # Errors
/// If the server cannot be asked. What remains costs the server memory, and under Interest retention messages.
pub async fn remove_consumers(options: &Options, split: &SplitId, owner: &str) -> Result<Vec<String>, Error> {
    let remove = async {
        let api = Api::new(connect::connect(options, &format!("weir {owner} drop")).await?);
        let consumers = match api.consumers(&split.0).await {
            Err(error) if error.is_missing_stream() => return Ok(Vec::new()),
            consumers => consumers?,
        };
        // As it is called where it is a durable whether or not the user named one. One that has no name that others know
        // goes with its reader.
        let name = retention::consumer_name(options, Retention::WorkQueue, owner);
        let is_the_tables = |info: &ConsumerInfo| {
            let guards = info.config.get("metadata").and_then(|metadata| metadata.get(GUARD_KEY));
            let named = [Some(info.name.as_str()), guards.and_then(Value::as_str)].contains(&name.given());
            named && consumer::owner(info) == Some(owner)
        };
        let mut removed = Vec::new();
        for info in consumers.into_iter().filter(is_the_tables) {
            wait_for_farewell(&api, &split.0, &info).await?;
            if api.delete_consumer(&split.0, &info.name).await? {
                removed.push(info.name);
            }
        }
        Ok(removed)
    };
    match tokio::time::timeout(DEADLINE, Box::pin(remove)).await {
        Ok(result) => result,
        Err(_) => {
            let what = format!("to delete the consumers of {owner}");
            Err(Error::Timeout { what, within: DEADLINE })
        }
    }
}

/// A reader that ends sends its acknowledgements first, and then gives its pull requests up.
async fn wait_for_farewell(api: &Api, stream: &str, consumer: &ConsumerInfo) -> Result<(), Error> {
    let until = Instant::now() + FAREWELL;
    let mut pending = None;
    while Instant::now() < until {
        let Some(info) = api.consumer_info(stream, &consumer.name).await? else { break };
        let settled = info.num_waiting == 0 && pending == Some(info.num_ack_pending);
        if settled || (info.num_waiting == 0 && info.num_ack_pending == 0) {
            break;
        }
        pending = Some(info.num_ack_pending);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}
