//! Arithmetic that fails where PostgreSQL's fails.
//!
//! DataFusion's operators wrap around on integer overflow, and return infinities for floating-point
//! overflow. The functions of this module replace them once types are known: they return `22003`
//! for results that do not fit their type, and `22012` for a division by zero. The module
//! determines no types: both operands have the same type by then, which is also the result's.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use datafusion::scalar::ScalarValue;

use crate::error::Error;

/// Replaces DataFusion's operators by the functions of this module. Applied after types are
/// coerced.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic;

impl FunctionRewrite for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(binary) => match Operation::of(binary.op) {
                Some(operation) if is_checked(&binary, schema) => {
                    Transformed::yes(operation.call(vec![*binary.left, *binary.right]))
                }
                _ => Transformed::no(Expr::BinaryExpr(binary)),
            },
            Expr::Negative(operand) if operand.get_type(schema).is_ok_and(|ty| ty.is_signed_integer()) => {
                Transformed::yes(Operation::Negate.call(vec![*operand]))
            }
            expr => Transformed::no(expr),
        })
    }
}

/// True if the operands are integers or floating-point numbers of one type; Arrow checks all others
/// itself. An expression without a type is an error that others report better.
fn is_checked(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema)) else {
        return false;
    };
    left == right && (left.is_integer() || matches!(left, DataType::Float32 | DataType::Float64))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Negate,
}

impl Operation {
    fn of(op: Operator) -> Option<Operation> {
        Some(match op {
            Operator::Plus => Operation::Add,
            Operator::Minus => Operation::Subtract,
            Operator::Multiply => Operation::Multiply,
            Operator::Divide => Operation::Divide,
            Operator::Modulo => Operation::Remainder,
            _ => return None,
        })
    }

    fn call(self, operands: Vec<Expr>) -> Expr {
        let function = ScalarUDF::from(Arithmetic {
            operation: self,
            signature: Signature::any(operands.len(), Volatility::Immutable),
        });
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), operands))
    }

    fn sign(self) -> &'static str {
        match self {
            Operation::Add => "+",
            Operation::Subtract | Operation::Negate => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::Remainder => "%",
        }
    }

    fn apply(self, operands: &[ColumnarValue]) -> Result<ColumnarValue> {
        match (self, operands) {
            (Operation::Add, [left, right]) => apply(left, right, numeric::add),
            (Operation::Subtract, [left, right]) => apply(left, right, numeric::sub),
            (Operation::Multiply, [left, right]) => apply(left, right, numeric::mul),
            (Operation::Divide, [left, right]) => apply(left, right, numeric::div),
            (Operation::Remainder, [left, right]) => apply(left, right, numeric::rem),
            (Operation::Negate, [ColumnarValue::Array(operand)]) => Ok(ColumnarValue::Array(numeric::neg(operand)?)),
            (Operation::Negate, [ColumnarValue::Scalar(operand)]) => {
                let negated = numeric::neg(&operand.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?))
            }
            _ => Err(Error::internal("an operator has another number of operands").into()),
        }
    }

    /// Fails where PostgreSQL would refuse the computation.
    fn check_float(self, left: f64, right: f64, result: f64) -> Result<(), Error> {
        let divides = matches!(self, Operation::Divide | Operation::Remainder);
        if divides && right == 0.0 && !left.is_nan() {
            return Err(Error::division_by_zero());
        }
        if result.is_infinite() && left.is_finite() && right.is_finite() {
            return Err(Error::out_of_range("value out of range: overflow"));
        }
        let zero_is_right = match self {
            Operation::Multiply => left == 0.0 || right == 0.0,
            Operation::Divide => left == 0.0 || right.is_infinite(),
            _ => true,
        };
        if result == 0.0 && !zero_is_right {
            return Err(Error::out_of_range("value out of range: underflow"));
        }
        Ok(())
    }
}

/// An operator. It is named by its sign, so that plans read as they were written.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.operation.sign()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [operand] => format!("(- {operand})"),
            [left, right] => format!("{left} {} {right}", self.name()),
            _ => self.name().to_owned(),
        })
    }

    /// DataFusion's name of the replaced operator, by which other parts of a plan refer to the
    /// column.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [operand] => format!("(- {})", operand.schema_name()),
            [left, right] => format!("{} {} {}", left.schema_name(), self.name(), right.schema_name()),
            _ => self.name().to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        arguments.first().cloned().ok_or_else(|| Error::internal("an operator has no operand").into())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = self.operation.apply(&args.args).map_err(|error| refused(error, args.return_type()))?;
        match args.return_type() {
            DataType::Float32 => self.check_floats::<Float32Type>(&args, &result)?,
            DataType::Float64 => self.check_floats::<Float64Type>(&args, &result)?,
            _ => {}
        }
        Ok(result)
    }
}

impl Arithmetic {
    /// Checks the rows whose results may come from an overflow, an underflow or a division by zero.
    fn check_floats<T: ArrowPrimitiveType>(&self, args: &ScalarFunctionArgs, result: &ColumnarValue) -> Result<()>
    where
        T::Native: Into<f64>,
    {
        let rows = match result {
            ColumnarValue::Array(array) => array.len(),
            ColumnarValue::Scalar(_) => 1,
        };
        let array = |value: &ColumnarValue| -> Result<ArrayRef> { value.to_array(rows) };
        let result = array(result)?;
        let result = result.as_primitive::<T>();
        let suspect = |value: T::Native| {
            let value: f64 = value.into();
            value == 0.0 || !value.is_finite()
        };
        let [left, right] = args.args.as_slice() else { return Ok(()) };
        if !result.values().iter().any(|value| suspect(*value)) {
            return Ok(());
        }
        let (left, right) = (array(left)?, array(right)?);
        let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
        for row in (0..rows).filter(|row| result.is_valid(*row) && suspect(result.value(*row))) {
            let (left, right) = (left.value(row).into(), right.value(row).into());
            self.operation.check_float(left, right, result.value(row).into())?;
        }
        Ok(())
    }
}

/// Rewrites Arrow's error in PostgreSQL's words.
fn refused(error: DataFusionError, ty: &DataType) -> DataFusionError {
    let DataFusionError::ArrowError(arrow, _) = &error else {
        return error;
    };
    match arrow.as_ref() {
        ArrowError::DivideByZero => Error::division_by_zero().into(),
        ArrowError::ArithmeticOverflow(_) => {
            let name = match ty {
                DataType::Int8 | DataType::Int16 => "smallint",
                DataType::Int32 => "integer",
                _ => "bigint",
            };
            Error::out_of_range(format!("{name} out of range")).into()
        }
        _ => error,
    }
}
