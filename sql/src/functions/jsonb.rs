//! PostgreSQL's operators and functions of `jsonb`.
//!
//! A jsonb is a text in normal form (see `weir_common::types`). A part of it is in normal form too,
//! so it is copied unchanged: numbers keep their digits, and nothing else is built. Owns the
//! semantics of the operators; `serde_json` parses the text. A missing value is NULL; a JSON null
//! is a value, which only `->>` and `#>>` turn into NULL.

mod operate;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int32Builder, StringArray, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::scalar::ScalarValue;
use sqlparser::ast::BinaryOperator;
use weir_common::types::SqlType;

use crate::error::{Error, sqlstate};
use crate::types::is_jsonb;

pub(in crate::functions) use value::{as_text, normalise};

/// The function that `…::jsonb` calls.
pub(crate) const CAST: &str = "jsonb";

/// The functions that a client can call by name.
pub(super) fn functions() -> Vec<ScalarUDF> {
    [Function::Normalise, Function::TypeOf, Function::ArrayLength].into_iter().map(Function::udf).collect()
}

/// The functions behind the operators, which no client can call by name.
pub(super) fn of_operators() -> Vec<ScalarUDF> {
    let functions = [
        Function::Get,
        Function::GetText,
        Function::GetPath,
        Function::GetPathText,
        Function::Concat,
        Function::Delete,
        Function::DeletePath,
        Function::Contains,
        Function::Exists,
        Function::ExistsAny,
        Function::ExistsAll,
    ];
    functions.into_iter().map(Function::udf).collect()
}

/// Plans the operators: `->`, `->>`, `#>`, `#>>`, `@>`, `<@`, `?`, `?|`, `?&`, `||`, `-`, `#-`, and
/// comparisons.
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match raw.op {
            BinaryOperator::Arrow => Function::Get,
            BinaryOperator::LongArrow => Function::GetText,
            BinaryOperator::HashArrow => Function::GetPath,
            BinaryOperator::HashLongArrow => Function::GetPathText,
            BinaryOperator::Question => Function::Exists,
            BinaryOperator::QuestionPipe => Function::ExistsAny,
            BinaryOperator::QuestionAnd => Function::ExistsAll,
            BinaryOperator::AtArrow | BinaryOperator::ArrowAt => Function::Contains,
            BinaryOperator::HashMinus => Function::DeletePath,
            BinaryOperator::Minus if yields_jsonb(&raw.left, schema) => Function::Delete,
            BinaryOperator::StringConcat if joins_jsonb(&raw, schema) => Function::Concat,
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => {
                return Ok(PlannerResult::Original(with_normal_texts(raw, schema)));
            }
            _ => return Ok(PlannerResult::Original(raw)),
        };
        // Arrays have these two operators as well.
        let is_text = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty.is_string() || ty.is_null());
        if function == Function::Contains && !(is_text(&raw.left) && is_text(&raw.right)) {
            return Ok(PlannerResult::Original(raw));
        }
        let operands = match raw.op {
            BinaryOperator::ArrowAt => vec![raw.right, raw.left],
            _ => vec![raw.left, raw.right],
        };
        let call = ScalarFunction::new_udf(Arc::new(function.udf()), operands);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

/// Normalises a literal or a parameter that is compared with a jsonb.
fn with_normal_texts(mut raw: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    if yields_jsonb(&raw.left, schema) {
        raw.right = beside_jsonb(raw.right);
    } else if yields_jsonb(&raw.right, schema) {
        raw.left = beside_jsonb(raw.left);
    }
    raw
}

