//! Answers on the wire: rows as they arrive, command tags, notices, errors.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::data::{DataRow, RowDescription};
use pgwire::messages::response::{CommandComplete, NoticeResponse, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;
use tokio::sync::mpsc;
use tracing::{Instrument, Span};
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{CopyFormat, Parsed};

use crate::encode::{self, CopyRows, Rows};
use crate::frontend::Answer;
use crate::metrics;
use crate::notice::Notice;
use crate::results::{Batches, ResultSet};
use crate::session::{Change, Limits, Session};

/// Converts an error to its form on the wire.
pub(super) fn wire_error(error: Error) -> PgWireError {
    // The connection ends with this error.
    let severity = if error.sqlstate == sqlstate::ADMIN_SHUTDOWN { "FATAL" } else { "ERROR" };
    PgWireError::UserError(Box::new(error_info(severity, error)))
}

/// Converts an error in the client's data, which has a place there.
pub(super) fn wire_error_in_data(error: Error, place: Option<String>) -> PgWireError {
    match wire_error(error) {
        PgWireError::UserError(mut info) => {
            info.where_context = place;
            PgWireError::UserError(info)
        }
        error => error,
    }
}

/// Converts an error after which the server closes the connection.
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

/// Watches a statement while it is answered: its limits, its metric and its span.
pub(super) struct Watch {
    pub(super) limits: Limits,
    pub(super) metric: metrics::Statement,
    pub(super) span: Span,
    pub(super) session: Arc<Session>,
}

impl Watch {
    /// Records why the statement failed. A statement whose connection broke counts as abandoned.
    pub(super) fn failed(&mut self, error: &PgWireError) {
        if let PgWireError::UserError(info) = error {
            self.metric.failed(&info.code);
        }
    }
}

/// The rows of a result that have not been sent yet.
pub(super) struct Cursor {
    pub(super) fields: Arc<Vec<FieldInfo>>,
    pub(super) tag: &'static str,
    batches: Batches,
    watch: Watch,
}

impl Cursor {
    pub(super) fn new(result: ResultSet, format: &Format, mut watch: Watch) -> Result<Cursor, Error> {
        let fields = result.columns.described(format).inspect_err(|error| watch.metric.failed(&error.sqlstate))?;
        Ok(Cursor { fields: Arc::new(fields), tag: result.tag, batches: result.batches, watch })
    }

    /// Returns the rows of the next batch.
    async fn next(&mut self) -> Option<PgWireResult<Rows>> {
        let batch = self.next_batch().await?;
        let rows = batch.and_then(|batch| Rows::new(&batch, &self.fields).map_err(wire_error));
        Some(rows.inspect_err(|error| self.watch.failed(error)))
    }

    async fn next_batch(&mut self) -> Option<PgWireResult<RecordBatch>> {
        let next = self.watch.limits.run(self.batches.next()).instrument(self.watch.span.clone()).await;
        let batch = match next {
            Ok(Some(Ok(batch))) => batch,
            Ok(None) => {
                self.watch.metric.succeeded();
                return None;
            }
            Ok(Some(Err(error))) | Err(error) => {
                self.watch.metric.failed(&error.sqlstate);
                return Some(Err(wire_error(error)));
            }
        };
        self.watch.metric.count_rows(batch.num_rows());
        Some(Ok(batch))
    }

    /// Sends all rows; returns their number.
    pub(super) async fn send<C>(mut self, client: &mut C) -> PgWireResult<usize>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut count = 0;
        while let Some(rows) = self.next().await {
            let messages = rows?.map(|row| row.map(PgWireBackendMessage::DataRow).map_err(wire_error));
            count += self.feed(client, messages).await?;
        }
        Ok(count)
    }

    /// Sends all rows in the format of COPY; returns their number.
    async fn send_copied<C>(
        mut self,
        client: &mut C,
        format: &CopyFormat,
        forced: &[bool],
        opening: &mut Opening,
    ) -> PgWireResult<usize>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut count = 0;
        while let Some(batch) = self.next_batch().await {
            let rows = CopyRows::new(&batch?, &self.fields, format, forced)
                .inspect_err(|error| self.watch.metric.failed(&error.sqlstate))
                .map_err(wire_error)?;
            let messages = rows.map(|row| row.map(|row| opening.before(row)).map_err(wire_error));
            count += self.feed(client, messages).await?;
        }
        Ok(count)
    }

    /// Sends messages to the client; returns their number. The statement can still be cancelled
    /// while a slow client blocks the sending.
    async fn feed<C>(
        &mut self,
        client: &mut C,
        messages: impl Iterator<Item = PgWireResult<PgWireBackendMessage>> + Send,
    ) -> PgWireResult<usize>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let fed = self.watch.session.activity.writing(async {
            let mut count = 0;
            for message in messages {
                client.feed(message?).await?;
                count += 1;
            }
            Ok::<_, PgWireError>(count)
        });
        let fed = self.watch.limits.run(fed);
        let outcome = fed.await.map_err(wire_error).and_then(|outcome| outcome);
        outcome.inspect_err(|error| self.watch.failed(error))
    }

    /// Turns the cursor into a stream of rows, for a portal that is fetched a few rows at a time.
    /// Each fetch has the limits of its own message, so the time between two fetches does not
    /// count.
    pub(super) fn into_stream(
        self,
        session: Arc<Session>,
    ) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
        stream::unfold((self, None::<Rows>), move |(mut cursor, mut rows)| {
            let session = Arc::clone(&session);
            async move {
                loop {
                    if let Some(row) = rows.as_mut().and_then(Iterator::next) {
                        return Some((row.map_err(wire_error), (cursor, rows)));
                    }
                    cursor.watch.limits = session.limits();
                    match cursor.next().await? {
                        Ok(next) => rows = Some(next),
                        Err(error) => return Some((Err(error), (cursor, None))),
                    }
                }
            }
        })
    }
}

