//! The extended protocol: statements that are prepared, described, bound to parameters, and executed, whole or some
//! rows at a time.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, send_partial_query_response};
use pgwire::api::results::{
    DescribePortalResponse, DescribeResponse, DescribeStatementResponse, FieldInfo, QueryResponse, Response,
};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::extendedquery::{
    Close, CloseComplete, Execute, Parse, ParseComplete, Sync as SyncMessage, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use tracing::{Instrument, info_span};

use super::respond::{Cursor, Watch, check_transaction, send_copy, send_done, send_notices, send_row_tag, wire_error};
use crate::encode::describe;
use crate::error::{Error, sqlstate};
use crate::frontend::{Answer, Frontend, Runnable};
use crate::parser::parse;
use crate::query::{Columns, bind_parameters};
use crate::session::{Limits, Session};

/// A prepared statement and its columns; none if it returns no rows.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    runnable: Runnable,
    columns: Option<Columns>,
}

impl Statement {
    fn parameter_types(&self) -> Vec<Type> {
        self.runnable.query().map_or_else(Vec::new, |prepared| prepared.parameters.wire_types())
    }

    fn fields(&self, format: &Format) -> Result<Vec<FieldInfo>, Error> {
        self.columns.as_ref().map_or(Ok(Vec::new()), |columns| describe(&columns.schema, &columns.names, format))
    }
}

pub(super) struct Extended {
    parser: Arc<Preparer>,
}

/// Parses and plans what clients prepare.
pub(super) struct Preparer {
    frontend: Arc<Frontend>,
    session: Arc<Session>,
}

impl Extended {
    pub(super) fn new(frontend: &Arc<Frontend>, session: &Arc<Session>) -> Extended {
        let parser = Preparer { frontend: Arc::clone(frontend), session: Arc::clone(session) };
        Extended { parser: Arc::new(parser) }
    }

    /// Runs a portal for the first time, up to its first rows.
    async fn start<C>(&self, client: &C, portal: &Portal<Arc<Statement>>) -> PgWireResult<(Answer, Watch)>
    where
        C: ClientInfo,
    {
        let Preparer { frontend, session } = self.parser.as_ref();
        let runnable = &portal.statement.statement.runnable;
        let mut watch = Watch {
            limits: session.begin_statement(),
            metric: frontend.metrics.statement(runnable.kind()),
            span: info_span!("statement", session = session.pid(), kind = runnable.kind()),
        };
        let span = watch.span.clone();
        let values = check_transaction(client, runnable.ends_transaction())
            .map_err(PgWireError::from)
            .and_then(|()| runnable.query().map(|prepared| bind_parameters(portal, &prepared.parameters)).transpose());
        let values = values.inspect_err(|error| watch.failed(error))?;
        let run = Box::pin(frontend.run(session, &watch.limits, runnable, values.as_ref()));
        match watch.limits.run(run).instrument(span).await.and_then(|answer| answer) {
            Ok(answer) => {
                if !matches!(answer, Answer::Rows(_) | Answer::Copy(..)) {
                    watch.metric.succeeded();
                }
                Ok((answer, watch))
            }
            Err(error) => {
                watch.metric.failed(&error.sqlstate);
                Err(error.into())
            }
        }
    }