/// True if the values of an expression are jsonb. DataFusion drops the mark from expressions that
/// choose between others.
pub(crate) fn yields_jsonb(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Alias(alias) => yields_jsonb(&alias.expr, schema),
        Expr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            results.into_iter().any(|result| yields_jsonb(result, schema))
        }
        Expr::Unnest(unnest) => match unnest.expr.get_type(schema) {
            Ok(DataType::List(element)) => is_jsonb(&element),
            _ => false,
        },
        Expr::ScalarFunction(call) if call.name() == "array_element" => {
            let list = call.args.first().and_then(|list| list.get_type(schema).ok());
            matches!(list, Some(DataType::List(element)) if is_jsonb(&element))
        }
        expr => expr.to_field(schema).is_ok_and(|(_, field)| is_jsonb(&field)),
    }
}

/// True if `||` concatenates two jsonb. Beside a text that is not a literal, it concatenates texts.
fn joins_jsonb(raw: &RawBinaryExpr, schema: &DFSchema) -> bool {
    let fits = |expr: &Expr| yields_jsonb(expr, schema) || is_open(expr);
    (yields_jsonb(&raw.left, schema) && fits(&raw.right)) || (fits(&raw.left) && yields_jsonb(&raw.right, schema))
}

/// True for a literal or a parameter, which has the type of the operand beside it.
fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) | Expr::Placeholder(_) => true,
        // A parameter has this form once its type is known.
        Expr::Cast(cast) => cast.field.data_type().is_string() && matches!(*cast.expr, Expr::Placeholder(_)),
        _ => false,
    }
}

/// The operand of a comparison with a jsonb. A literal or a parameter is converted to jsonb.
pub(crate) fn beside_jsonb(expr: Expr) -> Expr {
    let is_open = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _) | Expr::Placeholder(_));
    let is_text = match &expr {
        // A parameter has this form once its type is known.
        Expr::Cast(cast) => cast.field.data_type().is_string() && is_open(&cast.expr),
        expr => is_open(expr),
    };
    if is_text { Function::Normalise.udf().call(vec![expr]) } else { expr }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Function {
    /// `->`
    Get,
    /// `->>`
    GetText,
    /// `#>`
    GetPath,
    /// `#>>`
    GetPathText,
    /// `||`
    Concat,
    /// `-`
    Delete,
    /// `#-`
    DeletePath,
    /// `@>`
    Contains,
    /// `?`
    Exists,
    /// `?|`
    ExistsAny,
    /// `?&`
    ExistsAll,
    /// `jsonb(text)`, which is also `text::jsonb`.
    Normalise,
    /// `jsonb_typeof`
    TypeOf,
    /// `jsonb_array_length`
    ArrayLength,
}

impl Function {
    fn udf(self) -> ScalarUDF {
        ScalarUDF::from(Jsonb { function: self, signature: Signature::user_defined(Volatility::Immutable) })
    }

    /// PostgreSQL's name of the function behind the operator.
    fn name(self) -> &'static str {
        match self {
            Function::Get => "jsonb_object_field",
            Function::GetText => "jsonb_object_field_text",
            Function::GetPath => "jsonb_extract_path",
            Function::GetPathText => "jsonb_extract_path_text",
            Function::Concat => "jsonb_concat",
            Function::Delete => "jsonb_delete",
            Function::DeletePath => "jsonb_delete_path",
            Function::Contains => "jsonb_contains",
            Function::Exists => "jsonb_exists",
            Function::ExistsAny => "jsonb_exists_any",
            Function::ExistsAll => "jsonb_exists_all",
            Function::Normalise => CAST,
            Function::TypeOf => "jsonb_typeof",
            Function::ArrayLength => "jsonb_array_length",
        }
    }

    fn returns(self) -> SqlType {
        match self {
            Function::Get
            | Function::GetPath
            | Function::Normalise
            | Function::Concat
            | Function::Delete
            | Function::DeletePath => SqlType::Jsonb,
            Function::GetText | Function::GetPathText | Function::TypeOf => SqlType::Varchar,
            Function::Contains | Function::Exists | Function::ExistsAny | Function::ExistsAll => SqlType::Boolean,
            Function::ArrayLength => SqlType::Integer,
        }
    }

    /// True if the second operand is an array of texts: a path, or keys.
    fn takes_texts(self) -> bool {
        matches!(
            self,
            Function::GetPath
                | Function::GetPathText
                | Function::DeletePath
                | Function::ExistsAny
                | Function::ExistsAll
        )
    }

    /// The types that the operands are coerced to.
    fn operands(self, given: &[DataType]) -> Option<Vec<DataType>> {
        let is_text = |ty: &DataType| ty.is_string() || ty.is_null();
        let second = match (self, given) {
            (Function::Normalise | Function::TypeOf | Function::ArrayLength, [only]) if is_text(only) => {
                return Some(vec![DataType::Utf8]);
            }
            (Function::Get | Function::GetText | Function::Delete, [_, key]) if key.is_integer() => DataType::Int64,
            (
                Function::Get
                | Function::GetText
                | Function::Contains
                | Function::Exists
                | Function::Concat
                | Function::Delete,
                [_, key],
            ) if is_text(key) => DataType::Utf8,
            (function, [_, path]) if function.takes_texts() && is_text(path) => DataType::Utf8,
            (function, [_, DataType::List(_)]) if function.takes_texts() || function == Function::Delete => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
            }
            _ => return None,
        };
        given.first().is_some_and(is_text).then(|| vec![DataType::Utf8, second])
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Jsonb {
    function: Function,
    signature: Signature,
}

