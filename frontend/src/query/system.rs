//! The schema `pg_catalog`, by `datafusion-pg-catalog`, put right in three places: it derives the types of columns from
//! Arrow's, in which a varchar and a jsonb are both text; it takes materialized views for tables; and it makes up a database
//! `postgres`.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{Int16Type, Int32Type, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion_pg_catalog::pg_catalog::{PgCatalogSchemaProvider, PgCatalogStaticTables, PgCatalogTable};
use futures::TryStreamExt;
use weir_common::catalog::RelationKind;
use weir_common::types::SqlType;

use super::schema::{Listing, Roles};
use crate::catalog::CatalogCache;
use crate::encode::pg_type;
use crate::parser::DATABASE;

const ATTRIBUTES: &str = "pg_attribute";
const CLASSES: &str = "pg_class";
const DATABASES: &str = "pg_database";
/// A type's modifier where nothing was declared, and what is added to what was: `VARHDRSZ`.
const NO_MODIFIER: i32 = -1;
const MODIFIER_OFFSET: i32 = 4;

#[derive(Debug)]
pub(super) struct SystemCatalog {
    tables: PgCatalogSchemaProvider<Listing, Roles>,
    cache: CatalogCache,
}

impl SystemCatalog {
    pub(super) fn new(cache: CatalogCache) -> Result<SystemCatalog> {
        let fixed = Arc::new(PgCatalogStaticTables::try_new()?);
        let tables = PgCatalogSchemaProvider::try_new(Listing(cache.clone()), fixed, Roles)?;
        Ok(SystemCatalog { tables, cache })
    }

    fn dynamic(&self, name: &str) -> Result<Arc<dyn PartitionStream>> {
        match self.tables.build_table_by_name(name)? {
            Some(PgCatalogTable::Dynamic(table)) => Ok(table),
            _ => Err(DataFusionError::Internal(format!("{name} is not made when it is asked for"))),
        }
    }
}

