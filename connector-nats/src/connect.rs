//! A connection to NATS whose ups and downs are known.
//!
//! Owns: how the client is configured and what its events become: a [`Link`] that a task can watch and that never
//! loses an event, because it counts them. Invariant: nothing here logs or retries; async-nats reconnects without end.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerError, rustls};
use tokio::sync::watch;

use crate::credentials;
use crate::error::Error;
use crate::options::Options;

/// A dead peer is noticed after about three of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one server may take to let us in.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);
/// What a subscription holds before the client drops messages: several times of what a reader ever requests.
pub(crate) const SUBSCRIPTION_CAPACITY: usize = 262_144;
/// The pause before a further attempt to reconnect doubles up to this.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);

/// What has become of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub connected: bool,
    /// How often it was lost.
    pub losses: u64,
    /// How often a subscription's buffer overflowed and messages were dropped.
    pub overflows: u64,
    /// How often the server denied something.
    pub denials: u64,
    /// The newest denial, in the server's words.
    pub denial: String,
    /// Why the newest attempt to connect failed.
    pub failure: Option<String>,
}

/// A client and its link.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// What has become of it.
    pub link: watch::Receiver<Link>,
    /// What the subjects of JetStream's API begin with.
    pub api_prefix: Arc<str>,
}

/// Connects, trying each server once.
///
/// # Errors
/// If no server answers or the first that answers refuses the credentials.
pub async fn connect(options: &Options, name: &str) -> Result<Connection, Error> {
    let (client_options, link) = client_options(options, name).await?;
    finish(options, client_options, link).await
}

/// Hands out a client at once that goes on trying to connect until it succeeds.
///
/// # Errors
/// If the options cannot be used at all.
pub async fn connect_eventually(options: &Options, name: &str) -> Result<Connection, Error> {
    let (client_options, link) = client_options(options, name).await?;
    finish(options, client_options.retry_on_initial_connect(), link).await
}

async fn finish(
    options: &Options,
    client_options: ConnectOptions,
    link: watch::Receiver<Link>,
) -> Result<Connection, Error> {
    let client = client_options.connect(&options.servers[..]).await.map_err(|source| {
        let servers = options.servers.join(", ");
        match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Error::Credentials { servers }
            }
            _ if is_about_tls(&source) => Error::Tls { servers, source },
            _ => Error::Unreachable { servers, source },
        }
    })?;
    Ok(Connection { client, link, api_prefix: options.api_prefix.as_str().into() })
}

/// Whether the two sides do not agree on how to encrypt, or on whom to trust.
fn is_about_tls(error: &async_nats::ConnectError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // An error of input and output hides what it carries from the chain.
        let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || carried.is_some_and(|carried| carried.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    error.kind() == ConnectErrorKind::Tls
}

async fn client_options(options: &Options, name: &str) -> Result<(ConnectOptions, watch::Receiver<Link>), Error> {
    let (sender, link) = watch::channel(Link::default());
    let sender = Arc::new(sender);
    let mut client = credentials::log_in(&options.auth)
        .await?
        .name(name)
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECTION_TIMEOUT)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        // Every request has its own bound.
        .request_timeout(None)
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::ZERO,
            _ => Duration::from_millis(1 << attempts.min(20)).min(RECONNECT_DELAY_MAX),
        })
        .event_callback(move |event| {
            sender.send_modify(|link| record(link, event));
            std::future::ready(())
        });
    if let Some(tls) = &options.tls {
        client = client.require_tls(true).tls_client_config(credentials::tls(tls).await?);
        if tls.first {
            client = client.tls_first();
        }
    }
    Ok((client, link))
}

fn record(link: &mut Link, event: Event) {
    match event {
        Event::Connected => {
            link.connected = true;
            link.failure = None;
        }
        Event::Disconnected | Event::Closed => {
            link.connected = false;
            link.losses += 1;
        }
        Event::SlowConsumer(_) | Event::ServerError(ServerError::SlowConsumer(_)) => link.overflows += 1,
        Event::ServerError(ServerError::AuthorizationViolation) => {
            link.failure = Some("authorization violation".to_owned());
        }
        Event::ServerError(ServerError::Other(text)) => {
            if text.to_ascii_lowercase().contains("permissions violation") {
                link.denials += 1;
                link.denial = text;
            } else {
                link.failure = Some(text);
            }
        }
        Event::ClientError(ClientError::Other(text)) => link.failure = Some(text),
        Event::ClientError(error) => link.failure = Some(error.to_string()),
        Event::LameDuckMode | Event::Draining => {}
    }
}
