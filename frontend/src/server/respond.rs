//! Answers on the wire: rows as they come, tags, notices, errors.

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{DataRow, RowDescription};
use pgwire::messages::response::{CommandComplete, NoticeResponse, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use tracing::{Instrument, Span};

use crate::encode::{Rows, describe};
use crate::error::{Error, sqlstate};
use crate::frontend::{Answer, Notice};
use crate::metrics;
use crate::query::{Batches, ResultSet};
use crate::session::{Change, Limits};

/// An error as the client gets it.
pub(crate) fn wire_error(error: Error) -> PgWireError {
    // The connection ends with what is closing.
    let severity = if error.sqlstate == sqlstate::ADMIN_SHUTDOWN { "FATAL" } else { "ERROR" };
    PgWireError::UserError(Box::new(error_info(severity, error)))
}

/// An error after which the connection is closed.
pub(super) fn fatal(error: Error) -> PgWireError {
    PgWireError::UserError(Box::new(error_info("FATAL", error)))
}

fn error_info(severity: &str, error: Error) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), error.sqlstate.into_owned(), error.message);
    info.severity_nonlocalized = Some(severity.to_owned());
    info.detail = error.detail;
    info.hint = error.hint;
    info.position = error.position.map(|position| position.to_string());
    info
}

/// What a statement is watched by while it is answered.
pub(super) struct Watch {
    pub(super) limits: Limits,
    pub(super) metric: metrics::Statement,
    pub(super) span: Span,
}

/// Rows that are still to come.
pub(super) struct Cursor {
    pub(super) fields: Arc<Vec<FieldInfo>>,
    pub(super) tag: &'static str,
    batches: Batches,
    watch: Watch,
}

impl Cursor {
    pub(super) fn new(result: ResultSet, format: &Format, watch: Watch) -> Result<Cursor, Error> {
        let fields = Arc::new(describe(&result.columns.schema, &result.columns.names, format)?);
        Ok(Cursor { fields, tag: result.tag, batches: result.batches, watch })
    }

    /// The rows of the next batch.
    async fn next(&mut self) -> Option<PgWireResult<Rows>> {
        let next = self.watch.limits.run(self.batches.next()).instrument(self.watch.span.clone()).await;
        let batch = match next {
            Ok(Some(Ok(batch))) => batch,
            Ok(None) => {
                self.watch.metric.succeeded();
                return None;
            }
            Ok(Some(Err(error))) | Err(error) => {
                self.watch.metric.failed(&error);
                return Some(Err(error.into()));
            }
        };
        self.watch.metric.count_rows(batch.num_rows());
        Some(Rows::new(&batch, &self.fields).map_err(PgWireError::from))
    }

    /// Sends every row; returns how many.
    pub(super) async fn send<C>(mut self, client: &mut C) -> PgWireResult<usize>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut count = 0;
        while let Some(rows) = self.next().await {
            let rows = rows?;
            // Where the client does not keep up, its statement can still be cancelled.
            let sent = self.watch.limits.run(async {
                for row in rows {
                    client.feed(PgWireBackendMessage::DataRow(row?)).await?;
                    count += 1;
                }
                Ok::<_, PgWireError>(())
            });
            match sent.await {
                Ok(outcome) => outcome?,
                Err(error) => {
                    self.watch.metric.failed(&error);
                    return Err(error.into());
                }
            }
        }
        Ok(count)
    }

    /// Row by row, for a portal of which only some are fetched at a time.
    pub(super) fn into_stream(self) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
        stream::unfold((self, None::<Rows>), |(mut cursor, mut rows)| async move {
            loop {
                if let Some(row) = rows.as_mut().and_then(Iterator::next) {
                    return Some((row, (cursor, rows)));
                }
                match cursor.next().await? {
                    Ok(next) => rows = Some(next),
                    Err(error) => return Some((Err(error), (cursor, None))),
                }
            }
        })
    }
}

