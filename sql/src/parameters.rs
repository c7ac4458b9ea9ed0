//! The types of a prepared statement's parameters.
//!
//! The client may name the type. Otherwise the text determines it (`placeholders`), or the
//! parameter's surroundings in the plan (`infer`), or it is text. The query casts the parameter to
//! its type.

pub(crate) mod infer;
pub(crate) mod placeholders;

use std::collections::HashMap;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use postgres_types::Type;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use crate::error::Error;
use crate::syntax::as_stored;

/// The parameters of a statement; `$1` is the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters(Vec<Option<Parameter>>);

#[derive(Clone, Debug, PartialEq)]
struct Parameter {
    /// The type that the client is told, and whose values it sends.
    wire: Type,
    /// The Arrow type of the value; `None` if the decoder chooses it.
    arrow: Option<DataType>,
}

impl Parameters {
    /// `count` parameters, with the types that the client gave or that the query states.
    pub(crate) fn hinted(count: usize, hints: &[Option<Type>], written: &HashMap<usize, Type>) -> Parameters {
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

    pub(crate) fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// The type that the query casts a parameter to; `None` while it is open.
    pub(crate) fn cast_of(&self, number: usize) -> Option<ast::DataType> {
        self.0.get(number.checked_sub(1)?)?.as_ref().and_then(|parameter| sql_type(&parameter.wire))
    }

    /// The known types, by parameter number.
    pub(crate) fn known(&self) -> HashMap<usize, Type> {
        let known = self.0.iter().enumerate();
        known.filter_map(|(index, slot)| Some((index + 1, slot.as_ref()?.wire.clone()))).collect()
    }

    /// Sets the open types: those that planning found, and text for the rest. Returns the casts
    /// that the query needs for these parameters.
    pub(crate) fn complete(&mut self, found: &HashMap<usize, Type>) -> HashMap<usize, ast::DataType> {
        let mut casts = HashMap::new();
        for (index, slot) in self.0.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let wire = found.get(&(index + 1)).cloned().unwrap_or(Type::TEXT);
            casts.extend(sql_type(&wire).map(|ty| (index + 1, ty)));
            let arrow = arrow_type(&wire);
            *slot = Some(Parameter { wire, arrow });
        }
        casts
    }

    /// The types that the client is told.
    pub fn wire_types(&self) -> Vec<Type> {
        self.0.iter().map(|slot| slot.as_ref().map_or(Type::TEXT, |parameter| parameter.wire.clone())).collect()
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For each parameter, the type that the client sends, and the Arrow type of the value; `None`
    /// if the decoder chooses it.
    pub fn types(&self) -> impl Iterator<Item = (&Type, Option<&DataType>)> {
        self.0.iter().map(|slot| match slot {
            Some(Parameter { wire, arrow }) => (wire, arrow.as_ref()),
            None => (&Type::TEXT, None),
        })
    }

    /// Replaces the parameters of a plan by NULLs. The result has the types of the plan that will
    /// run.
    ///
    /// # Errors
    /// Internal, if the plan does not take such a value.
    pub fn with_nulls(&self, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
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

/// The Arrow type of a type's values; `None` if the decoder chooses it.
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

/// A type as SQL names it. A type that DataFusion lacks becomes text, as its values are.
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
    as_stored(&mut data_type);
    data_type
}

fn parse_type(name: &str) -> Option<ast::DataType> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(name).ok()?.parse_data_type().ok()
}
