//! A certificate authority, and what it has vouched for.

use std::path::PathBuf;

use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::Server;

pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
    /// Its own certificate, in PEM.
    pub(crate) ca: String,
    pub(crate) client_cert: String,
    pub(crate) client_key: String,
}

fn of_authority() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    names: &[&str],
    usage: ExtendedKeyUsagePurpose,
    key: &KeyPair,
) -> Certificate {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.extended_key_usages = vec![usage];
    params.signed_by(key, issuer).expect("a certificate")
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let ca_key = KeyPair::generate().expect("a key");
        let certificate = of_authority().self_signed(&ca_key).expect("a certificate");
        let issuer = Issuer::new(of_authority(), ca_key);
        let (server_key, client_key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let server_cert = leaf(&issuer, &["127.0.0.1", "localhost"], usage, &server_key).pem();
        let client_cert = leaf(&issuer, &["weir"], ExtendedKeyUsagePurpose::ClientAuth, &client_key).pem();
        let (ca, client_key, server_key) = (certificate.pem(), client_key.serialize_pem(), server_key.serialize_pem());
        for (name, text) in [("ca", &ca), ("cert", &server_cert), ("key", &server_key), ("client-key", &client_key)] {
            std::fs::write(folder.path().join(name), text).expect("the directory is writable");
        }
        Authority { folder, issuer, certificate, ca, client_cert, client_key }
    }

    /// A client's certificate for a key.
    pub(crate) fn vouch(&self, key: &KeyPair) -> Certificate {
        leaf(&self.issuer, &["weir"], ExtendedKeyUsagePurpose::ClientAuth, key)
    }

    /// The same by another authority, for which this one vouches; and that one's certificate.
    pub(crate) fn vouch_through_another(&self, key: &KeyPair) -> (Certificate, Certificate) {
        let other_key = KeyPair::generate().expect("a key");
        let mut params = of_authority();
        params.distinguished_name.push(rcgen::DnType::CommonName, "between");
        let between = params.clone().signed_by(&other_key, &self.issuer).expect("a certificate");
        let issuer = Issuer::new(params, other_key);
        (leaf(&issuer, &["weir"], ExtendedKeyUsagePurpose::ClientAuth, key), between)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An option that names a file with these bytes.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("the directory is writable");
        format!("fs://{}", self.path(name).display())
    }

    /// A server with its certificate and these further settings of TLS.
    pub(crate) async fn server(&self, more: &str) -> Server {
        let (cert, key, ca) = (self.path("cert"), self.path("key"), self.path("ca"));
        Server::start_with(&format!(
            "jetstream {{ store_dir: STORE }}\n\
             tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, {more} }}"
        ))
        .await
    }

    pub(crate) fn client(&self) -> async_nats::ConnectOptions {
        async_nats::ConnectOptions::new().add_root_certificates(self.path("ca"))
    }
}
