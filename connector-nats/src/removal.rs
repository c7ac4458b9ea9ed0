//! What DROP TABLE does on the server: it removes the consumers that Weir made for the table, guards included, and keeps
//! those that it found. Invariant: it ends within ten seconds.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::ids::SplitId;

use crate::api::{Api, ConsumerInfo};
use crate::connect;
use crate::consumer;
use crate::error::Error;
use crate::making;
use crate::options::Options;
use crate::retention::{self, Retention};

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
    let (options, stream) = (&options.of_split(split), &options.stream);
    let remove = async {
        let api = Api::new(connect::connect(options, &format!("weir {owner} drop")).await?);
        let retention = match api.stream_info(stream).await {
            Err(Error::NoStream { .. }) => return Ok(Vec::new()),
            info => Retention::of(&info?.config),
        };
        // As it is called where it is a durable whether or not the user named one. One that has no name that others know
        // goes with its reader.
        let name = retention::consumer_name(options, Retention::WorkQueue, owner);
        let name = name.given().unwrap_or_default();
        let mut consumers: Vec<ConsumerInfo> = api.consumer_info(stream, name).await?.into_iter().collect();
        if retention == Some(Retention::Interest) {
            let guards = |info: &ConsumerInfo| retention::guards(info) == Some(name);
            consumers.extend(api.consumers(stream).await?.into_iter().filter(guards));
        }
        let mut removed = Vec::new();
        for info in consumers.into_iter().filter(|info| consumer::owner(info) == Some(owner)) {
            wait_for_farewell(&api, stream, &info).await?;
            if making::retire(&api, stream, &info.name).await? {
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