#[async_trait]
impl SchemaProvider for SystemCatalog {
    fn table_names(&self) -> Vec<String> {
        self.tables.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let adjusted: Arc<dyn PartitionStream> = match name {
            ATTRIBUTES => Arc::new(Attributes {
                attributes: self.dynamic(ATTRIBUTES)?,
                classes: self.dynamic(CLASSES)?,
                cache: self.cache.clone(),
            }),
            CLASSES => Arc::new(Classes { classes: self.dynamic(CLASSES)?, cache: self.cache.clone() }),
            DATABASES => Arc::new(Databases(self.dynamic(DATABASES)?)),
            _ => return self.tables.table(name).await,
        };
        Ok(Some(Arc::new(StreamingTable::try_new(Arc::clone(adjusted.schema()), vec![adjusted])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table_exist(name)
    }
}

/// `pg_attribute`.
#[derive(Clone, Debug)]
struct Attributes {
    attributes: Arc<dyn PartitionStream>,
    /// Says which table an oid stands for.
    classes: Arc<dyn PartitionStream>,
    cache: CatalogCache,
}

impl Attributes {
    async fn batches(self, context: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
        let mut names = HashMap::new();
        let classes: Vec<RecordBatch> = self.classes.execute(Arc::clone(&context)).try_collect().await?;
        for batch in classes {
            let oids = column(&batch, "oid")?.as_primitive::<Int32Type>();
            let relations = column(&batch, "relname")?.as_string::<i32>();
            let pairs = oids.values().iter().zip(relations).filter_map(|(oid, name)| Some((*oid, name?.to_owned())));
            names.extend(pairs);
        }
        let attributes: Vec<RecordBatch> = self.attributes.execute(context).try_collect().await?;
        attributes.into_iter().map(|batch| self.with_types(&batch, &names)).collect()
    }

    fn with_types(&self, batch: &RecordBatch, names: &HashMap<i32, String>) -> Result<RecordBatch> {
        let tables = self.cache.newest();
        let relations = column(batch, "attrelid")?.as_primitive::<Int32Type>();
        let numbers = column(batch, "attnum")?.as_primitive::<Int16Type>();
        let derived = column(batch, "atttypid")?.as_primitive::<Int32Type>();
        let (mut types, mut modifiers) = (Vec::new(), Vec::new());
        for row in 0..batch.num_rows() {
            let table = names.get(&relations.value(row)).and_then(|name| tables.table(name));
            let number = usize::try_from(numbers.value(row)).ok().and_then(|number| number.checked_sub(1));
            let declared = table.zip(number).and_then(|(table, number)| table.declared.columns.get(number));
            let oid = declared.and_then(|column| pg_type(&Arc::new(column.ty.field(&column.name))).ok());
            let oid = oid.and_then(|ty| i32::try_from(ty.oid()).ok());
            types.push(oid.unwrap_or_else(|| derived.value(row)));
            modifiers.push(declared.map_or(NO_MODIFIER, |column| modifier(&column.ty)));
        }
        let mut columns = batch.columns().to_vec();
        columns[batch.schema().index_of("atttypid")?] = Arc::new(Int32Array::from(types));
        columns[batch.schema().index_of("atttypmod")?] = Arc::new(Int32Array::from(modifiers));
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

/// `pg_attribute.atttypmod`: what was declared with a type in parentheses.
fn modifier(ty: &SqlType) -> i32 {
    match ty {
        SqlType::Decimal { precision, scale } => (i32::from(*precision) << 16 | i32::from(*scale)) + MODIFIER_OFFSET,
        SqlType::Array(element) => modifier(element),
        _ => NO_MODIFIER,
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    let missing = || DataFusionError::Internal(format!("a system catalog lacks its column {name}"));
    batch.column_by_name(name).ok_or_else(missing)
}

impl PartitionStream for Attributes {
    fn schema(&self) -> &SchemaRef {
        self.attributes.schema()
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.clone().batches(context);
        let stream =
            futures::stream::once(batches).map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.schema()), stream.try_flatten()))
    }
}

/// `pg_class`.
#[derive(Clone, Debug)]
struct Classes {
    classes: Arc<dyn PartitionStream>,
    cache: CatalogCache,
}

impl Classes {
    fn with_kinds(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let tables = self.cache.newest();
        let is_view =
            |name: &str| tables.table(name).is_some_and(|table| table.declared.kind == RelationKind::MaterializedView);
        let (names, kinds) =
            (column(batch, "relname")?.as_string::<i32>(), column(batch, "relkind")?.as_string::<i32>());
        let kinds = names.iter().zip(kinds).map(|(name, kind)| match name.is_some_and(is_view) {
            true => Some("m"),
            false => kind,
        });
        let mut columns = batch.columns().to_vec();
        columns[batch.schema().index_of("relkind")?] = Arc::new(StringArray::from_iter(kinds));
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

impl PartitionStream for Classes {
    fn schema(&self) -> &SchemaRef {
        self.classes.schema()
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let classes = self.clone();
        let stream =
            self.classes.execute(context).and_then(move |batch| std::future::ready(classes.with_kinds(&batch)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.schema()), stream))
    }
}

/// `pg_database`.
#[derive(Clone, Debug)]
struct Databases(Arc<dyn PartitionStream>);

impl PartitionStream for Databases {
    fn schema(&self) -> &SchemaRef {
        self.0.schema()
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let stream = self.0.execute(context).and_then(|batch| std::future::ready(only_ours(&batch)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(self.schema()), stream))
    }
}

fn only_ours(batch: &RecordBatch) -> Result<RecordBatch> {
    let names = column(batch, "datname")?.as_string::<i32>();
    let ours = names.iter().map(|name| Some(name == Some(DATABASE))).collect();
    Ok(filter_record_batch(batch, &ours)?)
}
