//! `PREPARE name [(types)] AS query` and `EXECUTE name [(arguments)]`.

use std::ops::ControlFlow;

use sqlparser::ast::{self, CastKind, Expr, Value, VisitMut, VisitorMut};
use sqlparser::tokenizer::{Location, Token};

use super::cursor::Cursor;
use super::{Statement, depth};
use crate::error::{Error, sqlstate};

/// A named query with parameters `$1`, `$2`, ….
#[derive(Clone, Debug)]
pub struct Prepare {
    /// Its name.
    pub name: String,
    /// The location of its name.
    pub location: Location,
    /// The types of the first parameters, as far as the statement gives them.
    types: Vec<ast::DataType>,
    query: Box<ast::Statement>,
}

/// The call of a prepared query.
#[derive(Clone, Debug)]
pub struct Execute {
    /// The prepared statement.
    pub name: String,
    /// The location of its name.
    pub location: Location,
    /// The values of `$1`, `$2`, ….
    pub arguments: Vec<Expr>,
}

impl Cursor<'_> {
    pub(super) fn prepare(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let (name, location) = self.name("the name of a prepared statement")?;
        let mut types = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            let read = self.parser.parse_comma_separated(sqlparser::parser::Parser::parse_data_type);
            types = read.map_err(|error| self.lift(error))?;
            self.expect(&Token::RParen)?;
        }
        self.expect_words(&["AS"])?;
        let is_query = matches!(self.peek_word().as_deref(), None | Some("SELECT" | "WITH" | "VALUES"));
        if !is_query {
            return Err(self.unsupported("PREPARE of anything but a query"));
        }
        match self.query()? {
            Statement::Query(query) => Ok(Statement::Prepare(Box::new(Prepare { name, location, types, query }))),
            _ => Err(self.expected("a query")),
        }
    }

    pub(super) fn execute(&mut self) -> Result<Statement, Error> {
        self.parser.advance_token();
        let (name, location) = self.name("the name of a prepared statement")?;
        let mut arguments = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            let read = self.parser.parse_comma_separated(sqlparser::parser::Parser::parse_expr);
            arguments = read.map_err(|error| self.lift(error))?;
            self.expect(&Token::RParen)?;
        }
        self.expect_end()?;
        Ok(Statement::Execute(Box::new(Execute { name, location, arguments })))
    }
}

impl Prepare {
    /// The query, with its parameters.
    pub(super) fn query(&self) -> &ast::Statement {
        &self.query
    }

    /// The query with its parameters replaced by arguments.
    ///
    /// # Errors
    /// `42601` if there are too few or too many.
    pub fn with_arguments(&self, arguments: &[Expr]) -> Result<Box<ast::Statement>, Error> {
        let mut query = self.query.clone();
        let mut parameters = Parameters { prepare: self, arguments, count: self.types.len() };
        let _finished = query.visit(&mut parameters);
        if parameters.count == arguments.len() {
            depth::check(&query)?;
            return Ok(query);
        }
        let message = format!("wrong number of parameters for prepared statement \"{}\"", self.name);
        Err(Error::user(sqlstate::SYNTAX_ERROR, message).with_detail(format!(
            "expected {} parameters but got {}",
            parameters.count,
            arguments.len()
        )))
    }
}

/// Replaces parameters, and counts them.
struct Parameters<'a> {
    prepare: &'a Prepare,
    arguments: &'a [Expr],
    count: usize,
}

impl VisitorMut for Parameters<'_> {
    type Break = ();

    /// Visits an expression after its children, so that placeholders in an argument are left alone.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Value(ast::ValueWithSpan { value: Value::Placeholder(name), .. }) = &*expr else {
            return ControlFlow::Continue(());
        };
        let Some(number) = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok()) else {
            return ControlFlow::Continue(());
        };
        self.count = self.count.max(number);
        let Some(argument) = number.checked_sub(1).and_then(|index| self.arguments.get(index)) else {
            return ControlFlow::Continue(());
        };
        let argument = Box::new(argument.clone());
        *expr = match self.prepare.types.get(number - 1) {
            Some(ty) => {
                Expr::Cast { kind: CastKind::Cast, expr: argument, data_type: ty.clone(), array: false, format: None }
            }
            None => Expr::Nested(argument),
        };
        ControlFlow::Continue(())
    }
}