/// The header of a binary COPY. PostgreSQL sends it in one message with the data that follows, and
/// psycopg relies on that.
struct Opening(Option<Bytes>);

impl Opening {
    fn before(&mut self, data: Bytes) -> PgWireBackendMessage {
        let data = match self.0.take() {
            Some(opening) => [opening, data].concat().into(),
            None => data,
        };
        PgWireBackendMessage::CopyData(CopyData::new(data))
    }
}

/// Sends the description of the columns to the client.
pub(super) async fn send_description<C>(client: &mut C, fields: &[FieldInfo]) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let description = RowDescription::new(fields.iter().map(Into::into).collect());
    Ok(client.feed(PgWireBackendMessage::RowDescription(description)).await?)
}

/// Sends a result in the format of COPY.
pub(super) async fn send_copy<C>(
    client: &mut C,
    result: ResultSet,
    format: &CopyFormat,
    watch: Watch,
) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let field_format = encode::field_format(format);
    let code = field_format.value();
    let described = if code == 0 { Format::UnifiedText } else { Format::UnifiedBinary };
    let mut cursor = Cursor::new(result, &described, watch).map_err(wire_error)?;
    let forced = encode::forced(format, &cursor.fields)
        .inspect_err(|error| cursor.watch.metric.failed(&error.sqlstate))
        .map_err(wire_error)?;
    let columns = i16::try_from(cursor.fields.len())
        .map_err(|_| Error::internal("a result has too many columns"))
        .map_err(wire_error)?;
    let whole = i8::try_from(code).map_err(|_| Error::internal("a format code is 0 or 1")).map_err(wire_error)?;
    let formats = vec![code; cursor.fields.len()];
    let response = CopyOutResponse::new(whole, columns, formats);
    client.feed(PgWireBackendMessage::CopyOutResponse(response)).await?;
    let mut opening = Opening(None);
    match encode::head(format, &cursor.fields) {
        Some(head) if *format == CopyFormat::Binary => opening = Opening(Some(head)),
        Some(head) => client.feed(PgWireBackendMessage::CopyData(CopyData::new(head))).await?,
        None => {}
    }
    let count = cursor.send_copied(client, format, &forced, &mut opening).await?;
    if let Some(tail) = encode::tail(format) {
        client.feed(opening.before(tail)).await?;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    send_tag(client, &format!("COPY {count}")).await
}

/// Sends the command tag of a statement that returned rows.
pub(super) async fn send_row_tag<C>(client: &mut C, tag: &str, rows: usize) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    // As in PostgreSQL, only these tags carry the number of rows.
    let counts = matches!(tag, "SELECT" | "FETCH" | "INSERT 0" | "UPDATE" | "DELETE");
    let tag = if counts { format!("{tag} {rows}") } else { tag.to_owned() };
    send_tag(client, &tag).await
}

pub(super) async fn send_tag<C>(client: &mut C, tag: &str) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    Ok(client.feed(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned()))).await?)
}

