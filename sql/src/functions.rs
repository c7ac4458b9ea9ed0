//! SQL functions and operators that DataFusion lacks, or means differently: [`arithmetic`] and
//! [`numeric`], [`arrays`], [`like`], [`bounded`] (results that could take all memory), [`casts`]
//! and [`datetime`], [`comparable`] (equality), [`quantified`] (ANY and ALL), [`json`], [`jsonb`],
//! [`quote`], [`encoding`], [`round`], those of dates and times ([`to_char`], [`from_char`],
//! [`date_part`], [`zone`]), and those that drivers and psql call.
//!
//! Of the latter most answer a constant: Weir has no descriptions, indexes or replication that they could tell of. Those
//! that depend on the session are made for each.

mod arithmetic;
mod arrays;
mod bounded;
mod casts;
mod choose;
mod comparable;
mod date_part;
mod datetime;
mod encoding;
mod extreme;
mod from_char;
mod json;
mod jsonb;
mod like;
mod moment;
mod numeric;
mod quantified;
mod quote;
mod round;
mod rows;
mod series;
mod sets;
mod size;
mod template;
mod text;
mod to_char;
mod zone;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

pub(crate) use arithmetic::CheckedArithmetic;
pub(crate) use arrays::{ARRAY_OR_EMPTY, ArrayOperators};
pub(crate) use bounded::bounded;
#[cfg(test)]
pub(crate) use casts::from_text as read_text;
pub(crate) use casts::{Casts, Literals, bytea, scalar_from_text};
pub(crate) use choose::{CASES, KEPT, as_case, choosing, kept_jsonb};
pub(crate) use comparable::{comparable, has_equals, is_comparable};
pub(crate) use date_part::Extract;
pub(crate) use extreme::{extreme_aggregate, extreme_function};
pub(crate) use jsonb::{CAST as JSONB_CAST, Operators as JsonbOperators, beside_jsonb, yields_jsonb};
pub(crate) use like::LIKE_ESCAPE;
pub(crate) use numeric::{decimal_operation, quotient};
pub(crate) use quantified::function_of;
pub(crate) use quote::identifier as quoted_identifier;
pub(crate) use round::round_to_even;
pub(crate) use rows::{AT_PRECISION, all_fields};
pub(crate) use series::of_integers;
pub(crate) use sets::{MEMBER_TEXTS, MEMBERS, NUMBERS, ORDINALS, list_holds_jsonb, set_function};
pub(crate) use text::ARRAY_TO_STRING;

use crate::error::Error;
use crate::session::{SERVER_VERSION, Session, Variables};

/// The version of RisingWave whose SQL Weir speaks.
const RISINGWAVE: &str = "2.5.0";

/// What `version()` answers. Drivers read the number after "PostgreSQL"; tools of RisingWave's look for its name.
fn version() -> String {
    let (weir, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    format!("PostgreSQL {SERVER_VERSION}-RisingWave-{RISINGWAVE} (Weir {weir}, {machine})")
}

/// Functions that are the same for everybody.
pub(crate) fn common() -> Vec<ScalarUDF> {
    let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
    let no_text = ScalarValue::Utf8(None);
    [
        ("version", text(&version())),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_my_temp_schema", ScalarValue::UInt32(Some(0))),
        ("pg_advisory_unlock_all", no_text.clone()),
        ("obj_description", no_text.clone()),
        ("col_description", no_text.clone()),
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
    .into_iter()
    .map(|(name, value)| Constant::udf(name, value))
    .chain(arrays::functions())
    .chain(jsonb::functions())
    .chain(quantified::functions())
    .chain(quote::functions())
    .chain(encoding::functions())
    .chain(choose::functions())
    .chain(rows::functions())
    .chain(sets::functions())
    .chain(text::functions())
    .chain([
        ScalarUDF::from(size::SizePretty::new()),
        json::function(),
        like::function(),
        ScalarUDF::from(to_char::ToChar::new()),
        ScalarUDF::from(from_char::FromChar::to_date()),
        ScalarUDF::from(from_char::FromChar::to_timestamp()),
        ScalarUDF::from(date_part::DatePart::new(false)),
        ScalarUDF::from(zone::AtTimeZone::new()),
    ])
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
        Setting::udf(session, false),
        Setting::udf(session, true),
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

/// `current_setting(name [, missing_ok])` and `set_config(name, value, is_local)`.
#[derive(Debug)]
struct Setting {
    sets: bool,
    /// Weak, since the session keeps the state that keeps this.
    session: Weak<Session>,
    pid: i32,
    signature: Signature,
}

impl Setting {
    fn udf(session: &Arc<Session>, sets: bool) -> ScalarUDF {
        let (text, flag) = (DataType::Utf8, DataType::Boolean);
        let signatures = match sets {
            true => vec![TypeSignature::Exact(vec![text.clone(), text, flag])],
            false => vec![TypeSignature::Exact(vec![text.clone()]), TypeSignature::Exact(vec![text, flag])],
        };
        ScalarUDF::from(Setting {
            sets,
            session: Arc::downgrade(session),
            pid: session.pid(),
            signature: Signature::one_of(signatures, Volatility::Volatile),
        })
    }
}

impl PartialEq for Setting {
    fn eq(&self, other: &Setting) -> bool {
        self.sets == other.sets && self.pid == other.pid && Weak::ptr_eq(&self.session, &other.session)
    }
}

impl Eq for Setting {}

impl Hash for Setting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.sets, self.pid).hash(state);
    }
}

impl ScalarUDFImpl for Setting {
    fn name(&self) -> &str {
        if self.sets { "set_config" } else { "current_setting" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = |value| Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)));
        let name = match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))) => name,
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(None))) => return text(None),
            _ => return Err(Error::unsupported(format!("{} of a column is not supported yet", self.name())).into()),
        };
        let session = self.session.upgrade().ok_or_else(|| DataFusionError::Internal("the session is over".into()))?;
        let mut variables = session.variables();
        if self.sets {
            let is_local = matches!(args.args.get(2), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
            let set = if is_local { Variables::set_local } else { Variables::set };
            return match args.args.get(1) {
                Some(ColumnarValue::Scalar(ScalarValue::Utf8(value))) => {
                    text(Some(set(&mut variables, name, value.as_deref())?.value))
                }
                _ => Err(Error::unsupported("set_config to a column is not supported yet").into()),
            };
        }
        let missing_ok = matches!(args.args.get(1), Some(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))));
        match variables.show(name) {
            Ok(value) => text(Some(value.to_owned())),
            Err(_) if missing_ok => text(None),
            Err(error) => Err(error.into()),
        }
    }
}
