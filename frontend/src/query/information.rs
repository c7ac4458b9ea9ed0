//! The schema `information_schema`: DataFusion's, but for `columns`, where it has its own names of types and counts from
//! 0.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use pgwire::api::Type;
use weir_common::types::NUMERIC_PRECISION;

use super::schema::{DEAD_LETTERS, Database, PG_CATALOG};
use super::values::name as type_name;
use crate::encode::pg_type;
use crate::parser::{DATABASE, SCHEMA};

const COLUMNS: &str = "columns";

#[derive(Debug)]
pub(super) struct Information {
    database: Database,
    others: InformationSchemaProvider,
}

impl Information {
    pub(super) fn new(database: Database) -> Information {
        Information { others: InformationSchemaProvider::new(Arc::new(database.clone())), database }
    }

    async fn columns(&self) -> Result<RecordBatch> {
        let mut columns = Vec::new();
        for schema_name in [SCHEMA, DEAD_LETTERS, PG_CATALOG] {
            let Some(schema) = self.database.schema(schema_name) else { continue };
            for table_name in schema.table_names() {
                let Some(table) = schema.table(&table_name).await? else { continue };
                for (index, field) in table.schema().fields().iter().enumerate() {
                    columns.push(Column::new(schema_name, &table_name, index, field));
                }
            }
        }
        batch(&columns)
    }
}

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        self.others.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if name != COLUMNS {
            return self.others.table(name).await;
        }
        let rows = self.columns().await?;
        Ok(Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.others.table_exist(name)
    }
}

/// A column of a table.
struct Column {
    schema: &'static str,
    table: String,
    name: String,
    /// From 1.
    position: i32,
    is_nullable: bool,
    /// `None` for what no client can be sent.
    ty: Option<Type>,
    /// Digits of a numeric that were declared, all and after the point.
    digits: Option<(i32, i32)>,
}

impl Column {
    fn new(schema: &'static str, table: &str, index: usize, field: &FieldRef) -> Column {
        let digits = match field.data_type() {
            DataType::Decimal256(NUMERIC_PRECISION, _) => None,
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                Some((i32::from(*precision), i32::from(*scale)))
            }
            _ => None,
        };
        Column {
            schema,
            table: table.to_owned(),
            name: field.name().clone(),
            position: i32::try_from(index + 1).unwrap_or(i32::MAX),
            is_nullable: field.is_nullable(),
            ty: pg_type(field).ok(),
            digits,
        }
    }

    /// As the SQL standard calls the type.
    fn data_type(&self) -> &str {
        match &self.ty {
            None => "USER-DEFINED",
            Some(ty) if ty.name().starts_with('_') => "ARRAY",
            Some(ty) => type_name(ty),
        }
    }

    /// All digits of a number, their base, and those after the point.
    fn precision(&self) -> Option<(Option<i32>, i32, Option<i32>)> {
        match *self.ty.as_ref()? {
            Type::INT2 => Some((Some(16), 2, Some(0))),
            Type::INT4 => Some((Some(32), 2, Some(0))),
            Type::INT8 => Some((Some(64), 2, Some(0))),
            Type::FLOAT4 => Some((Some(24), 2, None)),
            Type::FLOAT8 => Some((Some(53), 2, None)),
            Type::NUMERIC => Some((self.digits.map(|(all, _)| all), 10, self.digits.map(|(_, scale)| scale))),
            _ => None,
        }
    }

    fn octets(&self) -> Option<i32> {
        matches!(self.ty.as_ref()?, &Type::VARCHAR | &Type::TEXT).then_some(1 << 30)
    }

    /// Digits of a second.
    fn datetime_precision(&self) -> Option<i32> {
        match *self.ty.as_ref()? {
            Type::DATE => Some(0),
            Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::INTERVAL => Some(6),
            _ => None,
        }
    }
}

fn batch(columns: &[Column]) -> Result<RecordBatch> {
    let texts = |of: &dyn Fn(&Column) -> Option<String>| -> ArrayRef {
        Arc::new(StringArray::from_iter(columns.iter().map(of)))
    };
    let numbers =
        |of: &dyn Fn(&Column) -> Option<i32>| -> ArrayRef { Arc::new(Int32Array::from_iter(columns.iter().map(of))) };
    let named: Vec<(&str, ArrayRef)> = vec![
        ("table_catalog", texts(&|_| Some(DATABASE.to_owned()))),
        ("table_schema", texts(&|column| Some(column.schema.to_owned()))),
        ("table_name", texts(&|column| Some(column.table.clone()))),
        ("column_name", texts(&|column| Some(column.name.clone()))),
        ("ordinal_position", numbers(&|column| Some(column.position))),
        ("column_default", texts(&|_| None)),
        ("is_nullable", texts(&|column| Some(if column.is_nullable { "YES" } else { "NO" }.to_owned()))),
        ("data_type", texts(&|column| Some(column.data_type().to_owned()))),
        ("character_maximum_length", numbers(&|_| None)),
        ("character_octet_length", numbers(&|column| column.octets())),
        ("numeric_precision", numbers(&|column| column.precision().and_then(|(all, _, _)| all))),
        ("numeric_precision_radix", numbers(&|column| column.precision().map(|(_, base, _)| base))),
        ("numeric_scale", numbers(&|column| column.precision().and_then(|(_, _, scale)| scale))),
        ("datetime_precision", numbers(&Column::datetime_precision)),
        ("interval_type", texts(&|_| None)),
        ("udt_catalog", texts(&|_| Some(DATABASE.to_owned()))),
        ("udt_schema", texts(&|_| Some(PG_CATALOG.to_owned()))),
        ("udt_name", texts(&|column| column.ty.as_ref().map(|ty| ty.name().to_owned()))),
    ];
    let fields = named.iter().map(|(name, values)| Field::new(*name, values.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(RecordBatch::try_new(schema, named.into_iter().map(|(_, values)| values).collect())?)
}
