//! The extended protocol: statements are prepared, described, bound to parameters and executed,
//! either whole or a few rows at a time.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use futures::{Sink, SinkExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, send_partial_query_response};
use pgwire::api::results::{FieldInfo, QueryResponse, Response};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, Sync as SyncMessage,
    TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use tracing::{Instrument, info_span};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::parse;

use super::copy::Copying;
use super::respond::{
    Cursor, Watch, check_transaction, cut_names, send_copy, send_description, send_done, send_notices, send_row_tag,
    send_what_is_told, wire_error,
};
use crate::frontend::{Answer, Frontend, Runnable};
use crate::notice::Notice;
use crate::query::bind_parameters;
use crate::results::Columns;
use crate::session::{Limits, Session};
use crate::write::Pipeline;

/// A prepared statement and its columns; `None` if it returns no rows.
#[derive(Debug)]
struct Statement {
    runnable: Runnable,
    columns: Option<Columns>,
    /// Notices for the client, sent when the statement is prepared.
    notices: Vec<Notice>,
}

/// A prepared statement. In a portal, it comes with the values of its parameters.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    statement: Arc<Statement>,
    values: Option<ParamValues>,
}

impl Bound {
    fn parameter_types(&self) -> Vec<Type> {
        self.statement.runnable.query().map_or_else(Vec::new, |prepared| prepared.parameters.wire_types())
    }

    /// Returns `None` if the statement returns no rows.
    fn fields(&self, format: &Format) -> Result<Option<Vec<FieldInfo>>, Error> {
        let columns = self.statement.columns.as_ref();
        columns.map(|columns| columns.described(format)).transpose()
    }

    /// # Errors
    /// `08P01` if the number of formats does not match the parameters or columns, `22023` for an
    /// unknown format code.
    fn check_formats(&self, message: &Bind) -> Result<(), Error> {
        let (formats, parameters) = (message.parameter_format_codes.len(), message.parameters.len());
        if formats > 1 && formats != parameters {
            return Err(violation(format!("bind message has {formats} parameter formats but {parameters} parameters")));
        }
        let formats = message.result_column_format_codes.len();
        if let Some(columns) = &self.statement.columns
            && formats > 1
            && formats != columns.names.len()
        {
            let columns = columns.names.len();
            return Err(violation(format!(
                "bind message has {formats} result formats but query has {columns} columns"
            )));
        }
        let mut codes = message.parameter_format_codes.iter().chain(&message.result_column_format_codes);
        match codes.find(|code| !matches!(code, 0 | 1)) {
            Some(code) => {
                let message = format!("unsupported format code: {code}");
                Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message))
            }
            None => Ok(()),
        }
    }
}

/// Returns the name that clients know: pgwire substitutes [`DEFAULT_NAME`] for the empty name.
fn shown(name: &str) -> &str {
    if name == DEFAULT_NAME { "" } else { name }
}

fn violation(message: String) -> Error {
    Error::user(sqlstate::PROTOCOL_VIOLATION, message)
}

fn no_statement(name: &str) -> PgWireError {
    let message = match name {
        DEFAULT_NAME => "unnamed prepared statement does not exist".to_owned(),
        name => format!("prepared statement \"{name}\" does not exist"),
    };
    wire_error(Error::user(sqlstate::INVALID_SQL_STATEMENT_NAME, message))
}

