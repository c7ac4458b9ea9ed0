//! SQL functions and operators that DataFusion lacks, or means differently: [`arithmetic`] and [`numeric`], [`casts`],
//! [`comparable`] (equality), [`quantified`] (ANY and ALL), [`jsonb`], and those that drivers and psql call.
//!
//! Of the latter most answer a constant: Weir has no descriptions, indexes or replication that they could tell of. Those
//! that depend on the session are made for each.

mod arithmetic;
mod casts;
mod comparable;
mod jsonb;
mod numeric;
mod quantified;
mod size;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

pub(crate) use arithmetic::CheckedArithmetic;
#[cfg(test)]
pub(crate) use casts::from_text as read_text;
pub(crate) use casts::{Casts, Literals};
pub(crate) use comparable::{comparable, has_equals, is_comparable};
pub(crate) use jsonb::{CAST as JSONB_CAST, Operators as JsonbOperators};
pub(crate) use numeric::{decimal_operation, quotient};
pub(crate) use quantified::function_of;

use crate::error::Error;
use crate::session::{SERVER_VERSION, Session};

/// What `version()` answers; drivers read the number after "PostgreSQL".
fn version() -> String {
    format!("PostgreSQL {SERVER_VERSION}-Weir-{} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

/// Functions that are the same for everybody.
pub(crate) fn common() -> Vec<ScalarUDF> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let no_text = ScalarValue::Utf8(None);
    [
        ("version", text(&version())),
        ("pg_get_userbyid", text("root")),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_type_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_function_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_operator_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_conversion_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_collation_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_opclass_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_statistics_obj_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        ("pg_advisory_unlock_all", no_text.clone()),
        ("obj_description", no_text.clone()),
        ("col_description", no_text.clone()),
        ("shobj_description", no_text.clone()),
        ("pg_get_indexdef", no_text.clone()),
        ("pg_get_viewdef", no_text.clone()),
        ("pg_get_triggerdef", no_text.clone()),
        ("pg_get_ruledef", no_text.clone()),
        ("pg_get_function_result", no_text.clone()),
        ("pg_get_function_arguments", no_text.clone()),
        ("pg_table_size", ScalarValue::Int64(None)),
        ("pg_database_size", ScalarValue::Int64(None)),
        ("pg_tablespace_location", no_text),
    ]
    .into_iter()
    .map(|(name, value)| Constant::udf(name, value))
    .chain(jsonb::functions())
    .chain(quantified::functions())
    .chain([ScalarUDF::from(size::SizePretty::new())])
    .collect()
}

/// Functions whose answer depends on who asks.
pub(crate) fn of_session(session: &Arc<Session>) -> Vec<ScalarUDF> {
    let user = ScalarValue::Utf8(Some(session.user().to_owned()));
    vec![
        Constant::udf("session_user", user.clone()),
        Constant::udf("current_user", user.clone()),
        Constant::udf("current_role", user),
        Constant::udf("pg_backend_pid", ScalarValue::Int32(Some(session.pid()))),
        ScalarUDF::from(CurrentSetting {
            session: Arc::downgrade(session),
            pid: session.pid(),
            signature: Signature::one_of(
                vec![
                    TypeSignature::Exact(vec![DataType::Utf8]),
                    TypeSignature::Exact(vec![DataType::Utf8, DataType::Boolean]),
                ],
                Volatility::Volatile,
            ),
        }),
    ]
}

/// A function that ignores its arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn udf(name: &'static str, value: ScalarValue) -> ScalarUDF {
        let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
        ScalarUDF::from(Constant { name, value, signature: Signature::new(any, Volatility::Stable) })
    }
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

/// `current_setting(name [, missing_ok])`.
#[derive(Debug)]
struct CurrentSetting {
    /// Weak, since the session keeps the state that keeps this.
    session: Weak<Session>,
    pid: i32,
    signature: Signature,
}

impl PartialEq for CurrentSetting {
    fn eq(&self, other: &CurrentSetting) -> bool {
        self.pid == other.pid && Weak::ptr_eq(&self.session, &other.session)
    }
}

impl Eq for CurrentSetting {}

impl Hash for CurrentSetting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pid.hash(state);
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) => name,
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(None))) => {
                return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None)));
            }
            _ => return Err(Error::unsupported("current_setting of a column is not supported yet").into()),
        };
        let missing_ok = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        let session = self.session.upgrade().ok_or_else(|| DataFusionError::Internal("the session is over".into()))?;
        let variables = session.variables();
        let value = match variables.show(name) {
            Ok(value) => Some(value.to_owned()),
            Err(_) if missing_ok => None,
            Err(error) => return Err(error.into()),
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
    }
}
