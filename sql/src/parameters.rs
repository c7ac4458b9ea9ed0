//! Parameters of prepared statements: their types, and values from the wire.
//!
//! A type comes from the client if it names one, else from what stands around the parameter ([`super::infer`]), else it
//! is text. In the query the parameter is cast to it.

use std::collections::HashMap;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use pgwire::api::portal::Portal;
use pgwire::api::results::FieldFormat;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::values::{Raw, scalar};
use crate::error::Error;
use crate::functions::scalar_from_text;

/// The parameters of a statement, `$1` first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Parameters(Vec<Option<Parameter>>);

#[derive(Clone, Debug, PartialEq)]
struct Parameter {
    /// What the client is told, and what it sends.
    wire: Type,
    /// What the value becomes.
    arrow: Option<DataType>,
}

impl Parameters {
    /// As many as the query has, with the types that the client gave, or that stand in the query.
    pub(super) fn hinted(count: usize, hints: &[Option<Type>], written: &HashMap<usize, Type>) -> Parameters {
        let hint = |index: usize| {
            let hint = hints.get(index).cloned().flatten().filter(|hint| *hint != Type::UNKNOWN);
            hint.or_else(|| written.get(&(index + 1)).cloned())
        };
        let parameters = (0..count).map(|index| {
            hint(index).map(|wire| {
                let arrow = arrow_type(&wire);
                Parameter { wire, arrow }
            })
        });
        Parameters(parameters.collect())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// The type a parameter is cast to in the query; `None` while it is open.
    pub(super) fn cast_of(&self, number: usize) -> Option<ast::DataType> {
        self.0.get(number.checked_sub(1)?)?.as_ref().and_then(|parameter| sql_type(&parameter.wire))
    }

    /// The types that are known, by number.
    pub(super) fn known(&self) -> HashMap<usize, Type> {
        let known = self.0.iter().enumerate();
        known.filter_map(|(index, slot)| Some((index + 1, slot.as_ref()?.wire.clone()))).collect()
    }

    /// Fills in what planning found, and text for the rest; returns what those have to be cast to in the query.
    pub(super) fn complete(&mut self, found: &HashMap<usize, Type>) -> HashMap<usize, ast::DataType> {
        let mut casts = HashMap::new();
        for (index, slot) in self.0.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let wire = found.get(&(index + 1)).cloned().unwrap_or(Type::TEXT);
            casts.extend(sql_type(&wire).map(|ty| (index + 1, ty)));
            let arrow = arrow_type(&wire);
            *slot = Some(Parameter { wire, arrow });
        }
        casts
    }

    /// What the client is told.
    pub(crate) fn wire_types(&self) -> Vec<Type> {
        self.0.iter().map(|slot| slot.as_ref().map_or(Type::TEXT, |parameter| parameter.wire.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A plan with NULLs in the place of parameters: it has the types of the plan that will run.
    pub(super) fn with_nulls(&self, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
        if self.0.is_empty() {
            return Ok(plan);
        }
        let nulls = self.0.iter().map(|slot| {
            let arrow = slot.as_ref().and_then(|parameter| parameter.arrow.clone()).unwrap_or(DataType::Utf8);
            ScalarValue::try_from(&arrow)
        });
        let nulls: Vec<ScalarValue> = nulls.collect::<Result<_, _>>()?;
        Ok(plan.replace_params_with_values(&ParamValues::from(nulls))?)
    }
}

/// The values that a client bound, as many as there are parameters.
///
/// # Errors
/// `22P02`, `22P03` and the like if one cannot be read.
pub(crate) fn bind_parameters<S: Clone>(portal: &Portal<S>, parameters: &Parameters) -> Result<ParamValues, Error> {
    let values = portal.parameters.iter().zip(&parameters.0).enumerate().map(|(index, (bytes, parameter))| {
        let (wire, arrow) = match parameter {
            Some(Parameter { wire, arrow }) => (wire, arrow.as_ref()),
            None => (&Type::TEXT, None),
        };
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
            // What is left as text is read as a literal is.
            (ScalarValue::Utf8(Some(text)), Some(arrow)) => Ok(scalar_from_text(&text, arrow)?),
            (value, Some(arrow)) => Ok(value.cast_to(arrow)?),
            (value, None) => Ok(value),
        }
    });
    Ok(ParamValues::from(values.collect::<Result<Vec<_>, Error>>()?))
}

/// What a value of a type becomes; `None` if that is left to the decoder.
fn arrow_type(wire: &Type) -> Option<DataType> {
    Some(match *wire {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::JSONB | Type::UUID => {
            DataType::Utf8
        }
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return None,
    })
}

/// A type as SQL names it. Where DataFusion has no such type it is text, as the value is.
fn sql_type(wire: &Type) -> Option<ast::DataType> {
    let name = match *wire {
        Type::JSON | Type::JSONB | Type::UUID | Type::BPCHAR | Type::NAME => "text",
        Type::OID => "int8",
        Type::OID_ARRAY => "int8[]",
        Type::JSON_ARRAY | Type::JSONB_ARRAY => "text[]",
        Type::TIMESTAMP => "timestamp(6)",
        Type::TIMESTAMPTZ => "timestamp(6) with time zone",
        ref other => match other.name().strip_prefix('_') {
            Some(element) => return parse_type(&format!("{element}[]")).map(stored),
            None => return parse_type(other.name()).map(stored),
        },
    };
    parse_type(name)
}

fn stored(mut data_type: ast::DataType) -> ast::DataType {
    super::rewrite::as_stored(&mut data_type);
    data_type
}

fn parse_type(name: &str) -> Option<ast::DataType> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(name).ok()?.parse_data_type().ok()
}
