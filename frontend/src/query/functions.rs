//! Functions whose result depends on the session.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;
use weir_sql::error::{Error, sqlstate};

use crate::session::{Messages, Session, Variables};
use crate::system::constant;
use crate::waits::{Relations, Wait, Waits};

/// Returns the functions of a session.
pub(crate) fn of_session(session: &Arc<Session>, waits: &Waits) -> Vec<ScalarUDF> {
    let user = ScalarValue::Utf8(Some(session.user().to_owned()));
    vec![
        constant("session_user", user.clone()),
        constant("current_user", user.clone()),
        constant("current_role", user),
        constant("pg_backend_pid", ScalarValue::Int32(Some(session.pid()))),
        Setting::udf(session, false),
        Setting::udf(session, true),
        WaitFor::udf(session, waits),
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

/// `weir_wait_for(stream, sequence)`: returns true once every table and view that reads the stream
/// includes the message.
struct WaitFor {
    /// Weak, because the session owns the state that owns this function.
    session: Weak<Session>,
    pid: i32,
    waits: Waits,
    signature: Signature,
}

impl WaitFor {
    fn udf(session: &Arc<Session>, waits: &Waits) -> ScalarUDF {
        let function = WaitFor {
            session: Arc::downgrade(session),
            pid: session.pid(),
            waits: waits.clone(),
            signature: Signature::exact(vec![DataType::Utf8, DataType::Int64], Volatility::Volatile),
        };
        AsyncScalarUDF::new(Arc::new(function)).into_scalar_udf()
    }

    async fn wait(&self, stream: &str, sequence: i64) -> Result<(), Error> {
        let session = self.session.upgrade().ok_or_else(|| Error::internal("the session is over"))?;
        let sequence = u64::try_from(sequence).map_err(|_| {
            Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("{sequence} is not a sequence of a stream"))
        })?;
        let timeout = session.variables().wait_for_timeout();
        let wait = Wait::new(Messages::one(stream, sequence), Relations::All, timeout);
        self.waits.acquire(&session, &wait).await?;
        Ok(())
    }
}

impl fmt::Debug for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl PartialEq for WaitFor {
    fn eq(&self, other: &WaitFor) -> bool {
        self.pid == other.pid && Weak::ptr_eq(&self.session, &other.session)
    }
}

impl Eq for WaitFor {}

impl Hash for WaitFor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pid.hash(state);
    }
}

impl ScalarUDFImpl for WaitFor {
    fn name(&self) -> &str {
        "weir_wait_for"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::unsupported("weir_wait_for cannot be called here").into())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for WaitFor {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [streams, sequences] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("weir_wait_for has two arguments".into()));
        };
        let (streams, sequences) = (streams.as_string::<i32>(), sequences.as_primitive::<Int64Type>());
        let mut waited = Vec::with_capacity(streams.len());
        for message in streams.iter().zip(sequences) {
            waited.push(match message {
                (Some(stream), Some(sequence)) => Some(self.wait(stream, sequence).await.map(|()| true)?),
                _ => None,
            });
        }
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(waited)) as ArrayRef))
    }
}
