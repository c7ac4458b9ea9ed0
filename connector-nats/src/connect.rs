//! A connection to NATS whose ups and downs are known, and which outlives its client.
//!
//! Owns: how the client is configured, and what its events become: a [`Link`] that a task can watch. The link counts
//! events, so that none is lost. async-nats reconnects without end, but a client can end: its task panics over headers
//! that it cannot parse, for example. Whoever holds a [`Connection`] then gets another client, and the link counts the
//! end as a loss of the connection. Invariant: nothing here gives up while somebody holds the connection.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerError, rustls};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;
use weir_common::error::chain;

use crate::credentials;
use crate::error::Error;
use crate::options::Options;
use crate::panics;

/// A server's refusal to give the connection another subscription.
pub(crate) const TOO_MANY_SUBSCRIPTIONS: &str = "maximum subscriptions exceeded";
/// A dead peer is noticed after about three of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one server may take to let us in.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(4);
/// What a subscription holds before the client drops messages: several times of what a reader ever requests.
pub(crate) const SUBSCRIPTION_CAPACITY: usize = 262_144;
/// The pause before a further attempt to reconnect doubles up to this.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// A client that lived longer than this is replaced at once, others after a pause that doubles.
const CLIENT_LIFE_MIN: Duration = Duration::from_secs(1);
/// The first pause before a client is replaced.
const REPLACE_DELAY: Duration = Duration::from_millis(10);

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

impl Link {
    /// The link of a connection whose earlier clients counted `before`.
    fn after(&self, before: &Link) -> Link {
        Link {
            losses: before.losses + self.losses,
            overflows: before.overflows + self.overflows,
            denials: before.denials + self.denials,
            denial: if self.denials > 0 { self.denial.clone() } else { before.denial.clone() },
            ..self.clone()
        }
    }
}

/// A client, its successors, and their link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connection {
    clients: watch::Receiver<Client>,
    /// What has become of the connection.
    pub link: watch::Receiver<Link>,
    /// What the subjects of JetStream's API begin with.
    pub api_prefix: Arc<str>,
}

impl Connection {
    /// The client of now. It is not to be kept: when it ends, another one takes its place.
    pub fn client(&self) -> Client {
        self.clients.borrow().clone()
    }
}

/// Connects, trying each server once.
///
/// # Errors
/// If no server answers or the first that answers refuses the credentials.
pub async fn connect(options: &Options, name: &str) -> Result<Connection, Error> {
    start(options, name, false).await
}

/// Hands out a connection at once that goes on trying to connect until it succeeds.
///
/// # Errors
/// If the options cannot be used at all.
pub async fn connect_eventually(options: &Options, name: &str) -> Result<Connection, Error> {
    start(options, name, true).await
}

async fn start(options: &Options, name: &str, eventually: bool) -> Result<Connection, Error> {
    panics::announce_those_of_the_client();
    let (client, own) = client(options, name, eventually).await?;
    let (clients, link) = (watch::Sender::new(client), watch::Sender::new(Link::default()));
    let connection = Connection {
        clients: clients.subscribe(),
        link: link.subscribe(),
        api_prefix: options.api_prefix.as_str().into(),
    };
    let keeper = Keeper { options: options.clone(), name: name.to_owned(), clients, link };
    // It ends with the last holder of the connection, as the tasks of the client itself do.
    tokio::spawn(keeper.run(own));
    Ok(connection)
}

/// The task behind a connection: forwards what becomes of the client, and replaces a client that has ended.
struct Keeper {
    options: Options,
    name: String,
    clients: watch::Sender<Client>,
    link: watch::Sender<Link>,
}

impl Keeper {
    /// `own` is the link of the present client.
    async fn run(self, mut own: watch::Receiver<Link>) {
        let mut before = Link::default();
        let (mut born, mut pause) = (Instant::now(), REPLACE_DELAY);
        loop {
            let changed = tokio::select! {
                biased;
                () = self.clients.closed() => return,
                changed = own.changed() => changed,
            };
            let now = own.borrow_and_update().after(&before);
            if changed.is_ok() {
                self.link.send_replace(now);
                continue;
            }
            // Events are told by the client's own tasks: without these nobody is left who could.
            before =
                Link { connected: false, losses: now.losses + 1, failure: Some("the client ended".to_owned()), ..now };
            info!(connection = self.name, "the NATS client has ended, another one takes its place");
            self.link.send_replace(before.clone());
            pause = if born.elapsed() > CLIENT_LIFE_MIN { REPLACE_DELAY } else { RECONNECT_DELAY_MAX.min(pause * 2) };
            tokio::select! {
                () = self.clients.closed() => return,
                replaced = self.replace(&mut before, pause) => own = replaced,
            }
            born = Instant::now();
        }
    }

    /// Another client, as soon as there is one; its link.
    async fn replace(&self, before: &mut Link, pause: Duration) -> watch::Receiver<Link> {
        loop {
            tokio::time::sleep(pause).await;
            match client(&self.options, &self.name, true).await {
                Ok((client, own)) => {
                    // Before anybody hears that it is connected.
                    self.clients.send_replace(client);
                    return own;
                }
                // Its credentials come from a file, which may be written at this moment.
                Err(error) => {
                    before.failure = Some(chain(&error));
                    self.link.send_replace(before.clone());
                }
            }
        }
    }
}

/// A client, and the link that its own events make. `eventually`: it is handed out before it is connected.
async fn client(options: &Options, name: &str, eventually: bool) -> Result<(Client, watch::Receiver<Link>), Error> {
    let (client_options, link) = client_options(options, name).await?;
    let client_options = if eventually { client_options.retry_on_initial_connect() } else { client_options };
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
    Ok((client, link))
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
            if text.to_ascii_lowercase().contains("permissions violation") || text == TOO_MANY_SUBSCRIPTIONS {
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
