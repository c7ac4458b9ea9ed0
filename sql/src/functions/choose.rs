//! Expressions that choose between others: CASE, `coalesce`, `nullif`, `greatest`, `least`.
//!
//! Only the field of a column marks its values as jsonb, and DataFusion drops that mark from the
//! results of these expressions. CASE is therefore planned as a function whose field has the mark,
//! and turned back into CASE before types are coerced; the others are wrapped.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Case, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use weir_common::types::SqlType;

use super::jsonb::yields_jsonb;
use crate::error::Error;
use crate::types::is_jsonb;

/// CASE without and with an operand, as functions. The arguments are the operand, then pairs of a
/// condition and a result, then the result of ELSE.
pub(crate) const CASES: [&str; 2] = ["__case", "__case_of"];

/// The function that marks texts in normal form as jsonb.
pub(crate) const KEPT: &str = "__jsonb";

/// DataFusion's functions that choose.
const CHOOSERS: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

pub(super) fn functions() -> Vec<ScalarUDF> {
    let case = |name| ScalarUDF::from(CaseCall { name, signature: Signature::user_defined(Volatility::Immutable) });
    let kept = ScalarUDF::from(Kept(Signature::any(1, Volatility::Immutable)));
    CASES.into_iter().map(case).chain([kept]).collect()
}

/// DataFusion's functions that choose, with fields that mark jsonb results. `find` returns
/// DataFusion's function of a name.
pub(crate) fn choosing(find: impl Fn(&str) -> Option<Arc<ScalarUDF>>) -> Vec<ScalarUDF> {
    CHOOSERS.iter().filter_map(|name| find(name).map(|inner| ScalarUDF::from(Chooser { inner }))).collect()
}

/// Turns a call that stands for CASE back into CASE; returns other calls unchanged.
///
/// # Errors
/// Internal, if such a call has too few arguments.
pub(crate) fn as_case(call: ScalarFunction, schema: &DFSchema) -> Result<Result<Expr, ScalarFunction>> {
    let Some(kind) = CASES.iter().position(|name| call.name() == *name) else { return Ok(Err(call)) };
    let mut arguments = call.args.into_iter().map(Box::new);
    let operand = if kind == 1 { arguments.next() } else { None };
    let (mut when_then_expr, mut else_expr) = (Vec::new(), None);
    while let Some(condition) = arguments.next() {
        match arguments.next() {
            Some(result) => when_then_expr.push((condition, result)),
            None => else_expr = Some(condition),
        }
    }
    if when_then_expr.is_empty() {
        return Err(Error::internal("a CASE has no conditions").into());
    }
    let case = Expr::Case(Case::new(operand, when_then_expr, else_expr));
    Ok(Ok(if yields_jsonb(&case, schema) { kept_jsonb(case) } else { case }))
}

/// Marks the values of an expression as jsonb in normal form.
pub(crate) fn kept_jsonb(expr: Expr) -> Expr {
    let function = ScalarUDF::from(Kept(Signature::any(1, Volatility::Immutable)));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![expr]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CaseCall {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for CaseCall {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        Ok(given.to_vec())
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Err(Error::internal("the type of a CASE is that of its results").into())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let fields = &args.arg_fields[usize::from(self.name == CASES[1]).min(args.arg_fields.len())..];
        let results = fields.chunks(2).map(|pair| &pair[pair.len() - 1]);
        let jsonb = results.clone().find(|field| is_jsonb(field));
        let typed = results.clone().find(|field| !field.data_type().is_null());
        let field = jsonb.or(typed).or_else(|| results.clone().next());
        let field = field.ok_or_else(|| Error::internal("a CASE has no results"))?;
        Ok(Arc::new(field.as_ref().clone().with_name(self.name).with_nullable(true)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(Error::internal("a CASE is still a function when it runs").into())
    }
}

#[derive(Debug)]
struct Chooser {
    inner: Arc<ScalarUDF>,
}

impl PartialEq for Chooser {
    fn eq(&self, other: &Chooser) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Chooser {}

impl Hash for Chooser {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Chooser {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let jsonb = args.arg_fields.iter().any(|field| is_jsonb(field));
        let field = self.inner.inner().return_field_from_args(args)?;
        let is_text = field.data_type().is_string();
        Ok(if jsonb && is_text { Arc::new(SqlType::Jsonb.field(field.name())) } else { field })
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(arguments)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let jsonb = args.iter().any(|argument| yields_jsonb(argument, info.schema()));
        Ok(match self.inner.inner().simplify(args, info)? {
            ExprSimplifyResult::Simplified(expr) if jsonb => ExprSimplifyResult::Simplified(kept_jsonb(expr)),
            simplified => simplified,
        })
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.inner().conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.inner().short_circuits()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kept(Signature);

impl ScalarUDFImpl for Kept {
    fn name(&self) -> &str {
        KEPT
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(SqlType::Jsonb.arrow())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(SqlType::Jsonb.field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(|| Error::internal("a jsonb is missing").into())
    }
}
