//! The function `pg_get_keywords()`, which returns the words of PostgreSQL 15's grammar and their
//! categories.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{MemTable, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use pgwire::api::Type;
use weir_sql::keywords::{Category, Keyword, all};
use weir_sql::types::marked;

/// `pg_get_keywords()`.
#[derive(Debug)]
pub(in crate::system) struct Keywords;

impl TableFunctionImpl for Keywords {
    fn call_with_args(&self, _args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        static ROWS: LazyLock<Result<RecordBatch>> = LazyLock::new(rows);
        let rows = match &*ROWS {
            Ok(rows) => rows.clone(),
            Err(error) => return Err(datafusion::error::DataFusionError::Internal(error.to_string())),
        };
        Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
    }
}

fn rows() -> Result<RecordBatch> {
    let texts = |of: fn(&Keyword) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(all().iter().map(of)))
    };
    let columns: Vec<ArrayRef> = vec![
        texts(|keyword| keyword.word),
        texts(|keyword| match keyword.category {
            Category::Unreserved => "U",
            Category::ColumnName => "C",
            Category::TypeOrFunction => "T",
            Category::Reserved => "R",
        }),
        Arc::new(all().iter().map(|keyword| Some(keyword.is_bare_label)).collect::<BooleanArray>()),
        texts(|keyword| match keyword.category {
            Category::Unreserved => "unreserved",
            Category::ColumnName => "unreserved (cannot be function or type name)",
            Category::TypeOrFunction => "reserved (can be function or type name)",
            Category::Reserved => "reserved",
        }),
        texts(|keyword| if keyword.is_bare_label { "can be bare label" } else { "requires AS" }),
    ];
    let text = |name| marked(Field::new(name, DataType::Utf8, true), &Type::TEXT);
    let fields = vec![
        text("word"),
        marked(Field::new("catcode", DataType::Utf8, true), &Type::CHAR),
        Field::new("barelabel", DataType::Boolean, true),
        text("catdesc"),
        text("baredesc"),
    ];
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
