//! `quote_literal`, `quote_nullable` and `quote_ident`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::error::Error;
use crate::keywords::quoted_identifier;
use crate::output::texts;

pub(super) fn functions() -> [ScalarUDF; 3] {
    let (any, text) = (Signature::any(1, Volatility::Immutable), Signature::string(1, Volatility::Immutable));
    [
        Quote { name: "quote_literal", quote: literal, signature: any.clone() },
        Quote { name: "quote_nullable", quote: literal, signature: any },
        Quote { name: "quote_ident", quote: quoted_identifier, signature: text },
    ]
    .map(ScalarUDF::from)
}

/// Writes a text in the form that a statement needs.
#[derive(Debug)]
struct Quote {
    name: &'static str,
    quote: fn(&str) -> String,
    signature: Signature,
}

impl PartialEq for Quote {
    fn eq(&self, other: &Quote) -> bool {
        self.name == other.name
    }
}

impl Eq for Quote {}

impl Hash for Quote {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Quote {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(value), Some(field)) = (args.args.first(), args.arg_fields.first()) else {
            return Err(Error::internal("quote has no argument").into());
        };
        let values = texts(&value.to_array(args.number_rows)?, field)?;
        let of_null = (self.name == "quote_nullable").then(|| "NULL".to_owned());
        let quoted = values.as_string::<i32>().iter().map(|text| text.map(self.quote).or_else(|| of_null.clone()));
        Ok(ColumnarValue::Array(Arc::new(StringArray::from_iter(quoted))))
    }
}

pub(super) fn literal(text: &str) -> String {
    let escapes = if text.contains('\\') { "E" } else { "" };
    format!("{escapes}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
