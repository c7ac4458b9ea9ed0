//! What can go wrong between Weir and a NATS server, told apart so that retry policy and users know what to do.

use std::time::Duration;

use weir_common::error::{Kind, chain};
use weir_common::ids::Sequence;
use weir_common::rpc;

use crate::api::Object;
use crate::limits::{self, Excess};
use crate::options::OptionError;

/// A failure of the connector.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// No server answers.
    #[error("cannot connect to NATS at {servers}")]
    Unreachable {
        /// The addresses that were tried.
        servers: String,
        /// Why the last one did not answer.
        source: async_nats::ConnectError,
    },
    /// A server answers and does not let us in.
    #[error("the NATS server at {servers} refuses the credentials")]
    Credentials {
        /// The addresses that were tried.
        servers: String,
    },
    /// Credentials or certificates are not even well-formed.
    #[error("option \"{option}\" is not well-formed: {reason}")]
    MalformedCredentials {
        /// The option that holds them.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// A file that an option names cannot be read.
    #[error("option \"{option}\": cannot read file \"{path}\"")]
    File {
        /// The option.
        option: &'static str,
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The server and Weir do not agree on an encrypted connection.
    #[error("no encrypted connection to NATS at {servers}")]
    Tls {
        /// The addresses that were tried.
        servers: String,
        /// What is wrong.
        source: async_nats::ConnectError,
    },
    /// The server lets us in and forbids what we ask.
    #[error("the NATS server refuses permission {what}: {reason}")]
    Denied {
        /// What was asked.
        what: String,
        /// The server's words.
        reason: String,
    },
    /// The server has no JetStream for this account.
    #[error("JetStream is not enabled for this account of the NATS server")]
    NoJetStream,
    /// There is no such stream.
    #[error("stream \"{stream}\" does not exist: set `allow_create_stream` to true to create a stream")]
    NoStream {
        /// Its name.
        stream: String,
    },
    /// The stream keeps messages by rules that this version does not know.
    #[error("stream \"{stream}\" has retention \"{retention}\", which is not known")]
    Retention {
        /// Its name.
        stream: String,
        /// Its retention policy.
        retention: String,
    },
    /// The stream's messages are deleted when they are acknowledged, and nothing would keep them.
    #[error(
        "stream \"{stream}\" has {retention} retention: what reads it takes its messages away, and a source keeps none"
    )]
    NotStored {
        /// Its name.
        stream: String,
        /// Its retention.
        retention: &'static str,
    },
    /// The stream never holds what the table asks for.
    #[error("stream \"{stream}\" stores no messages under subject \"{subject}\"")]
    NoSubject {
        /// The stream.
        stream: String,
        /// What the table asks for.
        subject: String,
        /// What the stream stores.
        stored: Vec<String>,
        /// What it listens to, if that is something else.
        listens: Option<Vec<String>>,
    },
    /// A consumer is there already and is not what the table needs.
    #[error("consumer \"{consumer}\" {message}")]
    Consumer {
        /// Its name.
        consumer: String,
        /// What is in the way.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The stream is not the one that was read before.
    #[error("stream \"{stream}\" is not the one that was read before: {message}")]
    StreamReplaced {
        /// Its name.
        stream: String,
        /// How that shows.
        message: String,
        /// Whether it may show otherwise a little later.
        certain: bool,
    },
    /// The stream gave more sequences than can be stored.
    #[error("stream \"{stream}\" has reached sequence {last}; sequences above {} cannot be read", Sequence::IN_STREAM_MAX - 1)]
    TooFar {
        /// Its name.
        stream: String,
        /// The last sequence that it gave.
        last: u64,
    },
    /// Another consumer of the work queue has a part in what the table reads.
    #[error("the subjects of the table overlap {} of work queue \"{stream}\"", others(consumers))]
    QueueOverlap {
        /// The stream.
        stream: String,
        /// The other consumers.
        consumers: Vec<String>,
    },
    /// The stream lost messages before they were read, and the table is not to go on without them.
    #[error(
        "stream \"{stream}\" no longer holds sequences {} to {}, which were not read yet", from.0, to.0
    )]
    Gap {
        /// The stream.
        stream: String,
        /// The first sequence that is gone.
        from: Sequence,
        /// The last.
        to: Sequence,
    },
    /// What acknowledges messages is published to a subject that nobody listens to.
    #[error(
        "acknowledgements do not reach consumer \"{consumer}\" of stream \"{stream}\": nobody listens to $JS.ACK.>"
    )]
    AcksUnheard {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// What was acknowledged does not reach the consumer.
    #[error("acknowledgements do not arrive: the ack floor of consumer \"{consumer}\" stands still at {floor}")]
    AcksLost {
        /// The consumer.
        consumer: String,
        /// Up to here everything is acknowledged.
        floor: u64,
    },
    /// The consumer delivers nothing for a while.
    #[error("consumer \"{consumer}\" is paused until {until}")]
    Paused {
        /// The consumer.
        consumer: String,
        /// When it goes on, in the server's notation.
        until: String,
    },
    /// The table needs more than a limit allows.
    #[error("{0}")]
    Limit(Excess),
    /// JetStream refuses a request.
    #[error("JetStream refuses {what}: {description} ({code})")]
    Refused {
        /// What was asked.
        what: String,
        /// The status, as in HTTP.
        status: u16,
        /// JetStream's own code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
    /// Somebody else asks for the consumer's messages at this very time.
    #[error("another reader takes over consumer \"{consumer}\"")]
    Busy {
        /// The consumer.
        consumer: String,
    },
    /// No answer.
    #[error("the NATS server took longer than {} ms {what}", within.as_millis())]
    Timeout {
        /// What was asked.
        what: String,
        /// How long was waited.
        within: Duration,
    },
    /// The connection was lost while something was asked.
    #[error("lost the connection to NATS while trying {what}")]
    Disconnected {
        /// What was asked.
        what: String,
    },
    /// An answer that cannot be read.
    #[error("cannot read what the NATS server answered when asked {what}")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// JetStream's codes that are told apart.
pub(crate) mod code {
    /// `consumer not found`.
    pub(crate) const NO_CONSUMER: u64 = 10014;
    /// `no message found`.
    pub(crate) const NO_MESSAGE: u64 = 10037;
    /// `sequence not found`.
    pub(crate) const NO_SEQUENCE: u64 = 10043;
    /// `JetStream clustering support required`.
    pub(crate) const CLUSTER_REQUIRED: u64 = 10010;
    /// `not currently supported in clustered mode`.
    pub(crate) const NOT_IN_CLUSTER: u64 = 10036;
    /// `replicas > 1 not supported in non-clustered mode`.
    pub(crate) const REPLICAS_UNSUPPORTED: u64 = 10074;
    /// `expected an empty request payload`.
    pub(crate) const PAYLOAD_NOT_EMPTY: u64 = 10038;
    /// `jetstream not enabled for account`.
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    /// `stream not found`.
    pub(crate) const NO_STREAM: u64 = 10059;
    /// `jetstream not enabled`.
    pub(crate) const NOT_ENABLED: u64 = 10076;
    /// `multiple non-filtered consumers not allowed on workqueue stream`.
    pub(crate) const QUEUE_NOT_FILTERED: u64 = 10099;
    /// `filtered consumer not unique on workqueue stream`.
    pub(crate) const QUEUE_OVERLAP: u64 = 10100;
    /// `invalid reset of a consumer`.
    pub(crate) const INVALID_RESET: u64 = 10204;
    /// `maximum consumers limit reached`.
    pub(crate) const TOO_MANY_CONSUMERS: u64 = 10026;
    /// `consumer max ack pending exceeds system limit of {limit}`.
    pub(crate) const ACK_PENDING_EXCEEDED: u64 = 10121;
    /// `consumer max request batch exceeds server limit of {limit}`.
    pub(crate) const REQUEST_BATCH_EXCEEDED: u64 = 10125;
    /// `consumer config replica count exceeds parent stream`.
    pub(crate) const REPLICAS_EXCEEDED: u64 = 10126;
    /// `consumer config replicas must match interest retention stream's replicas`.
    pub(crate) const REPLICAS_DIFFER: u64 = 10134;
    /// `consumer does not exist`, of one that was to be updated.
    pub(crate) const NOT_UPDATED: u64 = 10149;
    /// `consumer inactive threshold exceeds system limit of {limit}`.
    pub(crate) const THRESHOLD_EXCEEDED: u64 = 10153;
    /// `consumer already exists`.
    pub(crate) const CONSUMER_EXISTS: u64 = 10148;
}

impl Error {
    /// What the failure means for whoever met it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Option(_)
            | Error::Credentials { .. }
            | Error::MalformedCredentials { .. }
            | Error::File { .. }
            | Error::Tls { .. }
            | Error::Denied { .. }
            | Error::NoJetStream
            | Error::NoStream { .. }
            | Error::Retention { .. }
            | Error::NoSubject { .. }
            | Error::Consumer { .. }
            | Error::QueueOverlap { .. }
            | Error::NotStored { .. }
            | Error::AcksUnheard { .. }
            | Error::AcksLost { .. }
            | Error::Paused { .. }
            | Error::TooFar { .. }
            | Error::Gap { .. }
            | Error::Limit(_)
            | Error::StreamReplaced { .. } => Kind::User,
            Error::Refused { status, .. } if *status < 500 || self.is_unsupported() => Kind::User,
            Error::Unreachable { source, .. } if source.kind() == async_nats::ConnectErrorKind::ServerParse => {
                Kind::User
            }
            Error::Refused { .. }
            | Error::Unreachable { .. }
            | Error::Busy { .. }
            | Error::Timeout { .. }
            | Error::Disconnected { .. } => Kind::Unavailable,
            Error::Malformed { .. } => Kind::Internal,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Option(error) => error.hint.clone(),
            Error::Unreachable { source, .. } if chain(source).contains("connections exceeded") => Some(
                "raise max_connections of the server or the account: every split needs a connection, and every statement that asks \
                 the server"
                    .to_owned(),
            ),
            Error::Unreachable { .. } => Some("check server_url, and that the server runs and is reachable".to_owned()),
            Error::Credentials { .. } => {
                Some("check connect_mode and the options that belong to it".to_owned())
            }
            Error::MalformedCredentials { expected, .. } => Some((*expected).to_owned()),
            Error::File { .. } => Some("the file has to be there on every node of the cluster".to_owned()),
            Error::Tls { .. } => Some(
                "check \"tls.ca\" and \"tls.client_cert\", that server_url names the server as its certificate does, and \
                 \"tls.first\" if the server wants the handshake first"
                    .to_owned(),
            ),
            Error::Denied { .. } => Some("grant the user this permission in the server's configuration".to_owned()),
            Error::NoJetStream => Some("start the server with JetStream, or use another account".to_owned()),
            Error::Retention { .. } => Some("use a stream with retention limits, workqueue or interest".to_owned()),
            Error::NoSubject { stored, listens: None, .. } => {
                Some(format!("the stream's subjects are {}", stored.join(", ")))
            }
            Error::NoSubject { stored, listens: Some(listens), .. } => Some(format!(
                "the stream transforms subjects: it listens to {}, and stores messages under {}",
                listens.join(", "),
                stored.join(", ")
            )),
            Error::Consumer { hint, .. } => Some(hint.clone()),
            Error::Limit(excess) => Some(excess.hint()),
            Error::NotStored { .. } => Some("use CREATE TABLE".to_owned()),
            Error::Paused { .. } => Some("resume the consumer to read on now".to_owned()),
            Error::AcksUnheard { .. } | Error::AcksLost { .. } => Some(
                "if JetStream is another account's: that account has to export the service \"$JS.ACK.>\", and the user's has to \
                 import it, as it does the API"
                    .to_owned(),
            ),
            Error::QueueOverlap { .. } => Some(
                "a message of a work queue goes to one consumer: choose subjects that no other one filters, or remove it"
                    .to_owned(),
            ),
            Error::Gap { .. } => Some("to go on without them: ALTER TABLE … CONNECTOR WITH (on_gap = 'skip')".to_owned()),
            Error::StreamReplaced { .. } => Some(
                "to read it from its first message, beside the rows that are there: ALTER … CONNECTOR WITH (on_new_stream = 'read')"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// The limit, if one is why JetStream refused a consumer with this configuration.
    pub(crate) fn or_limit(self, config: &Object) -> Error {
        match &self {
            Error::Refused { code, description, .. } => {
                limits::of_refusal(*code, description, config).map_or(self, Error::Limit)
            }
            _ => self,
        }
    }

    pub(crate) fn is_queue_overlap(&self) -> bool {
        matches!(self, Error::Refused { code: code::QUEUE_OVERLAP | code::QUEUE_NOT_FILTERED, .. })
    }

    /// PostgreSQL's code for it, where there is a better one than the kind's.
    fn sqlstate(&self) -> Option<&'static str> {
        match self {
            // invalid_parameter_value
            Error::Option(_) | Error::MalformedCredentials { .. } => Some("22023"),
            // undefined_file
            Error::File { .. } => Some("58P01"),
            // sqlclient_unable_to_establish_sqlconnection
            Error::Unreachable { .. } | Error::Tls { .. } => Some("08001"),
            // invalid_authorization_specification
            Error::Credentials { .. } => Some("28000"),
            // insufficient_privilege
            Error::Denied { .. } | Error::AcksUnheard { .. } => Some("42501"),
            // undefined_object
            Error::NoStream { .. } | Error::NoSubject { .. } => Some("42704"),
            // connection_failure
            Error::Timeout { .. } | Error::Disconnected { .. } => Some("08006"),
            // configuration_limit_exceeded
            Error::Limit(_) => Some("53400"),
            // feature_not_supported
            Error::Refused { .. } if self.is_unsupported() => Some("0A000"),
            // cannot_connect_now
            Error::Refused { status, .. } if *status >= 500 => Some("57P03"),
            _ => None,
        }
    }

    /// Whether the server will never do what was asked, although its status says that it failed.
    fn is_unsupported(&self) -> bool {
        use code::{CLUSTER_REQUIRED, NOT_IN_CLUSTER, REPLICAS_UNSUPPORTED};
        matches!(self, Error::Refused { code: CLUSTER_REQUIRED | NOT_IN_CLUSTER | REPLICAS_UNSUPPORTED, .. })
    }

    pub(crate) fn is_missing_stream(&self) -> bool {
        matches!(self, Error::Refused { code: code::NO_STREAM, .. } | Error::NoStream { .. })
    }

    pub(crate) fn is_missing_consumer(&self) -> bool {
        matches!(self, Error::Refused { code: code::NO_CONSUMER, .. })
    }
}

/// Consumers by name, as part of a sentence.
fn others(consumers: &[String]) -> String {
    match consumers {
        [] => "those of another consumer".to_owned(),
        [one] => format!("those of consumer \"{one}\""),
        many => format!("those of consumers \"{}\"", many.join("\", \"")),
    }
}

impl From<Error> for rpc::Error {
    fn from(error: Error) -> rpc::Error {
        let mut converted = rpc::Error::new(error.kind(), chain(&error));
        converted.hint = error.hint();
        converted.sqlstate = error.sqlstate().map(str::to_owned);
        converted
    }
}
