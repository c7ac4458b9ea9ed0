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

use super::copy::Copying;
use super::respond::{
    Cursor, Watch, check_transaction, cut_names, send_copy, send_description, send_done, send_notices, send_row_tag,
    send_what_is_told, wire_error,
};
use crate::frontend::{Answer, Frontend};
use crate::session::Session;
use crate::write::Pipeline;

pub(super) struct Simple {
    frontend: Arc<Frontend>,
    session: Arc<Session>,
    pipeline: Arc<Pipeline>,
    copying: Arc<Copying>,
}

impl Simple {
    pub(super) fn new(
        frontend: &Arc<Frontend>,
        session: &Arc<Session>,
        pipeline: &Arc<Pipeline>,
        copying: &Arc<Copying>,
    ) -> Simple {
        let (frontend, session) = (Arc::clone(frontend), Arc::clone(session));
        Simple { frontend, session, pipeline: Arc::clone(pipeline), copying: Arc::clone(copying) }
    }

    /// Runs one statement and sends its answer.
    async fn answer<C>(&self, client: &mut C, parsed: Parsed, is_last: bool) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (limits, told) = self.session.begin_telling();
        let mut watch = Watch {
            limits,
            metric: self.frontend.metrics.statement("invalid"),
            span: info_span!("statement", session = self.session.pid(), kind = tracing::field::Empty),
            session: Arc::clone(&self.session),
        };
        let span = watch.span.clone();
        self.session.activity.begins(parsed.sql());
        send_notices(client, &self.session, cut_names(&parsed)).await?;
        let status = check_transaction(client, parsed.ends_transaction());
        let run = self.run(status, parsed, &mut watch).instrument(span);
        match send_what_is_told(client, &self.session, told, run).await? {
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
            Ok(Answer::CopyIn(_)) if !is_last => {
                let message = "COPY FROM STDIN with statements behind it is not supported";
                let error = Error::unsupported(message).with_hint("send them in a text of their own");
                watch.metric.failed(&error.sqlstate);
                Err(wire_error(error))
            }
            Ok(Answer::CopyIn(copy)) => self.copying.begin(client, copy, watch, false).await,
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
            self.frontend.run(&self.session, &limits, &runnable, None, None).await
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
        let limits = self.session.begin_statement();
        limits
            .run(self.frontend.settle(&self.pipeline, &limits))
            .await
            .and_then(|settled| settled)
            .map_err(wire_error)?;
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
        let last = statements.len();
        for (number, parsed) in (1..).zip(statements) {
            self.answer(client, parsed, number == last).await?;
        }
        if let PgWireConnectionState::CopyInProgress(_) = client.state() {
            return Ok(());
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
