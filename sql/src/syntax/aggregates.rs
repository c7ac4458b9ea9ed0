//! Aggregates of PostgreSQL that DataFusion lacks, or that have another name there. Those of
//! ordered values become functions of the array of these values.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, Select, SelectItem, Statement, VisitMut,
    VisitorMut,
};

use super::build::{call, cast};
use super::names::item_name;
use crate::error::{Error, sqlstate};
use crate::functions::{JSONB_ARRAY, JSONB_OBJECT, MODE, PERCENTILE_CONT, PERCENTILE_DISC, TO_JSONB};
use crate::parser::{fold, identifiers};

/// Replaces the calls of such aggregates.
///
/// # Errors
/// The user's: a call that lacks an argument or a clause.
pub(super) fn replaced(statement: &mut Statement) -> Result<(), Error> {
    match VisitMut::visit(statement, &mut Calls) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Calls;

impl VisitorMut for Calls {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        ControlFlow::Continue(())
    }

    /// A column that has no name has that of its function.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(Expr::Function(function)) = &*item
                && name(function).is_some_and(|name| Replaced::of(&name).is_some())
            {
                let alias = Ident::with_quote('"', item_name(item));
                let SelectItem::UnnamedExpr(expr) = &*item else { continue };
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(replaced) = name(function).and_then(|name| Replaced::of(&name)) else {
            return ControlFlow::Continue(());
        };
        match replaced.call(function) {
            Ok(replacement) => {
                *expr = replacement;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn name(function: &Function) -> Option<String> {
    identifiers(&function.name)?.last().map(|name| fold(name))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    Every,
    CountDistinct,
    JsonbArray,
    JsonbObject,
    /// An aggregate WITHIN GROUP, and the function in its place.
    WithinGroup(&'static str),
}

impl Replaced {
    fn of(name: &str) -> Option<Replaced> {
        Some(match name {
            "every" => Replaced::Every,
            "approx_count_distinct" => Replaced::CountDistinct,
            "jsonb_agg" | "json_agg" => Replaced::JsonbArray,
            "jsonb_object_agg" | "json_object_agg" => Replaced::JsonbObject,
            "percentile_cont" => Replaced::WithinGroup(PERCENTILE_CONT),
            "percentile_disc" => Replaced::WithinGroup(PERCENTILE_DISC),
            "mode" => Replaced::WithinGroup(MODE),
            _ => return None,
        })
    }

    fn call(self, function: &Function) -> Result<Expr, Error> {
        let name = name(function).unwrap_or_default();
        let arguments = arguments(function, &name)?;
        let counted = |count: usize| match arguments.len() == count {
            true => Ok(()),
            false => Err(Error::user(sqlstate::UNDEFINED_FUNCTION, format!("function {name} takes {count} arguments"))),
        };
        let json = |value: &Expr| cast(call(TO_JSONB, vec![value.clone()]), DataType::Text);
        match self {
            Replaced::Every => {
                counted(1)?;
                Ok(renamed(function, "bool_and", arguments, false))
            }
            Replaced::CountDistinct => {
                counted(1)?;
                Ok(renamed(function, "count", arguments, true))
            }
            Replaced::JsonbArray => {
                counted(1)?;
                refuse_distinct(function, &name)?;
                Ok(call(JSONB_ARRAY, vec![renamed(function, "array_agg", vec![json(&arguments[0])], false)]))
            }
            Replaced::JsonbObject => {
                counted(2)?;
                refuse_distinct(function, &name)?;
                let names = cast(arguments[0].clone(), DataType::Text);
                let names = renamed(function, "array_agg", vec![names], false);
                let values = renamed(function, "array_agg", vec![json(&arguments[1])], false);
                Ok(call(JSONB_OBJECT, vec![names, values]))
            }
            Replaced::WithinGroup(of_values) => {
                counted(usize::from(of_values != MODE))?;
                let mut arguments = arguments;
                arguments.push(within_group(function, &name)?);
                Ok(call(of_values, arguments))
            }
        }
    }
}

fn arguments(function: &Function, name: &str) -> Result<Vec<Expr>, Error> {
    let FunctionArguments::List(list) = &function.args else { return Ok(Vec::new()) };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        _ => Err(Error::user(sqlstate::UNDEFINED_FUNCTION, format!("function {name}(*) does not exist"))),
    };
    list.args.iter().map(argument).collect()
}

fn refuse_distinct(function: &Function, name: &str) -> Result<(), Error> {
    match &function.args {
        FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: Some(DuplicateTreatment::Distinct),
            ..
        }) => Err(Error::unsupported(format!("{name}(DISTINCT …) is not supported yet"))
            .with_hint("remove the duplicates in a sub-query")),
        _ => Ok(()),
    }
}

/// The same call of another aggregate.
fn renamed(function: &Function, name: &str, arguments: Vec<Expr>, distinct: bool) -> Expr {
    let mut function = function.clone();
    function.name = ObjectName::from(vec![Ident::new(name)]);
    if let FunctionArguments::List(list) = &mut function.args {
        let argument = |argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
        list.args = arguments.into_iter().map(argument).collect();
        if distinct {
            list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
        }
    }
    Expr::Function(function)
}

/// The array of the values that an aggregate takes WITHIN GROUP.
fn within_group(function: &Function, name: &str) -> Result<Expr, Error> {
    let [key] = function.within_group.as_slice() else {
        let message = format!("WITHIN GROUP is required for ordered-set aggregate {name}");
        return Err(Error::user(sqlstate::WRONG_OBJECT_TYPE, message).with_hint("write WITHIN GROUP (ORDER BY value)"));
    };
    if function.over.is_some() {
        return Err(Error::unsupported(format!("OVER is not supported for ordered-set aggregate {name}")));
    }
    refuse_distinct(function, name)?;
    let is_there = Expr::IsNotNull(Box::new(key.expr.clone()));
    let filter = match &function.filter {
        Some(filter) => Expr::BinaryOp {
            left: Box::new(is_there),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(filter.clone())),
        },
        None => is_there,
    };
    let Expr::Function(mut collected) = call("array_agg", vec![key.expr.clone()]) else {
        return Err(Error::internal("a call is not a function"));
    };
    if let FunctionArguments::List(list) = &mut collected.args {
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![key.clone()]));
    }
    collected.filter = Some(Box::new(filter));
    Ok(Expr::Function(collected))
}
