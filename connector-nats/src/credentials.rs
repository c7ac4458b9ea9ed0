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
const CERTIFICATES: &str =
    "it holds certificates in PEM, between BEGIN CERTIFICATE and END CERTIFICATE lines, or its file one in DER";
const KEY: &str = "it holds a private key in PEM or its file one in DER, the one that belongs to \"tls.client_cert\"";
/// How encrypted keys, and bundles of them with certificates, say in DER by which method: of PKCS#5
/// and PKCS#12.
const ENCRYPTED: [&[u8]; 2] = [b"\x2a\x86\x48\x86\xf7\x0d\x01\x05", b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01"];
/// How a bundle of PKCS#7 or PKCS#12 says that it is one.
const BUNDLE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07";

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
                trust(&mut roots, "tls.ca", certificate)?;
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
    for certificate in &chain {
        trust(&mut RootCertStore::empty(), "tls.client_cert", certificate.clone())?;
    }
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

/// Adds a certificate to those that are trusted, if it can be read.
fn trust(roots: &mut RootCertStore, option: &'static str, certificate: CertificateDer<'static>) -> Result<(), Error> {
    let reason = match has_within(&certificate, 40, BUNDLE) {
        true => "it is a bundle of PKCS#7 or PKCS#12; `openssl pkcs7 -print_certs` or `openssl pkcs12` makes PEM of it",
        false => "a certificate in it cannot be read",
    };
    roots.add(certificate).map_err(|_| Error::MalformedCredentials { option, reason, expected: CERTIFICATES })
}

/// True if the first `bytes` of DER contain `part`.
fn has_within(der: &[u8], bytes: usize, part: &[u8]) -> bool {
    der[..der.len().min(bytes)].windows(part.len()).any(|window| window == part)
}

/// A private key in PEM, of whatever form, or in DER.
fn private_key(bytes: Vec<u8>) -> Result<PrivateKeyDer<'static>, &'static str> {
    if is_der(&bytes) {
        if ENCRYPTED.iter().any(|method| has_within(&bytes, 20, method)) {
            return Err("the key is encrypted; `openssl pkey` decrypts it");
        }
        // It begins as keys do.
        if has_within(&bytes, 40, BUNDLE) {
            return Err("it is a bundle of PKCS#12; `openssl pkcs12 -nocerts -noenc` makes PEM of its key");
        }
        return PrivateKeyDer::try_from(bytes).map_err(|_| "it is in DER, and not a private key");
    }
    let pem = pem(&bytes)?;
    let has = |words: &str| pem.windows(words.len()).any(|part| part == words.as_bytes());
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        if has("ENCRYPTED") {
            "the key is encrypted; `openssl pkey` decrypts it"
        } else if has("-----BEGIN CERTIFICATE") {
            "it holds a certificate, and no key"
        } else if has("-----BEGIN OPENSSH") {
            "the key is in OpenSSH's form; `ssh-keygen -p -m PEM` converts it"
        } else if has("-----BEGIN PUBLIC KEY") {
            "it holds a public key, and no private one"
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
        Ok(_) => {
            let has = |words: &str| pem.windows(words.len()).any(|part| part == words.as_bytes());
            Err(malformed(if has("-----BEGIN TRUSTED CERTIFICATE") {
                "the certificate is in OpenSSL's own form; `openssl x509` converts it"
            } else if has("-----BEGIN PKCS7") {
                "it is a bundle of PKCS#7; `openssl pkcs7 -print_certs` makes PEM of it"
            } else {
                "there is no certificate in it"
            }))
        }
        Err(_) => Err(malformed("a certificate is cut off, or its lines are not base64")),
    }
}

/// True for a sequence of ASN.1 that is as long as it says, as DER is. No PEM begins so.
fn is_der(bytes: &[u8]) -> bool {
    match bytes {
        // Short keys, of elliptic curves.
        [0x30, length @ ..0x80, rest @ ..] => rest.len() == usize::from(*length),
        [0x30, ..] => bytes.get(1).is_some_and(|length| *length > 0x7f),
        _ => false,
    }
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
        let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,B0997E14\n\n3nnUzM0e\n\
                      -----END EC PRIVATE KEY-----\n";
        let encrypted = "the key is encrypted; `openssl pkey` decrypts it";
        assert_eq!(private_key(legacy.as_bytes().to_vec()).expect_err("encrypted"), encrypted);
        // The beginnings of what `openssl pkcs8 -topk8 -outform DER` makes, by PBES2 and by
        // PKCS#12's method.
        for begins in [
            &b"\x30\x81\x9b\x30\x57\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d"[..],
            b"\x30\x14\x30\x1c\x06\x0a\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01\x03",
        ] {
            let mut der = begins.to_vec();
            der.resize(22, 0);
            assert_eq!(private_key(der).expect_err("encrypted"), encrypted);
        }
        let marked = "text before\r\n\u{feff}-----BEGIN PRIVATE KEY-----\r\nAAAA\r\n-----END PRIVATE KEY-----\r\n";
        assert!(matches!(private_key(marked.as_bytes().to_vec()), Ok(PrivateKeyDer::Pkcs8(_))));
    }
}
