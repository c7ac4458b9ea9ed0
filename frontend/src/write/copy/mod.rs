//! `COPY table FROM STDIN`: the rows that a client sends, as one statement.
//!
//! [`text`] and [`binary`] read the formats. Values become columns some thousand rows at a time,
//! and go to the slots at once. The statement is committed at the end of the data; if the client
//! gives up, or a row is wrong, nothing is written.

mod binary;
mod text;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use postgres_types::Type;
use tokio::time::Instant;
use weir_common::catalog::{Column, Relation};
use weir_common::types::SqlType;
use weir_sql::error::{Error, sqlstate};
use weir_sql::functions::column_from_text;
use weir_sql::parser::{Command, CopyFormat, CopyFrom, Insert, Parsed, Statement, Write};
use weir_sql::planner::Prepared;
use weir_sql::types::pg_type;
use weir_sql::writes;

use super::Writes;
use super::holding::Holding;
use super::rows::visible;
use super::statement::{conflict, target};
use crate::session::{Limits, Session};
use crate::system::COPIED;

/// Rows are converted and sent together up to these numbers.
const ROWS_MAX: usize = 8_192;
const BYTES_MAX: usize = 1 << 20;

/// An error in the data of a COPY.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) error: Error,
    /// Its place: the line, and the column if it is a value that is wrong.
    pub(crate) place: Option<String>,
}

impl From<Error> for Box<Wrong> {
    fn from(error: Error) -> Box<Wrong> {
        Box::new(Wrong { error, place: None })
    }
}

impl Wrong {
    fn at(error: Error, place: String) -> Box<Wrong> {
        Box::new(Wrong { error, place: Some(place) })
    }

    /// Names the table of the data.
    fn of(self, relation: &Relation) -> Box<Wrong> {
        let place = self.place.map(|place| format!("COPY {}, {place}", relation.name));
        Box::new(Wrong { place, ..self })
    }
}

/// A COPY whose data is coming.
#[derive(Debug)]
pub(crate) struct CopyIn {
    pub(crate) format: CopyFormat,
    relation: Arc<Relation>,
    /// The places of the columns that the data has.
    places: Vec<usize>,
    data: Data,
    /// The query for whole rows, if other columns have values too.
    query: Option<Arc<Prepared>>,
    holding: Holding,
    rows: u64,
}

#[derive(Debug)]
enum Data {
    Texts(text::Reader, text::Texts),
    Binary(binary::Reader, binary::Values),
}

impl Writes {
    /// Begins a COPY.
    pub(crate) async fn copy_in(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        parsed: &Parsed,
        copy: &CopyFrom,
    ) -> Result<CopyIn, Error> {
        let deadline = limits.retry_until(self.retry_max);
        let snapshot = self.snapshots.acquire(deadline).await?;
        let entry = target(&snapshot.catalog, &session.search_path(), parsed, &copy.table, "COPY FROM")?;
        let relation = Arc::clone(&entry.relation);
        let places = places(parsed, copy, &relation)?;
        let columns: Vec<&Column> = places.iter().map(|place| &relation.columns[*place]).collect();
        let is_given = |place: usize| places.contains(&place);
        let has_value = |column: &Column| {
            column.constraints().is_some_and(|rule| rule.default.is_some() || rule.generated.is_some())
        };
        let computed = relation.columns.iter().enumerate().any(|(place, column)| !is_given(place) && has_value(column));
        let query = match computed {
            true => Some(Arc::new(self.copied(session, parsed, copy, entry, &columns).await?)),
            false => None,
        };
        let data = match text::Reader::new(&copy.format) {
            Some(reader) => {
                Data::Texts(reader, text::Texts::new(columns.iter().map(|column| column.name.clone()).collect()))
            }
            None => {
                let types = columns.iter().map(|column| pg_type(&Arc::new(column.ty.field(""))));
                let types: Vec<Type> = types.collect::<Result<_, _>>()?;
                Data::Binary(binary::Reader::new(types), binary::Values::default())
            }
        };
        let nodes = Arc::clone(&self.queries.planner.nodes);
        let holding = Holding::new(snapshot.placement(), Arc::clone(&relation), nodes);
        Ok(CopyIn { format: copy.format.clone(), relation, places, data, query, holding, rows: 0 })
    }

