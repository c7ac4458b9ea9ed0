//! `json_build_object`: an object of names and values, as PostgreSQL writes it.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use postgres_types::Type;

use crate::error::{Error, sqlstate};
use crate::types::{is_jsonb, mark_of, marked};

pub(super) fn function() -> ScalarUDF {
    let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
    ScalarUDF::from(BuildObject { signature: Signature::new(any, Volatility::Stable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BuildObject {
    signature: Signature,
}

impl ScalarUDFImpl for BuildObject {
    fn name(&self) -> &str {
        "json_build_object"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if !args.arg_fields.len().is_multiple_of(2) {
            let message = "argument list must have even number of elements";
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message)
                .with_hint("the arguments are names and values by turns")
                .into());
        }
        args.arg_fields.iter().try_for_each(|field| Part::of(field).map(|_| ()))?;
        Ok(Arc::new(marked(Field::new(self.name(), DataType::Utf8, false), &Type::JSON)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let parts = args.args.iter().zip(&args.arg_fields).map(|(value, field)| {
            let texts = cast(&value.to_array(args.number_rows)?, &DataType::Utf8)?;
            Ok((Part::of(field)?, texts))
        });
        let parts = parts.collect::<Result<Vec<(Part, ArrayRef)>>>()?;
        let rows = (0..args.number_rows).map(|row| object(&parts, row)).collect::<Result<Vec<String>>>()?;
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(rows))))
    }
}

/// The form in which an argument is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// As a JSON string.
    Text,
    /// As its printed value.
    Plain,
}

impl Part {
    /// # Errors
    /// `0A000` for a type that is not supported yet.
    fn of(field: &Field) -> Result<Part> {
        match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let is_json = is_jsonb(field) || mark_of(field) == Some(Type::JSON);
                Ok(if is_json { Part::Plain } else { Part::Text })
            }
            ty if ty.is_integer() || matches!(ty, DataType::Null | DataType::Boolean) => Ok(Part::Plain),
            ty => Err(Error::unsupported(format!("json_build_object of {ty} is not supported yet"))
                .with_hint("cast the value to text")
                .into()),
        }
    }
}

fn object(parts: &[(Part, ArrayRef)], row: usize) -> Result<String> {
    let mut object = String::from("{");
    for (index, pair) in parts.chunks_exact(2).enumerate() {
        if index > 0 {
            object.push_str(", ");
        }
        let [(_, names), (part, values)] = pair else { continue };
        let (names, values) = (names.as_string::<i32>(), values.as_string::<i32>());
        if names.is_null(row) {
            let message = format!("argument {} cannot be null", 2 * index + 1);
            return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message).with_hint("a name is a text").into());
        }
        let value = match part {
            _ if values.is_null(row) => "null".to_owned(),
            Part::Text => quoted(values.value(row)),
            Part::Plain => values.value(row).to_owned(),
        };
        // A write to a String does not fail.
        let _written = write!(object, "{} : {value}", quoted(names.value(row)));
    }
    object.push('}');
    Ok(object)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
