//! Infers the types of parameters that a client leaves open from their surroundings.
//!
//! The rules are PostgreSQL's: a parameter has the type of the other operand, of the other results
//! of CASE or COALESCE, or of the function's argument. The first use that determines a type
//! decides. Where none does, the caller takes text.
//!
//! The plan must have PostgreSQL's types ([`crate::rules`]) but no coercions yet.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, Alias, InList, InSubquery, Placeholder, ScalarFunction, SetComparison, WindowFunction,
};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Case, Expr, ExprSchemable, Like, LogicalPlan, Operator, Values};
use postgres_types::{Kind, Type};

use crate::functions::yields_jsonb;
use crate::rules::compares;
use crate::types::pg_type;

/// The types that a plan gives to parameters, by their numbers.
///
/// # Errors
/// DataFusion's, if the plan cannot be walked.
pub(crate) fn parameter_types(plan: &LogicalPlan, known: HashMap<usize, Type>) -> Result<HashMap<usize, Type>> {
    let mut found = Found(known);
    // Types that the first walk finds may determine others in the second.
    found.in_plan(plan)?;
    found.in_plan(plan)?;
    Ok(found.0)
}

struct Found(HashMap<usize, Type>);

impl Found {
    fn in_plan(&mut self, plan: &LogicalPlan) -> Result<()> {
        plan.apply_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            match node {
                LogicalPlan::Filter(filter) => self.visit(&filter.predicate, Some(&Type::BOOL), &schema),
                LogicalPlan::Join(join) => {
                    for (left, right) in &join.on {
                        self.alike(&[left, right], None, &schema);
                    }
                    if let Some(filter) = &join.filter {
                        self.visit(filter, Some(&Type::BOOL), &schema);
                    }
                }
                LogicalPlan::Values(Values { values, .. }) => {
                    for column in 0..values.first().map_or(0, Vec::len) {
                        let cells: Vec<&Expr> = values.iter().filter_map(|row| row.get(column)).collect();
                        self.alike(&cells, None, &schema);
                    }
                }
                LogicalPlan::Union(union) => {
                    let inputs: Vec<&LogicalPlan> = union.inputs.iter().map(AsRef::as_ref).collect();
                    self.in_columns(&inputs);
                }
                node => {
                    node.apply_expressions(|expr| {
                        self.visit(expr, None, &schema);
                        Ok(TreeNodeRecursion::Continue)
                    })?;
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// The queries of a UNION share the type of each column.
    fn in_columns(&mut self, inputs: &[&LogicalPlan]) {
        let selected = |plan: &LogicalPlan, column: usize| match plan {
            LogicalPlan::Projection(projection) => projection.expr.get(column).cloned(),
            _ => None,
        };
        let columns = inputs.first().map_or(0, |first| first.schema().fields().len());
        for column in 0..columns {
            let typed = inputs.iter().find_map(|plan| match selected(plan, column) {
                Some(expr) => self.type_of(&expr, &merge_schema(&plan.inputs())),
                None => plan.schema().fields().get(column).and_then(|field| told(pg_type(field).ok()?)),
            });
            for plan in inputs {
                if let Some(expr) = selected(plan, column) {
                    self.visit(&expr, typed.as_ref(), &merge_schema(&plan.inputs()));
                }
            }
        }
    }

    /// The type of an expression, if it has one without its surroundings.
    fn type_of(&self, expr: &Expr, schema: &DFSchema) -> Option<Type> {
        match expr {
            Expr::Alias(Alias { expr, .. }) => self.type_of(expr, schema),
            Expr::Placeholder(placeholder) => number(placeholder).and_then(|number| self.0.get(&number).cloned()),
            Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, metadata) if metadata.is_none() => None,
            Expr::Literal(ScalarValue::Int64(Some(value)), _) if i32::try_from(*value).is_ok() => Some(Type::INT4),
            expr if yields_jsonb(expr, schema) => Some(Type::JSONB),
            expr => {
                let (_, field) = expr.to_field(schema).ok()?;
                if field.data_type().is_null() { None } else { told(pg_type(&field).ok()?) }
            }
        }
    }

    fn visit(&mut self, expr: &Expr, wanted: Option<&Type>, schema: &DFSchema) {
        match expr {
            Expr::Placeholder(placeholder) => {
                if let (Some(number), Some(wanted)) = (number(placeholder), wanted) {
                    self.0.entry(number).or_insert_with(|| wanted.clone());
                }
            }
            Expr::Alias(Alias { expr, .. }) => self.visit(expr, wanted, schema),
            Expr::Negative(operand) => self.visit(operand, wanted, schema),
            Expr::Not(operand)
            | Expr::IsTrue(operand)
            | Expr::IsFalse(operand)
            | Expr::IsNotTrue(operand)
            | Expr::IsNotFalse(operand)
            | Expr::IsUnknown(operand)
            | Expr::IsNotUnknown(operand) => self.visit(operand, Some(&Type::BOOL), schema),
            Expr::BinaryExpr(binary) => self.in_binary(binary, wanted, schema),
            Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
                self.all([expr.as_ref(), pattern.as_ref()], &Type::TEXT, schema);
            }
            Expr::Between(Between { expr, low, high, .. }) => self.alike(&[expr, low, high], None, schema),
            Expr::InList(InList { expr, list, .. }) => {
                let all: Vec<&Expr> = std::iter::once(expr.as_ref()).chain(list).collect();
                self.alike(&all, None, schema);
            }
            Expr::InSubquery(InSubquery { expr, subquery, .. })
            | Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
                let column = subquery.subquery.schema().fields().first().cloned();
                let ty = column.filter(|column| !column.data_type().is_null());
                let ty = ty.and_then(|column| told(pg_type(&column).ok()?));
                self.visit(expr, ty.as_ref(), schema);
            }
            Expr::Case(case) => self.in_case(case, wanted, schema),
            Expr::Cast(cast) => {
                let ty = Arc::clone(&cast.field);
                let ty = pg_type(&ty).ok().and_then(told);
                let is_parameter = matches!(cast.expr.as_ref(), Expr::Placeholder(_));
                self.visit(&cast.expr, ty.as_ref().filter(|_| is_parameter), schema);
            }
            Expr::ScalarFunction(call) => self.in_function(call, wanted, schema),
            Expr::AggregateFunction(AggregateFunction { func, params }) => {
                self.in_aggregate(func.name(), &params.args, wanted, schema);
                if let Some(filter) = &params.filter {
                    self.visit(filter, Some(&Type::BOOL), schema);
                }
                params.order_by.iter().for_each(|key| self.visit(&key.expr, None, schema));
            }
            Expr::WindowFunction(call) => {
                let WindowFunction { fun, params } = call.as_ref();
                self.in_aggregate(fun.name(), &params.args, wanted, schema);
                params.partition_by.iter().for_each(|key| self.visit(key, None, schema));
                params.order_by.iter().for_each(|key| self.visit(&key.expr, None, schema));
                if let Some(filter) = &params.filter {
                    self.visit(filter, Some(&Type::BOOL), schema);
                }
            }
            Expr::Unnest(unnest) => self.visit(&unnest.expr, None, schema),
            Expr::IsNull(operand)
            | Expr::IsNotNull(operand)
            | Expr::TryCast(datafusion::logical_expr::TryCast { expr: operand, .. }) => {
                self.visit(operand, None, schema);
            }
            _ => {}
        }
    }

