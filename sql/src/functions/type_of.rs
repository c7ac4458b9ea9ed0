//! `pg_typeof`: the type of its argument, as an oid that is printed as a name.

use std::sync::Arc;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use postgres_types::Type;

use crate::error::Error;
use crate::types::{marked, pg_type};

/// `pg_typeof(any)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TypeOf {
    signature: Signature,
}

impl TypeOf {
    pub(super) fn new() -> TypeOf {
        TypeOf { signature: Signature::any(1, Volatility::Stable) }
    }
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt32)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(marked(Field::new(self.name(), DataType::UInt32, false), &Type::REGTYPE)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = args.arg_fields.first().ok_or_else(|| Error::internal("pg_typeof has no argument"))?;
        let oid = if *field.data_type() == DataType::Null { Type::UNKNOWN.oid() } else { pg_type(field)?.oid() };
        Ok(ColumnarValue::Array(Arc::new(UInt32Array::from(vec![oid; args.number_rows]))))
    }
}