    /// The query that makes whole rows of copied ones: an INSERT of their columns.
    async fn copied(
        &self,
        session: &Arc<Session>,
        parsed: &Parsed,
        copy: &CopyFrom,
        entry: &weir_common::catalog::Entry,
        columns: &[&Column],
    ) -> Result<Prepared, Error> {
        let text = format!("SELECT * FROM {COPIED}.rows");
        let select = match weir_sql::parser::parse(&text)?.pop().map(|parsed| parsed.statement) {
            Some(Statement::Query(query)) => match *query {
                sqlparser::ast::Statement::Query(query) => query,
                _ => return Err(Error::internal("a SELECT is not a query")),
            },
            _ => return Err(Error::internal("a SELECT is not a query")),
        };
        let names = places(parsed, copy, &entry.relation)?.into_iter().map(|place| weir_sql::parser::ColumnRef {
            name: entry.relation.columns[place].name.clone(),
            location: copy.table.location,
        });
        let insert = Insert { columns: names.collect(), rows: Some(select), on_conflict: None };
        let write = Write {
            table: copy.table.clone(),
            alias: sqlparser::ast::Ident::with_quote('"', &copy.table.name),
            with: None,
            command: Command::Insert(insert),
            returning: Vec::new(),
        };
        let into = writes::Target { relation: &entry.relation, conflict: conflict(entry), is_changeable: false };
        let rows = writes::rows(parsed, &write, into, Some(columns.len()))?;
        let draft = self.queries.planner.read(parsed.clone(), rows.query)?;
        self.prepare_query(session, &self.cache.newest(), draft, &[]).await
    }

    /// Takes a piece of a COPY's data.
    pub(crate) async fn take_copied(
        &self,
        session: &Arc<Session>,
        copy: &mut CopyIn,
        data: &[u8],
    ) -> Result<(), Box<Wrong>> {
        // A piece may be as large as a message; its rows are sent in between.
        for piece in data.chunks(BYTES_MAX) {
            let is_full = match &mut copy.data {
                Data::Texts(reader, texts) => {
                    reader.take(piece, texts).map_err(|wrong| wrong.of(&copy.relation))?;
                    texts.lines.len() >= ROWS_MAX || texts.bytes() >= BYTES_MAX
                }
                Data::Binary(reader, values) => {
                    reader.take(piece, values).map_err(|wrong| wrong.of(&copy.relation))?;
                    values.bytes >= BYTES_MAX
                }
            };
            if is_full {
                self.send_copied(session, copy).await?;
            }
        }
        Ok(())
    }

    /// Ends the data of a COPY and commits it. Returns the number of rows.
    pub(crate) async fn end_copied(
        &self,
        session: &Arc<Session>,
        limits: &Limits,
        mut copy: CopyIn,
    ) -> Result<u64, Box<Wrong>> {
        match &mut copy.data {
            Data::Texts(reader, texts) => reader.end(texts),
            Data::Binary(reader, _) => reader.end(),
        }
        .map_err(|wrong| wrong.of(&copy.relation))?;
        self.send_copied(session, &mut copy).await?;
        let deadline: Instant = limits.retry_until(self.retry_max);
        if let Some(statement) = copy.holding.held().await? {
            self.meta.commit(copy.holding.placement.term, &statement, deadline).await?;
        }
        Ok(copy.rows)
    }

    /// Sends the rows that were read.
    async fn send_copied(&self, session: &Arc<Session>, copy: &mut CopyIn) -> Result<(), Box<Wrong>> {
        let (columns, rows) = copy.columns()?;
        if rows == 0 {
            return Ok(());
        }
        copy.rows += rows as u64;
        let batch = match &copy.query {
            None => {
                let given = |place| copy.places.iter().position(|given| *given == place);
                let all = copy.relation.columns.iter().enumerate().map(|(place, column)| match given(place) {
                    Some(at) => Arc::clone(&columns[at]),
                    None => new_null_array(&column.ty.arrow(), rows),
                });
                visible(&copy.relation, &all.collect::<Vec<_>>(), rows)?
            }
            Some(query) => {
                let fields = copy.places.iter().map(|place| {
                    let column = &copy.relation.columns[*place];
                    column.ty.field(&column.name)
                });
                let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
                let given = RecordBatch::try_new(Arc::clone(&schema), columns)
                    .map_err(|error| Error::from(DataFusionError::from(error)))?;
                let table: Arc<dyn TableProvider> =
                    Arc::new(MemTable::try_new(schema, vec![vec![given]]).map_err(Error::from)?);
                let catalog = Arc::clone(&copy.holding.placement.catalog);
                let made = self.queries.stream_of(session, query, (catalog, table)).await?;
                let made: Vec<RecordBatch> = made.try_collect().await?;
                let made = made.iter().map(|batch| visible(&copy.relation, batch.columns(), batch.num_rows()));
                super::rows::joined(&copy.relation.schema(), &made.collect::<Result<Vec<_>, _>>()?)?
            }
        };
        Ok(copy.holding.insert(&batch).await?)
    }
}

