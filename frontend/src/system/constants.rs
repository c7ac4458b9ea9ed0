//! Functions that drivers and psql call and that return a constant, because Weir has no
//! triggers, partitions or replication to report.

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::session::SERVER_VERSION;

/// The version of RisingWave whose SQL Weir supports.
const RISINGWAVE: &str = "2.5.0";

/// Returns the result of `version()`. Drivers read the number after "PostgreSQL"; RisingWave's
/// tools look for its name.
fn version() -> String {
    let (weir, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    format!("PostgreSQL {SERVER_VERSION}-RisingWave-{RISINGWAVE} (Weir {weir}, {machine})")
}

/// Returns the functions that have the same result for everybody.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let no_text = ScalarValue::Utf8(None);
    [
        ("version", text(&version())),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_my_temp_schema", ScalarValue::UInt32(Some(0))),
        ("pg_advisory_unlock_all", no_text.clone()),
        ("shobj_description", no_text.clone()),
        ("pg_get_triggerdef", no_text.clone()),
        ("pg_get_ruledef", no_text.clone()),
        ("pg_get_function_result", no_text.clone()),
        ("pg_get_function_arguments", no_text.clone()),
        ("pg_get_function_identity_arguments", no_text.clone()),
        ("pg_get_functiondef", no_text.clone()),
        ("pg_get_function_sqlbody", no_text.clone()),
        ("pg_get_partkeydef", no_text.clone()),
        ("pg_get_statisticsobjdef_columns", no_text.clone()),
        ("pg_partition_ancestors", no_text.clone()),
        ("pg_table_size", ScalarValue::Int64(None)),
        ("pg_indexes_size", ScalarValue::Int64(None)),
        ("pg_relation_size", ScalarValue::Int64(None)),
        ("pg_total_relation_size", ScalarValue::Int64(None)),
        ("pg_tablespace_size", ScalarValue::Int64(None)),
        ("pg_stat_get_numscans", ScalarValue::Int64(None)),
        ("pg_database_size", ScalarValue::Int64(None)),
        ("pg_tablespace_location", no_text),
    ]
    .map(|(name, value)| constant(name, value))
    .into()
}

/// A function that ignores its arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

/// Makes a function that returns a value, whatever its arguments.
pub(crate) fn constant(name: &'static str, value: ScalarValue) -> ScalarUDF {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    ScalarUDF::from(Constant { name, value, signature: Signature::new(any, Volatility::Stable) })
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}
