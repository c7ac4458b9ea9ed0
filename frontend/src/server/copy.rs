//! The data of `COPY … FROM STDIN`, which the client sends in messages of its own.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::copy::CopyHandler;
use pgwire::api::{ClientInfo, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail, CopyInResponse};
use tokio::sync::Mutex;
use tracing::Instrument;
use weir_sql::error::{Error, sqlstate};

use super::respond::{Watch, send_notices, send_tag, wire_error, wire_error_in_data};
use crate::encode;
use crate::frontend::{Frontend, lasting};
use crate::session::Session;
use crate::write::CopyIn;

/// The COPY of a connection.
pub(super) struct Copying {
    frontend: Arc<Frontend>,
    session: Arc<Session>,
    running: Mutex<Option<(Box<CopyIn>, Watch)>>,
}

impl Copying {
    pub(super) fn new(frontend: &Arc<Frontend>, session: &Arc<Session>) -> Copying {
        Copying { frontend: Arc::clone(frontend), session: Arc::clone(session), running: Mutex::default() }
    }

    /// Asks the client for the data of a COPY.
    pub(super) async fn begin<C>(
        &self,
        client: &mut C,
        copy: Box<CopyIn>,
        watch: Watch,
        is_extended: bool,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let code = encode::field_format(&copy.format).value();
        let count = copy.width();
        let too_many = || wire_error(Error::internal("a COPY has too many columns"));
        let columns = i16::try_from(count).map_err(|_| too_many())?;
        let whole = i8::try_from(code).map_err(|_| too_many())?;
        *self.running.lock().await = Some((copy, watch));
        client.set_state(PgWireConnectionState::CopyInProgress(is_extended));
        let response = CopyInResponse::new(whole, columns, vec![code; count]);
        Ok(client.send(PgWireBackendMessage::CopyInResponse(response)).await?)
    }
}

#[async_trait]
impl CopyHandler for Copying {
    async fn on_copy_data<C>(&self, _client: &mut C, data: CopyData) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut running = self.running.lock().await;
        let Some((copy, watch)) = running.as_mut() else { return Ok(()) };
        let taken = self.frontend.writes.take_copied(&self.session, copy, &data.data);
        let limits = watch.limits.clone();
        let taken = limits.run(Box::pin(taken)).instrument(watch.span.clone()).await;
        let Err(wrong) = taken.map_err(Into::into).and_then(|taken| taken) else { return Ok(()) };
        watch.metric.failed(&wrong.error.sqlstate);
        // The rows that were sent are abandoned.
        *running = None;
        Err(wire_error_in_data(wrong.error, wrong.place))
    }

    async fn on_copy_done<C>(&self, client: &mut C, _done: CopyDone) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some((copy, mut watch)) = self.running.lock().await.take() else { return Ok(()) };
        let limits = watch.limits.clone();
        let ended = self.frontend.writes.end_copied(&self.session, &limits, *copy);
        let ended = limits.run(Box::pin(ended)).instrument(watch.span.clone()).await;
        match ended.map_err(Into::into).and_then(|ended| ended) {
            Ok(rows) => {
                watch.metric.succeeded();
                send_notices(client, &self.session, lasting(&self.session, "COPY").into_iter().collect()).await?;
                send_tag(client, &format!("COPY {rows}")).await
            }
            Err(wrong) => {
                watch.metric.failed(&wrong.error.sqlstate);
                Err(wire_error_in_data(wrong.error, wrong.place))
            }
        }
    }

    async fn on_copy_fail<C>(&self, _client: &mut C, fail: CopyFail) -> PgWireError
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some((_, mut watch)) = self.running.lock().await.take() {
            watch.metric.failed(sqlstate::QUERY_CANCELED);
        }
        let message = format!("COPY from stdin failed: {}", fail.message);
        wire_error(Error::user(sqlstate::QUERY_CANCELED, message))
    }
}
