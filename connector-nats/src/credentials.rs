//! What Weir proves its identity by, and what it knows servers by: from options to what the client takes.
//!
//! Invariant: no secret is logged, and none is part of an error.

use std::sync::Arc;

use async_nats::rustls::crypto::aws_lc_rs;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, Error as RustlsError, RootCertStore};
use async_nats::{AuthError, ConnectOptions};
use nkeys::KeyPair;

use crate::error::Error;
use crate::options::{Auth, Text, Tls};

/// A byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
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
        Auth::Credential { jwt, nkey } => sign_with(trim(jwt.reveal()).to_owned(), check_seed(nkey.reveal())?),
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
    let reason = "it lacks a JWT or a seed, or the seed is not one";
    Error::MalformedCredentials { option: "creds", reason, expected: CREDS }
}

fn check_seed(seed: &str) -> Result<&str, Error> {
    let seed = trim(seed);
    match KeyPair::from_seed(seed) {
        Ok(_) => Ok(seed),
        Err(_) => {
            let reason = match seed.chars().next() {
                None => "it is empty",
                Some('U') => "it is a public key, and not the seed",
                Some('S') => "it is not complete, or has a wrong character",
                _ => "it is not a seed",
            };
            Err(Error::MalformedCredentials { option: "nkey", reason, expected: SEED })
        }
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
    let mut lines = text.lines().map(trim);
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
                let reason = "a certificate between the lines cannot be read";
                let malformed = |_| Error::MalformedCredentials { option: "tls.ca", reason, expected: CERTIFICATES };
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
    let malformed = |reason| Error::MalformedCredentials { option: "tls.client_key", reason, expected: KEY };
    let key = read_bytes("tls.client_key", key).await?;
    let key = private_key(key).map_err(malformed)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        malformed(match error {
            RustlsError::InconsistentKeys(_) => "it does not belong to the certificate",
            _ => "its kind is not known: it has to be RSA, ECDSA or Ed25519",
        })
    })
}

/// A private key in PEM, of whatever form, or in DER.
fn private_key(bytes: Vec<u8>) -> Result<PrivateKeyDer<'static>, &'static str> {
    if is_der(&bytes) {
        return PrivateKeyDer::try_from(bytes).map_err(|_| "it is in DER, and not a private key");
    }
    let pem = pem(&bytes)?;
    let has = |words: &str| pem.windows(words.len()).any(|part| part == words.as_bytes());
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        if has("ENCRYPTED") {
            "the key is encrypted; `openssl pkey` decrypts it"
        } else if has("-----BEGIN CERTIFICATE") {
            "it holds a certificate, and no key"
        } else {
            "there is no private key in it"
        }
    })
}

/// Certificates in PEM, or one in DER.
async fn certificates(option: &'static str, text: &Text) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read_bytes(option, text).await?;
    if is_der(&bytes) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let malformed = |reason| Error::MalformedCredentials { option, reason, expected: CERTIFICATES };
    let pem = pem(&bytes).map_err(malformed)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(malformed("there is no certificate in it")),
        Err(_) => Err(malformed("a certificate is cut off, or its lines are not base64")),
    }
}

/// Whether it is a structure of ASN.1, as DER is. No text begins so.
fn is_der(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30, 0x80]) || (bytes.first() == Some(&0x30) && bytes.get(1).is_some_and(|byte| *byte > 0x7f))
}

/// PEM without byte order marks, which files have that were joined.
fn pem(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("it is text in UTF-16");
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, tail)) = rest.split_first() {
        match rest.strip_prefix(MARK) {
            Some(tail) => rest = tail,
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    Ok(out)
}

/// Without white space and byte order marks around it.
fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}')
}

async fn read_bytes(option: &'static str, text: &Text) -> Result<Vec<u8>, Error> {
    match text {
        Text::Inline(text) => Ok(text.reveal().as_bytes().to_vec()),
        Text::File(path) => {
            tokio::fs::read(path).await.map_err(|source| Error::File { option, path: path.clone(), source })
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_creds_are_taken_as_editors_leave_them() {
        let pair = KeyPair::new_user();
        let (seed, public) = (pair.seed().expect("a seed"), pair.public_key());
        for written in [seed.clone(), format!("\u{feff}{seed}\r\n"), format!("  {seed}\t \n\n")] {
            assert_eq!(check_seed(&written).expect("a seed"), seed);
        }
        let reason = |text: &str| check_seed(text).expect_err("no seed").to_string();
        assert!(reason(&public).ends_with("it is a public key, and not the seed"));
        assert!(reason("").ends_with("it is empty"));
        let lines = [
            "\u{feff}-----BEGIN NATS USER JWT-----",
            "e30.e30.x  ",
            "------END NATS USER JWT------",
            "",
            "-----BEGIN USER NKEY SEED-----",
            &seed,
        ];
        for end in ["\n", "\r\n"] {
            assert_eq!(parse_creds(&lines.join(end)), Some(("e30.e30.x", seed.as_str())));
        }
    }

    #[test]
    fn keys_are_refused_for_what_they_are() {
        for (text, reason) in [
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "the key is encrypted; `openssl pkey` decrypts it",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it holds a certificate, and no key"),
            ("no key", "there is no private key in it"),
        ] {
            assert_eq!(private_key(text.as_bytes().to_vec()).expect_err(text), reason);
        }
        assert_eq!(private_key(vec![0xff, 0xfe, 0]).expect_err("UTF-16"), "it is text in UTF-16");
        let marked = "text before\r\n\u{feff}-----BEGIN PRIVATE KEY-----\r\nAAAA\r\n-----END PRIVATE KEY-----\r\n";
        assert!(matches!(private_key(marked.as_bytes().to_vec()), Ok(PrivateKeyDer::Pkcs8(_))));
    }
}
