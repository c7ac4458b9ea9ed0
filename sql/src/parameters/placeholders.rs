//! Parameters in the text of a statement: `$1`, `$2`, ….

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use postgres_types::Type;
use sqlparser::ast::{
    CastKind, DataType, Expr, LimitClause, Query, Statement, Value, ValueWithSpan, Visit, Visitor, visit_expressions,
    visit_expressions_mut,
};
use sqlparser::tokenizer::Location;

use crate::parser::known_type;
use crate::syntax::oid_type;
use crate::types::pg_type;

/// The protocol counts the values of a statement in 16 bits.
const PARAMETERS_MAX: usize = u16::MAX as usize;

/// The highest `$n` of a statement; 0 if it has none.
///
/// # Errors
/// A placeholder that no value can be bound to, with its location: the protocol counts parameters
/// in 16 bits.
pub(crate) fn count(statement: &Statement) -> Result<usize, (String, Location)> {
    let mut highest = 0;
    let found = visit_expressions(statement, |expr| {
        if let Expr::Value(ValueWithSpan { value: Value::Placeholder(name), span }) = expr {
            match placeholder(expr) {
                Some(number) if (1..=PARAMETERS_MAX).contains(&number) => highest = highest.max(number),
                _ => return ControlFlow::Break((name.clone(), span.start)),
            }
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Continue(()) => Ok(highest),
        ControlFlow::Break(unbound) => Err(unbound),
    }
}

/// The types that a statement's text gives its parameters: `$1::int`, and `LIMIT $2`, for which
/// DataFusion infers nothing.
pub(crate) fn written_types(statement: &Statement) -> HashMap<usize, Type> {
    struct Written(HashMap<usize, Type>);
    impl Visitor for Written {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr: operand, data_type, .. } = expr
                && let Some(number) = placeholder(operand)
                && let Some(ty) =
                    oid_type(data_type).or_else(|| pg_type(&Arc::new(known_type(data_type)?.field(""))).ok())
            {
                self.0.entry(number).or_insert(ty);
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let fetched = query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()).and_then(placeholder);
            self.0.extend(fetched.map(|number| (number, Type::INT8)));
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                let counts = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                self.0.extend(counts.filter_map(placeholder).map(|number| (number, Type::INT8)));
            }
            ControlFlow::Continue(())
        }
    }
    let mut written = Written(HashMap::new());
    let _finished = Visit::visit(statement, &mut written);
    written.0
}

/// Casts each parameter `$n` to its type. A parameter for which `type_of` returns `None` stays as
/// it is.
pub(crate) fn cast_parameters(statement: &mut Statement, type_of: impl Fn(usize) -> Option<DataType>) {
    // Children are visited before their parents, so the operand of a new cast is not visited again.
    let _finished = visit_expressions_mut(statement, |expr| {
        if let Some(data_type) = placeholder(expr).and_then(&type_of) {
            let operand = Box::new(expr.clone());
            *expr = Expr::Cast { kind: CastKind::Cast, expr: operand, data_type, array: false, format: None };
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The number of a placeholder.
fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}
