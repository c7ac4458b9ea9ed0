//! The options there are: canonical names, other spellings, which are secret, which are not supported yet.

/// An option: its canonical name and its other spellings.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
}

const fn plain(name: &'static str) -> Known {
    Known { name, aliases: &[] }
}

const fn spelt(name: &'static str, aliases: &'static [&'static str]) -> Known {
    Known { name, aliases }
}

/// Every option that is honoured.
pub(super) const KNOWN: &[Known] = &[
    plain("connector"),
    plain("server_url"),
    plain("subject"),
    plain("stream"),
    plain("allow_create_stream"),
    plain("allow_interest_stream"),
    plain("connect_mode"),
    plain("username"),
    plain("password"),
    plain("jwt"),
    plain("nkey"),
    plain("creds"),
    plain("token"),
    plain("tls.ca"),
    plain("tls.client_cert"),
    plain("tls.client_key"),
    spelt("tls.first", &["tls_first"]),
    plain("jetstream.domain"),
    plain("jetstream.api_prefix"),
    plain("split_by_subject"),
    plain("scan.startup.mode"),
    spelt("scan.startup.timestamp.millis", &["scan.startup.timestamp_millis"]),
    spelt("consumer.opt_start_seq", &["consumer.start_sequence", "scan.startup.sequence"]),
    plain("on_gap"),
    plain("on_new_stream"),
    plain("consumer.durable_name"),
    plain("consumer.name"),
    plain("consumer.description"),
    plain("consumer.deliver_policy"),
    plain("consumer.ack_policy"),
    spelt("consumer.ack_wait.sec", &["consumer.ack_wait"]),
    plain("consumer.max_deliver"),
    plain("consumer.filter_subject"),
    plain("consumer.filter_subjects"),
    plain("consumer.replay_policy"),
    plain("consumer.rate_limit"),
    plain("consumer.sample_frequency"),
    plain("consumer.max_waiting"),
    plain("consumer.max_ack_pending"),
    plain("consumer.headers_only"),
    plain("consumer.max_batch"),
    plain("consumer.max_bytes"),
    spelt("consumer.max_expires.sec", &["consumer.max_expires"]),
    spelt("consumer.inactive_threshold.sec", &["consumer.inactive_threshold"]),
    spelt("consumer.num_replicas", &["consumer.num.replicas"]),
    plain("consumer.memory_storage"),
    spelt("consumer.backoff.sec", &["consumer.backoff"]),
    plain("on_error"),
];

/// Options that mean something, but not yet.
pub(super) const UNSUPPORTED: &[(&str, &str)] =
    &[("consumer.deliver_subject", "it makes a push consumer; Weir reads through pull consumers: leave it out")];

/// The options whose values nobody may be shown, in the spelling of WITH.
pub fn secret_keys() -> &'static [&'static str] {
    &["password", "jwt", "nkey", "creds", "token", "tls.client_key"]
}

/// Every known option in all its spellings.
pub(super) fn spellings() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().flat_map(|known| std::iter::once(known.name).chain(known.aliases.iter().copied()))
}

/// The known option that looks most like `key`, if one looks like it at all.
pub(super) fn closest(key: &str) -> Option<&'static str> {
    let (distance, name) = spellings().map(|name| (similarity(key, name), name)).min()?;
    (distance <= (key.len() / 4).max(1)).then_some(name)
}

/// Edit distance, with a missing `consumer.` before the name counted as one edit.
fn similarity(key: &str, name: &str) -> usize {
    let whole = edit_distance(key, name);
    match name.strip_prefix("consumer.") {
        Some(short) if !key.starts_with("consumer") => whole.min(1 + edit_distance(key, short)),
        _ => whole,
    }
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
