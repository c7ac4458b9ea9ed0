//! The values of parameters, from the wire.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::scalar::ScalarValue;
use pgwire::api::portal::Portal;
use pgwire::api::results::FieldFormat;
use weir_sql::error::Error;
use weir_sql::functions::scalar_from_text;
use weir_sql::parameters::Parameters;

use super::values::{Raw, scalar};

/// Parses the values that a client bound, one for each parameter.
///
/// # Errors
/// `22P02`, `22P03` and the like if a value cannot be parsed.
pub(crate) fn bind_parameters<S: Clone>(portal: &Portal<S>, parameters: &Parameters) -> Result<ParamValues, Error> {
    let values = portal.parameters.iter().zip(parameters.types()).enumerate().map(|(index, (bytes, (wire, arrow)))| {
        let Some(bytes) = bytes else {
            return Ok(ScalarValue::try_from(arrow.unwrap_or(&DataType::Utf8))?);
        };
        let raw = match portal.parameter_format.format_for(index) {
            FieldFormat::Text => Raw::Text(bytes),
            FieldFormat::Binary => Raw::Binary(bytes),
        };
        let value = scalar(wire, raw)?;
        match (value, arrow) {
            (value, Some(arrow)) if value.data_type() == *arrow => Ok(value),
            // Remaining text is parsed like a literal.
            (ScalarValue::Utf8(Some(text)), Some(arrow)) => Ok(scalar_from_text(&text, arrow)?),
            (value, Some(arrow)) => Ok(value.cast_to(arrow)?),
            (value, None) => Ok(value),
        }
    });
    Ok(ParamValues::from(values.collect::<Result<Vec<_>, Error>>()?))
}
