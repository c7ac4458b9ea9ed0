//! The simple protocol: a text of statements, each of which is answered before the next one runs.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::portal::Format;
use pgwire::api::query::{SimpleQueryHandler, send_ready_for_query};
use pgwire::api::results::Response;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::EmptyQueryResponse;
use pgwire::messages::simplequery::Query;
use tracing::{Instrument, info_span};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{Parsed, parse};

use super::respond::{
    Cursor, Watch, check_transaction, cut_names, send_copy, send_description, send_done, send_notices, send_row_tag,
    wire_error,
};
use crate::frontend::{Answer, Frontend};
use crate::session::Session;

pub(super) struct Simple {
    frontend: Arc<Frontend>,
    session: Arc<Session>,
}

impl Simple {
    pub(super) fn new(frontend: &Arc<Frontend>, session: &Arc<Session>) -> Simple {
        Simple { frontend: Arc::clone(frontend), session: Arc::clone(session) }
    }

    /// Runs one statement and sends its answer.
    async fn answer<C>(&self, client: &mut C, parsed: Parsed) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut watch = Watch {
            limits: self.session.begin_statement(),
            metric: self.frontend.metrics.statement("invalid"),
            span: info_span!("statement", session = self.session.pid(), kind = tracing::field::Empty),
            session: Arc::clone(&self.session),
        };
        let span = watch.span.clone();
        self.session.activity.begins(parsed.sql());
        send_notices(client, &self.session, cut_names(&parsed)).await?;
        let status = check_transaction(client, parsed.ends_transaction());
        match self.run(status, parsed, &mut watch).instrument(span).await {
            Ok(Answer::Rows(mut result)) => {
                send_notices(client, &self.session, std::mem::take(&mut result.notices)).await?;
                let cursor = Cursor::new(result, &Format::UnifiedText, watch).map_err(wire_error)?;
                send_description(client, &cursor.fields).await?;
                let tag = cursor.tag;
                let count = cursor.send(client).await?;
                send_row_tag(client, tag, count).await
            }
            Ok(Answer::Copy(mut result, format)) => {
                send_notices(client, &self.session, std::mem::take(&mut result.notices)).await?;
                send_copy(client, result, &format, watch).await
            }
            Ok(answer) => {
                watch.metric.succeeded();
                send_done(client, &self.session, answer).await
            }
            Err(error) => {
                watch.metric.failed(&error.sqlstate);
                Err(wire_error(error))
            }
        }
    }

    async fn run(&self, status: Result<(), Error>, parsed: Parsed, watch: &mut Watch) -> Result<Answer, Error> {
        status?;
        let limits = watch.limits.clone();
        let run = async {
            let runnable = self.frontend.read(&self.session, parsed).await?;
            watch.metric.is(runnable.kind());
            watch.span.record("kind", runnable.kind());
            if runnable.query().is_some_and(|prepared| !prepared.parameters.is_empty()) {
                return Err(Error::user(sqlstate::UNDEFINED_PARAMETER, "there is no parameter $1"));
            }
            self.frontend.run(&self.session, &limits, &runnable, None).await
        };
        limits.run(Box::pin(run)).await?
    }
}

#[async_trait]
impl SimpleQueryHandler for Simple {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        // As in PostgreSQL, a simple query ends the unnamed portal and statement of the extended
        // protocol.
        client.portal_store().rm_portal(DEFAULT_NAME);
        client.portal_store().rm_statement(DEFAULT_NAME);
        let statements = parse(&query.query)
            .inspect_err(|error| {
                self.frontend.metrics.statement("invalid").failed(&error.sqlstate);
            })
            .map_err(wire_error)?;
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for parsed in statements {
            self.answer(client, parsed).await?;
        }
        client.set_state(PgWireConnectionState::ReadyForQuery);
        send_ready_for_query(client, client.transaction_status()).await
    }

    /// Never called: [`SimpleQueryHandler::on_query`] answers each statement itself.
    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(wire_error(Error::internal("statements are answered one by one")))
    }
}