    fn all<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>, ty: &Type, schema: &DFSchema) {
        exprs.into_iter().for_each(|expr| self.visit(expr, Some(ty), schema));
    }

    /// Visits expressions that must have one type: the common type of those whose types are known.
    fn alike(&mut self, exprs: &[&Expr], wanted: Option<&Type>, schema: &DFSchema) {
        let types = exprs.iter().filter_map(|expr| self.type_of(expr, schema));
        let common = types.reduce(wider).or_else(|| wanted.cloned());
        exprs.iter().for_each(|expr| self.visit(expr, common.as_ref(), schema));
    }

    fn in_binary(&mut self, BinaryExpr { left, op, right }: &BinaryExpr, wanted: Option<&Type>, schema: &DFSchema) {
        let types = [self.type_of(left, schema), self.type_of(right, schema)];
        let (for_left, for_right) = match op {
            Operator::And | Operator::Or => (Some(Type::BOOL), Some(Type::BOOL)),
            op if compares(*op) => {
                let [left, right] = types;
                (right, left)
            }
            Operator::StringConcat => {
                let beside = |ty: &Option<Type>| {
                    let kept = ty.clone().filter(|ty| *ty == Type::JSONB || matches!(ty.kind(), Kind::Array(_)));
                    kept.or(Some(Type::TEXT))
                };
                (beside(&types[1]), beside(&types[0]))
            }
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo => {
                let beside =
                    |ty: &Option<Type>| ty.as_ref().and_then(|ty| operand(*op, ty)).or_else(|| wanted.cloned());
                (beside(&types[1]), beside(&types[0]))
            }
            Operator::BitwiseAnd | Operator::BitwiseOr | Operator::BitwiseXor => {
                let [left, right] = types;
                (right, left)
            }
            Operator::BitwiseShiftLeft | Operator::BitwiseShiftRight => (types[1].clone(), Some(Type::INT4)),
            Operator::AtArrow | Operator::ArrowAt => {
                let [left, right] = types;
                (right, left)
            }
            _ => (Some(Type::TEXT), Some(Type::TEXT)),
        };
        self.visit(left, for_left.as_ref(), schema);
        self.visit(right, for_right.as_ref(), schema);
    }

    fn in_case(&mut self, case: &Case, wanted: Option<&Type>, schema: &DFSchema) {
        let conditions = case.when_then_expr.iter().map(|(condition, _)| condition.as_ref());
        match &case.expr {
            Some(operand) => {
                let compared: Vec<&Expr> = std::iter::once(operand.as_ref()).chain(conditions).collect();
                self.alike(&compared, None, schema);
            }
            None => self.all(conditions.collect::<Vec<_>>(), &Type::BOOL, schema),
        }
        let results = case.when_then_expr.iter().map(|(_, result)| result.as_ref()).chain(case.else_expr.as_deref());
        self.alike(&results.collect::<Vec<_>>(), wanted, schema);
    }

    fn in_function(&mut self, call: &ScalarFunction, wanted: Option<&Type>, schema: &DFSchema) {
        let args: Vec<&Expr> = call.args.iter().collect();
        let name = call.name();
        // Arithmetic of numerics and operators of arrays are function calls by now.
        if matches!(
            name,
            "+" | "-"
                | "*"
                | "/"
                | "%"
                | "arraycontains"
                | "arrayoverlap"
                | "coalesce"
                | "nullif"
                | "greatest"
                | "least"
                | "mod"
                | "gcd"
                | "lcm"
                | "div"
        ) {
            return self.alike(&args, wanted, schema);
        }
        if (name.starts_with("any_") || name.starts_with("all_"))
            && let [value, array] = args.as_slice()
        {
            let element = match self.type_of(array, schema).as_ref().map(Type::kind) {
                Some(Kind::Array(element)) => told(element.clone()),
                _ => None,
            };
            let list = self.type_of(value, schema).as_ref().and_then(array_of);
            self.visit(value, element.as_ref(), schema);
            return self.visit(array, list.as_ref(), schema);
        }
        if name == "__series" {
            let ends: Vec<&Expr> = args.iter().copied().take(2).collect();
            let typed: Vec<Type> = args.iter().filter_map(|arg| self.type_of(arg, schema)).collect();
            let is_time = |ty: &Type| matches!(*ty, Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::DATE);
            if typed.iter().any(is_time) {
                self.alike(&ends, None, schema);
                return args.iter().skip(2).for_each(|step| self.visit(step, Some(&Type::INTERVAL), schema));
            }
            return self.alike(&args, None, schema);
        }
        let first = args.first().and_then(|first| self.type_of(first, schema));
        for (index, argument) in args.iter().enumerate() {
            let ty = argument_type(name, index, args.len(), first.as_ref());
            self.visit(argument, ty.as_ref(), schema);
        }
    }

    /// Visits the arguments of an aggregate or a window function.
    fn in_aggregate(&mut self, name: &str, args: &[Expr], wanted: Option<&Type>, schema: &DFSchema) {
        let first = args.first().and_then(|first| self.type_of(first, schema));
        for (index, argument) in args.iter().enumerate() {
            let ty = match (name, index) {
                ("bool_and" | "bool_or", 0) => Some(Type::BOOL),
                ("approx_percentile_cont", 1) => Some(Type::FLOAT8),
                ("string_agg", 1) => Some(Type::TEXT),
                ("ntile", 0) | ("lag" | "lead" | "nth_value", 1) => Some(Type::INT4),
                ("lag" | "lead", 2) => first.clone(),
                ("min" | "max" | "first_value" | "last_value", 0) => wanted.cloned(),
                _ => None,
            };
            self.visit(argument, ty.as_ref(), schema);
        }
    }
}

