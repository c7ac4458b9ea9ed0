//! Functions that look up objects in the catalogs: names by oids, oids by names, and definitions of
//! objects as SQL.
//!
//! Each function maps one row, given as [`Cell`]s. Functions of names read the newest catalog that
//! this frontend knows; every statement that calls one has refreshed it.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt32Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use weir_sql::error::{Error, sqlstate};
use weir_sql::parser::{DATABASE, PG_CATALOG};
use weir_sql::types::names as type_names;
use weir_sql::types::{arrow_type, marked};

use super::cells::{Cell, array};
use super::names;
use super::objects::{Lookup, index_definition, key_columns, quoted};
use super::relations::Column;
use super::searching::Searching;
use super::{ROOT, ROOT_OID};
use crate::catalog::CatalogCache;
use crate::names::SearchPath;

/// The type to which an argument is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An oid; a literal is an oid in digits.
    Oid,
    /// An oid, or the name of an object as text.
    Named,
    Int,
    Text,
    Bool,
}

/// Computes the function for one row.
type Answer = fn(&Catalogs, &[Cell]) -> Result<Cell, Error>;

/// The catalog in which functions look up objects.
pub(super) struct Catalogs {
    cache: CatalogCache,
    path: SearchPath,
    lookup: OnceLock<Lookup>,
}

impl Catalogs {
    /// Returns the lookup, made at its first use in a batch.
    ///
    /// # Errors
    /// Internal.
    pub(super) fn lookup(&self) -> Result<&Lookup, Error> {
        if let Some(lookup) = self.lookup.get() {
            return Ok(lookup);
        }
        let lookup = Lookup::new(&self.cache.newest(), self.path.clone())?;
        Ok(self.lookup.get_or_init(|| lookup))
    }
}

/// A function, as SQL calls it.
pub(super) struct Declared {
    name: &'static str,
    takes: &'static [Kind],
    /// The minimum number of arguments.
    required: usize,
    gives: Type,
    /// True if it returns NULL whenever an argument is NULL.
    is_strict: bool,
    answer: Answer,
}

/// Declares a function that returns NULL whenever an argument is NULL.
pub(super) fn strict(
    name: &'static str,
    takes: &'static [Kind],
    required: usize,
    gives: Type,
    answer: Answer,
) -> Declared {
    Declared { name, takes, required, gives, is_strict: true, answer }
}

/// Returns all functions of this module and of [`names`].
pub(in crate::system) fn functions(cache: &CatalogCache) -> Vec<ScalarUDF> {
    let declared = names::functions().into_iter().chain(descriptions()).chain(places()).chain(privileges());
    declared
        .map(|declared| {
            let signature = Signature::user_defined(Volatility::Stable);
            ScalarUDF::from(Function { declared, cache: cache.clone(), signature })
        })
        .collect()
}

