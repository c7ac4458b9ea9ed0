//! `convert_from` and `convert_to`: bytes as text and back, in UTF-8, the only encoding.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, sqlstate};

pub(super) fn functions() -> [ScalarUDF; 2] {
    [
        Convert::udf("convert_from", DataType::Binary, DataType::Utf8),
        Convert::udf("convert_to", DataType::Utf8, DataType::Binary),
    ]
}

/// True if the name of an encoding, in any spelling, means UTF-8.
pub fn is_utf8(encoding: &str) -> bool {
    let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    ["utf8", "unicode"].contains(&name.to_ascii_lowercase().as_str())
}

/// Converts bytes to text, or text to bytes, in the encoding that the second argument names.
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
        let values = args.args[0].to_array(args.number_rows)?;
        // The encoding is mostly a constant, which is then checked once.
        let encodings = match &args.args[1] {
            ColumnarValue::Scalar(encoding) => encoding.to_array()?,
            ColumnarValue::Array(encodings) => Arc::clone(encodings),
        };
        let encodings = encodings.as_string::<i32>();
        if let Some(other) = encodings.iter().flatten().find(|encoding| !is_utf8(encoding)) {
            let message = format!("invalid encoding name \"{other}\"");
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint("use 'UTF8'").into());
        }
        let named = |row: usize| encodings.is_valid(if encodings.len() == 1 { 0 } else { row });
        let converted: ArrayRef = match self.to {
            DataType::Utf8 => {
                let rows = values.as_binary::<i32>().iter().enumerate();
                let texts = rows.map(|(row, bytes)| bytes.filter(|_| named(row)).map(text).transpose());
                Arc::new(texts.collect::<Result<StringArray, Error>>()?)
            }
            _ => {
                let rows = values.as_string::<i32>().iter().enumerate();
                let bytes = rows.map(|(row, text)| text.filter(|_| named(row)).map(str::as_bytes));
                Arc::new(bytes.collect::<BinaryArray>())
            }
        };
        Ok(ColumnarValue::Array(converted))
    }
}

/// Checks that bytes are UTF-8 without NUL, which PostgreSQL's texts cannot contain either.
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
        .with_hint("use encode(…, 'hex') for bytes that are not text"))
}
