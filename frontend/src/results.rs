//! Rows that answer a statement, on their way to the client.

use std::pin::Pin;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{Stream, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use weir_sql::error::Error;
use weir_sql::planner::Prepared;

use crate::encode::{self, Origin};
use crate::notice::Notice;

/// Batches that come as they are made.
pub(crate) type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// The columns of a result.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) schema: SchemaRef,
    /// What the client is told they are called, by position.
    pub(crate) names: Vec<String>,
    /// Where they come from, by position, as far as that is known.
    origins: Vec<Origin>,
}

impl Columns {
    /// Columns called as in their schema.
    pub(crate) fn of(schema: SchemaRef) -> Columns {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Columns { schema, names, origins: Vec::new() }
    }

    /// The columns of a query's result, called as in PostgreSQL.
    pub(crate) fn named(prepared: &Prepared, schema: SchemaRef, origins: Vec<Origin>) -> Columns {
        let Columns { schema, names, .. } = Columns::of(schema);
        Columns { names: prepared.column_names(&names), schema, origins }
    }

    /// As the client is told of them.
    ///
    /// # Errors
    /// `0A000` for a type that has no counterpart.
    pub(crate) fn described(&self, format: &Format) -> Result<Vec<FieldInfo>, Error> {
        encode::describe(&self.schema, &self.names, &self.origins, format)
    }
}

/// An answer with rows.
pub(crate) struct ResultSet {
    pub(crate) columns: Columns,
    pub(crate) batches: Batches,
    /// The command of the completion tag, and whether it tells the number of rows.
    pub(crate) tag: &'static str,
    /// What the client should know of the rows before they come.
    pub(crate) notices: Vec<Notice>,
}

impl ResultSet {
    /// An answer that is there already.
    pub(crate) fn ready(tag: &'static str, batch: RecordBatch) -> ResultSet {
        let columns = Columns::of(batch.schema());
        ResultSet { columns, batches: Box::pin(stream::iter([Ok(batch)])), tag, notices: Vec::new() }
    }
}