/// Tells the client which columns come.
pub(super) async fn send_description<C>(client: &mut C, fields: &[FieldInfo]) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let description = RowDescription::new(fields.iter().map(Into::into).collect());
    Ok(client.feed(PgWireBackendMessage::RowDescription(description)).await?)
}

/// The end of a statement that returned rows.
pub(super) async fn send_row_tag<C>(client: &mut C, tag: &str, rows: usize) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    // As in PostgreSQL, only SELECT says how many.
    let tag = if tag == "SELECT" { format!("{tag} {rows}") } else { tag.to_owned() };
    send_tag(client, &tag).await
}

async fn send_tag<C>(client: &mut C, tag: &str) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    Ok(client.feed(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned()))).await?)
}

/// Answers a statement that has no rows, and keeps the state of the transaction.
pub(super) async fn send_done<C>(client: &mut C, answer: Answer) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match answer {
        Answer::Rows(_) => Err(Error::internal("rows are not sent as a tag").into()),
        Answer::Done { tag, notices, changes } => {
            for notice in notices {
                send_notice(client, "NOTICE", notice).await?;
            }
            send_changes(client, changes).await?;
            send_tag(client, tag).await
        }
        Answer::Begin => {
            if client.transaction_status() != TransactionStatus::Idle {
                let message = "there is already a transaction in progress".to_owned();
                send_notice(client, "WARNING", Notice { sqlstate: "25001", message }).await?;
            }
            client.set_transaction_status(TransactionStatus::Transaction);
            send_tag(client, "BEGIN").await
        }
        Answer::Commit => {
            let tag = if client.transaction_status() == TransactionStatus::Error { "ROLLBACK" } else { "COMMIT" };
            end_transaction(client, tag).await
        }
        Answer::Rollback => end_transaction(client, "ROLLBACK").await,
        Answer::Deallocate(Some(name)) => {
            if client.portal_store().get_statement(&name).is_none() {
                let message = format!("prepared statement \"{name}\" does not exist");
                return Err(Error::user(sqlstate::INVALID_SQL_STATEMENT_NAME, message).into());
            }
            client.portal_store().rm_statement(&name);
            send_tag(client, "DEALLOCATE").await
        }
        // Without a list of their names they are left to be replaced, or to end with the connection.
        Answer::Deallocate(None) => send_tag(client, "DEALLOCATE ALL").await,
        Answer::DiscardAll(changes) => {
            client.portal_store().clear_portals();
            send_changes(client, changes).await?;
            send_tag(client, "DISCARD ALL").await
        }
    }
}

async fn end_transaction<C>(client: &mut C, tag: &str) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    if client.transaction_status() == TransactionStatus::Idle {
        let message = "there is no transaction in progress".to_owned();
        send_notice(client, "WARNING", Notice { sqlstate: "25P01", message }).await?;
    }
    client.set_transaction_status(TransactionStatus::Idle);
    send_tag(client, tag).await
}

async fn send_notice<C>(client: &mut C, severity: &str, notice: Notice) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let mut info = ErrorInfo::new(severity.to_owned(), notice.sqlstate.to_owned(), notice.message);
    info.severity_nonlocalized = Some(severity.to_owned());
    Ok(client.feed(PgWireBackendMessage::NoticeResponse(NoticeResponse::from(info))).await?)
}

async fn send_changes<C>(client: &mut C, changes: Vec<Change>) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for change in changes.into_iter().filter(|change| change.reported) {
        let status = ParameterStatus::new(change.name, change.value);
        client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    }
    Ok(())
}

/// Refuses what a failed transaction cannot run.
pub(super) fn check_transaction(client: &impl ClientInfo, ends_transaction: bool) -> Result<(), Error> {
    if client.transaction_status() == TransactionStatus::Error && !ends_transaction {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        return Err(Error::user(sqlstate::IN_FAILED_SQL_TRANSACTION, message));
    }
    Ok(())
}