/// Functions that return definitions of objects, and properties.
fn descriptions() -> Vec<Declared> {
    use Kind::{Bool, Int, Named, Oid, Text};
    vec![
        Declared { is_strict: false, ..strict("format_type", &[Oid, Int], 2, Type::TEXT, format_type) },
        strict("pg_get_userbyid", &[Oid], 1, Type::NAME, |_, row| {
            Ok(match row {
                [Cell::Int(oid)] if *oid == i64::from(ROOT_OID) => ROOT.into(),
                [Cell::Int(oid)] => format!("unknown (OID={oid})").into(),
                _ => Cell::Null,
            })
        }),
        strict("pg_get_indexdef", &[Oid, Int, Bool], 1, Type::TEXT, index_text),
        strict("pg_get_constraintdef", &[Oid, Bool], 1, Type::TEXT, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            let found = oid(row).and_then(|oid| lookup.constrained(oid));
            Ok(found.map(|(object, key)| format!("PRIMARY KEY ({})", key_columns(object, key))).into())
        }),
        // The second argument, of any kind, is the layout of the text.
        strict("pg_get_viewdef", &[Named, Named], 1, Type::TEXT, |catalogs, row| {
            let (relation, lookup) = (names::relation(catalogs, row)?, catalogs.lookup()?);
            Ok(relation.and_then(|oid| lookup.object(oid)?.definition.clone()).into())
        }),
        // Expressions are stored as they were written.
        strict("pg_get_expr", &[Text, Oid, Bool], 2, Type::TEXT, |_, row| match row.first() {
            Some(Cell::Text(text)) => Ok(text.clone().into()),
            _ => Ok(Cell::Null),
        }),
        strict("obj_description", &[Oid, Text], 1, Type::TEXT, |catalogs, row| {
            let of_relation = match row.get(1) {
                Some(Cell::Text(catalog)) => matches!(catalog.trim_start_matches("pg_catalog."), "pg_class"),
                _ => true,
            };
            let lookup = catalogs.lookup()?;
            let of_schema = matches!(row.get(1), Some(Cell::Text(catalog)) if catalog.ends_with("pg_namespace"));
            if of_schema {
                let schema = oid(row).and_then(|oid| lookup.namespace_by_oid(oid));
                return Ok(schema.and_then(|schema| schema.comment.clone()).into());
            }
            let found = oid(row).filter(|_| of_relation).and_then(|oid| lookup.object(oid));
            Ok(found.and_then(|object| object.comment.clone()).into())
        }),
        strict("col_description", &[Oid, Int], 2, Type::TEXT, |catalogs, row| {
            let (lookup, number) = (catalogs.lookup()?, row.get(1));
            let object = oid(row).and_then(|oid| lookup.object(oid));
            Ok(match (object, number) {
                (Some(object), Some(Cell::Int(number))) => {
                    object.column(*number).and_then(|column| column.comment.clone()).into()
                }
                _ => Cell::Null,
            })
        }),
        strict("pg_encoding_to_char", &[Int], 1, Type::NAME, |_, row| {
            Ok(match row {
                [Cell::Int(0)] => "SQL_ASCII",
                [Cell::Int(6)] => "UTF8",
                _ => "",
            }
            .into())
        }),
        strict("pg_char_to_encoding", &[Text], 1, Type::INT4, |_, row| {
            let is_utf8 = matches!(row, [Cell::Text(name)] if name.replace('-', "").eq_ignore_ascii_case("utf8"));
            Ok(Cell::from(if is_utf8 { 6 } else { -1 }))
        }),
        strict("pg_index_column_has_property", &[Oid, Int, Text], 3, Type::BOOL, index_property),
        strict("parse_ident", &[Text, Bool], 1, Type::TEXT_ARRAY, |_, row| match row.first() {
            Some(Cell::Text(text)) => Ok(Cell::Texts(names::identifiers(text)?)),
            _ => Ok(Cell::Null),
        }),
    ]
}

fn nothing(_catalogs: &Catalogs, _row: &[Cell]) -> Result<Cell, Error> {
    Ok(Cell::Null)
}

fn format_type(_catalogs: &Catalogs, row: &[Cell]) -> Result<Cell, Error> {
    let modifier = match row.get(1) {
        Some(Cell::Int(modifier)) => i32::try_from(*modifier).ok(),
        _ => None,
    };
    // `None` and a modifier of -1 only differ for the type character.
    Ok(oid(row).map(|oid| type_names::format_type(oid, modifier)).into())
}

fn index_text(catalogs: &Catalogs, row: &[Cell]) -> Result<Cell, Error> {
    let lookup = catalogs.lookup()?;
    let Some((object, key)) = oid(row).and_then(|oid| lookup.indexed(oid)) else { return Ok(Cell::Null) };
    Ok(match row.get(1) {
        Some(Cell::Int(number)) if *number > 0 => {
            let place = usize::try_from(number - 1).unwrap_or(usize::MAX);
            let column = key.columns.get(place).and_then(|number| object.column(*number));
            column.map_or_else(String::new, |column| quoted(&column.name))
        }
        _ => index_definition(object, key),
    }
    .into())
}

/// The index of a key is in ascending order, and NULL would come last.
fn index_property(catalogs: &Catalogs, row: &[Cell]) -> Result<Cell, Error> {
    let lookup = catalogs.lookup()?;
    let (Some((_, key)), [_, Cell::Int(number), Cell::Text(property)]) =
        (oid(row).and_then(|oid| lookup.indexed(oid)), row)
    else {
        return Ok(Cell::Null);
    };
    if usize::try_from(*number).map_or(true, |number| number == 0 || number > key.columns.len()) {
        return Ok(Cell::Null);
    }
    Ok(match property.to_lowercase().as_str() {
        "asc" | "nulls_last" | "orderable" | "returnable" | "search_array" | "search_nulls" => true.into(),
        "desc" | "nulls_first" | "distance_orderable" => false.into(),
        _ => Cell::Null,
    })
}