fn no_portal(name: &str) -> PgWireError {
    let name = shown(name);
    wire_error(Error::user(sqlstate::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist")))
}

pub(super) struct Extended {
    parser: Arc<Preparer>,
    pipeline: Arc<Pipeline>,
    copying: Arc<Copying>,
}

/// Parses and plans the statements that clients prepare.
pub(super) struct Preparer {
    frontend: Arc<Frontend>,
    session: Arc<Session>,
}

impl Extended {
    pub(super) fn new(
        frontend: &Arc<Frontend>,
        session: &Arc<Session>,
        pipeline: &Arc<Pipeline>,
        copying: &Arc<Copying>,
    ) -> Extended {
        let parser = Preparer { frontend: Arc::clone(frontend), session: Arc::clone(session) };
        Extended { parser: Arc::new(parser), pipeline: Arc::clone(pipeline), copying: Arc::clone(copying) }
    }

    /// Runs a portal for the first time, until its answer begins.
    async fn start<C>(&self, client: &mut C, portal: &Portal<Arc<Bound>>) -> PgWireResult<(Answer, Watch)>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Preparer { frontend, session } = self.parser.as_ref();
        let Bound { statement, values } = portal.statement.statement.as_ref();
        let runnable = &statement.runnable;
        let (limits, told) = session.begin_telling();
        let mut watch = Watch {
            limits,
            metric: frontend.metrics.statement(runnable.kind()),
            span: info_span!("statement", session = session.pid(), kind = runnable.kind()),
            session: Arc::clone(session),
        };
        let span = watch.span.clone();
        session.activity.begins(runnable.sql());
        check_transaction(client, runnable.ends_transaction())
            .inspect_err(|error| watch.metric.failed(&error.sqlstate))
            .map_err(wire_error)?;
        let run = Box::pin(frontend.run(session, &watch.limits, runnable, values.as_ref(), Some(&self.pipeline)));
        let run = watch.limits.run(run).instrument(span);
        match send_what_is_told(client, session, told, run).await?.and_then(|answer| answer) {
            Ok(answer) => {
                if !matches!(answer, Answer::Rows(_) | Answer::Copy(..) | Answer::CopyIn(_)) {
                    watch.metric.succeeded();
                }
                Ok((answer, watch))
            }
            Err(error) => {
                watch.metric.failed(&error.sqlstate);
                Err(wire_error(error))
            }
        }
    }

    /// Sends a portal's rows: all of them, or the first `max_rows`; the portal keeps the rest.
    async fn send<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Bound>>,
        cursor: Cursor,
        max_rows: usize,
    ) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let described =
            portal.statement.statement.fields(&portal.result_column_format).map_err(wire_error)?.unwrap_or_default();
        let same_types = described.iter().map(FieldInfo::datatype).eq(cursor.fields.iter().map(FieldInfo::datatype));
        if !same_types {
            return Err(wire_error(Error::unsupported("cached plan must not change result type")));
        }
        let state = portal.state();
        if max_rows == 0 {
            *state.lock().await = PortalExecutionState::Finished;
            let tag = cursor.tag;
            let count = cursor.send(client).await?;
            return send_row_tag(client, tag, count).await;
        }
        let (tag, cursor_fields) = (cursor.tag, Arc::clone(&cursor.fields));
        let rows = cursor.into_stream(Arc::clone(&self.parser.session));
        let mut response = QueryResponse::new(Arc::clone(&cursor_fields), rows);
        response.set_command_tag(tag);
        *state.lock().await = PortalExecutionState::Suspended(response);
        self.fetch(client, portal, self.parser.session.limits(), max_rows).await
    }

    /// Sends more rows of a portal that has already begun.
    async fn resume<C>(&self, client: &mut C, portal: &Portal<Arc<Bound>>, max_rows: usize) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let limits = self.parser.session.begin_statement();
        self.parser.session.activity.begins(portal.statement.statement.statement.runnable.sql());
        self.fetch(client, portal, limits, max_rows).await
    }

    /// Sends some rows of a portal. A failed portal has no more rows.
    async fn fetch<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Bound>>,
        limits: Limits,
        max_rows: usize,
    ) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let state = portal.state();
        let mut state = state.lock().await;
        let PortalExecutionState::Suspended(response) = &mut *state else {
            return send_row_tag(client, "SELECT", 0).await;
        };
        let sent = limits.run(send_partial_query_response(client, response, max_rows)).await;
        match sent.map_err(wire_error).and_then(|sent| sent) {
            Ok(true) => Ok(()),
            Ok(false) => {
                *state = PortalExecutionState::Finished;
                Ok(())
            }
            Err(error) => {
                *state = PortalExecutionState::Finished;
                Err(error)
            }
        }
    }

    async fn execute<C>(&self, client: &mut C, message: &Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Bound>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let max_rows = usize::try_from(message.max_rows).unwrap_or(0);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                return Ok(client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?);
            }
            None => return Err(no_portal(name)),
        };
        if !matches!(*portal.state().lock().await, PortalExecutionState::Initial) {
            if portal.statement.statement.statement.columns.is_none() {
                let message = format!("portal \"{}\" cannot be run", shown(name));
                return Err(wire_error(Error::user(sqlstate::NOT_IN_PREREQUISITE_STATE, message)));
            }
            return self.resume(client, &portal, max_rows).await;
        }
        match self.start(client, &portal).await? {
            (Answer::Rows(mut result), watch) => {
                send_notices(client, &self.parser.session, std::mem::take(&mut result.notices)).await?;
                let cursor = Cursor::new(result, &portal.result_column_format, watch).map_err(wire_error)?;
                self.send(client, &portal, cursor, max_rows).await
            }
            (Answer::Copy(mut result, format), watch) => {
                send_notices(client, &self.parser.session, std::mem::take(&mut result.notices)).await?;
                *portal.state().lock().await = PortalExecutionState::Finished;
                send_copy(client, result, &format, watch).await
            }
            (Answer::CopyIn(copy), watch) => {
                *portal.state().lock().await = PortalExecutionState::Finished;
                self.copying.begin(client, copy, watch, true).await
            }
            (answer, _) => {
                *portal.state().lock().await = PortalExecutionState::Finished;
                send_done(client, &self.parser.session, answer).await
            }
        }
    }
}

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Arc<Bound>;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = parse(sql).map_err(wire_error)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(wire_error(Error::user(sqlstate::SYNTAX_ERROR, message)));
        }
        let Some(parsed) = statements.pop() else {
            return Ok(None);
        };
        check_transaction(client, parsed.ends_transaction()).map_err(wire_error)?;
        let notices = cut_names(&parsed);
        let limits = self.session.begin_statement();
        let prepare = async {
            let (runnable, columns) = self.frontend.prepare(&self.session, &limits, parsed, types).await?;
            let statement = Arc::new(Statement { runnable, columns, notices });
            Ok::<_, Error>(Some(Arc::new(Bound { statement, values: None })))
        };
        let prepared = limits.run(Box::pin(prepare)).await.and_then(|prepared| prepared);
        Ok(prepared
            .inspect_err(|error| self.frontend.metrics.statement("invalid").failed(&error.sqlstate))
            .map_err(wire_error)?)
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameter_types())
    }

    fn get_result_schema(&self, statement: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(statement.fields(format.unwrap_or(&Format::UnifiedText)).map_err(wire_error)?.unwrap_or_default())
    }
}

