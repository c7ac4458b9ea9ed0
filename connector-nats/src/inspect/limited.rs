//! Finds what exceeds limits of the server, the account and the stream.
//!
//! Owns the order in which they are asked: first what the account and the stream tell, then the
//! server, which tells a limit of its own only by refusing a consumer. None is made for that.

use serde_json::json;

use super::{Findings, Severity};
use crate::api::{Api, StreamInfo};
use crate::consumer;
use crate::error::Error;
use crate::limits::{self, AccountInfo};
use crate::options::Options;
use crate::preflight::{Consumers, own_configuration, unique_name};
use crate::retention::{self, Retention};

/// A stream that can be read, and by whom.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) api: &'a Api,
    pub(super) options: &'a Options,
    pub(super) stream: &'a StreamInfo,
    pub(super) retention: Retention,
    pub(super) owner: &'a str,
    pub(super) stored: bool,
}

const TOPIC: &str = "limits";

impl Findings {
    /// Finds the limits that creating the stream exceeds.
    pub(super) async fn limits_of_stream(&mut self, api: &Api, options: &Options) {
        let account = self.account(api).await;
        if let Some(excess) = limits::of_stream(options, account.as_ref()) {
            self.fail(TOPIC, &Error::Limit(excess));
        }
    }

    /// Finds the limits that reading the stream exceeds.
    pub(super) async fn limits(&mut self, subject: Subject<'_>) {
        let before = self.0.len();
        let account = self.account(subject.api).await;
        self.limits_of_consumers(subject, account.as_ref()).await;
        self.limits_of_their_number(subject, account.as_ref()).await;
        if self.0.len() == before {
            self.say(TOPIC, "reading exceeds no limit of the server, the account and the stream".to_owned());
        }
    }

    async fn account(&mut self, api: &Api) -> Option<AccountInfo> {
        let account = api.account_info().await;
        if let Err(error) = &account {
            let text = format!("the limits of the account are not known: {}", weir_common::error::chain(error));
            self.say(TOPIC, text);
        }
        account.ok()
    }

    async fn limits_of_consumers(&mut self, subject: Subject<'_>, account: Option<&AccountInfo>) {
        let Subject { api, options, stream, retention, owner, .. } = subject;
        for split in options.splits() {
            let options = options.of_split(&split);
            let kind = retention::consumer_name(&options, retention, owner);
            let found = match kind.given() {
                // The permission that it needs is looked at elsewhere.
                Some(name) => api.consumer_info(&options.stream, name).await.ok().flatten(),
                None => None,
            };
            let name = unique_name(api);
            let config = match &found {
                Some(found) if consumer::owner(found).is_none() => own_configuration(&found.config, &found.name),
                _ => consumer::wanted(&options, &stream.config, &kind, kind.given().unwrap_or(&name), owner),
            };
            let excesses = limits::of_consumer(&config, &options.stream, stream, account);
            for excess in &excesses {
                self.fail_once(TOPIC, &Error::Limit(excess.clone()));
            }
            if found.is_some() || !excesses.is_empty() {
                continue;
            }
            let mut config = config;
            config.insert("name".to_owned(), json!(name));
            if config.contains_key("durable_name") {
                config.insert("durable_name".to_owned(), json!(name));
            }
            match api.check_consumer(&options.stream, &config).await {
                Err(Error::Limit(excess)) => {
                    let excess = excess.attributed(Some((&options.stream, stream)), account);
                    self.fail_once(TOPIC, &Error::Limit(excess));
                }
                Err(error @ Error::Refused { .. }) if !error.is_queue_overlap() => self.fail_once("consumer", &error),
                _ => {}
            }
        }
    }

    async fn limits_of_their_number(&mut self, subject: Subject<'_>, account: Option<&AccountInfo>) {
        let Subject { api, options, stream, retention, owner, stored } = subject;
        let Some((free, ..)) = limits::free_consumers(&options.stream, stream, account) else { return };
        let Ok(Consumers { missing, anonymous, guards }) = Consumers::of(api, options, retention, owner).await else {
            return;
        };
        if let Some(excess) = limits::of_consumers(missing + guards, &options.stream, stream, account) {
            return self.fail(TOPIC, &Error::Limit(excess));
        }
        let left = free - missing - guards;
        if anonymous > left {
            self.once(
                TOPIC,
                Severity::Warning,
                format!(
                    "{left} further consumers fit: after the loss of a node the server keeps those of its readers for a while, and \
                     reading waits for that"
                ),
            );
        }
        if !stored && left == 0 {
            let text = "no further consumer fits, and each SELECT from the source needs one";
            self.once(TOPIC, Severity::Warning, text.to_owned());
        }
    }
}
