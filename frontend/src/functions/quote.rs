//! `quote_literal` and `quote_ident`.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use sqlparser::keywords::ALL_KEYWORDS;

pub(super) fn functions() -> [ScalarUDF; 2] {
    [("quote_literal", literal as fn(&str) -> String), ("quote_ident", identifier)].map(|(name, quote)| {
        ScalarUDF::from(Quote { name, quote, signature: Signature::string(1, Volatility::Immutable) })
    })
}

/// A text as it has to be written in a statement.
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
        let texts = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = cast(&texts[0], &DataType::Utf8)?;
        let quoted = texts.as_string::<i32>().iter().map(|text| text.map(self.quote));
        Ok(ColumnarValue::Array(Arc::new(StringArray::from_iter(quoted))))
    }
}

fn literal(text: &str) -> String {
    let escapes = if text.contains('\\') { "E" } else { "" };
    format!("{escapes}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// More words are quoted here than PostgreSQL reserves, which does no harm.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && ALL_KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()).is_err();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
