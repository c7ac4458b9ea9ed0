//! The rows that answer a statement, on their way to the client.

use std::pin::Pin;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::{Stream, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::FieldInfo;
use weir_sql::error::Error;
use weir_sql::planner::Prepared;

use crate::encode::{self, Origin};
use crate::notice::Notice;

/// Batches that arrive as they are computed.
pub(crate) type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, Error>> + Send>>;

/// The columns of a result.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) schema: SchemaRef,
    /// The names that the client sees, by position.
    pub(crate) names: Vec<String>,
    /// The origins of the columns, by position, as far as they are known.
    origins: Vec<Origin>,
}

impl Columns {
    /// Takes the columns' names from their schema.
    pub(crate) fn of(schema: SchemaRef) -> Columns {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Columns { schema, names, origins: Vec::new() }
    }

    /// Gives the columns of a query's result the names that PostgreSQL gives them.
    pub(crate) fn named(prepared: &Prepared, schema: SchemaRef, origins: Vec<Origin>) -> Columns {
        let Columns { schema, names, .. } = Columns::of(schema);
        Columns { names: prepared.column_names(&names), schema, origins }
    }

    /// Returns the columns behind so many others.
    pub(crate) fn without_first(self, count: usize) -> Columns {
        let fields: Vec<_> = self.schema.fields().iter().skip(count).cloned().collect();
        let (names, origins) = (self.names.into_iter().skip(count), self.origins.into_iter().skip(count));
        Columns { schema: Arc::new(Schema::new(fields)), names: names.collect(), origins: origins.collect() }
    }

    /// Returns the description of the columns for the client.
    ///
    /// # Errors
    /// `0A000` for a type that has no counterpart in PostgreSQL.
    pub(crate) fn described(&self, format: &Format) -> Result<Vec<FieldInfo>, Error> {
        encode::describe(&self.schema, &self.names, &self.origins, format)
    }
}

/// An answer with rows.
pub(crate) struct ResultSet {
    pub(crate) columns: Columns,
    pub(crate) batches: Batches,
    /// The command of the completion tag. It also determines whether the tag contains the number of
    /// rows.
    pub(crate) tag: &'static str,
    /// Notices about the rows, sent ahead of them.
    pub(crate) notices: Vec<Notice>,
}

impl ResultSet {
    /// Makes an answer from a complete batch.
    pub(crate) fn ready(tag: &'static str, batch: RecordBatch) -> ResultSet {
        let columns = Columns::of(batch.schema());
        ResultSet { columns, batches: Box::pin(stream::iter([Ok(batch)])), tag, notices: Vec::new() }
    }
}