impl ScalarUDFImpl for Jsonb {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        self.function.operands(given).ok_or_else(|| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let message = format!("function {}({}) does not exist", self.name(), given.join(", "));
            Error::user(sqlstate::UNDEFINED_FUNCTION, message)
                .with_hint("the first operand is a jsonb; the second a text, an integer for -> and ->>, a text[] for #>, #>>, ?| and ?&")
                .into()
        })
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.function.returns().arrow())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.function.returns().field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalars = args.args.iter().all(|operand| matches!(operand, ColumnarValue::Scalar(_)));
        let rows = if all_scalars { 1 } else { args.number_rows };
        let document = args.args.first().ok_or_else(|| Error::internal("a function of jsonb has no operand"))?;
        let document = self.normal(&args, 0, text(&document.to_array(rows)?)?)?;
        let result = match (self.function, args.args.get(1)) {
            (Function::Normalise, _) => texts(&document, |text, _| Ok(Some(Cow::Owned(normalise(text)?))))?,
            (Function::TypeOf, _) => texts(&document, |text, _| Ok(Some(Cow::Borrowed(value::type_of(text)))))?,
            (Function::ArrayLength, _) => lengths(&document)?,
            (Function::Contains, Some(operand)) => {
                let other = self.normal(&args, 1, text(&operand.to_array(rows)?)?)?;
                contained(&document, &other)?
            }
            (Function::Concat, Some(operand)) => {
                let other = self.normal(&args, 1, text(&operand.to_array(rows)?)?)?;
                texts(&document, |left, row| match other.is_valid(row) {
                    true => Ok(Some(Cow::Owned(operate::concat(left, other.value(row))?))),
                    false => Ok(None),
                })?
            }
            (Function::Delete | Function::DeletePath, Some(operand)) => {
                let operand = Operand::new(self.function, operand, rows)?;
                texts(&document, |text, row| Ok(operand.delete(text, row, self.function)?.map(Cow::Owned)))?
            }
            (function, Some(operand)) => with_operand(function, &document, operand, rows)?,
            (_, None) => return Err(Error::internal("an operator of jsonb has one operand").into()),
        };
        if all_scalars {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Jsonb {
    /// Normalises an operand. An operand that is not a jsonb yet is a text that represents one.
    fn normal(&self, args: &ScalarFunctionArgs, index: usize, values: StringArray) -> Result<StringArray> {
        let is_normal = args.arg_fields.get(index).is_some_and(|field| is_jsonb(field));
        if is_normal || self.function == Function::Normalise {
            return Ok(values);
        }
        text(&texts(&values, |text, _| Ok(Some(Cow::Owned(normalise(text)?))))?)
    }
}

fn contained(documents: &StringArray, others: &StringArray) -> Result<ArrayRef> {
    let mut result = BooleanBuilder::with_capacity(documents.len());
    for pair in documents.iter().zip(others) {
        result.append_option(match pair {
            (Some(document), Some(other)) => Some(value::contains(document, other)?),
            _ => None,
        });
    }
    Ok(Arc::new(result.finish()))
}

/// Applies an operator row by row.
fn with_operand(function: Function, document: &StringArray, operand: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    let operand = Operand::new(function, operand, rows)?;
    match function {
        Function::Get | Function::GetPath => {
            texts(document, |text, row| Ok(operand.find(text, row)?.map(Cow::Borrowed)))
        }
        Function::GetText | Function::GetPathText => texts(document, |text, row| match operand.find(text, row)? {
            Some(found) => value::as_text(found),
            None => Ok(None),
        }),
        _ => {
            let mut result = BooleanBuilder::with_capacity(document.len());
            for row in 0..document.len() {
                let found =
                    if document.is_valid(row) { operand.exists(document.value(row), row, function)? } else { None };
                result.append_option(found);
            }
            Ok(Arc::new(result.finish()))
        }
    }
}

/// The second operand of an operator. A constant path is parsed once.
enum Operand {
    Key(StringArray),
    Index(ArrayRef),
    Path(Vec<String>),
    Paths(ArrayRef),
    Null,
}

impl Operand {
    fn new(function: Function, operand: &ColumnarValue, rows: usize) -> Result<Operand> {
        let is_path = function.takes_texts();
        if let (true, ColumnarValue::Scalar(ScalarValue::Utf8(path))) = (is_path, operand) {
            return Ok(match path {
                Some(path) => Operand::Path(value::path(path)?),
                None => Operand::Null,
            });
        }
        let array = operand.to_array(rows)?;
        Ok(match array.data_type() {
            DataType::Int64 => Operand::Index(array),
            DataType::List(_) => Operand::Paths(array),
            _ if is_path => Operand::Paths(array),
            _ => Operand::Key(text(&array)?),
        })
    }

    /// True if a document has the key, or any or all of the keys, in the operand of a row.
    fn exists(&self, document: &str, row: usize, function: Function) -> Result<Option<bool>> {
        let any_or_all = |keys: &mut dyn Iterator<Item = &str>| {
            let decisive = function == Function::ExistsAny;
            for key in keys {
                if value::exists(document, key)? == decisive {
                    return Ok(Some(decisive));
                }
            }
            Ok(Some(!decisive))
        };
        match self {
            Operand::Key(keys) if keys.is_valid(row) => Ok(Some(value::exists(document, keys.value(row))?)),
            Operand::Path(keys) => any_or_all(&mut keys.iter().map(String::as_str)),
            Operand::Paths(keys) if keys.is_valid(row) => match keys.as_list_opt::<i32>() {
                // NULL keys are skipped, as in PostgreSQL.
                Some(lists) => any_or_all(&mut lists.value(row).as_string::<i32>().iter().flatten()),
                None => {
                    let keys = value::path(text(keys)?.value(row))?;
                    any_or_all(&mut keys.iter().map(String::as_str))
                }
            },
            _ => Ok(None),
        }
    }

    /// Removes the parts that the operand of a row names from a document.
    fn delete(&self, document: &str, row: usize, function: Function) -> Result<Option<String>> {
        let without = |steps: &[&str]| match function {
            Function::DeletePath => operate::without_path(document, steps),
            _ => operate::without_keys(document, steps),
        };
        Ok(match self {
            Operand::Key(keys) if keys.is_valid(row) => Some(operate::without_keys(document, &[keys.value(row)])?),
            Operand::Index(indexes) if indexes.is_valid(row) => {
                Some(operate::without_element(document, indexes.as_primitive::<Int64Type>().value(row))?)
            }
            Operand::Path(path) => Some(without(&path.iter().map(String::as_str).collect::<Vec<_>>())?),
            Operand::Paths(paths) if paths.is_valid(row) => match paths.as_list_opt::<i32>() {
                Some(lists) => {
                    let steps = lists.value(row);
                    let steps = steps.as_string::<i32>();
                    if function == Function::DeletePath && steps.null_count() > 0 {
                        return Ok(None);
                    }
                    Some(without(&steps.iter().flatten().collect::<Vec<_>>())?)
                }
                None => {
                    let path = value::path(text(paths)?.value(row))?;
                    Some(without(&path.iter().map(String::as_str).collect::<Vec<_>>())?)
                }
            },
            _ => None,
        })
    }

    /// The part of a document that the operand of a row names.
    fn find<'a>(&self, document: &'a str, row: usize) -> Result<Option<&'a str>> {
        let found = match self {
            Operand::Key(keys) if keys.is_valid(row) => value::member(document, keys.value(row)),
            Operand::Index(indexes) if indexes.is_valid(row) => {
                value::element(document, indexes.as_primitive::<Int64Type>().value(row))
            }
            Operand::Path(path) => value::at_path(document, path.iter().map(String::as_str)),
            Operand::Paths(paths) if paths.is_valid(row) => match paths.as_list_opt::<i32>() {
                Some(lists) => {
                    let steps = lists.value(row);
                    let steps = steps.as_string::<i32>();
                    if steps.null_count() > 0 {
                        return Ok(None);
                    }
                    value::at_path(document, steps.iter().flatten())
                }
                None => {
                    let path = value::path(text(paths)?.value(row))?;
                    value::at_path(document, path.iter().map(String::as_str))
                }
            },
            _ => return Ok(None),
        };
        Ok(found?)
    }
}

