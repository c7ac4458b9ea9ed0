//! Certificates and keys in the forms that other clients take, against a server that checks them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use weir_connector_nats::error::Error;
use weir_connector_nats::preflight;

use crate::support::{Authority, OWNER, Server, options};

fn pem(label: &str, der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let lines: Vec<&str> = encoded.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The first element of DER, its contents, and what follows it.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, first) = (der[0], usize::from(der[1]));
    let (begins, length) = match first {
        0..0x80 => (2, first),
        _ => {
            let ends = 2 + (first & 0x7f);
            (ends, der[2..ends].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
    };
    (tag, &der[begins..begins + length], &der[begins + length..])
}

/// A key as it stood before there was PKCS#8, which holds it.
fn inner(pkcs8: &[u8]) -> Vec<u8> {
    let (_, mut rest, _) = element(pkcs8);
    loop {
        let (tag, contents, behind) = element(rest);
        if tag == 4 {
            return contents.to_vec();
        }
        rest = behind;
    }
}

async fn let_in(server: &Server, ca: &str, cert: &str, key: &str) -> Result<(), Error> {
    let pairs = [("tls.ca", ca), ("tls.client_cert", cert), ("tls.client_key", key), ("allow_create_stream", "true")];
    preflight(&options(server.port, &pairs), OWNER).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_taken_in_every_form() {
    let authority = Authority::new();
    let server = authority.server("verify: true").await;
    for (algorithm, before) in [
        (&PKCS_ECDSA_P256_SHA256, Some("EC PRIVATE KEY")),
        (&PKCS_ECDSA_P384_SHA384, Some("EC PRIVATE KEY")),
        (&PKCS_RSA_SHA256, Some("RSA PRIVATE KEY")),
        (&PKCS_ED25519, None),
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = authority.vouch(&key);
        let mut forms = vec![
            ("PKCS#8", key.serialize_pem()),
            ("PKCS#8 in DER", authority.file("pkcs8.der", key.serialize_der())),
            ("behind a certificate", format!("{}{}", certificate.pem(), key.serialize_pem())),
        ];
        if let Some(label) = before {
            let key = inner(&key.serialize_der());
            let parameters = pem("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07");
            forms.push(("before PKCS#8", pem(label, &key)));
            forms.push(("behind its parameters", format!("{parameters}{}", pem(label, &key))));
            forms.push(("before PKCS#8, in DER", authority.file("key.der", &key)));
        }
        let der = authority.file("cert.der", certificate.der());
        for (form, key) in forms {
            for certificate in [&certificate.pem(), &der] {
                let entered = let_in(&server, &authority.ca, certificate, &key).await;
                assert!(entered.is_ok(), "{algorithm:?}, {form}: {entered:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_taken_in_every_form() {
    let authority = Authority::new();
    let server = authority.server("verify: true").await;
    let key = KeyPair::generate().expect("a key");
    let (certificate, between) = authority.vouch_through_another(&key);
    let marked =
        format!("\u{feff}Bag Attributes\r\n{}\r\n\u{feff}{}", certificate.pem(), between.pem()).replace('\n', "\r\n");
    let several = format!("# others\n{}{}{}", Authority::new().ca, authority.ca, Authority::new().ca);
    let der = authority.file("ca.der", authority.certificate.der());
    for ca in [&authority.ca, &several, &authority.file("several.pem", &several), &der] {
        for chain in [&format!("{}{}", certificate.pem(), between.pem()), &marked] {
            let entered = let_in(&server, ca, chain, &key.serialize_pem()).await;
            assert!(entered.is_ok(), "{ca}, {chain}: {entered:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_certificate_or_key_is_refused_for_what_it_is() {
    let authority = Authority::new();
    let server = authority.server("verify: true").await;
    // As `openssl pkcs12` and `openssl crl2pkcs7` begin what they make.
    let bundle =
        [&b"\x30\x82\x00\x20\x02\x01\x03\x30\x1b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"[..], &[0; 16]].concat();
    let bundle = authority.file("bundle.p12", bundle);
    let trusted = authority.ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let open_ssh = pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\0");
    let public = pem("PUBLIC KEY", b"\x30\x00");
    let broken = authority.file("broken.der", b"\x30\x02\x05\x00");
    for (option, value, reason) in [
        ("tls.ca", bundle.as_str(), "bundle of PKCS#7 or PKCS#12"),
        ("tls.ca", &trusted, "openssl x509"),
        ("tls.ca", &authority.client_key, "there is no certificate in it"),
        ("tls.ca", &broken, "a certificate in it cannot be read"),
        ("tls.client_cert", &bundle, "bundle of PKCS#7 or PKCS#12"),
        ("tls.client_cert", &broken, "a certificate in it cannot be read"),
        ("tls.client_cert", &authority.client_key, "there is no certificate in it"),
        ("tls.client_key", &bundle, "bundle of PKCS#12"),
        ("tls.client_key", &open_ssh, "ssh-keygen"),
        ("tls.client_key", &public, "a public key"),
        ("tls.client_key", &authority.client_cert, "it holds a certificate, and no key"),
        ("tls.client_key", &broken, "it is in DER, and not a private key"),
    ] {
        let pairs = [
            ("tls.ca", authority.ca.as_str()),
            ("tls.client_cert", &authority.client_cert),
            ("tls.client_key", &authority.client_key),
            (option, value),
        ];
        let refused = preflight(&options(server.port, &pairs), OWNER).await.expect_err("it is none").to_string();
        assert!(refused.contains(option) && refused.contains(reason), "{refused}");
    }
}
