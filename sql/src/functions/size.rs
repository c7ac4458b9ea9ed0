//! `pg_size_pretty`.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::scalar::ScalarValue;

use crate::error::Error;

/// Prints a number of bytes in a suitable unit.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SizePretty(Signature);

impl SizePretty {
    pub(super) fn new() -> SizePretty {
        SizePretty(Signature::new(TypeSignature::Exact(vec![DataType::Int64]), Volatility::Immutable))
    }
}

impl ScalarUDFImpl for SizePretty {
    fn name(&self) -> &str {
        "pg_size_pretty"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(bytes))) => {
                Ok(ColumnarValue::Scalar(ScalarValue::Utf8(bytes.map(pretty))))
            }
            Some(ColumnarValue::Array(bytes)) => {
                let bytes = bytes.as_primitive::<Int64Type>();
                Ok(ColumnarValue::Array(Arc::new(StringArray::from_iter(bytes.iter().map(|bytes| bytes.map(pretty))))))
            }
            _ => Err(Error::internal("pg_size_pretty has another operand than a bigint").into()),
        }
    }
}

/// Chooses the unit as PostgreSQL does: the next unit begins at about 10,240 of a unit. The number
/// is counted in half units, so that it can be rounded.
fn pretty(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes.unsigned_abs() < 10 * 1024 {
        return format!("{bytes} bytes");
    }
    let mut halves = bytes / (1 << 9);
    let mut unit = 0;
    while halves.unsigned_abs() >= 20 * 1024 - 1 && unit + 1 < UNITS.len() {
        halves /= 1 << 10;
        unit += 1;
    }
    format!("{} {}", (halves + halves.signum()) / 2, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn sizes_are_printed_as_postgresql_prints_them() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (-1, "-1 bytes"),
            (1024, "1024 bytes"),
            (10239, "10239 bytes"),
            (10240, "10 kB"),
            (-10240, "-10 kB"),
            (10752, "11 kB"),
            (20968960, "20 MB"),
            (10485248, "10 MB"),
            (10484735, "10239 kB"),
            (10484736, "10239 kB"),
            (10736893952, "10 GB"),
            (1073741824000, "1000 GB"),
            (-1125899906842624, "-1024 TB"),
            (9223372036854775807, "8192 PB"),
            (-9223372036854775807, "-8192 PB"),
        ] {
            assert_eq!(pretty(bytes), expected);
        }
    }
}