/// Answers a statement that has no rows, and updates the state of the transaction.
pub(super) async fn send_done<C>(client: &mut C, session: &Session, answer: Answer) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    match answer {
        Answer::Rows(_) | Answer::Copy(..) | Answer::CopyIn(_) => {
            Err(wire_error(Error::internal("rows are not sent as a tag")))
        }
        Answer::Done { tag, notices, changes } => {
            send_notices(client, session, notices).await?;
            send_changes(client, changes).await?;
            send_tag(client, &tag).await
        }
        Answer::Begin(modes) => {
            if client.transaction_status() != TransactionStatus::Idle {
                let message = "there is already a transaction in progress";
                let notice = Notice::warning(sqlstate::ACTIVE_SQL_TRANSACTION, message);
                send_notices(client, session, vec![notice]).await?;
            }
            session.transaction().begin();
            session.variables().begin();
            for (name, value) in modes.settings() {
                session.variables().set_local(name, Some(value)).map_err(wire_error)?;
            }
            client.set_transaction_status(TransactionStatus::Transaction);
            send_tag(client, "BEGIN").await
        }
        Answer::Commit => {
            let tag = if client.transaction_status() == TransactionStatus::Error { "ROLLBACK" } else { "COMMIT" };
            end_transaction(client, session, tag).await
        }
        Answer::Rollback => end_transaction(client, session, "ROLLBACK").await,
        Answer::RollbackTo(name) => {
            session.transaction().return_to(&name).map_err(wire_error)?;
            client.set_transaction_status(TransactionStatus::Transaction);
            send_tag(client, "ROLLBACK").await
        }
        Answer::Close(name) => close_cursors(client, session, name).await,
        Answer::Deallocate(Some(name)) => {
            session.statements().deallocate(&name).map_err(wire_error)?;
            client.portal_store().rm_statement(&name);
            send_tag(client, "DEALLOCATE").await
        }
        Answer::Deallocate(None) => {
            deallocate_all(client, session);
            send_tag(client, "DEALLOCATE ALL").await
        }
        Answer::DiscardAll(changes) => {
            client.portal_store().clear_portals();
            session.cursors().close_all();
            deallocate_all(client, session);
            send_changes(client, changes).await?;
            send_tag(client, "DISCARD ALL").await
        }
    }
}

/// Closes a cursor or a portal, or all of them if no name is given.
async fn close_cursors<C>(client: &mut C, session: &Session, name: Option<String>) -> PgWireResult<()>
where
    C: ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send,
    C::PortalStore: PortalStore,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let Some(name) = name else {
        session.cursors().close_all();
        client.portal_store().clear_portals();
        return send_tag(client, "CLOSE CURSOR ALL").await;
    };
    if !session.cursors().close(&name) {
        return Err(wire_error(Error::user(
            sqlstate::INVALID_CURSOR_NAME,
            format!("cursor \"{name}\" does not exist"),
        )));
    }
    client.portal_store().rm_portal(&name);
    send_tag(client, "CLOSE CURSOR").await
}

fn deallocate_all<C>(client: &C, session: &Session)
where
    C: ClientPortalStore,
    C::PortalStore: PortalStore,
{
    for name in session.statements().deallocate_all() {
        client.portal_store().rm_statement(&name);
    }
}

/// Ends the transaction. Its portals and cursors are closed too, which releases their snapshots.
async fn end_transaction<C>(client: &mut C, session: &Session, tag: &str) -> PgWireResult<()>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    if client.transaction_status() == TransactionStatus::Idle {
        let message = "there is no transaction in progress";
        let notice = Notice::warning(sqlstate::NO_ACTIVE_SQL_TRANSACTION, message);
        send_notices(client, session, vec![notice]).await?;
    }
    client.portal_store().clear_portals();
    session.cursors().end_transaction(tag == "COMMIT");
    session.transaction().end();
    let changes = session.variables().end(tag == "COMMIT");
    send_changes(client, changes).await?;
    client.set_transaction_status(TransactionStatus::Idle);
    send_tag(client, tag).await
}

/// Returns a notice for each name of a statement that was truncated because it is too long.
pub(super) fn cut_names(parsed: &Parsed) -> Vec<Notice> {
    parsed.notices.iter().map(|message| Notice::with_sqlstate(sqlstate::NAME_TOO_LONG, message)).collect()
}

/// Sends the notices that the session wants to see.
pub(super) async fn send_notices<C>(client: &mut C, session: &Session, notices: Vec<Notice>) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let wanted = session.variables().notices_from();
    for notice in notices.into_iter().filter(|notice| wanted.is_some_and(|wanted| notice.severity >= wanted)) {
        let severity = notice.severity.name();
        let mut info = ErrorInfo::new(severity.to_owned(), notice.sqlstate.to_owned(), notice.message);
        info.severity_nonlocalized = Some(severity.to_owned());
        info.detail = notice.detail;
        info.hint = notice.hint.map(str::to_owned);
        client.feed(PgWireBackendMessage::NoticeResponse(NoticeResponse::from(info))).await?;
    }
    Ok(())
}

/// Runs a statement until its answer begins, and sends the notices that it has meanwhile.
pub(super) async fn send_what_is_told<C, T>(
    client: &mut C,
    session: &Session,
    mut told: mpsc::UnboundedReceiver<Notice>,
    run: impl Future<Output = T>,
) -> PgWireResult<T>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    tokio::pin!(run);
    loop {
        tokio::select! {
            biased;
            answer = &mut run => return Ok(answer),
            Some(notice) = told.recv() => {
                send_notices(client, session, vec![notice]).await?;
                client.flush().await?;
            }
        }
    }
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

/// Refuses a statement that cannot run in a failed transaction.
pub(super) fn check_transaction(client: &impl ClientInfo, ends_transaction: bool) -> Result<(), Error> {
    if client.transaction_status() == TransactionStatus::Error && !ends_transaction {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        return Err(Error::user(sqlstate::IN_FAILED_SQL_TRANSACTION, message));
    }
    Ok(())
}
