//! What Weir proves its identity by, and what it knows servers by: from options to what the client takes.
//!
//! Invariant: no secret is logged, and none is part of an error.

use std::sync::Arc;

use async_nats::rustls::crypto::aws_lc_rs;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{AuthError, ConnectOptions};
use nkeys::KeyPair;

use crate::error::Error;
use crate::options::{Auth, Text, Tls};

const SEED: &str = "it is the seed of a user, which begins with SU";
const CREDS: &str = "it holds a user's JWT and the seed that belongs to it, each between its BEGIN and END lines";
const CERTIFICATES: &str = "it holds certificates in PEM, between BEGIN CERTIFICATE and END CERTIFICATE lines";
const KEY: &str = "it holds a private key in PEM, the one that belongs to \"tls.client_cert\"";

/// The options of a client that logs in.
///
/// # Errors
/// If what proves the identity is not well-formed, or its file cannot be read.
pub(crate) async fn log_in(auth: &Auth) -> Result<ConnectOptions, Error> {
    let options = ConnectOptions::new();
    Ok(match auth {
        Auth::Plain => options,
        Auth::UserAndPassword { username, password } => {
            options.user_and_password(username.clone(), password.reveal().to_owned())
        }
        Auth::Token(token) => options.token(token.reveal().to_owned()),
        Auth::Nkey(seed) => options.nkey(check_seed(seed.reveal())?.to_owned()),
        Auth::Credential { jwt, nkey } => sign_with(jwt.reveal().trim().to_owned(), check_seed(nkey.reveal())?),
        Auth::Creds(text) => {
            let creds = read("creds", text).await?;
            let (jwt, seed) = parse_creds(&creds).ok_or_else(malformed_creds)?;
            match text {
                Text::Inline(_) => sign_with(jwt.to_owned(), seed),
                Text::File(path) => sign_with_file(path.clone()),
            }
        }
    })
}

fn malformed_creds() -> Error {
    Error::MalformedCredentials { option: "creds", expected: CREDS }
}

fn check_seed(seed: &str) -> Result<&str, Error> {
    let seed = seed.trim();
    match KeyPair::from_seed(seed) {
        Ok(_) => Ok(seed),
        Err(_) => Err(Error::MalformedCredentials { option: "nkey", expected: SEED }),
    }
}

fn sign_with(jwt: String, seed: &str) -> ConnectOptions {
    let seed = seed.to_owned();
    ConnectOptions::with_auth_callback(move |nonce| std::future::ready(answer(&jwt, &seed, &nonce)))
}

/// The file is read again for every connection, so that credentials can be renewed while a table is read.
fn sign_with_file(path: String) -> ConnectOptions {
    ConnectOptions::with_auth_callback(move |nonce| {
        let path = path.clone();
        async move {
            let creds = tokio::fs::read_to_string(&path).await.map_err(AuthError::new)?;
            let (jwt, seed) = parse_creds(&creds).ok_or_else(|| AuthError::new(CREDS))?;
            answer(jwt, seed, &nonce)
        }
    })
}

fn answer(jwt: &str, seed: &str, nonce: &[u8]) -> Result<async_nats::Auth, AuthError> {
    let mut auth = async_nats::Auth::new();
    auth.signature = Some(KeyPair::from_seed(seed).and_then(|pair| pair.sign(nonce)).map_err(AuthError::new)?);
    auth.jwt = Some(jwt.to_owned());
    Ok(auth)
}

/// JWT and seed of a `.creds` file: the lines behind its first two BEGIN lines.
fn parse_creds(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines().map(str::trim);
    let mut next = || {
        lines.find(|line| line.starts_with("-----BEGIN"))?;
        lines.next().filter(|line| !line.is_empty())
    };
    let (jwt, seed) = (next()?, next()?);
    KeyPair::from_seed(seed).is_ok().then_some((jwt, seed))
}

/// How the client encrypts. Like the client's own configuration, but for PEM that stands in an option.
///
/// # Errors
/// If certificates or key are not well-formed, or a file cannot be read.
pub(crate) async fn tls(tls: &Tls) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(ca) => {
            for certificate in certificates("tls.ca", ca).await? {
                let malformed = |_| Error::MalformedCredentials { option: "tls.ca", expected: CERTIFICATES };
                roots.add(certificate).map_err(malformed)?;
            }
        }
        None => {
            let trusted = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
            roots.add_parsable_certificates(trusted.map(|trusted| trusted.certs).unwrap_or_default());
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("tls.client_cert", certificate).await?;
    let malformed = || Error::MalformedCredentials { option: "tls.client_key", expected: KEY };
    let pem = read("tls.client_key", key).await?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    builder.with_client_auth_cert(chain, key).map_err(|_| malformed())
}

async fn certificates(option: &'static str, text: &Text) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(option, text).await?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::MalformedCredentials { option, expected: CERTIFICATES }),
    }
}

async fn read(option: &'static str, text: &Text) -> Result<String, Error> {
    match text {
        Text::Inline(text) => Ok(text.reveal().to_owned()),
        Text::File(path) => {
            tokio::fs::read_to_string(path).await.map_err(|source| Error::File { option, path: path.clone(), source })
        }
    }
}