fn text(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Maps each document that is not NULL to a text.
fn texts<'a>(
    documents: &'a StringArray,
    of: impl Fn(&'a str, usize) -> Result<Option<Cow<'a, str>>>,
) -> Result<ArrayRef> {
    let mut result = StringBuilder::with_capacity(documents.len(), 0);
    for row in 0..documents.len() {
        match documents.is_valid(row).then(|| of(documents.value(row), row)).transpose()?.flatten() {
            Some(text) => result.append_value(text),
            None => result.append_null(),
        }
    }
    Ok(Arc::new(result.finish()))
}

/// The elements of an array.
///
/// # Errors
/// `22023` if the value is not an array.
pub(super) fn elements(document: &str) -> Result<Vec<String>, Error> {
    let refused =
        |what: &str| Error::user(sqlstate::INVALID_PARAMETER_VALUE, format!("cannot extract elements from {what}"));
    match value::type_of(document) {
        "array" => Ok(value::elements(document)?.into_iter().map(|element| element.get().to_owned()).collect()),
        "object" => Err(refused("an object")),
        _ => Err(refused("a scalar")),
    }
}

/// The keys of an object and their values, in the order of the normal form.
///
/// # Errors
/// `22023` if the value is not an object.
pub(super) fn members(document: &str, function: &str) -> Result<Vec<(String, String)>, Error> {
    let kind = value::type_of(document);
    if kind != "object" {
        let message = match (function, kind) {
            ("jsonb_object_keys", "array") => "cannot call jsonb_object_keys on an array".to_owned(),
            ("jsonb_object_keys", _) => "cannot call jsonb_object_keys on a scalar".to_owned(),
            (function, _) => format!("cannot call {function} on a non-object"),
        };
        return Err(Error::user(sqlstate::INVALID_PARAMETER_VALUE, message));
    }
    let members = value::members(document)?;
    let mut members: Vec<(String, String)> =
        members.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect();
    members.sort_unstable_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)));
    Ok(members)
}

fn lengths(documents: &StringArray) -> Result<ArrayRef> {
    let mut result = Int32Builder::with_capacity(documents.len());
    for document in documents {
        result.append_option(document.map(value::array_length).transpose()?);
    }
    Ok(Arc::new(result.finish()))
}
