//! An operator with one account and one user: what `connect_mode = 'credential'` logs in with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

pub(crate) struct Operator {
    /// For the server's configuration file.
    pub(crate) configuration: String,
    /// The user's token.
    pub(crate) jwt: String,
    /// The user's seed.
    pub(crate) seed: String,
    operator: KeyPair,
    account: KeyPair,
    user: KeyPair,
}

/// When everything was signed, in seconds since 1970.
const ISSUED_AT: u64 = 1_700_000_000;

impl Operator {
    pub(crate) fn new() -> Operator {
        Operator::limited(unlimited())
    }

    /// An operator whose account has these limits of JetStream.
    pub(crate) fn limited(jetstream: Value) -> Operator {
        Operator::with(KeyPair::new_operator(), KeyPair::new_account(), &[], jetstream)
    }

    /// The same operator and account with another user; the one that there was is let in no more.
    pub(crate) fn renewed(&self) -> Operator {
        let seed = |pair: &KeyPair| pair.seed().expect("a pair that was made has a seed");
        let copy = |pair: &KeyPair| KeyPair::from_seed(&seed(pair)).expect("its own seed");
        Operator::with(copy(&self.operator), copy(&self.account), &[self.user.public_key()], unlimited())
    }

    fn with(operator: KeyPair, account: KeyPair, revoked: &[String], jetstream: Value) -> Operator {
        let user = KeyPair::new_user();
        let operator_token = token(&operator, &operator, json!({ "type": "operator", "version": 2 }));
        let mut limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        limits.as_object_mut().expect("an object").extend(jetstream.as_object().expect("an object").clone());
        let revocations: serde_json::Map<String, Value> =
            revoked.iter().map(|user| (user.clone(), json!(ISSUED_AT + 1))).collect();
        let claims = json!({ "type": "account", "version": 2, "limits": limits, "revocations": revocations });
        let account_token = token(&operator, &account, claims);
        // JetStream wants a system account beside it.
        let system = KeyPair::new_account();
        let system_token = token(&operator, &system, json!({ "type": "account", "version": 2 }));
        let jwt = token(
            &account,
            &user,
            json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} }),
        );
        let (named, system) = (account.public_key(), system.public_key());
        let configuration = format!(
            "jetstream {{ store_dir: STORE }}\noperator: {operator_token}\nresolver: MEMORY\n\
             system_account: {system}\n\
             resolver_preload: {{ {named}: {account_token}, {system}: {system_token} }}"
        );
        let seed = user.seed().expect("a pair that was just made has a seed");
        Operator { configuration, jwt, seed, operator, account, user }
    }

    /// The text of a `.creds` file.
    pub(crate) fn creds(&self) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.jwt, self.seed
        )
    }
}

fn unlimited() -> Value {
    json!({ "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 })
}

fn token(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let claims = json!({ "jti": sub, "iat": ISSUED_AT, "iss": iss, "sub": sub, "name": "test", "nats": nats });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("the issuer has a seed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
