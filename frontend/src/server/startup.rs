//! The start-up of a connection. It accepts any user, without a password, and only the database
//! `dev`.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::Sink;
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::{ClientInfo, METADATA_DATABASE, METADATA_USER, PidSecretKeyGenerator};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::DATABASE;

use super::connection::{Admitted, Connections};
use super::respond::fatal;
use crate::frontend::Frontend;
use crate::session::Session;

/// Start-up parameters that are not session variables.
const NO_VARIABLES: [&str; 4] = ["user", "database", "options", "replication"];

pub(super) struct Startup {
    frontend: Arc<Frontend>,
    connections: Arc<Connections>,
    session: Arc<Session>,
    has_place: bool,
    admitted: Mutex<Option<Admitted>>,
}

impl Startup {
    pub(super) fn new(
        frontend: &Arc<Frontend>,
        connections: &Arc<Connections>,
        session: &Arc<Session>,
        has_place: bool,
    ) -> Startup {
        Startup {
            frontend: Arc::clone(frontend),
            connections: Arc::clone(connections),
            session: Arc::clone(session),
            has_place,
            admitted: Mutex::default(),
        }
    }

    fn check(&self, database: &str) -> Result<(), Error> {
        if !self.has_place {
            return Err(Error::user(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
                .with_hint("raise `connections_max` of the frontend, or add a frontend"));
        }
        if database != DATABASE {
            return Err(Error::user(sqlstate::INVALID_CATALOG_NAME, format!("database \"{database}\" does not exist"))
                .with_hint(format!("the only database is \"{DATABASE}\"")));
        }
        Ok(())
    }

    /// Sets the variables that the client sent at start-up. Unknown ones are ignored, except in
    /// `options`.
    fn set_variables(&self, parameters: &HashMap<String, String>) -> Result<(), Error> {
        for (name, value) in parameters {
            let name = name.to_lowercase();
            if NO_VARIABLES.contains(&name.as_str()) || name.starts_with("_pq_.") {
                continue;
            }
            match self.session.variables().set_default(&name, value) {
                Ok(()) => {}
                Err(error) if error.sqlstate == sqlstate::UNDEFINED_OBJECT => {}
                Err(error) => return Err(error),
            }
        }
        for (name, value) in parameters.get("options").into_iter().flat_map(|options| settings(options)) {
            self.session.variables().set_default(&name, &value)?;
        }
        Ok(())
    }
}

/// Parses a client's `options`: `-c name=value` or `--name=value`, where a backslash escapes a
/// space.
fn settings(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for c in options.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            ' ' if !escaped => words.push(String::new()),
            c => words.last_mut().expect("there is a first word").push(c),
        }
        escaped = false;
    }
    let settings = words.iter().filter_map(|word| {
        let setting = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
        let (name, value) = setting.split_once('=')?;
        Some((name.trim().replace('-', "_"), value.to_owned()))
    });
    settings.collect()
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let PgWireFrontendMessage::Startup(startup) = &message else {
            return Ok(());
        };
        protocol_negotiation(client, startup).await?;
        save_startup_parameters_to_metadata(client, startup);
        let user = client.metadata().get(METADATA_USER).cloned();
        let database = client.metadata().get(METADATA_DATABASE).cloned();
        // As in PostgreSQL, the default database has the name of the user.
        let database = database.or_else(|| user.clone()).unwrap_or_default();
        self.check(&database).map_err(fatal)?;
        let (pid, key) = self.connections.keys.generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        self.session.start(user.as_deref(), pid);
        self.set_variables(&startup.parameters.clone().into_iter().collect()).map_err(fatal)?;
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Admitted {
            _registered: self.connections.register(pid, &key, &self.session),
            _metric: self.frontend.metrics.connection(),
        });
        finish_authentication(client, self).await
    }
}

impl ServerParameterProvider for Startup {
    fn server_parameters<C: ClientInfo>(&self, _client: &C) -> Option<HashMap<String, String>> {
        let reported = self.session.variables().reported();
        Some(reported.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn options_of_the_command_line_are_settings() {
        let got = settings(r"-c statement_timeout=5s --search-path=a,\ b -cTimeZone=UTC");
        let expected = [("statement_timeout", "5s"), ("search_path", "a, b"), ("TimeZone", "UTC")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