    /// Sends a portal's rows: all of them, or the first `max_rows`, with the rest kept in the portal.
    async fn send<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Statement>>,
        cursor: Cursor,
        max_rows: usize,
    ) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let described = portal.statement.statement.fields(&portal.result_column_format)?;
        let same_types = described.iter().map(FieldInfo::datatype).eq(cursor.fields.iter().map(FieldInfo::datatype));
        if !same_types {
            return Err(Error::unsupported("cached plan must not change result type").into());
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

    /// Sends more rows of a portal that was begun.
    async fn resume<C>(&self, client: &mut C, portal: &Portal<Arc<Statement>>, max_rows: usize) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let limits = self.parser.session.begin_statement();
        self.fetch(client, portal, limits, max_rows).await
    }

    /// Sends some rows of a portal. One that has failed has no more.
    async fn fetch<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Statement>>,
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
        C::PortalStore: PortalStore<Statement = Arc<Statement>>,
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
            None => {
                let message = format!("portal \"{name}\" does not exist");
                return Err(Error::user(sqlstate::INVALID_CURSOR_NAME, message).into());
            }
        };
        if !matches!(*portal.state().lock().await, PortalExecutionState::Initial) {
            return self.resume(client, &portal, max_rows).await;
        }
        match self.start(client, &portal).await? {
            (Answer::Rows(mut result), watch) => {
                send_notices(client, &self.parser.session, std::mem::take(&mut result.notices)).await?;
                let cursor = Cursor::new(result, &portal.result_column_format, watch)?;
                self.send(client, &portal, cursor, max_rows).await
            }
            (Answer::Copy(mut result, format), watch) => {
                send_notices(client, &self.parser.session, std::mem::take(&mut result.notices)).await?;
                *portal.state().lock().await = PortalExecutionState::Finished;
                send_copy(client, result, &format, watch).await
            }
            (answer, _) => send_done(client, &self.parser.session, answer).await,
        }
    }
}

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Arc<Statement>;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = parse(sql)?;
        if statements.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(Error::user(sqlstate::SYNTAX_ERROR, message).into());
        }
        let Some(parsed) = statements.pop() else {
            return Ok(None);
        };
        check_transaction(client, parsed.ends_transaction())?;
        let limits = self.session.begin_statement();
        let prepare = async {
            let (runnable, columns) = self.frontend.prepare(&self.session, &limits, parsed, types).await?;
            Ok::<_, Error>(Some(Arc::new(Statement { runnable, columns })))
        };
        let prepared = limits.run(Box::pin(prepare)).await.and_then(|prepared| prepared);
        Ok(prepared.inspect_err(|error| self.frontend.metrics.statement("invalid").failed(&error.sqlstate))?)
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameter_types())
    }

    fn get_result_schema(&self, statement: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(statement.fields(format.unwrap_or(&Format::UnifiedText))?)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Arc<Statement>;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        Arc::clone(&self.parser)
    }

    /// Notes the statement's name, which SQL can deallocate it by.
    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let statement = StoredStatement::parse(client, &message, self.query_parser()).await?;
        self.parser.session.statements().add_protocol(message.name.as_deref().unwrap_or_default())?;
        match statement {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(name),
        }
        Ok(client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?)
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
            client.portal_store().rm_portal(name);
        }
        Ok(client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?)
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
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    /// Outside of a transaction block, portals end here: what they read must not stay pinned.
    async fn on_sync<C>(&self, client: &mut C, _message: SyncMessage) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() == TransactionStatus::Idle {
            client.portal_store().clear_portals();
        } else {
            client.portal_store().rm_portal(DEFAULT_NAME);
        }
        let ready = ReadyForQuery::new(client.transaction_status());
        Ok(client.send(PgWireBackendMessage::ReadyForQuery(ready)).await?)
    }

    async fn do_describe_statement<C>(
        &self,
        _client: &mut C,
        target: &StoredStatement<Self::Statement>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let fields = target.statement.fields(&Format::UnifiedText)?;
        Ok(DescribeStatementResponse::new(target.statement.parameter_types(), fields))
    }

    async fn do_describe_portal<C>(
        &self,
        _client: &mut C,
        target: &Portal<Self::Statement>,
    ) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statement = &target.statement.statement;
        if statement.columns.is_none() {
            return Ok(DescribePortalResponse::no_data());
        }
        Ok(DescribePortalResponse::new(statement.fields(&target.result_column_format)?))
    }

    /// Never called: [`ExtendedQueryHandler::on_execute`] sends rows as they come.
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
        Err(Error::internal("portals are executed as they are sent").into())
    }
}