impl Extended {
    /// Makes a portal from a statement. It parses the values of the parameters now, so that the
    /// client learns of a bad value at Bind.
    fn portal(&self, message: &Bind, stored: &Arc<StoredStatement<Arc<Bound>>>) -> PgWireResult<Portal<Arc<Bound>>> {
        let Bound { statement, .. } = stored.statement.as_ref();
        stored.statement.check_formats(message).map_err(wire_error)?;
        let wanted = statement.runnable.query().map_or(0, |prepared| prepared.parameters.len());
        if message.parameters.len() != wanted {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
                message.parameters.len(),
                message.statement_name.as_deref().unwrap_or_default()
            );
            return Err(wire_error(violation(message)));
        }
        let mut portal = Portal::try_new(message, Arc::clone(stored))?;
        if let Some(prepared) = statement.runnable.query() {
            let values = Some(bind_parameters(&portal, &prepared.parameters).map_err(wire_error)?);
            let bound = Arc::new(Bound { statement: Arc::clone(statement), values });
            portal.statement = Arc::new(StoredStatement::new(stored.id.clone(), bound, Vec::new()));
            portal.parameters = Vec::new();
        }
        Ok(portal)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Arc<Bound>;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        Arc::clone(&self.parser)
    }

    /// Records the statement's name, so that DEALLOCATE finds it.
    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if name == DEFAULT_NAME {
            // Remove the old statement even if the new one turns out to be invalid.
            client.portal_store().rm_statement(name);
        }
        let session = &self.parser.session;
        let shown = message.name.as_deref().unwrap_or_default();
        session.statements().check_free(shown).map_err(wire_error)?;
        let statement = StoredStatement::parse(client, &message, self.query_parser()).await?;
        session.statements().add_protocol(shown).map_err(wire_error)?;
        match statement {
            Some(statement) => {
                send_notices(client, session, statement.statement.statement.notices.clone()).await?;
                client.portal_store().put_statement(Arc::new(statement));
            }
            None => client.portal_store().put_empty_statement(name),
        }
        Ok(client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?)
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        let statement_name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let stored = client.portal_store().get_statement(statement_name).ok_or_else(|| no_statement(statement_name))?;
        let portal = match stored.value() {
            Some(stored) => {
                check_transaction(client, stored.statement.statement.runnable.ends_transaction())
                    .map_err(wire_error)?;
                Some(self.portal(&message, stored)?)
            }
            None if message.parameters.is_empty() => None,
            None => {
                return Err(wire_error(violation("bind message supplies parameters to an empty statement".to_owned())));
            }
        };
        self.parser
            .session
            .cursors()
            .add_portal(message.portal_name.as_deref().unwrap_or_default())
            .map_err(wire_error)?;
        match portal {
            Some(portal) => client.portal_store().put_portal(Arc::new(portal)),
            None => client.portal_store().put_empty_portal(name),
        }
        Ok(client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?)
    }

    /// Also describes SQL cursors, which are portals in PostgreSQL.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let fields = if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            let stored = client.portal_store().get_statement(name).ok_or_else(|| no_statement(name))?;
            let types = stored.value().map_or_else(Vec::new, |stored| stored.statement.parameter_types());
            let types = types.iter().map(Type::oid).collect();
            let description = PgWireBackendMessage::ParameterDescription(ParameterDescription::new(types));
            client.feed(description).await?;
            stored
                .value()
                .map(|stored| stored.statement.fields(&Format::UnifiedText))
                .transpose()
                .map_err(wire_error)?
                .flatten()
        } else {
            match client.portal_store().get_portal(name) {
                Some(Entry::Value(portal)) => {
                    portal.statement.statement.fields(&portal.result_column_format).map_err(wire_error)?
                }
                Some(Entry::Empty) => None,
                None => {
                    let cursor = self.parser.session.cursors().get(name).map_err(|_| no_portal(name))?;
                    Some(cursor.columns.described(&Format::UnifiedText).map_err(wire_error)?)
                }
            }
        };
        match fields {
            Some(fields) => send_description(client, &fields).await,
            None => Ok(client.feed(PgWireBackendMessage::NoData(NoData::new())).await?),
        }
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            self.parser.session.statements().close(name);
            client.portal_store().rm_statement(name);
        } else {
            self.parser.session.cursors().close(name);
            client.portal_store().rm_portal(name);
        }
        Ok(client.feed(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?)
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        self.execute(client, &message).await?;
        if let PgWireConnectionState::QueryInProgress = client.state() {
            client.set_state(PgWireConnectionState::ReadyForQuery);
        }
        Ok(())
    }

    /// Commits what the pipeline has inserted. Closes all portals outside of a transaction block,
    /// so that their snapshots do not stay pinned.
    async fn on_sync<C>(&self, client: &mut C, _message: SyncMessage) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let limits = self.parser.session.begin_statement();
        let settled = limits.run(self.parser.frontend.settle(&self.pipeline, &limits)).await;
        if let Err(error) = settled.and_then(|settled| settled) {
            let info = ErrorInfo::from(wire_error(error));
            client.feed(PgWireBackendMessage::ErrorResponse(info.into())).await?;
            client.set_transaction_status(client.transaction_status().to_error_state());
        }
        if client.transaction_status() == TransactionStatus::Idle {
            client.portal_store().clear_portals();
            self.parser.session.cursors().close_portals();
        } else {
            client.portal_store().rm_portal(DEFAULT_NAME);
        }
        let ready = ReadyForQuery::new(client.transaction_status());
        Ok(client.send(PgWireBackendMessage::ReadyForQuery(ready)).await?)
    }

    /// Never called: [`ExtendedQueryHandler::on_execute`] sends the rows itself, as they arrive.
    async fn do_query<C>(
        &self,
        _client: &mut C,
        _portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(wire_error(Error::internal("portals are executed as they are sent")))
    }
}