impl CopyIn {
    /// The number of columns that the data has.
    pub(crate) fn width(&self) -> usize {
        self.places.len()
    }

    /// Takes the rows that were read, as columns.
    fn columns(&mut self) -> Result<(Vec<ArrayRef>, usize), Box<Wrong>> {
        let types = self.places.iter().map(|place| &self.relation.columns[*place]);
        match &mut self.data {
            Data::Texts(_, texts) => {
                let lines = std::mem::take(&mut texts.lines);
                let columns = types.zip(&mut texts.columns).map(|(column, builder)| {
                    let texts = builder.finish();
                    column_from_text(&texts, &column.ty)
                        .map_err(|error| located(error, &texts, column, &lines).of(&self.relation))
                });
                Ok((columns.collect::<Result<_, _>>()?, lines.len()))
            }
            Data::Binary(_, values) => {
                let values = std::mem::take(values);
                let rows = values.columns.first().map_or(0, Vec::len);
                if rows == 0 {
                    return Ok((Vec::new(), 0));
                }
                let columns = types.zip(values.columns).map(|(column, values)| from_scalars(values, &column.ty));
                Ok((columns.collect::<Result<_, Error>>()?, rows))
            }
        }
    }
}

/// The place of the first text that is not a value of its column.
fn located(error: Error, texts: &StringArray, column: &Column, lines: &[u64]) -> Box<Wrong> {
    let wrong = (0..texts.len()).find_map(|row| {
        let error = column_from_text(&texts.slice(row, 1), &column.ty).err()?;
        Some((row, error))
    });
    let Some((row, error)) = wrong else { return error.into() };
    let shown: String = texts.value(row).chars().take(100).collect();
    Wrong::at(error, format!("line {}, column {}: \"{shown}\"", lines[row], column.name))
}

/// A column of values from the wire, which may have another Arrow type.
fn from_scalars(values: Vec<Option<ScalarValue>>, ty: &SqlType) -> Result<ArrayRef, Error> {
    let arrow = ty.arrow();
    let same = values.iter().flatten().all(|value| value.data_type() == arrow);
    if same && *ty != SqlType::Jsonb {
        let null = ScalarValue::try_from(&arrow)?;
        let values = values.into_iter().map(|value| value.unwrap_or_else(|| null.clone()));
        return Ok(ScalarValue::iter_to_array(values)?);
    }
    let is_text = |value: &ScalarValue| {
        matches!(value, ScalarValue::Utf8(_) | ScalarValue::Decimal128(..) | ScalarValue::Decimal256(..))
    };
    if let Some(first) = values.iter().flatten().find(|value| !is_text(value)) {
        let null = ScalarValue::try_from(&first.data_type())?;
        let array = ScalarValue::iter_to_array(values.into_iter().map(|value| value.unwrap_or_else(|| null.clone())))?;
        let options = CastOptions { safe: false, ..CastOptions::default() };
        return Ok(cast_with_options(&array, &arrow, &options).map_err(DataFusionError::from)?);
    }
    let texts = values.into_iter().map(|value| match value {
        Some(ScalarValue::Utf8(text)) => text,
        value => value.map(|value| value.to_string()),
    });
    column_from_text(&texts.collect::<StringArray>(), ty)
}

/// The places of the columns that a COPY names; all but generated ones if it names none.
fn places(parsed: &Parsed, copy: &CopyFrom, relation: &Relation) -> Result<Vec<usize>, Error> {
    let is_generated = |column: &Column| column.constraints().is_some_and(|rule| rule.generated.is_some());
    if copy.columns.is_empty() {
        let all = relation.columns.iter().enumerate().filter(|(_, column)| !is_generated(column));
        return Ok(all.map(|(place, _)| place).collect());
    }
    let mut places = Vec::with_capacity(copy.columns.len());
    for named in &copy.columns {
        let at = |error: Error| error.at(parsed.position(named.location));
        let Some(place) = relation.columns.iter().position(|column| column.name == named.name) else {
            let message = format!("column \"{}\" of relation \"{}\" does not exist", named.name, relation.name);
            return Err(at(Error::user(sqlstate::UNDEFINED_COLUMN, message)));
        };
        if places.contains(&place) {
            let message = format!("column \"{}\" specified more than once", named.name);
            return Err(at(Error::user(sqlstate::DUPLICATE_COLUMN, message)));
        }
        if is_generated(&relation.columns[place]) {
            let message = format!("column \"{}\" is a generated column", named.name);
            let error = Error::user(sqlstate::INVALID_COLUMN_REFERENCE, message);
            return Err(at(error.with_detail("generated columns cannot be used in COPY")));
        }
        places.push(place);
    }
    Ok(places)
}
