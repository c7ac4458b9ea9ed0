//! The options that say how a server is reached: where it is, who Weir is, and what TLS and JetStream's API look like there.

use std::fmt;

use super::value::Values;
use super::{OptionError, Secret};

/// Where a text is a file's rather than the option's own.
const FILE_SCHEME: &str = "fs://";
/// The subjects of JetStream's API, unless a domain or a prefix says otherwise.
const API_PREFIX: &str = "$JS.API";

/// A text that stands in the option itself, or in a file of each node that connects.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    /// The text.
    Inline(Secret),
    /// An absolute path.
    File(String),
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Inline(secret) => secret.fmt(f),
            Text::File(path) => write!(f, "{FILE_SCHEME}{path}"),
        }
    }
}

/// How Weir proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `connect_mode = 'plain'`: not at all, or by the client certificate.
    Plain,
    /// `connect_mode = 'user_and_password'`.
    UserAndPassword {
        /// The user's name.
        username: String,
        /// The user's password.
        password: Secret,
    },
    /// `connect_mode = 'credential'`.
    Credential {
        /// The user's JSON Web Token.
        jwt: Secret,
        /// The seed that signs the server's nonce.
        nkey: Secret,
    },
    /// `connect_mode = 'creds'`: what a `.creds` file holds, a JSON Web Token and a seed.
    Creds(Text),
    /// `connect_mode = 'nkey'`: the seed that signs the server's nonce.
    Nkey(Secret),
    /// `connect_mode = 'token'`.
    Token(Secret),
}

/// How the connection is encrypted. Without any of it the server decides whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificates, in PEM, that vouch for the server; nothing: those that the system trusts.
    pub ca: Option<Text>,
    /// The client's certificate and its key, in PEM.
    pub client: Option<(Text, Text)>,
    /// Whether the handshake comes before anything else.
    pub first: bool,
}

/// The modes, each with the options that it needs.
const MODES: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("user_and_password", &["username", "password"]),
    ("credential", &["jwt", "nkey"]),
    ("creds", &["creds"]),
    ("nkey", &["nkey"]),
    ("token", &["token"]),
];

pub(super) fn parse_servers(values: &Values<'_>) -> Result<Vec<String>, OptionError> {
    let option = "server_url";
    let servers = values.list(option)?.ok_or_else(|| Values::missing(option))?;
    for server in &servers {
        let (scheme, address) = server.split_once("://").unwrap_or(("nats", server));
        if !matches!(scheme, "nats" | "tls") {
            return Err(OptionError::new(option, format!("\"{scheme}\" is no scheme of NATS servers"))
                .with_hint("write host:port, nats://host:port or tls://host:port"));
        }
        if address.contains('@') {
            return Err(OptionError::new(option, "credentials do not belong into the URL")
                .with_hint("use connect_mode = 'user_and_password' with username and password"));
        }
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if address.is_empty() || address.contains(char::is_whitespace) || matches!(port, Some(Err(_))) {
            return Err(OptionError::new(option, format!("\"{server}\" is no server's address"))
                .with_hint("write host:port; separate several by commas"));
        }
    }
    Ok(servers)
}