/// Functions of the search path and of visibility.
fn places() -> Vec<Declared> {
    use Kind::{Bool, Oid, Text};
    let always = |name| strict(name, &[Oid], 1, Type::BOOL, |_, _| Ok(true.into()));
    let mut places = vec![
        strict("pg_table_is_visible", &[Oid], 1, Type::BOOL, |catalogs, row| {
            let lookup = catalogs.lookup()?;
            let found = oid(row).and_then(|oid| lookup.by_oid(oid));
            Ok(found.map(|found| lookup.is_visible(&found)).into())
        }),
        strict("current_schema", &[], 0, Type::NAME, |catalogs, _| {
            Ok(catalogs.lookup()?.searched().next().map(str::to_owned).into())
        }),
        strict("current_schemas", &[Bool], 1, Type::NAME_ARRAY, |catalogs, row| {
            let mut schemas: Vec<String> = catalogs.lookup()?.searched().map(str::to_owned).collect();
            let implicit = matches!(row, [Cell::Bool(true)]);
            if implicit && !schemas.iter().any(|schema| schema == PG_CATALOG) {
                schemas.insert(0, PG_CATALOG.to_owned());
            }
            Ok(Cell::Texts(schemas))
        }),
        strict("current_database", &[], 0, Type::NAME, |_, _| Ok(DATABASE.into())),
        strict("current_catalog", &[], 0, Type::NAME, |_, _| Ok(DATABASE.into())),
        strict("pg_relation_is_publishable", &[Oid], 1, Type::BOOL, |_, _| Ok(false.into())),
        strict("pg_is_other_temp_schema", &[Oid], 1, Type::BOOL, |_, _| Ok(false.into())),
        strict("pg_get_serial_sequence", &[Text, Text], 2, Type::TEXT, nothing),
    ];
    let visible = [
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_conversion_is_visible",
        "pg_collation_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
    ];
    places.extend(visible.map(always));
    places
}

/// Functions of privileges. Everybody may do everything.
fn privileges() -> Vec<Declared> {
    use Kind::Named;
    let names = [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_column_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "has_type_privilege",
        "has_language_privilege",
        "has_tablespace_privilege",
        "has_foreign_data_wrapper_privilege",
        "has_server_privilege",
        "pg_has_role",
    ];
    names.map(|name| strict(name, &[Named, Named, Named, Named], 2, Type::BOOL, |_, _| Ok(true.into()))).into()
}

/// Returns the oid in a row's first argument.
pub(super) fn oid(row: &[Cell]) -> Option<u32> {
    match row.first() {
        Some(Cell::Int(oid)) => u32::try_from(*oid).ok(),
        _ => None,
    }
}

/// A function in DataFusion's form.
struct Function {
    declared: Declared,
    cache: CatalogCache,
    signature: Signature,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.declared.name).finish()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.declared.name == other.declared.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.declared.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.declared.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let Declared { name, takes, required, .. } = &self.declared;
        let refused = || {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let message = format!("function {name}({}) does not exist", given.join(", "));
            Error::user(sqlstate::UNDEFINED_FUNCTION, message)
        };
        if given.len() < *required || given.len() > takes.len() {
            return Err(refused().into());
        }
        let read_as = |(kind, ty): (&Kind, &DataType)| {
            let is_text = ty.is_string();
            match kind {
                Kind::Named if is_text => Some(DataType::Utf8),
                // Only the layout of a view's text.
                Kind::Named if *ty == DataType::Boolean => Some(DataType::Boolean),
                Kind::Oid | Kind::Named if is_text || ty.is_integer() || ty.is_null() => Some(DataType::UInt32),
                Kind::Int if is_text || ty.is_integer() || ty.is_null() => Some(DataType::Int64),
                Kind::Text if is_text || ty.is_null() => Some(DataType::Utf8),
                Kind::Bool if is_text || ty.is_null() || *ty == DataType::Boolean => Some(DataType::Boolean),
                _ => None,
            }
        };
        let types: Option<Vec<DataType>> = takes.iter().zip(given).map(read_as).collect();
        Ok(types.ok_or_else(refused)?)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(arrow_type(&self.declared.gives))
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = Field::new(self.declared.name, arrow_type(&self.declared.gives), true);
        Ok(Arc::new(marked(field, &self.declared.gives)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let path = Searching::path(&args.config_options);
        let catalogs = Catalogs { cache: self.cache.clone(), path, lookup: OnceLock::new() };
        let is_constant = args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|argument| argument.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let answers = (0..rows).map(|row| {
            let row: Vec<Cell> = arrays.iter().map(|array| argument(array, row)).collect();
            if self.declared.is_strict && row.contains(&Cell::Null) {
                return Ok(Cell::Null);
            }
            (self.declared.answer)(&catalogs, &row)
        });
        let answers = answers.collect::<Result<Vec<Cell>, Error>>()?;
        let column = Column { name: self.declared.name, ty: self.declared.gives.clone(), is_nullable: true };
        let answers = array(&column, &answers)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?),
            false => ColumnarValue::Array(answers),
        })
    }
}

/// Returns a value of one of the types that [`Function::coerce_types`] accepts.
fn argument(array: &ArrayRef, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match array.data_type() {
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        _ => Cell::Null,
    }
}