fn number(placeholder: &Placeholder) -> Option<usize> {
    placeholder.id.strip_prefix('$')?.parse().ok()
}

/// The type that a client is told: all types of text become `text`.
fn told(ty: Type) -> Option<Type> {
    Some(match ty {
        Type::VARCHAR => Type::TEXT,
        Type::VARCHAR_ARRAY => Type::TEXT_ARRAY,
        ty => ty,
    })
}

fn array_of(element: &Type) -> Option<Type> {
    Some(match *element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::TEXT | Type::VARCHAR | Type::NAME => Type::TEXT_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        _ => return None,
    })
}

/// The one of two types that both can be converted to.
fn wider(one: Type, other: Type) -> Type {
    const NUMBERS: [Type; 6] = [Type::INT2, Type::INT4, Type::INT8, Type::NUMERIC, Type::FLOAT4, Type::FLOAT8];
    const TIMES: [Type; 3] = [Type::DATE, Type::TIMESTAMP, Type::TIMESTAMPTZ];
    let widest = |types: &[Type]| {
        let place = |ty: &Type| types.iter().position(|known| known == ty);
        let (first, second) = (place(&one)?, place(&other)?);
        Some(types[first.max(second)].clone())
    };
    widest(&NUMBERS).or_else(|| widest(&TIMES)).unwrap_or(one)
}

