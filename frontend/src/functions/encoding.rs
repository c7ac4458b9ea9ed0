//! `convert_from` and `convert_to`: bytes as text and back, in UTF-8, the only encoding that there is.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, sqlstate};
use crate::session::is_utf8;

pub(super) fn functions() -> [ScalarUDF; 2] {
    [
        Convert::udf("convert_from", DataType::Binary, DataType::Utf8),
        Convert::udf("convert_to", DataType::Utf8, DataType::Binary),
    ]
}

/// Bytes as text, or text as bytes, in the encoding that the second argument names.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Convert {
    name: &'static str,
    to: DataType,
    signature: Signature,
}

impl Convert {
    fn udf(name: &'static str, from: DataType, to: DataType) -> ScalarUDF {
        let signature = Signature::exact(vec![from, DataType::Utf8], Volatility::Immutable);
        ScalarUDF::from(Convert { name, to, signature })
    }
}

impl ScalarUDFImpl for Convert {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arguments = ColumnarValue::values_to_arrays(&args.args)?;
        let encodings = cast(&arguments[1], &DataType::Utf8)?;
        if let Some(other) = encodings.as_string::<i32>().iter().flatten().find(|encoding| !is_utf8(encoding)) {
            let message = format!("invalid encoding name \"{other}\"");
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint("use 'UTF8'").into());
        }
        let encodings = encodings.as_string::<i32>().iter();
        let converted: ArrayRef = match self.to {
            DataType::Utf8 => {
                let bytes = cast(&arguments[0], &DataType::Binary)?;
                let texts = bytes.as_binary::<i32>().iter().zip(encodings);
                Arc::new(
                    texts
                        .map(|(bytes, encoding)| bytes.zip(encoding).map(|(bytes, _)| text(bytes)).transpose())
                        .collect::<Result<StringArray, Error>>()?,
                )
            }
            _ => {
                let texts = cast(&arguments[0], &DataType::Utf8)?;
                let bytes = texts.as_string::<i32>().iter().zip(encodings);
                Arc::new(
                    bytes
                        .map(|(text, encoding)| text.zip(encoding).map(|(text, _)| text.as_bytes()))
                        .collect::<BinaryArray>(),
                )
            }
        };
        Ok(ColumnarValue::Array(converted))
    }
}

/// PostgreSQL's texts have no NUL either.
fn text(bytes: &[u8]) -> Result<&str, Error> {
    let (valid, found) = match str::from_utf8(bytes) {
        Ok(text) => match text.bytes().position(|byte| byte == 0) {
            None => return Ok(text),
            Some(place) => (place, 1),
        },
        Err(error) => (error.valid_up_to(), error.error_len().unwrap_or(bytes.len() - error.valid_up_to())),
    };
    let found: Vec<String> = bytes[valid..valid + found].iter().map(|byte| format!("0x{byte:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", found.join(" "));
    Err(Error::user(sqlstate::CHARACTER_NOT_IN_REPERTOIRE, message)
        .with_hint("use encode(…, 'hex') for bytes that are no text"))
}