pub(super) fn parse_auth(values: &Values<'_>) -> Result<Auth, OptionError> {
    let written = values.text("connect_mode")?.unwrap_or("plain");
    let Some((mode, needed)) = MODES.iter().find(|(mode, _)| mode.eq_ignore_ascii_case(written)) else {
        let names: Vec<&str> = MODES.iter().map(|(mode, _)| *mode).collect();
        return Err(values.not_one_of("connect_mode", written, &names));
    };
    for (_, option) in MODES.iter().flat_map(|(mode, options)| options.iter().map(move |option| (mode, *option))) {
        if let (false, Some(spelt)) = (needed.contains(&option), values.spelling(option)) {
            let belongs: Vec<String> = MODES
                .iter()
                .filter(|(_, options)| options.contains(&option))
                .map(|(mode, _)| format!("connect_mode = '{mode}'"))
                .collect();
            return Err(OptionError::new(spelt, format!("conflicts with connect_mode = '{written}'"))
                .with_hint(format!("\"{option}\" belongs to {}", belongs.join(" or "))));
        }
    }
    let needed = |option: &str| {
        values.text(option)?.map(str::to_owned).ok_or_else(|| {
            OptionError::new(option, "is missing").with_hint(format!("connect_mode = '{mode}' needs \"{option}\""))
        })
    };
    Ok(match *mode {
        "user_and_password" => {
            Auth::UserAndPassword { username: needed("username")?, password: Secret(needed("password")?) }
        }
        "credential" => Auth::Credential { jwt: Secret(needed("jwt")?), nkey: Secret(needed("nkey")?) },
        "creds" => Auth::Creds(parse_text("creds", needed("creds")?)?),
        "nkey" => Auth::Nkey(Secret(needed("nkey")?)),
        "token" => Auth::Token(Secret(needed("token")?)),
        _ => Auth::Plain,
    })
}

/// What `tls.…` says; nothing if it says nothing.
pub(super) fn parse_tls(values: &Values<'_>) -> Result<Option<Tls>, OptionError> {
    let text = |option: &str| match values.text(option)? {
        Some(text) => parse_text(option, text.to_owned()).map(Some),
        None => Ok(None),
    };
    let (ca, certificate, key) = (text("tls.ca")?, text("tls.client_cert")?, text("tls.client_key")?);
    let first = values.bool("tls.first")?;
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(OptionError::new("tls.client_key", "is missing").with_hint(
                "a certificate proves nothing without its key: \"tls.client_cert\" needs \"tls.client_key\"",
            ));
        }
        (None, Some(_)) => {
            return Err(OptionError::new("tls.client_cert", "is missing")
                .with_hint("\"tls.client_key\" needs the certificate that belongs to it, \"tls.client_cert\""));
        }
    };
    let says_something = ca.is_some() || client.is_some() || first.is_some();
    Ok(says_something.then(|| Tls { ca, client, first: first.unwrap_or(false) }))
}

/// Where JetStream's API is found: `$JS.API`, `$JS.<domain>.API`, or a prefix of the user's.
pub(super) fn parse_api_prefix(values: &Values<'_>) -> Result<String, OptionError> {
    let (domain, prefix) = (values.text("jetstream.domain")?, values.text("jetstream.api_prefix")?);
    let valid = |option: &str, text: &str, expected: &str| {
        let token = |token: &str| !token.is_empty() && !token.contains([' ', '\t', '\r', '\n', '*', '>']);
        if text.split('.').all(token) { Ok(()) } else { Err(values.malformed(option, text, expected)) }
    };
    match (domain, prefix) {
        (Some(_), Some(_)) => Err(values.conflict("jetstream.domain", "jetstream.api_prefix")),
        (Some(domain), None) => {
            valid("jetstream.domain", domain, "a domain: one token of a subject")?;
            if domain.contains('.') {
                return Err(values.malformed("jetstream.domain", domain, "a domain: one token of a subject"));
            }
            Ok(format!("$JS.{domain}.API"))
        }
        (None, Some(prefix)) => {
            let prefix = prefix.trim_end_matches('.');
            valid("jetstream.api_prefix", prefix, "a prefix: a subject without wildcards")?;
            Ok(prefix.to_owned())
        }
        (None, None) => Ok(API_PREFIX.to_owned()),
    }
}

fn parse_text(option: &str, text: String) -> Result<Text, OptionError> {
    match text.strip_prefix(FILE_SCHEME) {
        None => Ok(Text::Inline(Secret(text))),
        Some(path) if path.starts_with('/') => Ok(Text::File(path.to_owned())),
        Some(path) => Err(OptionError::new(option, format!("\"{path}\" is no absolute path"))
            .with_hint("write fs:///absolute/path, or the text itself")),
    }
}
