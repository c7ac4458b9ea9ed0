//! Functions whose result depends on the session.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_sql::error::Error;

use crate::session::{Session, Variables};
use crate::system::constant;

/// Returns the functions of a session.
pub(crate) fn of_session(session: &Arc<Session>) -> Vec<ScalarUDF> {
    let user = ScalarValue::Utf8(Some(session.user().to_owned()));
    vec![
        constant("session_user", user.clone()),
        constant("current_user", user.clone()),
        constant("current_role", user),
        constant("pg_backend_pid", ScalarValue::Int32(Some(session.pid()))),
        Setting::udf(session, false),
        Setting::udf(session, true),
    ]
}

/// `current_setting(name [, missing_ok])` and `set_config(name, value, is_local)`.
#[derive(Debug)]
struct Setting {
    sets: bool,
    /// Weak, because the session owns the state that owns this function.
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
