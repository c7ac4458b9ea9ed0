//! PostgreSQL's types, and the Arrow types that hold their values.
//!
//! Where Arrow has one type for several of PostgreSQL's, a field's metadata names the type
//! ([`marked`]). [`names`] holds the names of types; [`oids`] holds the types whose values are oids
//! that are read and printed as names.

pub mod names;
pub mod oids;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use postgres_types::{Kind, Type};
pub use weir_common::types::is_jsonb;
use weir_common::types::{DECIMAL_PRECISION_MAX, NUMERIC_PRECISION, NUMERIC_SCALE, SqlType, StructField};

use crate::error::Error;

/// The metadata key that holds a type's oid, where Arrow has one type for several of PostgreSQL's.
const MARK: &str = "pg.type";

/// The type in which a column of a result is stored: its own, or the nearest that holds its values.
pub fn stored_type(field: &Field) -> Option<SqlType> {
    if is_jsonb(field) {
        return Some(SqlType::Jsonb);
    }
    let decimal = |precision: u8, scale: i8| {
        let scale = u8::try_from(scale).ok().filter(|scale| *scale <= precision)?;
        let is_numeric = (precision, scale) == (NUMERIC_PRECISION, NUMERIC_SCALE) || precision > DECIMAL_PRECISION_MAX;
        Some(if is_numeric { SqlType::Numeric } else { SqlType::Decimal { precision, scale } })
    };
    Some(match field.data_type() {
        DataType::Boolean => SqlType::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::SmallInt,
        DataType::UInt16 | DataType::Int32 => SqlType::Integer,
        // DataFusion counts in UInt64, where PostgreSQL has a bigint.
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => SqlType::BigInt,
        DataType::Float16 | DataType::Float32 => SqlType::Real,
        DataType::Float64 => SqlType::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return decimal(*precision, *scale),
        // A NULL whose type nothing determines becomes text.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => SqlType::Varchar,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => SqlType::Bytea,
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            zone,
        ) => {
            if zone.is_some() {
                SqlType::Timestamptz
            } else {
                SqlType::Timestamp
            }
        }
        DataType::Interval(_) => SqlType::Interval,
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            SqlType::Array(Box::new(stored_type(element)?))
        }
        DataType::Struct(fields) => {
            let field = |field: &Arc<Field>| Some(StructField { name: field.name().clone(), ty: stored_type(field)? });
            SqlType::Struct(fields.iter().map(field).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Marks a field with a type, unless the field is reported as that type anyway.
pub fn marked(field: Field, ty: &Type) -> Field {
    let known = unmarked_type(&Arc::new(field.clone())).is_ok_and(|unmarked| unmarked == *ty);
    if known { field } else { field.with_metadata([(MARK.to_owned(), ty.oid().to_string())].into()) }
}

/// The type that a field is marked with, if the field's data type still fits it.
pub fn mark_of(field: &Field) -> Option<Type> {
    let ty = Type::from_oid(field.metadata().get(MARK)?.parse().ok()?)?;
    let is_sent_with_name = matches!(field.data_type(), DataType::Struct(_)) && arrow_type(&ty) == DataType::UInt32;
    // The data type must fit, because a cast keeps the mark of its operand.
    (is_sent_with_name || arrow_type(&ty) == *field.data_type()).then_some(ty)
}

/// The PostgreSQL type that a column is reported as.
///
/// # Errors
/// `0A000` for a type that has no counterpart.
pub fn pg_type(field: &Arc<Field>) -> Result<Type, Error> {
    mark_of(field).map_or_else(|| unmarked_type(field), Ok)
}

fn unmarked_type(field: &Arc<Field>) -> Result<Type, Error> {
    if is_jsonb(field) {
        return Ok(Type::JSONB);
    }
    Ok(match field.data_type() {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        // DataFusion counts in UInt64, where PostgreSQL has a bigint.
        DataType::Int64 | DataType::UInt64 => Type::INT8,
        DataType::UInt32 => Type::OID,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Type::NUMERIC
        }
        // There is one type of text; it is reported as varchar, as in RisingWave.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::VARCHAR,
        // A NULL whose type nothing determines.
        DataType::Null => Type::TEXT,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::LargeList(element) if *element.data_type() == DataType::Int16 => Type::INT2_VECTOR,
        DataType::LargeList(element) if *element.data_type() == DataType::UInt32 => Type::OID_VECTOR,
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _)
        | DataType::ListView(element) => array_of(&pg_type(element)?).ok_or_else(|| no_type(field))?,
        // A struct has no name, so it has no type of its own.
        DataType::Struct(_) => Type::RECORD,
        DataType::Dictionary(_, value) => pg_type(&Arc::new(Field::new(field.name(), value.as_ref().clone(), true)))?,
        _ => return Err(no_type(field)),
    })
}

/// The Arrow type for a type of PostgreSQL's catalogs. Oids are the only `UInt32`s and vectors the
/// only `LargeList`s, so both are recognised even where a plan loses the marks of columns.
pub fn arrow_type(ty: &Type) -> DataType {
    let list_of = |element: DataType| Arc::new(Field::new_list_field(element, true));
    match *ty {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::NUMERIC => SqlType::Numeric.arrow(),
        Type::OID
        | Type::XID
        | Type::CID
        | Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGNAMESPACE
        | Type::REGROLE
        | Type::REGCOLLATION => DataType::UInt32,
        Type::INT2_VECTOR => DataType::LargeList(list_of(DataType::Int16)),
        Type::OID_VECTOR => DataType::LargeList(list_of(DataType::UInt32)),
        ref ty => match ty.kind() {
            Kind::Array(element) => DataType::List(list_of(arrow_type(element))),
            _ => DataType::Utf8,
        },
    }
}

pub(crate) fn no_type(field: &Field) -> Error {
    Error::unsupported(format!("column \"{}\" has the type {}, which cannot be sent", field.name(), field.data_type()))
        .with_hint("cast it to a type of PostgreSQL's")
}

/// The precision and scale that a type was declared with, in PostgreSQL's encoding; -1 for none.
pub fn modifier(field: &Field) -> i32 {
    match field.data_type() {
        DataType::Decimal256(NUMERIC_PRECISION, _) => -1,
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (i32::from(*precision) << 16 | i32::from(*scale)) + 4
        }
        DataType::List(element) => modifier(element),
        _ => -1,
    }
}

/// The type of an array of such elements; for an array as the element, the type of that array.
pub fn array_of(element: &Type) -> Option<Type> {
    Some(match *element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::VARCHAR => Type::VARCHAR_ARRAY,
        Type::TEXT => Type::TEXT_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        Type::CHAR => Type::CHAR_ARRAY,
        Type::NAME => Type::NAME_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::XID => Type::XID_ARRAY,
        Type::REGTYPE => Type::REGTYPE_ARRAY,
        Type::ACLITEM => Type::ACLITEM_ARRAY,
        ref array if matches!(array.kind(), Kind::Array(_)) => array.clone(),
        _ => return None,
    })
}
