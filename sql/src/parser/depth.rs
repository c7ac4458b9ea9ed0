//! Limits how deeply statements nest.
//!
//! A syntax tree is cloned, dropped and planned recursively, and a stack overflow ends the process.
//! sqlparser limits its own recursion, but it reads a chain such as `a OR b OR …` in a loop, and
//! the resulting tree is as deep as the chain is long. Invariant: no statement leaves the parser
//! whose tree is deeper than [`DEPTH_MAX`].

use std::ops::ControlFlow;

use sqlparser::ast::{self, ArrayElemTypeDef, DataType, Expr, Query, SetExpr, TableFactor, Visit, Visitor};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::Statement;
use crate::error::{Error, sqlstate};

/// Deeper trees are refused. The evaluation of expressions determines this limit, not the parser:
/// in a build without optimisation, 950 levels overflow a stack of two mebibytes.
const DEPTH_MAX: usize = 250;

/// A statement whose tree could become deeper than this is not parsed at all, because parsing it
/// would need too large a stack.
const BOUND_MAX: usize = 20_000;

/// The stack that one level of a tree needs while it is built, measured and dropped, in bytes.
const LEVEL_BYTES: usize = 2 << 10;

/// The stack that suffices for the parser's deepest recursion, in bytes.
const PARSER_BYTES: usize = 1 << 20;

/// Parses a statement whose tokens have the given [`bound`], on a stack that is large enough.
///
/// # Errors
/// The parser's; `54001` if the statement nests too deeply.
pub(super) fn within(bound: usize, parse: impl FnOnce() -> Result<Statement, Error>) -> Result<Statement, Error> {
    if bound > BOUND_MAX {
        return Err(too_deep());
    }
    if bound <= DEPTH_MAX {
        return parse();
    }
    let bytes = PARSER_BYTES + bound * LEVEL_BYTES;
    stacker::maybe_grow(bytes, bytes, || {
        let statement = parse()?;
        // A tree that is too deep must be dropped on this stack as well.
        if depth(&statement).unwrap_or(bound) > DEPTH_MAX { Err(too_deep()) } else { Ok(statement) }
    })
}

pub(super) fn too_deep() -> Error {
    Error::user(sqlstate::STATEMENT_TOO_COMPLEX, "the statement is nested too deeply")
        .with_hint("in place of a long chain of OR write IN (…)")
}

/// An upper bound of the depth of these tokens' tree. Every level takes at least one token of its
/// own: inside brackets, one of the brackets' tokens; outside, one since the last comma, because a
/// comma ends the nesting on its own level. Only set operations continue across commas.
pub(super) fn bound(tokens: &[TokenWithSpan]) -> usize {
    let (mut deepest, mut outer, mut set_operations) = (0, Vec::new(), 0);
    let mut run = 0;
    let mut outside = 0;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                run += 1;
                outside += run;
                outer.push(run);
                run = 0;
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if let Some(before) = outer.pop() {
                    run = before;
                    outside -= before;
                }
            }
            Token::Comma => run = 0,
            Token::Word(word) => {
                run += 1;
                if matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT) {
                    set_operations += 1;
                }
            }
            _ => run += 1,
        }
        deepest = deepest.max(outside + run);
    }
    deepest + set_operations
}

/// Checks a query that was composed of parsed parts.
///
/// # Errors
/// `54001` if it nests too deeply.
pub(super) fn check(query: &ast::Statement) -> Result<(), Error> {
    let mut depth = Depth::default();
    let _finished = query.visit(&mut depth);
    if depth.deepest > DEPTH_MAX { Err(too_deep()) } else { Ok(()) }
}

/// The depth of a query's tree; `None` if the statement is not a query.
fn depth(statement: &Statement) -> Option<usize> {
    let mut depth = Depth::default();
    let _finished = match statement {
        Statement::Query(query) | Statement::Copy { query, .. } => query.visit(&mut depth),
        Statement::Prepare(prepare) => prepare.query().visit(&mut depth),
        Statement::Declare(declare) => declare.query.visit(&mut depth),
        Statement::CreateView(view) => view.query.visit(&mut depth),
        Statement::Execute(execute) => execute.arguments.visit(&mut depth),
        _ => return None,
    };
    Some(depth.deepest)
}

#[derive(Default)]
struct Depth {
    here: usize,
    deepest: usize,
}

impl Depth {
    fn enter(&mut self, levels: usize) -> ControlFlow<()> {
        self.here += levels;
        self.deepest = self.deepest.max(self.here);
        ControlFlow::Continue(())
    }

    fn leave(&mut self, levels: usize) -> ControlFlow<()> {
        self.here -= levels;
        ControlFlow::Continue(())
    }
}

impl Visitor for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.enter(levels_of_expression(expr))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.leave(levels_of_expression(expr))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.enter(levels_of_factor(factor))
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.leave(levels_of_factor(factor))
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.enter(levels_of_query(query))
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.leave(levels_of_query(query))
    }
}

/// The levels of an expression: one, and those that the syntax tree holds in a list and a plan
/// nests.
fn levels_of_expression(expr: &Expr) -> usize {
    match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => 1 + access_chain.len(),
        Expr::Cast { data_type, .. } => 1 + levels_of_type(data_type),
        Expr::TypedString(typed) => 1 + levels_of_type(&typed.data_type),
        _ => 1,
    }
}

fn levels_of_type(mut data_type: &DataType) -> usize {
    let mut levels = 0;
    while let DataType::Array(
        ArrayElemTypeDef::AngleBracket(element)
        | ArrayElemTypeDef::SquareBracket(element, _)
        | ArrayElemTypeDef::Parenthesis(element),
    ) = data_type
    {
        levels += 1;
        data_type = element;
    }
    levels
}

/// The levels of a query: one, its set operations, and the parts that a plan nests: joins, and
/// tables of a WITH clause.
fn levels_of_query(query: &Query) -> usize {
    let with = query.with.as_ref().map_or(0, |with| with.cte_tables.len());
    let (mut operations, mut joins) = (0, 0);
    let mut bodies = vec![query.body.as_ref()];
    while let Some(body) = bodies.pop() {
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                operations += 1;
                bodies.extend([left.as_ref(), right.as_ref()]);
            }
            SetExpr::Select(select) => joins = joins.max(joined(select)),
            _ => {}
        }
    }
    1 + with + operations + joins
}

fn levels_of_factor(factor: &TableFactor) -> usize {
    match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => 1 + table_with_joins.joins.len(),
        _ => 1,
    }
}

fn joined(select: &ast::Select) -> usize {
    select.from.iter().map(|from| 1 + from.joins.len()).sum()
}
