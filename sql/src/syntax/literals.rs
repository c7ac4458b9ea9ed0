//! Literals whose type depends on their surroundings, where DataFusion differs from PostgreSQL: a
//! text in LIMIT, and the elements of an array. Also LIKE with an escape character other than the
//! backslash.

use std::ops::ControlFlow;

use sqlparser::ast::{ArrayElemTypeDef, DataType, Expr, LimitClause, Query, Statement, Value, VisitMut, VisitorMut};

use super::build::{call, cast, taken};
use crate::functions::LIKE_ESCAPE;

/// Rewrites the literals whose types the text of a query determines.
pub(super) fn in_statement(statement: &mut Statement) {
    let _finished = VisitMut::visit(statement, &mut Written);
}

struct Written;

impl VisitorMut for Written {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expr
            && let Some(escape) = escape_char.take()
        {
            let written = taken(pattern);
            **pattern = call(LIKE_ESCAPE, vec![written, Expr::Value(escape)]);
        }
        if let Expr::Cast { expr: operand, data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(ty, _)), .. } =
            expr
            && without_length(ty).is_some()
            && let Some(elements) = elements(operand)
        {
            // Each element is cut to the length separately.
            for element in elements {
                let whole = taken(element);
                *element = cast(whole, (**ty).clone());
            }
            if let Some(whole) = without_length(ty) {
                **ty = whole;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
            for count in limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)) {
                if matches!(count, Expr::Value(text) if matches!(text.value, Value::SingleQuotedString(_))) {
                    let text = taken(count);
                    *count = cast(text, DataType::BigInt(None));
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The elements of an array constructor.
fn elements(expr: &mut Expr) -> Option<&mut Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => Some(&mut array.elem),
        _ => None,
    }
}

/// The type of texts of any length, for a type of limited length.
fn without_length(ty: &DataType) -> Option<DataType> {
    match ty {
        DataType::Varchar(Some(_))
        | DataType::CharacterVarying(Some(_))
        | DataType::CharVarying(Some(_))
        | DataType::Char(_)
        | DataType::Character(_) => Some(DataType::Varchar(None)),
        _ => None,
    }
}