/// The type of an arithmetic operand whose other operand has type `other`.
fn operand(op: Operator, other: &Type) -> Option<Type> {
    let (adds, subtracts) = (op == Operator::Plus, op == Operator::Minus);
    Some(match *other {
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME if adds => Type::INTERVAL,
        Type::DATE if adds => Type::INT4,
        Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::TIME | Type::DATE if subtracts => other.clone(),
        Type::INTERVAL if adds || subtracts => Type::INTERVAL,
        Type::INTERVAL => Type::FLOAT8,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 | Type::JSONB => {
            other.clone()
        }
        _ => return None,
    })
}

/// The type of a function's argument, for functions whose arguments need not have one type.
fn argument_type(name: &str, index: usize, count: usize, first: Option<&Type>) -> Option<Type> {
    let element = || match first.map(Type::kind) {
        Some(Kind::Array(element)) => told(element.clone()),
        _ => None,
    };
    Some(match (name, index) {
        ("round" | "trunc", 0) if count == 2 => Type::NUMERIC,
        ("round" | "trunc" | "abs" | "ceil" | "floor" | "sign" | "sqrt" | "cbrt" | "exp" | "ln" | "power", _)
            if index == 0 || name == "power" =>
        {
            Type::FLOAT8
        }
        (
            "sin" | "cos" | "tan" | "asin" | "acos" | "atan" | "atan2" | "sinh" | "cosh" | "tanh" | "degrees"
            | "radians" | "log" | "log10" | "log2",
            _,
        ) => Type::FLOAT8,
        ("__percentile_cont" | "__percentile_disc", 0) => Type::FLOAT8,
        ("round" | "trunc", 1) => Type::INT4,
        ("substr" | "substring" | "left" | "right" | "repeat" | "overlay", 1..) if name != "overlay" || index > 1 => {
            Type::INT4
        }
        ("lpad" | "rpad", 1) | ("split_part", 2) | ("array_length" | "array_lower" | "array_upper", 1) => Type::INT4,
        ("array_element", 1) | ("make_date" | "chr", _) | ("jsonb_array_element", 1) => Type::INT4,
        ("array_append" | "array_position" | "array_positions" | "array_remove" | "array_has", 1) => element()?,
        ("array_prepend", 0) => return None,
        ("array_cat" | "array_concat", _) => first?.clone(),
        ("make_array", _) => first?.clone(),
        ("date_bin", 0) => Type::INTERVAL,
        ("date_bin", 2) => first.filter(|ty| **ty != Type::INTERVAL)?.clone(),
        ("timezone", 1) => Type::TIMESTAMPTZ,
        ("to_timestamp", 0) if count == 1 => Type::FLOAT8,
        ("encode" | "sha224" | "sha256" | "sha384" | "sha512" | "convert_from", 0) => Type::BYTEA,
        ("to_char" | "date_part" | "extract", 0) => return None,
        (name, 0) if name.starts_with("__jsonb") || name.starts_with("jsonb") => Type::JSONB,
        ("jsonb_contains" | "jsonb_concat", _) => Type::JSONB,
        ("jsonb_extract_path" | "jsonb_extract_path_text" | "jsonb_exists_any" | "jsonb_exists_all", 1) => {
            Type::TEXT_ARRAY
        }
        ("jsonb_delete_path", 1) => Type::TEXT_ARRAY,
        _ => Type::TEXT,
    })
}
